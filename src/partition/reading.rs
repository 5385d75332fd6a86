//! Reading: chunks of records that lie in mapped segments, without a copy and without the partition's mutex.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::env::storage::Access;
use crate::env::storage::region::prefetch;
use crate::error::{Damage, Error, Flaw, Result};
use crate::format::batch::{self, Spot};
use crate::format::segment;
use crate::partition::Partition;
use crate::partition::segment::{Obstacle, Segment};
use crate::partition::slot::{Found, Slot};
use crate::types::Offset;

/// A run of records in one segment, which it keeps mapped: what a read returns.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    segment: Arc<Segment>,
    positions: Range<u64>,
    /// Where its first record is in the first of its batches.
    spot: Spot,
    pub(crate) offsets: Range<Offset>,
    pub(crate) count: usize,
}

impl Chunk {
    /// Its records, in order.
    #[inline]
    pub(crate) fn records(&self) -> ChunkRecords<'_> {
        let bytes = self.segment.region().slice(self.positions.clone());
        let mut records = ChunkRecords { bytes, batch: batch::Records::default(), left: self.count };
        records.enter_next(self.spot);
        records
    }
}

/// Batches of no more than this are gone through faster than they come from memory. With each of them the processor is asked
/// for the bytes that stand so far behind it.
const SMALL_BYTES: u64 = 256;
const AHEAD: Range<usize> = 1536..1728;

/// The records of a chunk, decoded one by one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkRecords<'a> {
    /// The batches behind the one that is being read.
    bytes: &'a [u8],
    batch: batch::Records<'a>,
    /// How many records there are to come.
    left: usize,
}

impl ChunkRecords<'_> {
    /// Goes on with the next batch, at a spot in it; whether there is one.
    #[inline]
    fn enter_next(&mut self, spot: Spot) -> bool {
        let Ok(Some(batch)) = batch::Batch::at(self.bytes) else { return false };
        self.bytes = &self.bytes[batch.length() as usize..];
        if batch.length() <= SMALL_BYTES {
            prefetch(self.bytes.get(AHEAD).unwrap_or_default());
        }
        self.batch = batch.records_from(spot);
        true
    }
}

impl<'a> Iterator for ChunkRecords<'a> {
    type Item = batch::RecordView<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<batch::RecordView<'a>> {
        if self.left == 0 {
            return None;
        }
        loop {
            if let Some(record) = self.batch.next() {
                self.left -= 1;
                return Some(record);
            }
            if !self.enter_next(Spot::default()) {
                return None;
            }
        }
    }
}

/// What a reader keeps from one read to the next.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    /// How often the log had been cut when the reader came to where it is.
    cuts: usize,
    place: Option<ReadPlace>,
}

/// Where a reader is, so that it need not search again.
#[derive(Clone, Debug)]
struct ReadPlace {
    segment: Arc<Segment>,
    /// That of the batch, and where in it.
    position: u64,
    spot: Spot,
    offset: Offset,
}

/// What comes of going to a segment.
enum Entered {
    At(ReadPlace),
    /// It may be there under another name: look again.
    Replaced(Error),
    Not(Error),
}

/// How far a read has come.
struct Taken {
    /// Where the first record is: the position of its batch, and where in it.
    start: u64,
    first: Spot,
    /// The offset that the reader is at, and how many records it has.
    next: Offset,
    count: usize,
    /// Where the batch with that offset is, or is due, and where in it; and where the last batch ends that it has records of.
    position: u64,
    spot: Spot,
    end: u64,
}

impl Taken {
    /// Nothing yet.
    fn none(at: &ReadPlace) -> Self {
        let ReadPlace { position, spot, offset, .. } = *at;
        Taken { start: position, first: spot, next: offset, count: 0, position, spot, end: position }
    }

