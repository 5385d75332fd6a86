//! Producing: route a record to a partition, append it, and say when it is as durable as promised.

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::config::ProducerConfig;
use crate::env::point::{self, What};
use crate::env::refusals::Call;
use crate::error::{Error, Result};
use crate::format::batch::Draft;
use crate::partition::{Listener, Partition};
use crate::partitioner::Route;
use crate::record::{ProducerRecord, RecordMetadata};
use crate::topic::Topic;
use crate::types::{Offset, Timestamp, TimestampType, TopicPartition};

/// What keeps the log open: when the last one is dropped, it is closed.
pub(crate) type Lifeline = Arc<dyn Any + Send + Sync>;

/// Sends records. Cheap to clone, and clones may be used from many threads: they share what is decided per producer,
/// such as the partition that records without a key stick to.
///
/// `send` copies the record into the log before it returns, so an accepted record survives the death of the process.
/// When it also survives a power cut is what its [`Delivery`] tells, by the topic's [`Durability`](crate::Durability).
///
/// ```
/// # fn main() -> tidelog::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let log = tidelog::EventLog::open(directory.path())?;
/// # log.create_topic("orders", tidelog::TopicConfig::new())?;
/// use tidelog::ProducerRecord;
///
/// let producer = log.producer();
/// producer.send(ProducerRecord::new("orders", b"paid 12.50").key(b"user-7"))?; // sent and forgotten
/// let delivery = producer.send(ProducerRecord::new("orders", b"paid 3.20"))?;
/// assert_eq!(delivery.wait()?.partition(), 0); // synchronous
/// producer.flush()?; // all of them
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer({:?})", self.shared.config)
    }
}

/// Topics that a producer finds without a lock.
const FAST_ROUTES: usize = 8;

struct Shared {
    catalog: Arc<Catalog>,
    config: ProducerConfig,
    /// The first topics that were sent to; the others, and those that changed, are behind the mutex.
    fast: [OnceLock<Arc<Way>>; FAST_ROUTES],
    slow: Mutex<Vec<Arc<Way>>>,
    closed: AtomicBool,
    seed: u64,
    _lifeline: Lifeline,
}

/// A way that was found.
enum WayRef<'a> {
    Fast(&'a Way),
    Slow(Arc<Way>),
}

impl Deref for WayRef<'_> {
    type Target = Way;

    #[inline]
    fn deref(&self) -> &Way {
        match self {
            WayRef::Fast(way) => way,
            WayRef::Slow(way) => way,
        }
    }
}

/// The way to a topic, as this producer sees it: its partitions, and where the partitioner stands.
struct Way {
    topic: Arc<Topic>,
    /// That of the topic, apart from the counter of those who share it: consumers that count up and down would have every
    /// look at the name wait for the memory.
    name: Box<str>,
    partitions: Vec<Arc<Partition>>,
    route: Route,
}

impl Way {
    #[inline]
    fn is_current(&self) -> bool {
        self.topic.count() as usize == self.partitions.len() && !self.topic.is_deleted()
    }

    /// The partition that the record says or the partitioner chooses.
    #[inline]
    fn choose(&self, config: &ProducerConfig, record: &ProducerRecord<'_>) -> Result<&Arc<Partition>> {
        let number = match record.partition {
            Some(number) => number,
            None => self.route.choose(&config.partitioner, record, self.partitions.len() as u32),
        };
        self.partitions.get(number as usize).ok_or_else(|| Error::UnknownPartition {
            partition: TopicPartition::new(Arc::clone(self.topic.name()), number),
            partitions: self.topic.count(),
        })
    }
}

impl Producer {
    pub(crate) fn new(catalog: Arc<Catalog>, config: ProducerConfig, seed: u64, lifeline: Lifeline) -> Self {
        let (fast, slow) = (Default::default(), Mutex::default());
        let closed = AtomicBool::new(false);
        Producer { shared: Arc::new(Shared { catalog, config, fast, slow, closed, seed, _lifeline: lifeline }) }
    }

