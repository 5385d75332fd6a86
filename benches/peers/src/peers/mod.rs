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

/// Records that a reader of a database takes from one read transaction.
const CHUNK: usize = 10_000;

/// The key of a record in a database, where a topic is a prefix: in the order of topics, and of numbers within.
fn key(topic: usize, number: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&(topic as u32).to_be_bytes());
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}
