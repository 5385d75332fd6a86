//! Scheduling: how a thread waits for another, and how the background worker is started.
//!
//! A [`Bell`] is all the waiting there is. Who waits reads the bell's number first, then looks whether there is
//! still a reason to wait, then waits for the number to change: a ring in between is never lost. Who rings pays
//! one addition and one load if nobody waits. A thread waits parked; a task has its waker woken.

use std::fmt;
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(not(target_os = "linux"))]
use parking_lot::Condvar;
use parking_lot::Mutex;

/// Starts threads and makes bells.
pub(crate) trait Scheduler: Send + Sync + fmt::Debug {
    /// A new bell.
    fn bell(&self) -> Bell;

    /// Gives way to the other threads until `ready`, which they will make true if they run, and at most for `at_most`:
    /// for waits that are shorter than it takes to go to sleep and be woken.
    fn give_way(&self, ready: &dyn Fn() -> bool, at_most: Duration);

    /// Looks again and again until `ready`, at most for `at_most`, and keeps the processor for it: for who wants to know at
    /// once.
    fn spin(&self, ready: &dyn Fn() -> bool, at_most: Duration);

    /// Runs `work` beside the caller.
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> std::io::Result<Box<dyn Worker>>;
}

/// Work that runs beside the caller.
pub(crate) trait Worker: Send + Sync + fmt::Debug {
    /// Waits until the work has ended. Returns at once if called by the work itself.
    fn join(&mut self);
}

/// The part of a bell that blocks.
pub(crate) trait Parking: Send + Sync + fmt::Debug {
    /// Blocks while `rung` holds `seen`, at most for `timeout`; `None` is for ever. May return early.
    fn park(&self, rung: &AtomicU64, seen: u64, timeout: Option<Duration>);

    /// Lets all who are parked look again.
    fn unpark(&self);
}

/// Something to wait for that others announce.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicU64,
    /// How many a ring must wake: threads, and the task.
    sleepers: AtomicU32,
    parking: Arc<dyn Parking>,
    /// Counted in `sleepers` for as long as it is here, both under this lock.
    task: Mutex<Option<Waker>>,
}

impl Bell {
    pub(crate) fn new(parking: Arc<dyn Parking>) -> Self {
        Bell { rung: AtomicU64::new(0), sleepers: AtomicU32::new(0), parking, task: Mutex::new(None) }
    }

    /// How often it has rung. Read it before looking for a reason to wait.
    pub(crate) fn rung(&self) -> u64 {
        self.rung.load(Ordering::SeqCst)
    }

