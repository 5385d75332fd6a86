//! How much was done for some bytes, counted and not timed: hostile ones must not make a reader work without end.

use std::cell::Cell;

thread_local! {
    static CHECKED_BYTES: Cell<u64> = const { Cell::new(0) };
}

/// Says that a checksum was computed of so many bytes.
pub(crate) fn count(bytes: usize) {
    CHECKED_BYTES.set(CHECKED_BYTES.get() + bytes as u64);
}

/// What this thread has counted since it asked last.
pub(crate) fn take() -> u64 {
    CHECKED_BYTES.take()
}
