//! fjall: a log-structured merge tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::peer::{About, Mode, Peer, Result, Setup, Syncs, Writer};
use crate::peers::{CHUNK, InOrder, Numbered, key};

pub(crate) struct Peered {
    database: Database,
    records: Keyspace,
    next: Arc<Vec<AtomicU64>>,
    mode: Mode,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "fjall",
        mode: "`insert`, which writes its journal before it returns",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back",
        synced: "`insert`, then `persist(SyncData)`: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = InOrder<Reading>;

    fn open(setup: &Setup) -> Result<Self> {
        let database = Database::builder(&setup.directory).open()?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
        let next = (0..setup.topics.max(1)).map(|_| AtomicU64::new(0)).collect();
        Ok(Peered { database, records, next: Arc::new(next), mode: setup.mode })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender {
            database: self.database.clone(),
            records: self.records.clone(),
            next: Arc::clone(&self.next),
            mode: self.mode,
        })
    }

    fn reader(&mut self) -> Result<InOrder<Reading>> {
        Ok(InOrder::new(Reading { records: self.records.clone() }))
    }
}

pub(crate) struct Appender {
    database: Database,
    records: Keyspace,
    next: Arc<Vec<AtomicU64>>,
    mode: Mode,
}

impl Appender {
    fn persist(&self) -> Result<()> {
        if self.mode == Mode::PowerCut {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_to(0, record)
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let first = self.next[0].fetch_add(records.len() as u64, Ordering::Relaxed);
        let mut batch = self.database.batch();
        for (number, record) in (first..).zip(records) {
            batch.insert(&self.records, key(0, number), *record);
        }
        batch.commit()?;
        self.persist()
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        self.records.insert(key(topic, self.next[topic].fetch_add(1, Ordering::Relaxed)), record)?;
        self.persist()
    }
}

pub(crate) struct Reading {
    records: Keyspace,
}

impl Numbered for Reading {
    fn some(&self, topic: usize, from: u64, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let mut count = 0;
        for guard in self.records.range(key(topic, from)..key(topic + 1, 0)).take(CHUNK) {
            see(&guard.value()?);
            count += 1;
        }
        Ok(count)
    }

    fn one(&self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        see(&self.records.get(key(0, number))?.ok_or("there is no such record")?);
        Ok(())
    }
}
