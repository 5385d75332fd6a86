//! What simulated clocks and schedulers do, real ones do too: the same calls on both, and the same has to come of them.
//! Nobody sleeps: who waits is woken by somebody else, or waits for a few milliseconds to see that a timeout ends.
//!
//! What these rules say is all that the code above may rely on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::clock::{Clock, SystemClock};
use crate::env::scheduling::{Bell, Scheduler, Threads, Worker};
use crate::env::sim::{SimClock, SimScheduler};
use crate::types::Timestamp;

/// Short enough for a test, long enough for the coarsest clock.
const SHORT: Duration = Duration::from_millis(2);
/// Longer than any test lasts: who waits so long has missed what it waits for.
const LONG: Duration = Duration::from_secs(60);

/// What a rule is tried on.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) scheduler: Arc<dyn Scheduler>,
}

impl World {
    fn real() -> Self {
        World { clock: Arc::new(SystemClock::new()), scheduler: Arc::new(Threads::new()) }
    }

    fn simulated(seed: u64) -> Self {
        let clock = SimClock::new(Timestamp::from_millis(1_600_000_000_000));
        World { scheduler: SimScheduler::new(Arc::clone(&clock), seed), clock }
    }

    fn bell(&self) -> Arc<Bell> {
        Arc::new(self.scheduler.bell())
    }

    fn beside(&self, work: impl FnOnce() + Send + 'static) -> Box<dyn Worker> {
        self.scheduler.spawn("conformance", Box::new(work)).expect("there is a thread")
    }

    /// What `work` took, by the monotonic clock.
    fn time(&self, work: impl FnOnce()) -> Duration {
        let start = self.clock.monotonic();
        work();
        self.clock.monotonic() - start
    }
}

/// Waits until `ready`, as all code does: number first, then the look, then the waiting.
fn wait_until(bell: &Bell, ready: impl Fn() -> bool) {
    loop {
        let seen = bell.rung();
        if ready() {
            return;
        }
        bell.wait(seen, Some(LONG));
    }
}

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The rules that one thread can try by itself.
pub(crate) mod alone {
    use super::*;

    pub(crate) fn the_monotonic_clock_goes_on_and_never_back(world: &World) {
        let bell = world.bell();
        let mut last = world.clock.monotonic();
        let start = last;
        for round in 0..1_000 {
            let now = world.clock.monotonic();
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
            if round % 500 == 0 {
                bell.wait(bell.rung(), Some(SHORT));
            }
        }
        assert!(last >= start + 2 * SHORT, "{:?}", last - start);
    }

    pub(crate) fn the_wall_clock_goes_with_the_monotonic_one(world: &World) {
        let start = world.clock.now();
        let bell = world.bell();
        let waited = world.time(|| bell.wait(bell.rung(), Some(20 * SHORT)));
        let went = (world.clock.now().as_millis() - start.as_millis()).unsigned_abs();

        // The coarse clock may be a tick behind, at either end.
        assert!(u128::from(went) + 20 >= waited.as_millis(), "{went} ms on the wall in {waited:?}");
    }

    pub(crate) fn a_wait_ends_at_its_timeout_and_not_before(world: &World) {
        for timeout in [Duration::ZERO, SHORT, 3 * SHORT] {
            let bell = world.bell();
            let took = world.time(|| bell.wait(bell.rung(), Some(timeout)));

            assert!(took >= timeout && took < LONG, "{took:?} of {timeout:?}");
        }
    }

    pub(crate) fn a_ring_between_the_look_and_the_wait_is_not_lost(world: &World) {
        let bell = world.bell();
        let seen = bell.rung();
        bell.ring();
        let took = world.time(|| bell.wait(seen, Some(LONG)));

        assert!(took < LONG, "{took:?}");
        assert!(bell.rung() > seen);
    }

    pub(crate) fn a_ring_that_was_seen_wakes_nobody_later(world: &World) {
        let bell = world.bell();
        bell.ring();
        let took = world.time(|| bell.wait(bell.rung(), Some(SHORT)));

        assert!(took >= SHORT, "{took:?}");
    }

    pub(crate) fn bells_do_not_hear_one_another(world: &World) {
        let (bell, other) = (world.bell(), world.bell());
        let seen = bell.rung();
        other.ring();
        let took = world.time(|| bell.wait(seen, Some(SHORT)));

        assert!(took >= SHORT, "{took:?}");
        assert_eq!(bell.rung(), seen);
    }

