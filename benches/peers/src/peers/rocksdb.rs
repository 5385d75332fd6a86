//! RocksDB: a log-structured merge tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{DB, Direction, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions};

use crate::peer::{About, Mode, Peer, Result, Setup, Syncs, Writer};
use crate::peers::{CHUNK, InOrder, Numbered, key};

pub(crate) struct Peered {
    database: Arc<DB>,
    next: Arc<Vec<AtomicU64>>,
    mode: Mode,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "rocksdb",
        mode: "`put`, which writes its log before it returns",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back",
        synced: "`WriteOptions::set_sync(true)`, one sync for all who write: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = InOrder<Reading>;

    fn open(setup: &Setup) -> Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        let database = Arc::new(DB::open(&options, &setup.directory)?);
        let next = (0..setup.topics.max(1)).map(|_| AtomicU64::new(0)).collect();
        Ok(Peered { database, next: Arc::new(next), mode: setup.mode })
    }

    fn writer(&mut self) -> Result<Appender> {
        let mut options = WriteOptions::default();
        options.set_sync(self.mode == Mode::PowerCut);
        Ok(Appender { database: Arc::clone(&self.database), next: Arc::clone(&self.next), options })
    }

    fn reader(&mut self) -> Result<InOrder<Reading>> {
        Ok(InOrder::new(Reading { database: Arc::clone(&self.database) }))
    }
}

pub(crate) struct Appender {
    database: Arc<DB>,
    next: Arc<Vec<AtomicU64>>,
    options: WriteOptions,
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_to(0, record)
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let first = self.next[0].fetch_add(records.len() as u64, Ordering::Relaxed);
        let mut batch = WriteBatch::default();
        for (number, record) in (first..).zip(records) {
            batch.put(key(0, number), record);
        }
        Ok(self.database.write_opt(batch, &self.options)?)
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        let number = self.next[topic].fetch_add(1, Ordering::Relaxed);
        Ok(self.database.put_opt(key(topic, number), record, &self.options)?)
    }
}

pub(crate) struct Reading {
    database: Arc<DB>,
}

impl Numbered for Reading {
    fn some(&self, topic: usize, from: u64, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let first = key(topic, from);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(key(topic + 1, 0));
        let mut count = 0;
        for entry in self.database.iterator_opt(IteratorMode::From(&first, Direction::Forward), options).take(CHUNK) {
            see(&entry?.1);
            count += 1;
        }
        Ok(count)
    }

    fn one(&self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        see(&self.database.get_pinned(key(0, number))?.ok_or("there is no such record")?);
        Ok(())
    }
}
