//! Writing the segment that compaction makes: under a name that means nothing, until all of it is on the disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::MAX_SEGMENT_BYTES;
use crate::env::storage::File;
use crate::env::storage::region::{PAGE, Pen, Region};
use crate::error::{Error, Result};
use crate::format::batch::copied::Shared;
use crate::format::batch::{self, MARKER_BYTES, Stamp, Walk};
use crate::format::segment::{self, HEADER_BYTES, Header};
use crate::partition::Home;
use crate::partition::slot::Slot;
use crate::types::{Offset, Timestamp, TimestampType};

/// How many bytes are written before they are synced: little enough that nobody else's sync waits long for them.
const SYNC_BYTES: u64 = 4 << 20;

/// Room is taken in steps of an eighth of what there is, up to this: what is left over in the end stays in the length of
/// the file.
const MOST_GROWTH_BYTES: u64 = 1 << 20;

/// More offsets than this are not put together into a batch; one batch of others may take as many again as fit its field.
const MOST_SPAN: u64 = 1 << 28;

/// A segment that is being made.
#[derive(Debug)]
pub(super) struct Copying {
    home: Home,
    header: Header,
    salt: u32,
    file: Arc<dyn File>,
    pen: Pen,
    path: PathBuf,
    unborn: PathBuf,
    /// The position and the offset behind the last batch that was put.
    position: u64,
    due: Offset,
    /// Behind what was looked at: what lies between is gone.
    covered: Offset,
    latest: Option<Timestamp>,
    synced: u64,
    has_name: bool,
}

