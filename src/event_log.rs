//! The front room: open a directory, and everything else follows from there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::administration::{self, GroupDescription, GroupsBeyond, OffsetChange, ResetTo, Truncated};
use crate::catalog::{Catalog, RecoveryReport};
use crate::compactor::{Compacted, CompactionProgress, CompactionReport, Compactor};
use crate::config::{ConsumerConfig, LogConfig, ProducerConfig, TopicConfig};
use crate::consumer::Consumer;
use crate::copies::{self, Copied, Kin};
use crate::env::Env;
use crate::env::scheduling::Worker;
use crate::error::{Error, Result};
use crate::group::{Group, Groups};
use crate::inspect::Progress;
use crate::partition::Upkeep;
use crate::producer::{Lifeline, Producer};
use crate::retainer::{Removed, Retainer, RetentionReport};
use crate::space::{self, SpaceUse};
use crate::table_view::TableView;
use crate::types::{Offset, TopicPartition};
use crate::upkeep::{Keeper, Retain, Ward};

/// An event log in a directory. Cheap to clone: clones are the same log.
///
/// One `EventLog` may be open for writing per directory, in all processes together; any number may read beside it
/// ([`open_read_only`](Self::open_read_only)). The log stays open as long as any clone of it, any producer or any
/// consumer lives; when the last one is dropped, it is closed cleanly. A child that this process forks has none of
/// it: there every call fails with [`Forked`](Error::Forked) or finds nothing, and dropping does nothing.
///
/// ```
/// # fn main() -> tidelog::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path();
/// use tidelog::{EventLog, ProducerRecord, TopicConfig};
///
/// let log = EventLog::open(path)?;
/// log.create_topic("orders", TopicConfig::new().partitions(3))?;
/// log.producer().send(ProducerRecord::new("orders", b"paid 12.50").key(b"user-7"))?.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventLog({})", self.path().display())
    }
}

struct Shared {
    catalog: Arc<Catalog>,
    groups: Arc<Groups>,
    retainer: Arc<Retainer>,
    compactor: Arc<Compactor>,
    keeper: Arc<Keeper>,
    worker: Mutex<Option<Box<dyn Worker>>>,
    report: RecoveryReport,
    producers: AtomicU64,
    /// Removed after everything else has gone.
    #[cfg(feature = "tempfile")]
    directory: Option<tempfile::TempDir>,
}

impl Shared {
    /// Whether this is a child of the process that opened the log.
    fn is_forked(&self) -> bool {
        self.catalog.env().check_not_forked().is_err()
    }

    /// Stops the worker, syncs and closes everything, lets go of the lock.
    fn close(&self) -> Result<()> {
        self.catalog.env().check_not_forked()?;
        self.keeper.stop();
        if let Some(mut worker) = self.worker.lock().take() {
            worker.join();
        }
        self.compactor.stop();
        let result = self.catalog.close(&self.groups.partitions());
        self.keeper.clear();
        result
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // There is nobody to tell; whoever wants to know calls `close`.
        drop(self.close());
        #[cfg(feature = "tempfile")]
        if self.is_forked() {
            // The directory is the parent's.
            std::mem::forget(self.directory.take());
        }
    }
}

