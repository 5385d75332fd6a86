//! What a compacted partition no longer keeps, and how it goes: crash-safe at every step, in little memory, a little at a
//! time, beside readers and senders.
//!
//! A compaction goes over the sealed segments in passes. A pass first reads what is *dirty*, which no pass has read yet,
//! and notes where each key is last, for as many keys as fit into the memory. Then it copies all segments, from the first
//! on, leaving out each record of whose key it knows a later one, and tombstones whose time is over. Small neighbours
//! become one segment. If not all keys did fit, everything in front of the first that did not is clean, and another pass
//! goes on there.
//!
//! Kafka's cleaner stops to read where the first key does not fit. Here the pass goes on to the end for the keys that it
//! knows: as many passes are needed as there are times as many keys as fit, and not as many records; and after the first
//! pass most of what is superseded is gone.
//!
//! | step                                                                    | if the machine stops behind it, the next opening               |
//! |---------------------------------------------------------------------------|------------------------------------------------------------------|
//! | the copy is written under a name that means nothing, synced on the way  | removes the copy; the old segments are all there               |
//! | all of the copy is durable                                              | the same                                                       |
//! | the copy takes the name of the first segment that it stands for         | finds the old segments or the copy, as the disk has the name;  |
//! |                                                                         | with the copy, removes the others, once the name is durable    |
//! | the directory is synced                                                 | finds the copy, and removes the others                         |
//! | the other segments that it stands for are removed                       | finds the copy; removes of them what came back                 |
//!
//! So there are the old segments or the new one, never a part. The name is taken in one step of the file system, and the
//! header of the copy says where it ends, so that nothing else need be written down: not in the catalog, nor in the
//! segment behind. The header also says how far the pass had read when it made the segment. What is dirty follows from
//! that, and is true whatever became of the pass.
//!
//! What stays true:
//! - The last record of a key is never left out: only one that is durable and visible takes the place of another, and if it
//!   is cut off before the other is, the compaction ends.
//! - Offsets stay, and so does their order. Where records were there is a gap, so offsets are never given again.
//! - A tombstone is given its time when its segment is copied, and all before it was: what it deletes is durably gone.
//! - What is damaged is never copied: the compaction ends there, and says so.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Compacting, MAX_COMPACTED_BYTES};
use crate::env::random::Random;
use crate::error::{Error, Flaw, Result};
use crate::format::batch::copied::{Kind, Shared};
use crate::format::batch::{Batch, RecordView};
use crate::format::segment::{Compacted, HEADER_BYTES, Header};
use crate::partition::Partition;
use crate::partition::copying::Copying;
use crate::partition::offset_map::OffsetMap;
use crate::partition::retention::Extent;
use crate::partition::segment::Segment;
use crate::partition::slot::{Found, Slot};
use crate::types::{Offset, Timestamp};

/// How many bytes are read in one step: a millisecond of work or two.
const STEP_BYTES: u64 = 1 << 20;

/// Pages that were read are let go of after so many bytes.
const KEPT_BYTES: u64 = 8 << 20;

/// Segments with more offsets do not become one: then recovery knows how many a segment that is gone may have held.
const MOST_OFFSETS: u64 = 1 << 28;

/// A sealed segment, as far as compaction goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    extent: Extent,
    /// Of a compacted one: it holds no record of whose key there is a later one below this offset.
    clean_end: Option<Offset>,
}

/// What there is to compact in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleanable {
    /// The dirty offsets: in front of them every key is there once, behind them nothing is to be compacted yet.
    pub(crate) dirty: Range<Offset>,
    /// The bytes of the segments in front of the dirty offsets, and of those that hold them.
    pub(crate) clean_bytes: u64,
    pub(crate) dirty_bytes: u64,
}

impl Cleanable {
    /// How much of it is dirty, to be compared.
    pub(crate) fn dirtiness(&self) -> u128 {
        (u128::from(self.dirty_bytes) << 64) / u128::from((self.clean_bytes + self.dirty_bytes).max(1))
    }
}

/// The first offset that no pass has read: in front of it, every key is there once.
fn first_dirty(sections: &[Section], log_start: Offset) -> Offset {
    let mut clean_end = Offset::new(u64::MAX);
    for section in sections {
        clean_end = clean_end.min(section.clean_end.unwrap_or(section.extent.offsets.start));
        if clean_end < section.extent.offsets.end {
            return clean_end.max(log_start);
        }
    }
    sections.last().map_or(log_start, |last| last.extent.offsets.end.max(log_start))
}

