//! A table of the latest value of each key of a topic, kept in memory: for those who use a log as a store.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::partition::{Cursor, Partition};
use crate::producer::Lifeline;
use crate::topic::Topic;
use crate::types::{Offset, Timestamp, TopicPartition};

/// How many records are read at a time.
const AT_ONCE: usize = 1000;

/// The latest value of each key of a topic, in memory, to be read only. Pulsar: `TableView`; Kafka Streams: `GlobalKTable`.
///
/// It begins with all that is visible in the topic, and is brought up to date by [`refresh`](Self::refresh): whoever
/// wants to change the table sends records. A record without a value takes its key out; records without a key are
/// passed over. What is cut off the end, and what retention or [`EventLog::delete_records`](crate::EventLog::delete_records) removes goes at the next
/// refresh. Keys and values are copied, so a table takes as much memory as they do, and about 100 bytes for each.
///
/// Any topic will do; a [compacted](crate::CleanupPolicy::Compact) one stays small, and a view of it begins quickly.
/// If a topic was given more partitions, a key may be in two of them: then the record with the later timestamp counts.
///
/// ```
/// # fn main() -> tidelog::Result<()> {
/// # let log = tidelog::EventLog::temporary()?;
/// use tidelog::{CleanupPolicy, ProducerRecord, TopicConfig};
///
/// log.create_topic("users", TopicConfig::new().cleanup_policy(CleanupPolicy::Compact))?;
/// log.producer().send(ProducerRecord::new("users", b"Ada").key(b"user-7"))?.wait()?;
///
/// let mut users = log.table_view("users")?;
/// assert_eq!(users.get(b"user-7").map(|user| user.value()), Some(&b"Ada"[..]));
///
/// log.producer().send(ProducerRecord::tombstone("users", b"user-7"))?.wait()?;
/// users.refresh()?;
/// assert!(users.is_empty());
/// # Ok(())
/// # }
/// ```
pub struct TableView {
    catalog: Arc<Catalog>,
    topic: Arc<Topic>,
    parts: Vec<Part>,
    entries: HashMap<Box<[u8]>, Entry>,
    _lifeline: Lifeline,
}

/// A partition, and how far it was read.
struct Part {
    partition: Arc<Partition>,
    cursor: Cursor,
    position: Offset,
    /// Where it began when it was last looked at.
    start: Offset,
}

struct Entry {
    /// The number of the partition.
    part: usize,
    offset: Offset,
    timestamp: Timestamp,
    value: Box<[u8]>,
}

/// A key of a [`TableView`] and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRecord<'a> {
    key: &'a [u8],
    value: &'a [u8],
    partition: &'a TopicPartition,
    offset: Offset,
    timestamp: Timestamp,
}

impl<'a> TableRecord<'a> {
    /// The key.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The latest value.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// The partition in which it is.
    pub fn topic_partition(&self) -> &'a TopicPartition {
        self.partition
    }

    /// The offset at which it is.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was sent.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}

impl fmt::Debug for TableView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableView({}, {} keys)", self.topic.name(), self.len())
    }
}

impl TableView {
    pub(crate) fn new(catalog: Arc<Catalog>, topic: &str, lifeline: Lifeline) -> Result<Self> {
        catalog.check_open()?;
        let topic = catalog.topic(topic)?;
        let mut view = TableView { catalog, topic, parts: Vec::new(), entries: HashMap::new(), _lifeline: lifeline };
        view.refresh()?;
        Ok(view)
    }

    /// Reads what has come since the last time; returns how many records that were.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](Error::Corrupt) at what is damaged, again and again: what lies behind it is not in the table.
    /// [`UnknownTopic`](Error::UnknownTopic) if the topic was deleted; [`Io`](Error::Io), [`Closed`](Error::Closed),
    /// [`Forked`](Error::Forked). What was read before the error is in the table.
    pub fn refresh(&mut self) -> Result<u64> {
        self.catalog.check_open()?;
        if self.catalog.is_read_only() {
            self.catalog.follow()?;
        }
        if self.topic.is_deleted() {
            return Err(Error::UnknownTopic { topic: self.topic.name().to_string() });
        }
        for partition in self.topic.partitions().into_iter().skip(self.parts.len()) {
            let (start, cursor) = (partition.log_start(), partition.cursor());
            self.parts.push(Part { partition, cursor, position: start, start });
        }
        let mut records = 0;
        for part in 0..self.parts.len() {
            self.forget_deleted(part);
            while let Some(read) = self.read_some(part)? {
                records += read;
            }
        }
        Ok(records)
    }

    /// Takes out what is no longer in the partition.
    fn forget_deleted(&mut self, number: usize) {
        let part = &mut self.parts[number];
        let start = part.partition.log_start();
        if start > part.start {
            part.start = start;
            part.position = part.position.max(start);
            self.entries.retain(|_, entry| entry.part != number || entry.offset >= start);
        }
    }

    /// Reads a few records; how many, or `None` at the end.
    fn read_some(&mut self, number: usize) -> Result<Option<u64>> {
        let part = &mut self.parts[number];
        let chunk = match part.partition.read(&mut part.cursor, part.position, AT_ONCE) {
            // What was cut off had replaced something, which only the log knows.
            Err(Error::LogTruncated { .. }) => {
                part.cursor = part.partition.cursor();
                part.position = part.partition.log_start();
                self.entries.retain(|_, entry| entry.part != number);
                return Ok(Some(0));
            }
            // Deleted since it was looked at.
            Err(Error::OffsetOutOfRange { .. }) if part.partition.log_start() > part.position => {
                self.forget_deleted(number);
                return Ok(Some(0));
            }
            chunk => chunk?,
        };
        let Some(chunk) = chunk else { return Ok(None) };
        part.position = chunk.offsets.end;
        for record in chunk.records() {
            let Some(key) = record.key else { continue };
            let later = |entry: &Entry| entry.part != number && entry.timestamp > record.timestamp;
            if self.entries.get(key).is_some_and(later) {
                continue;
            }
            match record.value {
                None => drop(self.entries.remove(key)),
                Some(value) => {
                    let (offset, timestamp) = (record.offset, record.timestamp);
                    let entry = Entry { part: number, offset, timestamp, value: value.into() };
                    match self.entries.get_mut(key) {
                        Some(known) => *known = entry,
                        None => drop(self.entries.insert(key.into(), entry)),
                    }
                }
            }
        }
        Ok(Some(chunk.count as u64))
    }

    /// What is known of a key, as of the last refresh.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<TableRecord<'_>> {
        let (key, entry) = self.entries.get_key_value(key.as_ref())?;
        Some(self.record(key, entry))
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = TableRecord<'_>> {
        self.entries.iter().map(|(key, entry)| self.record(key, entry))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn record<'a>(&'a self, key: &'a [u8], entry: &'a Entry) -> TableRecord<'a> {
        let Entry { part, offset, timestamp, value } = entry;
        let partition = self.parts[*part].partition.name();
        TableRecord { key, value, partition, offset: *offset, timestamp: *timestamp }
    }
}
