//! A simulated machine for tests: the real log on a disk in memory, under a clock that moves only when told, or when
//! everybody waits.
//!
//! Nothing of the log is replaced but what is below it. A [`Machine`] is one life of it: [`kill`](Machine::kill) and
//! [`power_cut`](Machine::power_cut) begin the next, with what a real disk could hold then. The same seed and the
//! same calls give the same lives, always.
//!
//! ```
//! # fn main() -> tidelog::Result<()> {
//! use tidelog::sim::{Machine, PowerCut};
//! use tidelog::{LogConfig, ProducerRecord, TopicConfig};
//!
//! let machine = Machine::new(7);
//! let log = machine.open(LogConfig::new().background(false))?;
//! log.create_topic("orders", TopicConfig::new())?;
//! log.producer().send(ProducerRecord::new("orders", b"paid 12.50"))?.wait()?;
//!
//! let machine = machine.power_cut(PowerCut::LoseUnsynced);
//! let log = machine.open(LogConfig::new())?;
//! assert_eq!(log.describe_topic("orders")?.partitions[0].log_end.get(), 1);
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::LogConfig;
use crate::env::Env;
use crate::env::refusals::{Call, Refusals};
use crate::env::sim::{SimClock, SimScheduler};
use crate::env::storage::sim::{Fault, Operation, PowerCut, SimDisk};
use crate::error::{Error, Result};
use crate::event_log::EventLog;
use crate::inspect::{RepairReport, VerifyReport, repair_in, verify_in};
use crate::sim::EPOCH;
use crate::types::Timestamp;

/// One life of a simulated machine with a disk.
#[derive(Debug)]
pub struct Machine {
    disk: Arc<SimDisk>,
    clock: Arc<SimClock>,
    scheduler: Arc<SimScheduler>,
    seed: u64,
    refusals: Refusals,
}

impl Machine {
    /// A machine with an empty disk. Everything that could be one way or the other is drawn from the seed.
    pub fn new(seed: u64) -> Self {
        let clock = SimClock::new(EPOCH);
        let scheduler = SimScheduler::new(Arc::clone(&clock), seed);
        Machine { disk: SimDisk::new(seed), clock, scheduler, seed, refusals: Refusals::default() }
    }

    fn reborn(&self, disk: Arc<SimDisk>) -> Self {
        let seed = self.seed.wrapping_add(1);
        let scheduler = SimScheduler::new(Arc::clone(&self.clock), seed);
        Machine { disk, clock: Arc::clone(&self.clock), scheduler, seed, refusals: Refusals::default() }
    }

    fn env(&self) -> Env {
        let scheduler = Arc::clone(&self.scheduler) as _;
        let env = Env::simulated(Arc::clone(&self.disk), Arc::clone(&self.clock), scheduler, self.seed);
        Env { refusals: self.refusals.clone(), ..env }
    }

    /// The next such call to a log of this machine fails with this.
    pub(crate) fn refuse(&self, call: Call, error: Error) {
        self.refusals.add(call, error);
    }

    /// Opens the log on this machine's disk. With [`background`](LogConfig::background) the worker is a thread that
    /// runs only while everybody else waits.
    ///
    /// # Errors
    ///
    /// As [`EventLog::open_with`], and what faults were set.
    pub fn open(&self, config: LogConfig) -> Result<EventLog> {
        EventLog::open_in(self.env(), config)
    }

    /// Opens a copy of the log, which lies in this directory of the machine, below that of the log.
    ///
    /// # Errors
    ///
    /// As [`EventLog::open_with`].
    pub fn open_copy(&self, path: impl AsRef<Path>, config: LogConfig) -> Result<EventLog> {
        EventLog::open_in(self.env_of_copy(path.as_ref())?, config)
    }