/// The first offset that is not to be compacted yet: of what lies behind `limit`, which is not durable or not visible; of a
/// segment that is too young; of the active segment. `is_young` is asked of a section by its number.
fn first_uncleanable(
    sections: &[Section],
    active: Offset,
    limit: Offset,
    mut is_young: impl FnMut(usize) -> Result<bool>,
) -> Result<Offset> {
    for (at, section) in sections.iter().enumerate() {
        if is_young(at)? {
            return Ok(section.extent.offsets.start.min(limit));
        }
    }
    Ok(active.min(limit))
}

/// How many segments, from the first on, go into one: as many as are no longer together than one may be.
fn group_of(extents: &[Extent], segment_bytes: u64) -> usize {
    let (mut bytes, mut offsets) = (0, 0);
    let fits = |extent: &&Extent| {
        bytes += extent.bytes;
        offsets += extent.offsets.end.since(extent.offsets.start);
        bytes <= segment_bytes && offsets <= MOST_OFFSETS
    };
    extents.iter().take_while(fits).count().max(1)
}

/// Why a record stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// There is a later one with its key.
    Superseded,
    /// It has deleted what there was to delete, and was there for long enough.
    Expired,
    /// It has no key, and would stay for ever.
    Keyless,
    /// It was deleted on purpose already.
    Deleted,
}

/// What a pass knows.
#[derive(Debug)]
struct Pass {
    map: OffsetMap,
    /// The map knows every key below, and of the keys that it knows it knows the last of all.
    end: Offset,
    log_start: Offset,
    now: Timestamp,
    delete_retention: Duration,
}

impl Pass {
    /// `horizon`: of the record's batch.
    fn fate(&self, record: &RecordView<'_>, horizon: Option<Timestamp>) -> Fate {
        if record.offset < self.log_start {
            return Fate::Deleted;
        }
        let latest = record.key.and_then(|key| self.map.latest(key));
        if latest.is_some_and(|latest| latest > record.offset) {
            return Fate::Superseded;
        }
        if record.offset >= self.end {
            return Fate::Stays;
        }
        if record.key.is_none() {
            return Fate::Keyless;
        }
        let is_over = record.value.is_none() && horizon.is_some_and(|horizon| self.now >= horizon);
        if is_over { Fate::Expired } else { Fate::Stays }
    }

    /// The horizon of a batch of which these records stay. Tombstones are given one if all before them is clean.
    fn horizon(&self, batch: &Batch<'_>, kept: &[RecordView<'_>]) -> Option<Timestamp> {
        if kept.iter().all(|record| record.value.is_some()) {
            return None;
        }
        let given = || (batch.next() <= self.end).then(|| self.now.saturating_add(self.delete_retention));
        batch.delete_horizon().or_else(given)
    }
}

/// What a compaction has done so far, or would have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passes: u64,
    /// Records that were copied, or would be, in the last pass.
    pub(crate) kept: u64,
    pub(crate) superseded: u64,
    pub(crate) tombstones: u64,
    pub(crate) keyless: u64,
    pub(crate) segments_before: usize,
    pub(crate) segments_after: usize,
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
    /// Read and written, by all passes.
    pub(crate) bytes_moved: u64,
    /// Of the present pass: what was read of it, and what is to be read.
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    More,
    Done,
}

/// A compaction of a partition, step by step. What it has not finished when it is dropped was not begun.
#[derive(Debug)]
pub(crate) struct Compaction {
    partition: Arc<Partition>,
    compacting: Compacting,
    memory_bytes: usize,
    segment_bytes: u64,
    /// Whether only to look.
    dry_run: bool,
    secret: Random,
    /// How often the log had been cut when this began: what was cut since takes the place of nothing.
    cuts: usize,
    /// Those that are compacted, in order; of one that was already, its copy.
    slots: Vec<Arc<Slot>>,
    dirty: Range<Offset>,
    pass: Pass,
    scan: Scan,
    work: Work,
    pub(crate) tally: Tally,
}

#[derive(Debug)]
enum Work {
    /// Notes where each key is last.
    Map,
    /// Copies the slots with these numbers; those in front of them are done.
    Copy(Range<usize>, Option<Box<Copying>>),
    Done,
}

