//! A segment that is mapped: finding and checking batches in it. Writing to it is the partition's business.
//!
//! What of a segment nobody has looked at is checked as far as it is read, once, from its start on: every batch
//! below `checked` was seen whole, or lies in a *hole* that is remembered. Batches that this process appended, or
//! that recovery walked over, need no second look: they are behind the unchecked part, or there is none.

use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::env::storage::are_zero;
use crate::env::storage::region::{Region, prefetch};
use crate::error::Flaw;
use crate::format::batch::{Batch, RecordView, Walk};
use crate::format::segment::HEADER_BYTES;
use crate::partition::index::{INTERVAL_BYTES, Index};
use crate::partition::time_index::{STRETCH_BYTES, TimeIndex};
use crate::types::{Offset, Timestamp};

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
}

/// What a walk over a segment meets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Met<'a> {
    Batch(Batch<'a>),
    /// Whole batches go on behind it, and so does the walk.
    Hole(Hole),
    /// There is no whole batch any more; what stands there, if not zeros. The walk stays.
    End(Option<Flaw>),
}

impl<'a> Met<'a> {
    /// What comes next in `bytes`, which are those of the segment from its start on, and moves `walk` behind it.
    pub(crate) fn next(walk: &mut Walk, bytes: &'a [u8], holes_before: usize) -> Self {
        let is_zero = |position: u64| are_zero(bytes.get(position as usize..).unwrap_or_default());
        Self::next_if(walk, bytes, holes_before, is_zero)
    }

    /// The same for who has a way of its own to tell whether all of `bytes` is zero from a position on.
    pub(crate) fn next_if(
        walk: &mut Walk,
        bytes: &'a [u8],
        holes_before: usize,
        is_zero: impl FnOnce(u64) -> bool,
    ) -> Self {
        let flaw = match walk.step(bytes) {
            Ok(Some(batch)) => return Met::Batch(batch),
            Ok(None) if is_zero(walk.position) => return Met::End(None),
            Ok(None) => Flaw::Hole,
            Err(flaw) => flaw,
        };
        let behind = if holes_before < MAX_HOLES { walk.resume(bytes) } else { None };
        let Some(behind) = behind else { return Met::End(Some(flaw)) };
        let hole = Hole { start: walk.position, end: behind.position, first: walk.due, next: behind.due, flaw };
        *walk = behind;
        Met::Hole(hole)
    }
}

/// How much of a segment is checked at a time: enough to be worth the lock, little enough for a first poll.
const CHECK_BYTES: u64 = 256 << 10;
/// How far behind that the disk is asked for the bytes: as far as a batch reaches that begins there, unless it is larger
/// than is usual.
const READABLE_BYTES: u64 = 1 << 20;

