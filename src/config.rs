//! Settings: plain data, checked when they are used, opening nothing.
//!
//! A topic's settings have Kafka's names in text form too (`segment.bytes=67108864`): that is how the catalog keeps
//! them, so that a newer library adds one without a new format, and how the tool takes and shows them.

mod cleanup;
mod retention;

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::assignor::{Assignor, CooperativeStickyAssignor, RangeAssignor, RebalanceProtocol};
use crate::error::{Error, Result};
use crate::partitioner::Partitioner;
use crate::types::TimestampType;

pub use crate::config::cleanup::CleanupPolicy;
pub(crate) use crate::config::cleanup::{Compacting, Ratio};
pub use crate::config::retention::{Retention, WhenFull};

/// What a power cut may take from a topic. The death of the process takes nothing at any level.
///
/// | level | a delivery completes | consumers see a record | a power cut takes |
/// |---|---|---|---|
/// | `Sync` | when the record is on the disk: one sync serves all who wait | once it is on the disk | nothing that was delivered or seen |
/// | `Interval` | at once | at once | at most what came since the last completed sync |
/// | `Os` | at once | at once | what the kernel had not written back |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every delivery waits for the disk.
    #[default]
    Sync,
    /// The log syncs by itself, after `every` or when `bytes` have come, whichever is first.
    Interval {
        /// The longest that a record stays unsynced, by the log's clock and up to the length of a sync. From 1 ms.
        /// Kafka: `flush.ms`.
        every: Duration,
        /// How many bytes may wait for a sync. From 1.
        bytes: u64,
    },
    /// The operating system writes when it likes, mostly within half a minute.
    Os,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Sync => f.write_str("sync"),
            Durability::Os => f.write_str("os"),
            Durability::Interval { every, bytes } => write!(f, "interval:{}ms:{bytes}", every.as_millis()),
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = Error;

    /// `sync`, `os`, or `interval:<milliseconds>ms:<bytes>`; `interval` alone is `interval:100ms:1048576`.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidConfig {
            setting: "durability",
            reason: format!("{text:?} is none of `sync`, `os`, `interval` and `interval:100ms:1048576`"),
        };
        let durability = match text {
            "sync" => Durability::Sync,
            "os" => Durability::Os,
            "interval" => Durability::Interval { every: Duration::from_millis(100), bytes: 1 << 20 },
            _ => {
                let rest = text.strip_prefix("interval:").ok_or_else(invalid)?;
                let (every, bytes) = rest.split_once("ms:").ok_or_else(invalid)?;
                Durability::Interval {
                    every: Duration::from_millis(every.parse().map_err(|_| invalid())?),
                    bytes: bytes.parse().map_err(|_| invalid())?,
                }
            }
        };
        durability.check()?;
        Ok(durability)
    }
}

impl Durability {
    fn check(self) -> Result<()> {
        match self {
            Durability::Interval { every, .. } if every < Duration::from_millis(1) => Err(Error::InvalidConfig {
                setting: "durability",
                reason: "an interval is at least 1 ms; `sync` is the level that waits for no time".into(),
            }),
            Durability::Interval { bytes: 0, .. } => Err(Error::InvalidConfig {
                setting: "durability",
                reason: "an interval takes at least 1 byte; `sync` is the level that syncs each record".into(),
            }),
            _ => Ok(()),
        }
    }
}

/// How a topic keeps its records.
///
/// ```
/// use tidelog::{Durability, TopicConfig};
///
/// let config = TopicConfig::new().partitions(3).durability(Durability::Os).segment_bytes(16 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub(crate) partitions: u32,
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u32,
    pub(crate) max_record_bytes: u32,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) timestamp_before_max: Option<Duration>,
    pub(crate) timestamp_after_max: Option<Duration>,
    pub(crate) segment_age: Option<Duration>,
    pub(crate) retention: Retention,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) when_full: WhenFull,
    pub(crate) cleanup_policy: CleanupPolicy,
    pub(crate) compacting: Compacting,
}

