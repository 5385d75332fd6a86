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
    alarms: Mutex<Alarms>,
    bell: Bell,
    /// Whether the worker sleeps so long that it must be woken.
    sleeping: AtomicBool,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Alarms {
    /// What is rung when, and for whom.
    bells: BTreeMap<(Duration, u64), Arc<Bell>>,
    /// Until when the worker sleeps at most; zero while it is awake, and without a worker. Who sets an earlier alarm rings.
    ///
    /// So no alarm is slept through. What is set while this is zero, the worker finds in `bells` when it sets this to something
    /// else, before it sleeps. What is set afterwards is either no earlier than this, and the worker wakes and looks in time; or
    /// it rings, and the worker does not sleep, for it took the number of its bell before it set this.
    asleep_until: Duration,
}

impl Alarms {
    fn first(&self) -> Option<Duration> {
        self.bells.first_key_value().map(|((moment, _), _)| *moment)
    }
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
        alarms.bells.insert((moment, whose), Arc::clone(bell));
        let is_slept_through = moment < alarms.asleep_until;
        drop(alarms);
        if is_slept_through {
            self.bell.ring();
        }
    }

    /// Nobody waits for this alarm any more.
    pub(crate) fn cancel_alarm(&self, moment: Duration, whose: u64) {
        drop(self.alarms.lock().bells.remove(&(moment, whose)));
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
        let now = self.env.clock.monotonic();
        let due = {
            let mut alarms = self.alarms.lock();
            let later = alarms.bells.split_off(&(now, u64::MAX));
            mem::replace(&mut alarms.bells, later)
        };
        // Whom a bell wakes may set the next alarm at once.
        due.values().for_each(|bell| bell.ring());
        self.alarms.lock().first()
    }

    fn look_at_wards(&self) -> Option<Duration> {
        let of_groups = self.ward.get().and_then(Weak::upgrade).and_then(|ward| ward.look());
        let of_retention = self.retainer().and_then(|retainer| retainer.look());
        let of_compaction = self.compactor.get().and_then(Weak::upgrade).and_then(|compactor| compactor.look());
        of_groups.into_iter().chain(of_retention).chain(of_compaction).min()
    }

    /// When the worker is to wake: when something is `due`, or for an alarm that was set since it looked. From now on, who sets
    /// an earlier one rings.
    fn fall_asleep(&self, due: Option<Duration>) -> Option<Duration> {
        let mut alarms = self.alarms.lock();
        let due = due.into_iter().chain(alarms.first()).min();
        alarms.asleep_until = due.unwrap_or(Duration::MAX);
        due
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
            self.alarms.lock().asleep_until = Duration::ZERO;
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let (of_partitions, listed) = self.look_at_partitions();
            let due = of_partitions.into_iter().chain(self.look_at_wards()).chain(self.look_at_alarms()).min();
            let due = self.fall_asleep(due);
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
    use std::collections::VecDeque;
    use std::path::PathBuf;
    use std::sync::atomic::AtomicU64;
    use std::task::{Wake, Waker};

    use super::*;
    use crate::config::{Durability, TopicConfig};
    use crate::env::clock::Clock;
    use crate::env::scheduling::Scheduler;
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::sim::SimDisk;
    use crate::format::batch::Draft;
    use crate::format::segment::Identity;
    use crate::partition::Home;
    use crate::types::{Timestamp, TopicPartition};

    /// What somebody else does while the time is asked for.
    type Act = Box<dyn FnOnce() + Send>;

    struct Meanwhile {
        clock: Arc<SimClock>,
        acts: Mutex<VecDeque<Act>>,
    }

    impl Meanwhile {
        /// The next but so many times that the time is asked for.
        fn act(&self, but: usize, act: impl FnOnce() + Send + 'static) {
            let mut acts = self.acts.lock();
            (0..but).for_each(|_| acts.push_back(Box::new(|| {})));
            acts.push_back(Box::new(act));
        }
    }

    impl fmt::Debug for Meanwhile {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Meanwhile({:?})", self.clock)
        }
    }

    impl Clock for Meanwhile {
        fn now(&self) -> Timestamp {
            self.clock.now()
        }

        fn monotonic(&self) -> Duration {
            let act = self.acts.lock().pop_front();
            act.into_iter().for_each(|act| act());
            self.clock.monotonic()
        }
    }

    fn simulated() -> (Env, Arc<SimScheduler>, Arc<Meanwhile>) {
        let clock = SimClock::new(Timestamp::from_millis(0));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
        let mut env = Env::simulated(SimDisk::new(1), Arc::clone(&clock), Arc::clone(&scheduler) as _, 1);
        let meanwhile = Arc::new(Meanwhile { clock, acts: Mutex::default() });
        env.clock = Arc::clone(&meanwhile) as _;
        (env, scheduler, meanwhile)
    }

    #[test]
    fn who_asks_while_the_worker_is_at_work_is_looked_after_before_it_sleeps() {
        let (env, _scheduler, meanwhile) = simulated();
        let keeper = Arc::new(Keeper::new(env.clone()));
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

        keeper.look_after(&partition);
        assert!(keeper.maintain() > Some(Duration::ZERO), "the rolled segment is synced when nobody appends any more");
        let (asked, appended) = (Arc::clone(&keeper), Arc::clone(&partition));
        meanwhile.act(0, move || asked.look_after(&appended));
        assert_eq!(keeper.maintain(), Some(Duration::ZERO), "somebody has asked since the look began");
        assert!(keeper.maintain() > Some(Duration::ZERO));

        // A worker that sleeps by now has not seen what was off the list meanwhile.
        keeper.sleeping.store(true, Ordering::SeqCst);
        let rung = keeper.bell.rung();
        assert!(keeper.maintain() > Some(Duration::ZERO));
        assert!(keeper.bell.rung() > rung, "the worker sleeps on");
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Counts the rounds of the worker.
    #[derive(Default)]
    struct Rounds(AtomicU64);

    impl Ward for Rounds {
        fn look(&self) -> Option<Duration> {
            self.0.fetch_add(1, Ordering::SeqCst);
            None
        }
    }

    #[test]
    fn an_alarm_costs_a_round_only_if_the_worker_would_sleep_through_it() {
        let (env, scheduler, _) = simulated();
        let (keeper, rounds) = (Arc::new(Keeper::new(env)), Arc::new(Rounds::default()));
        let ward: Arc<dyn Ward> = Arc::clone(&rounds) as _;
        keeper.adopt(Arc::downgrade(&ward));
        let made = || {
            scheduler.settle();
            rounds.0.swap(0, Ordering::SeqCst)
        };
        let mut worker = keeper.start().unwrap();
        let bell = Arc::new(scheduler.bell());
        assert_eq!(made(), 1);
        keeper.set_alarm(secs(60), 0, &bell);
        assert_eq!(made(), 1, "it would have slept for ever");
        // As a task does that waits again and again and always finds something before its time is over.
        for more in 0..100 {
            keeper.cancel_alarm(secs(60 + more), 0);
            keeper.set_alarm(secs(60 + more + 1), 0, &bell);
            assert_eq!(made(), 0, "{more}");
        }
        keeper.set_alarm(secs(59), 1, &bell);
        assert_eq!(made(), 1);
        scheduler.sleep(secs(59));
        assert_eq!((made(), bell.rung()), (1, 1));
        scheduler.sleep(secs(101));
        assert_eq!((made(), bell.rung()), (1, 2));
        keeper.stop();
        worker.join();
    }

    /// A task that waits with a new alarm as soon as it is woken.
    struct Again(Box<dyn Fn() + Send + Sync>);

    impl Wake for Again {
        fn wake(self: Arc<Self>) {
            self.0();
        }
    }

    #[test]
    fn an_alarm_that_is_set_while_the_worker_is_at_work_is_not_slept_through() {
        // Before it looks at the alarms, when it is about to sleep, and while it rings for another.
        for place in 0..3 {
            let (env, scheduler, meanwhile) = simulated();
            let keeper = Arc::new(Keeper::new(env));
            let [woken, soon, late] = [(); 3].map(|()| Arc::new(scheduler.bell()));
            let mut worker = keeper.start().unwrap();
            scheduler.settle();
            let set = {
                let (keeper, soon) = (Arc::clone(&keeper), Arc::clone(&soon));
                move || keeper.set_alarm(secs(1), 1, &soon)
            };
            if place < 2 {
                meanwhile.act(place, set);
            } else {
                assert!(woken.wake_at_ring(0, &Waker::from(Arc::new(Again(Box::new(set))))));
                keeper.set_alarm(Duration::ZERO, 0, &woken);
            }
            keeper.set_alarm(secs(9), 2, &late);
            scheduler.settle();
            assert!(keeper.alarms.lock().bells.contains_key(&(secs(1), 1)), "{place}");
            for (wait, rung) in [(secs(1), (1, 0)), (secs(8), (1, 1))] {
                scheduler.sleep(wait);
                scheduler.settle();
                assert_eq!((soon.rung(), late.rung()), rung, "{place}");
            }
            keeper.stop();
            worker.join();
        }
    }
}
