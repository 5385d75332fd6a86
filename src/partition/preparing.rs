//! Preparing: room and pages ahead of those who append, so that an append waits for neither disk nor page fault.
//!
//! The background worker does it, told by whoever appends past the position up to which there is enough. How far ahead
//! follows from how fast the partition was appended to since the last look: what is idle or slow costs nothing.
//!
//! | level              | what is prepared             | why                                                                |
//! |--------------------|------------------------------|--------------------------------------------------------------------|
//! | `Os`               | pages, ready to be stored to | the first store to a page costs as much as ten small appends       |
//! | `Sync`, `Interval` | blocks, written and synced   | the first sync of an allocated block has the file system write its journal too |
//!
//! With syncs, pages that are prepared for storing would be written to the disk for nothing; and who appends so much
//! that every sync has many pages needs no blocks prepared, for it pays for the journal once for all of them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::config::Durability;
use crate::env::storage::File;
use crate::env::storage::region::Region;
use crate::partition::{Partition, Writer};
use crate::types::Offset;

/// The large page of the usual systems. Below, a segment is of small pages, so that small partitions stay small.
pub(super) const LARGE_PAGE: u64 = 2 << 20;

/// Nobody is told before so much was appended since the last look, or since the segment began.
const FIRST_LOOK_BYTES: u64 = 256 << 10;

/// How long the prepared pages last, and at most how many bytes: long enough for the worker to come in time.
const PAGES_LAST: Duration = Duration::from_millis(20);
const MOST_PAGES_BYTES: u64 = 32 << 20;

/// How long the prepared blocks last. Who would need more than so many bytes for it syncs many blocks at once.
const BLOCKS_LAST: Duration = Duration::from_millis(250);
const MOST_BLOCKS_BYTES: u64 = 4 << 20;
const LEAST_BLOCKS_BYTES: u64 = 64 << 10;

/// Pages so far behind the last append are let go of: readers that are further behind get them back from the file.
const KEPT_BYTES: u64 = 8 << 20;

/// How far the active segment is prepared.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Whoever appends past this position tells the worker. `u64::MAX`: it was told.
    pub(super) ask_at: u64,
    /// Up to here the pages or blocks are prepared, and up to here they were let go of.
    prepared: u64,
    let_go: u64,
    /// How many bytes had been appended at the last look, in all segments, and when that was.
    seen: (u64, Duration),
    /// The bytes of the segments before the active one.
    before: u64,
}

impl Ahead {
    /// Nothing is prepared of a segment that is appended to from `position` on.
    pub(super) fn new(position: u64) -> Self {
        let ask_at = position + FIRST_LOOK_BYTES;
        Ahead { ask_at, prepared: position, let_go: 0, seen: (position, Duration::ZERO), before: 0 }
    }

    /// A new segment was begun behind one that ended at `end`, to be appended to from `position` on.
    pub(super) fn roll(&mut self, end: u64, position: u64) {
        // What was asked for last went into the old segment; if anybody is fast enough to fill one, the new one is next.
        *self = Ahead { ask_at: position, prepared: position, let_go: 0, before: self.before + end, ..*self };
    }
}

/// What is to be done without the mutex.
struct Work {
    region: Arc<Region>,
    populate: Range<u64>,
    let_go: Range<u64>,
    /// A file, and the offset behind what it holds.
    sync: Option<(Arc<dyn File>, Offset)>,
}

impl Partition {
    /// Prepares what was asked for, if anything was.
    pub(super) fn prepare_ahead(&self) {
        let writer = self.writer.lock();
        if writer.ahead.ask_at != u64::MAX {
            return;
        }
        let Some(work) = self.plan(writer) else { return };
        let Work { region, populate, let_go, sync } = work;
        let mut start = populate.start;
        while start < populate.end {
            let end = (start / LARGE_PAGE + 1) * LARGE_PAGE;
            region.populate(start..end.min(populate.end));
            start = end;
        }
        if !let_go.is_empty() {
            region.let_go(let_go);
        }
        if let Some((file, next)) = sync
            && self.sync_file(&*file, next).is_err()
        {
            // Whatever the kernel could not write, it tells this descriptor only once.
            self.fail();
        }
    }

    /// Takes the room that is needed, and says which pages.
    fn plan(&self, mut writer: MutexGuard<'_, Writer>) -> Option<Work> {
        let now = self.home.env.clock.monotonic();
        let position = writer.position;
        let total = writer.ahead.before + position;
        let (seen, since) = std::mem::replace(&mut writer.ahead.seen, (total, now));
        let synced = writer.durability != Durability::Os;
        let lasting = if synced { BLOCKS_LAST } else { PAGES_LAST };
        let window = lasts(lasting, total.saturating_sub(seen), now.saturating_sub(since));
        let (window, step) = match synced {
            false if window < FIRST_LOOK_BYTES => (0, LARGE_PAGE),
            false => (window.min(MOST_PAGES_BYTES), LARGE_PAGE),
            true if window > MOST_BLOCKS_BYTES => (0, LEAST_BLOCKS_BYTES),
            true => (window.max(LEAST_BLOCKS_BYTES), LEAST_BLOCKS_BYTES),
        };
        writer.ahead.ask_at = position + (window / 2).max(FIRST_LOOK_BYTES);
        if window == 0 {
            return None;
        }
        let active = writer.active.as_ref()?;
        let region = Arc::clone(active.pen.region());
        let end = (position + window).next_multiple_of(step).min(region.capacity());
        if end > writer.valid {
            // Whoever appends meets the error again, if there is need to.
            drop(self.grow(&mut writer, end));
        }
        let end = end.min(writer.valid);
        let populate = writer.ahead.prepared.max(position)..end;
        let behind = position.saturating_sub(KEPT_BYTES) / LARGE_PAGE * LARGE_PAGE;
        let let_go = writer.ahead.let_go..behind;
        writer.ahead.prepared = end.max(writer.ahead.prepared);
        writer.ahead.let_go = behind.max(writer.ahead.let_go);
        let file = writer.active.as_ref().map(|active| (Arc::clone(&active.file), writer.next));
        let sync = file.filter(|_| synced && !populate.is_empty());
        Some(Work { region, populate, let_go, sync })
    }
}

/// How many bytes last for `time`, if `bytes` came in the time `gone`.
fn lasts(time: Duration, bytes: u64, gone: Duration) -> u64 {
    let bytes = u128::from(bytes) * time.as_nanos() / gone.as_nanos().max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
