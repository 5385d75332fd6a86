//! The background worker: looks after partitions that need something done in time.
//!
//! Beside them there are *wards*, which must be looked at in time: the groups of the log, whose members have deadlines,
//! whoever knows what topics keep, and whoever compacts them, a little at each look.
//!
//! A partition puts itself on the list when something was appended to it that nobody may be waiting for; it leaves
//! the list when there is nothing more to do. One round over the list is `maintain`; the worker is a loop around that.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::Env;
use crate::env::scheduling::{Bell, Worker};
use crate::error::{Error, Result};
use crate::partition::{Look, Partition, Upkeep};
use crate::types::Offset;

/// Whoever puts a partition on the list rings only if the worker would otherwise sleep longer than this.
const NAP: Duration = Duration::from_millis(2);

/// Something besides partitions that must be looked at in time.
pub(crate) trait Ward: Send + Sync {
    /// Does what the time has come for; returns when something is due next.
    fn look(&self) -> Option<Duration>;
}

/// Whoever knows what topics keep, and writes down what was removed.
pub(crate) trait Retain: Ward {
    /// See [`Upkeep::delete_before`].
    fn delete_before(&self, partition: &Partition, start: Offset) -> Result<()>;

    /// See [`Upkeep::apply_retention`].
    fn apply_retention(&self, partition: &Partition) -> Result<usize>;
}

pub(crate) struct Keeper {
    env: Env,
    list: Mutex<Vec<Arc<Partition>>>,
    ward: OnceLock<Weak<dyn Ward>>,
    retainer: OnceLock<Weak<dyn Retain>>,
    compactor: OnceLock<Weak<dyn Ward>>,
    bell: Bell,
    /// Whether the worker sleeps so long that it must be woken.
    sleeping: AtomicBool,
    stopped: AtomicBool,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({} partitions)", self.list.lock().len())
    }
}

impl Upkeep for Keeper {
    fn look_after(&self, partition: &Arc<Partition>) {
        let mut list = self.list.lock();
        let urgent = list.iter().any(|known| Arc::ptr_eq(known, partition));
        if !urgent {
            list.push(Arc::clone(partition));
        }
        drop(list);
        if urgent || self.sleeping.load(Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    fn delete_before(&self, partition: &Partition, start: Offset) -> Result<()> {
        self.retainer().ok_or(Error::Closed)?.delete_before(partition, start)
    }

    fn apply_retention(&self, partition: &Partition) -> Result<usize> {
        self.retainer().ok_or(Error::Closed)?.apply_retention(partition)
    }
}

impl Keeper {
    pub(crate) fn new(env: Env) -> Self {
        let bell = env.scheduler.bell();
        Keeper {
            env,
            list: Mutex::default(),
            ward: OnceLock::new(),
            retainer: OnceLock::new(),
            compactor: OnceLock::new(),
            bell,
            sleeping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Looks after `ward` too, from now on, for as long as it lives.
    pub(crate) fn adopt(&self, ward: Weak<dyn Ward>) {
        // There is one, and it is adopted when the log is opened.
        drop(self.ward.set(ward));
    }

    /// Looks after whoever knows what topics keep, too, from now on, for as long as it lives.
    pub(crate) fn adopt_retainer(&self, retainer: Weak<dyn Retain>) {
        // There is one, and it is adopted when the log is opened.
        drop(self.retainer.set(retainer));
    }

    /// Looks after whoever compacts topics, too, from now on, for as long as it lives.
    pub(crate) fn adopt_compactor(&self, compactor: Weak<dyn Ward>) {
        // There is one, and it is adopted when the log is opened.
        drop(self.compactor.set(compactor));
    }

    fn retainer(&self) -> Option<Arc<dyn Retain>> {
        self.retainer.get().and_then(Weak::upgrade)
    }

    /// Something of a ward may be due earlier than it was when it was last looked at.
    pub(crate) fn hurry(&self) {
        self.bell.ring();
    }

    /// Does what the time has come for. Returns when something is due next; `None`: nothing until the next append.
    pub(crate) fn maintain(&self) -> Option<Duration> {
        let of_partitions = self.look_at_partitions();
        of_partitions.into_iter().chain(self.look_at_wards()).min()
    }

    fn look_at_wards(&self) -> Option<Duration> {
        let of_groups = self.ward.get().and_then(Weak::upgrade).and_then(|ward| ward.look());
        let of_retention = self.retainer().and_then(|retainer| retainer.look());
        let of_compaction = self.compactor.get().and_then(Weak::upgrade).and_then(|compactor| compactor.look());
        of_groups.into_iter().chain(of_retention).chain(of_compaction).min()
    }

    fn look_at_partitions(&self) -> Option<Duration> {
        // Taken off the list while they are looked at, so that nobody who sends waits for a sync.
        let partitions = mem::take(&mut *self.list.lock());
        let mut due: Option<Duration> = None;
        for partition in partitions {
            if let Look::At(at) = partition.look() {
                due = Some(due.map_or(at, |due| due.min(at)));
                let mut list = self.list.lock();
                if !list.iter().any(|known| Arc::ptr_eq(known, &partition)) {
                    list.push(partition);
                }
            }
        }
        due
    }

    /// Starts the worker.
    pub(crate) fn start(self: &Arc<Self>) -> Result<Box<dyn Worker>> {
        let keeper = Arc::clone(self);
        let work = Box::new(move || keeper.work());
        let path = self.env.storage.root();
        self.env.scheduler.spawn("tidelog", work).map_err(Error::io("start the background worker of", || path))
    }

    /// Makes the worker end after its present round.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    /// Forgets the partitions, which know this keeper: otherwise they would keep one another for ever.
    pub(crate) fn clear(&self) {
        self.list.lock().clear();
    }

    fn work(&self) {
        loop {
            let seen = self.bell.rung();
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let of_partitions = self.look_at_partitions();
            let due = of_partitions.into_iter().chain(self.look_at_wards()).min();
            let timeout = due.map(|due| due.saturating_sub(self.env.clock.monotonic()));
            if timeout.is_none_or(|timeout| timeout > NAP) {
                self.sleeping.store(true, Ordering::SeqCst);
                // Somebody may have put a partition on the list before it could see that the worker sleeps.
                if of_partitions.is_none() && !self.list.lock().is_empty() {
                    self.sleeping.store(false, Ordering::SeqCst);
                    continue;
                }
            }
            self.bell.wait(seen, timeout);
            self.sleeping.store(false, Ordering::SeqCst);
        }
    }
}