/// Opening and closing.
impl EventLog {
    /// Opens the log in a directory, which is created if it is missing, for writing.
    ///
    /// What was accepted before is there, however the last process ended; what that took is told by
    /// [`recovery_report`](Self::recovery_report).
    ///
    /// # Errors
    ///
    /// [`Locked`](Error::Locked) if somebody has it open for writing, in this process or another; [`Io`](Error::Io).
    /// Damaged data is no error here: it is in the report, and whoever reads it meets
    /// [`Corrupt`](Error::Corrupt).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, LogConfig::new())
    }

    /// [`open`](Self::open) with settings.
    ///
    /// # Errors
    ///
    /// Also [`InvalidConfig`](Error::InvalidConfig), and [`NotALog`](Error::NotALog) if there is none and
    /// [`create`](LogConfig::create) is off.
    pub fn open_with(path: impl AsRef<Path>, config: LogConfig) -> Result<Self> {
        let env = Env::real(path.as_ref(), config.create)?;
        Self::open_in(env, config)
    }

    /// Opens the log in a directory for reading only. Takes no lock and changes nothing, so another process may have it
    /// open for writing; what that appends becomes visible as it comes, in a `Sync` topic once it is proven to be
    /// durable.
    ///
    /// Of a log whose catalog is damaged it reads what the directories of the topics say, and
    /// [`recovery_report`](Self::recovery_report) tells so.
    ///
    /// # Errors
    ///
    /// [`NotALog`](Error::NotALog), [`Io`](Error::Io); [`Corrupt`](Error::Corrupt) if not even the directory of the
    /// catalog is left, or no file says which log this is: then an opening for writing makes a new one.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_read_only_in(Env::real(path.as_ref(), false)?)
    }

    pub(crate) fn open_read_only_in(env: Env) -> Result<Self> {
        let keeper = Arc::new(Keeper::new(env.clone()));
        let upkeep: Arc<dyn Upkeep> = Arc::clone(&keeper) as _;
        let (catalog, report) = Catalog::open_read_only(env, upkeep)?;
        Self::assemble(catalog, report, keeper)
    }

    /// Opens a new log in a directory that is removed when the log is closed: for tests.
    ///
    /// # Errors
    ///
    /// [`Io`](Error::Io).
    #[cfg(feature = "tempfile")]
    pub fn temporary() -> Result<Self> {
        let directory = tempfile::tempdir().map_err(Error::io("create", std::env::temp_dir))?;
        let mut log = Self::open(directory.path())?;
        Arc::get_mut(&mut log.shared).expect("nobody else has it yet").directory = Some(directory);
        Ok(log)
    }

    pub(crate) fn open_in(mut env: Env, config: LogConfig) -> Result<Self> {
        env.copy_reads = config.copy_reads;
        let background = config.background;
        let keeper = Arc::new(Keeper::new(env.clone()));
        let upkeep: Arc<dyn Upkeep> = Arc::clone(&keeper) as _;
        let opened = Catalog::open(env, config, upkeep);
        let opened = opened.and_then(|(catalog, report)| Self::assemble(catalog, report, Arc::clone(&keeper)));
        let log = opened.inspect_err(|_| keeper.clear())?;
        if background {
            *log.shared.worker.lock() = Some(log.shared.keeper.start()?);
        }
        Ok(log)
    }

    fn assemble(catalog: Catalog, mut report: RecoveryReport, keeper: Arc<Keeper>) -> Result<Self> {
        let catalog = Arc::new(catalog);
        let groups = Groups::open(Arc::clone(&catalog), Arc::clone(&keeper), &mut report)?;
        let interval = catalog.config().retention_interval;
        let retainer = Arc::new(Retainer::new(Arc::clone(&catalog), Arc::clone(&groups), interval));
        let retain: Weak<dyn Retain> = Arc::downgrade(&(Arc::clone(&retainer) as Arc<dyn Retain>));
        keeper.adopt_retainer(retain);
        let compactor = Arc::new(Compactor::new(Arc::clone(&catalog)));
        let ward: Weak<dyn Ward> = Arc::downgrade(&(Arc::clone(&compactor) as Arc<dyn Ward>));
        keeper.adopt_compactor(ward);
        let shared = Shared {
            catalog,
            groups,
            retainer,
            compactor,
            keeper,
            worker: Mutex::new(None),
            report,
            producers: AtomicU64::new(0),
            #[cfg(feature = "tempfile")]
            directory: None,
        };
        Ok(EventLog { shared: Arc::new(shared) })
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.shared.catalog.env().storage.root().to_path_buf()
    }

    /// What opening the log found and did.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.shared.report
    }

    /// Syncs everything, closes the log and lets go of the directory, whatever clones, producers and consumers
    /// there still are: to them it is [`Closed`](Error::Closed). What was polled stays readable.
    ///
    /// # Errors
    ///
    /// The first of what syncing met. The log is closed in any case; the next opening says what is left.
    pub fn close(self) -> Result<()> {
        self.shared.close()
    }

    /// What a process leaves that dies: nothing is synced, nothing closed.
    #[cfg(feature = "sim")]
    pub(crate) fn abandon(self) {
        self.shared.catalog.abandon();
    }

    /// Does what is due now: syncs of topics with an interval, syncs that nobody waits for, markers of idle partitions,
    /// every [`retention_interval`](LogConfig::retention_interval) retention, and a step of a compaction, if one runs or
    /// is to begin ([`compaction_interval`](LogConfig::compaction_interval)).
    /// Returns after how long something is due next; `None`: nothing. Something that is sent, or awaited with
    /// [`poll_async`](Consumer::poll_async), may be due earlier than this said before.
    ///
    /// The background worker does this; without it ([`LogConfig::background`]) it is for the caller to do.
    pub fn maintain(&self) -> Option<Duration> {
        if self.shared.is_forked() {
            return None;
        }
        let due = self.shared.keeper.maintain()?;
        Some(due.saturating_sub(self.shared.catalog.env().clock.monotonic()))
    }
}

