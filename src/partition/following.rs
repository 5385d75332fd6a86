//! Following a partition that another process writes: looking, without a lock, how far it has come.
//!
//! A follower touches, in its mapping, no byte behind the word that follows the last batch it was told of: so the writer
//! may shorten a segment that it has rolled, if it leaves that word, and the page in which it lies. What stands between
//! there and the end that the file had is looked at in copies only.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Durability;
use crate::env::storage::Access;
use crate::error::{Error, Result};
use crate::format::batch;
use crate::format::catalog::Cut;
use crate::partition::recovery::{self, Active, Known};
use crate::partition::slot::Slot;
use crate::partition::{Partition, Writer};

/// Following a partition that another process writes.
impl Partition {
    /// Looks how far the other process has come. Only for a partition that was opened read-only.
    ///
    /// The next segment is looked for under the name that follows from the last offset; `thoroughly`: under any name,
    /// which costs a listing, and finds the one that was begun behind damage.
    ///
    /// `recorded`: where the other process says that it has cut the log last.
    pub(crate) fn follow(&self, thoroughly: bool, recorded: impl Fn() -> Option<Cut>) -> Result<()> {
        let mut writer = self.writer.lock();
        if thoroughly {
            self.follow_cut(&mut writer, recorded())?;
        }
        loop {
            let is_there = self.follow_active(&mut writer)?;
            if !self.has_rolled(&writer, thoroughly || !is_there)? {
                break;
            }
            // It may have been begun behind a cut, and then that was recorded before.
            if self.follow_cut(&mut writer, recorded())? {
                continue;
            }
            // Whoever began the next segment appended to this one before: now all of it is there.
            self.follow_active(&mut writer)?;
            if !self.follow_roll(&mut writer)? {
                break;
            }
        }
        self.show(&writer);
        Ok(())
    }

    /// Looks which segments there are, if another process writes the partition: one was not what it was.
    pub(super) fn look_again(&self) -> Result<()> {
        if self.follows {
            let mut writer = self.writer.lock();
            self.follow_roll(&mut writer)?;
            self.show(&writer);
        }
        Ok(())
    }

    /// Shows readers how far the other process has come.
    fn show(&self, writer: &Writer) {
        let end = writer.next;
        self.log_end.store(end.get(), Ordering::Release);
        let durable = self.durable_end().min(end);
        let visible = if writer.durability == Durability::Sync { durable } else { end };
        self.high_watermark.fetch_max(visible.get(), Ordering::AcqRel);
    }

    /// Walks over the batches that were published since the last look. Whether the segment is still there: the other
    /// process may have begun another and removed this one.
    fn follow_active(&self, writer: &mut Writer) -> Result<bool> {
        let Some(active) = &mut writer.active else { return Ok(true) };
        let (length, is_there) = match active.file.len() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (active.pen.region().valid(), false),
            length => (length.map_err(Error::io("measure", || active.segment.path()))?, true),
        };
        let valid = length.min(active.pen.region().capacity());
        if valid > active.pen.region().valid() {
            // Not by what another file is long that has the name by now.
            if recovery::salt_of(&self.home, active.segment.base()) != Some(active.walk.salt) {
                return Ok(false);
            }
            active.pen.extend(valid);
        }
        let valid = active.pen.region().valid();
        let mut walk = active.walk;
        while walk.position + 8 <= valid {
            let batch_bytes = u64::from(batch::length_of_word(active.pen.word(walk.position)));
            let end = walk.position + batch_bytes;
            if batch_bytes == 0 || end > valid {
                break;
            }
            let position = walk.position;
            // What was published is whole. If it does not look so, the file is damaged: whoever reads finds out.
            let Ok(Some(batch)) = walk.step_on(active.pen.unread(position..end)) else { break };
            active.segment.note_batch(&batch, position);
            self.durable_end.fetch_max(batch.durable_end().get(), Ordering::AcqRel);
            active.pen.adopt(end);
            writer.next = walk.due;
        }
        active.walk = walk;
        Ok(is_there)
    }

    /// Whether the other process has begun a segment behind the last one that is known: the active one, unless that is
    /// damaged so that nothing can be appended to it. One that was compacted since is not the last any more.
    ///
    /// Without an active one nothing says under which name the next is: the last look may have listed the names just before
    /// it had its own, and have found the segment before it rolled then.
    fn has_rolled(&self, writer: &Writer, thoroughly: bool) -> Result<bool> {
        let base = self.slots.read().last().map(|slot| slot.base);
        if thoroughly || writer.active.is_none() {
            return Ok(recovery::newest(&self.home)? > base);
        }
        if base < Some(writer.next) && recovery::is_there(&self.home, writer.next) {
            return Ok(true);
        }
        let another = |active: &Active| recovery::salt_of(&self.home, active.segment.base()) != Some(active.walk.salt);
        Ok(writer.compacts && writer.active.as_ref().is_some_and(another) && recovery::newest(&self.home)? > base)
    }

    /// Goes on with the newest segment that the other process has begun, and with what it has compacted. `false`: none of
    /// those that have a later name counts, or holds what was not deleted.
    fn follow_roll(&self, writer: &mut Writer) -> Result<bool> {
        let known = Known { cut: writer.cut, ..Known::default() };
        let fresh = recovery::recover(&self.home, Access::Read, known)?;
        let mut slots = self.slots.write();
        let last = slots.last().cloned();
        let base = last.as_ref().map(|slot| slot.base);
        let start = self.log_start();
        let of_use = |slot: &Arc<Slot>| slot.next().is_none_or(|next| next > start);
        let of_use: Vec<_> = fresh.slots.into_iter().filter(of_use).collect();
        let first = of_use.iter().find(|slot| Some(slot.base) > base).map(|slot| slot.base);
        // One that was damaged is sealed already.
        if let (Some(old), Some(first), Some(active)) = (&last, first, &writer.active)
            && active.walk.due == first
        {
            old.seal(first, active.walk.position);
        }
        // What is still the same was looked at already.
        let known = |new: Arc<Slot>| slots.iter().find(|old| old.is_like(&new)).cloned().unwrap_or(new);
        let mut now: Vec<_> = of_use.into_iter().map(known).collect();
        if first.is_none() {
            now.retain(|slot| Some(slot.base) < base);
            now.extend(last);
            *slots = now;
            return Ok(false);
        }
        *slots = now;
        writer.active = fresh.active;
        writer.next = fresh.next;
        self.durable_end.fetch_max(fresh.witness.min(fresh.next).get(), Ordering::AcqRel);
        Ok(true)
    }
}
