//! Callbacks of deliveries, run in the order of their offsets, by one thread at a time and without any lock.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use parking_lot::Mutex;

use crate::error::Result;
use crate::types::Offset;

/// Runs when its record is delivered, or never will be.
pub(crate) type Callback = Box<dyn FnOnce(Offset, Result<()>) + Send>;

/// The callbacks of a partition that still wait.
#[derive(Default)]
pub(super) struct Callbacks {
    waiting: Mutex<VecDeque<(Offset, Callback)>>,
    any: AtomicBool,
    turn: Mutex<()>,
}

impl Callbacks {
    pub(super) fn push(&self, offset: Offset, callback: Callback) {
        let mut waiting = self.waiting.lock();
        waiting.push_back((offset, callback));
        self.any.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Runs those that `outcome` has a result for. It is asked again for each, so that whoever finds the turn taken can
    /// leave its news to the one who has it.
    pub(super) fn run(&self, outcome: impl Fn(Offset) -> Option<Result<()>>) {
        while !self.is_empty() {
            fence(Ordering::SeqCst);
            let Some(turn) = self.turn.try_lock() else { return };
            while let Some((offset, callback, result)) = self.take(&outcome) {
                // A callback that panics takes nobody with it: its record is written, the panic hook has told of it.
                drop(panic::catch_unwind(AssertUnwindSafe(|| callback(offset, result))));
            }
            drop(turn);
            fence(Ordering::SeqCst);
            // Somebody may have been turned away between the last look and giving up the turn.
            if self.waiting.lock().front().is_none_or(|(offset, _)| outcome(*offset).is_none()) {
                return;
            }
        }
    }

    fn take(&self, outcome: &impl Fn(Offset) -> Option<Result<()>>) -> Option<(Offset, Callback, Result<()>)> {
        let mut waiting = self.waiting.lock();
        let result = outcome(waiting.front()?.0)?;
        let (offset, callback) = waiting.pop_front()?;
        self.any.store(!waiting.is_empty(), Ordering::Release);
        Some((offset, callback, result))
    }
}