/// How often a copy is begun of a log that another process changes meanwhile.
const COPY_ATTEMPTS: u32 = 5;

/// Copies.
impl EventLog {
    /// Makes a fork of the log: a directory of its own, that is opened as any log and from then on goes its own way. It takes
    /// as long as giving each sealed segment a second name and copying the one that is appended to, however many records
    /// there are: sealed segments are shared, as nobody writes to them. For tests on real data, experiments, and a way back
    /// before something that may go wrong.
    ///
    /// It holds what topics and groups were at one moment. What is accepted is in it, also what no power cut would have
    /// left; when this returns, it is durable. Until it is complete its name ends in `.unfinished`.
    ///
    /// A log that was opened [read-only](Self::open_read_only) can be forked too, also beside a process that writes it; then
    /// each partition is as of a moment of its own, later than that of the groups, so that none is beyond an end.
    ///
    /// The fork is the same log by the identity that stands in its files: a segment that is put from the one into the other
    /// is not told apart. Bit rot in a file that both share is in both; a [`backup`](Self::backup) shares nothing. While
    /// it is made, topics and groups are not deleted and partitions not truncated
    /// ([`InvalidState`](Error::InvalidState)), and what retention removes keeps its room.
    ///
    /// ```
    /// # fn main() -> tidelog::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (path, copy) = (directory.path().join("data"), directory.path().join("experiment"));
    /// use tidelog::{EventLog, ProducerRecord, TopicConfig};
    ///
    /// let log = EventLog::open(&path)?;
    /// log.create_topic("orders", TopicConfig::new())?;
    /// log.producer().send(ProducerRecord::new("orders", "paid 12.50"))?;
    /// log.fork(&copy)?;
    /// let experiment = EventLog::open(&copy)?;
    /// experiment.producer().send(ProducerRecord::new("orders", "paid twice"))?;
    /// assert_eq!(experiment.describe_topic("orders")?.partitions[0].log_end.get(), 2);
    /// assert_eq!(log.describe_topic("orders")?.partitions[0].log_end.get(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Io`](Error::Io) if there is something in the place of the directory already, or it does not lie on the file system
    /// of the log, or that does not know hard links; [`NoSpace`](Error::NoSpace), [`SyncFailed`](Error::SyncFailed),
    /// [`Closed`](Error::Closed); [`Locked`](Error::Locked) if somebody else is just making it;
    /// [`InvalidState`](Error::InvalidState) if another process has changed the log too often meanwhile.
    pub fn fork(&self, path: impl AsRef<Path>) -> Result<Copied> {
        self.copy(path.as_ref(), &Kin::Fork, &mut |_| {})
    }

