//! Mapped memory. ALL `unsafe` of the library is in this file.
//!
//! A [`Region`] is the memory of one segment, and a [`Pen`] is the right to write to it. There is one pen to a
//! region. Everything that is `unsafe` below rests on three sentences:
//!
//! > 1. **Bytes below `written` never change.**
//! > 2. **Nobody but the one pen looks at, or stores to, a byte at or above `written`** except for whole aligned
//! >    words through [`Region::word`], which are atomic on both sides.
//! > 3. **`written <= valid <= capacity`**: the memory from 0 to `capacity` is mapped for as long as the region
//! >    lives, and the file behind it reaches at least to `valid`, so that touching it cannot fault.
//!
//! `written` only grows; the pen stores it with release ordering after the bytes, readers load it with acquire
//! ordering before them.
//!
//! A region that follows a file which *another process* writes has a pen too, which writes nothing: it looks at
//! a batch only after having seen its length word set, and the writing process publishes that word last and never
//! touches the batch again. What the contract cannot exclude (reliability rule 27) is somebody who rewrites
//! or shortens a file of the log while it is mapped.

use std::alloc::{self, Layout};
use std::fmt;
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

/// Bytes that are mapped for as long as this lives.
pub(crate) struct Memory {
    backing: Backing,
    writable: bool,
}

enum Backing {
    /// A file, shared with everybody who maps it.
    File(MmapRaw),
    /// Anonymous memory that the simulated disk keeps too.
    #[cfg_attr(not(any(test, feature = "sim")), allow(dead_code, reason = "only the simulated disk makes it"))]
    Heap(Arc<Heap>),
}

/// Memory at which an atomic word may lie: the alignment of a page.
const PAGE: usize = 4096;

/// Zeroed memory with the alignment of a page.
pub(crate) struct Heap {
    start: *mut u8,
    layout: Layout,
}
