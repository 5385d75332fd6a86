//! Consuming: poll an assignment, keep the positions, commit them.

mod committing;
mod fetching;
mod positions;
mod records;
mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::catalog::Catalog;
use crate::config::ConsumerConfig;
use crate::env::scheduling::Bell;
use crate::error::{Error, Result};
use crate::group::{Group, Groups, Input, MemberId, Output};
use crate::partition::{Cursor, Partition};
use crate::producer::Lifeline;
use crate::types::{Offset, TopicPartition};

pub use crate::consumer::records::{ConsumerRecord, ConsumerRecords, Records};

/// Reads records, in order within each partition, and keeps how far it has come.
///
/// Which partitions it reads is either said with [`assign`](Self::assign), or follows from the topics that it
/// [`subscribe`](Self::subscribe)s to. Its *position* in a partition is the next offset that `poll` returns, and moves
/// when `poll` returns, not when the records are processed. The *committed* offset is what the group will resume
/// from; it is set by [`commit`](Self::commit), or by `poll` itself every five seconds if
/// [`auto_commit`](ConsumerConfig::auto_commit) is on.
///
/// ```
/// # fn main() -> tidelog::Result<()> {
/// # use std::time::Duration;
/// # let directory = tempfile::tempdir().unwrap();
/// # let log = tidelog::EventLog::open(directory.path())?;
/// # log.create_topic("orders", tidelog::TopicConfig::new())?;
/// # log.producer().send(tidelog::ProducerRecord::new("orders", b"paid 12.50"))?.wait()?;
/// use tidelog::{ConsumerConfig, OffsetReset};
///
/// let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
/// let mut consumer = log.consumer(config)?;
/// consumer.subscribe(["orders"])?;
/// for record in &consumer.poll(Duration::from_millis(100))? {
///     assert_eq!(record.value(), Some(&b"paid 12.50"[..]));
/// }
/// consumer.commit()?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping a consumer closes it, as far as that goes without anybody to tell of an error.
pub struct Consumer {
    catalog: Arc<Catalog>,
    group: Option<Arc<Group>>,
    member: MemberId,
    config: ConsumerConfig,
    mode: Mode,
    /// What is read, in the order of names and numbers.
    partitions: BTreeMap<TopicPartition, Fetch>,
    /// The partition that the next poll asks first.
    first: Option<TopicPartition>,
    next_auto_commit: Duration,
    bell: Arc<Bell>,
    woken: Arc<AtomicBool>,
    closed: bool,
    _lifeline: Lifeline,
}

/// How the partitions were chosen. Kafka excludes one from the other until `unsubscribe`.
#[derive(Debug)]
enum Mode {
    None,
    Assigned,
    Subscribed {
        topics: Vec<String>,
        /// As of which generation of the group the assignment holds; `None`: not joined yet.
        generation: Option<u32>,
    },
}

/// A partition that is read, and how far.
#[derive(Debug)]
struct Fetch {
    partition: Arc<Partition>,
    position: Position,
    cursor: Option<Cursor>,
    paused: bool,
    /// How many offsets a reset has stepped over.
    skipped: u64,
}

/// Where a consumer is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Wherever the group has committed, or the reset policy says; found out when it is needed.
    Unknown,
    /// At the beginning or the end, whatever that will be when it is needed.
    Beginning,
    End,
    At(Offset),
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer({:?} {:?})", self.config.group, self.partitions.keys())
    }
}

