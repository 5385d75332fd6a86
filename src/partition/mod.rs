//! A partition: append, sync, read, roll.
//!
//! One mutex guards what an append changes; readers do not take it. Three offsets say how far the log is, each only
//! ever growing, published in this order by whoever holds the mutex:
//!
//! | offset         | everything below it                                        |
//! |----------------|------------------------------------------------------------|
//! | log end        | is in the mapped segments: it survives the process         |
//! | durable end    | survives a power cut                                       |
//! | high watermark | may be seen by consumers, and counts as delivered: the durable end in `Sync`, otherwise the log end |
//!
//! Syncing is done by whoever needs it first, for all who wait (group commit), without the mutex: appends go on.
//! A sync that fails is final: nothing more is appended, synced or delivered until the log is opened again.

mod index;
mod recovery;
mod segment;
mod slot;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::config::{Durability, TopicConfig};
use crate::env::Env;
use crate::env::scheduling::Bell;
use crate::env::storage::region::Pen;
use crate::env::storage::{Access, File};
use crate::error::{Damage, Error, Flaw, Result};
use crate::format::batch::{self, Draft, Layout, MARKER_BYTES, Marker, Stamp};
use crate::format::segment::{HEADER_BYTES, Header, Identity, Predecessor};
use crate::types::{Offset, Timestamp, TimestampType, TopicPartition};

use crate::partition::recovery::{Active, Recovered};
pub(crate) use crate::partition::recovery::{Known, PartitionReport, headers, holds_batches};
pub(crate) use crate::partition::segment::Hole;
use crate::partition::segment::Obstacle;
pub(crate) use crate::partition::segment::Segment;
use crate::partition::slot::{Found, Slot};

/// How long a record of a `Sync` topic waits for somebody to need its sync before the background worker does it.
const SYNC_DELAY: Duration = Duration::from_millis(1);
/// How long nothing must have been appended before a marker is worth its 48 bytes.
const IDLE_DELAY: Duration = Duration::from_millis(20);

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
        self.env.storage.root().join(path)
    }

    /// The bytes of a whole segment, in whole pages.
    fn capacity(&self) -> u64 {
        u64::from(self.segment_bytes).next_multiple_of(4096)
    }

    fn first_room(&self) -> u64 {
        GROWTH_BYTES.start.min(self.capacity())
    }

    /// Grows a file from one length to another, and says it in the log's words when there is no room.
    fn allocate(&self, file: &dyn File, path: &Path, from: u64, to: u64) -> Result<()> {
        file.allocate(from, to).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::NoSpace { path: self.full(path), bytes: to - from, source }
            }
            _ => Error::Io { action: "allocate", path: self.full(path), source },
        })
    }

    /// Takes care that storing to allocated bytes cannot fail, where the file system may need room for that too.
    fn prepare(&self, pen: &mut Pen, path: &Path, range: Range<u64>) -> Result<()> {
        let bytes = range.end - range.start;
        pen.prepare(range).map_err(|source| Error::NoSpace { path: self.full(path), bytes, source })
    }
}

/// Runs when its record is delivered, or never will be.
pub(crate) type Callback = Box<dyn FnOnce(Offset, Result<()>) + Send>;

/// Who waits for the high watermark to move.
#[derive(Debug)]
pub(crate) enum Listener {
    Bell(Arc<Bell>),
    Waker(Waker),
}

/// Where partitions are put that need somebody to look after them in time.
pub(crate) trait Upkeep: Send + Sync + fmt::Debug {
    fn look_after(&self, partition: &Arc<Partition>);
}

/// A partition that is open.
pub(crate) struct Partition {
    home: Home,
    epoch: AtomicU32,
    upkeep: Option<Arc<dyn Upkeep>>,
    slots: RwLock<Vec<Arc<Slot>>>,
    writer: Mutex<Writer>,
    log_start: AtomicU64,
    log_end: AtomicU64,
    durable_end: AtomicU64,
    high_watermark: AtomicU64,
    state: AtomicU8,
    /// Whether somebody syncs; whoever wants to waits for `synced`.
    syncing: Mutex<bool>,
    synced: Bell,
    callbacks: Callbacks,
}

