//! A partition that may take so many bytes of the disk and no more: what becomes of an append that needs more.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::config::{TopicConfig, WhenFull};
use crate::error::{Error, Result};
use crate::format::batch::Layout;
use crate::partition::slot::Slot;
use crate::partition::{MARKER_ROOM, Partition, Writer};

/// How long a sender waits at most for somebody to make room before it looks for itself for what is no longer kept.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The most that a partition takes, and what to do then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    max_bytes: Option<u64>,
    when_full: WhenFull,
}

impl Bound {
    pub(super) fn of(config: &TopicConfig) -> Self {
        Bound { max_bytes: config.max_bytes, when_full: config.when_full }
    }

    pub(super) fn is_set(self) -> bool {
        self.max_bytes.is_some()
    }
}

impl Partition {
    /// Refuses to take `more` bytes of the disk than the segments have, if that is over the bound.
    pub(super) fn check_bound(&self, bound: Bound, more: u64) -> Result<()> {
        let Some(limit) = bound.max_bytes else { return Ok(()) };
        // What is deleted and only stays until it is copied does not count: it goes by itself.
        let start = self.log_start();
        let kept = |slot: &&Arc<Slot>| slot.next().is_none_or(|next| next > start);
        let bytes: u64 = self.slots.read().iter().filter(kept).map(|slot| slot.taken_bytes()).sum();
        if bytes.saturating_add(more) <= limit {
            return Ok(());
        }
        Err(Error::PartitionFull { partition: self.home.partition.clone(), bytes, limit })
    }

    /// What must be done before a batch can be put behind the last one: rolls a segment that has grown too old, makes room,
    /// and in a partition that is full does what its topic says.
    #[cold]
    pub(super) fn prepare_for<'a>(
        self: &'a Arc<Self>,
        mut writer: MutexGuard<'a, Writer>,
        layout: &Layout,
    ) -> Result<MutexGuard<'a, Writer>> {
        let mut deadline = None;
        loop {
            if writer.age.may_be_over(layout.latest) {
                self.roll_by_age(&mut writer, layout.latest)?;
            }
            if writer.position + layout.length + MARKER_ROOM <= writer.valid {
                return Ok(writer);
            }
            let full = match self.make_room(&mut writer, layout.length) {
                Err(full @ Error::PartitionFull { .. }) => full,
                made => return made.map(|()| writer),
            };
            let when_full = writer.bound.when_full;
            drop(writer);
            match when_full {
                WhenFull::Refuse => return Err(full),
                WhenFull::DropOldest => self.drop_oldest(full)?,
                WhenFull::Wait(longest) => {
                    let now = self.home.env.clock.monotonic();
                    let deadline = *deadline.get_or_insert_with(|| now.saturating_add(longest));
                    self.wait_for_room(full, deadline)?;
                }
            }
            writer = self.writer.lock();
            self.check_open()?;
        }
    }

    fn drop_oldest(&self, full: Error) -> Result<()> {
        let start = self.log_start();
        let oldest = self.slots.read().iter().map(|slot| slot.next()).find(|next| next.is_none_or(|next| next > start));
        let oldest = oldest.flatten();
        let (Some(next), Some(upkeep)) = (oldest, &self.upkeep) else { return Err(full) };
        // What a power cut could still take cannot be recorded as gone.
        self.deliver(next, None)?;
        upkeep.delete_before(self, next)
    }

    fn wait_for_room(&self, full: Error, deadline: Duration) -> Result<()> {
        let Some(upkeep) = &self.upkeep else { return Err(full) };
        let seen = self.room.rung();
        if upkeep.apply_retention(self)? > 0 {
            return Ok(());
        }
        let left = deadline.saturating_sub(self.home.env.clock.monotonic());
        if left == Duration::ZERO {
            return Err(full);
        }
        self.room.wait(seen, Some(left.min(LOOK_AGAIN)));
        Ok(())
    }
}