/// Choosing what to read.
impl Consumer {
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        groups: &Groups,
        config: ConsumerConfig,
        lifeline: Lifeline,
    ) -> Result<Self> {
        config.check()?;
        catalog.check_open()?;
        let group = config.group.as_deref().map(|name| groups.group(name)).transpose()?;
        let env = catalog.env();
        Ok(Consumer {
            group,
            member: groups.next_member(),
            mode: Mode::None,
            partitions: BTreeMap::new(),
            first: None,
            next_auto_commit: env.clock.monotonic().saturating_add(config.auto_commit_interval),
            bell: Arc::new(env.scheduler.bell()),
            woken: Arc::new(AtomicBool::new(false)),
            closed: false,
            config,
            catalog,
            _lifeline: lifeline,
        })
    }

    /// Reads these partitions, and no others. With a group the consumer can commit, but it is no member: nobody keeps
    /// others from reading and committing the same.
    ///
    /// Replaces an earlier assignment. Partitions that were in it keep their position; with automatic commits, the
    /// positions are committed first.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic), [`UnknownPartition`](Error::UnknownPartition);
    /// [`InvalidState`](Error::InvalidState) if the consumer subscribes; what committing can meet.
    pub fn assign<I, P>(&mut self, partitions: I) -> Result<()>
    where
        I: IntoIterator<Item = P>,
        P: Into<TopicPartition>,
    {
        self.check_usable()?;
        if matches!(self.mode, Mode::Subscribed { .. }) {
            let reason = "the consumer subscribes to topics, so it cannot be assigned partitions; unsubscribe first";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        let mut found = Vec::new();
        for name in partitions {
            let name = name.into();
            found.push((name.clone(), self.catalog.topic_or_create(name.topic())?.partition(name.partition())?));
        }
        self.auto_commit_now()?;
        self.mode = Mode::Assigned;
        self.take_over(found);
        Ok(())
    }

    /// Reads all partitions of these topics, and those that are added to them; replaces an earlier subscription.
    ///
    /// With a group, the consumer joins it in the next [`poll`](Self::poll), and starts where the group has
    /// committed. Without one it starts where [`auto_offset_reset`](ConsumerConfig::auto_offset_reset) says.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic); [`InvalidState`](Error::InvalidState) if partitions were assigned.
    pub fn subscribe<I, S>(&mut self, topics: I) -> Result<()>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.check_usable()?;
        if matches!(self.mode, Mode::Assigned) {
            let reason = "the consumer was assigned partitions, so it cannot subscribe to topics; unsubscribe first";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        let topics: BTreeSet<String> = topics.into_iter().map(Into::into).collect();
        if topics.is_empty() {
            return self.unsubscribe();
        }
        for topic in &topics {
            self.catalog.topic_or_create(topic)?;
        }
        // Whatever the new subscription takes away is committed as it stands.
        self.auto_commit_now()?;
        self.mode = Mode::Subscribed { topics: topics.into_iter().collect(), generation: None };
        Ok(())
    }

    /// Reads nothing any more, and leaves the group; with automatic commits, the positions are committed first.
    ///
    /// # Errors
    ///
    /// What committing can meet.
    pub fn unsubscribe(&mut self) -> Result<()> {
        self.check_usable()?;
        let result = self.auto_commit_now();
        self.leave();
        self.mode = Mode::None;
        self.partitions.clear();
        result
    }

    fn leave(&mut self) {
        if let (Some(group), Mode::Subscribed { .. }) = (&self.group, &self.mode) {
            group.step(&BTreeMap::new(), Input::Leave { member: self.member });
        }
    }

    /// The partitions that are read now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.partitions.keys().cloned().collect()
    }

    /// Makes these the partitions that are read; those that were already keep where they are.
    fn take_over(&mut self, found: Vec<(TopicPartition, Arc<Partition>)>) {
        let mut before = std::mem::take(&mut self.partitions);
        for (name, partition) in found {
            let kept = before.remove(&name).filter(|fetch| fetch.partition.topic_id() == partition.topic_id());
            let fresh = Fetch { partition, position: Position::Unknown, cursor: None, paused: false, skipped: 0 };
            self.partitions.insert(name, kept.unwrap_or(fresh));
        }
    }

    /// Joins the group if that is still to be done, and notices partitions that were added and topics that went.
    fn refresh(&mut self) -> Result<()> {
        let Mode::Subscribed { topics, generation } = &mut self.mode else { return Ok(()) };
        let counts: BTreeMap<String, u32> = topics
            .iter()
            .filter_map(|name| self.catalog.find(name).map(|topic| (name.clone(), topic.count())))
            .collect();
        let known = self.partitions.len() == counts.values().map(|count| *count as usize).sum::<usize>();
        if known && generation.is_some() {
            return Ok(());
        }
        let joining = generation.is_none();
        let wanted = topics.clone();
        let (new, partitions) = match &self.group {
            // Nobody else reads for a consumer without a group, so it has all there is.
            None => (1, all(&counts)),
            Some(group) => {
                let input = if joining { Input::Join { member: self.member, topics: wanted } } else { Input::Changed };
                match group.step(&counts, input) {
                    Some(Output::Assigned { generation, partitions, .. }) => (generation, partitions),
                    Some(Output::Refused { holder, .. }) => {
                        let member = format!("consumer {holder}");
                        return Err(Error::GroupBusy { group: group.name().to_owned(), member });
                    }
                    None => return Ok(()),
                }
            }
        };
        *generation = Some(new);
        // Of a topic that was deleted since it was counted nothing is left to read.
        let found = partitions.into_iter().filter_map(|name| Some((name.clone(), self.catalog.partition(&name).ok()?)));
        let found = found.collect();
        self.take_over(found);
        if joining {
            self.restart_auto_commit();
        }
        Ok(())
    }

    fn check_usable(&self) -> Result<()> {
        if self.closed { Err(Error::Closed) } else { self.catalog.check_open() }
    }
}

fn all(counts: &BTreeMap<String, u32>) -> Vec<TopicPartition> {
    let of_topic = |(name, count): (&String, &u32)| {
        let name: Arc<str> = name.as_str().into();
        (0..*count).map(move |number| TopicPartition::new(Arc::clone(&name), number)).collect::<Vec<_>>()
    };
    counts.iter().flat_map(of_topic).collect()
}

/// Ending.
impl Consumer {
    /// Commits the positions, if automatic commits are on, leaves the group, and ends the consumer.
    ///
    /// # Errors
    ///
    /// What committing can meet. The consumer is closed in any case.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.catalog.env().check_not_forked()?;
        let result = if self.catalog.check_open().is_ok() { self.auto_commit_now() } else { Ok(()) };
        self.partitions.values().for_each(|fetch| fetch.partition.unlisten(&self.bell));
        self.leave();
        result
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // A panic in the middle of processing must not commit what it did not get to.
        if std::thread::panicking() && self.catalog.env().check_not_forked().is_ok() {
            self.closed = true;
            self.leave();
        }
        // There is nobody to tell; whoever wants to know calls `close`.
        drop(self.end());
    }
}

/// Wakes a consumer that is blocked in `poll`, from another thread. Kafka: `wakeup`.
#[derive(Clone, Debug)]
pub struct ConsumerWaker {
    bell: Arc<Bell>,
    woken: Arc<AtomicBool>,
}

impl ConsumerWaker {
    /// The poll that is going on, or else the next one, fails with [`Error::Wakeup`].
    pub fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.bell.ring();
    }
}
