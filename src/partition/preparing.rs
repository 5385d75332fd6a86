//! Preparing: room and pages ahead of those who append, so that an append waits for neither disk nor page fault; and the
//! next segment, so that it does not wait for a roll either.
//!
//! The background worker does it, told by whoever appends past the position up to which there is enough. How far ahead
//! follows from how fast the partition was appended to since the last look: what is idle or slow costs nothing.
//!
//! | level              | what is prepared             | why                                                                |
//! |--------------------|------------------------------|--------------------------------------------------------------------|
//! | `Os`               | pages, ready to be stored to | the first store to a page costs as much as ten small appends       |
//! |                    | the next segment             | making a file and syncing its header costs as much as thousands    |
//! | `Sync`, `Interval` | blocks, written and synced   | the first sync of an allocated block has the file system write its journal too |
//!
//! With syncs, pages that are prepared for storing would be written to the disk for nothing; and who appends so much
//! that every sync has many pages needs no blocks prepared, for it pays for the journal once for all of them.
//!
//! Pages are prepared a large one at a time, and each is chosen by how far the appends are by then. Whoever fills pages as
//! fast as the worker makes them would otherwise meet it in every single one, and each would wait for the other.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::config::Durability;
use crate::env::storage::region::Region;
use crate::format::segment::Header;
use crate::partition::recovery::Active;
use crate::partition::unborn::Unborn;
use crate::partition::{Home, OPEN, Partition, Writer};

/// The large page of the usual systems. Below, a segment is of small pages, so that small partitions stay small.
pub(super) const LARGE_PAGE: u64 = 2 << 20;

/// The worker is not told before so much was appended since its last look, or since the segment began, where pages are
/// prepared; where blocks are, see [`BLOCKS_LAST`].
const FIRST_LOOK_BYTES: u64 = 256 << 10;

/// How long the prepared pages last, and at most how many bytes: long enough for the worker to come in time. Nor is it more
/// than half of a segment.
const PAGES_LAST: Duration = Duration::from_millis(20);
const MOST_PAGES_BYTES: u64 = 32 << 20;

/// How far ahead of appends that have caught up with it the worker goes on, where pages are small.
const HEAD_START: u64 = 128 << 10;

/// The most room that the next segment gets ahead. If it becomes larger, the rest is taken as it grows.
const MOST_SPARE_BYTES: u64 = 64 << 20;

/// How long the prepared blocks last. Who would need more than so many bytes for it syncs many blocks at once. The worker is
/// told when half of them are used up, the first time as if they had been the least.
const BLOCKS_LAST: Duration = Duration::from_millis(250);
const MOST_BLOCKS_BYTES: u64 = 4 << 20;
const LEAST_BLOCKS_BYTES: u64 = 64 << 10;

/// Pages so far behind the last append are let go of: readers that are further behind get them back from the file.
const KEPT_BYTES: u64 = 8 << 20;

/// So much of segments that are full stays in memory at most. The worker may be busy with a sync for longer than it takes to
/// fill segments.
pub(super) const MOST_KEPT_BYTES: u64 = 32 << 20;

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
    pub(super) fn new(position: u64, durability: Durability) -> Self {
        let ask_at = position + if durability == Durability::Os { FIRST_LOOK_BYTES } else { LEAST_BLOCKS_BYTES / 2 };
        Ahead { ask_at, prepared: position, let_go: 0, seen: (position, Duration::ZERO), before: 0 }
    }

    /// A new segment was begun behind one that ended at `end`, to be appended to from `position` on; its pages below
    /// `prepared` are.
    pub(super) fn roll(&mut self, end: u64, position: u64, prepared: u64) {
        // What was asked for last went into the old segment; if anybody is fast enough to fill one, the new one is next.
        let prepared = prepared.max(position);
        *self = Ahead { ask_at: position, prepared, let_go: 0, before: self.before + end, ..*self };
    }

    /// How many bytes last for `time`, if as many are appended as since the last look, which was another one than this.
    fn look(&mut self, position: u64, now: Duration, time: Duration) -> u64 {
        let total = self.before + position;
        let (seen, since) = std::mem::replace(&mut self.seen, (total, now));
        lasts(time, total.saturating_sub(seen), now.saturating_sub(since))
    }

    /// Up to here the pages were let go of.
    pub(super) fn let_go(&self) -> u64 {
        self.let_go
    }

    /// Pages that are far behind `position` and were not let go of yet.
    fn behind(&mut self, position: u64) -> Range<u64> {
        let end = position.saturating_sub(KEPT_BYTES) / LARGE_PAGE * LARGE_PAGE;
        let pages = self.let_go..end;
        self.let_go = end.max(self.let_go);
        pages
    }
}

