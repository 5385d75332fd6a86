//! An embedded event log: Kafka's topics, partitions, offsets and consumer groups, linked into your process.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod codec;
#[cfg(feature = "sim")]
pub mod sim;

mod catalog;
mod config;
mod consumer;
mod env;
mod error;
mod event_log;
mod format;
mod group;
mod partition;
mod partitioner;
mod producer;
mod record;
mod table;
mod topic;
mod types;
mod upkeep;

pub use crate::catalog::{PulledBack, RecoveryReport};
pub use crate::config::{ConsumerConfig, Durability, LogConfig, OffsetReset, ProducerConfig, TopicConfig};
pub use crate::consumer::{Consumer, ConsumerRecord, ConsumerRecords, ConsumerWaker, Records};
pub use crate::error::{Damage, Error, Flaw, Result};
pub use crate::event_log::{EventLog, GroupDescription, GroupOffset, PartitionDescription, TopicDescription};
pub use crate::partitioner::{Partitioner, murmur2};
pub use crate::producer::{BatchDelivery, Delivery, Producer};
pub use crate::record::{Header, ProducerRecord, RecordMetadata};
pub use crate::types::{Offset, OffsetAndMetadata, Timestamp, TimestampType, TopicPartition};
