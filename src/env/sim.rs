//! Simulated time and turns: a clock that nobody winds, and a scheduler that runs one member at a time.
//!
//! A *member* is a thread that runs only while it holds the baton. It gives the baton up when it waits, for a bell or
//! for another member's end, and when it ends. Who is next is drawn from the seed:
//!
//! | who can go on                | what happens                                                                |
//! |------------------------------|-----------------------------------------------------------------------------|
//! | one or more                  | one of them goes on; with seed 0 in turn                                    |
//! | nobody, some with a timeout  | the clock jumps to the earliest timeout                                     |
//! | nobody, none with a timeout  | all of them panic, for they would wait for ever; the message names them     |
//!
//! A thread that the scheduler did not start is the member *main*: a test with one thread needs to know nothing of this.
//! The same seed and the same members give the same turns.
//!
//! A simulation of consumers has a scheduler of its own, the stage of `sim`, which is not this one with more to do: here the
//! test is a member, says when time goes by, and threads of the log run when it waits. There the test is run: whoever has
//! the baton may lose it or die at every call, what the log does by itself is done by whoever waits last, and the end of it
//! is looked for. What the two have in common is who is ready when, a dozen lines.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::env::clock::Clock;
use crate::env::random::Random;
use crate::env::scheduling::{Bell, Parking, Scheduler, Worker};
use crate::types::Timestamp;

/// The member that was not started by the scheduler.
const MAIN: u64 = 0;

/// So many turns may be taken at one moment. Who looks again and again without waiting spends time on it in the real
/// world, and here it must not keep those from going on who wait for the clock.
const TURNS_AT_ONE_MOMENT: u64 = 1_000;

/// By how much the clock moves then.
const TURNS_TAKE: Duration = Duration::from_millis(1);

/// A clock that moves only when it is told to, or when everybody waits.
#[derive(Debug)]
pub(crate) struct SimClock {
    time: Mutex<Time>,
}

#[derive(Debug)]
struct Time {
    monotonic: Duration,
    /// What the wall clock showed, or would have shown, when `monotonic` was zero.
    wall_at_zero: Timestamp,
}

impl SimClock {
    /// A clock that shows `now`.
    pub(crate) fn new(now: Timestamp) -> Arc<SimClock> {
        Arc::new(SimClock { time: Mutex::new(Time { monotonic: Duration::ZERO, wall_at_zero: now }) })
    }

    /// Time goes by.
    pub(crate) fn advance(&self, by: Duration) {
        let mut time = self.time.lock();
        time.monotonic = time.monotonic.saturating_add(by);
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set_wall(&self, now: Timestamp) {
        let mut time = self.time.lock();
        let since_zero = i64::try_from(time.monotonic.as_millis()).unwrap_or(i64::MAX);
        time.wall_at_zero = Timestamp::from_millis(now.as_millis().saturating_sub(since_zero));
    }

    /// Goes to a moment, unless it is past.
    pub(crate) fn reach(&self, moment: Duration) {
        let mut time = self.time.lock();
        time.monotonic = time.monotonic.max(moment);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let time = self.time.lock();
        time.wall_at_zero.saturating_add(time.monotonic)
    }

    fn monotonic(&self) -> Duration {
        self.time.lock().monotonic
    }
}

/// Runs one member at a time. See the head of this file.
pub(crate) struct SimScheduler {
    stage: Arc<Stage>,
}

impl SimScheduler {
    /// A scheduler whose one member is the thread that makes it, for now. Seed 0 lets the members go in turn.
    pub(crate) fn new(clock: Arc<SimClock>, seed: u64) -> Arc<SimScheduler> {
        let main = Member { name: "main".to_owned(), thread: Some(thread::current().id()), waits: Waits::No };
        let cast = Cast {
            random: (seed != 0).then(|| Random::new(seed)),
            members: BTreeMap::from([(MAIN, main)]),
            running: MAIN,
            next_member: MAIN + 1,
            next_bell: 0,
            turns: 0,
            stuck: None,
        };
        Arc::new(SimScheduler { stage: Arc::new(Stage { clock, cast: Mutex::new(cast), turn: Condvar::new() }) })
    }

