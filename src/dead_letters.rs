//! What becomes of records whose processing fails: they are tried again for a while, then put aside, and the group goes on.
//!
//! | what the handler says                    | what is done                                                              |
//! |------------------------------------------|---------------------------------------------------------------------------|
//! | done                                     | the next record                                                           |
//! | failed, may be tried again               | wait, longer each time, then the same record again                        |
//! | the same, but the next poll is due first | this record and all behind it are postponed: the next poll returns them   |
//! | failed for good, or tried often enough   | a copy goes to the dead-letter topic; when it is durable, the next record |
//! | nothing, because it panics               | the panic goes on, and the positions are at this record                   |
//!
//! Positions move with the processing, not with the poll: whatever ends it early moves them back to what was not
//! processed. So a commit, whether automatic or not, in a later poll or in closing, never covers that. A consumer that
//! commits only what is stored has stored what was processed.
//!
//! The headers of a dead letter are those that Kafka's brokers write for share groups (KIP-1191): numbers as decimal text,
//! the names as in [`HEADERS`]. Kafka has no timestamp among them; that one is named after the others.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::consumer::{Consumer, ConsumerRecord, ConsumerRecords};
use crate::error::{Error, Result};
use crate::producer::Producer;
use crate::record::{Header, ProducerRecord};
use crate::types::{Offset, TopicPartition};

/// The names of the headers, in the order in which they stand behind those of the record itself.
const HEADERS: [&str; 7] = [
    "__dlq.errors.topic",
    "__dlq.errors.partition",
    "__dlq.errors.offset",
    "__dlq.errors.timestamp",
    "__dlq.errors.group",
    "__dlq.errors.delivery.count",
    "__dlq.errors.message",
];

/// What of the message of an error fits into a header, in bytes: enough to see the cause, and no more than a record can
/// spare.
const MAX_MESSAGE_BYTES: usize = 1024;

/// How often a record is tried, and how long is waited in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterConfig {
    delivery_count_limit: u32,
    retry_backoff: Duration,
    retry_backoff_max: Duration,
}

impl Default for DeadLetterConfig {
    fn default() -> Self {
        DeadLetterConfig {
            delivery_count_limit: 5,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_millis(1000),
        }
    }
}

impl DeadLetterConfig {
    /// Five attempts, with 100, 200, 400 and 800 ms between them.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often a record is handed to the handler before it becomes a dead letter. Default: 5. From 1: never again.
    /// Kafka: `group.share.delivery.count.limit`.
    #[must_use]
    pub fn delivery_count_limit(mut self, limit: u32) -> Self {
        self.delivery_count_limit = limit;
        self
    }

    /// How long is waited after the first attempt, by the log's clock; twice as long after each one more. Default: 100 ms.
    /// Kafka: `retry.backoff.ms`, but without the jitter that keeps clients from coming to a broker all at once.
    #[must_use]
    pub fn retry_backoff(mut self, backoff: Duration) -> Self {
        self.retry_backoff = backoff;
        self
    }

    /// The longest that is waited between two attempts. Default: 1 s. Kafka: `retry.backoff.max.ms`.
    #[must_use]
    pub fn retry_backoff_max(mut self, backoff: Duration) -> Self {
        self.retry_backoff_max = backoff;
        self
    }

    /// How long is waited after so many attempts, at least one.
    fn backoff_after(&self, attempts: u32) -> Duration {
        let factor = 2u32.saturating_pow(attempts - 1);
        self.retry_backoff.saturating_mul(factor).min(self.retry_backoff_max)
    }

    fn check(&self) -> Result<()> {
        if self.delivery_count_limit == 0 {
            let reason = "it is at least 1: every record is tried once".into();
            return Err(Error::InvalidConfig { setting: "delivery.count.limit", reason });
        }
        Ok(())
    }