/// The name of a setting, and what makes text of it.
type Setting = (&'static str, fn(&TopicConfig) -> String);

/// The settings of a topic, in the order of their names.
#[rustfmt::skip]
const SETTINGS: [Setting; 18] = [
    ("cleanup.policy", |config| config.cleanup_policy.to_string()),
    ("delete.retention.ms", |config| config.compacting.delete_retention.as_millis().to_string()),
    ("durability", |config| config.durability.to_string()),
    ("max.compaction.lag.ms", |config| millis_or_none(config.compacting.lag_max)),
    ("max.message.bytes", |config| config.max_record_bytes.to_string()),
    ("message.timestamp.after.max.ms", |config| millis_or_none(config.timestamp_after_max)),
    ("message.timestamp.before.max.ms", |config| millis_or_none(config.timestamp_before_max)),
    ("message.timestamp.type", |config| match config.timestamp_type {
        TimestampType::Create => "CreateTime",
        TimestampType::Append => "LogAppendTime",
    }.to_owned()),
    ("min.cleanable.dirty.ratio", |config| config.compacting.dirty_ratio.to_string()),
    ("min.compaction.lag.ms", |config| config.compacting.lag_min.as_millis().to_string()),
    ("partition.max.bytes", |config| number_or_none(config.max_bytes)),
    ("retention.bytes", |config| number_or_none(config.retention.bytes)),
    ("retention.groups", |config| config.retention.groups.join(",")),
    ("retention.ms", |config| millis_or_none(config.retention.time)),
    ("retention.records", |config| number_or_none(config.retention.records)),
    ("segment.bytes", |config| config.segment_bytes.to_string()),
    ("segment.ms", |config| millis_or_none(config.segment_age)),
    ("when.full", |config| config.when_full.to_string()),
];

fn number_or_none(limit: Option<u64>) -> String {
    limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string())
}

fn millis_or_none(limit: Option<Duration>) -> String {
    limit.map_or_else(|| "-1".to_owned(), |limit| limit.as_millis().to_string())
}

/// The smallest segment: one page.
pub(crate) const MIN_SEGMENT_BYTES: u32 = 4096;
/// The largest segment: positions in it fit 31 bits.
pub(crate) const MAX_SEGMENT_BYTES: u32 = 1 << 31;
/// So that the offsets of a few partitions, with metadata as long as it may be, find room in one batch.
const MIN_OFFSETS_SEGMENT_BYTES: u32 = 64 << 10;
/// How much the records of a segment differ in time at most, if that is left to retention. Kafka: `segment.ms`.
const SEGMENT_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// More partitions than any process can use, and few enough that their directories can be listed.
pub(crate) const MAX_PARTITIONS: u32 = 100_000;

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            partitions: 1,
            durability: Durability::Sync,
            segment_bytes: 64 << 20,
            max_record_bytes: 1 << 20,
            timestamp_type: TimestampType::Create,
            timestamp_before_max: None,
            timestamp_after_max: None,
            segment_age: None,
            retention: Retention::default(),
            max_bytes: None,
            when_full: WhenFull::default(),
            cleanup_policy: CleanupPolicy::default(),
            compacting: Compacting::default(),
        }
    }
}

/// The largest segment of a topic that is compacted: a copy of it may be longer, but not twice as long.
pub(crate) const MAX_COMPACTED_BYTES: u32 = 1 << 30;

