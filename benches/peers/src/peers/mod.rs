//! One file per peer: how it is opened, appended to and read, as its own documentation does it.

pub(crate) mod commitlog;
pub(crate) mod fjall;
pub(crate) mod heed;
pub(crate) mod kafko;
pub(crate) mod khata;
pub(crate) mod limit;
pub(crate) mod mrecordlog;
pub(crate) mod nano_wal;
pub(crate) mod okaywal;
pub(crate) mod raft_engine;
pub(crate) mod redb;
pub(crate) mod rocksdb;
pub(crate) mod seglog;
pub(crate) mod sqlite;
pub(crate) mod tidelog;
pub(crate) mod walrus;
pub(crate) mod yaque;

use crate::peer::{Reader, Result};

/// Records that a reader of a database takes from one read transaction.
const CHUNK: usize = 10_000;

/// What keeps each record under its topic and number.
pub(crate) trait Numbered: Send {
    /// Hands on the records of a topic from this number on, at most [`CHUNK`], and says how many.
    fn some(&self, topic: usize, from: u64, see: &mut impl FnMut(&[u8])) -> Result<usize>;

    /// Hands on the record of the first topic with this number.
    fn one(&self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()>;
}

/// Reads such a one from the first record on.
pub(crate) struct InOrder<N> {
    records: N,
    at: u64,
}

impl<N: Numbered> InOrder<N> {
    fn new(records: N) -> Self {
        InOrder { records, at: 0 }
    }

    fn some(&mut self, topic: usize, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let count = self.records.some(topic, self.at, see)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<N: Numbered> Reader for InOrder<N> {
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        self.some(0, see)
    }

    fn rewind(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }

    fn one(&mut self, number: u64, see: &mut impl FnMut(&[u8])) -> Result<()> {
        self.records.one(number, see)
    }

    fn topic(&mut self, topic: usize, see: &mut impl FnMut(&[u8])) -> Result<()> {
        self.at = 0;
        while self.some(topic, see)? > 0 {}
        Ok(())
    }
}

/// The key of a record in a database, where a topic is a prefix: in the order of topics, and of numbers within.
fn key(topic: usize, number: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&(topic as u32).to_be_bytes());
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}