const OPEN: u8 = 0;
const FAILED: u8 = 1;
const CLOSED: u8 = 2;

/// What the mutex guards.
struct Writer {
    active: Option<Active>,
    predecessor: Option<Predecessor>,
    next: Offset,
    /// Where the next batch goes in the active segment, and how far its file reaches.
    position: u64,
    valid: u64,
    durability: Durability,
    max_record_bytes: u64,
    segment_bytes: u32,
    timestamp_type: TimestampType,
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
}

/// A segment that was rolled: the pen for its marker and the file for its sync.
struct Sealed {
    pen: Pen,
    file: Arc<dyn File>,
    path: PathBuf,
    salt: u32,
    next: Offset,
}

/// What one look at a partition says of when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing to do until something is appended.
    Done,
    /// Look again at this time.
    At(Duration),
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
        storage.create_dir(&home.dir).map_err(Error::making("create", home.full(&home.dir)))?;
        let header =
            Header { identity: home.identity, epoch, base: Offset::ZERO, predecessor: None, durable_end: Offset::ZERO };
        let active = recovery::create(&home, &header)?;
        storage.sync_dir(&home.dir).map_err(Error::io("sync", home.full(&home.dir)))?;
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
        let partition = Self::new(home, 0, config, None, recovered);
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
            // What is there is prepared before it is first stored to, which need not be now.
            Some(active) if active.pen.needs_preparing() => (active.walk.position, active.walk.position),
            Some(active) => (active.walk.position, active.pen.region().valid()),
            None => (0, 0),
        };
        let writer = Writer {
            active,
            predecessor,
            next,
            position,
            valid,
            durability: config.durability,
            max_record_bytes: u64::from(config.max_record_bytes),
            segment_bytes: config.segment_bytes,
            timestamp_type: config.timestamp_type,
            sealed: Vec::new(),
            unnamed: false,
            unsynced_bytes: 0,
            dirty_since: None,
            witnessed: witness >= next,
            looked_after: false,
            quiet: (next, Duration::ZERO),
            listeners: Vec::new(),
        };
        Partition {
            epoch: AtomicU32::new(epoch),
            upkeep,
            slots: RwLock::new(slots),
            writer: Mutex::new(writer),
            log_start: AtomicU64::new(start.get()),
            log_end: AtomicU64::new(next.get()),
            durable_end: AtomicU64::new(durable.get()),
            high_watermark: AtomicU64::new(high_watermark.get()),
            state: AtomicU8::new(OPEN),
            syncing: Mutex::new(false),
            synced: home.env.scheduler.bell(),
            callbacks: Callbacks::default(),
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
        if config.durability != Durability::Sync {
            // What waited for a sync waits no longer; the other way round nothing is taken back.
            self.high_watermark.store(writer.next.get(), Ordering::Release);
        }
        let listeners = mem::take(&mut writer.listeners);
        drop(writer);
        notify(listeners);
        self.run_callbacks();
    }

    fn run_callbacks(&self) {
        self.callbacks
            .run(|offset| if self.high_watermark() > offset { Some(Ok(())) } else { self.check_open().err().map(Err) });
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
        if writer.position + layout.length + MARKER_ROOM > writer.valid {
            self.make_room(&mut writer, layout.length)?;
        }
        let base = writer.next;
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
        active.segment.note(base, position);
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
        let urgent = match writer.durability {
            Durability::Os if writer.sealed.is_empty() => return false,
            Durability::Os => return !mem::replace(&mut writer.looked_after, true),
            Durability::Sync => false,
            Durability::Interval { bytes, .. } => writer.unsynced_bytes >= bytes,
        };
        if writer.dirty_since.is_none() {
            writer.dirty_since = Some(self.home.env.clock.monotonic());
        } else if !urgent {
            return false;
        }
        if urgent {
            // Long ago, so that the worker finds the interval over.
            writer.dirty_since = Some(Duration::ZERO);
            writer.unsynced_bytes = 0;
            return true;
        }
        !mem::replace(&mut writer.looked_after, true)
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
        let needed = writer.position + bytes + MARKER_ROOM;
        match &mut writer.active {
            Some(active) if needed <= active.pen.region().valid() => {
                let path = active.slot.path.clone();
                let to = active.pen.region().valid();
                self.home.prepare(&mut active.pen, &path, writer.position..to)?;
                writer.valid = to;
                Ok(())
            }
            Some(active) if needed <= active.pen.region().capacity() => {
                let capacity = active.pen.region().capacity();
                let from = active.pen.region().valid();
                let step = from.clamp(GROWTH_BYTES.start, GROWTH_BYTES.end);
                let to = (from + step).max(needed.next_multiple_of(4096)).min(capacity);
                let path = active.slot.path.clone();
                self.home.allocate(&*active.file, &path, from, to)?;
                active.pen.extend(to);
                self.home.prepare(&mut active.pen, &path, writer.position..to)?;
                writer.valid = to;
                Ok(())
            }
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

    /// Removes the segments below `base`, which is where one begins; the oldest first, so that what is left is always a
    /// log. Whoever reads them goes on reading them.
    pub(crate) fn remove_before(&self, base: Offset) -> Result<()> {
        let storage = &self.home.env.storage;
        loop {
            let oldest = self.slots.read().first().filter(|slot| slot.base < base).cloned();
            let Some(oldest) = oldest else { break };
            storage.remove(&oldest.path).map_err(Error::io("remove", self.home.full(&oldest.path)))?;
            self.slots.write().remove(0);
        }
        self.log_start.fetch_max(base.get(), Ordering::AcqRel);
        storage.sync_dir(&self.home.dir).map_err(Error::io("sync", self.home.full(&self.home.dir)))
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
        };
        let home = Home { segment_bytes: writer.segment_bytes, ..self.home.clone() };
        let active = recovery::create(&home, &header)?;
        self.slots.write().push(Arc::clone(&active.slot));
        writer.position = active.walk.position;
        writer.valid = active.pen.region().valid();
        writer.unnamed = true;
        if let (Some(old), Some(end)) = (writer.active.replace(active), predecessor) {
            old.slot.seal(writer.next, end.end_position);
            let path = old.segment.path().to_path_buf();
            let Active { pen, file, walk, .. } = old;
            writer.sealed.push(Sealed { pen, file, path, salt: walk.salt, next: writer.next });
        }
        Ok(())
    }
}

