//! A partition: append, sync, read, roll.
//!
//! One mutex guards what an append changes; readers do not take it. Three offsets say how far the log is, each only
//! ever growing but for a [`truncation`], published in this order by whoever holds the mutex:
//!
//! | offset         | everything below it                                        |
//! |----------------|------------------------------------------------------------|
//! | log end        | is in the mapped segments: it survives the process         |
//! | durable end    | survives a power cut                                       |
//! | high watermark | may be seen by consumers, and counts as delivered: the durable end in `Sync`, otherwise the log end |
//!
//! Syncing is done by whoever needs it first, for all who wait (group commit), without the mutex: appends go on.
//! A sync that fails is final: nothing more is appended, synced or delivered until the log is opened again.

mod bound;
mod callbacks;
mod capturing;
mod compaction;
mod copying;
mod following;
mod handle;
mod index;
mod offset_map;
mod preparing;
mod reading;
mod recovery;
mod retention;
mod segment;
mod slot;
mod syncing;
mod time_index;
mod times;
mod truncation;
mod unborn;

use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::config::{Durability, TopicConfig};
use crate::env::Env;
use crate::env::scheduling::Bell;
use crate::env::storage::region::{PAGE, Pen, Region};
use crate::env::storage::{Access, File, path_in};
use crate::error::{Error, Result};
use crate::format::batch::{self, Draft, Layout, MARKER_BYTES, Stamp};
use crate::format::catalog::Cut;
use crate::format::segment::{HEADER_BYTES, Header, Identity, Predecessor};
use crate::types::{Offset, Timestamp, TimestampType, TopicPartition};

use crate::partition::bound::Bound;
use crate::partition::callbacks::{Callback, Callbacks};
pub(crate) use crate::partition::capturing::{Capture, CapturedSegment, Pin, capture_all};
pub(crate) use crate::partition::compaction::{Compaction, Step, Tally};
use crate::partition::preparing::{Ahead, LARGE_PAGE, MOST_KEPT_BYTES};
pub(crate) use crate::partition::reading::{Chunk, ChunkRecords, Cursor};
use crate::partition::recovery::{Active, Recovered};
pub(crate) use crate::partition::recovery::{Known, PartitionReport, headers, holds_batches};
pub(crate) use crate::partition::retention::Removal;
use crate::partition::segment::Segment;
pub(crate) use crate::partition::segment::{Hole, Met};
use crate::partition::slot::Slot;
pub(crate) use crate::partition::syncing::Look;
use crate::partition::syncing::{Turn, notify};
use crate::partition::times::Age;
use crate::partition::unborn::Unborn;

/// What every append leaves free behind it: room for one marker that says that all is durable, and one for the roll.
const MARKER_ROOM: u64 = 2 * MARKER_BYTES as u64;

/// Whose partition it is and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) env: Env,
    /// Relative to the root of the log.
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) partition: TopicPartition,
    pub(crate) segment_bytes: u32,
}

/// Space is taken in steps as long as what a segment has, within these limits: a thousand small partitions stay small,
/// a large one does not grow often.
const GROWTH_BYTES: Range<u64> = 64 << 10..16 << 20;

impl Home {
    fn full(&self, path: &Path) -> PathBuf {
        path_in(self.env.storage.root(), path)
    }

    /// The bytes of a whole segment, in whole pages.
    fn capacity(&self) -> u64 {
        u64::from(self.segment_bytes).next_multiple_of(4096)
    }

    fn first_room(&self) -> u64 {
        GROWTH_BYTES.start.min(self.capacity())
    }

    /// Grows a file from one length to another.
    fn allocate(&self, file: &dyn File, path: &Path, from: u64, to: u64) -> Result<()> {
        file.allocate(from, to).map_err(self.no_room(path, to - from))
    }

    /// Takes the room of bytes of a file that may have been given back.
    fn reclaim(&self, file: &dyn File, path: &Path, range: Range<u64>) -> Result<()> {
        let bytes = range.end - range.start;
        file.reclaim(range).map_err(self.no_room(path, bytes))
    }

