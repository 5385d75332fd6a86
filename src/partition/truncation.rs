//! Cutting the tail: what lies at or above an offset goes, for good, and the offset is given again.
//!
//! | step                                                              | if the machine stops behind it, the next opening            |
//! |-------------------------------------------------------------------|-------------------------------------------------------------|
//! | what stays is durable                                             | finds everything                                            |
//! | the cut is recorded, durably, in the catalog                      | ends the log there: what older segments hold beyond does not count, and segments that begin beyond are removed |
//! | groups that have committed what was cut are pulled back, durably; none can commit it any more | the same, and pulls them back |
//! | nobody is shown what was cut, and what is sent comes behind it    | the same                                                    |
//! | the segments that begin at the cut or beyond lose their names, the newest first; so do files that a compaction had replaced and could not remove | the same |
//! | a new segment begins at the cut                                   | the same, or goes on in it: it is of a later epoch          |
//! | the directory is synced                                           | goes on in it                                               |
//!
//! No file is shortened, renamed or written to: the segment in which the cut falls stays as it is, and its successor says
//! where it ended. Whoever has read from a segment keeps it mapped, with the bytes that were there.
//!
//! The epoch tells what was cut from what came later with the same offsets. It rises with each cut, so that neither a
//! machine that stops between any two of the steps nor a reader in another process takes the one for the other. Readers in
//! this process count the cuts: see [`Partition::read`](crate::partition::Partition::read). What groups have committed tells
//! no such thing, so nothing is sent behind the cut before the last of them is pulled back.
//!
//! Without room for the new segment, the next append makes it; until then the catalog alone says where the log ends.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::env::storage::Access;
use crate::error::{Error, Result};
use crate::format::catalog::Cut;
use crate::format::segment::Predecessor;
use crate::partition::preparing::Ahead;
use crate::partition::recovery::{self, Known};
use crate::partition::retention::Removal;
use crate::partition::slot::{Found, Slot};
use crate::partition::{FAILED, OPEN, Partition, Writer, notify};
use crate::types::Offset;

/// Where a log is cut.
struct Place {
    /// How many of its segments stay, and where the last of them ends.
    kept: usize,
    predecessor: Option<Predecessor>,
    /// That last one, if it holds more than stays.
    parted: Option<Arc<Slot>>,
}

impl Partition {
    /// What [`truncate`](Self::truncate) would remove.
    pub(crate) fn plan_truncation(&self, end: Offset) -> Result<Removal> {
        self.check_cut(end)?;
        let log_end = self.log_end();
        let place = self.place_of_cut(end)?;
        let slots = self.slots.read();
        let gone: u64 = slots[place.kept..].iter().map(|slot| slot.extent(log_end).bytes).sum();
        let position = place.predecessor.map_or(0, |before| before.end_position);
        let parted = place.parted.map_or(0, |slot| slot.extent(log_end).bytes.saturating_sub(position));
        Ok(Removal { offsets: end..log_end.max(end), segments: slots.len() - place.kept, bytes: gone + parted })
    }

    /// Removes everything at or above `end`, for good: `record` says durably that it is, and then `pull_back` sets back what
    /// groups have committed beyond. See the head of this file.
    ///
    /// What is appended meanwhile is cut too. Deliveries of what was cut count as done.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`]; [`Error::InvalidState`] if the offset lies inside of a batch; what a sync, `record`,
    /// `pull_back` and the disk say. Once it is recorded, a failure leaves the partition without appends until it is opened again, which
    /// finishes the cut.
    pub(crate) fn truncate(
        &self,
        end: Offset,
        record: impl FnOnce(Cut) -> Result<()>,
        pull_back: impl FnOnce() -> Result<()>,
    ) -> Result<Removal> {
        let _removing = self.removing.lock();
        self.check_open()?;
        let pins = self.pins.lock();
        if *pins > 0 {
            let reason = format!("{} is being copied; truncate it once that is done", self.home.partition);
            return Err(Error::InvalidState { reason });
        }
        let plan = self.plan_truncation(end)?;
        if plan.offsets.is_empty() {
            return Ok(plan);
        }
        let place = self.place_of_cut(end)?;
        self.sync_to(end, None)?;
        let cut = Cut { end, epoch: self.epoch().saturating_add(1) };
        record(cut)?;
        // Whoever still commits more has done so before he is asked to be pulled back.
        self.cutting.store(end.get(), Ordering::SeqCst);
        let done = pull_back().and_then(|()| {
            self.take_turn();
            let done = self.cut_off(cut, &place);
            self.turn.lock().release();
            done
        });
        self.cutting.store(u64::MAX, Ordering::SeqCst);
        drop(pins);
        if done.is_err() {
            // A closed partition stays closed.
            self.state.compare_exchange(OPEN, FAILED, Ordering::AcqRel, Ordering::Acquire).ok();
        }
        self.synced.ring();
        self.room.ring();
        notify(std::mem::take(&mut self.writer.lock().listeners));
        self.run_callbacks();
        done.map(|cut_end| Removal { offsets: end..cut_end, ..plan })
    }