impl TopicConfig {
    /// One partition, [`Durability::Sync`], segments of 64 MiB, records of at most 1 MiB, create time, everything kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many partitions the topic has. Kafka: `num.partitions`.
    ///
    /// Default: 1. Range: 1 to 100,000; outside of it, creating the topic fails with [`Error::InvalidPartitions`].
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// What a power cut may take. Default: [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The size of one segment file, in bytes, rounded up to whole pages of 4 KiB. Kafka: `segment.bytes`.
    ///
    /// Retention deletes a segment at a time, and no batch may be larger. Disk space is taken in steps that grow
    /// with the segment; an [`Os`](Durability::Os) topic without [`max_bytes`](Self::max_bytes) that is appended to fast has
    /// up to 64 MiB of the next segment ahead, until nothing was appended for 100 ms.
    ///
    /// Default: 64 MiB. Range: 4 KiB to 2 GiB; outside of it, creating or altering the topic fails with
    /// [`Error::InvalidConfig`].
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u32) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// The largest record, in bytes, with key, headers and the 52 bytes that the format adds to a record that is
    /// sent alone; and the largest batch. Kafka: `max.message.bytes`.
    ///
    /// Default: 1 MiB. Range: 64 bytes up to a segment without its header (128 bytes) and end marker (48 bytes); what
    /// lies above is cut down to that, what lies below fails with [`Error::InvalidConfig`].
    #[must_use]
    pub fn max_record_bytes(mut self, bytes: u32) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// What the timestamps of the records mean. Kafka: `message.timestamp.type`. Default: create time.
    #[must_use]
    pub fn timestamp_type(mut self, timestamp_type: TimestampType) -> Self {
        self.timestamp_type = timestamp_type;
        self
    }

    /// The oldest that a record may say it is, before the clock at `send`. A record that says more is refused with
    /// [`Error::InvalidTimestamp`]. Kafka: `message.timestamp.before.max.ms`.
    ///
    /// Default: `None`, any age. In milliseconds, the rest is cut off. Means nothing for append times.
    #[must_use]
    pub fn timestamp_before_max(mut self, age: Option<Duration>) -> Self {
        self.timestamp_before_max = age;
        self
    }

    /// How far ahead of the clock at `send` a record may say it is from; further is refused with
    /// [`Error::InvalidTimestamp`]. Kafka: `message.timestamp.after.max.ms`.
    ///
    /// Retention by time keeps a segment for as long as its latest record says, so one record from a far future keeps it
    /// and all behind it: a topic with [`Retention::time`] and timestamps from outside should set this. Default: `None`,
    /// any (Kafka since 4.0: one hour; what a log keeps for ever, nothing is kept too long in). In milliseconds, the
    /// rest is cut off. Means nothing for append times.
    #[must_use]
    pub fn timestamp_after_max(mut self, ahead: Option<Duration>) -> Self {
        self.timestamp_after_max = ahead;
        self
    }

    /// How much later than the first record of a segment a record in it may be; a later one begins a new segment. Kafka:
    /// `segment.ms`.
    ///
    /// Told by the timestamps of the records, not by the clock; without room for another segment the present one
    /// goes on. Segments are what retention removes, so this is for topics with [`Retention::time`] that fill a segment
    /// seldom. Default: `None`: as long as records are kept, but at most Kafka's 7 days; without retention by time, any
    /// time. From 1 ms, in milliseconds, the rest is cut off; outside of that, creating or altering the topic fails with
    /// [`Error::InvalidConfig`].
    #[must_use]
    pub fn segment_age(mut self, age: Option<Duration>) -> Self {
        self.segment_age = age;
        self
    }

    /// What is kept. Default: everything. Means nothing for a topic that is only compacted. Kafka: `retention.ms`,
    /// `retention.bytes`.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// The most bytes of the disk that a partition's segments take, and what becomes of a `send` that would need more.
    ///
    /// Unlike [`Retention::bytes`] it is never exceeded, not even for a moment. Default: `None`, whatever there is. From
    /// two segments ([`segment_bytes`](Self::segment_bytes)), because room is made by a segment at a time; below that,
    /// creating or altering the topic fails with [`Error::InvalidConfig`]. A partition that already holds more takes
    /// nothing until it holds less. The copy of a segment that compaction is making comes on top.
    #[must_use]
    pub fn max_bytes(mut self, bytes: Option<u64>, when_full: WhenFull) -> Self {
        self.max_bytes = bytes;
        self.when_full = when_full;
        self
    }

    /// What becomes of old records. Default: [`CleanupPolicy::Delete`]. Kafka: `cleanup.policy`.
    ///
    /// To compact, segments may have at most 1 GiB ([`segment_bytes`](Self::segment_bytes)); of those that are longer,
    /// because they were made before, and of what lies behind them, nothing is compacted.
    #[must_use]
    pub fn cleanup_policy(mut self, policy: CleanupPolicy) -> Self {
        self.cleanup_policy = policy;
        self
    }

    /// How much of a partition must be new, by its bytes without the segment that is appended to, before it is compacted:
    /// more than this part of the whole. Kafka: `min.cleanable.dirty.ratio`.
    ///
    /// Less means more work and less room for old records. Default: 0.5. Range: 0 to 1, in millionths; outside of it,
    /// creating or altering the topic fails with [`Error::InvalidConfig`].
    #[must_use]
    pub fn min_cleanable_dirty_ratio(mut self, ratio: f64) -> Self {
        self.compacting.dirty_ratio = Ratio::new(ratio);
        self
    }

    /// How long a tombstone stays after everything that it deletes has gone, so that whoever reads from the beginning
    /// meets it in time. It goes with the first compaction after that. Kafka: `delete.retention.ms`.
    ///
    /// Default: 24 hours. In milliseconds, the rest is cut off.
    #[must_use]
    pub fn delete_retention(mut self, retention: Duration) -> Self {
        self.compacting.delete_retention = retention;
        self
    }

    /// How old a record is at least before compaction may remove it; told by the latest timestamp of its segment. Kafka:
    /// `min.compaction.lag.ms`.
    ///
    /// Default: zero. In milliseconds, the rest is cut off.
    #[must_use]
    pub fn min_compaction_lag(mut self, lag: Duration) -> Self {
        self.compacting.lag_min = lag;
        self
    }

    /// How old a record may grow before its partition is compacted, however little of it is new; also how much the records
    /// of a segment may differ in time, as by [`segment_age`](Self::segment_age). Kafka: `max.compaction.lag.ms`.
    ///
    /// Default: `None`, any age. From 1 ms and from [`min_compaction_lag`](Self::min_compaction_lag), in milliseconds, the
    /// rest is cut off; below that, creating or altering the topic fails with [`Error::InvalidConfig`].
    #[must_use]
    pub fn max_compaction_lag(mut self, lag: Option<Duration>) -> Self {
        self.compacting.lag_max = lag;
        self
    }

    /// How much the records of a segment may differ in time.
    pub(crate) fn segment_span(&self) -> Option<Duration> {
        let of_retention = || self.limits().time.map(|time| time.clamp(Duration::from_millis(1), SEGMENT_AGE_MAX));
        let of_compaction = self.compacting.lag_max.filter(|_| self.cleanup_policy.compacts());
        self.segment_age.or_else(of_retention).into_iter().chain(of_compaction).min()
    }

    /// What goes by age and size.
    pub(crate) fn limits(&self) -> Retention {
        if self.cleanup_policy.deletes() { self.retention.clone() } else { Retention::new() }
    }

    /// Sets one setting from text.
    ///
    /// By its name in Kafka: `segment.bytes`, `max.message.bytes`, `message.timestamp.type` (`CreateTime` or
    /// `LogAppendTime`), `message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`, `segment.ms`,
    /// `retention.ms`, `retention.bytes`, where -1 is no limit; `cleanup.policy` (see its `FromStr`),
    /// `min.cleanable.dirty.ratio`, `delete.retention.ms`, `min.compaction.lag.ms`, `max.compaction.lag.ms` (-1: no limit).
    /// The log's own are `durability` and `when.full` (see their `FromStr`), `partition.max.bytes`, `retention.records`
    /// (-1: no limit), and `retention.groups`, names between commas.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if there is no such setting, or it cannot have this value.
    pub fn set(mut self, name: &str, value: &str) -> Result<Self> {
        match name {
            "cleanup.policy" => self.cleanup_policy = value.parse()?,
            "delete.retention.ms" => self.compacting.delete_retention = millis("delete.retention.ms", value)?,
            "durability" => self.durability = value.parse()?,
            "max.compaction.lag.ms" => self.compacting.lag_max = duration("max.compaction.lag.ms", value)?,
            "max.message.bytes" => self.max_record_bytes = bytes_below_4_gib("max.message.bytes", value)?,
            "message.timestamp.after.max.ms" => {
                self.timestamp_after_max = duration("message.timestamp.after.max.ms", value)?;
            }
            "message.timestamp.before.max.ms" => {
                self.timestamp_before_max = duration("message.timestamp.before.max.ms", value)?;
            }
            "message.timestamp.type" => {
                self.timestamp_type = match value {
                    "CreateTime" => TimestampType::Create,
                    "LogAppendTime" => TimestampType::Append,
                    _ => {
                        return Err(Error::InvalidConfig {
                            setting: "message.timestamp.type",
                            reason: format!("{value:?} is neither CreateTime nor LogAppendTime"),
                        });
                    }
                }
            }
            "min.cleanable.dirty.ratio" => {
                let ratio = value.parse().map_err(|_| Error::InvalidConfig {
                    setting: "min.cleanable.dirty.ratio",
                    reason: format!("{value:?} is not a number"),
                })?;
                self = self.min_cleanable_dirty_ratio(ratio);
            }
            "min.compaction.lag.ms" => self.compacting.lag_min = millis("min.compaction.lag.ms", value)?,
            "partition.max.bytes" => self.max_bytes = limit("partition.max.bytes", value)?,
            "retention.bytes" => self.retention.bytes = limit("retention.bytes", value)?,
            "retention.groups" => {
                let groups = value.split(',').filter(|group| !group.is_empty());
                self.retention = self.retention.until_committed_by(groups);
            }
            "retention.ms" => self.retention.time = duration("retention.ms", value)?,
            "retention.records" => self.retention.records = limit("retention.records", value)?,
            "segment.bytes" => self.segment_bytes = bytes_below_4_gib("segment.bytes", value)?,
            "segment.ms" => self.segment_age = duration("segment.ms", value)?,
            "when.full" => self.when_full = value.parse()?,
            _ => {
                let known: Vec<_> = self.entries().into_iter().map(|(name, _)| name).collect();
                return Err(Error::InvalidConfig {
                    setting: "topic configuration",
                    reason: format!("there is no setting {name:?}; there are {}", known.join(", ")),
                });
            }
        }
        Ok(self)
    }

    /// The settings as text, by their names: what [`set`](Self::set) takes. Without the partitions.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        SETTINGS.iter().map(|(name, text)| (*name, text(self))).collect()
    }

    /// What the catalog keeps: the settings that it always had, and of the others those that are not as they are by
    /// default.
    pub(crate) fn stored_entries(&self) -> Vec<(&'static str, String)> {
        const ALWAYS: [&str; 4] = ["durability", "max.message.bytes", "message.timestamp.type", "segment.bytes"];
        static USUAL: LazyLock<TopicConfig> = LazyLock::new(TopicConfig::new);
        let with_usual_others = TopicConfig {
            partitions: self.partitions,
            durability: self.durability,
            max_record_bytes: self.max_record_bytes,
            timestamp_type: self.timestamp_type,
            segment_bytes: self.segment_bytes,
            ..USUAL.clone()
        };
        // Mostly nothing else was set, and that need not be put into words to be seen.
        let all_usual = *self == with_usual_others;
        let is_kept = |name: &str, text: &dyn Fn(&TopicConfig) -> String| {
            ALWAYS.contains(&name) || !all_usual && text(self) != text(&USUAL)
        };
        let kept = SETTINGS.iter().filter(|(name, text)| is_kept(name, text));
        kept.map(|(name, text)| (*name, text(self))).collect()
    }

    /// How many partitions the topic has.
    pub fn partition_count(&self) -> u32 {
        self.partitions
    }

    /// The level of durability.
    pub fn durability_level(&self) -> Durability {
        self.durability
    }

    /// What becomes of old records.
    pub fn policy(&self) -> CleanupPolicy {
        self.cleanup_policy
    }

    /// Everything that can be wrong with a configuration, whatever topic it is for.
    pub(crate) fn check(&self, topic: &str) -> Result<()> {
        if self.partitions == 0 || self.partitions > MAX_PARTITIONS {
            return Err(Error::InvalidPartitions {
                topic: topic.to_owned(),
                requested: self.partitions,
                reason: format!("it is 1 to {MAX_PARTITIONS}"),
            });
        }
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&self.segment_bytes) {
            return Err(Error::InvalidConfig {
                setting: "segment.bytes",
                reason: format!("{} is not within 4 KiB to 2 GiB", self.segment_bytes),
            });
        }
        if self.max_record_bytes < 64 {
            return Err(Error::InvalidConfig {
                setting: "max.message.bytes",
                reason: format!("{} is below 64, which no record fits", self.max_record_bytes),
            });
        }
        self.check_keeping()?;
        self.check_compacting()?;
        self.durability.check()
    }

    fn check_compacting(&self) -> Result<()> {
        if self.cleanup_policy.compacts() && self.segment_bytes > MAX_COMPACTED_BYTES {
            return Err(Error::InvalidConfig {
                setting: "segment.bytes",
                reason: format!("{} is more than 1 GiB, the most for a topic that is compacted", self.segment_bytes),
            });
        }
        if !self.cleanup_policy.deletes() && self.max_bytes.is_some() && self.when_full == WhenFull::DropOldest {
            return Err(Error::InvalidConfig {
                setting: "when.full",
                reason: "`drop-oldest` contradicts keeping the last record of every key; say `compact,delete`".into(),
            });
        }
        self.compacting.check()
    }

    fn check_keeping(&self) -> Result<()> {
        let invalid = |setting, reason: String| Err(Error::InvalidConfig { setting, reason });
        if self.segment_age.is_some_and(|age| age < Duration::from_millis(1)) {
            return invalid("segment.ms", "it is at least 1; -1 is no limit".into());
        }
        let least = 2 * u64::from(self.segment_bytes).next_multiple_of(4096);
        match self.max_bytes {
            Some(bytes) if bytes < least => {
                let reason = format!("{bytes} is less than two segments, {least}; room is made by a segment at a time");
                invalid("partition.max.bytes", reason)
            }
            Some(_) if self.when_full == WhenFull::DropOldest && !self.retention.groups.is_empty() => {
                let groups = self.retention.groups.join(", ");
                invalid("when.full", format!("`drop-oldest` contradicts keeping what {groups} did not commit"))
            }
            _ => self.retention.check(),
        }
    }
}