    /// Makes a backup of the log: a directory of its own, on any file system, that shares nothing with it. To restore it is to
    /// open it, or a copy of it; [`inspect::verify`](fn@crate::inspect::verify) says whether it is sound.
    ///
    /// It is made as a [`fork`](Self::fork) is, and holds the same; senders and readers go on meanwhile. `progress` is called
    /// about once per mebibyte.
    ///
    /// `previous`: the directory of an earlier backup, on the same file system as this one. Sealed segments that are the same
    /// there, byte for byte, are not written again but shared between the two; either can be removed without the other. They
    /// are read, though, here and there.
    ///
    /// # Errors
    ///
    /// As [`fork`](Self::fork), but for what links need; [`NotALog`](Error::NotALog) if there is no previous one.
    pub fn backup(
        &self,
        path: impl AsRef<Path>,
        previous: Option<&Path>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Copied> {
        self.copy(path.as_ref(), &Kin::Backup(previous), &mut progress)
    }

    fn copy(&self, path: &Path, kin: &Kin<'_>, progress: &mut dyn FnMut(Progress)) -> Result<Copied> {
        self.shared.catalog.check_open()?;
        for _ in 0..COPY_ATTEMPTS {
            let Shared { catalog, groups, .. } = &*self.shared;
            let copied = if catalog.is_read_only() {
                // What has come since this one was opened is found by one that is opened now.
                let fresh = Self::open_read_only_in(catalog.env().clone())?;
                copies::copy(&fresh.shared.catalog, &fresh.shared.groups, path, kin, progress)?
            } else {
                copies::copy(catalog, groups, path, kin, progress)?
            };
            if let Some(copied) = copied {
                return Ok(copied);
            }
        }
        let reason =
            format!("the log was changed by its writer in each of {COPY_ATTEMPTS} attempts to copy it; try again");
        Err(Error::InvalidState { reason })
    }
}

/// Producing and consuming.
impl EventLog {
    /// A producer that sends by key, and without key sticky.
    pub fn producer(&self) -> Producer {
        self.producer_with(ProducerConfig::new())
    }

    /// A producer with settings.
    pub fn producer_with(&self, config: ProducerConfig) -> Producer {
        let number = self.shared.producers.fetch_add(1, Ordering::Relaxed);
        let seed = self.shared.catalog.env().seed.rotate_left(32) ^ number;
        Producer::new(Arc::clone(&self.shared.catalog), config, seed, self.lifeline())
    }

    /// A consumer.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](Error::InvalidConfig), [`InvalidGroup`](Error::InvalidGroup), [`Closed`](Error::Closed).
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer> {
        Consumer::new(Arc::clone(&self.shared.catalog), &self.shared.groups, config, self.lifeline())
    }

    /// The latest value of each key of a topic, as a table in memory. See [`TableView`].
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](crate::Error::UnknownTopic), and what reading can meet; see [`TableView::refresh`].
    pub fn table_view(&self, topic: &str) -> Result<TableView> {
        self.shared.catalog.env().check_not_forked()?;
        self.follow();
        TableView::new(Arc::clone(&self.shared.catalog), topic, self.lifeline())
    }

    fn lifeline(&self) -> Lifeline {
        Arc::clone(&self.shared) as Lifeline
    }
}

/// Topics.
impl EventLog {
    /// Creates a topic. Once this has returned, the topic survives a power cut.
    ///
    /// # Errors
    ///
    /// [`TopicExists`](Error::TopicExists), [`InvalidTopic`](Error::InvalidTopic),
    /// [`InvalidPartitions`](Error::InvalidPartitions), [`InvalidConfig`](Error::InvalidConfig),
    /// [`NoSpace`](Error::NoSpace), [`Io`](Error::Io), [`ReadOnly`](Error::ReadOnly), [`Closed`](Error::Closed).
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<()> {
        self.shared.catalog.create(name, config)?;
        self.shared.keeper.hurry();
        Ok(())
    }

