//! Asking what a user has written, an assignor or a pattern, while a group is locked and waits for the answer.
//!
//! What it asks of a group in its turn would wait for a lock that its own thread holds, for ever, or for one of another
//! group whose answer waits for this one. So it is stopped: whoever locks a group finds out first whether its thread is
//! being asked, and if so panics, which ends the asking. It panics rather than fails so that an answer cannot be made of it.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// The answer; or what there was instead, if it was a panic, of which the panic hook has told.
pub(super) fn ask<T>(answer: impl FnOnce() -> T) -> Result<T, String> {
    let before = ASKED.replace(true);
    let answered = panic::catch_unwind(AssertUnwindSafe(answer));
    ASKED.set(before);
    answered.map_err(|panic| message(&*panic).to_owned())
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

/// # Panics
///
/// Panics in code that is being asked.
pub(super) fn check_not_asked() {
    assert!(
        !ASKED.get(),
        "an assignor or a topic pattern must not use consumers or ask for groups: its group is locked until it has answered; \
         let it decide by what it is given"
    );
}
