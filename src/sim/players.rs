//! Threads for the steps of members, kept from run to run: starting one costs more than a short run.

use std::cell::Cell;
use std::mem;
use std::panic;
use std::sync::{Arc, Once};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use crate::env::point;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that waits for jobs.
pub(crate) struct Player {
    thread: Thread,
    job: Arc<Mutex<Option<Job>>>,
}

/// Those that nobody has hired.
static FREE: Mutex<Vec<Player>> = Mutex::new(Vec::new());

/// Hires a player.
///
/// # Panics
///
/// Panics if the system has no more threads.
pub(crate) fn hire() -> Player {
    let free = FREE.lock().pop();
    free.unwrap_or_else(Player::new)
}

/// Lets them go. A job that is about to end may still be ending.
pub(crate) fn dismiss(hired: impl Iterator<Item = Player>) {
    FREE.lock().extend(hired);
}

impl Player {
    fn new() -> Self {
        let job = Arc::new(Mutex::new(None));
        let theirs = Arc::clone(&job);
        let work = move || {
            loop {
                let job: Option<Job> = mem::take(&mut *theirs.lock());
                match job {
                    Some(job) => job(),
                    None => thread::park(),
                }
            }
        };
        let started = thread::Builder::new().name("tidelog-sim".to_owned()).spawn(work);
        let thread = started.expect("the system has a thread for a member of a simulation").thread().clone();
        Player { thread, job }
    }

    /// Gives the thread something to do.
    pub(crate) fn give(&self, job: Job) {
        *self.job.lock() = Some(job);
        self.thread.unpark();
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether panics of this thread are not printed, besides those of members. Returns what held before.
pub(crate) fn be_quiet(quiet: bool) -> bool {
    QUIET.replace(quiet)
}

/// Keeps panics of members from being printed, which a search has by the thousand: the report says what they said. Those of
/// all other threads are printed as before.
pub(crate) fn silence_panics_on_stage() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !point::is_looked_at() && !QUIET.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
}