    /// The names of all topics, sorted.
    pub fn list_topics(&self) -> Vec<String> {
        if self.shared.is_forked() {
            return Vec::new();
        }
        self.follow();
        self.shared.catalog.topics().iter().map(|topic| topic.name().to_string()).collect()
    }

    /// What there is to know of a topic.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic).
    pub fn describe_topic(&self, name: &str) -> Result<TopicDescription> {
        self.follow();
        let topic = self.shared.catalog.topic(name)?;
        let describe = |partition: &Arc<crate::partition::Partition>| {
            let (segments, bytes) = partition.space();
            let (clean_end, dirty_bytes) = partition.clean_end();
            PartitionDescription {
                partition: partition.name().partition(),
                log_start: partition.log_start(),
                durable_end: partition.durable_end(),
                high_watermark: partition.high_watermark(),
                log_end: partition.log_end(),
                segments,
                bytes,
                clean_end,
                dirty_bytes,
            }
        };
        let partitions = topic.partitions().iter().map(describe).collect();
        Ok(TopicDescription { name: name.to_owned(), config: topic.config(), partitions })
    }

    /// Deletes a topic, its records and what groups have committed for it. What was polled stays readable.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic), [`Io`](Error::Io): then the deletion is finished by the next opening;
    /// [`InvalidState`](Error::InvalidState) while a [`fork`](Self::fork) or [`backup`](Self::backup) is being made.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.shared.catalog.delete(name)
    }

    /// Gives a topic more partitions, so that there are `total`. Records of a key go to another partition from then
    /// on; those that were sent before stay where they are.
    ///
    /// # Errors
    ///
    /// [`InvalidPartitions`](Error::InvalidPartitions) if there are as many already, or more;
    /// [`UnknownTopic`](Error::UnknownTopic), [`NoSpace`](Error::NoSpace), [`Io`](Error::Io).
    pub fn add_partitions(&self, name: &str, total: u32) -> Result<()> {
        self.shared.catalog.add_partitions(name, total)
    }

    /// Changes the configuration of a topic, all but its partitions. Start from
    /// [`describe_topic`](Self::describe_topic)`.config`. What is there already stays as it is: segments keep their
    /// size, and a topic that becomes `Sync` takes back nothing that consumers have seen.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic), [`InvalidConfig`](Error::InvalidConfig),
    /// [`InvalidPartitions`](Error::InvalidPartitions) if it names another number of partitions.
    pub fn alter_topic(&self, name: &str, config: TopicConfig) -> Result<()> {
        self.shared.catalog.alter(name, config)?;
        // The worker may sleep as if there were nothing to keep an eye on.
        self.shared.keeper.hurry();
        Ok(())
    }

    /// Where the room on the disk is: by partition, by group, and what the log itself takes.
    ///
    /// # Errors
    ///
    /// [`Closed`](Error::Closed), [`Forked`](Error::Forked).
    pub fn space(&self) -> Result<Vec<SpaceUse>> {
        self.shared.catalog.check_open()?;
        self.follow();
        Ok(space::space(&self.shared.catalog, &self.shared.groups))
    }

    /// Removes the records of a partition below `before`; returns its log start offset, which is that, or what it was if
    /// that is more. Kafka: `deleteRecords`; its -1 is the [end](PartitionDescription::high_watermark).
    ///
    /// When it returns, they do not come back, whatever happens. Segments that hold nothing else give their room back; the
    /// rest of a segment waits for that until the log start offset passes it. Records that were polled stay readable. A group
    /// that has committed less goes on by its reset policy; see [`GroupOffset::lost`](crate::GroupOffset::lost).
    ///
    /// # Errors
    ///
    /// [`OffsetOutOfRange`](Error::OffsetOutOfRange) if `before` lies behind the high watermark;
    /// [`UnknownTopic`](Error::UnknownTopic), [`UnknownPartition`](Error::UnknownPartition),
    /// [`SyncFailed`](Error::SyncFailed), [`Io`](Error::Io), [`ReadOnly`](Error::ReadOnly), [`Closed`](Error::Closed).
    pub fn delete_records(&self, partition: &TopicPartition, before: impl Into<Offset>) -> Result<Offset> {
        self.shared.catalog.check_writable()?;
        let partition = self.shared.catalog.partition(partition)?;
        self.shared.retainer.delete(&partition, before.into())?;
        Ok(partition.log_start())
    }

    /// Cuts the tail of a partition: removes all records at or above `end`, whose offsets are given again to what is sent
    /// from then on. For undoing what should never have been sent. Kafka does this in its replicas only: `truncateTo`.
    ///
    /// When it returns, they do not come back, whatever happens. What is sent meanwhile is cut off, too, if it got its
    /// offset before. Records that were polled stay readable. A consumer that had read further goes on at `end`, or with
    /// [`OffsetReset::None`](crate::OffsetReset::None) is told [`LogTruncated`](Error::LogTruncated). No file is shortened: the
    /// segment in which `end` lies keeps its room until retention removes it.
    ///
    /// `groups`: what becomes of groups that have committed more. Look first: [`plan_truncation`](Self::plan_truncation).
    ///
    /// ```
    /// # fn main() -> tidelog::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path();
    /// use tidelog::{EventLog, GroupsBeyond, ProducerRecord, TopicConfig, TopicPartition};
    ///
    /// let log = EventLog::open(path)?;
    /// log.create_topic("orders", TopicConfig::new())?;
    /// for order in ["good", "bad", "worse"] {
    ///     log.producer().send(ProducerRecord::new("orders", order))?;
    /// }
    /// let cut = log.truncate(&TopicPartition::new("orders", 0), 1, GroupsBeyond::Refuse)?;
    /// assert_eq!(cut.offsets.end.get(), 3);
    /// let better = log.producer().send(ProducerRecord::new("orders", "better"))?.wait()?;
    /// assert_eq!(better.offset().get(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`CommittedBeyond`](Error::CommittedBeyond) if groups have committed more and are not to be pulled back;
    /// [`OffsetOutOfRange`](Error::OffsetOutOfRange) if `end` lies before the log start or behind the log end;
    /// [`InvalidState`](Error::InvalidState) if it lies between records that were sent as one batch and stay or go
    /// together; [`UnknownTopic`](Error::UnknownTopic), [`UnknownPartition`](Error::UnknownPartition),
    /// [`SyncFailed`](Error::SyncFailed), [`ReadOnly`](Error::ReadOnly), [`Closed`](Error::Closed). With
    /// [`Io`](Error::Io) it may have been decided and not finished: then the next opening does that, and until then nothing
    /// can be sent to the partition.
    pub fn truncate(
        &self,
        partition: &TopicPartition,
        end: impl Into<Offset>,
        groups: GroupsBeyond,
    ) -> Result<Truncated> {
        self.shared.catalog.check_writable()?;
        administration::truncate(&self.shared.catalog, &self.shared.groups, partition, end.into(), groups)
    }

    /// What [`truncate`](Self::truncate) would cut off, and which groups have committed more than would be left. Nothing is
    /// changed.
    ///
    /// # Errors
    ///
    /// [`OffsetOutOfRange`](Error::OffsetOutOfRange), [`InvalidState`](Error::InvalidState),
    /// [`UnknownTopic`](Error::UnknownTopic), [`UnknownPartition`](Error::UnknownPartition), [`Io`](Error::Io).
    pub fn plan_truncation(&self, partition: &TopicPartition, end: impl Into<Offset>) -> Result<Truncated> {
        self.follow();
        administration::plan_truncation(&self.shared.catalog, &self.shared.groups, partition, end.into())
    }

    /// Removes what topics no longer keep, now, whether it is due or not; returns what that was, by partition.
    ///
    /// # Errors
    ///
    /// The first that was met; all partitions are tried. [`ReadOnly`](Error::ReadOnly), [`Closed`](Error::Closed).
    pub fn apply_retention(&self) -> Result<Vec<Removed>> {
        self.shared.retainer.apply()
    }

    /// What [`apply_retention`](Self::apply_retention) would remove of a topic that kept what `config` says, which need
    /// not be its own. Nothing is removed.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic), [`InvalidConfig`](Error::InvalidConfig), [`Io`](Error::Io).
    pub fn plan_retention(&self, topic: &str, config: &TopicConfig) -> Result<Vec<Removed>> {
        self.follow();
        config.check(topic)?;
        self.shared.retainer.plan(&*self.shared.catalog.topic(topic)?, config)
    }

    /// What retention has done since the log was opened.
    pub fn retention_report(&self) -> RetentionReport {
        if self.shared.is_forked() {
            return RetentionReport::default();
        }
        self.shared.retainer.report()
    }

    /// Compacts a partition of a topic that is compacted, now, whether it is due or not; returns what that did. Begins
    /// another segment first, so that everything that was sent before is compacted. `progress` is called now and then.
    /// See [`CleanupPolicy`](crate::CleanupPolicy).
    ///
    /// Whoever sends or reads goes on meanwhile. It needs room on the disk for a copy of the largest segment. Whatever
    /// stops it, nothing is lost or half done: what was compacted so far stays so.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](Error::InvalidConfig) if the topic is not compacted; [`Corrupt`](Error::Corrupt) at what is
    /// damaged, which is not copied; [`UnknownTopic`](Error::UnknownTopic),
    /// [`UnknownPartition`](Error::UnknownPartition), [`NoSpace`](Error::NoSpace), [`SyncFailed`](Error::SyncFailed),
    /// [`Io`](Error::Io), [`ReadOnly`](Error::ReadOnly), [`Closed`](Error::Closed).
    pub fn compact(&self, partition: &TopicPartition, progress: impl FnMut(&CompactionProgress)) -> Result<Compacted> {
        self.shared.catalog.check_writable()?;
        let partition = self.shared.catalog.partition(partition)?;
        self.shared.compactor.compact(&partition, progress)
    }

    /// What compacting the sealed segments of a partition would do, also if its topic is not compacted. Nothing changes,
    /// and a log that was opened read-only can be asked too. If it would take several passes, says what the first would
    /// do.
    ///
    /// # Errors
    ///
    /// As [`compact`](Self::compact), but for the configuration.
    pub fn plan_compaction(&self, partition: &TopicPartition) -> Result<Compacted> {
        self.shared.catalog.check_open()?;
        self.follow();
        self.shared.compactor.plan(&self.shared.catalog.partition(partition)?)
    }

    /// What compaction has done since the log was opened, and what it is doing.
    pub fn compaction_report(&self) -> CompactionReport {
        if self.shared.is_forked() {
            return CompactionReport::default();
        }
        self.shared.compactor.report()
    }

    /// In a log that was opened read-only, looks for news; what cannot be read now is looked for again next time.
    fn follow(&self) {
        if self.shared.catalog.is_read_only() {
            drop(self.shared.catalog.follow());
        }
    }
}