/// A limit in bytes or records; -1 is none.
fn limit(setting: &'static str, value: &str) -> Result<Option<u64>> {
    match value.parse() {
        _ if value == "-1" => Ok(None),
        // Kafka's word for no limit where it knows no -1.
        Ok(limit) => Ok(Some(limit).filter(|limit| *limit != i64::MAX.cast_unsigned())),
        Err(_) => Err(Error::InvalidConfig {
            setting,
            reason: format!("{value:?} is neither a number from 0 nor -1, no limit"),
        }),
    }
}

/// A limit in milliseconds; -1 is none.
fn duration(setting: &'static str, value: &str) -> Result<Option<Duration>> {
    Ok(limit(setting, value)?.map(Duration::from_millis))
}

fn millis(setting: &'static str, value: &str) -> Result<Duration> {
    value.parse().map(Duration::from_millis).map_err(|_| Error::InvalidConfig {
        setting,
        reason: format!("{value:?} is not a number of milliseconds from 0"),
    })
}

fn bytes_below_4_gib(setting: &'static str, value: &str) -> Result<u32> {
    value.parse().map_err(|_| Error::InvalidConfig {
        setting,
        reason: format!("{value:?} is not a number of bytes below 4 GiB"),
    })
}

/// Room for a few keys.
const LEAST_COMPACTION_MEMORY: usize = 1024;

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct LogConfig {
    pub(crate) create: bool,
    pub(crate) auto_create_topics: Option<TopicConfig>,
    pub(crate) background: bool,
    pub(crate) commit_durability: Durability,
    pub(crate) offsets_segment_bytes: u32,
    pub(crate) retention_interval: Duration,
    pub(crate) compaction_interval: Duration,
    pub(crate) compaction_memory: usize,
    pub(crate) compaction_rate: Option<u64>,
    pub(crate) copy_reads: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            create: true,
            auto_create_topics: None,
            background: true,
            commit_durability: Durability::Sync,
            offsets_segment_bytes: 16 << 20,
            retention_interval: Duration::from_secs(5 * 60),
            compaction_interval: Duration::from_secs(15),
            compaction_memory: 128 << 20,
            compaction_rate: None,
            copy_reads: false,
        }
    }
}

