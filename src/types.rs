//! The small words of the log: offsets, positions, timestamps, names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The number of a record within its partition, counting from zero.
///
/// Offsets are given once and never again. They are dense as long as nothing was compacted or lost. An
/// offset is a logical number; the byte at which a record lies in a file is a position, and the two
/// never mix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// The offset with this number.
    #[inline]
    pub const fn new(number: u64) -> Self {
        Offset(number)
    }

    /// The number itself.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `count` records further on.
    ///
    /// # Panics
    ///
    /// Panics past `u64::MAX`: at a billion records a second that is five centuries away.
    #[inline]
    #[must_use]
    pub const fn advance(self, count: u64) -> Self {
        match self.0.checked_add(count) {
            Some(number) => Offset(number),
            None => panic!("offset overflow"),
        }
    }

    /// The same for an offset that hostile bytes may have chosen: no further than to the highest.
    #[inline]
    #[must_use]
    pub(crate) const fn saturating_advance(self, count: u64) -> Self {
        Offset(self.0.saturating_add(count))
    }

    /// How many offsets lie between `earlier` and this one; zero if `earlier` is the later one.
    #[inline]
    pub const fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<u64> for Offset {
    fn from(number: u64) -> Self {
        Offset(number)
    }
}

/// Milliseconds since the Unix epoch, as Kafka counts them. Negative before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The timestamp this many milliseconds after (or, if negative, before) the Unix epoch.
    #[inline]
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[inline]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This timestamp moved forward by `by`; stops at the end of time instead of overflowing.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Timestamp {
    /// This timestamp moved back by `by`; stops at the beginning of time instead of overflowing.
    pub(crate) fn saturating_sub(self, by: Duration) -> Self {
        Timestamp(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is before.
    pub(crate) fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(i128::from(self.0) - i128::from(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What the timestamp of a record means. Kafka: `message.timestamp.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// When the record came to be: what the producer says, or else the clock at `send`.
    #[default]
    Create,
    /// When the record was appended; what the producer says is replaced.
    Append,
}

/// A partition of a topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    topic: Arc<str>,
    partition: u32,
}

impl TopicPartition {
    /// Partition number `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }

    /// The name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The number of the partition, counting from zero.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    pub(crate) fn shared_topic(&self) -> &Arc<str> {
        &self.topic
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: Into<Arc<str>>> From<(T, u32)> for TopicPartition {
    fn from((topic, partition): (T, u32)) -> Self {
        TopicPartition::new(topic, partition)
    }
}

/// An offset to commit for a partition, and a note that is kept with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// The offset of the *next* record to read: that of the last one processed, plus one.
    pub offset: Offset,
    /// Free text of the consumer's own, at most 4,096 bytes. Kafka: `offset.metadata.max.bytes`.
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// `offset` with a note.
    pub fn new(offset: impl Into<Offset>, metadata: impl Into<String>) -> Self {
        OffsetAndMetadata { offset: offset.into(), metadata: metadata.into() }
    }
}

impl From<Offset> for OffsetAndMetadata {
    fn from(offset: Offset) -> Self {
        OffsetAndMetadata { offset, metadata: String::new() }
    }
}

/// A record that was found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetAndTimestamp {
    /// Its offset.
    pub offset: Offset,
    /// Its own timestamp, which may be later than the one that was asked for.
    pub timestamp: Timestamp,
}

impl From<(Offset, Timestamp)> for OffsetAndTimestamp {
    fn from((offset, timestamp): (Offset, Timestamp)) -> Self {
        OffsetAndTimestamp { offset, timestamp }
    }
}

/// The longest topic name, in bytes. Kafka leaves room for `-<partition>` and a suffix in a file name of 255.
pub(crate) const MAX_TOPIC_NAME_BYTES: usize = 249;

/// Why `name` cannot be the name of a topic, by Kafka's rules (`Topic.validate`).
pub(crate) fn topic_name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name == "." || name == ".." {
        Some("\".\" and \"..\" mean directories")
    } else if name.len() > MAX_TOPIC_NAME_BYTES {
        Some("it is longer than 249 bytes")
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        Some("only ASCII letters, digits, '.', '_' and '-' are allowed")
    } else {
        None
    }
}

/// Whether two names are one to Kafka (equal once `.` is read as `_`) or to a file system that ignores case.
///
/// Kafka refuses the first pair because its metric names would clash; the second would share a directory.
pub(crate) fn topic_names_collide(a: &str, b: &str) -> bool {
    let unify = |byte: u8| if byte == b'.' { b'_' } else { byte.to_ascii_lowercase() };
    a.len() == b.len() && a.bytes().map(unify).eq(b.bytes().map(unify))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../tests/vectors/topic_names.json")).unwrap()
    }

    /// The names in a list of Kafka's test; some are given as a letter and how often to repeat it.
    fn names(list: &Value) -> Vec<String> {
        let name = |entry: &Value| match entry.as_str() {
            Some(name) => name.to_owned(),
            None => entry["repeat"].as_str().unwrap().repeat(entry["times"].as_u64().unwrap().try_into().unwrap()),
        };
        let names: Vec<_> = list.as_array().unwrap().iter().map(name).collect();
        assert!(!names.is_empty());
        names
    }

    fn pairs(list: &Value) -> Vec<(String, String)> {
        list.as_array().unwrap().iter().map(|pair| <[_; 2]>::try_from(names(pair)).unwrap().into()).collect()
    }

    #[test]
    fn kafkas_valid_topic_names_are_valid() {
        let vectors = vectors();
        for name in names(&vectors["valid"]).into_iter().chain(names(&vectors["internal"])) {
            assert_eq!(topic_name_fault(&name), None, "{name:?}");
        }
    }

    #[test]
    fn kafkas_invalid_topic_names_are_invalid() {
        let vectors = vectors();
        for name in names(&vectors["invalid"]) {
            assert!(topic_name_fault(&name).is_some(), "{name:?}");
        }
        for extra in vectors["invalid_extra"].as_array().unwrap() {
            assert!(topic_name_fault(extra["name"].as_str().unwrap()).is_some(), "{extra}");
        }
        for character in names(&vectors["invalid_characters"]) {
            assert!(topic_name_fault(&format!("Is{character}illegal")).is_some(), "{character:?}");
        }
    }

    #[test]
    fn names_of_other_alphabets_are_invalid_whatever_their_bytes_look_like() {
        for name in ["żółw", "日本", "a\u{301}", "\u{ff0e}\u{ff0e}"] {
            assert!(topic_name_fault(name).is_some(), "{name:?}");
        }
    }

    #[test]
    fn names_collide_as_in_kafka() {
        let collides = &vectors()["collides"];
        for (expected, list) in [(true, &collides["true"]), (false, &collides["false"])] {
            for (a, b) in pairs(list) {
                assert_eq!(topic_names_collide(&a, &b), expected, "{a} and {b}");
                assert_eq!(topic_names_collide(&b, &a), expected, "{b} and {a}");
            }
        }
        for (name, unified) in pairs(&vectors()["unify"]) {
            assert!(topic_names_collide(&name, &unified), "{name} and {unified}");
        }
    }

    #[test]
    fn names_that_differ_in_case_only_collide_although_kafka_allows_them() {
        assert!(topic_names_collide("Orders.EU", "orders_eu"));
        assert!(!topic_names_collide("orders", "orders1"));
    }
}