/// Groups.
impl EventLog {
    /// The names of the groups that have committed something or have a member, sorted.
    pub fn list_groups(&self) -> Vec<String> {
        if self.shared.is_forked() {
            return Vec::new();
        }
        self.shared.groups.list().iter().map(|group| group.name().to_owned()).collect()
    }

    /// What there is to know of a group: its state, who is in it, and how far it has come in each partition.
    ///
    /// # Errors
    ///
    /// [`UnknownGroup`](Error::UnknownGroup).
    pub fn describe_group(&self, name: &str) -> Result<GroupDescription> {
        let group = self.known_group(name)?;
        Ok(administration::describe(&self.shared.catalog, &group, self.now()))
    }

    /// Moves what a group has committed for these partitions; none: for all that it has committed. Returns what is moved,
    /// and does it only if `execute`: look first. The group starts there when its consumers come. Kafka:
    /// `kafka-consumer-groups --reset-offsets`.
    ///
    /// A group that has committed nothing is begun so.
    ///
    /// # Errors
    ///
    /// [`GroupNotEmpty`](Error::GroupNotEmpty) while it has members, also static ones that may come back;
    /// [`InvalidGroup`](Error::InvalidGroup), [`UnknownTopic`](Error::UnknownTopic),
    /// [`UnknownPartition`](Error::UnknownPartition);
    /// [`NoOffsetForPartition`](Error::NoOffsetForPartition) if it is shifted where nothing is committed; what committing
    /// can meet. Nothing was moved then.
    pub fn reset_group_offsets(
        &self,
        name: &str,
        partitions: &[TopicPartition],
        to: ResetTo,
        execute: bool,
    ) -> Result<Vec<OffsetChange>> {
        self.shared.catalog.check_writable()?;
        let group = self.shared.groups.group(name)?;
        administration::reset(&self.shared.catalog, &group, self.now(), partitions, to, execute)
    }

