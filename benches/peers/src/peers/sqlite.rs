//! SQLite, by way of rusqlite: a table in write-ahead mode, numbered by topic.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::peer::{About, Mode, Peer, Result, Setup, Syncs, Writer};
use crate::peers::{CHUNK, InOrder, Numbered};

pub(crate) struct Peered {
    file: PathBuf,
    next: Arc<Vec<AtomicU64>>,
    mode: Mode,
}

impl Peer for Peered {
    const ABOUT: About = About {
        package: "rusqlite",
        mode: "SQLite, `journal_mode = WAL`, `synchronous = OFF`, a transaction for each append",
        kill_takes: "nothing",
        power_cut_takes: "what the kernel had not written back, and maybe the whole file: nothing keeps the order",
        synced: "`synchronous = FULL`: nothing",
        syncs: Syncs::AsAsked,
    };

    type Writer = Appender;
    type Reader = InOrder<Reading>;

    fn open(setup: &Setup) -> Result<Self> {
        std::fs::create_dir_all(&setup.directory)?;
        let file = setup.directory.join("records.sqlite");
        connection(&file, setup.mode)?.execute(
            "create table if not exists records (topic integer, number integer, record blob, primary key (topic, number))
             without rowid",
            [],
        )?;
        let next = (0..setup.topics.max(1)).map(|_| AtomicU64::new(0)).collect();
        Ok(Peered { file, next: Arc::new(next), mode: setup.mode })
    }

    fn writer(&mut self) -> Result<Appender> {
        Ok(Appender { connection: connection(&self.file, self.mode)?, next: Arc::clone(&self.next) })
    }

    fn reader(&mut self) -> Result<InOrder<Reading>> {
        Ok(InOrder::new(Reading { connection: connection(&self.file, self.mode)? }))
    }
}

fn connection(file: &Path, mode: Mode) -> Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", if mode == Mode::Kill { "OFF" } else { "FULL" })?;
    Ok(connection)
}

pub(crate) struct Appender {
    connection: Connection,
    next: Arc<Vec<AtomicU64>>,
}

const INSERT: &str = "insert into records values (?1, ?2, ?3)";

impl Writer for Appender {
    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.append_to(0, record)
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let first = self.next[0].fetch_add(records.len() as u64, Ordering::Relaxed);
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for (number, record) in (first..).zip(records) {
                insert.execute(params![0, i64::try_from(number)?, record])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn append_to(&mut self, topic: usize, record: &[u8]) -> Result<()> {
        let number = self.next[topic].fetch_add(1, Ordering::Relaxed);
        let mut insert = self.connection.prepare_cached(INSERT)?;
        insert.execute(params![i64::try_from(topic)?, i64::try_from(number)?, record])?;
        Ok(())
    }
}

pub(crate) struct Reading {
    connection: Connection,
}

impl Numbered for Reading {
    fn some(&self, topic: usize, from: u64, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let mut select = self
            .connection
            .prepare_cached("select record from records where topic = ?1 and number >= ?2 order by number limit ?3")?;
        let mut rows = select.query(params![i64::try_from(topic)?, i64::try_from(from)?, i64::try_from(CHUNK)?])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            see(row.get_ref(0)?.as_blob()?);
            count += 1;
        }
        Ok(count)
    }

    fn one(&self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let mut select =
            self.connection.prepare_cached("select record from records where topic = 0 and number = ?1")?;
        select.query_row([i64::try_from(number)?], |row| {
            see(row.get_ref(0)?.as_blob()?);
            Ok(())
        })?;
        Ok(())
    }
}
