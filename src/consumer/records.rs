//! What a poll returns: records that lie in mapped segments.

use std::fmt;
use std::slice;

use crate::codec::{Decode, decode_at};
use crate::env::point::{self, What};
use crate::error::Result;
use crate::format::batch::{RecordView, headers};
use crate::partition::{Chunk, ChunkRecords};
use crate::types::{Offset, Timestamp, TimestampType, TopicPartition};

/// Records that a poll returned. Keeps the segments mapped that they lie in.
#[derive(Clone, Debug, Default)]
pub struct ConsumerRecords {
    pub(super) chunks: Vec<(TopicPartition, Chunk)>,
}

impl ConsumerRecords {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|(_, chunk)| chunk.count).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chunks.iter().all(|(_, chunk)| chunk.count == 0)
    }

    /// The partitions that they are from, each once.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.last_chunks().map(|(name, _)| name)
    }

    /// The chunks of each partition: they are neighbours, and more than one where a segment ends.
    fn by_partition(&self) -> impl Iterator<Item = &[(TopicPartition, Chunk)]> {
        self.chunks.chunk_by(|(name, _), (next, _)| name == next)
    }

    fn last_chunks(&self) -> impl Iterator<Item = &(TopicPartition, Chunk)> {
        self.by_partition().filter_map(|chunks| chunks.last())
    }

    /// All of them, partition after partition, in order within each.
    #[inline]
    pub fn iter(&self) -> Records<'_> {
        Records::of(&self.chunks)
    }

    /// Those of one partition, in order.
    pub fn records<'a>(&'a self, partition: &TopicPartition) -> Records<'a> {
        Records::of(self.by_partition().find(|chunks| chunks[0].0 == *partition).unwrap_or_default())
    }

    /// For each partition the offset behind the last record: what to commit once they are processed. Kafka:
    /// `nextOffsets`.
    pub fn next_offsets(&self) -> impl Iterator<Item = (TopicPartition, Offset)> {
        self.last_chunks().map(|(name, chunk)| (name.clone(), chunk.offsets.end))
    }

    /// Where each of them lies, for who does not look at it.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&TopicPartition, Offset)> {
        self.chunks.iter().flat_map(|(partition, chunk)| chunk.records().map(move |view| (partition, view.offset)))
    }
}

impl<'a> IntoIterator for &'a ConsumerRecords {
    type Item = ConsumerRecord<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// An iterator over [`ConsumerRecords`].
pub struct Records<'a> {
    /// Those behind the one that is being read.
    chunks: slice::Iter<'a, (TopicPartition, Chunk)>,
    current: Option<(&'a TopicPartition, ChunkRecords<'a>)>,
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records")
    }
}

impl<'a> Records<'a> {
    #[inline]
    fn of(chunks: &'a [(TopicPartition, Chunk)]) -> Self {
        Records { chunks: chunks.iter(), current: None }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = ConsumerRecord<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<ConsumerRecord<'a>> {
        loop {
            if let Some((partition, records)) = &mut self.current
                && let Some(view) = records.next()
            {
                let offset = view.offset;
                point::reach(|| What::Take { partition, offset, key: view.key, value: view.value });
                return Some(ConsumerRecord { partition, view });
            }
            let Some((partition, chunk)) = self.chunks.next() else {
                point::note(|| What::TookAll);
                return None;
            };
            self.current = Some((partition, chunk.records()));
        }
    }
}

/// A record as a consumer sees it. Its bytes lie in a mapped segment.
#[derive(Clone, Copy)]
pub struct ConsumerRecord<'a> {
    partition: &'a TopicPartition,
    view: RecordView<'a>,
}

impl fmt::Debug for ConsumerRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConsumerRecord({}@{})", self.partition, self.view.offset)
    }
}

impl<'a> ConsumerRecord<'a> {
    /// The topic.
    #[inline]
    pub fn topic(&self) -> &'a str {
        self.partition.topic()
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition.partition()
    }

    /// The topic and the partition.
    pub fn topic_partition(&self) -> &'a TopicPartition {
        self.partition
    }

    /// The number of the record in its partition.
    #[inline]
    pub fn offset(&self) -> Offset {
        self.view.offset
    }

    /// When it came to be, or when it was appended; [`timestamp_type`](Self::timestamp_type) says which.
    pub fn timestamp(&self) -> Timestamp {
        self.view.timestamp
    }

    /// What the timestamp means.
    pub fn timestamp_type(&self) -> TimestampType {
        self.view.timestamp_type
    }

    /// The key, if there is one.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.view.key
    }

    /// The value; `None` in a tombstone.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.view.value
    }

    /// The headers, in the order in which they were added: name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        headers(self.view.headers)
    }

    /// The value of the last header of this name, if there is one that has a value. Kafka: `lastHeader`.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().filter(|(other, _)| *other == name).last().and_then(|(_, value)| value)
    }

    /// The value as a type of yours; `None` in a tombstone.
    ///
    /// # Errors
    ///
    /// [`Deserialization`](crate::Error::Deserialization) with topic, partition and offset. The records behind it can be read.
    pub fn decode_value<T, C: Decode<T>>(&self, codec: &C) -> Result<Option<T>> {
        decode_at(codec, || self.partition.clone(), self.view.offset, self.view.value)
    }

    /// The key as a type of yours; `None` without a key.
    ///
    /// # Errors
    ///
    /// As [`decode_value`](Self::decode_value).
    pub fn decode_key<T, C: Decode<T>>(&self, codec: &C) -> Result<Option<T>> {
        decode_at(codec, || self.partition.clone(), self.view.offset, self.view.key)
    }
}
