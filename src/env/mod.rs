//! The world, behind one seam: a clock, a storage, a scheduler and a seed.
//!
//! Everything in the library that is not arithmetic goes through an [`Env`]. The real one uses files,
//! threads and the system's clocks. The simulated one keeps a disk in memory that forgets what was not
//! synced, a clock that moves only when everybody waits, and a scheduler that runs one member at a time.
//! The code above runs unchanged on both.

pub(crate) mod clock;
#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod fork;
pub(crate) mod point;
pub(crate) mod random;
pub(crate) mod refusals;
pub(crate) mod scheduling;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod sim;
pub(crate) mod storage;

use std::path::Path;
use std::sync::Arc;

use crate::env::clock::{Clock, SystemClock};
use crate::env::fork::ForkGuard;
use crate::env::refusals::Refusals;
use crate::env::scheduling::{Scheduler, Threads};
#[cfg(any(test, feature = "sim"))]
use crate::env::sim::SimClock;
use crate::env::storage::Storage;
use crate::env::storage::disk::Disk;
#[cfg(any(test, feature = "sim"))]
use crate::env::storage::sim::SimDisk;
use crate::error::{Error, Result};

/// What a log needs of the world.
#[derive(Clone, Debug)]
pub(crate) struct Env {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) scheduler: Arc<dyn Scheduler>,
    pub(crate) fork: Arc<ForkGuard>,
    /// Whether sealed segments are copied to be read, and not mapped.
    pub(crate) copy_reads: bool,
    /// What a test wants to fail.
    pub(crate) refusals: Refusals,
    /// The only source of randomness: identities of logs and topics are drawn from it.
    pub(crate) seed: u64,
}

impl Env {
    /// Files below `root`, the system's clocks, threads.
    ///
    /// # Errors
    ///
    /// [`NotALog`](crate::error::Error::NotALog) if `root` is missing and not to be created;
    /// [`Io`](crate::error::Error::Io) if it is not a directory, or cannot be made one.
    pub(crate) fn real(root: &Path, create: bool) -> Result<Env> {
        Ok(Env {
            clock: Arc::new(SystemClock::new()),
            storage: Arc::new(Disk::open(root, create)?),
            scheduler: Arc::new(Threads::new()),
            fork: Arc::new(ForkGuard::new()),
            copy_reads: false,
            refusals: Refusals::default(),
            seed: clock::random_seed(),
        })
    }

    /// A disk in memory, a clock that moves only when everybody waits, one member at a time.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn simulated(disk: Arc<SimDisk>, clock: Arc<SimClock>, scheduler: Arc<dyn Scheduler>, seed: u64) -> Env {
        let (fork, refusals) = (Arc::new(ForkGuard::Never), Refusals::default());
        Env { clock, storage: disk, scheduler, fork, copy_reads: false, refusals, seed }
    }

    /// Refuses to work in a child of the process that opened the log: before any lock, which nobody may be left to give
    /// back.
    #[inline]
    pub(crate) fn check_not_forked(&self) -> Result<()> {
        if self.fork.is_child() { Err(Error::Forked) } else { Ok(()) }
    }
}
