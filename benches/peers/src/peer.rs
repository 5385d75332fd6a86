//! What a peer must offer, and what is said of it.
//!
//! A peer hands out *writers* and *readers* that own what they need, so that each may go to a thread of its own. Where a
//! peer's own interface wants `&mut`, its writer takes a lock, as any program with two threads would have to.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::thread;

/// Whatever goes wrong in a peer: it becomes a cell of a table, and a line below.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What a record that was appended survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The death of the process; a power cut takes what the kernel had not written back.
    Kill,
    /// A power cut too.
    PowerCut,
}

/// When a peer syncs without having been asked to: it has no cheaper way to survive the death of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syncs {
    /// Never.
    AsAsked,
    /// After each batch, not after a record on its own.
    Batches,
    /// After each append.
    Always,
}

/// A peer in words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    /// The package, as the lock file names it.
    pub(crate) package: &'static str,
    /// How it is used in the tables of [`Mode::Kill`].
    pub(crate) mode: &'static str,
    /// What kill -9 takes in that mode.
    pub(crate) kill_takes: &'static str,
    /// What a power cut takes in that mode.
    pub(crate) power_cut_takes: &'static str,
    /// How it is used where each record is synced ([`Mode::PowerCut`]), and what a power cut takes then.
    pub(crate) synced: &'static str,
    pub(crate) syncs: Syncs,
}

/// Where a peer lives, and how much will come.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) directory: PathBuf,
    pub(crate) mode: Mode,
    pub(crate) record_bytes: usize,
    pub(crate) records_per_batch: usize,
    /// At most so many records, for those who must say beforehand how large they get.
    pub(crate) records: usize,
    /// How many topics there are; 0: a single one, and nothing is known of topics.
    pub(crate) topics: usize,
}

impl Setup {
    /// Bytes of all records that may come.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.records * self.record_bytes
    }
}

/// An open log, or what is used as one.
pub(crate) trait Peer: Sized {
    const ABOUT: About;

    /// Records that are best appended together where only the result counts.
    const FILL_BATCH: usize = 100;

    type Writer: Writer;
    type Reader: Reader;

    /// Opens what lies in the directory, or creates it.
    fn open(setup: &Setup) -> Result<Self>;

    /// One more writer.
    fn writer(&mut self) -> Result<Self::Writer>;

    /// A reader that begins at the first record, or a queue's receiver.
    fn reader(&mut self) -> Result<Self::Reader>;

    /// Hands on every record that there is, in order, by whatever way is not hopeless.
    fn read_back(&mut self, see: &mut impl FnMut(&[u8])) -> Result<()> {
        let mut reader = self.reader()?;
        while reader.next(see)? > 0 {}
        Ok(())
    }
}

/// Appends. When a call has returned, its records survive what the [`Mode`] says.
pub(crate) trait Writer: Send {
    fn append(&mut self, record: &[u8]) -> Result<()>;

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()>;

    fn append_to(&mut self, _topic: usize, _record: &[u8]) -> Result<()> {
        unsupported("knows no topics")
    }
}

/// Reads on from where it is.
pub(crate) trait Reader: Send {
    /// Hands on some of the records that come next, as many as is good for the peer, and says how many; 0: no more for now.
    fn next(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize>;

    /// As [`Reader::next`], but may wait a while for a record to come.
    fn next_or_wait(&mut self, see: &mut impl FnMut(&[u8])) -> Result<usize> {
        let count = self.next(see)?;
        if count == 0 {
            thread::yield_now();
        }
        Ok(count)
    }

    /// Goes back to the first record.
    fn rewind(&mut self) -> Result<()> {
        unsupported("a queue: what was read is gone")
    }

    /// Hands on the record with this number.
    fn one(&mut self, _number: u64, _see: &mut impl FnMut(&[u8])) -> Result<()> {
        unsupported("reads in order only")
    }

    /// Hands on all records of a topic.
    fn topic(&mut self, _topic: usize, _see: &mut impl FnMut(&[u8])) -> Result<()> {
        unsupported("knows no topics")
    }
}

/// The peer cannot do this, and why.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) &'static str);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Unsupported {}

pub(crate) fn unsupported<T>(why: &'static str) -> Result<T> {
    Err(Box::new(Unsupported(why)))
}