impl Copying {
    /// Begins a segment with this header, which is the copy of so many bytes.
    pub(super) fn begin(home: &Home, header: Header, bytes: u64) -> Result<Self> {
        let path = home.dir.join(segment::file_name(header.base));
        // Not the name under which a roll makes its segment: a cut at this base may roll while the copy is still there.
        let unborn = path.with_extension("copy.log.new");
        let storage = &home.env.storage;
        match storage.remove(&unborn) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", || home.full(&unborn))(error));
            }
            _ => {}
        }
        let file = storage.create(&unborn).map_err(Error::making("create", || home.full(&unborn)))?;
        // A copy is less than twice as long; see `copied`.
        let capacity = (2 * bytes + 2 * PAGE).next_multiple_of(PAGE).min(u64::from(MAX_SEGMENT_BYTES));
        let begun = home.allocate(&*file, &unborn, 0, PAGE).and_then(|()| {
            let memory = file.map(capacity).map_err(Error::io("map", || home.full(&unborn)))?;
            let (_, mut pen) = Region::new(memory, PAGE);
            home.prepare(&mut pen, &unborn, 0..PAGE)?;
            let bytes = header.encode();
            pen.spare(0..HEADER_BYTES).copy_from_slice(&bytes);
            pen.adopt(HEADER_BYTES);
            Ok((pen, segment::salt(&bytes)))
        });
        let (pen, salt) = begun.inspect_err(|_| drop(storage.remove(&unborn)))?;
        Ok(Copying {
            home: home.clone(),
            salt,
            file,
            pen,
            path,
            unborn,
            position: HEADER_BYTES,
            due: header.base,
            covered: header.base,
            latest: None,
            synced: 0,
            has_name: false,
            header,
        })
    }

    /// Whether a batch that reaches to `next` would take more offsets than it can.
    pub(super) fn is_too_far(&self, next: Offset) -> bool {
        next.since(self.due) > MOST_SPAN
    }

    /// Everything below `next` was looked at.
    pub(super) fn cover(&mut self, next: Offset) {
        self.covered = next;
    }

    /// Puts a batch of these records; it takes all offsets that were looked at and are in no batch yet.
    pub(super) fn put(&mut self, shared: &Shared<'_>) -> Result<()> {
        let (next, length) = (self.covered, shared.length((self.due, self.covered)));
        self.latest = self.latest.max(shared.latest());
        self.put_with(length, |place, stamp| shared.encode(place, stamp, next))
    }

    fn put_with(&mut self, length: u64, encode: impl FnOnce(&mut [u8], &Stamp) -> u64) -> Result<()> {
        let end = self.position + length;
        self.grow(end)?;
        let (base, timestamp_type) = (self.due, TimestampType::Create);
        let stamp = Stamp { base, durable_end: base, epoch: self.header.epoch, salt: self.salt, timestamp_type };
        let word = encode(self.pen.spare(self.position..end), &stamp);
        self.pen.publish(self.position, word, end);
        (self.position, self.due) = (end, self.covered);
        if self.position - self.synced >= SYNC_BYTES {
            self.sync()?;
            self.pen.region().let_go(0..self.position);
            self.synced = self.position;
        }
        Ok(())
    }

    fn grow(&mut self, end: u64) -> Result<()> {
        let valid = self.pen.region().valid();
        if end <= valid {
            return Ok(());
        }
        let step = (valid / 8).clamp(PAGE, MOST_GROWTH_BYTES);
        let to = (valid + step).max(end).next_multiple_of(PAGE).min(self.pen.region().capacity());
        self.home.allocate(&*self.file, &self.unborn, valid, to)?;
        self.pen.extend(to);
        self.home.prepare(&mut self.pen, &self.unborn, self.position..to)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync().map_err(Error::io("sync", || self.home.full(&self.unborn)))
    }

    /// Puts a gap of all offsets that were looked at and are in no batch yet, if there are any.
    pub(super) fn put_gap(&mut self) -> Result<()> {
        if self.due == self.covered {
            return Ok(());
        }
        let span = u32::try_from(self.covered.since(self.due)).expect("who covers does not go too far");
        let now = self.home.env.clock.now();
        self.put_with(MARKER_BYTES as u64, |place, stamp| batch::encode_gap(place, stamp, now, span))
    }

    /// Ends the segment and makes all of it durable but its name. It has reached its end.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.put_gap()?;
        // If that fails, the room is not lost, only not used.
        self.file.release(self.position.next_multiple_of(PAGE)).ok();
        self.sync()
    }

    /// Takes the name of the segment with the same base, for which it stands from now on.
    pub(super) fn take_name(&mut self) -> Result<Arc<Slot>> {
        let storage = &self.home.env.storage;
        storage.replace(&self.unborn, &self.path).map_err(Error::making("name", || self.home.full(&self.path)))?;
        self.has_name = true;
        let begin = Walk::begin(&self.header, self.salt);
        let slot = Slot::on_disk(self.path.clone(), begin, (self.due, self.position));
        let clean_end = self.header.compacted.map(|compacted| compacted.clean_end);
        Ok(Arc::new(slot.compacted(clean_end).with_latest(self.latest)))
    }

    /// How many bytes it has so far.
    pub(super) fn bytes(&self) -> u64 {
        self.position
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if !self.has_name && self.home.env.check_not_forked().is_ok() {
            // Best effort: the next attempt, or the next opening, removes it too.
            drop(self.home.env.storage.remove(&self.unborn));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::sim::SimDisk;
    use crate::format::batch::Batch;
    use crate::format::segment::{Compacted, Identity};
    use crate::partition::unborn;
    use crate::types::TopicPartition;

    fn home() -> Home {
        let clock = SimClock::new(Timestamp::from_millis(0));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
        Home {
            env: Env::simulated(SimDisk::new(1), clock, scheduler, 1),
            dir: PathBuf::new(),
            identity: Identity { log: 1, topic: 2, partition: 0 },
            partition: TopicPartition::new("users", 0),
            segment_bytes: 4096,
        }
    }

    #[test]
    fn a_segment_that_is_begun_at_the_same_offset_meanwhile_takes_nothing_from_the_copy() {
        let home = home();
        let (base, end) = (Offset::ZERO, Offset::new(10));
        let begun =
            Header { identity: home.identity, epoch: 1, base, predecessor: None, durable_end: base, compacted: None };
        let header = Header { compacted: Some(Compacted { end, clean_end: end }), ..begun };
        let mut copying = Copying::begin(&home, header, 4096).unwrap();
        drop(unborn::create(&home, &begun, 4096).unwrap());
        copying.cover(end);
        copying.finish().unwrap();

        assert_eq!(copying.take_name().unwrap().next(), Some(end));
    }

    #[test]
    fn a_gap_of_any_width_is_copied() {
        let home = home();
        let identity = home.identity;
        let widest = u64::from(u32::MAX);
        let end = Offset::new(3 * widest + 10);
        let compacted = Some(Compacted { end, clean_end: end });
        let (base, durable_end) = (Offset::ZERO, end);
        let header = Header { identity, epoch: 1, base, predecessor: None, durable_end, compacted };
        let mut copying = Copying::begin(&home, header, 4096).unwrap();
        for next in [5, 10, 10 + widest, 10 + 2 * widest, 10 + 3 * widest].map(Offset::new) {
            if copying.is_too_far(next) {
                copying.put_gap().unwrap();
            }
            copying.cover(next);
        }
        copying.finish().unwrap();

        let (mut walk, bytes) = (Walk::begin(&header, copying.salt), copying.pen.region().bytes());
        let mut spans = Vec::new();
        while let Some(batch) = walk.step(bytes).unwrap() {
            assert!(Batch::records(&batch).next().is_none());
            spans.push(batch.next().since(batch.base()));
        }
        assert_eq!(spans, [10, widest, widest, widest]);
        assert_eq!(walk.due, end);
    }
}