/// Syncing.
impl Partition {
    /// Waits until everything below `target` is durable, syncing if nobody else does. `timeout`: `None` is for ever.
    pub(crate) fn sync_to(&self, target: Offset, timeout: Option<Duration>) -> Result<()> {
        let clock = &self.home.env.clock;
        let start = clock.monotonic();
        loop {
            let seen = self.synced.rung();
            if self.durable_end() >= target {
                return Ok(());
            }
            self.check_open()?;
            let leads = {
                let mut syncing = self.syncing.lock();
                !mem::replace(&mut *syncing, true)
            };
            if leads {
                self.lead_sync(true);
                continue;
            }
            let waited = clock.monotonic().saturating_sub(start);
            let left = timeout.map(|timeout| timeout.saturating_sub(waited));
            if left == Some(Duration::ZERO) {
                return Err(Error::Timeout { waited });
            }
            self.synced.wait(seen, left);
        }
    }

    fn check_not_failed(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == FAILED {
            return Err(Error::SyncFailed { partition: self.home.partition.clone() });
        }
        Ok(())
    }

    /// Syncs everything that was appended, or all but the active segment, as the one who does it for all; tells
    /// everybody.
    fn lead_sync(&self, active_too: bool) {
        let mut writer = self.writer.lock();
        if self.check_open().is_err() {
            // The files are gone, so nothing can be said of them.
            drop(writer);
            *self.syncing.lock() = false;
            self.synced.ring();
            return;
        }
        let sealed = mem::take(&mut writer.sealed);
        let unnamed = mem::take(&mut writer.unnamed);
        let active = writer.active.as_ref().filter(|_| active_too);
        let end = if active_too { writer.next } else { sealed.last().map_or(self.durable_end(), |old| old.next) };
        let active = active.map(|active| (Arc::clone(&active.file), active.segment.path().to_path_buf()));
        writer.unsynced_bytes = 0;
        writer.dirty_since = None;
        drop(writer);

        let synced = self.sync_files(sealed, unnamed, active);

        let mut writer = self.writer.lock();
        match &synced {
            Ok(()) => {
                self.durable_end.fetch_max(end.get(), Ordering::AcqRel);
                if writer.durability == Durability::Sync {
                    self.high_watermark.fetch_max(end.get(), Ordering::AcqRel);
                }
                // What came meanwhile waits for the next sync.
                if writer.next > end && writer.durability != Durability::Os && writer.dirty_since.is_none() {
                    writer.dirty_since = Some(self.home.env.clock.monotonic());
                }
            }
            Err(_) => self.state.store(FAILED, Ordering::Release),
        }
        let listeners = mem::take(&mut writer.listeners);
        drop(writer);
        *self.syncing.lock() = false;
        self.synced.ring();
        notify(listeners);
        self.run_callbacks();
    }