    /// Says it in the log's words when there is no room.
    fn no_room(&self, path: &Path, bytes: u64) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::NoSpace { path: self.full(path), bytes, source }
            }
            _ => Error::Io { action: "allocate", path: self.full(path), source },
        }
    }

    /// Takes care that storing to allocated bytes cannot fail, where the file system may need room for that too.
    fn prepare(&self, pen: &mut Pen, path: &Path, range: Range<u64>) -> Result<()> {
        let bytes = range.end - range.start;
        pen.prepare(range).map_err(|source| Error::NoSpace { path: self.full(path), bytes, source })
    }
}

/// Who waits for the high watermark to move.
#[derive(Debug)]
pub(crate) enum Listener {
    Bell(Arc<Bell>),
    Waker(Waker),
}

/// Where partitions are put that need somebody to look after them in time.
pub(crate) trait Upkeep: Send + Sync + fmt::Debug {
    fn look_after(&self, partition: &Arc<Partition>);

    /// Removes everything below `start`, and writes down that it did.
    fn delete_before(&self, partition: &Partition, start: Offset) -> Result<()>;

    /// Removes what the topic of the partition no longer keeps; how many segments that were.
    fn apply_retention(&self, partition: &Partition) -> Result<usize>;
}

/// A partition that is open.
pub(crate) struct Partition {
    home: Home,
    epoch: AtomicU32,
    /// Whether another process may be writing it, and this one only looks on.
    follows: bool,
    upkeep: Option<Arc<dyn Upkeep>>,
    slots: RwLock<Vec<Arc<Slot>>>,
    writer: Mutex<Writer>,
    /// The next segment, if it was made ahead. May be asked for, but not waited for, by who holds the writer's mutex.
    spare: Mutex<Option<Unborn>>,
    log_start: AtomicU64,
    log_end: AtomicU64,
    durable_end: AtomicU64,
    high_watermark: AtomicU64,
    state: AtomicU8,
    /// Who syncs; whoever wants to and is not the one waits for `synced`.
    turn: Mutex<Turn>,
    synced: Bell,
    callbacks: Callbacks,
    /// Held by whoever removes segments.
    removing: Mutex<()>,
    /// Held during a step of a compaction; taken before `removing`.
    compacting: Mutex<()>,
    /// How many copy the files, which must not go meanwhile.
    pins: Mutex<usize>,
    /// Where the log was cut since it was opened, and how often.
    cuts: Mutex<Vec<Offset>>,
    cut_count: AtomicUsize,
    /// Where it is being cut; `u64::MAX` while it is not.
    cutting: AtomicU64,
    /// Rings when there is more room than there was.
    room: Bell,
}

const OPEN: u8 = 0;
const FAILED: u8 = 1;
const CLOSED: u8 = 2;

/// What the mutex guards.
///
/// Aligned, so that no line of the processor's cache holds some of it and what consumers look at while they wait: who
/// appends would get each such line back from them every time. Not in a simulation, whose threads take turns: an allocator
/// takes several times as long for what is aligned.
#[cfg_attr(not(feature = "sim"), repr(align(64)))]
struct Writer {
    active: Option<Active>,
    predecessor: Option<Predecessor>,
    next: Offset,
    /// Where the next batch goes in the active segment, and how far its file reaches.
    position: u64,
    valid: u64,
    ahead: Ahead,
    durability: Durability,
    max_record_bytes: u64,
    segment_bytes: u32,
    timestamp_type: TimestampType,
    age: Age,
    bound: Bound,
    /// Whether its segments are compacted.
    compacts: bool,
    /// Segments that were rolled and not yet synced, the oldest first.
    sealed: Vec<Sealed>,
    /// Whether the directory must be synced before anything in the active segment is durable.
    unnamed: bool,
    unsynced_bytes: u64,
    /// Since when there is something to sync, if the level asks for it to be done in time.
    dirty_since: Option<Duration>,
    /// Whether the bytes on the disk say that everything is durable.
    witnessed: bool,
    /// Whether the worker looks after this partition, and what it last saw.
    looked_after: bool,
    quiet: (Offset, Duration),
    listeners: Vec<Listener>,
    /// The last cut that a follower knows of.
    cut: Option<Cut>,
}