    fn check_cut(&self, end: Offset) -> Result<()> {
        let (start, log_end) = (self.log_start(), self.log_end());
        if end < start || end > log_end {
            let partition = self.home.partition.clone();
            return Err(Error::OffsetOutOfRange { partition, requested: end, start, end: log_end });
        }
        Ok(())
    }

    /// Where the log is cut at `end`, which lies between two batches.
    fn place_of_cut(&self, end: Offset) -> Result<Place> {
        let slots = self.slots.read().clone();
        let kept = slots.partition_point(|slot| slot.base < end);
        let Some(last) = kept.checked_sub(1).map(|at| &slots[at]) else {
            return Ok(Place { kept, predecessor: None, parted: None });
        };
        let parted = last.next().is_none_or(|next| next > end);
        let end_position = match last.end_position() {
            Some(position) if !parted => position,
            _ => self.position_of_cut(last, end)?,
        };
        let predecessor = Some(Predecessor { base: last.base, end_position });
        Ok(Place { kept, predecessor, parted: parted.then(|| Arc::clone(last)) })
    }

    fn position_of_cut(&self, slot: &Slot, end: Offset) -> Result<u64> {
        let within = match slot.get(&self.home.env)? {
            Found::Segment(segment) => match segment.boundary(end).map_err(Error::io("read", || segment.path()))? {
                Ok(position) => return Ok(position),
                Err(within) => within,
            },
            Found::Broken(_) | Found::Replaced => slot.base..slot.next().unwrap_or(end),
        };
        Err(self.inside(end, within))
    }

    fn inside(&self, end: Offset, within: Range<Offset>) -> Error {
        let (partition, Range { start, end: next }) = (&self.home.partition, within);
        let reason = format!(
            "offset {end} of {partition} lies between records that stay or go together, {start}..{next}: they were sent \
             as one batch, or are damaged; truncate to {start} or {next}"
        );
        Error::InvalidState { reason }
    }

    /// Nobody syncs from here on until the turn is released: a sync that ends raises the offsets that are lowered here.
    fn take_turn(&self) {
        loop {
            let seen = self.synced.rung();
            if self.turn.lock().take() {
                return;
            }
            self.synced.wait(seen, None);
        }
    }

    /// Lets go of what was cut, in memory and on the disk; returns where the log had ended.
    fn cut_off(&self, cut: Cut, place: &Place) -> Result<Offset> {
        let mut writer = self.writer.lock();
        self.check_open()?;
        let cut_end = writer.next;
        let mut slots = self.slots.write();
        let gone = slots.split_off(place.kept);
        if let (Some(parted), Some(before)) = (&place.parted, place.predecessor) {
            parted.cut(cut.end, before.end_position);
        }
        self.epoch.fetch_max(cut.epoch, Ordering::Relaxed);
        self.end_at(&mut writer, cut.end);
        // Nor do those who sync write a marker any more: what waited for that was let go of.
        slots.iter().for_each(|slot| slot.finish());
        writer.predecessor = place.predecessor;
        drop(slots);
        for slot in gone.iter().rev() {
            recovery::remove_segment(&self.home, &slot.path, slot.is_foreign(), cut.epoch)?;
        }
        recovery::remove_cut(&self.home, cut)?;
        match self.roll(&mut writer) {
            // The next append tries again.
            Err(Error::NoSpace { .. } | Error::PartitionFull { .. }) => {}
            rolled => rolled?,
        }
        self.sync_names()?;
        writer.unnamed = false;
        Ok(cut_end)
    }