    /// Old segments first, then the name of the new one, then the new one: a prefix is durable at every moment.
    fn sync_files(
        &self,
        mut sealed: Vec<Sealed>,
        unnamed: bool,
        active: Option<(Arc<dyn File>, PathBuf)>,
    ) -> Result<()> {
        for old in &sealed {
            old.file.sync().map_err(Error::io("sync", &old.path))?;
        }
        if unnamed {
            let dir = &self.home.dir;
            self.home.env.storage.sync_dir(dir).map_err(Error::io("sync", self.home.full(dir)))?;
            for old in &mut sealed {
                self.mark_rolled(old);
                old.file.sync().map_err(Error::io("sync", &old.path))?;
            }
        }
        match active {
            Some((file, path)) => file.sync().map_err(Error::io("sync", path)),
            None => Ok(()),
        }
    }

    /// Says at the end of a rolled segment that its successor has its name.
    fn mark_rolled(&self, old: &mut Sealed) {
        let stamp = Stamp {
            base: old.next,
            durable_end: old.next,
            epoch: self.epoch.load(Ordering::Relaxed),
            salt: old.salt,
            timestamp_type: TimestampType::Create,
        };
        let position = old.pen.region().written();
        put_marker(&mut old.pen, position, &stamp, &self.home.env, Marker::Rolled);
    }

    /// Writes a marker that says that all is durable, if all is and nothing says so, and syncs it.
    fn mark(&self, marker: Marker) -> Result<()> {
        let mut writer = self.writer.lock();
        if writer.witnessed || self.durable_end() < writer.next || writer.active.is_none() {
            return Ok(());
        }
        let position = writer.position;
        if position + MARKER_ROOM > writer.valid {
            // Only where a marker was written before and cut since: the room that is left is for the roll.
            return Ok(());
        }
        let stamp = self.stamp(&writer, writer.next);
        let active = writer.active.as_mut().expect("looked at above");
        put_marker(&mut active.pen, position, &stamp, &self.home.env, marker);
        let (file, path) = (Arc::clone(&active.file), active.segment.path().to_path_buf());
        writer.position += MARKER_BYTES as u64;
        writer.witnessed = true;
        drop(writer);
        file.sync().map_err(|source| {
            self.state.store(FAILED, Ordering::Release);
            Error::Io { action: "sync", path, source }
        })
    }

    /// Does what the time has come for: the sync that nobody waits for, the marker of an idle partition.
    pub(crate) fn look(&self) -> Look {
        let now = self.home.env.clock.monotonic();
        let mut writer = self.writer.lock();
        if self.state.load(Ordering::Acquire) != OPEN {
            writer.looked_after = false;
            return Look::Done;
        }
        if writer.durability == Durability::Os {
            return self.look_at_rolled(writer);
        }
        if let Some(since) = writer.dirty_since {
            let delay = match writer.durability {
                Durability::Interval { every, .. } => every,
                _ => SYNC_DELAY,
            };
            if since.saturating_add(delay) > now {
                return Look::At(since.saturating_add(delay));
            }
            let target = writer.next;
            drop(writer);
            // A failure is remembered by the partition, and told to all who wait or send.
            drop(self.sync_to(target, None));
            return Look::At(now.saturating_add(SYNC_DELAY));
        }
        if writer.witnessed {
            writer.looked_after = false;
            return Look::Done;
        }
        let (end, since) = writer.quiet;
        if end != writer.next {
            writer.quiet = (writer.next, now);
            return Look::At(now.saturating_add(IDLE_DELAY));
        }
        if since.saturating_add(IDLE_DELAY) > now {
            return Look::At(since.saturating_add(IDLE_DELAY));
        }
        writer.looked_after = false;
        drop(writer);
        drop(self.mark(Marker::Synced));
        Look::Done
    }