/// A segment that was rolled: the pen for its marker and the file for its sync.
struct Sealed {
    pen: Pen,
    file: Arc<dyn File>,
    slot: Arc<Slot>,
    salt: u32,
    next: Offset,
    /// Up to here its pages were let go of, so that they do not stay in memory until the sync.
    let_go: u64,
}

impl Sealed {
    /// How many bytes of it were not let go of.
    fn kept(&self) -> u64 {
        self.pen.region().written().saturating_sub(self.let_go)
    }

    /// The pages that are to be let go of now, if there are any.
    fn pages_to_let_go(&mut self) -> Option<(Arc<Region>, Range<u64>)> {
        let (region, end) = (self.pen.region(), self.pen.region().written());
        let pages = mem::replace(&mut self.let_go, end)..end;
        (!pages.is_empty()).then(|| (Arc::clone(region), pages))
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({} {}..{})", self.home.partition, self.log_start(), self.log_end())
    }
}

impl Partition {
    /// Makes the directory of a new partition and its first segment, all of it durable but the directory's own name.
    pub(crate) fn create(
        home: Home,
        epoch: u32,
        config: &TopicConfig,
        upkeep: Option<Arc<dyn Upkeep>>,
    ) -> Result<Self> {
        let storage = Arc::clone(&home.env.storage);
        storage.create_dir(&home.dir).map_err(Error::making("create", || home.full(&home.dir)))?;
        let header = Header {
            identity: home.identity,
            epoch,
            base: Offset::ZERO,
            predecessor: None,
            durable_end: Offset::ZERO,
            compacted: None,
        };
        let active = unborn::create(&home, &header, home.first_room())?;
        storage.sync_dir(&home.dir).map_err(Error::io("sync", || home.full(&home.dir)))?;
        let recovered = Recovered {
            slots: vec![Arc::clone(&active.slot)],
            active: Some(active),
            predecessor: None,
            start: Offset::ZERO,
            next: Offset::ZERO,
            witness: Offset::ZERO,
            epoch,
            report: PartitionReport::default(),
        };
        Ok(Self::new(home, epoch, config, upkeep, recovered))
    }

    /// Opens a partition for writing, after recovery.
    pub(crate) fn open(
        home: Home,
        known: Known,
        config: &TopicConfig,
        upkeep: Option<Arc<dyn Upkeep>>,
    ) -> Result<(Self, PartitionReport)> {
        let mut recovered = recovery::recover(&home, Access::Write, known)?;
        let report = mem::take(&mut recovered.report);
        // Whatever the catalog says: bytes of an earlier opening must never pass for those of this one.
        let epoch = known.epoch.max(recovered.epoch.saturating_add(1));
        Ok((Self::new(home, epoch, config, upkeep, recovered), report))
    }

    /// Opens a partition that another process may be writing: nothing is changed. See [`follow`](Self::follow).
    pub(crate) fn open_read_only(home: Home, known: Known, config: &TopicConfig) -> Result<(Self, PartitionReport)> {
        let mut recovered = recovery::recover(&home, Access::Read, known)?;
        let report = mem::take(&mut recovered.report);
        let mut partition = Self::new(home, 0, config, None, recovered);
        partition.writer.get_mut().cut = known.cut;
        partition.state.store(CLOSED, Ordering::Release);
        Ok((partition, report))
    }

