//! An embedded event log: Kafka's topics, partitions, offsets and consumer groups, linked into your process.
//!
//! No broker, no port, no runtime: a directory is the log. Records lie in memory-mapped segment files.
//!
//! ```
//! use std::time::Duration;
//! use tidelog::{ConsumerConfig, EventLog, OffsetReset, ProducerRecord, TopicConfig};
//!
//! # fn main() -> tidelog::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path();
//! let log = EventLog::open(path)?;
//! log.create_topic("orders", TopicConfig::new().partitions(3))?;
//!
//! let producer = log.producer();
//! let delivery = producer.send(ProducerRecord::new("orders", b"paid 12.50").key(b"user-7"))?;
//! let metadata = delivery.wait()?; // on the disk
//! assert_eq!(metadata.offset().get(), 0);
//!
//! let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
//! let mut consumer = log.consumer(config)?;
//! consumer.subscribe(["orders"])?;
//! for record in &consumer.poll(Duration::from_millis(100))? {
//!     assert_eq!(record.key(), Some(&b"user-7"[..]));
//! }
//! consumer.commit()?; // the group goes on from here, also after kill -9
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! - An *accepted* record, one whose [`send`](Producer::send) has returned, survives the death of the process, however
//!   it dies. So does a commit.
//! - What a power cut may take is the topic's choice: see [`Durability`]. In a `Sync` topic, the default, it takes nothing
//!   that was delivered or seen.
//! - Order within a partition never changes. Offsets are given once, unless you [truncate](EventLog::truncate). A record
//!   is returned whole and as it was written, or not at all.
//! - Promised data that is damaged is reported, by [`EventLog::recovery_report`] or by whoever reads it, with file,
//!   position and offsets. It is never cut away, and the consumer decides whether to step over it.
//! - A committed offset never lies past the end of its partition, so a group skips nothing.
//!
//! Outside of that: disks that lie about flushing, writes that damage bytes beside them, files that others change while
//! the log is open, and network file systems.
//!
//! # Three ways to send
//!
//! Drop the [`Delivery`] (send and forget), [`wait`](Delivery::wait) for it or `await` it (synchronous), or give it a
//! callback ([`send_with`](Producer::send_with)). One sync serves all who wait, so the fast way to be sure is to
//! send many and [`flush`](Producer::flush) once.
//!
//! What happens then, and after any other fault, is written down row by row in [`promises`], with the tests that show it.
//!
//! # Testing what uses it
//!
//! With the feature `arbitrary`, `fuzz` has building blocks for fuzz targets of your own.
//!
//! With the feature `sim`, `sim::check` runs your own consumer loop, unmodified, against the real log on a simulated
//! machine, crashes it anywhere, checks what a consumer must guarantee, and prints the shortest run that breaks it.
//! `EventLog::in_memory` is a log for unit tests.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "arbitrary")]
pub mod fuzz;
#[cfg(feature = "sim")]
pub mod sim;

/// A place in your own code that a simulation shall know: it may crash there, and shows in its report that the code
/// came by. Without the feature `sim` it is nothing.
///
/// ```
/// # fn charge() {}
/// charge();
/// tidelog::point!("charged");
/// ```
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! point {
    ($name:expr) => {
        $crate::sim::come_by($name)
    };
}

/// A place in your own code that a simulation shall know. Without the feature `sim` it is nothing.
#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! point {
    ($name:expr) => {{
        const _: &str = $name;
    }};
}

mod administration;
mod assignor;
mod catalog;
mod codec;
mod compactor;
mod config;
mod consumer;
mod copies;
mod dead_letters;
mod env;
mod error;
mod event_log;
mod format;
mod group;
pub mod inspect;
mod offset_tracker;
mod partition;
mod partitioner;
mod producer;
pub mod promises;
mod record;
mod retainer;
mod space;
mod table;
mod table_view;
mod topic;
mod types;
mod upkeep;

pub use crate::administration::{
    GroupDescription, GroupOffset, GroupsBeyond, MemberDescription, OffsetChange, ResetTo, Truncated,
};
pub use crate::assignor::{
    Assignor, CooperativeStickyAssignor, RangeAssignor, RebalanceProtocol, RoundRobinAssignor, StickyAssignor,
    Subscription,
};
pub use crate::catalog::{PulledBack, RecoveryReport};
#[cfg(feature = "bincode")]
pub use crate::codec::Bincode;
#[cfg(feature = "json")]
pub use crate::codec::Json;
pub use crate::codec::{CodecError, Decode, Encode, Raw, Utf8};
pub use crate::compactor::{Compacted, CompactionProgress, CompactionReport};
pub use crate::config::{
    CleanupPolicy, ConsumerConfig, Durability, LogConfig, OffsetReset, ProducerConfig, Retention, TopicConfig, WhenFull,
};
pub use crate::consumer::{
    Consumer, ConsumerRecord, ConsumerRecords, ConsumerWaker, PollRecords, RebalanceListener, Records,
};
pub use crate::copies::Copied;
pub use crate::dead_letters::{DeadLetterConfig, DeadLetterQueue, Processed, ProcessingError};
pub use crate::error::{Damage, Error, Flaw, Result};
pub use crate::event_log::{EventLog, PartitionDescription, TopicDescription};
pub use crate::group::GroupState;
pub use crate::offset_tracker::OffsetTracker;
pub use crate::partitioner::{Partitioner, murmur2};
pub use crate::producer::{BatchDelivery, Delivery, Producer};
pub use crate::record::{Header, ProducerRecord, RecordMetadata};
pub use crate::retainer::{Removed, RetentionReport};
pub use crate::space::{Place, SpaceUse};
pub use crate::table_view::{TableRecord, TableView};
pub use crate::types::{Offset, OffsetAndMetadata, OffsetAndTimestamp, Timestamp, TimestampType, TopicPartition};

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