    /// Syncs the segments that were rolled in a topic that nobody syncs, so that their files need not be kept open.
    /// Kafka flushes a segment after its roll, too.
    fn look_at_rolled(&self, mut writer: MutexGuard<'_, Writer>) -> Look {
        writer.looked_after = false;
        let rolled = !writer.sealed.is_empty();
        drop(writer);
        if rolled && !mem::replace(&mut *self.syncing.lock(), true) {
            self.lead_sync(false);
        }
        Look::Done
    }

    /// Syncs everything, says so at the end of the log, takes no more appends, and lets go of the files.
    pub(crate) fn close(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == CLOSED {
            return Ok(());
        }
        // Whoever appends between the sync and the marker finds the log not closed cleanly, and loses nothing.
        let result = self.check_not_failed();
        let result = result.and_then(|()| self.sync_to(self.log_end(), None)).and_then(|()| self.mark(Marker::Closed));
        self.abandon();
        result
    }

    /// Takes no more appends, syncs nothing, lets go of the files.
    pub(crate) fn abandon(&self) {
        let mut writer = self.writer.lock();
        // A failure stays one: whoever waits for a delivery is told that it is in doubt.
        let state = self.state.compare_exchange(OPEN, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        debug_assert!(state != Err(CLOSED) || writer.active.is_none(), "a closed partition has let go of its files");
        writer.active = None;
        writer.sealed.clear();
        let listeners = mem::take(&mut writer.listeners);
        drop(writer);
        notify(listeners);
        self.synced.ring();
        self.run_callbacks();
    }

    /// Whether everything below `next` is delivered; waits for it up to `timeout`.
    pub(crate) fn deliver(&self, next: Offset, timeout: Option<Duration>) -> Result<()> {
        self.home.env.check_not_forked()?;
        if self.high_watermark() >= next { Ok(()) } else { self.sync_to(next, timeout) }
    }

    /// Whether everything below `next` is delivered: `None` if not yet, and then `listener` is told of the next change.
    pub(crate) fn poll_delivered(&self, next: Offset, listener: Listener) -> Option<Result<()>> {
        if let Err(error) = self.home.env.check_not_forked() {
            return Some(Err(error));
        }
        let mut writer = self.writer.lock();
        if self.high_watermark() >= next {
            return Some(Ok(()));
        }
        if let Err(error) = self.check_open() {
            return Some(Err(error));
        }
        writer.listeners.push(listener);
        None
    }

    /// Whether there is something to read at `position`; if not, `bell` rings when that changes.
    pub(crate) fn listen(&self, position: Offset, bell: &Arc<Bell>) -> bool {
        let mut writer = self.writer.lock();
        if self.high_watermark() > position {
            return true;
        }
        let known =
            writer.listeners.iter().any(|other| matches!(other, Listener::Bell(other) if Arc::ptr_eq(other, bell)));
        if !known {
            writer.listeners.push(Listener::Bell(Arc::clone(bell)));
        }
        false
    }

    /// Forgets a bell: nobody waits for it any more.
    pub(crate) fn unlisten(&self, bell: &Arc<Bell>) {
        let mut writer = self.writer.lock();
        writer.listeners.retain(|other| !matches!(other, Listener::Bell(other) if Arc::ptr_eq(other, bell)));
    }
}

fn put_marker(pen: &mut Pen, position: u64, stamp: &Stamp, env: &Env, marker: Marker) {
    let end = position + MARKER_BYTES as u64;
    let word = batch::encode_marker(pen.spare(position..end), stamp, env.clock.now(), marker);
    pen.publish(position, word, end);
}

fn notify(listeners: Vec<Listener>) {
    for listener in listeners {
        match listener {
            Listener::Bell(bell) => bell.ring(),
            Listener::Waker(waker) => waker.wake(),
        }
    }
}

/// Callbacks of deliveries, run in the order of their offsets, by one thread at a time and without any lock.
#[derive(Default)]
struct Callbacks {
    waiting: Mutex<VecDeque<(Offset, Callback)>>,
    any: AtomicBool,
    turn: Mutex<()>,
}

impl Callbacks {
    fn push(&self, offset: Offset, callback: Callback) {
        let mut waiting = self.waiting.lock();
        waiting.push_back((offset, callback));
        self.any.store(true, Ordering::Release);
    }