    fn new(
        home: Home,
        epoch: u32,
        config: &TopicConfig,
        upkeep: Option<Arc<dyn Upkeep>>,
        recovered: Recovered,
    ) -> Self {
        let Recovered { slots, active, predecessor, start, next, witness, .. } = recovered;
        let read_only = upkeep.is_none() && epoch == 0;
        // Recovery has made durable all that it kept; a reader beside a writer knows only what is proven.
        let durable = if read_only { witness.min(next) } else { next };
        let high_watermark = if config.durability == Durability::Sync { durable } else { next };
        let (position, valid) = match &active {
            // Behind what is known to have room it is taken before it is first stored to, which need not be now.
            Some(active) => (active.walk.position, active.roomy.max(active.walk.position)),
            None => (0, 0),
        };
        if let Some(active) = &active {
            prefer_large_pages(active.pen.region(), config.durability, position);
        }
        let writer = Writer {
            active,
            predecessor,
            next,
            position,
            valid,
            ahead: Ahead::new(position, config.durability),
            durability: config.durability,
            max_record_bytes: u64::from(config.max_record_bytes),
            segment_bytes: config.segment_bytes,
            timestamp_type: config.timestamp_type,
            age: Age::new(config.segment_span()),
            bound: Bound::of(config),
            compacts: config.cleanup_policy.compacts(),
            sealed: Vec::new(),
            unnamed: false,
            unsynced_bytes: 0,
            dirty_since: None,
            witnessed: witness >= next,
            looked_after: false,
            quiet: (next, Duration::ZERO),
            listeners: Vec::new(),
            cut: None,
        };
        Partition {
            epoch: AtomicU32::new(epoch),
            follows: read_only,
            upkeep,
            slots: RwLock::new(slots),
            writer: Mutex::new(writer),
            spare: Mutex::new(None),
            log_start: AtomicU64::new(start.get()),
            log_end: AtomicU64::new(next.get()),
            durable_end: AtomicU64::new(durable.get()),
            high_watermark: AtomicU64::new(high_watermark.get()),
            state: AtomicU8::new(OPEN),
            turn: Mutex::default(),
            synced: home.env.scheduler.bell(),
            callbacks: Callbacks::default(),
            removing: Mutex::new(()),
            compacting: Mutex::new(()),
            pins: Mutex::new(0),
            cuts: Mutex::default(),
            cut_count: AtomicUsize::new(0),
            cutting: AtomicU64::new(u64::MAX),
            room: home.env.scheduler.bell(),
            home,
        }
    }

    pub(crate) fn name(&self) -> &TopicPartition {
        &self.home.partition
    }

    /// The epoch of what is appended from now on.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Sets the epoch of what is appended from now on: the catalog finds out its own only by reading itself.
    pub(crate) fn begin_epoch(&self, epoch: u32) {
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    /// What the wall clock shows.
    pub(crate) fn now(&self) -> Timestamp {
        self.home.env.clock.now()
    }

    pub(crate) fn topic_id(&self) -> u128 {
        self.home.identity.topic
    }

    /// The first offset that can be read.
    pub(crate) fn log_start(&self) -> Offset {
        Offset::new(self.log_start.load(Ordering::Acquire))
    }

    /// The offset that the next record gets.
    pub(crate) fn log_end(&self) -> Offset {
        Offset::new(self.log_end.load(Ordering::Acquire))
    }

    /// Everything below survives a power cut.
    pub(crate) fn durable_end(&self) -> Offset {
        Offset::new(self.durable_end.load(Ordering::Acquire))
    }

    /// Everything below may be seen.
    #[inline]
    pub(crate) fn high_watermark(&self) -> Offset {
        Offset::new(self.high_watermark.load(Ordering::Acquire))
    }

    /// Whether anything can be appended.
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            OPEN => Ok(()),
            FAILED => Err(Error::SyncFailed { partition: self.home.partition.clone() }),
            _ => Err(Error::Closed),
        }
    }

    /// What a changed configuration means for what is appended from now on.
    pub(crate) fn reconfigure(&self, config: &TopicConfig) {
        let mut writer = self.writer.lock();
        writer.durability = config.durability;
        writer.max_record_bytes = u64::from(config.max_record_bytes);
        writer.segment_bytes = config.segment_bytes;
        writer.timestamp_type = config.timestamp_type;
        writer.age = Age::new(config.segment_span());
        writer.bound = Bound::of(config);
        writer.compacts = config.cleanup_policy.compacts();
        let keeps_spare = config.durability == Durability::Os;
        if config.durability != Durability::Sync {
            // What waited for a sync waits no longer; the other way round nothing is taken back.
            self.high_watermark.store(writer.next.get(), Ordering::Release);
        }
        let listeners = mem::take(&mut writer.listeners);
        drop(writer);
        if !keeps_spare {
            self.discard_spare();
        }
        notify(listeners);
        self.room.ring();
        self.run_callbacks();
    }

    fn run_callbacks(&self) {
        // What was cut off had been delivered, or is done with.
        let is_delivered = |offset| self.high_watermark() > offset || self.log_end() <= offset;
        self.callbacks.run(|offset| if is_delivered(offset) { Some(Ok(())) } else { self.check_open().err().map(Err) });
    }
}