impl LogConfig {
    /// Creates the directory if it is missing, topics only when told, with a background worker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a directory that is missing or empty becomes a new log. Default: true. If false, opening one
    /// fails with [`Error::NotALog`].
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Creates a topic with this configuration when somebody sends or subscribes to a name that there is none
    /// of. Default: off, an unknown topic is an error. Kafka: `auto.create.topics.enable`, which is on.
    #[must_use]
    pub fn auto_create_topics(mut self, config: TopicConfig) -> Self {
        self.auto_create_topics = Some(config);
        self
    }

    /// Whether a thread of the log's own does what must be done in time: interval syncs, and the sync of records that
    /// nobody waits for. Default: true. If false, call [`EventLog::maintain`](crate::EventLog::maintain).
    #[must_use]
    pub fn background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// What a power cut may take of committed offsets. Default: [`Durability::Sync`]: `commit` returns when they are
    /// on the disk. A consumer that loses a commit reads records twice, never not at all.
    #[must_use]
    pub fn commit_durability(mut self, durability: Durability) -> Self {
        self.commit_durability = durability;
        self
    }

    /// The size of a segment of a group's committed offsets, in bytes, rounded up to whole pages of 4 KiB. Kafka:
    /// `offsets.topic.segment.bytes`, 100 MiB.
    ///
    /// A group's log is written anew once its commits take a quarter of this more than what they say takes four times: the
    /// larger, the seldomer a commit pays for that, and the more is read when the log is opened. Default: 16 MiB. Range:
    /// 64 KiB to 2 GiB; outside of it, opening fails with [`Error::InvalidConfig`].
    #[must_use]
    pub fn offsets_segment_bytes(mut self, bytes: u32) -> Self {
        self.offsets_segment_bytes = bytes;
        self
    }