    /// Waits until so much time has gone by; the others go on meanwhile, each at its time.
    pub(crate) fn sleep(&self, by: Duration) {
        let until = self.stage.clock.monotonic().saturating_add(by);
        let bell = self.bell();
        while self.stage.clock.monotonic() < until {
            bell.wait(bell.rung(), Some(until - self.stage.clock.monotonic()));
        }
    }

    /// Lets the others go on until all of them wait. The clock stays where it is.
    pub(crate) fn settle(&self) {
        let mut cast = self.stage.cast.lock();
        let me = cast.caller();
        while cast.stuck.is_none() && cast.ready(self.stage.clock.monotonic()).any(|member| member != me) {
            self.stage.wait(&mut cast, me, Waits::ForOthers);
        }
    }
}

impl Scheduler for SimScheduler {
    fn bell(&self) -> Bell {
        let mut cast = self.stage.cast.lock();
        let bell = cast.next_bell;
        cast.next_bell += 1;
        Bell::new(Arc::new(SimParking { stage: Arc::clone(&self.stage), bell }))
    }

    /// Nobody runs before this member waits, and to wait is more than it asks for.
    fn give_way(&self, _ready: &dyn Fn() -> bool, _at_most: Duration) {}

    /// Looks once in a while of simulated time, in which the others go on.
    fn spin(&self, ready: &dyn Fn() -> bool, at_most: Duration) {
        let end = self.stage.clock.monotonic().saturating_add(at_most);
        loop {
            let left = end.saturating_sub(self.stage.clock.monotonic());
            if left.is_zero() || ready() {
                return;
            }
            self.sleep(left.min(TURNS_TAKE));
        }
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Worker>> {
        let member = self.stage.cast.lock().enter(name);
        let stage = Arc::clone(&self.stage);
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
            if stage.begin(member) {
                // Leaves the stage when the work has ended, by a panic too.
                let _leave = Leave { stage: &stage, member };
                work();
            }
        });
        match started {
            Ok(thread) => Ok(Box::new(SimWorker { stage: Arc::clone(&self.stage), member, thread: Some(thread) })),
            Err(error) => {
                self.stage.cast.lock().members.remove(&member);
                Err(error)
            }
        }
    }
}

impl fmt::Debug for SimScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimScheduler").finish_non_exhaustive()
    }
}

/// A bell's part that blocks.
struct SimParking {
    stage: Arc<Stage>,
    bell: u64,
}

impl Parking for SimParking {
    fn park(&self, rung: &AtomicU64, seen: u64, timeout: Option<Duration>) {
        let mut cast = self.stage.cast.lock();
        // Under the lock, so that who rings afterwards finds the caller waiting.
        if rung.load(Ordering::SeqCst) != seen {
            return;
        }
        let me = cast.caller();
        // A timeout past the end of the clock is for ever.
        let until = timeout.and_then(|timeout| self.stage.clock.monotonic().checked_add(timeout));
        self.stage.wait(&mut cast, me, Waits::ForBell { bell: self.bell, until, rang: false });
    }

    fn unpark(&self) {
        for member in self.stage.cast.lock().members.values_mut() {
            if let Waits::ForBell { bell, rang, .. } = &mut member.waits
                && *bell == self.bell
            {
                *rang = true;
            }
        }
    }
}

impl fmt::Debug for SimParking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimParking").field("bell", &self.bell).finish_non_exhaustive()
    }
}

/// A member, for those who wait for its end.
struct SimWorker {
    stage: Arc<Stage>,
    member: u64,
    thread: Option<JoinHandle<()>>,
}