    /// Takes all records up to a batch that the index knows, if there is one for each offset before it: then no batch must be
    /// looked at. `whole` is the batches from the position on; returns those that are left.
    #[inline]
    fn jump<'a>(&mut self, segment: &Segment, whole: &'a [u8], end: Offset, most: usize) -> &'a [u8] {
        /// So few records are sooner looked at than looked up.
        const FEW: usize = 16;
        let left = most - self.count;
        if left <= FEW {
            return whole;
        }
        let limit = self.next.saturating_advance(left as u64).min(end);
        let Some((position, offset)) = segment.dense_before(limit).filter(|(_, offset)| *offset > self.next) else {
            return whole;
        };
        let passed = position.checked_sub(self.position).and_then(|passed| whole.get(passed as usize..));
        let Some(behind) = passed else { return whole };
        self.count += offset.since(self.next) as usize;
        (self.next, self.position, self.spot, self.end) = (offset, position, Spot::default(), position);
        behind
    }

    /// Takes the records of whole batches, up to the offset `end` and at most `most`; whether there may be more.
    #[inline]
    fn take(&mut self, mut whole: &[u8], end: Offset, most: usize) -> bool {
        while self.count < most && self.next < end {
            let Ok(Some(batch)) = batch::Batch::at(whole) else { return whole.is_empty() };
            let (base, next) = (batch.base(), batch.next());
            // What lies before the reader is a marker, or a batch that it has behind it.
            if next > self.next {
                if base >= end {
                    return false;
                }
                if self.count == 0 {
                    (self.start, self.first) = (self.position, self.spot);
                }
                self.end = self.position + batch.length();
                if !self.take_batch(&batch, next, end, most) {
                    return false;
                }
            }
            self.position += batch.length();
            self.spot = Spot::default();
            whole = &whole[batch.length() as usize..];
        }
        true
    }

    /// Takes the records of one batch, up to the offset `end`; whether all of those that the reader had not had.
    #[inline]
    fn take_batch(&mut self, batch: &batch::Batch<'_>, next: Offset, end: Offset, most: usize) -> bool {
        let (count, left) = (batch.count() as usize, most - self.count);
        if self.next <= batch.base() && next <= end && count <= left {
            self.count += count;
            self.next = next;
            return true;
        }
        let mut records = batch.records_from(self.spot);
        self.count += records.pass(end, u32::try_from(left).unwrap_or(u32::MAX)) as usize;
        self.spot = records.spot();
        let due = records.due();
        self.next = due.unwrap_or(next).min(end);
        due.is_none() && next <= end
    }
}

/// Reading.
impl Partition {
    /// The records from `offset` on, at most `most` of them, at least one if there is one; `None` at the end.
    ///
    /// `cursor` is where the last read ended, if there was one; it is moved to where this one ends.
    ///
    /// # Errors
    ///
    /// Also [`Error::LogTruncated`] if the log was cut below `offset` since the reader came there, again and again until
    /// the reader moves: see [`renew`](Self::renew).
    #[inline(always)]
    pub(crate) fn read(&self, cursor: &mut Cursor, offset: Offset, most: usize) -> Result<Option<Chunk>> {
        let came = cursor.cuts;
        loop {
            let cuts = self.cut_count();
            if cuts != came {
                if let Some(end) = self.lowest_cut_since(came).filter(|end| *end < offset) {
                    let partition = self.home.partition.clone();
                    return Err(Error::LogTruncated { partition, position: offset, end });
                }
                *cursor = Cursor { cuts, place: None };
            }
            let read = self.read_uncut(&mut cursor.place, offset, most);
            // What was cut off while this read it may be old bytes under an offset that was given again.
            if self.cut_count() == cuts {
                return read;
            }
        }
    }