    #[inline]
    fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Runs those that `outcome` has a result for. It is asked again for each, so that whoever finds the turn taken can
    /// leave its news to the one who has it.
    fn run(&self, outcome: impl Fn(Offset) -> Option<Result<()>>) {
        while !self.is_empty() {
            fence(Ordering::SeqCst);
            let Some(turn) = self.turn.try_lock() else { return };
            while let Some((offset, callback, result)) = self.take(&outcome) {
                // A callback that panics takes nobody with it: its record is written, the panic hook has told of it.
                drop(panic::catch_unwind(AssertUnwindSafe(|| callback(offset, result))));
            }
            drop(turn);
            fence(Ordering::SeqCst);
            // Somebody may have been turned away between the last look and giving up the turn.
            if self.waiting.lock().front().is_none_or(|(offset, _)| outcome(*offset).is_none()) {
                return;
            }
        }
    }

    fn take(&self, outcome: &impl Fn(Offset) -> Option<Result<()>>) -> Option<(Offset, Callback, Result<()>)> {
        let mut waiting = self.waiting.lock();
        let result = outcome(waiting.front()?.0)?;
        let (offset, callback) = waiting.pop_front()?;
        self.any.store(!waiting.is_empty(), Ordering::Release);
        Some((offset, callback, result))
    }
}

/// A run of records in one segment, which it keeps mapped: what a read returns.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    segment: Arc<Segment>,
    positions: Range<u64>,
    pub(crate) offsets: Range<Offset>,
    pub(crate) count: usize,
}

impl Chunk {
    /// Its records, in order.
    #[inline]
    pub(crate) fn records(&self) -> ChunkRecords<'_> {
        let bytes = self.segment.region().slice(self.positions.clone());
        ChunkRecords { bytes, batch: batch::Records::default(), offsets: self.offsets.clone() }
    }
}

/// The records of a chunk, decoded one by one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkRecords<'a> {
    /// The batches behind the one that is being read.
    bytes: &'a [u8],
    batch: batch::Records<'a>,
    offsets: Range<Offset>,
}

impl ChunkRecords<'_> {
    /// Goes on with the next batch; whether there is one.
    #[inline]
    fn enter_next(&mut self) -> bool {
        let Ok(Some(batch)) = batch::Batch::at(self.bytes) else { return false };
        self.bytes = &self.bytes[batch.length() as usize..];
        self.batch = batch.records();
        true
    }
}

impl<'a> Iterator for ChunkRecords<'a> {
    type Item = batch::RecordView<'a>;

    #[inline]
    fn next(&mut self) -> Option<batch::RecordView<'a>> {
        loop {
            match self.batch.next() {
                // The chunk begins in the middle of a batch.
                Some(record) if record.offset < self.offsets.start => {}
                Some(record) if record.offset < self.offsets.end => return Some(record),
                Some(_) => return None,
                None => {
                    if !self.enter_next() {
                        return None;
                    }
                }
            }
        }
    }
}

/// Where a reader is, so that it need not search again.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    segment: Arc<Segment>,
    position: u64,
    offset: Offset,
}

