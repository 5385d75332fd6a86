//! Everything that can go wrong, in one enum, because callers act on variants.
//!
//! The message is for the operator and says what to do next, the variant is for the program, `source()`
//! is for the log. Errors are the world's faults; a broken promise of the library's own is a panic.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::{Offset, Timestamp, TopicPartition};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with bytes that were read: no path, no file, because whoever opened the file adds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// The bytes end before the structure does.
    TooShort,
    /// The first eight bytes are not those of a segment of an event log.
    Magic,
    /// The file was written by a version of the format that this library does not know.
    Version(u32),
    /// The checksum does not fit the bytes.
    Checksum {
        /// The checksum that the bytes carry.
        stored: u32,
        /// The checksum that the bytes have.
        computed: u32,
    },
    /// A length field holds what no length can be.
    Length(u64),
    /// A batch does not begin at the offset that follows its predecessor's last.
    BaseOffset {
        /// The offset that the batch names.
        stored: Offset,
        /// The offset that was due.
        expected: Offset,
    },
    /// A batch is older than the one before it: bytes of an earlier life of the log.
    Epoch {
        /// The epoch that the batch names.
        stored: u32,
        /// The epoch of its predecessor.
        expected: u32,
    },
    /// Zeros where a batch was due, with bytes that are not zero behind them.
    Hole,
    /// The whole file, or its end, is missing.
    Missing,
    /// The file belongs to another log, topic, partition or place.
    Foreign,
    /// A field that must be zero, or one of a few values, holds another one.
    Field(&'static str),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::TooShort => write!(f, "the bytes end before the structure does"),
            Flaw::Magic => write!(f, "these are not the first bytes of a segment"),
            Flaw::Version(version) => write!(f, "format version {version} is not known to this library"),
            Flaw::Checksum { stored, computed } => {
                write!(f, "checksum {stored:08x} is stored, {computed:08x} was computed")
            }
            Flaw::Length(length) => write!(f, "{length} cannot be a length here"),
            Flaw::BaseOffset { stored, expected } => write!(f, "offset {stored} stands where {expected} was due"),
            Flaw::Epoch { stored, expected } => write!(f, "epoch {stored} stands behind epoch {expected}"),
            Flaw::Hole => write!(f, "zeros stand where a batch was due"),
            Flaw::Missing => write!(f, "bytes that were promised are missing"),
            Flaw::Foreign => write!(f, "the file belongs to another log, topic, partition or place"),
            Flaw::Field(field) => write!(f, "the field `{field}` holds an impossible value"),
        }
    }
}

/// Bytes that were once promised and no longer read back as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The partition, or `None` for a file of the catalog or of a group.
    pub partition: Option<TopicPartition>,
    /// The offsets that cannot be read. Seek to `offsets.end` to go on behind them.
    pub offsets: Range<Offset>,
    /// The file.
    pub path: PathBuf,
    /// The byte in the file at which the trouble begins.
    pub position: u64,
    /// What is wrong there.
    pub flaw: Flaw,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged at byte {}: {}; ", self.path.display(), self.position, self.flaw)?;
        write!(f, "offsets {}..{}", self.offsets.start, self.offsets.end)?;
        match &self.partition {
            Some(partition) => write!(f, " of {partition} cannot be read"),
            None => write!(f, " cannot be read"),
        }
    }
}