impl Compaction {
    /// Begins to compact what is cleanable, in so much memory. `None` if there is nothing to look at.
    pub(crate) fn begin(
        partition: &Arc<Partition>,
        compacting: Compacting,
        segment_bytes: u32,
        memory_bytes: usize,
        dry_run: bool,
    ) -> Result<Option<Self>> {
        if !dry_run {
            partition.check_open()?;
            if partition.is_pinned() {
                return Err(partition.is_being_copied());
            }
        }
        let cuts = partition.cut_count();
        let (slots, cleanable) = partition.cleanable_slots(&compacting)?;
        if slots.is_empty() {
            return Ok(None);
        }
        let bytes: u64 = slots.iter().map(|slot| slot.extent(cleanable.dirty.end).bytes).sum();
        let tally = Tally { segments_before: slots.len(), bytes_before: bytes, ..Tally::default() };
        let home = &partition.home;
        let mut secret = Random::new(home.env.seed ^ home.env.clock.monotonic().as_nanos() as u64);
        let map = OffsetMap::with_room_for(1, &mut secret);
        let pass = Pass {
            map,
            end: cleanable.dirty.start,
            log_start: Offset::ZERO,
            now: partition.now(),
            delete_retention: compacting.delete_retention,
        };
        let mut compaction = Compaction {
            partition: Arc::clone(partition),
            compacting,
            memory_bytes,
            segment_bytes: u64::from(segment_bytes.min(MAX_COMPACTED_BYTES)),
            dry_run,
            secret,
            cuts,
            slots,
            dirty: cleanable.dirty,
            pass,
            scan: Scan::default(),
            work: Work::Done,
            tally,
        };
        compaction.begin_pass();
        Ok(Some(compaction))
    }

    pub(crate) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Up to where every key is there once when it is done.
    pub(crate) fn clean_end(&self) -> Offset {
        self.pass.end
    }