/// Reading.
impl Partition {
    /// The records from `offset` on, at most `most` of them, at least one if there is one; `None` at the end.
    ///
    /// `cursor` is where the last read ended, if there was one; it is moved to where this one ends.
    pub(crate) fn read(&self, cursor: &mut Option<Cursor>, offset: Offset, most: usize) -> Result<Option<Chunk>> {
        let (start, end) = (self.log_start(), self.high_watermark());
        if offset == end {
            return Ok(None);
        }
        if offset < start || offset > end {
            let partition = self.home.partition.clone();
            return Err(Error::OffsetOutOfRange { partition, requested: offset, start, end });
        }
        let mut at = match cursor.take() {
            Some(cursor) if cursor.offset == offset => cursor,
            _ => self.seek(offset)?,
        };
        loop {
            if let Some(chunk) = self.read_here(&mut at, end, most)? {
                *cursor = Some(at);
                return Ok(Some(chunk));
            }
            if at.offset >= end {
                return Ok(None);
            }
            // This segment ends before the high watermark, so it has a successor.
            at = self.enter(&self.slot_after(at.segment.base(), at.offset)?, at.offset)?;
        }
    }

    /// Records of the cursor's segment.
    fn read_here(&self, at: &mut Cursor, end: Offset, most: usize) -> Result<Option<Chunk>> {
        let first = at.offset;
        let (mut start, mut position) = (at.position, at.position);
        let (mut next, mut count) = (first, 0);
        let mut chunk_end = start;
        while count < most && next < end {
            let batch = match at.segment.batch_at(position) {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(_) if next > first => break,
                Err(Obstacle::Hole(hole)) if hole.next <= next => {
                    // Behind the reader, or a marker: no offset is lost by it, and the chunk begins behind it.
                    (start, position) = (hole.end, hole.end);
                    continue;
                }
                Err(obstacle) => return Err(self.obstructed(&at.segment, obstacle)),
            };
            let behind = position + batch.length();
            if batch.next() <= next {
                // A marker, or a batch that the reader has behind it.
                position = behind;
                continue;
            }
            if batch.base() >= end {
                break;
            }
            chunk_end = behind;
            let inside = self.count_from(&batch, next, most - count);
            count += inside.0;
            next = inside.1;
            if next >= batch.next() {
                position = behind;
            }
        }
        at.position = position;
        at.offset = next;
        if next == first {
            return Ok(None);
        }
        let segment = Arc::clone(&at.segment);
        Ok(Some(Chunk { segment, positions: start..chunk_end, offsets: first..next, count }))
    }

    /// How many records of `batch` a reader at `from` takes, and where it is then.
    #[inline]
    fn count_from(&self, batch: &batch::Batch<'_>, from: Offset, most: usize) -> (usize, Offset) {
        let count = batch.count() as usize;
        if from <= batch.base() && count <= most {
            return (count, batch.next());
        }
        let mut taken = 0;
        for record in batch.records().filter(|record| record.offset >= from) {
            if taken == most {
                return (taken, record.offset);
            }
            taken += 1;
        }
        (taken, batch.next())
    }