    /// A member that waits longer than it may without polling is put out of its group, and would be again and again.
    fn check_fits(&self, max_poll_interval: Duration) -> Result<()> {
        let longest = match self.delivery_count_limit {
            0 | 1 => Duration::ZERO,
            attempts => self.backoff_after(attempts - 1),
        };
        if longest < max_poll_interval {
            return Ok(());
        }
        Err(Error::InvalidConfig {
            setting: "retry.backoff.max.ms",
            reason: format!(
                "up to {longest:?} pass between two attempts, and the consumer has to poll every {max_poll_interval:?}; \
                 wait less, or raise its max_poll_interval"
            ),
        })
    }
}

/// Why a record could not be processed. Every [`std::error::Error`] becomes one with `?`, that is tried again.
#[derive(Clone, Debug)]
pub struct ProcessingError {
    message: String,
    retriable: bool,
}

impl ProcessingError {
    /// It may go well the next time: somebody else was not there, or busy. Kafka: `AcknowledgeType.RELEASE`.
    pub fn retriable(message: impl fmt::Display) -> Self {
        ProcessingError { message: message.to_string(), retriable: true }
    }

    /// It will not go well ever, so it is not tried again: the record itself is bad. Kafka: `AcknowledgeType.REJECT`.
    pub fn fatal(message: impl fmt::Display) -> Self {
        ProcessingError { message: message.to_string(), retriable: false }
    }
}

impl fmt::Display for ProcessingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// With the errors beneath it, because the record is read long after the program's own log is gone.
impl<E: StdError> From<E> for ProcessingError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        ProcessingError { message, retriable: true }
    }
}

/// What became of the records of a poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processed {
    /// How many the handler was done with.
    pub done: usize,
    /// How many went to the dead-letter topic.
    pub dead_letters: usize,
    /// How many there was no time for before the next poll, which returns them again.
    pub postponed: usize,
}

/// Processes polled records one by one: what fails is tried again, and in the end put into a dead-letter topic, so that a
/// record that nobody can process does not stand in the way of those behind it.
///
/// ```
/// # fn main() -> tidelog::Result<()> {
/// # use std::time::Duration;
/// # let directory = tempfile::tempdir().unwrap();
/// # let log = tidelog::EventLog::open(directory.path())?;
/// use tidelog::{
///     ConsumerConfig, DeadLetterConfig, DeadLetterQueue, OffsetReset, ProcessingError, ProducerRecord, TopicConfig,
/// };
///
/// log.create_topic("orders", TopicConfig::new())?;
/// log.create_topic("dlq.orders", TopicConfig::new())?;
/// for amount in ["12.50", "a lot", "3.20"] {
///     log.producer().send(ProducerRecord::new("orders", amount))?;
/// }
/// # log.producer().flush()?;
///
/// let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
/// let mut consumer = log.consumer(config)?;
/// consumer.subscribe(["orders"])?;
/// let mut dead_letters = DeadLetterQueue::new(log.producer(), "dlq.orders", DeadLetterConfig::new())?;
///
/// let records = consumer.poll(Duration::from_millis(100))?;
/// let processed = dead_letters.process(&mut consumer, &records, |record| {
///     let amount = String::from_utf8_lossy(record.value().unwrap_or_default());
///     // It will not become a number by being tried again.
///     let _amount: f64 = amount.parse().map_err(ProcessingError::fatal)?;
///     Ok(()) // or an error with `?`, of a database say, after which the record is tried again
/// })?;
/// consumer.commit()?; // done, or safe in the dead-letter topic
///
/// assert_eq!((processed.done, processed.dead_letters), (2, 1));
/// # Ok(())
/// # }
/// ```
///
/// A dead letter has the key, the value and the headers of the record, and behind those where it came from, why it failed
/// and how often, as text: `__dlq.errors.topic`, `.partition`, `.offset`, `.timestamp` (milliseconds), `.group`,
/// `.delivery.count` and `.message` (the first 1,024 bytes). These are the names of Kafka's own dead letters (KIP-1191,
/// share groups), and that of the timestamp is made after them. It goes to the partition of the record's number, counted
/// around if there are fewer; its own timestamp is when it was put aside, so that retention counts from then. Kafka's
/// brokers want the names of such topics to begin with `dlq.`.
///
/// A crash between the dead letter and the commit leaves the record to be processed again, and perhaps put aside again:
/// partition and offset tell that it is the same.
#[derive(Debug)]
pub struct DeadLetterQueue {
    producer: Producer,
    topic: String,
    config: DeadLetterConfig,
    /// Of each partition the record that is to be tried again.
    failed: BTreeMap<TopicPartition, Failed>,
}