    /// [`inspect::verify`](fn@crate::inspect::verify) of such a copy.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify_copy(&self, path: impl AsRef<Path>) -> Result<VerifyReport> {
        verify_in(&self.env_of_copy(path.as_ref())?, |_| {})
    }

    fn env_of_copy(&self, path: &Path) -> Result<Env> {
        let env = self.env();
        let storage = env.storage.elsewhere(path, false)?;
        Ok(Env { storage, ..env })
    }

    /// Opens the log for reading beside whoever writes it.
    ///
    /// # Errors
    ///
    /// As [`EventLog::open_read_only`].
    pub fn open_read_only(&self) -> Result<EventLog> {
        EventLog::open_read_only_in(self.env())
    }

    /// [`inspect::verify`](fn@crate::inspect::verify) on this machine's disk.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify(&self) -> Result<VerifyReport> {
        verify_in(&self.env(), |_| {})
    }

    /// [`inspect::repair`](fn@crate::inspect::repair) on this machine's disk.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn repair(&self, execute: bool) -> Result<RepairReport> {
        repair_in(&self.env(), execute)
    }

    /// The process dies and the machine goes on: nothing that was accepted is lost. Logs of the old life stay what
    /// they were, and disturb nobody.
    #[must_use]
    pub fn kill(&self) -> Machine {
        self.reborn(self.disk.kill())
    }

    /// The machine loses its power, and is started again.
    #[must_use]
    pub fn power_cut(&self, how: PowerCut) -> Machine {
        self.reborn(self.disk.power_cut(how))
    }

    /// Time goes by.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Time goes by, and everybody else does what is due meanwhile, each at its time.
    pub fn sleep(&self, by: Duration) {
        self.scheduler.sleep(by);
    }

    /// Lets everybody else run until all of them wait, without time going by.
    pub fn settle(&self) {
        self.scheduler.settle();
    }

    /// What the wall clock shows.
    pub fn now(&self) -> Timestamp {
        use crate::env::clock::Clock;
        self.clock.now()
    }

    /// Sets the wall clock; whoever waits does not notice.
    pub fn set_wall_clock(&self, now: Timestamp) {
        self.clock.set_wall(now);
    }

    /// How many calls to the disk there were in this life.
    pub fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// What the calls to the disk were, in this life.
    pub fn trace(&self) -> Vec<(Operation, PathBuf)> {
        self.disk.trace()
    }

    /// Makes a call to the disk fail.
    pub fn fail(&self, fault: Fault) {
        self.disk.fail(fault);
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.disk.heal();
    }

    /// The machine stops at this call to the disk, counted from 0: the call does not happen, all later ones fail, and
    /// the next life begins with that moment.
    pub fn crash_at(&self, operation: u64) {
        self.disk.crash_at(operation);
    }

    /// Whether that has come.
    pub fn has_crashed(&self) -> bool {
        self.disk.has_crashed()
    }

    /// How many bytes the disk has room for; `None`: any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.capacity(bytes);
    }

    /// Whether the kernel writes back, now and then, what nobody asked for. It does, until told not to.
    pub fn set_write_back(&self, write_back: bool) {
        self.disk.write_back(write_back);
    }

    /// The kernel writes a dirty page of a file back, unasked, and fails: the page passes for clean from now on, reads
    /// still show what was stored, and the next sync of the file fails, once. Returns whether there was a dirty page.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file.
    pub fn lose_in_write_back(&self, path: impl AsRef<Path>) -> bool {
        self.disk.lose_in_background(path)
    }

    /// The files on the disk, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.disk.files()
    }

    /// What a file holds.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Vec<u8> {
        self.disk.read_file(path)
    }

    /// Makes a file hold this, on the disk too. Not while the log is open.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.disk.write_file(path, bytes);
    }

    /// Turns one bit of a file over, on the disk too. Not while the log is open.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file or bit.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) {
        self.disk.flip_bit(path, bit);
    }

    /// Removes a file, from the disk too. Not while the log is open.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file.
    pub fn remove_file(&self, path: impl AsRef<Path>) {
        self.disk.remove_file(path);
    }
}