    pub(crate) fn a_task_is_woken_by_the_first_ring_and_by_no_other(world: &World) {
        let (bell, woken) = (world.bell(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let times = || woken.0.load(Ordering::SeqCst);

        assert!(bell.wake_at_ring(bell.rung(), &waker));
        bell.ring();
        bell.ring();
        assert_eq!(times(), 1);

        let seen = bell.rung();
        bell.ring();
        assert!(!bell.wake_at_ring(seen, &waker), "it has rung already");
        bell.ring();
        assert_eq!(times(), 1);

        assert!(bell.wake_at_ring(bell.rung(), &waker));
        bell.forget_task();
        bell.ring();
        assert_eq!(times(), 1);
    }

    pub(crate) fn who_spins_looks_until_it_is_ready_or_the_time_is_over(world: &World) {
        let took = world.time(|| world.scheduler.spin(&|| false, SHORT));
        assert!(took >= SHORT && took < LONG, "{took:?}");
        let took = world.time(|| world.scheduler.spin(&|| true, LONG));
        assert!(took < LONG, "{took:?}");
        let took = world.time(|| world.scheduler.give_way(&|| false, SHORT));
        assert!(took < LONG, "{took:?}");
    }
}

/// The rules for several.
mod together {
    use super::*;

    pub(super) fn a_ring_wakes_all_who_wait(world: &World) {
        let (bell, ready, go) = (world.bell(), world.bell(), Arc::new(AtomicU64::new(0)));
        let waiting = Arc::new(AtomicU64::new(0));
        let mut workers: Vec<_> = (0..3)
            .map(|_| {
                let (bell, ready, go) = (Arc::clone(&bell), Arc::clone(&ready), Arc::clone(&go));
                let waiting = Arc::clone(&waiting);
                world.beside(move || {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    ready.ring();
                    wait_until(&bell, || go.load(Ordering::SeqCst) == 1);
                })
            })
            .collect();
        wait_until(&ready, || waiting.load(Ordering::SeqCst) == 3);
        let took = world.time(|| {
            go.store(1, Ordering::SeqCst);
            bell.ring();
            workers.iter_mut().for_each(|worker| worker.join());
        });

        assert!(took < LONG, "{took:?}");
    }

    pub(super) fn no_ring_is_lost_of_two_who_wait_for_one_another(world: &World) {
        const ROUNDS: u64 = 300;
        let (ball, mine, theirs) = (Arc::new(AtomicU64::new(0)), world.bell(), world.bell());
        let mut worker = {
            let (ball, mine, theirs) = (Arc::clone(&ball), Arc::clone(&mine), Arc::clone(&theirs));
            world.beside(move || {
                for round in 0..ROUNDS {
                    wait_until(&theirs, || ball.load(Ordering::SeqCst) == 2 * round + 1);
                    ball.fetch_add(1, Ordering::SeqCst);
                    mine.ring();
                }
            })
        };
        let took = world.time(|| {
            for round in 0..ROUNDS {
                wait_until(&mine, || ball.load(Ordering::SeqCst) == 2 * round);
                ball.fetch_add(1, Ordering::SeqCst);
                theirs.ring();
            }
            worker.join();
        });

        assert_eq!(ball.load(Ordering::SeqCst), 2 * ROUNDS);
        assert!(took < LONG, "{took:?}");
    }

    pub(super) fn a_join_waits_for_the_end_and_a_second_one_does_not(world: &World) {
        let ended = Arc::new(AtomicU64::new(0));
        let (theirs, bell) = (Arc::clone(&ended), world.bell());
        let mut worker = world.beside(move || {
            bell.wait(bell.rung(), Some(SHORT));
            theirs.store(1, Ordering::SeqCst);
        });
        worker.join();
        assert_eq!(ended.load(Ordering::SeqCst), 1);
        worker.join();
    }

    pub(super) fn nobody_waits_for_the_end_of_itself(world: &World) {
        let (itself, ended) = (Arc::new(Mutex::new(None::<Box<dyn Worker>>)), world.bell());
        let (theirs, bell) = (Arc::clone(&itself), Arc::clone(&ended));
        let worker = world.beside(move || {
            // It is put there before anybody waits in the one world, and at some moment in the other.
            loop {
                if let Some(mut worker) = theirs.lock().take() {
                    worker.join();
                    break;
                }
                bell.wait(bell.rung(), Some(SHORT));
            }
            bell.ring();
        });
        let seen = ended.rung();
        *itself.lock() = Some(worker);
        let took = world.time(|| ended.wait(seen, Some(LONG)));

        assert!(took < LONG, "{took:?}");
    }

    pub(super) fn what_is_handed_over_arrives_once_and_in_order(world: &World) {
        const MANY: u64 = 200;
        let (queue, bell) = (Arc::new(Mutex::new(VecDeque::new())), world.bell());
        let mut worker = {
            let (queue, bell) = (Arc::clone(&queue), Arc::clone(&bell));
            world.beside(move || {
                for number in 0..MANY {
                    queue.lock().push_back(number);
                    bell.ring();
                }
            })
        };
        let mut arrived = Vec::new();
        while arrived.len() < MANY as usize {
            wait_until(&bell, || !queue.lock().is_empty());
            arrived.extend(queue.lock().drain(..));
        }
        worker.join();

        assert_eq!(arrived, (0..MANY).collect::<Vec<_>>());
    }
}

macro_rules! rules {
    (alone { $($alone:ident,)* } together { $($together:ident,)* }) => {
        /// The rules for one thread or member, for whoever has a scheduler of its own.
        pub(crate) const ALONE: &[fn(&World)] = &[$(alone::$alone),*];

        /// Threads of the operating system, and its clocks.
        #[cfg(not(miri))]
        mod real {
            $(#[test] fn $alone() { super::alone::$alone(&super::World::real()); })*
            $(#[test] fn $together() { super::together::$together(&super::World::real()); })*
        }

        /// Members that take turns, which each seed gives them in another way.
        mod simulated {
            use super::World;

            $(#[test] fn $alone() { (0..20).for_each(|seed| super::alone::$alone(&World::simulated(seed))); })*
            $(#[test] fn $together() { (0..20).for_each(|seed| super::together::$together(&World::simulated(seed))); })*
        }
    };
}

rules! {
    alone {
        the_monotonic_clock_goes_on_and_never_back,
        the_wall_clock_goes_with_the_monotonic_one,
        a_wait_ends_at_its_timeout_and_not_before,
        a_ring_between_the_look_and_the_wait_is_not_lost,
        a_ring_that_was_seen_wakes_nobody_later,
        bells_do_not_hear_one_another,
        a_task_is_woken_by_the_first_ring_and_by_no_other,
        who_spins_looks_until_it_is_ready_or_the_time_is_over,
    }
    together {
        a_ring_wakes_all_who_wait,
        no_ring_is_lost_of_two_who_wait_for_one_another,
        a_join_waits_for_the_end_and_a_second_one_does_not,
        nobody_waits_for_the_end_of_itself,
        what_is_handed_over_arrives_once_and_in_order,
    }
}
