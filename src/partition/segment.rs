//! A segment that is mapped: finding and checking batches in it. Writing to it is the partition's business.
//!
//! What of a segment nobody has looked at is checked as far as it is read, once, from its start on: every batch
//! below `checked` was seen whole, or lies in a *hole* that is remembered. Batches that this process appended, or
//! that recovery walked over, need no second look: they are behind the unchecked part, or there is none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::env::storage::region::Region;
use crate::error::Flaw;
use crate::format::batch::{Batch, Walk};
use crate::format::bytes::are_zero;
use crate::format::segment::HEADER_BYTES;
use crate::partition::index::{INTERVAL_BYTES, Index};
use crate::types::Offset;

/// Bytes of a segment that hold no whole batch although they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// The positions: from the bad place to the next whole batch, or to the end of the segment.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The offsets that were due there.
    pub(crate) first: Offset,
    pub(crate) next: Offset,
    pub(crate) flaw: Flaw,
}

/// What a reader runs into instead of a batch.
#[derive(Debug)]
pub(crate) enum Obstacle {
    Hole(Hole),
    /// The disk does not give the bytes. It may, the next time.
    Unreadable(io::Error),
}

/// Behind so many holes the rest of a segment is one: looking for the end of each costs a look at all of the rest.
const MAX_HOLES: usize = 64;

impl Hole {
    /// Where it begins: a position and the offset that was due there.
    pub(crate) fn before(&self) -> (u64, Offset) {
        (self.start, self.first)
    }

    /// The hole that begins where `walk` stands, and moves `walk` behind it. If no whole batch follows, the hole
    /// goes to the end of `bytes` and takes the offsets up to `end`.
    pub(crate) fn step_over(walk: &mut Walk, bytes: &[u8], flaw: Flaw, holes_before: usize, end: Offset) -> Hole {
        let resumed = if holes_before < MAX_HOLES { walk.resume(bytes) } else { None };
        let behind = resumed.unwrap_or(Walk { position: bytes.len() as u64, due: end.max(walk.due), ..*walk });
        let hole = Hole { start: walk.position, end: behind.position, first: walk.due, next: behind.due, flaw };
        *walk = behind;
        hole
    }
}

/// How much of a segment is checked at a time: enough to be worth the lock, little enough for a first poll.
const CHECK_BYTES: u64 = 256 << 10;
/// How far behind that the disk is asked for the bytes: as far as a batch reaches that begins there, unless it is larger
/// than is usual.
const READABLE_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Segment {
    /// At the first batch.
    begin: Walk,
    path: PathBuf,
    region: Arc<Region>,
    /// Of the batches that need no look.
    index: Index,
    unchecked: Option<Unchecked>,
    holes: Mutex<Vec<Hole>>,
    hole_count: AtomicUsize,
}

/// The part of a segment, from its start on, that is looked at before it is read.
#[derive(Debug)]
struct Unchecked {
    /// The position and the offset behind it.
    end: u64,
    next: Offset,
    /// Whether nothing follows it.
    sealed: bool,
    index: Index,
    /// Every batch below was checked. `u64::MAX`: all.
    checked: AtomicU64,
    walk: Mutex<Walk>,
}

impl Segment {
    /// A segment of which whoever made or recovered it has seen every batch.
    pub(crate) fn active(path: PathBuf, begin: Walk, region: Arc<Region>) -> Self {
        Self::new(path, begin, region, None)
    }

    /// A sealed segment whose bytes nobody has looked at yet, and which ends where offset `next` begins.
    pub(crate) fn sealed(path: PathBuf, begin: Walk, region: Arc<Region>, next: Offset) -> Self {
        let end = region.written();
        Self::new(path, begin, region, Some((end, next, true)))
    }

    /// A segment that goes on behind this position and offset, and whose bytes before that nobody has looked at yet.
    pub(crate) fn reopened(path: PathBuf, begin: Walk, region: Arc<Region>, end: (u64, Offset)) -> Self {
        Self::new(path, begin, region, Some((end.0, end.1, false)))
    }

    /// `begin`: at the segment's first batch.
    fn new(path: PathBuf, begin: Walk, region: Arc<Region>, unchecked: Option<(u64, Offset, bool)>) -> Self {
        let unchecked = unchecked.map(|(end, next, sealed)| Unchecked {
            end,
            next,
            sealed,
            index: Index::new(end),
            checked: AtomicU64::new(HEADER_BYTES),
            walk: Mutex::new(begin),
        });
        let index = Index::new(region.capacity());
        let (holes, hole_count) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        Segment { begin, path, region, index, unchecked, holes, hole_count }
    }