/// What to prepare next for who needs pages.
enum Piece {
    Pages(Arc<Region>, Range<u64>),
    /// The next segment, of which there is nothing yet.
    Spare(Home),
}

impl Partition {
    /// Prepares what was asked for, if anything was.
    pub(super) fn prepare_ahead(&self) {
        let writer = self.writer.lock();
        if writer.ahead.ask_at == u64::MAX {
            if writer.durability == Durability::Os { self.prepare_pages(writer) } else { self.prepare_blocks(writer) }
        }
    }

    /// Without the mutex, but for looking what is next.
    fn prepare_pages<'a>(&'a self, mut writer: MutexGuard<'a, Writer>) {
        let (now, position) = (self.home.env.clock.monotonic(), writer.position);
        let window = writer.ahead.look(position, now, PAGES_LAST);
        let capacity = writer.active.as_ref().map_or(0, |active| active.pen.region().capacity());
        if window < FIRST_LOOK_BYTES || capacity == 0 {
            writer.ahead.ask_at = position + FIRST_LOOK_BYTES;
            return;
        }
        let window = window.min(MOST_PAGES_BYTES).min(capacity / 2);
        // No more at a time: there may be others to look after.
        let mut left = window;
        while left > 0
            && let Some(piece) = self.next_piece(&mut writer, window)
        {
            drop(writer);
            let made = match piece {
                Piece::Pages(region, pages) => {
                    left = left.saturating_sub(pages.end - pages.start);
                    region.populate(pages);
                    true
                }
                Piece::Spare(home) => {
                    // It takes as long as a large page, and whoever fills small segments may need one after the other.
                    left = left.saturating_sub(LARGE_PAGE);
                    self.make_spare(&home)
                }
            };
            writer = self.writer.lock();
            if !made {
                break;
            }
        }
        let position = writer.position;
        // As long as it is behind, it goes on; a worker that slept till half were used up would never get ahead.
        let used_up = window / 8;
        writer.ahead.ask_at = (writer.ahead.prepared + used_up).saturating_sub(window).max(position + FIRST_LOOK_BYTES);
        let behind = writer.ahead.behind(position);
        let region = writer.active.as_ref().map(|active| Arc::clone(active.pen.region()));
        drop(writer);
        if let Some(region) = region.filter(|_| !behind.is_empty()) {
            region.let_go(behind);
        }
    }

    /// What is next, if `window` bytes ahead are to be prepared.
    fn next_piece(&self, writer: &mut Writer, window: u64) -> Option<Piece> {
        let region = Arc::clone(writer.active.as_ref()?.pen.region());
        let (position, capacity) = (writer.position, region.capacity());
        let goal = position + window;
        // Made first: it takes as long as many pages, and whoever rolls without it makes all of them alone.
        if goal > capacity && !self.has_spare() && !writer.bound.is_set() && !self.home.env.storage.is_crowded() {
            return Some(Piece::Spare(Home { segment_bytes: writer.segment_bytes, ..self.home.clone() }));
        }
        let from = match writer.ahead.prepared {
            prepared if prepared > position => prepared,
            _ if position < LARGE_PAGE => position + HEAD_START,
            _ => position.next_multiple_of(LARGE_PAGE),
        };
        if from < goal.min(capacity) {
            let end = ((from / LARGE_PAGE + 1) * LARGE_PAGE).min(capacity);
            if end > writer.valid {
                // Whoever appends meets the error again, if there is need to.
                self.grow(writer, end).ok()?;
            }
            writer.ahead.prepared = end;
            return Some(Piece::Pages(region, from..end));
        }
        let mut spare = self.spare.try_lock()?;
        let spare = spare.as_mut()?;
        let (from, valid) = (spare.prepared, spare.region().valid());
        if from >= goal.saturating_sub(capacity).min(valid) {
            return None;
        }
        spare.prepared = ((from / LARGE_PAGE + 1) * LARGE_PAGE).min(valid);
        Some(Piece::Pages(Arc::clone(spare.region()), from..spare.prepared))
    }

    /// Makes the next segment ahead; whether there is one now. If not, whoever rolls makes it, or meets the error again.
    fn make_spare(&self, home: &Home) -> bool {
        let mut spare = self.spare.lock();
        // Whoever closes the partition looks for it behind that.
        if spare.is_none() && self.state.load(Ordering::Acquire) == OPEN {
            *spare = Unborn::spare(home, home.capacity().min(MOST_SPARE_BYTES)).ok();
        }
        spare.is_some()
    }

    /// Begins the segment that was made ahead, if there is one that can be what is asked for; up to where its pages are
    /// prepared.
    pub(super) fn begin_spare(&self, home: &Home, header: &Header) -> Option<(Active, u64)> {
        let spare = self.spare.try_lock()?.take()?;
        if spare.region().capacity() != home.capacity() {
            spare.discard(home);
            return None;
        }
        let prepared = spare.prepared;
        spare.begin_spare(home, header).ok().map(|active| (active, prepared))
    }

    /// Whether the next segment was made ahead, or is being made.
    pub(super) fn has_spare(&self) -> bool {
        self.spare.try_lock().is_none_or(|spare| spare.is_some())
    }

    /// Nobody needs the next segment soon, or ever.
    pub(super) fn discard_spare(&self) {
        let mut spare = self.spare.lock();
        if let Some(spare) = spare.take() {
            spare.discard(&self.home);
        }
    }

    fn prepare_blocks(&self, mut writer: MutexGuard<'_, Writer>) {
        let (now, position) = (self.home.env.clock.monotonic(), writer.position);
        let window = writer.ahead.look(position, now, BLOCKS_LAST);
        let window = if window > MOST_BLOCKS_BYTES { 0 } else { window.max(LEAST_BLOCKS_BYTES) };
        writer.ahead.ask_at = position + if window > 0 { window / 2 } else { FIRST_LOOK_BYTES };
        let Some(active) = writer.active.as_ref().filter(|_| window > 0) else { return };
        let (region, file) = (Arc::clone(active.pen.region()), Arc::clone(&active.file));
        let end = (position + window).next_multiple_of(LEAST_BLOCKS_BYTES).min(region.capacity());
        if end > writer.valid {
            // Whoever appends meets the error again, if there is need to.
            drop(self.grow(&mut writer, end));
        }
        let end = end.min(writer.valid);
        let blocks = writer.ahead.prepared.max(position)..end;
        writer.ahead.prepared = end.max(writer.ahead.prepared);
        let (behind, next) = (writer.ahead.behind(position), writer.next);
        drop(writer);
        if !behind.is_empty() {
            region.let_go(behind);
        }
        if blocks.is_empty() {
            return;
        }
        region.populate(blocks);
        if self.sync_file(&*file, next).is_err() {
            // Whatever the kernel could not write, it tells this descriptor only once.
            self.fail();
        }
    }
}