impl Worker for SimWorker {
    fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let mut cast = self.stage.cast.lock();
        let me = cast.caller();
        if me == self.member {
            return;
        }
        while cast.stuck.is_none() && cast.members.contains_key(&self.member) {
            self.stage.wait(&mut cast, me, Waits::ForEnd(self.member));
        }
        let has_ended = !cast.members.contains_key(&self.member);
        drop(cast);
        if has_ended {
            // A member that panicked has printed its panic; there is nothing left to wait for.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for SimWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWorker").field("member", &self.member).finish_non_exhaustive()
    }
}

/// Where the members take their turns.
struct Stage {
    clock: Arc<SimClock>,
    cast: Mutex<Cast>,
    /// Somebody else has the baton now.
    turn: Condvar,
}

struct Cast {
    /// `None`: in turn.
    random: Option<Random>,
    members: BTreeMap<u64, Member>,
    /// Who has the baton.
    running: u64,
    next_member: u64,
    next_bell: u64,
    /// How often the baton went round since the clock moved.
    turns: u64,
    /// Why nobody can go on any more.
    stuck: Option<String>,
}

struct Member {
    name: String,
    /// `None`: not there yet.
    thread: Option<ThreadId>,
    waits: Waits,
}

/// What a member waits for, besides the baton.
#[derive(Debug)]
enum Waits {
    No,
    ForBell {
        bell: u64,
        until: Option<Duration>,
        rang: bool,
    },
    ForEnd(u64),
    /// For all others to wait too.
    ForOthers,
}

impl Stage {
    /// The member has its thread. Returns once it has the baton, or false if it never will.
    fn begin(&self, me: u64) -> bool {
        let mut cast = self.cast.lock();
        if let Some(member) = cast.members.get_mut(&me) {
            member.thread = Some(thread::current().id());
        }
        while cast.running != me && cast.stuck.is_none() {
            self.turn.wait(&mut cast);
        }
        if cast.stuck.is_some() {
            cast.members.remove(&me);
        }
        cast.stuck.is_none()
    }

    /// Gives the baton up, and returns when it is back.
    fn wait(&self, cast: &mut MutexGuard<'_, Cast>, me: u64, waits: Waits) {
        cast.members.get_mut(&me).expect("who waits is a member").waits = waits;
        if cast.stuck.is_none() {
            self.pass_on(cast, me);
        }
        while cast.running != me && cast.stuck.is_none() {
            self.turn.wait(cast);
        }
        cast.members.get_mut(&me).expect("who waits is a member").waits = Waits::No;
        if let Some(reason) = cast.stuck.clone()
            && !thread::panicking()
        {
            // The panic must not take the stage with it: the others are about to look at it.
            MutexGuard::unlocked(cast, || panic!("{reason}"));
        }
    }

    /// Gives the baton to somebody who can go on, if need be after some time.
    fn pass_on(&self, cast: &mut Cast, from: u64) {
        cast.turns += 1;
        if cast.turns > TURNS_AT_ONE_MOMENT {
            self.clock.advance(TURNS_TAKE);
            cast.turns = 0;
        }
        loop {
            let mut ready: Vec<u64> = cast.ready(self.clock.monotonic()).collect();
            if ready.is_empty() {
                // Who waits for the others to wait has got what it waited for.
                let idle =
                    |(number, member): (&u64, &Member)| matches!(member.waits, Waits::ForOthers).then_some(*number);
                ready.extend(cast.members.iter().filter_map(idle));
            }
            if !ready.is_empty() {
                cast.running = match &mut cast.random {
                    Some(random) if ready.len() > 1 => ready[random.below(ready.len() as u64) as usize],
                    _ => ready.iter().copied().find(|member| *member > from).unwrap_or(ready[0]),
                };
                break;
            }
            let timeouts = cast.members.values().filter_map(|member| match member.waits {
                Waits::ForBell { until, .. } => until,
                _ => None,
            });
            match timeouts.min() {
                Some(earliest) => {
                    self.clock.reach(earliest);
                    cast.turns = 0;
                }
                None => {
                    let names: Vec<&str> = cast.members.values().map(|member| member.name.as_str()).collect();
                    cast.stuck = Some(format!("everybody waits for ever: {}", names.join(", ")));
                    break;
                }
            }
        }
        self.turn.notify_all();
    }
}