    pub(crate) fn base(&self) -> Offset {
        self.begin.due
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where its batches begin.
    pub(crate) fn begin(&self) -> Walk {
        self.begin
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Says that a whole batch was put at `position`.
    #[inline]
    pub(crate) fn note(&self, offset: Offset, position: u64) {
        self.index.note(offset.since(self.base()), position);
    }

    /// Says that no batch stands at `position` or behind it after all. Only before anybody reads.
    pub(crate) fn cut(&self, position: u64) {
        self.index.truncate(position);
    }

    /// Whether `offset` is one of this segment's, as far as a look at the index tells; there may be more.
    pub(crate) fn is_known_to_hold(&self, offset: Offset) -> bool {
        let reached = |index: &Index| index.reaches(offset.since(self.base()));
        offset >= self.base()
            && (reached(&self.index) || self.unchecked.as_ref().is_some_and(|part| reached(&part.index)))
    }

    /// Whether all of it can be forgotten: what a second look would find is all that there is to know.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.hole_count.load(Ordering::Acquire) == 0
    }

    /// A position at or before that of the batch that holds `offset`.
    pub(crate) fn position_before(&self, offset: Offset) -> u64 {
        self.index.floor(offset.since(self.base())).unwrap_or(HEADER_BYTES)
    }

    /// Remembers a hole that was found while recovering.
    pub(crate) fn add_hole(&self, hole: Hole) {
        self.holes.lock().push(hole);
        self.hole_count.fetch_add(1, Ordering::Release);
    }

    /// The whole batches from `position` on, as far as they are checked and up to the next hole; empty at the end.
    /// `position` must be the start of a batch or of a hole, or the end.
    ///
    /// # Errors
    ///
    /// The hole that begins there, or what the disk said.
    #[inline]
    pub(crate) fn whole_from(&self, position: u64) -> Result<&[u8], Obstacle> {
        let bytes = self.region.bytes();
        let mut end = bytes.len() as u64;
        if let Some(part) = self.unchecked.as_ref().filter(|part| part.sealed || position < part.end) {
            if position >= part.checked.load(Ordering::Acquire) {
                self.check(part, position).map_err(Obstacle::Unreadable)?;
            }
            end = end.min(part.checked.load(Ordering::Acquire));
        }
        if self.hole_count.load(Ordering::Acquire) != 0 {
            for hole in self.holes.lock().iter().filter(|hole| hole.end > position) {
                if hole.start <= position {
                    return Err(Obstacle::Hole(*hole));
                }
                end = end.min(hole.start);
            }
        }
        Ok(bytes.get(position as usize..end as usize).unwrap_or_default())
    }

    /// The whole batch at `position`, if one stands there.
    fn batch_at(&self, position: u64) -> Result<Option<Batch<'_>>, Obstacle> {
        // A flaw cannot be: the batch was checked, and checked bytes do not change.
        Ok(Batch::at(self.whole_from(position)?).ok().flatten())
    }

    /// The position of the batch that holds `offset`, or of the first behind it; or the hole in the way.
    pub(crate) fn find(&self, offset: Offset) -> Result<u64, Obstacle> {
        let (index, start) = match &self.unchecked {
            Some(part) if offset < part.next => (&part.index, HEADER_BYTES),
            Some(part) => (&self.index, part.end),
            None => (&self.index, HEADER_BYTES),
        };
        let mut position = index.floor(offset.since(self.base())).unwrap_or(start);
        self.region.prefetch(position, INTERVAL_BYTES as usize);
        loop {
            match self.batch_at(position) {
                Ok(Some(batch)) if batch.next() <= offset => position += batch.length(),
                Ok(_) => return Ok(position),
                Err(Obstacle::Hole(hole)) if hole.next <= offset => position = hole.end,
                Err(Obstacle::Hole(hole)) if hole.first > offset => return Ok(hole.start),
                Err(obstacle) => return Err(obstacle),
            }
        }
    }

    /// Looks at all that nobody has looked at yet; whether all of it is whole.
    pub(crate) fn check_all(&self) -> io::Result<bool> {
        if let Some(part) = &self.unchecked {
            let mut checked = part.checked.load(Ordering::Acquire);
            while checked < part.end {
                self.check(part, checked)?;
                checked = part.checked.load(Ordering::Acquire);
            }
        }
        Ok(self.hole_count.load(Ordering::Acquire) == 0)
    }

    /// Checks at least the batch at `position`, remembering the holes.
    #[cold]
    fn check(&self, part: &Unchecked, position: u64) -> io::Result<()> {
        let mut walk = part.walk.lock();
        let bytes = self.region.slice(0..part.end);
        let target = position.saturating_add(CHECK_BYTES);
        // Asked first, because bytes that the disk does not give end the process of whoever touches them.
        let behind = target.saturating_add(READABLE_BYTES).min(part.end);
        self.region.check_readable(walk.position.min(behind)..behind)?;
        while walk.position < target {
            let start = walk.position;
            let flaw = match walk.step(bytes) {
                Ok(Some(batch)) => {
                    part.index.note(batch.base().since(self.base()), start);
                    continue;
                }
                Ok(None) if are_zero(bytes.get(start as usize..).unwrap_or_default()) => {
                    self.check_end(&mut walk, part);
                    break;
                }
                // Zeros are not the end, if anything follows.
                Ok(None) => Flaw::Hole,
                Err(flaw) => flaw,
            };
            let holes = self.hole_count.load(Ordering::Relaxed);
            self.add_hole(Hole::step_over(&mut walk, bytes, flaw, holes, part.next));
        }
        let all = walk.position >= part.end;
        part.checked.store(if all { u64::MAX } else { walk.position }, Ordering::Release);
        Ok(())
    }

    /// Behind the last whole batch: the offsets up to where the part ends must have been there.
    fn check_end(&self, walk: &mut Walk, part: &Unchecked) {
        // Behind a segment that goes on, what ends too soon is in the way of those who read on.
        if walk.due < part.next || (!part.sealed && walk.position < part.end) {
            let flaw = if walk.position < part.end { Flaw::Hole } else { Flaw::Missing };
            // At least a byte long, so that a reader at the end of the file runs into it.
            let end = part.end.max(walk.position + 1);
            self.add_hole(Hole { start: walk.position, end, first: walk.due, next: part.next, flaw });
        }
        walk.position = walk.position.max(part.end);
    }
}
