//! Scheduling: how a thread waits for another, and how the background worker is started.
//!
//! A [`Bell`] is all the waiting there is. Who waits reads the bell's number first, then looks whether there is
//! still a reason to wait, then waits for the number to change: a ring in between is never lost. Who rings pays
//! one addition and one load if nobody waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Starts threads and makes bells.
pub(crate) trait Scheduler: Send + Sync + fmt::Debug {
    /// A new bell.
    fn bell(&self) -> Bell;

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
    sleepers: AtomicU32,
    parking: Arc<dyn Parking>,
}

impl Bell {
    pub(crate) fn new(parking: Arc<dyn Parking>) -> Self {
        Bell { rung: AtomicU64::new(0), sleepers: AtomicU32::new(0), parking }
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
            self.parking.unpark();
        }
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
        Bell::new(Arc::new(ThreadParking { turn: Mutex::new(()), rang: Condvar::new() }))
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> std::io::Result<Box<dyn Worker>> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Box::new(ThreadWorker { thread: Some(thread) }))
    }
}

#[derive(Debug)]
struct ThreadParking {
    turn: Mutex<()>,
    rang: Condvar,
}

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