/// Appending.
impl Partition {
    /// Appends the records as one batch, and returns the offset of the first. When it returns, they survive the
    /// death of the process.
    #[inline]
    pub(crate) fn append(self: &Arc<Self>, records: &[Draft<'_>]) -> Result<Offset> {
        self.append_then(records, None)
    }

    /// Appends the records as one batch; `callback` runs when they are delivered.
    pub(crate) fn append_then(self: &Arc<Self>, records: &[Draft<'_>], callback: Option<Callback>) -> Result<Offset> {
        let layout = Layout::of(records);
        let mut writer = self.writer.lock();
        self.check_open()?;
        if layout.length > writer.max_record_bytes.min(self.largest_batch(&writer)) {
            return Err(self.too_large(layout.length, &writer));
        }
        if writer.age.may_be_over(layout.latest) || writer.position + layout.length + MARKER_ROOM > writer.valid {
            writer = self.prepare_for(writer, &layout)?;
        }
        let base = writer.next;
        if u64::MAX - base.get() < records.len() as u64 {
            let reason = format!("{}: there are no offsets behind {base} to give", self.home.partition);
            return Err(Error::InvalidState { reason });
        }
        self.put(&mut writer, layout, records);
        if let Some(callback) = callback {
            self.callbacks.push(base, callback);
        }
        let look_after = self.note_append(&mut writer, layout.length);
        let listeners =
            if writer.durability == Durability::Sync { Vec::new() } else { mem::take(&mut writer.listeners) };
        drop(writer);
        if look_after && let Some(upkeep) = &self.upkeep {
            upkeep.look_after(self);
        }
        if !listeners.is_empty() {
            notify(listeners);
        }
        if !self.callbacks.is_empty() {
            self.run_callbacks();
        }
        Ok(base)
    }

    /// Whether a batch of these records would be appended, as far as its size goes.
    pub(crate) fn check_batch(&self, records: &[Draft<'_>]) -> Result<()> {
        let bytes = Layout::of(records).length;
        let writer = self.writer.lock();
        let limit = writer.max_record_bytes.min(self.largest_batch(&writer));
        if bytes > limit { Err(self.too_large(bytes, &writer)) } else { Ok(()) }
    }

    /// Encodes into the place behind the last batch and publishes.
    #[inline]
    fn put(&self, writer: &mut Writer, layout: Layout, records: &[Draft<'_>]) {
        let (position, base) = (writer.position, writer.next);
        let stamp = self.stamp(writer, base);
        let active = writer.active.as_mut().expect("room was made in an active segment");
        let end = position + layout.length;
        let word = batch::encode(active.pen.spare(position..end), layout, &stamp, records);
        active.segment.note(base, position, Some(layout.latest));
        active.pen.publish(position, word, end);
        writer.position = end;
        writer.next = base.advance(records.len() as u64);
        self.log_end.store(writer.next.get(), Ordering::Release);
    }

    #[inline]
    fn stamp(&self, writer: &Writer, base: Offset) -> Stamp {
        Stamp {
            base,
            durable_end: Offset::new(self.durable_end.load(Ordering::Relaxed)),
            epoch: self.epoch.load(Ordering::Relaxed),
            salt: writer.active.as_ref().map_or(0, |active| active.walk.salt),
            timestamp_type: writer.timestamp_type,
        }
    }

    /// What an append means for the high watermark and for the worker; whether the worker must be told.
    #[inline]
    fn note_append(&self, writer: &mut Writer, bytes: u64) -> bool {
        writer.witnessed = false;
        writer.unsynced_bytes += bytes;
        if writer.durability != Durability::Sync {
            self.high_watermark.store(writer.next.get(), Ordering::Release);
        }
        let asks = writer.position >= writer.ahead.ask_at;
        if asks {
            writer.ahead.ask_at = u64::MAX;
        }
        let (waits, urgent) = match writer.durability {
            Durability::Os => (!writer.sealed.is_empty(), false),
            Durability::Sync => (writer.dirty_since.is_none(), false),
            Durability::Interval { bytes, .. } => (writer.dirty_since.is_none(), writer.unsynced_bytes >= bytes),
        };
        if !(asks || waits || urgent) {
            return false;
        }
        if urgent {
            // Long ago, so that the worker finds the interval over.
            writer.dirty_since = Some(Duration::ZERO);
            writer.unsynced_bytes = 0;
        } else if waits && writer.durability != Durability::Os {
            writer.dirty_since = Some(self.home.env.clock.monotonic());
        }
        let known = mem::replace(&mut writer.looked_after, true);
        asks || urgent || !known
    }

    /// The longest batch that a segment of this partition can hold.
    fn largest_batch(&self, writer: &Writer) -> u64 {
        let capacity = u64::from(writer.segment_bytes).next_multiple_of(4096);
        capacity - HEADER_BYTES - MARKER_ROOM
    }

    fn too_large(&self, bytes: u64, writer: &Writer) -> Error {
        let limit = writer.max_record_bytes.min(self.largest_batch(writer));
        Error::RecordTooLarge { topic: self.home.partition.topic().to_owned(), bytes, limit }
    }

    /// Makes room for a batch of `bytes` and a marker behind it: grows the segment, or rolls it.
    #[cold]
    fn make_room(&self, writer: &mut Writer, bytes: u64) -> Result<()> {
        self.seal_if_damaged(writer)?;
        let needed = writer.position + bytes + MARKER_ROOM;
        match &mut writer.active {
            Some(active) if needed <= active.pen.region().capacity() => self.grow(writer, needed),
            // Made when segments were smaller, and its successor could not have another name.
            Some(active) if active.segment.base() == writer.next => {
                let limit = active.pen.region().capacity() - HEADER_BYTES - MARKER_ROOM;
                Err(Error::RecordTooLarge { topic: self.home.partition.topic().to_owned(), bytes, limit })
            }
            _ => {
                self.roll(writer)?;
                if writer.position + bytes + MARKER_ROOM > writer.valid {
                    self.make_room(writer, bytes)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Before the first append to a segment that opening did not look into: one that is damaged is never written to, and
    /// the next begins behind it.
    fn seal_if_damaged(&self, writer: &mut Writer) -> Result<()> {
        let Some(active) = writer.active.as_ref().filter(|active| active.segment.base() < writer.next) else {
            return Ok(());
        };
        if active.segment.check_all().map_err(Error::io("read", || active.segment.path()))? {
            return Ok(());
        }
        active.slot.seal(writer.next, writer.position);
        active.slot.finish();
        writer.predecessor = Some(Predecessor { base: active.segment.base(), end_position: writer.position });
        writer.active = None;
        (writer.position, writer.valid) = (0, 0);
        Ok(())
    }

    /// Takes room for the active segment, a step further or at least to `needed`, which lies below its capacity.
    fn grow(&self, writer: &mut Writer, needed: u64) -> Result<()> {
        let active = writer.active.as_mut().expect("only an active segment grows");
        let (length, capacity) = (active.pen.region().valid(), active.pen.region().capacity());
        let from = writer.valid / PAGE * PAGE;
        let step = from.clamp(GROWTH_BYTES.start, GROWTH_BYTES.end);
        let to = (from + step).max(needed).next_multiple_of(PAGE).min(capacity);
        let path = active.slot.path.clone();
        self.home.reclaim(&*active.file, &path, from.min(length)..to.min(length))?;
        if to > length {
            self.check_bound(writer.bound, to - length)?;
            self.home.allocate(&*active.file, &path, length, to)?;
            active.pen.extend(to);
        }
        self.home.prepare(&mut active.pen, &path, writer.position..to)?;
        if from <= LARGE_PAGE {
            prefer_large_pages(active.pen.region(), writer.durability, to);
        }
        writer.valid = to;
        Ok(())
    }

    /// Begins a new segment, whatever room the active one has.
    pub(crate) fn begin_segment(&self) -> Result<Offset> {
        let mut writer = self.writer.lock();
        self.check_open()?;
        // One that holds nothing has the name that the new one would get.
        if writer.active.as_ref().is_none_or(|active| active.segment.base() < writer.next) {
            self.roll(&mut writer)?;
        }
        Ok(writer.next)
    }

    /// Begins a new segment. The old one is synced by the next sync, and gets its marker then.
    fn roll(&self, writer: &mut Writer) -> Result<()> {
        let predecessor = match &writer.active {
            Some(active) => Some(Predecessor { base: active.segment.base(), end_position: writer.position }),
            None => writer.predecessor,
        };
        let header = Header {
            identity: self.home.identity,
            epoch: self.epoch.load(Ordering::Relaxed),
            base: writer.next,
            predecessor,
            durable_end: self.durable_end(),
            compacted: None,
        };
        let home = Home { segment_bytes: writer.segment_bytes, ..self.home.clone() };
        // Whoever has filled a segment soon needs as much again; it would only be taken in steps.
        let room = writer.position.clamp(GROWTH_BYTES.start, GROWTH_BYTES.end) / 4096 * 4096;
        let room = room.min(home.capacity());
        self.check_bound(writer.bound, room)?;
        let (active, prepared) = match self.begin_spare(&home, &header) {
            Some(begun) => begun,
            None => {
                let active = unborn::create(&home, &header, room)?;
                // No small partition fills such segments, so it need not stay small.
                if writer.durability == Durability::Os && active.roomy > LARGE_PAGE {
                    active.pen.region().prefer_large_pages(0..active.pen.region().capacity());
                }
                (active, 0)
            }
        };
        if self.slots.read().is_empty() {
            // All there was has been cut off. Without its first segment a partition has lost something, so that the name must
            // not go where that of the next one stays.
            self.sync_names()?;
        }
        self.slots.write().push(Arc::clone(&active.slot));
        let let_go = writer.ahead.let_go();
        writer.ahead.roll(writer.position, active.walk.position, prepared);
        writer.position = active.walk.position;
        writer.valid = active.roomy;
        writer.age.begin();
        writer.unnamed = true;
        if let (Some(old), Some(end)) = (writer.active.replace(active), predecessor) {
            old.slot.seal(writer.next, end.end_position);
            let Active { pen, file, walk, slot, .. } = old;
            writer.sealed.push(Sealed { pen, file, slot, salt: walk.salt, next: writer.next, let_go });
        }
        if writer.sealed.iter().map(Sealed::kept).sum::<u64>() > MOST_KEPT_BYTES {
            // The worker is late: then whoever appends does it, or the memory would grow with what is appended.
            let pages = writer.sealed.iter_mut().filter_map(Sealed::pages_to_let_go);
            pages.for_each(|(region, pages)| region.let_go(pages));
        }
        Ok(())
    }
}

/// Asks for large pages where they make appends cheaper: in a topic that nobody syncs, behind the first bytes, so that
/// small partitions stay small; and not before there is room there, because the kernel keeps such a segment as two mappings.
fn prefer_large_pages(region: &Region, durability: Durability, room: u64) {
    if durability == Durability::Os && room > LARGE_PAGE {
        region.prefer_large_pages(LARGE_PAGE..region.capacity());
    }
}