impl Cast {
    fn enter(&mut self, name: &str) -> u64 {
        let number = self.next_member;
        self.next_member += 1;
        self.members.insert(number, Member { name: name.to_owned(), thread: None, waits: Waits::No });
        number
    }

    /// The member that this thread is.
    ///
    /// # Panics
    ///
    /// Panics if the thread was not started by the scheduler, and another such thread is waiting: two of them
    /// would run at once.
    fn caller(&mut self) -> u64 {
        let thread = Some(thread::current().id());
        if let Some((number, _)) = self.members.iter().find(|(_, member)| member.thread == thread) {
            return *number;
        }
        assert!(
            self.running == MAIN || self.stuck.is_some(),
            "a thread that the simulated scheduler did not start cannot wait while its members run; spawn it there"
        );
        self.members.get_mut(&MAIN).expect("main never ends").thread = thread;
        MAIN
    }

    /// Who could go on at this moment.
    fn ready(&self, now: Duration) -> impl Iterator<Item = u64> {
        self.members.iter().filter_map(move |(number, member)| {
            let is_ready = match &member.waits {
                Waits::No => true,
                Waits::ForBell { until, rang, .. } => *rang || until.is_some_and(|until| until <= now),
                Waits::ForEnd(other) => !self.members.contains_key(other),
                Waits::ForOthers => false,
            };
            is_ready.then_some(*number)
        })
    }
}

