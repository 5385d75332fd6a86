//! Following a partition that another process writes: looking, without a lock, how far it has come.
//!
//! A follower touches, in its mapping, no byte behind the word that follows the last batch it was told of: so the writer
//! may shorten a segment that it has rolled, if it leaves that word, and the page in which it lies. What stands between
//! there and the end that the file had is looked at in copies only.

use std::io;
use std::sync::atomic::Ordering;

use crate::config::Durability;
use crate::env::storage::Access;
use crate::error::{Error, Result};
use crate::format::batch;
use crate::format::catalog::Cut;
use crate::partition::recovery::{self, Known};
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
        let end = writer.next;
        self.log_end.store(end.get(), Ordering::Release);
        let durable = self.durable_end().min(end);
        let visible = if writer.durability == Durability::Sync { durable } else { end };
        self.high_watermark.fetch_max(visible.get(), Ordering::AcqRel);
        Ok(())
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
    /// damaged so that nothing can be appended to it.
    fn has_rolled(&self, writer: &Writer, thoroughly: bool) -> Result<bool> {
        let base = self.slots.read().last().map(|slot| slot.base);
        if thoroughly {
            return Ok(recovery::newest(&self.home)? > base);
        }
        Ok(base < Some(writer.next) && recovery::is_there(&self.home, writer.next))
    }

    /// Goes on with the newest segment that the other process has begun. `false`: none of those that have a later name
    /// counts.
    fn follow_roll(&self, writer: &mut Writer) -> Result<bool> {
        let known = Known { cut: writer.cut, ..Known::default() };
        let fresh = recovery::recover(&self.home, Access::Read, known)?;
        let mut slots = self.slots.write();
        let base = slots.last().map(|slot| slot.base);
        let Some(first) = fresh.slots.iter().find(|slot| Some(slot.base) > base) else { return Ok(false) };
        // One that was damaged is sealed already.
        if let (Some(old), Some(active)) = (slots.last(), &writer.active) {
            old.seal(first.base, active.walk.position);
        }
        slots.extend(fresh.slots.into_iter().filter(|slot| Some(slot.base) > base));
        writer.active = fresh.active;
        writer.next = fresh.next;
        self.durable_end.fetch_max(fresh.witness.min(fresh.next).get(), Ordering::AcqRel);
        Ok(true)
    }
}