    fn obstructed(&self, segment: &Segment, obstacle: Obstacle) -> Error {
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

    fn seek(&self, offset: Offset) -> Result<Cursor> {
        let slot = {
            let slots = self.slots.read();
            let behind = slots.partition_point(|slot| slot.base <= offset);
            behind.checked_sub(1).map(|at| Arc::clone(&slots[at]))
        };
        let Some(slot) = slot else {
            let first = self.slots.read().first().map_or(self.log_end(), |slot| slot.base);
            return Err(Error::Corrupt(Box::new(self.missing(offset..first))));
        };
        match slot.next() {
            // The segment that held the offset is gone.
            Some(next) if offset >= next => self.enter(&self.slot_after(slot.base, offset)?, offset),
            _ => self.enter(&slot, offset),
        }
    }

    /// The segment behind the one with this base, if it holds `offset` or the reader may go on with it.
    fn slot_after(&self, base: Offset, offset: Offset) -> Result<Arc<Slot>> {
        let slots = self.slots.read();
        let behind = slots.partition_point(|slot| slot.base <= base);
        match slots.get(behind) {
            Some(slot) if slot.base <= offset => Ok(Arc::clone(slot)),
            Some(slot) => Err(Error::Corrupt(Box::new(self.missing(offset..slot.base)))),
            None => Err(Error::Corrupt(Box::new(self.missing(offset..self.log_end())))),
        }
    }

    /// The damage that these offsets are gone with their file.
    pub(crate) fn missing(&self, offsets: Range<Offset>) -> Damage {
        let name = crate::format::segment::file_name(offsets.start);
        Damage {
            partition: Some(self.home.partition.clone()),
            path: self.home.full(&self.home.dir.join(name)),
            offsets,
            position: 0,
            flaw: Flaw::Missing,
        }
    }

    fn enter(&self, slot: &Arc<Slot>, offset: Offset) -> Result<Cursor> {
        match slot.get(&*self.home.env.storage)? {
            Found::Segment(segment) => {
                let position = segment.find(offset).map_err(|obstacle| self.obstructed(&segment, obstacle))?;
                Ok(Cursor { segment, position, offset })
            }
            Found::Broken(flaw) => Err(Error::Corrupt(Box::new(Damage {
                partition: Some(self.home.partition.clone()),
                offsets: slot.base..slot.next().unwrap_or(slot.base),
                path: self.home.full(&slot.path),
                position: 0,
                flaw,
            }))),
        }
    }

    /// How many segments there are, and how many bytes of the disk they take.
    pub(crate) fn space(&self) -> (usize, u64) {
        let slots = self.slots.read();
        let length = |slot: &Arc<Slot>| {
            let file = self.home.env.storage.open(&slot.path, Access::Read).ok()?;
            file.len().ok()
        };
        (slots.len(), slots.iter().filter_map(length).sum())
    }
}

/// Following a partition that another process writes.
impl Partition {
    /// Looks how far the other process has come. Only for a partition that was opened read-only.
    ///
    /// The next segment is looked for under the name that follows from the last offset; `thoroughly`: under any name,
    /// which costs a listing, and finds the one that was begun behind damage.
    pub(crate) fn follow(&self, thoroughly: bool) -> Result<()> {
        let mut writer = self.writer.lock();
        loop {
            self.follow_active(&mut writer)?;
            if !self.has_rolled(&writer, thoroughly)? {
                break;
            }
            // Whoever began the next segment appended to this one before: now all of it is there.
            self.follow_active(&mut writer)?;
            self.follow_roll(&mut writer)?;
        }
        let end = writer.next;
        self.log_end.store(end.get(), Ordering::Release);
        let durable = self.durable_end().min(end);
        let visible = if writer.durability == Durability::Sync { durable } else { end };
        self.high_watermark.fetch_max(visible.get(), Ordering::AcqRel);
        Ok(())
    }

    /// Walks over the batches that were published since the last look.
    fn follow_active(&self, writer: &mut Writer) -> Result<()> {
        let Some(active) = &mut writer.active else { return Ok(()) };
        let length = active.file.len().map_err(Error::io("measure", active.segment.path()))?;
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
            active.segment.note(batch.base(), position);
            self.durable_end.fetch_max(batch.durable_end().get(), Ordering::AcqRel);
            active.pen.adopt(end);
            writer.next = walk.due;
        }
        active.walk = walk;
        Ok(())
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

    /// Goes on with the newest segment that the other process has begun.
    fn follow_roll(&self, writer: &mut Writer) -> Result<()> {
        let fresh = recovery::recover(&self.home, Access::Read, Known::default())?;
        let mut slots = self.slots.write();
        let base = slots.last().map(|slot| slot.base);
        let first = fresh.slots.iter().find(|slot| Some(slot.base) > base);
        // One that was damaged is sealed already.
        if let (Some(old), Some(first), Some(active)) = (slots.last(), first, &writer.active) {
            old.seal(first.base, active.walk.position);
        }
        slots.extend(fresh.slots.into_iter().filter(|slot| Some(slot.base) > base));
        writer.active = fresh.active;
        writer.next = fresh.next;
        self.durable_end.fetch_max(fresh.witness.min(fresh.next).get(), Ordering::AcqRel);
        Ok(())
    }
}
