//! The background worker: looks after partitions that need something done in time.
//!
//! Beside them there are *wards*, which must be looked at in time: the groups of the log, whose members have deadlines,
//! whoever knows what topics keep, and whoever compacts them, a little at each look. And there are *alarms*: tasks that wait
//! with a timeout have no thread that sleeps for them, so it is the worker that does.
//!
//! A partition puts itself on the list when something was appended to it that nobody may be waiting for; it leaves
//! the list when there is nothing more to do. One round over the list is `maintain`; the worker is a loop around that.

use std::collections::BTreeMap;
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
    /// What is rung when, and for whom.
    alarms: Mutex<BTreeMap<(Duration, u64), Arc<Bell>>>,
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
            alarms: Mutex::default(),
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

    /// Rings the bell of `whose` at this moment of the monotonic clock, once.
    pub(crate) fn set_alarm(&self, moment: Duration, whose: u64, bell: &Arc<Bell>) {
        let mut alarms = self.alarms.lock();
        let is_first = alarms.first_key_value().is_none_or(|((first, _), _)| moment < *first);
        alarms.insert((moment, whose), Arc::clone(bell));
        drop(alarms);
        // The worker may sleep for longer than that.
        if is_first {
            self.bell.ring();
        }
    }

    /// Nobody waits for this alarm any more.
    pub(crate) fn cancel_alarm(&self, moment: Duration, whose: u64) {
        drop(self.alarms.lock().remove(&(moment, whose)));
    }

    /// Does what the time has come for. Returns when something is due next; `None`: nothing until the next append.
    pub(crate) fn maintain(&self) -> Option<Duration> {
        let (of_partitions, _) = self.look_at_partitions();
        if of_partitions.is_some() && self.sleeping.load(Ordering::SeqCst) {
            // The worker went to sleep while they were off the list.
            self.bell.ring();
        }
        of_partitions.into_iter().chain(self.look_at_wards()).chain(self.look_at_alarms()).min()
    }

    fn look_at_alarms(&self) -> Option<Duration> {
        let mut alarms = self.alarms.lock();
        let next = alarms.first_key_value().map(|((moment, _), _)| *moment)?;
        let now = self.env.clock.monotonic();
        if next > now {
            return Some(next);
        }
        let later = alarms.split_off(&(now, u64::MAX));
        let next = later.first_key_value().map(|((moment, _), _)| *moment);
        let due = mem::replace(&mut *alarms, later);
        drop(alarms);
        due.values().for_each(|bell| bell.ring());
        next
    }

    fn look_at_wards(&self) -> Option<Duration> {
        let of_groups = self.ward.get().and_then(Weak::upgrade).and_then(|ward| ward.look());
        let of_retention = self.retainer().and_then(|retainer| retainer.look());
        let of_compaction = self.compactor.get().and_then(Weak::upgrade).and_then(|compactor| compactor.look());
        of_groups.into_iter().chain(of_retention).chain(of_compaction).min()
    }

    /// When something of a partition is due next, and how many partitions are on the list then.
    fn look_at_partitions(&self) -> (Option<Duration>, usize) {
        // Taken off the list while they are looked at, so that nobody who sends waits for a sync.
        let partitions = mem::take(&mut *self.list.lock());
        let (mut due, mut again): (Option<Duration>, Vec<_>) = (None, Vec::new());
        for partition in partitions {
            if let Look::At(at) = partition.look() {
                due = Some(due.map_or(at, |due| due.min(at)));
                again.push(partition);
            }
        }
        let mut list = self.list.lock();
        if !list.is_empty() {
            // Put there meanwhile, by somebody who did not ring: it may be urgent.
            due = Some(Duration::ZERO);
        }
        let meanwhile = list.len();
        for partition in again {
            if !list[..meanwhile].iter().any(|known| Arc::ptr_eq(known, &partition)) {
                list.push(partition);
            }
        }
        (due, list.len())
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
            let (of_partitions, listed) = self.look_at_partitions();
            let due = of_partitions.into_iter().chain(self.look_at_wards()).chain(self.look_at_alarms()).min();
            let timeout = due.map(|due| due.saturating_sub(self.env.clock.monotonic()));
            if timeout.is_none_or(|timeout| timeout > NAP) {
                self.sleeping.store(true, Ordering::SeqCst);
                // Somebody may have put a partition on the list before it could see that the worker sleeps.
                if self.list.lock().len() > listed {
                    self.sleeping.store(false, Ordering::SeqCst);
                    continue;
                }
            }
            self.bell.wait(seen, timeout);
            self.sleeping.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Durability, TopicConfig};
    use crate::env::clock::Clock;
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::sim::SimDisk;
    use crate::format::batch::Draft;
    use crate::format::segment::Identity;
    use crate::partition::Home;
    use crate::types::{Timestamp, TopicPartition};

    /// A clock that is looked at while a partition is, and what somebody else does at that moment.
    #[derive(Debug)]
    struct Meanwhile {
        clock: Arc<SimClock>,
        keeper: Mutex<Option<Arc<Keeper>>>,
        partition: OnceLock<Arc<Partition>>,
    }

    impl Clock for Meanwhile {
        fn now(&self) -> Timestamp {
            self.clock.now()
        }

        fn monotonic(&self) -> Duration {
            if let (Some(keeper), Some(partition)) = (self.keeper.lock().take(), self.partition.get()) {
                keeper.look_after(partition);
            }
            self.clock.monotonic()
        }
    }

    #[test]
    fn who_asks_while_the_worker_is_at_work_is_looked_after_before_it_sleeps() {
        let clock = SimClock::new(Timestamp::from_millis(0));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
        let mut env = Env::simulated(SimDisk::new(1), Arc::clone(&clock), scheduler, 1);
        let keeper = Arc::new(Keeper::new(env.clone()));
        let meanwhile = Arc::new(Meanwhile { clock, keeper: Mutex::default(), partition: OnceLock::new() });
        env.clock = Arc::clone(&meanwhile) as _;
        let home = Home {
            env,
            dir: PathBuf::from("0"),
            identity: Identity { log: 1, topic: 2, partition: 0 },
            partition: TopicPartition::new("orders", 0),
            segment_bytes: 4096,
        };
        let config = TopicConfig::new().durability(Durability::Os).segment_bytes(4096);
        let partition = Arc::new(Partition::create(home, 1, &config, None).unwrap());
        let record = Draft { key: None, value: Some(&[7; 2500]), headers: &[], timestamp: Timestamp::from_millis(0) };
        partition.append(&[record]).unwrap();
        partition.append(&[record]).unwrap();
        meanwhile.partition.set(Arc::clone(&partition)).unwrap();

        keeper.look_after(&partition);
        assert!(keeper.maintain() > Some(Duration::ZERO), "the rolled segment is synced when nobody appends any more");
        *meanwhile.keeper.lock() = Some(Arc::clone(&keeper));
        assert_eq!(keeper.maintain(), Some(Duration::ZERO), "somebody has asked since the look began");
        assert!(keeper.maintain() > Some(Duration::ZERO));

        // A worker that sleeps by now has not seen what was off the list meanwhile.
        keeper.sleeping.store(true, Ordering::SeqCst);
        let rung = keeper.bell.rung();
        assert!(keeper.maintain() > Some(Duration::ZERO));
        assert!(keeper.bell.rung() > rung, "the worker sleeps on");
    }
}