    /// How often the log looks for what topics no longer keep, by the clock that never steps; the first time at once.
    /// Default: 5 minutes. Zero: at every [`maintain`](crate::EventLog::maintain), and for a background worker once a
    /// second. Kafka: `log.retention.check.interval.ms`.
    #[must_use]
    pub fn retention_interval(mut self, interval: Duration) -> Self {
        self.retention_interval = interval;
        self
    }

    /// How often the log looks for topics to compact, by the clock that never steps; the first time at once. Default: 15
    /// seconds. Zero: at every [`maintain`](crate::EventLog::maintain), and for a background worker once a second. Kafka:
    /// `log.cleaner.backoff.ms`.
    #[must_use]
    pub fn compaction_interval(mut self, interval: Duration) -> Self {
        self.compaction_interval = interval;
        self
    }

    /// How much memory a compaction takes at most for the keys that it has seen, in bytes, 24 for each of them and a
    /// quarter more; there is one at a time. Kafka: `log.cleaner.dedupe.buffer.size`.
    ///
    /// A partition with more new keys than fit is compacted in several passes, and each reads and writes all that is
    /// below: less memory means more work, never a limit. Taken while a compaction runs, and no more than its new records
    /// can need. Default: 128 MiB, which is 4.4 million keys. From 1 KiB; below that, opening the log fails with
    /// [`Error::InvalidConfig`].
    #[must_use]
    pub fn compaction_memory(mut self, bytes: usize) -> Self {
        self.compaction_memory = bytes;
        self
    }

    /// How many bytes a second the background worker reads and writes at most to compact, so that others have the disk.
    /// Default: `None`, as fast as it goes. From 1. [`EventLog::compact`](crate::EventLog::compact) is not slowed down.
    /// Kafka: `log.cleaner.io.max.bytes.per.second`.
    #[must_use]
    pub fn compaction_rate(mut self, bytes_per_second: Option<u64>) -> Self {
        self.compaction_rate = bytes_per_second;
        self
    }