/// A record that was tried in vain.
#[derive(Clone, Copy, Debug)]
struct Failed {
    offset: Offset,
    attempts: u32,
    /// When it is to be tried again, by the log's clock.
    next: Duration,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    DeadLetter,
    Postponed,
}

impl DeadLetterQueue {
    /// Puts aside in this topic what cannot be processed.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic), unless the log creates topics by itself;
    /// [`InvalidConfig`](Error::InvalidConfig).
    pub fn new(producer: Producer, topic: impl Into<String>, config: DeadLetterConfig) -> Result<Self> {
        config.check()?;
        let topic = topic.into();
        producer.partition_count(&topic)?;
        Ok(DeadLetterQueue { producer, topic, config, failed: BTreeMap::new() })
    }

    /// Hands the records to `handler`, in their order, as often as it takes; those behind one that fails wait for it.
    ///
    /// When this returns `Ok`, all are done or durably put aside, but for those that were *postponed*: there was no time to
    /// wait for the next attempt at one of them, because the consumer has to poll before its
    /// [`max_poll_interval`](crate::ConsumerConfig::max_poll_interval) is over. Its position was moved back to them, so poll and
    /// process on; how often a record was tried is not forgotten. It makes no difference for committing: commit whatever this
    /// returned, or leave it to automatic commits.
    ///
    /// # Errors
    ///
    /// The consumer's position is at the first record that is neither done nor put aside, so nothing is lost whatever is
    /// committed. What sending the dead letter and waiting for it can meet; [`Wakeup`](Error::Wakeup) if
    /// [`ConsumerWaker::wake`](crate::ConsumerWaker::wake) was called while waiting for the next attempt;
    /// [`InvalidConfig`](Error::InvalidConfig) if the consumer may not wait that long;
    /// [`InvalidState`](Error::InvalidState) if the records are of the dead-letter topic itself.
    ///
    /// # Panics
    ///
    /// If the handler does; the position is moved back then, too.
    pub fn process<F>(
        &mut self,
        consumer: &mut Consumer,
        records: &ConsumerRecords,
        mut handler: F,
    ) -> Result<Processed>
    where
        F: FnMut(&ConsumerRecord<'_>) -> Result<(), ProcessingError>,
    {
        let mut rest = Rest { consumer, records, passed: 0 };
        self.check(&rest)?;
        let mut processed = Processed::default();
        for record in records {
            match self.settle(rest.consumer, &record, &mut handler)? {
                Outcome::Done => processed.done += 1,
                Outcome::DeadLetter => processed.dead_letters += 1,
                Outcome::Postponed => {
                    processed.postponed = records.len() - rest.passed;
                    break;
                }
            }
            rest.passed += 1;
        }
        Ok(processed)
    }

    fn check(&self, rest: &Rest<'_>) -> Result<()> {
        if let Some(interval) = rest.consumer.max_poll_interval() {
            self.config.check_fits(interval)?;
        }
        if rest.records.partitions().any(|partition| partition.topic() == self.topic) {
            let reason = format!("the records are of the dead-letter topic itself, {:?}; give it another", self.topic);
            return Err(Error::InvalidState { reason });
        }
        Ok(())
    }

    /// Tries a record until something has become of it.
    fn settle(
        &mut self,
        consumer: &Consumer,
        record: &ConsumerRecord<'_>,
        handler: &mut impl FnMut(&ConsumerRecord<'_>) -> Result<(), ProcessingError>,
    ) -> Result<Outcome> {
        loop {
            let failed = self.failed.get(record.topic_partition()).filter(|failed| failed.offset == record.offset());
            let attempts = failed.map_or(0, |failed| failed.attempts);
            if !wait_until(consumer, failed.map(|failed| failed.next))? {
                return Ok(Outcome::Postponed);
            }
            let Err(error) = handler(record) else {
                self.failed.remove(record.topic_partition());
                return Ok(Outcome::Done);
            };
            let attempts = attempts.saturating_add(1);
            let next = consumer.monotonic().saturating_add(self.config.backoff_after(attempts));
            self.failed.insert(record.topic_partition().clone(), Failed { offset: record.offset(), attempts, next });
            if !error.retriable || attempts >= self.config.delivery_count_limit {
                self.put_aside(consumer, record, attempts, &error)?;
                self.failed.remove(record.topic_partition());
                return Ok(Outcome::DeadLetter);
            }
        }
    }

    /// Sends the dead letter, and waits until it is as durable as its topic promises.
    fn put_aside(
        &self,
        consumer: &Consumer,
        record: &ConsumerRecord<'_>,
        attempts: u32,
        error: &ProcessingError,
    ) -> Result<()> {
        let values = [
            record.topic().to_owned(),
            record.partition().to_string(),
            record.offset().to_string(),
            record.timestamp().to_string(),
            consumer.group_name().unwrap_or_default().to_owned(),
            attempts.to_string(),
            shortened(&error.message).to_owned(),
        ];
        let (key, value) = (record.key().map(Cow::Borrowed), record.value().map(Cow::Borrowed));
        let mut letter = ProducerRecord::from_parts(&self.topic, key, value)
            .partition(record.partition() % self.producer.partition_count(&self.topic)?);
        let own = |(name, value): (_, Option<_>)| Header { name: Cow::Borrowed(name), value: value.map(Cow::Borrowed) };
        letter.headers.extend(record.headers().map(own));
        for (name, value) in HEADERS.into_iter().zip(&values) {
            letter = letter.header(name, value);
        }
        self.producer.send(letter)?.wait().map(drop)
    }
}

/// Waits for the next attempt, if there is to be one. Returns whether there is time for it before the next poll.
fn wait_until(consumer: &Consumer, next: Option<Duration>) -> Result<bool> {
    let now = consumer.monotonic();
    let next = next.unwrap_or(now).max(now);
    if consumer.poll_deadline().is_some_and(|deadline| next >= deadline) {
        return Ok(false);
    }
    if next > now {
        consumer.wait_for(next - now)?;
    }
    Ok(true)
}

/// As much of the message as fits.
fn shortened(message: &str) -> &str {
    let mut end = message.len().min(MAX_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

/// The records of a poll, and how many of them were processed. Dropping it moves the consumer back to the others.
struct Rest<'a> {
    consumer: &'a mut Consumer,
    records: &'a ConsumerRecords,
    passed: usize,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        let stores = !self.consumer.polling_stores();
        if self.passed == self.records.len() && !stores {
            return;
        }
        let mut rest: BTreeMap<&TopicPartition, Offset> = BTreeMap::new();
        // They are not taken by anybody, and a simulation that ended here would unwind out of a drop.
        for (partition, offset) in self.records.places().skip(self.passed) {
            rest.entry(partition).or_insert(offset);
        }
        for (partition, end) in self.records.next_offsets() {
            let next = rest.get(&partition).copied();
            // If the consumer has the partition no more, others process the records.
            if let Some(next) = next {
                drop(self.consumer.seek(&partition, next));
            }
            if stores {
                drop(self.consumer.store_offsets([(partition, next.unwrap_or(end))]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_its_maximum() {
        let config = DeadLetterConfig::new();
        let waits: Vec<u128> = (1..8).map(|attempts| config.backoff_after(attempts).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(config.backoff_after(u32::MAX), Duration::from_secs(1));

        // Kafka: a maximum below the first backoff is used from the beginning.
        let constant = DeadLetterConfig::new().retry_backoff(Duration::from_secs(9));
        assert_eq!(constant.backoff_after(1), Duration::from_secs(1));
    }

    #[test]
    fn a_message_is_cut_between_two_characters() {
        assert_eq!(shortened("short"), "short");
        let long = "ü".repeat(600);
        assert_eq!(shortened(&long), &long[..1024]);
        let odd = format!("a{long}");
        assert_eq!(shortened(&odd), &odd[..1023]);
    }
}
