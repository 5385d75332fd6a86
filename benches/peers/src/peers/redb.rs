//! redb: a copy-on-write B-tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, TableDefinition};

use crate::peer::{About, Peer, Result, Setup, Syncs, Writer};
use crate::peers::{CHUNK, InOrder, Numbered};

/// Topic and number to record.
const RECORDS: TableDefinition<'static, (u32, u64), &[u8]> = TableDefinition::new("records");

pub(crate) struct Peered {
    database: Arc<Database>,
    next: Arc<Vec<AtomicU64>>,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "redb",
        mode: "`Durability::Immediate`, for with `None` a commit is lost with the process",
        kill_takes: "nothing",
        power_cut_takes: "nothing: it syncs each commit",
        synced: "the same: nothing",
        syncs: Syncs::Always,
    };

    type Writer = Appender;
    type Reader = InOrder<Reading>;

    fn open(setup: &Setup) -> Result<Self> {
        std::fs::create_dir_all(&setup.directory)?;
        let database = Database::create(setup.directory.join("records.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.commit()?;
        let next = (0..setup.topics.max(1)).map(|_| AtomicU64::new(0)).collect();
        Ok(Peered { database: Arc::new(database), next: Arc::new(next) })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { database: Arc::clone(&self.database), next: Arc::clone(&self.next) })
    }

    fn reader(&mut self) -> Result<InOrder<Reading>> {
        Ok(InOrder::new(Reading { database: Arc::clone(&self.database) }))
    }
}

pub(crate) struct Appender {
    database: Arc<Database>,
    next: Arc<Vec<AtomicU64>>,
}

impl Appender {
    fn insert(&self, topic: usize, records: &[&[u8]]) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let first = self.next[topic].fetch_add(records.len() as u64, Ordering::Relaxed);
            let mut table = transaction.open_table(RECORDS)?;
            for (number, record) in (first..).zip(records) {
                table.insert((u32::try_from(topic)?, number), *record)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.insert(0, &[record])
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        self.insert(0, records)
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        self.insert(topic, &[record])
    }
}

pub(crate) struct Reading {
    database: Arc<Database>,
}

impl Numbered for Reading {
    fn some(&self, topic: usize, from: u64, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let topic = u32::try_from(topic)?;
        let mut count = 0;
        for entry in table.range((topic, from)..(topic + 1, 0))?.take(CHUNK) {
            see(entry?.1.value());
            count += 1;
        }
        Ok(count)
    }

    fn one(&self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        see(table.get((0, number))?.ok_or("there is no such record")?.value());
        Ok(())
    }
}