    /// Whether segments that were full when the log was opened are copied into memory to be read, a whole one at a time,
    /// and not mapped. Default: false.
    ///
    /// Bytes of a mapping that were checked, that memory has lost since, and that the disk does not give again, end the
    /// process (SIGBUS). Of a copy they are an [`Error::Io`] when it is made, and cannot be lost afterwards. A copy takes
    /// as much memory as the segment is long ([`TopicConfig::segment_bytes`]), for as long as somebody reads it or
    /// holds records of it. The newest segment, and those that this opening has filled itself, are mapped in any case:
    /// the log writes through the mapping.
    ///
    /// Kafka copies always; it has no such setting.
    #[must_use]
    pub fn copy_reads(mut self, copy_reads: bool) -> Self {
        self.copy_reads = copy_reads;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.commit_durability.check()?;
        let invalid = |setting, reason: &str| Err(Error::InvalidConfig { setting, reason: reason.to_owned() });
        if self.compaction_memory < LEAST_COMPACTION_MEMORY {
            return invalid("log.cleaner.dedupe.buffer.size", "it is at least 1024");
        }
        if self.compaction_rate == Some(0) {
            return invalid("log.cleaner.io.max.bytes.per.second", "it is at least 1");
        }
        if !(MIN_OFFSETS_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&self.offsets_segment_bytes) {
            return Err(Error::InvalidConfig {
                setting: "offsets.topic.segment.bytes",
                reason: format!("{} is not within 64 KiB to 2 GiB", self.offsets_segment_bytes),
            });
        }
        self.auto_create_topics.as_ref().map_or(Ok(()), |config| config.check("(auto-created)"))
    }
}

/// How a producer sends.
#[derive(Clone, Debug, Default)]
pub struct ProducerConfig {
    pub(crate) partitioner: Partitioner,
}

impl ProducerConfig {
    /// By key with Kafka's hash; without key, sticky.
    pub fn new() -> Self {
        Self::default()
    }

    /// How a partition is chosen for a record that names none. Default: [`Partitioner::Murmur2`]. Kafka:
    /// `partitioner.class`.
    #[must_use]
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.partitioner = partitioner;
        self
    }
}

/// Where a consumer starts when its group has committed nothing, or its position is out of range. Kafka:
/// `auto.offset.reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record that there is.
    Earliest,
    /// Behind the last record that there is.
    #[default]
    Latest,
    /// At the first record that is no older than this, by the wall clock; behind the last if all are older. Kafka:
    /// `by_duration:PT1H`.
    ByDuration(Duration),
    /// Nowhere: `poll` fails with [`Error::NoOffsetForPartition`] or [`Error::OffsetOutOfRange`].
    None,
}

/// How a consumer reads and commits.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub(crate) group: Option<String>,
    pub(crate) auto_offset_reset: OffsetReset,
    pub(crate) auto_commit: Option<bool>,
    pub(crate) auto_commit_interval: Duration,
    pub(crate) auto_offset_store: bool,
    pub(crate) max_poll_records: usize,
    pub(crate) max_poll_interval: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) client_id: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) assignors: Vec<Arc<dyn Assignor>>,
    pub(crate) spin: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        ConsumerConfig {
            group: None,
            auto_offset_reset: OffsetReset::Latest,
            auto_commit: None,
            auto_commit_interval: Duration::from_millis(5000),
            auto_offset_store: true,
            max_poll_records: 500,
            max_poll_interval: Duration::from_millis(300_000),
            session_timeout: Duration::from_millis(45_000),
            client_id: "consumer".to_owned(),
            group_instance_id: None,
            assignors: vec![Arc::new(RangeAssignor), Arc::new(CooperativeStickyAssignor)],
            spin: Duration::ZERO,
        }
    }
}

impl ConsumerConfig {
    /// A consumer without a group: it reads all partitions of what it subscribes to, and commits nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A consumer of this group. Kafka: `group.id`. Not empty, and at most 255 bytes, where every byte that is not an
    /// ASCII letter, a digit, `_` or `-` counts as three: it names a directory.
    pub fn group(group: impl Into<String>) -> Self {
        ConsumerConfig { group: Some(group.into()), ..Self::default() }
    }

    /// Where to start without a committed offset. Default: [`OffsetReset::Latest`]. Kafka: `auto.offset.reset`.
    #[must_use]
    pub fn auto_offset_reset(mut self, reset: OffsetReset) -> Self {
        self.auto_offset_reset = reset;
        self
    }

    /// Whether `poll` commits by itself what earlier polls returned. Default: true with a group. Without one, true
    /// is an [`Error::InvalidConfig`]. Kafka: `enable.auto.commit`.
    #[must_use]
    pub fn auto_commit(mut self, auto_commit: bool) -> Self {
        self.auto_commit = Some(auto_commit);
        self
    }

    /// How much time passes between automatic commits, by the log's clock. Default: 5 s. Kafka:
    /// `auto.commit.interval.ms`.
    #[must_use]
    pub fn auto_commit_interval(mut self, interval: Duration) -> Self {
        self.auto_commit_interval = interval;
        self
    }