    /// Appends a record. When this returns, the record is in the log and survives the death of the process; the
    /// delivery tells when it is as durable as its topic promises. Dropping the delivery is sending and forgetting.
    ///
    /// # Errors
    ///
    /// Nothing was written in any case. [`UnknownTopic`](Error::UnknownTopic),
    /// [`UnknownPartition`](Error::UnknownPartition), [`RecordTooLarge`](Error::RecordTooLarge),
    /// [`InvalidTimestamp`](Error::InvalidTimestamp), [`NoSpace`](Error::NoSpace) and
    /// [`PartitionFull`](Error::PartitionFull) until there is room, [`SyncFailed`](Error::SyncFailed) after a failed sync of the partition, [`Closed`](Error::Closed),
    /// [`ReadOnly`](Error::ReadOnly).
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "a record is built for one call, and reads better so")]
    pub fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery> {
        self.send_record(&record, None)
    }

    /// Appends a record, and calls back when it is delivered or will never be.
    ///
    /// The callbacks of one partition run in the order of its records, one at a time, on whatever thread finds out:
    /// this one before `send_with` returns, one that waits for a sync, or the background worker. They may send, but
    /// must not wait for a delivery. A callback that panics is left there; its record is written.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and then the callback is not called.
    #[expect(clippy::needless_pass_by_value, reason = "a record is built for one call, and reads better so")]
    pub fn send_with<F>(&self, record: ProducerRecord<'_>, callback: F) -> Result<()>
    where
        F: FnOnce(Result<RecordMetadata>) + Send + 'static,
    {
        self.send_record(&record, Some(Box::new(callback))).map(drop)
    }

    #[inline]
    fn send_record(&self, record: &ProducerRecord<'_>, callback: Option<MetadataCallback>) -> Result<Delivery> {
        point::reach(|| What::Send);
        self.shared.catalog.env().refusals.check(Call::Send)?;
        let way = self.way(record.topic)?;
        let partition = way.choose(&self.shared.config, record)?;
        way.topic.check_key(record.key.as_deref())?;
        let timestamp = Self::timestamp(&way.topic, record, || self.now())?;
        let draft = draft(record, timestamp);
        let offset = match callback {
            None => partition.append(&[draft]),
            Some(callback) => self.append_with(partition, draft, callback),
        };
        point::pass();
        let offset = offset?;
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        point::note(|| What::Sent { partition: partition.name(), offset, key, value });
        Ok(Delivery { partition: Arc::clone(partition), offset, timestamp })
    }

    fn append_with(&self, partition: &Arc<Partition>, draft: Draft<'_>, callback: MetadataCallback) -> Result<Offset> {
        let name = partition.name().clone();
        let timestamp = draft.timestamp;
        partition.append_then(
            &[draft],
            Some(Box::new(move |offset, result: Result<()>| {
                callback(result.map(|()| metadata(&name, offset, timestamp)));
            })),
        )
    }

    /// Appends records, those of each partition as one batch: all of them are there after a crash, or none.
    ///
    /// Much faster than one at a time, because checksum and header are shared. Records keep their order within a
    /// partition. The clock is read once for all that have no timestamp of their own.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send). All records are checked before any is written; what a partition refuses later
    /// ([`NoSpace`](Error::NoSpace), [`SyncFailed`](Error::SyncFailed)) leaves the batches of the partitions before
    /// it written.
    pub fn send_batch<'a, I>(&self, records: I) -> Result<BatchDelivery>
    where
        I: IntoIterator<Item = ProducerRecord<'a>>,
    {
        point::reach(|| What::Send);
        let records: Vec<ProducerRecord<'a>> = records.into_iter().collect();
        let mut parts: Vec<Part> = Vec::new();
        let mut drafts: Vec<Vec<Draft<'_>>> = Vec::new();
        let mut places = Vec::with_capacity(records.len());
        let now = OnceCell::new();
        let mut last: Option<(&str, WayRef<'_>)> = None;
        for record in &records {
            let (_, way) = match &mut last {
                Some(last) if ptr::eq(last.0, record.topic) => last,
                last => last.insert((record.topic, self.way(record.topic)?)),
            };
            let partition = way.choose(&self.shared.config, record)?;
            way.topic.check_key(record.key.as_deref())?;
            let timestamp = Self::timestamp(&way.topic, record, || *now.get_or_init(|| self.now()))?;
            let part = match parts.iter().position(|part| Arc::ptr_eq(&part.partition, partition)) {
                Some(part) => part,
                None => {
                    parts.push(Part { partition: Arc::clone(partition), base: Offset::ZERO, count: 0 });
                    drafts.push(Vec::with_capacity(records.len()));
                    parts.len() - 1
                }
            };
            places.push(Place { part, index: drafts[part].len() as u64, timestamp });
            drafts[part].push(draft(record, timestamp));
        }
        if parts.len() > 1 {
            for (part, drafts) in parts.iter().zip(&drafts) {
                part.partition.check_batch(drafts)?;
            }
        }
        for (number, (part, drafts)) in parts.iter_mut().zip(&drafts).enumerate() {
            part.base = part.partition.append(drafts)?;
            part.count = drafts.len() as u64;
            let (partition, base) = (part.partition.name(), part.base);
            for (place, record) in places.iter().zip(&records).filter(|(place, _)| place.part == number) {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                point::note(|| What::Sent { partition, offset: base.advance(place.index), key, value });
            }
        }
        point::pass();
        Ok(BatchDelivery { parts, places })
    }

    /// Waits until everything that was sent before, by any producer of the log, is as durable as its topic promises.
    ///
    /// In a `Sync` topic that costs one sync for however many records; at the other levels nothing is waited for.
    ///
    /// # Errors
    ///
    /// [`SyncFailed`](Error::SyncFailed) if a partition could not be synced: what was sent to it last is in doubt.
    pub fn flush(&self) -> Result<()> {
        self.flush_within(None)
    }

    /// [`flush`](Self::flush) for at most this long.
    ///
    /// # Errors
    ///
    /// Also [`Timeout`](Error::Timeout); the records are sent all the same.
    pub fn flush_timeout(&self, timeout: Duration) -> Result<()> {
        self.flush_within(Some(timeout))
    }

    fn flush_within(&self, timeout: Option<Duration>) -> Result<()> {
        point::reach(|| What::Wait);
        let flushed = flush(&self.shared.catalog, timeout);
        point::pass();
        flushed
    }

    /// Flushes, and refuses to send from now on, through all clones.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush); the producer is closed in any case.
    pub fn close(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        self.flush()
    }

    /// How many partitions a topic has; it is created now if the log is configured to.
    pub(crate) fn partition_count(&self, topic: &str) -> Result<u32> {
        Ok(self.way(topic)?.topic.count())
    }

    /// The way to a topic, which is created now if the log is configured to.
    #[inline]
    fn way(&self, topic: &str) -> Result<WayRef<'_>> {
        self.shared.catalog.env().check_not_forked()?;
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        for way in self.shared.fast.iter().map_while(OnceLock::get) {
            if *way.name == *topic && way.is_current() {
                return Ok(WayRef::Fast(way));
            }
        }
        self.find_way(topic).map(WayRef::Slow)
    }

    #[cold]
    fn find_way(&self, name: &str) -> Result<Arc<Way>> {
        self.shared.catalog.check_writable()?;
        let mut slow = self.shared.slow.lock();
        slow.retain(|way| way.is_current());
        if let Some(way) = slow.iter().find(|way| *way.name == *name) {
            return Ok(Arc::clone(way));
        }
        let topic = self.shared.catalog.topic_or_create(name)?;
        let seed = self.shared.seed ^ (topic.id() as u64);
        let (partitions, name) = (topic.partitions(), Box::from(name));
        let way = Arc::new(Way { partitions, topic, name, route: Route::new(seed) });
        match self.shared.fast.iter().find(|place| place.get().is_none()) {
            // Whoever fills a place holds the mutex, so the place is still free.
            Some(place) => drop(place.set(Arc::clone(&way))),
            None => slow.push(Arc::clone(&way)),
        }
        Ok(way)
    }

    /// The timestamp of a record, if `now` is what the clock shows.
    #[inline]
    fn timestamp(topic: &Topic, record: &ProducerRecord<'_>, now: impl FnOnce() -> Timestamp) -> Result<Timestamp> {
        match record.timestamp {
            Some(given) if given.as_millis() < 0 => Err(Error::InvalidTimestamp {
                timestamp: given,
                reason: "it is negative; records are from 1970 on".into(),
            }),
            Some(given) if topic.timestamp_type() == TimestampType::Create => {
                topic.check_timestamp(given, now).map(|()| given)
            }
            _ => Ok(now()),
        }
    }

    #[inline]
    fn now(&self) -> Timestamp {
        self.shared.catalog.env().clock.now()
    }
}

