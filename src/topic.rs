//! A topic: its partitions by number, and its configuration.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::types::{Timestamp, TimestampType, TopicPartition};

/// A topic that is open.
pub(crate) struct Topic {
    name: Arc<str>,
    id: u128,
    config: RwLock<TopicConfig>,
    /// Only grows; `count` is its length, published after it.
    partitions: RwLock<Vec<Arc<Partition>>>,
    count: AtomicU32,
    deleted: AtomicBool,
    /// The configuration's, where a producer can look without a lock.
    append_time: AtomicBool,
    /// How many milliseconds before and after the clock a record may say it is from; `u64::MAX`: any number.
    before_max: AtomicU64,
    after_max: AtomicU64,
    /// Whether every record needs a key.
    compacts: AtomicBool,
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({} x{})", self.name, self.count())
    }
}

impl Topic {
    pub(crate) fn new(name: Arc<str>, id: u128, config: TopicConfig, partitions: Vec<Arc<Partition>>) -> Self {
        let count = AtomicU32::new(number(partitions.len()));
        let append_time = AtomicBool::new(config.timestamp_type == TimestampType::Append);
        let before_max = AtomicU64::new(millis(config.timestamp_before_max));
        let after_max = AtomicU64::new(millis(config.timestamp_after_max));
        let compacts = AtomicBool::new(config.cleanup_policy.compacts());
        let (config, partitions) = (RwLock::new(config), RwLock::new(partitions));
        let deleted = AtomicBool::new(false);
        Topic { name, id, config, partitions, count, deleted, append_time, before_max, after_max, compacts }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn id(&self) -> u128 {
        self.id
    }

    pub(crate) fn config(&self) -> TopicConfig {
        self.config.read().clone().partitions(self.count())
    }

    /// How many partitions there are.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().clone()
    }

    pub(crate) fn partition(&self, number: u32) -> Result<Arc<Partition>> {
        let partitions = self.partitions.read();
        partitions.get(number as usize).cloned().ok_or_else(|| Error::UnknownPartition {
            partition: TopicPartition::new(Arc::clone(&self.name), number),
            partitions: self.count(),
        })
    }

    /// Adds partitions behind those that there are.
    pub(crate) fn grow(&self, more: Vec<Arc<Partition>>) {
        let mut partitions = self.partitions.write();
        partitions.extend(more);
        self.count.store(number(partitions.len()), Ordering::Release);
    }

    pub(crate) fn reconfigure(&self, config: TopicConfig) {
        for partition in self.partitions.read().iter() {
            partition.reconfigure(&config);
        }
        self.append_time.store(config.timestamp_type == TimestampType::Append, Ordering::Release);
        self.before_max.store(millis(config.timestamp_before_max), Ordering::Release);
        self.after_max.store(millis(config.timestamp_after_max), Ordering::Release);
        self.compacts.store(config.cleanup_policy.compacts(), Ordering::Release);
        *self.config.write() = config;
    }

    #[inline]
    pub(crate) fn timestamp_type(&self) -> TimestampType {
        if self.append_time.load(Ordering::Acquire) { TimestampType::Append } else { TimestampType::Create }
    }

    /// Whether a record may say that it is from `given`. The clock is asked only if that depends on it.
    #[inline]
    pub(crate) fn check_timestamp(&self, given: Timestamp, now: impl FnOnce() -> Timestamp) -> Result<()> {
        let (before, after) = (self.before_max.load(Ordering::Acquire), self.after_max.load(Ordering::Acquire));
        if (before, after) == (u64::MAX, u64::MAX) { Ok(()) } else { within(given, now(), before, after) }
    }

    /// Whether a record may have this key. Without one it would never be replaced, nor deleted.
    #[inline]
    pub(crate) fn check_key(&self, key: Option<&[u8]>) -> Result<()> {
        if key.is_some() || !self.compacts.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = format!("topic {:?} is compacted, so every record needs a key", self.name);
        Err(Error::InvalidRecord { reason })
    }

    /// Whether the topic was deleted since it was looked up.
    #[inline]
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(crate) fn set_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }
}

fn millis(limit: Option<Duration>) -> u64 {
    limit.map_or(u64::MAX, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
}

fn within(given: Timestamp, now: Timestamp, before_max: u64, after_max: u64) -> Result<()> {
    let (before, after) = (now.since(given).as_millis(), given.since(now).as_millis());
    let (far, side, setting, limit) = match () {
        () if before > u128::from(before_max) => (before, "before", "before", before_max),
        () if after > u128::from(after_max) => (after, "ahead of", "after", after_max),
        () => return Ok(()),
    };
    let reason =
        format!("it is {far} ms {side} the clock, which shows {now}; `message.timestamp.{setting}.max.ms` is {limit}");
    Err(Error::InvalidTimestamp { timestamp: given, reason })
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a topic has at most 100,000 partitions")
}