    /// Takes away what a group has committed for these partitions: there it starts where its consumers' reset policy
    /// says. Kafka: `kafka-consumer-groups --delete-offsets`.
    ///
    /// # Errors
    ///
    /// [`UnknownGroup`](Error::UnknownGroup); [`GroupSubscribedToTopic`](Error::GroupSubscribedToTopic) if a member
    /// subscribes to one of the topics; what committing can meet. Nothing was taken away then.
    pub fn delete_group_offsets(&self, name: &str, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.catalog.check_writable()?;
        self.known_group(name)?.delete_offsets(self.now(), partitions)
    }

    /// Deletes a group: everything that it has committed. Kafka: `kafka-consumer-groups --delete`.
    ///
    /// # Errors
    ///
    /// [`UnknownGroup`](Error::UnknownGroup); [`GroupNotEmpty`](Error::GroupNotEmpty) while it has members, also static
    /// ones that may come back; [`Io`](Error::Io): then nothing is committed any more, but files are left;
    /// [`InvalidState`](Error::InvalidState) while a [`fork`](Self::fork) or [`backup`](Self::backup) is being made.
    pub fn delete_group(&self, name: &str) -> Result<()> {
        self.shared.catalog.check_writable()?;
        self.known_group(name)?.delete(self.now())
    }

    fn known_group(&self, name: &str) -> Result<Arc<Group>> {
        self.shared.catalog.env().check_not_forked()?;
        self.follow();
        self.shared.groups.known(name)
    }

    fn now(&self) -> Duration {
        self.shared.catalog.env().clock.monotonic()
    }
}

/// What there is to know of a topic.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub config: TopicConfig,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionDescription>,
}

/// What there is to know of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Its number.
    pub partition: u32,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Everything below survives a power cut.
    pub durable_end: Offset,
    /// Consumers see everything below.
    pub high_watermark: Offset,
    /// The offset that the next record gets.
    pub log_end: Offset,
    /// How many segment files there are.
    pub segments: usize,
    /// How long they are together, in bytes, with the room that is prepared for records to come.
    pub bytes: u64,
    /// Compaction has looked at everything below: there is one record of each key. The log start, if it never did.
    pub clean_end: Offset,
    /// The bytes of the segments that hold what lies behind that, without the one that is appended to.
    pub dirty_bytes: u64,
}