    /// Does a little more.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] at what is damaged; what the disk says. What was done so far stays; of what was replaced, files may
    /// be left that count no more: the next opening removes them, or the cut that takes away what says so.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let partition = Arc::clone(&self.partition);
        let _compacting = partition.compacting.lock();
        if !self.dry_run {
            partition.check_open()?;
        }
        let done = match std::mem::replace(&mut self.work, Work::Done) {
            _ if partition.cut_count() != self.cuts => self.end_early(0),
            Work::Map => self.map_more(),
            Work::Copy(group, copying) => self.copy_more(group, copying),
            Work::Done => Ok(()),
        };
        // What looks like damage may be a cut, or a beginning that was deleted, during the step. Whoever cuts holds the slots
        // until it counts.
        let is_there = || partition.slots.read().iter().any(|slot| Arc::ptr_eq(slot, &self.slots[0]));
        match done {
            Err(_) if !is_there() || partition.cut_count() != self.cuts => {
                self.work = Work::Done;
                self.end_early(0)?;
            }
            done => done?,
        }
        Ok(if matches!(self.work, Work::Done) { Step::Done } else { Step::More })
    }

    fn begin_pass(&mut self) {
        let keys = self.dirty.end.since(self.dirty.start);
        self.pass = Pass {
            map: OffsetMap::new(self.memory_bytes, keys, &mut self.secret),
            end: self.dirty.end,
            log_start: self.partition.log_start(),
            now: self.partition.now(),
            delete_retention: self.compacting.delete_retention,
        };
        let dirty = self.slots.iter().filter(|slot| slot.next().is_some_and(|next| next > self.dirty.start));
        self.scan = Scan::over(dirty.cloned().collect());
        self.tally.passes += 1;
        (self.tally.kept, self.tally.done_bytes) = (0, 0);
        let bytes = |slots: &[Arc<Slot>]| slots.iter().map(|slot| slot.extent(self.dirty.end).bytes).sum::<u64>();
        self.tally.total_bytes = bytes(&self.scan.slots) + bytes(&self.slots);
        self.work = Work::Map;
    }

    /// Notes the keys of a few more batches; at the end, goes on to copy.
    fn map_more(&mut self) -> Result<()> {
        let Some(run) = self.scan.next(&self.partition)? else { return self.begin_copying(0) };
        self.tally.done_bytes += run.bytes().len() as u64;
        self.tally.bytes_moved += run.bytes().len() as u64;
        for batch in run.batches().filter(|batch| batch.next() > self.dirty.start) {
            for record in batch.records().filter(|record| record.offset >= self.dirty.start) {
                if let Some(key) = record.key
                    && !self.pass.map.note(key, record.offset)
                {
                    self.pass.end = self.pass.end.min(record.offset);
                }
            }
        }
        self.work = Work::Map;
        Ok(())
    }

    /// Begins to copy the group of segments that begins with this one, if there is something to do in it.
    fn begin_copying(&mut self, at: usize) -> Result<()> {
        let extents: Vec<Extent> = self.slots[at..].iter().map(|slot| slot.extent(self.dirty.end)).collect();
        if extents.is_empty() {
            return self.end_pass();
        }
        let group = at..at + group_of(&extents, self.segment_bytes);
        self.scan = Scan::over(self.slots[group.clone()].to_vec());
        let copying = if self.dry_run { None } else { Some(Box::new(self.begin_copy(&group)?)) };
        self.work = Work::Copy(group, copying);
        Ok(())
    }

    fn begin_copy(&self, group: &Range<usize>) -> Result<Copying> {
        let slots = &self.slots[group.clone()];
        let bytes = slots.iter().map(|slot| slot.extent(self.dirty.end).bytes).sum();
        let segment = self.partition.segment_to_compact(&slots[0])?;
        let damaged = |flaw| self.partition.broken(&slots[0], flaw);
        let header = segment.region().bytes().get(..HEADER_BYTES as usize).ok_or_else(|| damaged(Flaw::TooShort))?;
        let header = Header::decode(header).map_err(damaged)?;
        let end = slots.last().and_then(|last| last.next()).expect("what is compacted is sealed");
        let compacted = Some(Compacted { end, clean_end: self.pass.end });
        // All of it is durable, and its header says so by what it is; but what a cut takes off it was never promised.
        let (epoch, durable_end) = (self.partition.epoch(), header.base);
        let header = Header { epoch, durable_end, compacted, ..header };
        Copying::begin(&self.partition.home, header, bytes)
    }

    /// Copies a few more batches; at the end of the group, lets the copy take its place.
    fn copy_more(&mut self, group: Range<usize>, mut copying: Option<Box<Copying>>) -> Result<()> {
        let Some(run) = self.scan.next(&self.partition)? else {
            return self.end_group(group, copying);
        };
        self.tally.done_bytes += run.bytes().len() as u64;
        self.tally.bytes_moved += run.bytes().len() as u64;
        let mut shared: Option<Shared<'_>> = None;
        let mut kept: Vec<RecordView<'_>> = Vec::new();
        for batch in run.batches() {
            kept.clear();
            self.keep(&batch, &mut kept);
            let Some(copying) = &mut copying else { continue };
            if copying.is_too_far(batch.next()) {
                if let Some(shared) = shared.take() {
                    copying.put(&shared)?;
                }
                copying.put_gap()?;
            }
            if !kept.is_empty() {
                let kind = Kind::of(&batch, self.pass.horizon(&batch, &kept));
                if let Some(full) = shared.take_if(|shared| !shared.takes(&kind, &kept)) {
                    copying.put(&full)?;
                }
                shared.get_or_insert_with(|| Shared::new(kind)).add(&kept);
            }
            copying.cover(batch.next());
        }
        if let (Some(shared), Some(copying)) = (shared, &mut copying) {
            copying.put(&shared)?;
        }
        self.work = Work::Copy(group, copying);
        Ok(())
    }

    /// The records of a batch that stay.
    fn keep<'a>(&mut self, batch: &Batch<'a>, kept: &mut Vec<RecordView<'a>>) {
        let horizon = batch.delete_horizon();
        for record in batch.records() {
            match self.pass.fate(&record, horizon) {
                Fate::Stays => kept.push(record),
                Fate::Superseded => self.tally.superseded += 1,
                Fate::Expired => self.tally.tombstones += 1,
                Fate::Keyless => self.tally.keyless += 1,
                Fate::Deleted => {}
            }
        }
        self.tally.kept += kept.len() as u64;
    }

    fn end_group(&mut self, group: Range<usize>, copying: Option<Box<Copying>>) -> Result<()> {
        let Some(mut copying) = copying else { return self.begin_copying(group.end) };
        copying.finish()?;
        self.tally.bytes_moved += copying.bytes();
        let Some(copy) = self.partition.replace(&self.slots[group.clone()], &mut copying, self.cuts)? else {
            return self.end_early(group.start);
        };
        self.slots.splice(group.clone(), [copy]);
        self.begin_copying(group.start + 1)
    }

    /// Somebody has removed or cut off some of it meanwhile: what is left, from this segment on, is for another compaction.
    fn end_early(&mut self, at: usize) -> Result<()> {
        self.pass.end = self.slots[at].base.min(self.dirty.start);
        self.end()
    }

    fn end_pass(&mut self) -> Result<()> {
        if self.pass.end < self.dirty.end && !self.dry_run {
            self.dirty.start = self.pass.end;
            self.begin_pass();
            return Ok(());
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.tally.segments_after = self.slots.len();
        self.tally.bytes_after = self.slots.iter().map(|slot| slot.extent(self.dirty.end).bytes).sum();
        self.work = Work::Done;
        Ok(())
    }
}

/// Reads segments from end to end, a little at a time.
#[derive(Debug, Default)]
struct Scan {
    /// Those that are still to be read, the first last.
    slots: Vec<Arc<Slot>>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    slot: Arc<Slot>,
    segment: Arc<Segment>,
    position: u64,
    due: Offset,
}

/// A few whole batches.
#[derive(Debug)]
struct Run {
    segment: Arc<Segment>,
    positions: Range<u64>,
}

