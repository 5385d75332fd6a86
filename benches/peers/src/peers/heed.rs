//! heed: LMDB, a B-tree in a mapped file.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, WithTls};

use crate::peer::{About, Mode, Peer, Result, Setup, Syncs, Writer};
use crate::peers::{CHUNK, InOrder, Numbered, key};

/// Address space for a page or two around each record, and to begin with.
const LEAST_MAP_BYTES: usize = 1 << 30;

type Records = Database<'static, Bytes, Bytes>;

pub(crate) struct Peered {
    env: Env<WithTls>,
    records: Records,
    next: Arc<Vec<AtomicU64>>,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "heed",
        mode: "LMDB with `NO_SYNC`, a transaction for each append",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back, and maybe the whole file: nothing keeps the order",
        synced: "LMDB as it is by default: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = InOrder<Reading>;

    fn open(setup: &Setup) -> Result<Self> {
        std::fs::create_dir_all(&setup.directory)?;
        let mut options = EnvOpenOptions::new();
        let map_bytes = LEAST_MAP_BYTES + 4 * setup.payload_bytes().next_multiple_of(1 << 16);
        options.map_size(map_bytes).max_readers(128);
        if setup.mode == Mode::Kill {
            // SAFETY: with `NO_SYNC` a power cut may damage the file, which is then not opened again: the file is of
            // this benchmark and deleted at its end.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: the directory is of this process alone, which opens it once, and nobody else changes the mapped file.
        let env = unsafe { options.open(&setup.directory) }?;
        let created = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
            opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
        })?;
        let records = created.unwrap_commit();
        let next = (0..setup.topics.max(1)).map(|_| AtomicU64::new(0)).collect();
        Ok(Peered { env, records, next: Arc::new(next) })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { env: self.env.clone(), records: self.records, next: Arc::clone(&self.next) })
    }

    fn reader(&mut self) -> Result<InOrder<Reading>> {
        Ok(InOrder::new(Reading { env: self.env.clone(), records: self.records }))
    }
}

pub(crate) struct Appender {
    env: Env<WithTls>,
    records: Records,
    next: Arc<Vec<AtomicU64>>,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_batch(&[record])
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        // In a transaction, of which there is one at a time, so that the numbers are in the order of the commits.
        let first = self.next[0].fetch_add(records.len() as u64, Ordering::Relaxed);
        for (number, record) in (first..).zip(records) {
            self.records.put_with_flags(&mut transaction, PutFlags::APPEND, &key(0, number), record)?;
        }
        Ok(transaction.commit()?)
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        let number = self.next[topic].fetch_add(1, Ordering::Relaxed);
        self.records.put(&mut transaction, &key(topic, number), record)?;
        Ok(transaction.commit()?)
    }
}

pub(crate) struct Reading {
    env: Env<WithTls>,
    records: Records,
}

impl Numbered for Reading {
    fn some(&self, topic: usize, from: u64, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let transaction = self.env.read_txn()?;
        let (first, end) = (key(topic, from), key(topic + 1, 0));
        let mut count = 0;
        let range = (Bound::Included(&first[..]), Bound::Excluded(&end[..]));
        for entry in self.records.range(&transaction, &range)?.take(CHUNK) {
            see(entry?.1);
            count += 1;
        }
        Ok(count)
    }

    fn one(&self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let transaction = self.env.read_txn()?;
        see(self.records.get(&transaction, &key(0, number))?.ok_or("there is no such record")?);
        Ok(())
    }
}