/// What `send_with` is given.
type MetadataCallback = Box<dyn FnOnce(Result<RecordMetadata>) + Send>;

#[inline]
fn draft<'a>(record: &'a ProducerRecord<'_>, timestamp: Timestamp) -> Draft<'a> {
    Draft { key: record.key.as_deref(), value: record.value.as_deref(), headers: &record.headers, timestamp }
}

fn metadata(partition: &TopicPartition, offset: Offset, timestamp: Timestamp) -> RecordMetadata {
    let topic = Arc::clone(partition.shared_topic());
    RecordMetadata { topic, partition: partition.partition(), offset, timestamp }
}

/// Waits for every partition that has something undelivered; tries all of them before it returns the first error.
fn flush(catalog: &Catalog, timeout: Option<Duration>) -> Result<()> {
    catalog.env().check_not_forked()?;
    let clock = &catalog.env().clock;
    let start = clock.monotonic();
    let mut result = Ok(());
    for topic in catalog.topics() {
        for partition in topic.partitions() {
            let end = partition.log_end();
            if partition.high_watermark() < end {
                let left = timeout.map(|timeout| timeout.saturating_sub(clock.monotonic().saturating_sub(start)));
                result = result.and(partition.deliver(end, left));
            }
        }
    }
    result
}

/// A record that was sent, on its way to being as durable as its topic promises.
///
/// Drop it to forget it, [`wait`](Self::wait) for it, or `await` it. Kafka: the future that `send` returns.
#[derive(Clone, Debug)]
pub struct Delivery {
    partition: Arc<Partition>,
    offset: Offset,
    timestamp: Timestamp,
}