impl Run {
    fn bytes(&self) -> &[u8] {
        self.segment.region().slice(self.positions.clone())
    }

    fn batches(&self) -> impl Iterator<Item = Batch<'_>> {
        batches(self.bytes())
    }
}

/// The batches in bytes that are nothing but whole batches.
fn batches(mut bytes: &[u8]) -> impl Iterator<Item = Batch<'_>> {
    std::iter::from_fn(move || {
        let batch = Batch::at(bytes).ok()??;
        bytes = &bytes[batch.length() as usize..];
        Some(batch)
    })
}

impl Scan {
    fn over(mut slots: Vec<Arc<Slot>>) -> Self {
        slots.reverse();
        Scan { slots, current: None }
    }

    /// What comes next, about [`STEP_BYTES`]; `None` at the end.
    fn next(&mut self, partition: &Partition) -> Result<Option<Run>> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(slot) = self.slots.pop() else { return Ok(None) };
                let segment = partition.segment_to_compact(&slot)?;
                let due = slot.base;
                self.current = Some(Current { slot, segment, position: HEADER_BYTES, due });
                continue;
            };
            let whole = current.segment.whole_from(current.position);
            let whole = whole.map_err(|obstacle| partition.obstructed(&current.segment, obstacle))?;
            let start = current.position;
            for batch in batches(whole) {
                current.position += batch.length();
                current.due = batch.next();
                if current.position - start >= STEP_BYTES {
                    break;
                }
            }
            if current.position > start {
                if start / KEPT_BYTES != current.position / KEPT_BYTES {
                    current.slot.let_go();
                }
                let segment = Arc::clone(&current.segment);
                return Ok(Some(Run { segment, positions: start..current.position }));
            }
            let Current { slot, segment, due, .. } = self.current.take().expect("looked at above");
            if Some(due) != slot.next() {
                return Err(partition.broken(&slot, Flaw::Missing));
            }
            drop(segment);
            slot.rest();
        }
    }
}

impl Partition {
    /// What there is to compact.
    ///
    /// # Errors
    ///
    /// What the disk said.
    pub(crate) fn cleanable(&self, compacting: &Compacting) -> Result<Cleanable> {
        Ok(self.cleanable_slots(compacting)?.1)
    }

    /// Up to where every key is there once, and how many bytes of sealed segments lie behind that.
    pub(crate) fn clean_end(&self) -> (Offset, u64) {
        let slots = self.slots.read();
        let sealed = slots.iter().take_while(|slot| slot.next().is_some());
        let section = |slot: &Arc<Slot>| Section { extent: slot.extent(slot.base), clean_end: slot.clean_end };
        let sections: Vec<Section> = sealed.map(section).collect();
        let clean_end = first_dirty(&sections, self.log_start());
        let dirty = sections.iter().filter(|section| section.extent.offsets.end > clean_end);
        (clean_end, dirty.map(|section| section.extent.bytes).sum())
    }

    /// Whether it is time to compact it: enough of it is dirty, or something dirty is too old.
    pub(crate) fn is_due(&self, cleanable: &Cleanable, compacting: &Compacting) -> Result<bool> {
        let Cleanable { dirty, clean_bytes, dirty_bytes } = cleanable;
        if dirty.is_empty() {
            return Ok(false);
        }
        if compacting.dirty_ratio.is_exceeded_by(*dirty_bytes, clean_bytes + dirty_bytes) {
            return Ok(true);
        }
        let Some(most) = compacting.lag_max else { return Ok(false) };
        let slots = self.slots.read();
        let first = slots.iter().find(|slot| slot.next().is_some_and(|next| next > dirty.start)).cloned();
        drop(slots);
        let began = first.map(|slot| self.segment_to_compact(&slot)).transpose()?.and_then(|segment| segment.began());
        Ok(began.is_some_and(|began| began.saturating_add(most) < self.now()))
    }

