//! A topic: its partitions by number, and its configuration.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::types::{TimestampType, TopicPartition};

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
        let (config, partitions) = (RwLock::new(config), RwLock::new(partitions));
        Topic { name, id, config, partitions, count, deleted: AtomicBool::new(false), append_time }
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
        *self.config.write() = config;
    }

    #[inline]
    pub(crate) fn timestamp_type(&self) -> TimestampType {
        if self.append_time.load(Ordering::Acquire) { TimestampType::Append } else { TimestampType::Create }
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

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a topic has at most 100,000 partitions")
}