impl Delivery {
    /// The offset that the record has. It has it already, whatever becomes of the delivery.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The partition that the record is in.
    pub fn partition(&self) -> u32 {
        self.partition.name().partition()
    }

    #[cfg(feature = "sim")]
    pub(crate) fn topic_partition(&self) -> &TopicPartition {
        self.partition.name()
    }

    /// Whether the record is as durable as its topic promises.
    pub fn is_delivered(&self) -> bool {
        self.partition.high_watermark() > self.offset
    }

    /// Waits until the record is as durable as its topic promises. In a `Sync` topic that is a sync of the disk, one
    /// for all who wait; at the other levels it is at once.
    ///
    /// # Errors
    ///
    /// [`SyncFailed`](Error::SyncFailed): whether the record survives a power cut is not known.
    pub fn wait(&self) -> Result<RecordMetadata> {
        self.delivered(None)
    }

    /// [`wait`](Self::wait) for at most this long.
    ///
    /// # Errors
    ///
    /// Also [`Timeout`](Error::Timeout), which takes nothing back: the record is sent, and waiting again is possible.
    /// A thread that does the sync itself, for all who wait, does not leave it half way.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<RecordMetadata> {
        self.delivered(Some(timeout))
    }

    fn delivered(&self, timeout: Option<Duration>) -> Result<RecordMetadata> {
        point::reach(|| What::Wait);
        let delivered = self.partition.deliver(self.offset.advance(1), timeout);
        point::pass();
        delivered.map(|()| self.metadata())
    }

    fn metadata(&self) -> RecordMetadata {
        metadata(self.partition.name(), self.offset, self.timestamp)
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    /// Ready once somebody has synced: the background worker does within a millisecond or two. Without it
    /// ([`LogConfig::background`](crate::LogConfig::background)), somebody must call `maintain` or `flush`.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.partition.poll_delivered(self.offset.advance(1), Listener::Waker(context.waker().clone())) {
            Some(result) => Poll::Ready(result.map(|()| self.metadata())),
            None => Poll::Pending,
        }
    }
}

/// Records that were sent together.
#[derive(Clone, Debug)]
pub struct BatchDelivery {
    parts: Vec<Part>,
    places: Vec<Place>,
}

/// The batch of one partition.
#[derive(Clone, Debug)]
struct Part {
    partition: Arc<Partition>,
    base: Offset,
    count: u64,
}

/// Where a record of the batch went.
#[derive(Clone, Copy, Debug)]
struct Place {
    part: usize,
    index: u64,
    timestamp: Timestamp,
}

impl BatchDelivery {
    /// How many records were sent.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Waits until all of them are as durable as their topics promise; where each went, in the order of sending.
    ///
    /// # Errors
    ///
    /// As [`Delivery::wait`].
    pub fn wait(&self) -> Result<Vec<RecordMetadata>> {
        point::reach(|| What::Wait);
        for part in &self.parts {
            part.partition.deliver(part.base.advance(part.count), None)?;
        }
        point::pass();
        let metadata_of = |place: &Place| {
            let part = &self.parts[place.part];
            metadata(part.partition.name(), part.base.advance(place.index), place.timestamp)
        };
        Ok(self.places.iter().map(metadata_of).collect())
    }
}