/// What went wrong. Nothing was appended by a call that failed, unless the variant says otherwise.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    Io {
        /// What was tried, as a verb: "create", "sync".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No room on the disk, or in the quota, or below the file size limit. Passes by itself once there is room.
    NoSpace {
        /// The file that was to grow.
        path: PathBuf,
        /// By how many bytes.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else holds the directory open for writing.
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if it left its number.
        holder: Option<u32>,
    },
    /// There is no event log in this directory.
    NotALog {
        /// The directory.
        path: PathBuf,
    },
    /// Promised bytes no longer read back as they were written. The consumer decides whether to seek past them.
    Corrupt(Box<Damage>),
    /// An earlier sync of this partition failed, so what the disk holds is unknown. Reopen the log to find out.
    SyncFailed {
        /// The partition; for the catalog or a group, what it is called in the directory.
        partition: TopicPartition,
    },
    /// A setting is outside its range, or contradicts another one.
    InvalidConfig {
        /// The setting.
        setting: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// No topic can have this name. Kafka: `INVALID_TOPIC_EXCEPTION`.
    InvalidTopic {
        /// The name.
        topic: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// There is a topic of this name already. Kafka: `TOPIC_ALREADY_EXISTS`.
    TopicExists {
        /// The name.
        topic: String,
    },
    /// There is no topic of this name. Kafka: `UNKNOWN_TOPIC_OR_PARTITION`.
    UnknownTopic {
        /// The name.
        topic: String,
    },
    /// The topic has no partition of this number. Kafka: `UNKNOWN_TOPIC_OR_PARTITION`.
    UnknownPartition {
        /// The partition that was asked for.
        partition: TopicPartition,
        /// How many there are.
        partitions: u32,
    },
    /// A topic cannot have so many partitions. Kafka: `INVALID_PARTITIONS`.
    InvalidPartitions {
        /// The topic.
        topic: String,
        /// The number that was asked for.
        requested: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// A record, with its overhead, is over the topic's `max_record_bytes`. Kafka: `MESSAGE_TOO_LARGE`.
    RecordTooLarge {
        /// The topic.
        topic: String,
        /// The bytes that it would take.
        bytes: u64,
        /// The most that the topic allows.
        limit: u64,
    },
    /// A record holds what no record can hold. Kafka: `INVALID_RECORD`.
    InvalidRecord {
        /// What is wrong.
        reason: String,
    },
    /// A timestamp is negative, or further from the clock than its topic allows. Kafka: `INVALID_TIMESTAMP`,
    /// `IllegalArgumentException`.
    InvalidTimestamp {
        /// The timestamp.
        timestamp: Timestamp,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// A partition has as many bytes as it may, and its topic refuses more, or had none removed in time. Passes by itself
    /// when something is removed.
    PartitionFull {
        /// The partition.
        partition: TopicPartition,
        /// The bytes of its segments.
        bytes: u64,
        /// The most that its topic allows.
        limit: u64,
    },
    /// The offset was deleted by retention, or not written yet. Kafka: `OFFSET_OUT_OF_RANGE`.
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset that was asked for.
        requested: Offset,
        /// The first offset that can be read.
        start: Offset,
        /// The offset behind the last that can be read.
        end: Offset,
    },
    /// The log was truncated below where the consumer was, and its reset policy is `None`. What it had read from `end` on is
    /// gone, and the offsets are given again. Seek to `end` to read what came instead; until the consumer seeks, it is told
    /// so by each poll. Kafka: `LogTruncationException`.
    LogTruncated {
        /// The partition.
        partition: TopicPartition,
        /// Where the consumer was.
        position: Offset,
        /// Where the log was cut.
        end: Offset,
    },
    /// Groups have committed more of a partition than would be left, and were not to be pulled back.
    CommittedBeyond {
        /// The partition.
        partition: TopicPartition,
        /// Where it was to end.
        end: Offset,
        /// The groups, and what they have committed.
        groups: Vec<(String, Offset)>,
    },
    /// No offset was committed, and the reset policy is `None`. Kafka: `NoOffsetForPartitionException`.
    NoOffsetForPartition {
        /// The partition.
        partition: TopicPartition,
    },
    /// The partition is not assigned to this consumer. Kafka: `IllegalStateException`.
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },
    /// The call does not fit what the object is doing. Kafka: `IllegalStateException`.
    InvalidState {
        /// What is wrong, and what to call first.
        reason: String,
    },
    /// The call needs a group id, or this one cannot be used. Kafka: `INVALID_GROUP_ID`.
    InvalidGroup {
        /// What is wrong.
        reason: String,
    },
    /// There is no group of this name. Kafka: `GROUP_ID_NOT_FOUND`.
    UnknownGroup {
        /// The name.
        group: String,
    },
    /// The group has members, and this can be done only while it has none. Kafka: `NON_EMPTY_GROUP`.
    GroupNotEmpty {
        /// The group.
        group: String,
        /// The ids of its members.
        members: Vec<String>,
    },
    /// A member of the group subscribes to the topic. Kafka: `GROUP_SUBSCRIBED_TO_TOPIC`.
    GroupSubscribedToTopic {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// The consumer shares no assignor with the members of the group. Kafka: `INCONSISTENT_GROUP_PROTOCOL`.
    InconsistentGroupProtocol {
        /// The group.
        group: String,
        /// What each of them can use.
        reason: String,
    },
    /// What the assignor of the group answered cannot be done, or it panicked. Each member is told so once, by its poll; by
    /// then it reads what was right of the answer, and goes on with the next poll. What was given to nobody is read by
    /// nobody until the group rebalances.
    InvalidAssignment {
        /// The group.
        group: String,
        /// The name of the assignor.
        assignor: String,
        /// The first thing that was wrong.
        reason: String,
    },
    /// The metadata of a committed offset is too long. Kafka: `OFFSET_METADATA_TOO_LARGE`.
    OffsetMetadataTooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// The commit came from a consumer that is no longer a member of its group, or no longer owns what it committed.
    /// What was committed before is as it was. Kafka: `CommitFailedException`.
    CommitFailed {
        /// The group.
        group: String,
        /// What has happened, and what to do.
        reason: String,
    },
    /// The members of the group are being assigned partitions anew; what this consumer committed may not be its own any
    /// more. Poll, and commit again what is. Kafka: `REBALANCE_IN_PROGRESS`.
    RebalanceInProgress {
        /// The group.
        group: String,
    },
    /// Another consumer has joined the group with the same instance id and taken this one's place. Kafka:
    /// `FENCED_INSTANCE_ID`.
    FencedInstanceId {
        /// The group.
        group: String,
        /// The instance id.
        instance_id: String,
    },
    /// The time given ran out before the work was done. Waiting again is possible.
    Timeout {
        /// How long it was waited.
        waited: Duration,
    },
    /// A blocked poll was woken from another thread. Kafka: `WakeupException`.
    Wakeup,
    /// The log, producer or consumer is closed.
    Closed,
    /// This process was forked from the one that opened the log. Nothing was done, here or there.
    Forked,
    /// The log was opened for reading only.
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// A key or value could not be turned into bytes. Nothing was written.
    Serialization {
        /// What the codec said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bytes of a key or value could not be turned back. Seek past the offset to go on behind it.
    Deserialization {
        /// The partition.
        partition: TopicPartition,
        /// The record.
        offset: Offset,
        /// What the codec said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a directory takes when it has no room for one more name: a block.
const NAME_BYTES: u64 = 4096;

/// The limit of the process or the system that an error of the operating system stands for.
fn limit(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::MFILE) => "; the limit is RLIMIT_NOFILE of the process",
        Some(rustix::io::Errno::NFILE) => "; the limit is fs.file-max of the system",
        Some(rustix::io::Errno::NOMEM) => "; the limit is memory, RLIMIT_AS of the process, or vm.max_map_count",
        _ => "",
    }
}

impl Error {
    /// An [`Error::Io`]; [`Error::NoSpace`] is left to those who know how much was asked for.
    pub(crate) fn io<P: Into<PathBuf>>(
        action: &'static str,
        path: impl FnOnce() -> P,
    ) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path().into(), source }
    }

    /// For making a file or directory, or giving it its name: that takes room in the directory it is in.
    pub(crate) fn making<P: Into<PathBuf>>(
        action: &'static str,
        path: impl FnOnce() -> P,
    ) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { path: path().into(), bytes: NAME_BYTES, source }
            }
            _ => Error::Io { action, path: path().into(), source },
        }
    }

    /// Whether the same call may succeed later, with nothing changed but the world. Kafka: `RetriableException`.
    pub fn is_retriable(&self) -> bool {
        matches!(
            self,
            Error::NoSpace { .. }
                | Error::PartitionFull { .. }
                | Error::Timeout { .. }
                | Error::Locked { .. }
                | Error::RebalanceInProgress { .. }
        )
    }

    /// Whether a file is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether promised bytes were found damaged.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Error::Corrupt(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}{}", path.display(), limit(source))
            }
            Error::NoSpace { path, bytes, source } => {
                write!(f, "no room for {bytes} more bytes of {}: {source}; ", path.display())?;
                write!(f, "make room and send again, the log goes on without reopening")
            }
            Error::Locked { path, holder } => {
                write!(f, "{} is open for writing ", path.display())?;
                match holder {
                    Some(pid) if *pid == std::process::id() => write!(f, "in this process (pid {pid})")?,
                    Some(pid) => write!(f, "by process {pid}")?,
                    None => write!(f, "by somebody else")?,
                }
                write!(f, "; close it there, or open this directory for reading only")
            }
            Error::NotALog { path } => write!(f, "there is no event log in {}", path.display()),
            Error::Corrupt(damage) => {
                write!(f, "{damage}; seek to {} to go on behind the damage", damage.offsets.end)
            }
            Error::SyncFailed { partition } => {
                write!(f, "a sync of {partition} failed, so what the disk holds is unknown; reopen the log")
            }
            Error::InvalidConfig { setting, reason } => write!(f, "invalid `{setting}`: {reason}"),
            Error::InvalidTopic { topic, reason } => write!(f, "{topic:?} cannot be the name of a topic: {reason}"),
            Error::TopicExists { topic } => write!(f, "topic {topic:?} exists already"),
            Error::UnknownTopic { topic } => write!(f, "there is no topic {topic:?}; create it first"),
            Error::UnknownPartition { partition, partitions } => {
                write!(f, "there is no partition {partition}: the topic has {partitions}, counted from 0")
            }
            Error::InvalidPartitions { topic, requested, reason } => {
                write!(f, "topic {topic:?} cannot have {requested} partitions: {reason}")
            }
            Error::RecordTooLarge { topic, bytes, limit } => {
                write!(f, "a record or batch of {bytes} bytes is over the limit of topic {topic:?}, {limit} bytes; ")?;
                write!(f, "send less at once or raise `max_record_bytes`")
            }
            Error::InvalidRecord { reason } => write!(f, "invalid record: {reason}"),
            Error::InvalidTimestamp { timestamp, reason } => {
                write!(f, "timestamp {timestamp} is not allowed: {reason}")
            }
            Error::PartitionFull { partition, bytes, limit } => {
                write!(f, "{partition} is full: its segments take {bytes} bytes, and one more step would be over ")?;
                write!(
                    f,
                    "`partition.max.bytes`, {limit}; delete records, let the groups commit that hold them, raise "
                )?;
                write!(f, "the limit, or choose another `when.full`")
            }
            Error::OffsetOutOfRange { partition, requested, start, end } => {
                write!(f, "offset {requested} of {partition} is out of range: it holds {start}..{end}")
            }
            Error::LogTruncated { partition, position, end } => {
                write!(f, "{partition} was truncated to {end} while the consumer was at {position}; ")?;
                write!(f, "seek to {end} to read what was sent since")
            }
            Error::CommittedBeyond { partition, end, groups } => {
                let list = groups.iter().map(|(group, offset)| format!("group {group:?} has committed {offset}"));
                let list = list.collect::<Vec<_>>().join(", ");
                write!(
                    f,
                    "{partition} cannot be truncated to {end}: {list}; reset their offsets, or have them pulled back"
                )
            }
            Error::NoOffsetForPartition { partition } => {
                write!(f, "no offset is committed for {partition} and the reset policy is none; seek first")
            }
            Error::NotAssigned { partition } => write!(f, "no current assignment for partition {partition}"),
            Error::InvalidState { reason } => f.write_str(reason),
            Error::InvalidGroup { reason } => write!(f, "invalid group: {reason}"),
            Error::UnknownGroup { group } => write!(f, "there is no group {group:?}"),
            Error::GroupNotEmpty { group, members } => {
                write!(f, "group {group:?} has members ({}); close them first", members.join(", "))
            }
            Error::GroupSubscribedToTopic { group, topic } => {
                write!(
                    f,
                    "a member of group {group:?} subscribes to topic {topic:?}; close it first, or let it unsubscribe"
                )
            }
            Error::InconsistentGroupProtocol { group, reason } => {
                write!(
                    f,
                    "the members of group {group:?} cannot agree on an assignor: {reason}; give all of them one in common"
                )
            }
            Error::InvalidAssignment { group, assignor, reason } => {
                write!(
                    f,
                    "assignor {assignor:?} of group {group:?} {reason}; the rest of what it said holds until the next \
                     rebalance: correct the assignor"
                )
            }
            Error::OffsetMetadataTooLarge { bytes, limit } => {
                write!(f, "metadata of {bytes} bytes is over the limit of {limit} bytes for a committed offset")
            }
            Error::CommitFailed { group, reason } => {
                write!(f, "nothing was committed for group {group:?}: {reason}")
            }
            Error::RebalanceInProgress { group } => {
                write!(
                    f,
                    "nothing was committed: group {group:?} is rebalancing; poll, and commit again what is assigned then"
                )
            }
            Error::FencedInstanceId { group, instance_id } => {
                write!(f, "another consumer has taken the place of instance {instance_id:?} in group {group:?}; ")?;
                write!(f, "close this one, or give it an id of its own")
            }
            Error::Timeout { waited } => write!(f, "not done after {waited:?}; the work goes on, wait again"),
            Error::Wakeup => write!(f, "woken from another thread"),
            Error::Closed => write!(f, "closed"),
            Error::Forked => write!(f, "the log was opened by the parent of this process; open it anew after the fork"),
            Error::ReadOnly { path } => write!(f, "{} was opened for reading only", path.display()),
            Error::Serialization { source } => write!(f, "cannot encode: {source}"),
            Error::Deserialization { partition, offset, source } => {
                write!(f, "cannot decode offset {offset} of {partition}: {source}; seek past it to go on")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } | Error::NoSpace { source, .. } => Some(source),
            Error::Serialization { source } | Error::Deserialization { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