/// How many bytes last for `time`, if `bytes` came in the time `gone`.
fn lasts(time: Duration, bytes: u64, gone: Duration) -> u64 {
    let bytes = u128::from(bytes) * time.as_nanos() / gone.as_nanos().max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::TopicConfig;
    use crate::env::Env;
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::Storage;
    use crate::env::storage::sim::{Operation, SimDisk};
    use crate::format::batch::Draft;
    use crate::format::segment::Identity;
    use crate::partition::Look;
    use crate::partition::recovery::Known;
    use crate::types::{Offset, Timestamp, TopicPartition};

    /// Two of these fill a segment.
    const SEGMENT_BYTES: u32 = 8192;
    const VALUE: [u8; 3000] = [7; 3000];

    struct Subject {
        disk: Arc<SimDisk>,
        clock: Arc<SimClock>,
        home: Home,
        partition: Arc<Partition>,
    }

    fn config(durability: Durability) -> TopicConfig {
        TopicConfig::new().durability(durability).segment_bytes(SEGMENT_BYTES)
    }

    impl Subject {
        fn new() -> Self {
            Subject::with(&config(Durability::Os))
        }

        fn with(config: &TopicConfig) -> Self {
            let (disk, clock) = (SimDisk::new(2), SimClock::new(Timestamp::from_millis(0)));
            assert!(!disk.is_crowded(), "nothing is made ahead then");
            let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
            let home = Home {
                env: Env::simulated(Arc::clone(&disk), Arc::clone(&clock), scheduler, 1),
                dir: PathBuf::from("0"),
                identity: Identity { log: 1, topic: 2, partition: 0 },
                partition: TopicPartition::new("orders", 0),
                segment_bytes: config.segment_bytes,
            };
            let partition = Arc::new(Partition::create(home.clone(), 1, config, None).unwrap());
            Subject { disk, clock, home, partition }
        }

        fn append(&self, records: usize) {
            (0..records).for_each(|_| self.append_one(&VALUE));
        }

        fn append_one(&self, value: &[u8]) {
            let now = Timestamp::from_millis(0);
            self.partition.append(&[Draft { key: None, value: Some(value), headers: &[], timestamp: now }]).unwrap();
        }

        /// With two segments that are full, and the worker told.
        fn asked() -> Self {
            let subject = Subject::new();
            subject.append(4);
            subject
        }

        fn spares(&self) -> usize {
            self.disk.list(Path::new("0")).unwrap().iter().filter(|entry| entry.name == "spare.log.new").count()
        }
    }

    #[test]
    fn a_roll_gives_the_segment_that_was_made_ahead_its_header_and_its_name_and_that_is_all() {
        let subject = Subject::asked();
        assert!(matches!(subject.partition.look(), Look::At(_)), "it is looked after until nobody appends any more");
        assert_eq!(subject.spares(), 1);
        let before = subject.disk.trace().len();

        subject.append(1);

        let spare = PathBuf::from("0/spare.log.new");
        assert_eq!(subject.disk.trace()[before..], [(Operation::Sync, spare.clone()), (Operation::Rename, spare)]);
        assert_eq!(subject.partition.space().0, 3);
        subject.partition.close().unwrap();
        let known = Known { made: true, epoch: 2, ..Known::default() };
        let (again, report) = Partition::open(subject.home.clone(), known, &config(Durability::Os), None).unwrap();
        assert_eq!((again.log_end(), report.segments, report.damage), (Offset::new(5), 3, Vec::new()));
    }

    #[test]
    fn what_was_made_ahead_goes_when_nobody_appends_when_the_level_changes_and_when_the_partition_is_closed() {
        let quiet = Subject::asked();
        while let Look::At(at) = quiet.partition.look() {
            assert_eq!(quiet.spares(), 1);
            quiet.clock.advance(at.saturating_sub(quiet.home.env.clock.monotonic()));
        }
        assert_eq!(quiet.spares(), 0);
        for _ in 0..2 {
            quiet.append(2);
            quiet.partition.look();
        }
        assert_eq!(quiet.spares(), 1, "somebody appends again");

        let changed = Subject::asked();
        changed.partition.look();
        assert_eq!(changed.partition.space(), (2, 3 * u64::from(SEGMENT_BYTES)), "its room counts");
        changed.partition.reconfigure(&config(Durability::Sync));
        assert_eq!(changed.spares(), 0, "who syncs would write all its pages");

        let closed = Subject::asked();
        closed.partition.look();
        closed.partition.close().unwrap();
        assert_eq!(closed.spares(), 0);
        closed.partition.look();
        assert_eq!(closed.spares(), 0);
    }

    #[test]
    fn what_was_made_ahead_and_cannot_be_used_is_no_reason_not_to_append() {
        let resized = Subject::asked();
        resized.partition.look();
        resized.partition.reconfigure(&config(Durability::Os).segment_bytes(2 * SEGMENT_BYTES));
        resized.append_one(&[7; SEGMENT_BYTES as usize]);
        assert_eq!((resized.spares(), resized.partition.space().0), (0, 3));

        let removed = Subject::asked();
        removed.partition.look();
        removed.disk.remove(Path::new("0/spare.log.new")).unwrap();
        removed.append(1);
        assert_eq!((removed.partition.log_end(), removed.partition.space().0), (Offset::new(5), 3));

        // What a process left that died.
        let left = Subject::asked();
        left.partition.look();
        let known = Known { made: true, epoch: 2, ..Known::default() };
        let disk = left.disk.kill();
        drop(left.partition);
        let scheduler = SimScheduler::new(Arc::clone(&left.clock), 1);
        let home = Home { env: Env::simulated(Arc::clone(&disk), left.clock, scheduler, 1), ..left.home };
        let (again, report) = Partition::open(home, known, &config(Durability::Os), None).unwrap();
        assert_eq!((again.log_end(), report.bytes_cut), (Offset::new(4), 0));
        assert!(disk.list(Path::new("0")).unwrap().iter().all(|entry| entry.name != "spare.log.new"));
    }

    #[test]
    fn a_topic_that_is_synced_finds_its_next_blocks_written_from_early_on_and_however_slowly_it_is_sent_to() {
        let subject = Subject::with(&config(Durability::Sync).segment_bytes(1 << 20));
        for _ in 0..300 {
            subject.append(1);
            subject.clock.advance(Duration::from_millis(10));
            subject.partition.look();
            let writer = subject.partition.writer.lock();
            let written = writer.ahead.prepared.max(LEAST_BLOCKS_BYTES);
            assert!(writer.position <= written, "{} is behind {written}", writer.position);
        }
    }
}