    /// The log ends at `end`, durably, and nothing is appended to any of its segments.
    fn end_at(&self, writer: &mut Writer, end: Offset) {
        writer.active = None;
        writer.sealed.clear();
        writer.next = end;
        (writer.position, writer.valid) = (0, 0);
        writer.ahead = Ahead::new(0, writer.durability);
        writer.unnamed = false;
        writer.unsynced_bytes = 0;
        writer.dirty_since = None;
        writer.witnessed = true;
        self.cuts.lock().push(end);
        // Before the offsets: whoever finds them lowered, or risen again, finds out why.
        self.cut_count.fetch_add(1, Ordering::SeqCst);
        self.high_watermark.store(end.get(), Ordering::SeqCst);
        self.durable_end.store(end.get(), Ordering::SeqCst);
        self.log_end.store(end.get(), Ordering::SeqCst);
    }

    /// How often the log was cut since it was opened.
    #[inline]
    pub(super) fn cut_count(&self) -> usize {
        self.cut_count.load(Ordering::SeqCst)
    }

    /// The lowest offset at which the log was cut since it had been cut `count` times.
    pub(super) fn lowest_cut_since(&self, count: usize) -> Option<Offset> {
        self.cuts.lock().get(count..)?.iter().min().copied()
    }

    /// The offset up to which somebody can commit.
    pub(crate) fn committable_end(&self) -> Offset {
        self.log_end().min(Offset::new(self.cutting.load(Ordering::SeqCst)))
    }

    /// Begins anew behind a cut that another process has made, if this is news; whether it is. Only for a partition that
    /// was opened read-only.
    pub(super) fn follow_cut(&self, writer: &mut Writer, recorded: Option<Cut>) -> Result<bool> {
        let Some(cut) = recorded.filter(|cut| writer.cut.is_none_or(|known| known.epoch < cut.epoch)) else {
            return Ok(false);
        };
        let known = Known { start: Some(self.log_start()), cut: Some(cut), ..Known::default() };
        let fresh = recovery::recover(&self.home, Access::Read, known)?;
        let mut slots = self.slots.write();
        self.end_at(writer, cut.end);
        *slots = fresh.slots;
        (writer.active, writer.next, writer.cut) = (fresh.active, fresh.next, Some(cut));
        self.durable_end.store(fresh.witness.min(fresh.next).get(), Ordering::SeqCst);
        self.log_end.store(fresh.next.get(), Ordering::SeqCst);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Durability, TopicConfig};
    use crate::env::Env;
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::sim::SimDisk;
    use crate::format::batch::Draft;
    use crate::format::segment::Identity;
    use crate::partition::Home;
    use crate::types::{Timestamp, TopicPartition};

    fn append(partition: &Arc<Partition>, value: &[u8]) {
        let now = Timestamp::from_millis(0);
        partition.append(&[Draft { key: None, value: Some(value), headers: &[], timestamp: now }]).unwrap();
    }

    #[test]
    fn a_follower_that_finds_the_next_segment_first_asks_whether_the_log_was_cut() {
        let clock = SimClock::new(Timestamp::from_millis(0));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
        let home = Home {
            env: Env::simulated(SimDisk::new(1), Arc::clone(&clock), scheduler, 1),
            dir: PathBuf::from("0"),
            identity: Identity { log: 1, topic: 2, partition: 0 },
            partition: TopicPartition::new("orders", 0),
            segment_bytes: 1 << 20,
        };
        let config = TopicConfig::new().durability(Durability::Os);
        let writer = Arc::new(Partition::create(home.clone(), 1, &config, None).unwrap());
        (0..6).for_each(|_| append(&writer, b"old"));
        let (follower, _) = Partition::open_read_only(home, Known::default(), &config).unwrap();
        let mut recorded = None;
        let record = |cut| {
            recorded = Some(cut);
            Ok(())
        };
        let pull_back = || {
            assert_eq!((writer.log_end(), writer.committable_end()), (Offset::new(6), Offset::new(3)));
            Ok(())
        };
        writer.truncate(Offset::new(3), record, pull_back).unwrap();
        assert_eq!((writer.log_end(), writer.committable_end()), (Offset::new(3), Offset::new(3)));
        (0..3).for_each(|_| append(&writer, b"new"));
        // It has the name for which the follower looks.
        assert_eq!(writer.begin_segment().unwrap(), Offset::new(6));
        assert_eq!(writer.committable_end(), Offset::new(6));
        append(&writer, b"new");

        follower.follow(false, || recorded).unwrap();

        let (mut cursor, mut found, mut at) = (follower.cursor(), Vec::new(), Offset::ZERO);
        while let Some(chunk) = follower.read(&mut cursor, at, 100).unwrap() {
            found.extend(chunk.records().map(|record| record.value.unwrap().to_vec()));
            at = chunk.offsets.end;
        }
        assert_eq!(found.concat(), b"oldoldoldnewnewnewnew");
    }
}