    /// Rings: everybody who waits looks again.
    pub(crate) fn ring(&self) {
        // The addition comes before the load, and in `wait` the addition to `sleepers` before the load of `rung`,
        // all in one total order: either the sleeper sees the ring, or the ringer sees the sleeper.
        self.rung.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            self.wake_sleepers();
        }
    }

    #[cold]
    fn wake_sleepers(&self) {
        let (task, others) = self.take_task();
        if others != 0 {
            self.parking.unpark();
        }
        // Without a lock: whatever a task is made of, it may do what it likes now.
        if let Some(task) = task {
            task.wake();
        }
    }

    /// The task that waits, which does so no more, and how many others there are.
    fn take_task(&self) -> (Option<Waker>, u32) {
        let mut task = self.task.lock();
        match task.take() {
            Some(waker) => (Some(waker), self.sleepers.fetch_sub(1, Ordering::SeqCst) - 1),
            None => (None, self.sleepers.load(Ordering::SeqCst)),
        }
    }

    /// Has `waker` woken by the first ring since [`rung`](Self::rung) returned `seen`; false: it has rung already, so look
    /// again. There is one task that waits at most; who waits again takes its own place.
    pub(crate) fn wake_at_ring(&self, seen: u64, waker: &Waker) -> bool {
        let mut task = self.task.lock();
        let before = task.replace(waker.clone());
        if before.is_none() {
            self.sleepers.fetch_add(1, Ordering::SeqCst);
        }
        drop(task);
        // As in `wait`: whoever rings after this look has seen the sleeper.
        let is_silent = self.rung.load(Ordering::SeqCst) == seen;
        if !is_silent {
            self.forget_task();
        }
        is_silent
    }

    /// The task waits no more.
    pub(crate) fn forget_task(&self) {
        drop(self.take_task());
    }

    /// Waits until the bell has rung since [`rung`](Self::rung) returned `seen`, at most for `timeout`; `None` is
    /// for ever. May return early, so look again.
    pub(crate) fn wait(&self, seen: u64, timeout: Option<Duration>) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        if self.rung.load(Ordering::SeqCst) == seen {
            self.parking.park(&self.rung, seen, timeout);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Threads of the operating system.
#[derive(Debug)]
pub(crate) struct Threads;

impl Threads {
    pub(crate) fn new() -> Self {
        Threads
    }
}

impl Scheduler for Threads {
    fn bell(&self) -> Bell {
        Bell::new(Arc::new(ThreadParking::default()))
    }

    fn give_way(&self, ready: &dyn Fn() -> bool, at_most: Duration) {
        let start = Instant::now();
        while !ready() && start.elapsed() < at_most {
            thread::yield_now();
        }
    }

    fn spin(&self, ready: &dyn Fn() -> bool, at_most: Duration) {
        /// The clock takes as long as a few looks.
        const LOOKS: u32 = 16;
        let start = Instant::now();
        while start.elapsed() < at_most {
            for _ in 0..LOOKS {
                if ready() {
                    return;
                }
                hint::spin_loop();
            }
        }
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> std::io::Result<Box<dyn Worker>> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Box::new(ThreadWorker { thread: Some(thread) }))
    }
}

/// Threads that wait for a word to change. The kernel wakes all of them at once; with a condition variable that has a
/// mutex each would have to wait until the one before it has given that back.
#[cfg(target_os = "linux")]
#[derive(Debug, Default)]
struct ThreadParking {
    /// Changes with every ring that somebody is parked for.
    word: AtomicU32,
}

#[cfg(target_os = "linux")]
impl Parking for ThreadParking {
    fn park(&self, rung: &AtomicU64, seen: u64, timeout: Option<Duration>) {
        // A timeout past the end of the clock is for ever.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let word = self.word.load(Ordering::SeqCst);
            // In this order: who rings changes the number first and the word then, so that one of the two has changed.
            if rung.load(Ordering::SeqCst) != seen {
                return;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return;
            }
            // A time that the kernel cannot tell is longer than anybody waits.
            let left = left.and_then(|left| rustix::thread::futex::Timespec::try_from(left).ok());
            // Whatever it says, the number is looked at again.
            rustix::thread::futex::wait(&self.word, rustix::thread::futex::Flags::PRIVATE, word, left.as_ref()).ok();
        }
    }

    fn unpark(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
        // It cannot fail: the word is there.
        rustix::thread::futex::wake(&self.word, rustix::thread::futex::Flags::PRIVATE, i32::MAX as u32).ok();
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug, Default)]
struct ThreadParking {
    turn: Mutex<()>,
    rang: Condvar,
}

#[cfg(not(target_os = "linux"))]
impl Parking for ThreadParking {
    fn park(&self, rung: &AtomicU64, seen: u64, timeout: Option<Duration>) {
        // A timeout past the end of the clock is for ever.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut turn = self.turn.lock();
        while rung.load(Ordering::SeqCst) == seen {
            match deadline {
                None => self.rang.wait(&mut turn),
                Some(deadline) => {
                    if self.rang.wait_until(&mut turn, deadline).timed_out() {
                        return;
                    }
                }
            }
        }
    }

    fn unpark(&self) {
        // Taking the turn waits out a sleeper that has looked at the number and not yet gone to sleep.
        drop(self.turn.lock());
        self.rang.notify_all();
    }
}

#[derive(Debug)]
struct ThreadWorker {
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker for ThreadWorker {
    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A worker that panicked has printed its panic; there is nothing left to wait for.
            drop(thread.join());
        }
    }
}
