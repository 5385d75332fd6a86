//! What a producer hands over and what it gets back.

use std::borrow::Cow;
use std::sync::Arc;

use crate::types::{Offset, Timestamp, TopicPartition};

/// A name and a value that travel with a record. The order and duplicates are kept. Kafka: record header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) value: Option<Cow<'a, [u8]>>,
}

impl Header<'_> {
    /// The name; may be empty, and need not be the only one of its kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, if there is one.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }
}

/// A record on its way into a topic. Borrows what it is made of; `send` copies it once, into the log.
///
/// ```
/// use tidelog::ProducerRecord;
///
/// let record = ProducerRecord::new("orders", b"paid 12.50").key(b"user-7").header("trace", b"1");
/// assert_eq!(record.topic(), "orders");
/// ```
#[derive(Clone, Debug)]
pub struct ProducerRecord<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<u32>,
    pub(crate) key: Option<Cow<'a, [u8]>>,
    pub(crate) value: Option<Cow<'a, [u8]>>,
    pub(crate) headers: Vec<Header<'a>>,
    pub(crate) timestamp: Option<Timestamp>,
}

impl<'a> ProducerRecord<'a> {
    /// A record with this value and, for now, no key.
    #[inline]
    pub fn new<V: AsRef<[u8]> + ?Sized>(topic: &'a str, value: &'a V) -> Self {
        Self::from_parts(topic, None, Some(Cow::Borrowed(value.as_ref())))
    }

    /// A record with a key and without a value: in a compacted topic it deletes the key.
    #[inline]
    pub fn tombstone<K: AsRef<[u8]> + ?Sized>(topic: &'a str, key: &'a K) -> Self {
        Self::from_parts(topic, Some(Cow::Borrowed(key.as_ref())), None)
    }

    #[inline]
    pub(crate) fn from_parts(topic: &'a str, key: Option<Cow<'a, [u8]>>, value: Option<Cow<'a, [u8]>>) -> Self {
        ProducerRecord { topic, partition: None, key, value, headers: Vec::new(), timestamp: None }
    }

    /// Gives the record a key. Records of one key go to one partition and keep their order.
    #[inline]
    #[must_use]
    pub fn key<K: AsRef<[u8]> + ?Sized>(self, key: &'a K) -> Self {
        ProducerRecord { key: Some(Cow::Borrowed(key.as_ref())), ..self }
    }

    /// Adds a header behind those that the record has.
    #[must_use]
    pub fn header<V: AsRef<[u8]> + ?Sized>(mut self, name: &'a str, value: &'a V) -> Self {
        self.headers.push(Header { name: Cow::Borrowed(name), value: Some(Cow::Borrowed(value.as_ref())) });
        self
    }

    /// Adds a header that has a name only.
    #[must_use]
    pub fn header_without_value(mut self, name: &'a str) -> Self {
        self.headers.push(Header { name: Cow::Borrowed(name), value: None });
        self
    }

    /// Sends the record to this partition, whatever the partitioner thinks.
    #[inline]
    #[must_use]
    pub fn partition(self, partition: u32) -> Self {
        ProducerRecord { partition: Some(partition), ..self }
    }

    /// Says when the record came to be; without it, the clock at `send` does. Must not be negative.
    #[inline]
    #[must_use]
    pub fn timestamp(self, timestamp: Timestamp) -> Self {
        ProducerRecord { timestamp: Some(timestamp), ..self }
    }

    /// The topic that the record goes to.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The key, if there is one.
    pub fn key_bytes(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The value, if there is one.
    pub fn value_bytes(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// The headers, in order.
    pub fn headers(&self) -> &[Header<'a>] {
        &self.headers
    }

    /// The bytes of key, value and headers together, without what the format adds.
    pub fn payload_bytes(&self) -> usize {
        let length = |bytes: &Option<Cow<'_, [u8]>>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        let headers: usize = self.headers.iter().map(|header| header.name.len() + length(&header.value)).sum();
        length(&self.key) + length(&self.value) + headers
    }
}

/// Where a record went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
}

impl RecordMetadata {
    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The topic and the partition.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(Arc::clone(&self.topic), self.partition)
    }

    /// The number of the record in its partition.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The timestamp that was stored.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}
