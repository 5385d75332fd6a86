//! Who is compared, and in what.

use std::path::Path;

use crate::peer::{About, Peer, Result};
use crate::peers::{
    commitlog, fjall, heed, kafko, khata, limit, mrecordlog, nano_wal, okaywal, raft_engine, redb, rocksdb, seglog,
    sqlite, tidelog, walrus, yaque,
};
use crate::work::{Effort, Measured, Row, measure};

/// A peer, its type forgotten.
#[derive(Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) about: About,
    pub(crate) measure: fn(Row, &Path, &Effort) -> Result<Measured>,
}

fn contender<P: Peer>() -> Contender {
    Contender { about: P::ABOUT, measure: measure::<P> }
}

/// The limit first, then tidelog, then the logs and queues, then the databases.
pub(crate) fn roster() -> Vec<Contender> {
    vec![
        contender::<limit::Limit>(),
        contender::<tidelog::Tidelog>(),
        contender::<commitlog::Peered>(),
        contender::<kafko::Peered>(),
        contender::<khata::Peered>(),
        contender::<mrecordlog::Peered>(),
        contender::<nano_wal::Peered>(),
        contender::<okaywal::Peered>(),
        contender::<raft_engine::Peered>(),
        contender::<seglog::Peered>(),
        contender::<walrus::Peered>(),
        contender::<yaque::Peered>(),
        contender::<fjall::Peered>(),
        contender::<heed::Peered>(),
        contender::<redb::Peered>(),
        contender::<rocksdb::Peered>(),
        contender::<sqlite::Peered>(),
    ]
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds, for a record: the fewer the better.
    NanosPerRecord,
    /// Records in a second: the more the better.
    RecordsPerSecond,
    /// The time of the whole, in milliseconds: the shorter the better.
    Millis,
}

/// The table that a column belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Append,
    Sync,
    Read,
    Open,
}

/// A piece of work, which is a column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// The name on the command line.
    pub(crate) key: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) table: Table,
    pub(crate) row: Row,
    pub(crate) unit: Unit,
}

const fn append(key: &'static str, heading: &'static str, record_bytes: usize, records_per_batch: usize) -> Column {
    let row = Row::Append { record_bytes, records_per_batch };
    Column { key, heading, table: Table::Append, row, unit: Unit::NanosPerRecord }
}

const fn sync(key: &'static str, heading: &'static str, threads: usize) -> Column {
    Column { key, heading, table: Table::Sync, row: Row::Sync { threads }, unit: Unit::RecordsPerSecond }
}

const fn read(key: &'static str, heading: &'static str, row: Row) -> Column {
    Column { key, heading, table: Table::Read, row, unit: Unit::NanosPerRecord }
}

pub(crate) const COLUMNS: &[Column] = &[
    append("append-100", "100 B", 100, 1),
    append("append-100x100", "100 B x100", 100, 100),
    append("append-1k", "1 KiB", 1024, 1),
    append("append-1kx100", "1 KiB x100", 1024, 100),
    sync("sync-1", "1 thread", 1),
    sync("sync-8", "8 threads", 8),
    sync("sync-64", "64 threads", 64),
    read("in-order", "in order", Row::InOrder),
    read("by-offset", "one by its offset", Row::ByOffset),
    read("follow", "producer to consumer", Row::Follow),
    Column {
        key: "reopen",
        heading: "open after kill -9, ms",
        table: Table::Open,
        row: Row::Reopen { acknowledged: 0 },
        unit: Unit::Millis,
    },
    Column {
        key: "topics",
        heading: "append to 1,000 topics, ns",
        table: Table::Open,
        row: Row::Topics,
        unit: Unit::NanosPerRecord,
    },
];