    /// The segments that can be compacted, all in front of the first one that cannot; and what there is to do.
    fn cleanable_slots(&self, compacting: &Compacting) -> Result<(Vec<Arc<Slot>>, Cleanable)> {
        let limit = self.durable_end().min(self.high_watermark());
        let mut slots: Vec<Arc<Slot>> = self.slots.read().clone();
        let usable = |slot: &Arc<Slot>| {
            let is_short = slot.extent(limit).bytes <= u64::from(MAX_COMPACTED_BYTES);
            slot.next().is_some() && slot.is_finished() && is_short && !slot.is_broken()
        };
        let sealed = slots.iter().take_while(|slot| usable(slot)).count();
        let active = slots.get(sealed).map_or(self.log_end(), |slot| slot.base);
        slots.truncate(sealed);
        let section = |slot: &Arc<Slot>| Section { extent: slot.extent(limit), clean_end: slot.clean_end };
        let sections: Vec<Section> = slots.iter().map(section).collect();
        let start = first_dirty(&sections, self.log_start());
        // A record that is exactly so old is old enough.
        let young = self.now().saturating_sub(compacting.lag_min).saturating_add(Duration::from_millis(1));
        let end = first_uncleanable(&sections, active, limit, |at| {
            let is_dirty = sections[at].extent.offsets.end > start;
            Ok(is_dirty && !compacting.lag_min.is_zero() && self.is_older_than(&slots[at], young)? == Some(false))
        })?;
        let whole = sections.iter().take_while(|section| section.extent.offsets.end <= end).count();
        slots.truncate(whole);
        let end = sections[..whole].last().map_or(start, |last| last.extent.offsets.end.max(start));
        let clean = sections[..whole].iter().take_while(|section| section.extent.offsets.end <= start).count();
        let bytes = |sections: &[Section]| sections.iter().map(|section| section.extent.bytes).sum();
        let (clean_bytes, dirty_bytes) = (bytes(&sections[..clean]), bytes(&sections[clean..whole]));
        Ok((slots, Cleanable { dirty: start..end, clean_bytes, dirty_bytes }))
    }

    /// The segment there, to be read from end to end.
    fn segment_to_compact(&self, slot: &Slot) -> Result<Arc<Segment>> {
        match slot.get(&self.home.env)? {
            Found::Segment(segment) => Ok(segment),
            Found::Broken(flaw) => Err(self.broken(slot, flaw)),
            Found::Replaced => Err(self.broken(slot, Flaw::Foreign)),
        }
    }