    /// The most records that one poll returns, over all partitions. Default: 500. From 1. Kafka: `max.poll.records`.
    #[must_use]
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.max_poll_records = records;
        self
    }

    /// Whether what `poll` returns is what is committed next. Default: true. If false, only what was stored with
    /// [`store_offsets`](crate::Consumer::store_offsets) is committed, by itself or by
    /// [`commit`](crate::Consumer::commit): each record once it is processed. librdkafka: `enable.auto.offset.store`.
    #[must_use]
    pub fn auto_offset_store(mut self, store: bool) -> Self {
        self.auto_offset_store = store;
        self
    }

    /// The longest time between two polls, by the log's clock: a member of a group that takes longer is put out of it,
    /// its partitions go to others, and its commits are refused until it has joined again, which its next poll does. The
    /// time inside of `poll`, and so in a rebalance listener, does not count. It is also the longest that a rebalance
    /// waits for a member to join again. Default: 5 min. From 1 ms. Kafka: `max.poll.interval.ms`.
    #[must_use]
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.max_poll_interval = interval;
        self
    }

    /// How long the partitions of a static member ([`group_instance_id`](Self::group_instance_id)) are kept for it when
    /// it is closed, dropped or does not poll. Default: 45 s. From 1 ms. Kafka: `session.timeout.ms`.
    ///
    /// Kafka also finds with it that a process has died. Within one process nobody dies unnoticed: a consumer that is
    /// dropped is out of its group at once, and one that is leaked does not poll ([`max_poll_interval`](Self::max_poll_interval)).
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// What the consumer is called where the members of a group are shown; its member id begins with it. Default:
    /// `consumer`. Kafka: `client.id`.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// Makes the consumer a static member of its group. Not empty. Default: none. Kafka: `group.instance.id`.
    ///
    /// One that is closed and comes back under the same id within the [`session_timeout`](Self::session_timeout) gets the
    /// same partitions, and the others notice nothing. One that comes while another with the id is there takes its place,
    /// and the calls of that fail with [`Error::FencedInstanceId`].
    #[must_use]
    pub fn group_instance_id(mut self, id: impl Into<String>) -> Self {
        self.group_instance_id = Some(id.into());
        self
    }

    /// By what the members of the group can be assigned partitions, the best first: the one that most members like best,
    /// of those that all of them have, is used. At least one. Kafka: `partition.assignment.strategy`.
    ///
    /// Default: range, then cooperative-sticky. If all that a consumer has are of the cooperative protocol, it keeps what
    /// it has through a rebalance, but for what goes to another; otherwise it gives up everything first.
    #[must_use]
    pub fn assignors(mut self, assignors: impl IntoIterator<Item = Arc<dyn Assignor>>) -> Self {
        self.assignors = assignors.into_iter().collect();
        self
    }

    /// This assignor and no other: [`assignors`](Self::assignors) with one.
    #[must_use]
    pub fn assignor(self, assignor: impl Assignor + 'static) -> Self {
        self.assignors([Arc::new(assignor) as Arc<dyn Assignor>])
    }

    /// Whether this consumer keeps its partitions through a rebalance, but for those that go to others.
    pub(crate) fn is_cooperative(&self) -> bool {
        self.assignors.iter().all(|assignor| assignor.protocol() == RebalanceProtocol::Cooperative)
    }

    /// How long a poll that finds nothing looks again and again before it goes to sleep. Kafka has no such setting.
    ///
    /// Whoever looks sees a record a fraction of a microsecond after it became visible, whoever sleeps must be woken, which
    /// takes several, and costs its producer some of them; but looking keeps a processor busy, for as long as the timeout
    /// of the poll if this is longer. On a machine without a processor to spare it makes everybody slower. Default: zero,
    /// sleep at once. Range: any. In a log that was opened read-only nobody is told of news, so spinning is without effect.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// Whether this consumer commits by itself, after Kafka's rule for one without a group.
    pub(crate) fn commits_by_itself(&self) -> bool {
        self.group.is_some() && self.auto_commit.unwrap_or(true)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.group.is_none() && self.auto_commit == Some(true) {
            return Err(Error::InvalidConfig {
                setting: "enable.auto.commit",
                reason: "a consumer without a group cannot commit; name a group".into(),
            });
        }
        if self.max_poll_records == 0 {
            return Err(Error::InvalidConfig { setting: "max.poll.records", reason: "it is at least 1".into() });
        }
        let times = [("max.poll.interval.ms", self.max_poll_interval), ("session.timeout.ms", self.session_timeout)];
        if let Some((setting, _)) = times.into_iter().find(|(_, time)| *time < Duration::from_millis(1)) {
            return Err(Error::InvalidConfig { setting, reason: "it is at least 1 ms".into() });
        }
        if self.group_instance_id.as_ref().is_some_and(String::is_empty) {
            return Err(Error::InvalidConfig { setting: "group.instance.id", reason: "it is empty".into() });
        }
        if self.assignors.is_empty() {
            let reason = "it names no assignor; at least one is needed".into();
            return Err(Error::InvalidConfig { setting: "partition.assignment.strategy", reason });
        }
        Ok(())
    }
}