/// Takes a member from the stage, however its work ended.
struct Leave<'a> {
    stage: &'a Stage,
    member: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut cast = self.stage.cast.lock();
        cast.members.remove(&self.member);
        if cast.stuck.is_none() {
            self.stage.pass_on(&mut cast, self.member);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::env::Env;
    use crate::env::storage::sim::SimDisk;

    fn stage(seed: u64) -> (Arc<SimClock>, Arc<SimScheduler>) {
        let clock = SimClock::new(Timestamp::from_millis(1_000));
        let scheduler = SimScheduler::new(Arc::clone(&clock), seed);
        (clock, scheduler)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// What everybody has said, in order.
    type Said = Arc<Mutex<Vec<String>>>;

    fn spawn(scheduler: &SimScheduler, name: &str, work: impl FnOnce() + Send + 'static) -> Box<dyn Worker> {
        scheduler.spawn(name, Box::new(work)).unwrap()
    }

    /// Members that each wait `turns` times for nothing, and say their name in between.
    fn chatter(seed: u64, members: usize, turns: usize) -> Vec<String> {
        let (_, scheduler) = stage(seed);
        let said = Said::default();
        let mut workers = Vec::new();
        for name in ["a", "b", "c"].into_iter().take(members) {
            let (said, bell) = (Arc::clone(&said), scheduler.bell());
            workers.push(spawn(&scheduler, name, move || {
                for _ in 0..turns {
                    said.lock().push(name.to_owned());
                    bell.wait(bell.rung(), Some(Duration::ZERO));
                }
            }));
        }
        workers.iter_mut().for_each(|worker| worker.join());
        said.lock().clone()
    }

    #[test]
    fn a_clock_moves_when_it_is_told_to() {
        let clock = SimClock::new(Timestamp::from_millis(-5));

        clock.advance(Duration::from_micros(7_900));
        assert_eq!((clock.now(), clock.monotonic()), (Timestamp::from_millis(2), Duration::from_micros(7_900)));
        clock.set_wall(Timestamp::from_millis(50));
        clock.advance(millis(10));

        assert_eq!((clock.now(), clock.monotonic()), (Timestamp::from_millis(60), Duration::from_micros(17_900)));
    }

    #[test]
    fn who_is_alone_and_waits_sees_the_time_go_by_at_once() {
        let (clock, scheduler) = stage(1);
        let bell = scheduler.bell();

        bell.wait(bell.rung(), Some(millis(250)));

        assert_eq!((clock.monotonic(), clock.now()), (millis(250), Timestamp::from_millis(1_250)));
        let seen = bell.rung();
        bell.ring();
        bell.wait(seen, None);
        assert_eq!(clock.monotonic(), millis(250));
    }

    #[test]
    #[should_panic(expected = "everybody waits for ever: main")]
    fn who_is_alone_and_waits_for_ever_is_told_so() {
        let (_, scheduler) = stage(1);
        let bell = scheduler.bell();

        bell.wait(bell.rung(), None);
    }

    #[test]
    fn when_all_wait_for_ever_main_is_told_who_they_are_and_all_of_them_end() {
        let (_, scheduler) = stage(1);
        let said = Said::default();
        let bell = Arc::new(scheduler.bell());
        let mut workers: Vec<_> = ["sync", "poll"]
            .into_iter()
            .map(|name| {
                let (bell, said) = (Arc::clone(&bell), Arc::clone(&said));
                spawn(&scheduler, name, move || {
                    let stuck = catch_unwind(AssertUnwindSafe(|| bell.wait(bell.rung(), None)));
                    said.lock().push(format!("{}", stuck.is_err()));
                })
            })
            .collect();

        let reason = catch_unwind(AssertUnwindSafe(|| workers[0].join())).unwrap_err();
        let threads = workers.len();

        assert_eq!(reason.downcast_ref::<String>().unwrap(), "everybody waits for ever: main, sync, poll");
        drop(workers);
        while said.lock().len() < threads {
            thread::yield_now();
        }
        assert_eq!(*said.lock(), ["true", "true"]);
    }

    #[test]
    fn members_run_one_at_a_time_and_only_when_it_is_their_turn() {
        for seed in 0..20 {
            let (_, scheduler) = stage(seed);
            let inside = Arc::new(AtomicU64::new(0));
            let mut workers = Vec::new();
            for name in ["a", "b", "c"] {
                let (inside, bell) = (Arc::clone(&inside), scheduler.bell());
                workers.push(spawn(&scheduler, name, move || {
                    for _ in 0..20 {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        bell.wait(bell.rung(), Some(millis(1)));
                    }
                    inside.fetch_add(100, Ordering::SeqCst);
                    inside.fetch_sub(100, Ordering::SeqCst);
                }));
            }

            assert_eq!(inside.load(Ordering::SeqCst), 0, "seed {seed}");
            workers.iter_mut().for_each(|worker| worker.join());
            assert_eq!(inside.load(Ordering::SeqCst), 0, "seed {seed}");
        }
    }

    #[test]
    fn a_seed_gives_one_order_of_turns_and_seeds_give_many() {
        for seed in 0..20 {
            assert_eq!(chatter(seed, 3, 5), chatter(seed, 3, 5), "seed {seed}");
        }

        let mut orders: Vec<_> = (1..20).map(|seed| chatter(seed, 3, 5)).collect();
        orders.sort();
        orders.dedup();
        assert!(orders.len() > 10, "{} orders", orders.len());
        assert_eq!(chatter(0, 3, 2), ["a", "b", "c", "a", "b", "c"]);
    }

    #[test]
    fn the_clock_jumps_from_timeout_to_timeout() {
        let (clock, scheduler) = stage(7);
        let said = Said::default();
        for (name, every) in [("ten", 10), ("four", 4)] {
            let (said, clock, bell) = (Arc::clone(&said), Arc::clone(&clock), scheduler.bell());
            spawn(&scheduler, name, move || {
                for _ in 0..3 {
                    bell.wait(bell.rung(), Some(millis(every)));
                    said.lock().push(format!("{name} at {}", clock.monotonic().as_millis()));
                }
            });
        }

        scheduler.sleep(millis(11));

        assert_eq!(clock.monotonic(), millis(11));
        assert_eq!(*said.lock(), ["four at 4", "four at 8", "ten at 10"]);
        scheduler.sleep(millis(100));
        assert_eq!(said.lock()[3..], ["four at 12", "ten at 20", "ten at 30"]);
    }

    #[test]
    fn a_ring_wakes_who_waits_before_any_timeout() {
        let (clock, scheduler) = stage(3);
        let bell = Arc::new(scheduler.bell());
        let said = Said::default();
        let mut worker = {
            let (bell, said, clock) = (Arc::clone(&bell), Arc::clone(&said), Arc::clone(&clock));
            spawn(&scheduler, "listener", move || {
                bell.wait(bell.rung(), Some(Duration::MAX));
                said.lock().push(format!("rang at {}", clock.monotonic().as_millis()));
            })
        };
        scheduler.sleep(millis(5));
        assert!(said.lock().is_empty());

        bell.ring();
        worker.join();

        assert_eq!(*said.lock(), ["rang at 5"]);
    }

    #[test]
    fn to_settle_is_to_let_all_others_wait_while_the_clock_stands() {
        let (clock, scheduler) = stage(3);
        let said = Said::default();
        let (their_said, bell) = (Arc::clone(&said), scheduler.bell());
        let mut worker = spawn(&scheduler, "worker", move || {
            for _ in 0..2 {
                bell.wait(bell.rung(), Some(millis(10)));
                their_said.lock().push("worked".to_owned());
            }
        });
        scheduler.settle();
        assert!(said.lock().is_empty());

        clock.advance(millis(10));
        scheduler.settle();
        scheduler.settle();

        assert_eq!((said.lock().len(), clock.monotonic()), (1, millis(10)));
        worker.join();
        assert_eq!((said.lock().len(), clock.monotonic()), (2, millis(20)));
    }

    #[test]
    fn who_never_waits_does_not_stop_the_time() {
        let (_, scheduler) = stage(0);
        let over = Arc::new(AtomicU64::new(0));
        let (their_over, bell) = (Arc::clone(&over), scheduler.bell());
        let mut spinner = spawn(&scheduler, "spinner", move || {
            while their_over.load(Ordering::SeqCst) == 0 {
                bell.wait(bell.rung(), Some(Duration::ZERO));
            }
        });

        scheduler.sleep(millis(2));
        over.store(1, Ordering::SeqCst);
        spinner.join();
    }

    #[test]
    fn a_member_that_panics_leaves_the_others_alone() {
        let (_, scheduler) = stage(1);
        let mut worker = spawn(&scheduler, "clumsy", || panic!("on purpose"));

        worker.join();
        worker.join();

        scheduler.sleep(millis(1));
    }

    #[test]
    fn a_member_does_not_wait_for_its_own_end() {
        let (_, scheduler) = stage(1);
        let worker: Arc<Mutex<Option<Box<dyn Worker>>>> = Arc::default();
        let (theirs, ended) = (Arc::clone(&worker), Arc::new(AtomicU64::new(0)));
        let their_ended = Arc::clone(&ended);
        *worker.lock() = Some(spawn(&scheduler, "self", move || {
            theirs.lock().take().unwrap().join();
            their_ended.store(1, Ordering::SeqCst);
        }));

        scheduler.settle();

        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_test_may_move_to_another_thread_but_not_be_two() {
        let (clock, scheduler) = stage(1);
        thread::scope(|scope| {
            scope.spawn(|| scheduler.sleep(millis(5))).join().unwrap();
        });
        assert_eq!(clock.monotonic(), millis(5));

        let theirs = Arc::clone(&scheduler);
        let mut worker = spawn(&scheduler, "host", move || {
            let stranger = thread::spawn(move || theirs.sleep(millis(1)));
            assert!(stranger.join().is_err());
        });
        worker.join();
    }

    #[test]
    fn a_simulated_world_is_made_of_its_parts() {
        let (clock, scheduler) = stage(1);

        let env = Env::simulated(SimDisk::new(1), clock, scheduler, 42);

        assert_eq!((env.clock.now(), env.seed), (Timestamp::from_millis(1_000), 42));
        assert_eq!(env.storage.list(std::path::Path::new("")).unwrap(), []);
        env.scheduler.spawn("worker", Box::new(|| {})).unwrap().join();
    }
}