    /// Lets a copy take the place of these segments, durably. `None`: they are not all there any more, or the log was cut
    /// since it had been cut so often.
    fn replace(&self, old: &[Arc<Slot>], copying: &mut Copying, cuts: usize) -> Result<Option<Arc<Slot>>> {
        let _removing = self.removing.lock();
        self.check_open()?;
        let pins = self.pins.lock();
        if *pins > 0 {
            return Err(self.is_being_copied());
        }
        let copy = {
            // Whoever looks for a segment, and whoever opens it by its name, finds the same one.
            let mut slots = self.slots.write();
            let at = slots.partition_point(|slot| slot.base < old[0].base);
            let there = slots[at..].iter().zip(old).filter(|(slot, old)| Arc::ptr_eq(slot, old)).count();
            if there < old.len() || self.cut_count() != cuts {
                return Ok(None);
            }
            let copy = copying.take_name()?;
            slots.splice(at..at + old.len(), [Arc::clone(&copy)]);
            copy
        };
        // First the name, then the others may go.
        self.sync_names()?;
        for slot in &old[1..] {
            match self.home.env.storage.remove(&slot.path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io("remove", || self.home.full(&slot.path)))?,
            }
        }
        drop(pins);
        self.room.ring();
        Ok(Some(copy))
    }

    fn is_being_copied(&self) -> Error {
        let reason = format!("{} is being copied; compact it once that is done", self.home.partition);
        Error::InvalidState { reason }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;
    use crate::config::{CleanupPolicy, TopicConfig};
    use crate::env::Env;
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::sim::SimDisk;
    use crate::format::batch::Draft;
    use crate::format::segment::Identity;
    use crate::partition::Home;
    use crate::types::TopicPartition;

    fn case(id: &str) -> Value {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/compaction.json")).unwrap();
        let found = vectors["cases"].as_array().unwrap().iter().find(|case| case["id"] == id);
        found.unwrap_or_else(|| panic!("there is no case {id}")).clone()
    }

    fn numbers(value: &Value) -> Vec<u64> {
        value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
    }

    fn compacting() -> Compacting {
        TopicConfig::new().compacting
    }

    fn partition() -> Arc<Partition> {
        let clock = SimClock::new(Timestamp::from_millis(1000));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
        let home = Home {
            env: Env::simulated(SimDisk::new(1), clock, scheduler, 1),
            dir: PathBuf::from("0"),
            identity: Identity { log: 1, topic: 2, partition: 0 },
            partition: TopicPartition::new("users", 0),
            segment_bytes: 4096,
        };
        let config = TopicConfig::new().segment_bytes(4096).cleanup_policy(CleanupPolicy::Compact);
        Arc::new(Partition::create(home, 1, &config, None).unwrap())
    }

    fn append(partition: &Arc<Partition>, key: u64, value_bytes: usize) {
        let (key, value) = (key.to_le_bytes(), vec![1; value_bytes]);
        let timestamp = Timestamp::from_millis(0);
        partition.append(&[Draft { key: Some(&key), value: Some(&value), headers: &[], timestamp }]).unwrap();
    }

    fn roll(partition: &Arc<Partition>) {
        partition.begin_segment().unwrap();
        partition.finish_sealed().unwrap();
    }

    /// Offsets and keys of what is there.
    fn held(partition: &Partition) -> Vec<(u64, u64)> {
        let (mut held, mut cursor, mut offset) = (Vec::new(), partition.cursor(), Offset::ZERO);
        while let Some(chunk) = partition.read(&mut cursor, offset, 1000).unwrap() {
            offset = chunk.offsets.end;
            let key = |key: Option<&[u8]>| u64::from_le_bytes(key.unwrap().try_into().unwrap());
            held.extend(chunk.records().map(|record| (record.offset.get(), key(record.key))));
        }
        held
    }

    fn begin(partition: &Arc<Partition>, memory_bytes: usize) -> Compaction {
        Compaction::begin(partition, compacting(), 4096, memory_bytes, false)
            .unwrap()
            .expect("there is something to do")
    }

    fn finish_pass(mut compaction: Compaction) {
        while compaction.tally.passes == 1 && compaction.step().unwrap() == Step::More {}
    }

    #[test]
    fn kafkas_cases_of_a_map_with_room_for_one_key() {
        let partition = partition();
        [0, 1, 0, 1, 0].into_iter().for_each(|key| append(&partition, key, 8));
        roll(&partition);
        let mut before = held(&partition);
        for id in ["c-partial-1", "c-partial-2"] {
            let case = case(id);
            let mut compaction = begin(&partition, ENTRY);
            compaction.dirty.start = Offset::new(case["clean"]["first_dirty"].as_u64().unwrap());
            compaction.tally.passes = 0;
            compaction.begin_pass();
            finish_pass(compaction);
            let after = held(&partition);
            // A pass goes on for the keys that it knows, so it may leave out more than Kafka's; never less, nor a last one.
            let expected = numbers(&case["expect"]["offsets"]);
            assert!(after.len() < before.len(), "{id}: {after:?}");
            for (offset, key) in &before {
                let is_there = after.contains(&(*offset, *key));
                let is_superseded = after.iter().any(|(other, same)| other > offset && same == key);
                assert!(is_there || is_superseded, "{id}: the last of key {key} is gone");
                assert!(!is_there || expected.contains(offset), "{id}: offset {offset} should be gone");
            }
            before = after;
        }
        assert_eq!(before, [(3, 1), (4, 0)]);
    }

    /// As much memory as one key takes.
    const ENTRY: usize = 24;

    #[test]
    fn kafkas_case_of_keys_that_are_known_to_come_later() {
        case("c-remove-listed-keys");
        let partition = partition();
        (0..20).for_each(|key| append(&partition, key, 800));
        roll(&partition);
        assert!(partition.slots.read().len() > 4);
        let mut compaction = begin(&partition, 1 << 20);
        compaction.slots.truncate(3);
        let end = compaction.slots[2].next().unwrap();
        for key in [1_u64, 3, 5, 7, 9] {
            assert!(compaction.pass.map.note(&key.to_le_bytes(), end));
        }
        compaction.begin_copying(0).unwrap();
        while compaction.step().unwrap() == Step::More {}
        let expected: Vec<u64> = (0..20).filter(|key| ![1, 3, 5, 7, 9].contains(key)).collect();
        assert_eq!(held(&partition).into_iter().map(|(_, key)| key).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn kafkas_case_of_a_section_that_cannot_be_compacted_yet() {
        case("c-uncleanable-section");
        let partition = partition();
        // Four records a segment: the durable end lies inside of the third.
        let append_keys = |offsets: Range<u64>| offsets.for_each(|at| append(&partition, at % 3, 800));
        append_keys(0..10);
        partition.sync_to(Offset::new(10), None).unwrap();
        append_keys(10..28);
        assert_eq!(partition.slots.read().len(), 7);
        let compaction = begin(&partition, 1 << 20);
        assert_eq!(compaction.dirty, Offset::ZERO..Offset::new(8));
        finish_pass(compaction);
        partition.sync_to(Offset::new(28), None).unwrap();
        let held: Vec<u64> = held(&partition).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(held, (5..28).collect::<Vec<_>>());
    }

    fn sections(sizes: &[(u64, Option<u64>)]) -> Vec<Section> {
        let mut next = 0;
        let mut section = |(records, clean_end): &(u64, Option<u64>)| {
            let offsets = Offset::new(next)..Offset::new(next + records);
            next += records;
            Section { extent: Extent { offsets, bytes: records * 10 }, clean_end: clean_end.map(Offset::new) }
        };
        sizes.iter().map(&mut section).collect()
    }

    #[test]
    fn kafkas_cases_of_what_can_be_compacted() {
        case("c-cleanable-bounds");
        let eight = sections(&[(10, None); 8]);
        let active = Offset::new(80);
        let bound = |limit: u64, young_from: usize| {
            first_uncleanable(&eight, active, Offset::new(limit), |at| Ok(at >= young_from)).unwrap().get()
        };
        assert_eq!(bound(u64::MAX, 99), 80, "the active segment stays");
        assert_eq!(bound(u64::MAX, 3), 30, "the first that is too young, and all behind it");
        assert_eq!(bound(20, 3), 20);
        let by_high_watermark = case("c-high-watermark-bound");
        let expected = by_high_watermark["expect"].as_str().unwrap().trim_start_matches("first uncleanable = ");
        assert_eq!(bound(50, 99), expected.parse::<u64>().unwrap());

        case("c-dirty-offset-too-small");
        assert_eq!(first_dirty(&eight, Offset::new(15)), Offset::new(15));
    }

    #[test]
    fn whoever_comes_too_late_for_a_segment_finds_that_another_has_its_name() {
        let partition = partition();
        (0..20).for_each(|at| append(&partition, at % 3, 800));
        roll(&partition);
        let old = Arc::clone(&partition.slots.read()[0]);
        old.rest();
        finish_pass(begin(&partition, 1 << 20));
        assert!(matches!(old.get(&partition.home.env), Ok(Found::Replaced)));
        assert_eq!(held(&partition), [(17, 2), (18, 0), (19, 1)]);
    }

    #[test]
    fn what_is_dirty_follows_from_what_the_segments_say() {
        let first = |sizes: &[(u64, Option<u64>)]| first_dirty(&sections(sizes), Offset::ZERO).get();
        assert_eq!(first(&[]), 0);
        assert_eq!(first(&[(10, None), (10, None)]), 0);
        assert_eq!(first(&[(10, Some(20)), (10, Some(20))]), 20, "all is clean");
        assert_eq!(first(&[(10, Some(20)), (10, Some(20)), (5, None)]), 20);
        assert_eq!(first(&[(10, Some(15)), (10, Some(15)), (5, None)]), 15, "not all keys had room");
        assert_eq!(first(&[(10, Some(30)), (10, Some(20)), (10, None)]), 20, "a compaction that was interrupted");
        assert_eq!(first(&[(10, Some(30)), (10, None), (10, Some(30))]), 10);
        assert_eq!(first(&[(10, Some(10)), (10, Some(10)), (10, Some(30))]), 10, "behind a clean end nothing is clean");
    }

    #[test]
    fn kafkas_case_of_small_segments_that_become_one() {
        case("c-size-groups");
        let extents = |sizes: &[(u64, Option<u64>)]| -> Vec<Extent> {
            sections(sizes).into_iter().map(|section| section.extent).collect()
        };
        let sizes = extents(&[(3, None), (3, None), (3, None), (4, None)]);
        for (segment_bytes, expected) in [(1, 1), (30, 1), (59, 1), (60, 2), (90, 3), (129, 3), (130, 4), (1000, 4)] {
            assert_eq!(group_of(&sizes, segment_bytes), expected, "{segment_bytes}");
        }
        let sparse = extents(&[(MOST_OFFSETS - 1, None), (1, None), (1, None)]);
        assert_eq!(group_of(&sparse, u64::MAX), 2, "no more offsets than any segment can hold");
    }

    #[test]
    fn a_partition_is_due_when_more_than_its_share_is_dirty_or_something_is_too_old() {
        case("c-eligible");
        let partition = partition();
        (0..8).for_each(|key| append(&partition, key, 800));
        roll(&partition);
        let half = Cleanable { dirty: Offset::new(4)..Offset::new(8), clean_bytes: 100, dirty_bytes: 100 };
        let more = Cleanable { dirty_bytes: 101, ..half.clone() };
        let none = Cleanable { dirty: Offset::new(8)..Offset::new(8), clean_bytes: 0, dirty_bytes: 100 };
        assert!(!partition.is_due(&half, &compacting()).unwrap(), "half is not more than half");
        assert!(partition.is_due(&more, &compacting()).unwrap());
        assert!(!partition.is_due(&none, &compacting()).unwrap());
        assert!(more.dirtiness() > half.dirtiness());
        let now = partition.home.env.clock.now();
        for (lag_max, is_due) in [(now.as_millis().cast_unsigned(), false), (now.as_millis().cast_unsigned() - 1, true)]
        {
            let impatient = Compacting { lag_max: Some(Duration::from_millis(lag_max)), ..compacting() };
            assert_eq!(partition.is_due(&half, &impatient).unwrap(), is_due, "{lag_max} ms");
        }
    }
}