/// Aligned, so that the counter of those who share it is in another line of the processor's cache: consumers count up and
/// down at each poll, and who appends would wait for that. Not in a simulation, as in `Writer`.
#[derive(Debug)]
#[cfg_attr(not(feature = "sim"), repr(align(64)))]
pub(crate) struct Segment {
    /// At the first batch.
    begin: Walk,
    path: PathBuf,
    region: Arc<Region>,
    /// Of the batches that need no look.
    index: Index,
    times: TimeIndex,
    unchecked: Option<Unchecked>,
    /// Whether a batch that the indexes know may take more offsets than it has records.
    is_sparse: AtomicBool,
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
            walk: Mutex::new(begin.until(Some(next))),
        });
        let (index, times) = (Index::new(region.capacity()), TimeIndex::new(region.capacity()));
        let (holes, hole_count) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        let is_sparse = AtomicBool::new(false);
        Segment { begin, path, region, index, times, unchecked, is_sparse, holes, hole_count }
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

    /// Says that a whole batch was put at `position`, with a record for each of its offsets, and how late they are.
    #[inline]
    pub(crate) fn note(&self, offset: Offset, position: u64, latest: Option<Timestamp>) {
        self.index.note(offset.since(self.base()), position);
        if let Some(latest) = latest {
            self.times.note(position, latest);
        }
    }

    /// Says that a whole batch stands at `position`.
    pub(crate) fn note_batch(&self, batch: &Batch<'_>, position: u64) {
        self.note_density(batch);
        self.note(batch.base(), position, batch.latest());
    }

    /// Before the index tells of a batch behind this one.
    fn note_density(&self, batch: &Batch<'_>) {
        if u64::from(batch.count()) != batch.next().since(batch.base()) {
            self.is_sparse.store(true, Ordering::Release);
        }
    }

    fn note_time(&self, batch: &Batch<'_>, position: u64) {
        if let Some(latest) = batch.latest() {
            self.times.note(position, latest);
        }
    }

    /// Says that no batch stands at `position` or behind it after all: the bytes before it are all that is written.
    /// Only before anybody reads.
    pub(crate) fn cut(&self, position: u64) {
        self.index.truncate(position);
        let from = self.times.truncate(position);
        self.each_batch(from..position, |at, batch| {
            self.note_time(batch, at);
            ControlFlow::<()>::Continue(())
        });
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
        let (index, start) = self.index_of(offset);
        index.floor(offset.since(self.base())).map_or(start, |(_, position)| position)
    }

    /// A batch at or before the one with `offset` up to which there is a record for each offset: its position, and its
    /// first offset.
    pub(crate) fn dense_before(&self, offset: Offset) -> Option<(u64, Offset)> {
        let (index, _) = self.index_of(offset);
        let (ahead, position) = index.floor(offset.since(self.base()))?;
        // Looked at behind the index: what that tells of was noted here before.
        (!self.is_sparse.load(Ordering::Acquire)).then(|| (position, self.base().advance(ahead)))
    }

    /// The index that knows the batch with `offset`, and the position of the first batch that it can know.
    fn index_of(&self, offset: Offset) -> (&Index, u64) {
        match &self.unchecked {
            Some(part) if offset < part.next => (&part.index, HEADER_BYTES),
            Some(part) => (&self.index, part.end),
            None => (&self.index, HEADER_BYTES),
        }
    }

    /// The offset behind its last, if it was sealed before anybody looked at it.
    fn sealed_at(&self) -> Option<Offset> {
        self.unchecked.as_ref().filter(|part| part.sealed).map(|part| part.next)
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

    /// The position of the batch that holds `offset`, or of the first behind it, and that batch, if there is one; or the hole
    /// in the way.
    pub(crate) fn find(&self, offset: Offset) -> Result<(u64, Option<Batch<'_>>), Obstacle> {
        let mut position = self.position_before(offset);
        let behind = self.region.bytes().get(position as usize..).unwrap_or_default();
        prefetch(&behind[..behind.len().min(INTERVAL_BYTES as usize)]);
        loop {
            match self.whole_from(position) {
                // A flaw cannot be: the batches were checked, and checked bytes do not change.
                Ok([]) => return Ok((position, None)),
                Ok(mut whole) => {
                    while !whole.is_empty() {
                        let Ok(Some(batch)) = Batch::at(whole) else { return Ok((position, None)) };
                        if batch.next() > offset {
                            return Ok((position, Some(batch)));
                        }
                        position += batch.length();
                        whole = &whole[batch.length() as usize..];
                    }
                }
                Err(Obstacle::Hole(hole)) if hole.next <= offset => position = hole.end,
                Err(Obstacle::Hole(hole)) if hole.first > offset => return Ok((hole.start, None)),
                Err(obstacle) => return Err(obstacle),
            }
        }
    }

    /// The position at which a batch begins with `offset`, or would; or the offsets, of a batch or of a hole, between which
    /// it lies.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub(crate) fn boundary(&self, offset: Offset) -> io::Result<Result<u64, Range<Offset>>> {
        let (position, batch) = match self.find(offset) {
            Ok(found) => found,
            Err(Obstacle::Hole(hole)) if hole.first == offset => (hole.start, None),
            Err(Obstacle::Hole(hole)) => return Ok(Err(hole.first..hole.next)),
            Err(Obstacle::Unreadable(error)) => return Err(error),
        };
        Ok(match batch {
            Some(batch) if batch.base() < offset => Err(batch.base()..batch.next()),
            _ => Ok(position),
        })
    }

    /// The first record with one of these offsets that is from `since` or later. What lies in a hole has no timestamp.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub(crate) fn first_since(
        &self,
        since: Timestamp,
        offsets: &Range<Offset>,
    ) -> io::Result<Option<(Offset, Timestamp)>> {
        let mut position = self.position_before(offsets.start);
        loop {
            let known = self.known_end();
            while position < known
                && let Some(at) = self.times.first_since(since, position..known)
            {
                // No further than is known: what is noted for a stretch may be of batches behind that.
                position = ((at / STRETCH_BYTES + 1) * STRETCH_BYTES).min(known);
                let found = self.each_batch(at..position, |_, batch| first_in(batch, since, offsets));
                if found.is_some() {
                    return Ok(found);
                }
            }
            if !self.check_more(known)? {
                return Ok(None);
            }
            position = position.max(known);
        }
    }

    /// The latest timestamp of the records with these offsets.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub(crate) fn latest(&self, offsets: &Range<Offset>) -> io::Result<Option<Timestamp>> {
        while self.check_more(self.known_end())? {}
        if offsets.start <= self.base() && self.sealed_at().is_some_and(|next| next <= offsets.end) {
            return Ok(self.times.latest());
        }
        // The stretches in the middle are told by the index; what lies at the ends may be of other offsets.
        let (start, end) = (self.position_before(offsets.start), self.position_before(offsets.end));
        let inner = start / STRETCH_BYTES + 2..end / STRETCH_BYTES;
        if inner.is_empty() {
            return Ok(self.latest_by_reading(start..self.known_end(), offsets));
        }
        let before = self.latest_by_reading(start..inner.start * STRETCH_BYTES, offsets);
        let behind = self.latest_by_reading(inner.end * STRETCH_BYTES..self.known_end(), offsets);
        Ok(before.max(self.times.latest_in(inner)).max(behind))
    }

    /// The latest timestamp of its records, if all of it was looked at.
    pub(crate) fn known_latest(&self) -> Option<Option<Timestamp>> {
        let looked_at = |part: &Unchecked| part.checked.load(Ordering::Acquire) == u64::MAX;
        self.unchecked.as_ref().is_none_or(looked_at).then(|| self.times.latest())
    }

    /// Whether no record is from `limit` or later; `None` if there is none that can be read. Reads no further than it
    /// must.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub(crate) fn is_older_than(&self, limit: Timestamp) -> io::Result<Option<bool>> {
        loop {
            let latest = self.times.latest();
            if latest.is_some_and(|latest| latest >= limit) {
                return Ok(Some(false));
            }
            if !self.check_more(self.known_end())? {
                return Ok(latest.map(|_| true));
            }
        }
    }

    /// The latest timestamp of the first batch that holds records.
    pub(crate) fn began(&self) -> Option<Timestamp> {
        self.each_batch(HEADER_BYTES..self.region.bytes().len() as u64, |_, batch| match batch.latest() {
            Some(latest) => ControlFlow::Break(latest),
            None => ControlFlow::Continue(()),
        })
    }

    fn latest_by_reading(&self, positions: Range<u64>, offsets: &Range<Offset>) -> Option<Timestamp> {
        let mut latest = None;
        self.each_batch(positions, |_, batch| {
            let within = batch.records().filter(|record| offsets.contains(&record.offset));
            latest = latest.max(within.map(|record| record.timestamp).max());
            if batch.base() >= offsets.end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        latest
    }

    /// Calls `each` for the whole batches that begin at one of these positions, until it breaks.
    fn each_batch<T>(
        &self,
        positions: Range<u64>,
        mut each: impl FnMut(u64, &Batch<'_>) -> ControlFlow<T>,
    ) -> Option<T> {
        let (index, start) = match &self.unchecked {
            Some(part) if positions.start >= part.end => (&self.index, part.end),
            part => (part.as_ref().map_or(&self.index, |part| &part.index), HEADER_BYTES),
        };
        let mut at = index.floor_position(positions.start).unwrap_or(start);
        while at < positions.end {
            match self.batch_at(at) {
                Ok(Some(batch)) => {
                    if at >= positions.start
                        && let ControlFlow::Break(value) = each(at, &batch)
                    {
                        return Some(value);
                    }
                    at += batch.length();
                }
                Err(Obstacle::Hole(hole)) if hole.end > at => at = hole.end,
                _ => break,
            }
        }
        None
    }

    /// Up to where the batches are checked, or behind the last.
    fn known_end(&self) -> u64 {
        let checked = self.unchecked.as_ref().map_or(u64::MAX, |part| part.checked.load(Ordering::Acquire));
        checked.min(self.region.bytes().len() as u64)
    }

    /// Checks further than `known`, if there is more to check; whether there was.
    fn check_more(&self, known: u64) -> io::Result<bool> {
        let Some(part) = self.unchecked.as_ref().filter(|part| known < part.end) else { return Ok(false) };
        if part.checked.load(Ordering::Acquire) <= known {
            self.check(part, known)?;
        }
        Ok(true)
    }

    /// Looks at all that nobody has looked at yet; whether all of it is whole.
    pub(crate) fn check_all(&self) -> io::Result<bool> {
        while self.check_more(self.known_end())? {}
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
            match Met::next(&mut walk, bytes, self.hole_count.load(Ordering::Relaxed)) {
                Met::Batch(batch) => {
                    self.note_density(&batch);
                    part.index.note(batch.base().since(self.base()), start);
                    self.note_time(&batch, start);
                }
                Met::Hole(hole) => self.add_hole(hole),
                Met::End(flaw) => {
                    self.check_end(&mut walk, part, flaw);
                    break;
                }
            }
        }
        let all = walk.position >= part.end;
        part.checked.store(if all { u64::MAX } else { walk.position }, Ordering::Release);
        Ok(())
    }

    /// Behind the last whole batch: the offsets up to where the part ends must have been there.
    fn check_end(&self, walk: &mut Walk, part: &Unchecked, flaw: Option<Flaw>) {
        let next = part.next.max(walk.due);
        // Behind a segment that goes on, what ends too soon is in the way of those who read on.
        if walk.due < next || flaw.is_some() || (!part.sealed && walk.position < part.end) {
            let flaw = flaw.unwrap_or(if walk.position < part.end { Flaw::Hole } else { Flaw::Missing });
            // At least a byte long, so that a reader at the end of the file runs into it.
            let end = part.end.max(walk.position + 1);
            self.add_hole(Hole { start: walk.position, end, first: walk.due, next, flaw });
        }
        walk.position = walk.position.max(part.end);
    }
}

/// The first record of a batch with one of these offsets that is from `since` or later.
fn first_in(batch: &Batch<'_>, since: Timestamp, offsets: &Range<Offset>) -> ControlFlow<(Offset, Timestamp)> {
    if batch.next() <= offsets.start || batch.base() >= offsets.end {
        return ControlFlow::Continue(());
    }
    let fits = |record: &RecordView<'_>| offsets.contains(&record.offset) && record.timestamp >= since;
    match batch.records().find(fits) {
        Some(record) => ControlFlow::Break((record.offset, record.timestamp)),
        None => ControlFlow::Continue(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::storage::region::{Heap, Memory};
    use crate::format::batch::{self, Draft, Layout, Stamp};
    use crate::types::TimestampType;

    /// A segment of so many batches, of a record each, whose timestamps rise by one; and where each begins.
    fn rising(batches: u64) -> (Segment, Vec<u64>) {
        let capacity = 1 << 16;
        let (region, mut pen) = Region::new(Memory::heap(Heap::new(capacity), true), capacity);
        let begin = Walk {
            position: HEADER_BYTES,
            due: Offset::ZERO,
            until: Offset::new(1 << 40),
            epoch: 0,
            salt: 7,
            compacted: false,
        };
        let segment = Segment::active(PathBuf::new(), begin, region);
        pen.adopt(HEADER_BYTES);
        let (mut position, mut positions) = (HEADER_BYTES, Vec::new());
        for number in 0..batches {
            let timestamp = Timestamp::from_millis(number.cast_signed());
            let drafts = [Draft { key: None, value: Some(&[1; 300]), headers: &[], timestamp }];
            let (layout, base) = (Layout::of(&drafts), Offset::new(number));
            let timestamp_type = TimestampType::Create;
            let stamp = Stamp { base, durable_end: Offset::ZERO, epoch: 0, salt: 7, timestamp_type };
            let end = position + layout.length;
            let word = batch::encode(pen.spare(position..end), layout, &stamp, &drafts);
            pen.publish(position, word, end);
            segment.note(base, position, Some(layout.latest));
            positions.push(position);
            position = end;
        }
        (segment, positions)
    }

    #[test]
    fn a_segment_that_is_cut_knows_the_times_of_what_is_left_and_of_nothing_else() {
        for left in [1, 11, 12, 13, 40, 59] {
            let (segment, positions) = rising(60);
            let all = Offset::ZERO..Offset::new(60);
            assert_eq!(segment.latest(&all).unwrap(), Some(Timestamp::from_millis(59)));

            segment.cut(positions[left as usize]);

            let last = Timestamp::from_millis(left - 1);
            assert_eq!(segment.known_latest(), Some(Some(last)), "{left} are left");
            let last_offset = Offset::new(last.as_millis().cast_unsigned());
            assert_eq!(segment.first_since(last, &all).unwrap(), Some((last_offset, last)), "{left} are left");
            assert_eq!(segment.is_older_than(Timestamp::from_millis(left)).unwrap(), Some(true), "{left} are left");
        }
    }
}
