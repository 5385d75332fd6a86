//! How much memory something takes: an allocator that counts, by thread.
//!
//! The simulated disk stands for address space with allocations that are aligned to a page: a mapped file is not memory
//! that a reader asked for, and is not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The alignment of what stands for a mapping.
const PAGE: usize = 4096;

thread_local! {
    static USED: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
pub struct Counting;

fn count(bytes: isize, layout: Layout) {
    if layout.align() < PAGE {
        let used = USED.get() + bytes;
        USED.set(used);
        PEAK.set(PEAK.get().max(used));
    }
}

// SAFETY: all calls go to the system's allocator as they came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, layout);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, layout);
        // SAFETY: the caller keeps the promises of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize), layout);
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize, layout);
        // SAFETY: the caller keeps the promises of `realloc`.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// What `work` returns, and the most bytes that it held at a time; 0 where [`Counting`] is not installed.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let (before, outer) = (USED.get(), PEAK.get());
    PEAK.set(before);
    let done = work();
    let peak = PEAK.get() - before;
    PEAK.set(outer.max(PEAK.get()));
    (done, usize::try_from(peak).unwrap_or(0))
}

/// What `work` returns.
///
/// # Panics
///
/// Panics if it held more than so many bytes at a time.
#[track_caller]
pub fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let (done, peak) = peak_of(work);
    assert!(peak <= limit, "{peak} bytes of memory were held at a time, and {limit} are enough");
    done
}