    /// A reader that is anywhere.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { cuts: self.cut_count(), place: None }
    }

    /// Says that the reader has come to where it is just now.
    pub(crate) fn renew(&self, cursor: &mut Cursor) {
        if self.is_stale(cursor) {
            *cursor = self.cursor();
        }
    }

    /// Whether the log was cut since the reader came to where it is.
    #[inline]
    pub(crate) fn is_stale(&self, cursor: &Cursor) -> bool {
        cursor.cuts != self.cut_count()
    }

    /// How far a reader that is at `offset` has read the log as it is: not what was cut off since it came there, or is being.
    pub(crate) fn standing(&self, cursor: &Cursor, offset: Offset) -> Offset {
        let cutting = Offset::new(self.cutting.load(Ordering::SeqCst));
        offset.min(cutting).min(self.lowest_cut_since(cursor.cuts).unwrap_or(offset))
    }

    #[inline(always)]
    fn read_uncut(&self, place: &mut Option<ReadPlace>, offset: Offset, most: usize) -> Result<Option<Chunk>> {
        let (start, end) = (self.log_start(), self.high_watermark());
        let read = self.read_until(end, start, place, offset, most);
        read.inspect_err(|_| *place = None).map_err(|error| match error {
            // What lies beyond what may be seen is not for the reader yet: there would be nowhere to go on. Nor is what lies
            // before the log start, which nobody misses.
            Error::Corrupt(mut damage) => {
                damage.offsets.start = damage.offsets.start.max(start);
                damage.offsets.end = damage.offsets.end.min(end);
                Error::Corrupt(damage)
            }
            error => error,
        })
    }

    #[inline(always)]
    fn read_until(
        &self,
        end: Offset,
        start: Offset,
        place: &mut Option<ReadPlace>,
        offset: Offset,
        most: usize,
    ) -> Result<Option<Chunk>> {
        if offset == end {
            return Ok(None);
        }
        if offset < start || offset > end {
            return Err(self.out_of_range(offset));
        }
        let at = match place {
            Some(at) if at.offset == offset => at,
            Some(at) if at.segment.is_known_to_hold(offset) => {
                self.go_to(at, offset)?;
                at
            }
            _ => place.insert(self.seek(offset)?),
        };
        loop {
            if let Some(chunk) = self.read_here(at, end, most)? {
                return Ok(Some(chunk));
            }
            if at.offset >= end {
                return Ok(None);
            }
            // This segment ends before the high watermark, so it has a successor.
            let left = Arc::clone(&at.segment);
            *at = self.seek(at.offset)?;
            if Arc::ptr_eq(&left, &at.segment) {
                // It should hold more, and does not.
                *at = match self.enter(&self.slot_after(left.base(), at.offset)?, at.offset) {
                    Entered::At(place) => place,
                    Entered::Replaced(error) | Entered::Not(error) => return Err(error),
                };
            }
            self.rest_slots(left.base());
        }
    }

    /// Records of the reader's segment.
    #[inline(always)]
    fn read_here(&self, at: &mut ReadPlace, end: Offset, most: usize) -> Result<Option<Chunk>> {
        let first = at.offset;
        let mut taken = Taken::none(at);
        while taken.count < most && taken.next < end {
            match at.segment.whole_from(taken.position) {
                Ok([]) => break,
                Ok(whole) => {
                    let behind = taken.jump(&at.segment, whole, end, most);
                    if !taken.take(behind, end, most) {
                        break;
                    }
                }
                Err(_) if taken.next > first => break,
                Err(Obstacle::Hole(hole)) if hole.next <= first => {
                    // Behind the reader, or a marker: no offset is lost by it, and the chunk begins behind it.
                    (taken.start, taken.position, taken.end) = (hole.end, hole.end, hole.end);
                }
                Err(obstacle) => return Err(self.obstructed(&at.segment, obstacle)),
            }
        }
        (at.position, at.spot, at.offset) = (taken.position, taken.spot, taken.next);
        if taken.next == first {
            return Ok(None);
        }
        let (segment, positions, offsets) = (Arc::clone(&at.segment), taken.start..taken.end, first..taken.next);
        Ok(Some(Chunk { segment, positions, spot: taken.first, offsets, count: taken.count }))
    }

    pub(super) fn obstructed(&self, segment: &Segment, obstacle: Obstacle) -> Error {
        let hole = match obstacle {
            Obstacle::Hole(hole) => hole,
            Obstacle::Unreadable(source) => {
                return Error::Io { action: "read", path: segment.path().to_path_buf(), source };
            }
        };
        Error::Corrupt(Box::new(Damage {
            partition: Some(self.home.partition.clone()),
            offsets: hole.first..hole.next,
            path: segment.path().to_path_buf(),
            position: hole.start,
            flaw: hole.flaw,
        }))
    }

    fn seek(&self, offset: Offset) -> Result<ReadPlace> {
        let mut slot = self.slot_with(offset)?;
        loop {
            match self.enter(&slot, offset) {
                Entered::At(place) => return Ok(place),
                Entered::Not(error) => return Err(error),
                // Compacted since it was looked for. If it was not, its file is gone, or another has its name.
                Entered::Replaced(error) => {
                    self.look_again()?;
                    let now = self.slot_with(offset)?;
                    if now.is_like(&slot) {
                        return Err(error);
                    }
                    slot = now;
                }
            }
        }
    }

    /// The segment that holds `offset`, or the one in which the reader may go on.
    fn slot_with(&self, offset: Offset) -> Result<Arc<Slot>> {
        let slot = {
            let slots = self.slots.read();
            let behind = slots.partition_point(|slot| slot.base <= offset);
            behind.checked_sub(1).map(|at| Arc::clone(&slots[at]))
        };
        let Some(slot) = slot else {
            let first = self.slots.read().first().map_or(self.log_end(), |slot| slot.base);
            return Err(self.gone(offset..first));
        };
        match slot.next() {
            // The segment that held the offset is gone.
            Some(next) if offset >= next => self.slot_after(slot.base, offset),
            _ => Ok(slot),
        }
    }

    /// The segment behind the one with this base, if it holds `offset` or the reader may go on with it.
    fn slot_after(&self, base: Offset, offset: Offset) -> Result<Arc<Slot>> {
        let slots = self.slots.read();
        let behind = slots.partition_point(|slot| slot.base <= base);
        match slots.get(behind) {
            Some(slot) if slot.base <= offset => Ok(Arc::clone(slot)),
            Some(slot) => Err(self.gone(offset..slot.base)),
            None => Err(self.gone(offset..self.log_end())),
        }
    }

    pub(super) fn out_of_range(&self, requested: Offset) -> Error {
        let (partition, start, end) = (self.home.partition.clone(), self.log_start(), self.high_watermark());
        Error::OffsetOutOfRange { partition, requested, start, end }
    }

    /// Why there is no segment with these offsets: it was removed on purpose, also since the reader began, or it is lost.
    fn gone(&self, offsets: Range<Offset>) -> Error {
        if offsets.start < self.log_start() {
            return self.out_of_range(offsets.start);
        }
        Error::Corrupt(Box::new(self.missing(offsets)))
    }

    /// The damage that these offsets are gone with their file.
    pub(crate) fn missing(&self, offsets: Range<Offset>) -> Damage {
        let name = segment::file_name(offsets.start);
        Damage {
            partition: Some(self.home.partition.clone()),
            path: self.home.full(&self.home.dir.join(name)),
            offsets,
            position: 0,
            flaw: Flaw::Missing,
        }
    }

    /// Goes to `offset` in the segment of the place.
    fn go_to(&self, at: &mut ReadPlace, offset: Offset) -> Result<()> {
        let (position, batch) = at.segment.find(offset).map_err(|obstacle| self.obstructed(&at.segment, obstacle))?;
        let within = batch.filter(|batch| batch.base() < offset);
        let spot = within.map_or(Spot::default(), |batch| batch.spot_of(offset));
        (at.position, at.spot, at.offset) = (position, spot, offset);
        Ok(())
    }

    /// Lets go of the segment with this base, from which a reader has gone on to the next, and of the few before it, which
    /// the reader may still have held when it left them.
    fn rest_slots(&self, base: Offset) {
        const FEW: usize = 3;
        let slots = self.slots.read();
        let behind = slots.partition_point(|slot| slot.base <= base);
        slots[behind.saturating_sub(FEW)..behind].iter().for_each(|slot| slot.rest());
    }

    fn enter(&self, slot: &Arc<Slot>, offset: Offset) -> Entered {
        match slot.get(&self.home.env) {
            Ok(Found::Segment(segment)) => {
                let mut place =
                    ReadPlace { position: segment.begin().position, segment, spot: Spot::default(), offset };
                match self.go_to(&mut place, offset) {
                    Ok(()) => Entered::At(place),
                    Err(error) => Entered::Not(error),
                }
            }
            Ok(Found::Broken(flaw)) => Entered::Not(self.broken(slot, flaw)),
            Ok(Found::Replaced) => Entered::Replaced(self.broken(slot, Flaw::Foreign)),
            Err(_) if offset < self.log_start() => Entered::Not(self.out_of_range(offset)),
            Err(error @ Error::Io { .. }) if error.is_not_found() => Entered::Replaced(error),
            Err(error) => Entered::Not(error),
        }
    }

    /// The damage that none of a segment can be read.
    pub(super) fn broken(&self, slot: &Slot, flaw: Flaw) -> Error {
        Error::Corrupt(Box::new(Damage {
            partition: Some(self.home.partition.clone()),
            offsets: slot.base..slot.next().unwrap_or(slot.base),
            path: self.home.full(&slot.path),
            position: 0,
            flaw,
        }))
    }

    /// The bytes of its segments, as far as there is something in them.
    pub(crate) fn used_bytes(&self) -> u64 {
        let log_end = self.log_end();
        self.slots.read().iter().map(|slot| slot.extent(log_end).bytes).sum()
    }

    /// How many segments there are, and how many bytes of the disk they take.
    pub(crate) fn space(&self) -> (usize, u64) {
        let slots = self.slots.read();
        let length = |slot: &Arc<Slot>| {
            let file = self.home.env.storage.open(&slot.path, Access::Read).ok()?;
            file.room().ok()
        };
        let spare = self.spare.lock().as_ref().map_or(0, |spare| spare.region().valid());
        (slots.len(), slots.iter().filter_map(length).sum::<u64>() + spare)
    }
}
