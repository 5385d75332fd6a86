//! Consuming: poll an assignment, keep the positions, commit them.

mod awaiting;
mod committing;
mod fetching;
mod membership;
mod positions;
mod records;
mod times;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::catalog::Catalog;
use crate::config::ConsumerConfig;
use crate::consumer::committing::Commits;
use crate::consumer::fetching::Fetch;
use crate::consumer::membership::Subscribed;
use crate::env::point::{self, What};
use crate::env::scheduling::Bell;
use crate::error::{Error, Result};
use crate::group::{Group, Groups, Member, Wanted};
use crate::partition::Partition;
use crate::producer::Lifeline;
use crate::types::TopicPartition;

pub use crate::consumer::awaiting::PollRecords;
pub use crate::consumer::membership::RebalanceListener;
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
/// # In a group
///
/// Consumers that subscribe with the same [`group`](ConsumerConfig::group) share the partitions: each is read by one of
/// them. A consumer joins in its first [`poll`](Self::poll), and must go on polling: all that a group asks of its
/// members, letting go of partitions and taking others over, happens in their polls
/// ([`max_poll_interval`](ConsumerConfig::max_poll_interval)). A [`RebalanceListener`] is told of it.
///
/// Dropping a consumer closes it, as far as that goes without anybody to tell of an error. One that is dropped by a panic
/// commits nothing, and is out of its group at once.
pub struct Consumer {
    catalog: Arc<Catalog>,
    group: Option<Arc<Group>>,
    member: Arc<Member>,
    config: ConsumerConfig,
    mode: Mode,
    /// What is read, in the order of names and numbers.
    partitions: BTreeMap<TopicPartition, Fetch>,
    /// The partition that the next poll asks first.
    first: Option<TopicPartition>,
    commits: Commits,
    listener: Option<Box<dyn RebalanceListener>>,
    /// Whether the listener is being called.
    in_listener: bool,
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
    Subscribed(Subscribed),
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
        let bell = Arc::new(env.scheduler.bell());
        Ok(Consumer {
            group,
            member: groups.next_member(Arc::clone(&bell)),
            mode: Mode::None,
            partitions: BTreeMap::new(),
            first: None,
            commits: Commits::new(env.clock.monotonic().saturating_add(config.auto_commit_interval)),
            listener: None,
            in_listener: false,
            bell,
            woken: Arc::new(AtomicBool::new(false)),
            closed: false,
            config,
            catalog,
            _lifeline: lifeline,
        })
    }

    /// Reads these partitions, and no others. With a group the consumer can commit, but it is no member: nobody keeps
    /// others from reading and committing the same. While the group has members, its commits are refused.
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
        self.check_free()?;
        if matches!(self.mode, Mode::Subscribed(_)) {
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
        point::note(|| What::Assigned {
            generation: 0,
            partitions: found.iter().map(|(name, _)| name.clone()).collect(),
        });
        self.take_over(found);
        Ok(())
    }

    /// Reads the partitions of these topics, and those that are added to them, sharing them with the other members of the
    /// group; without a group, all of them. Replaces an earlier subscription.
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
        self.check_can_subscribe()?;
        let topics: BTreeSet<String> = topics.into_iter().map(Into::into).collect();
        if topics.is_empty() {
            return self.unsubscribe();
        }
        for topic in &topics {
            self.catalog.topic_or_create(topic)?;
        }
        self.subscribe_to(Wanted::Names(topics))
    }

    /// [`subscribe`](Self::subscribe) to every topic of whose name this is true, also to those that are created later.
    ///
    /// With a regular expression: `subscribe_matching(move |topic| expression.is_match(topic))`. It is asked while the
    /// group is locked, so it must not use consumers nor ask for groups: it panics if it does. One that panics does not
    /// match. Kafka: `subscribe(Pattern)`.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe); that no topic matches is none.
    pub fn subscribe_matching<F>(&mut self, matches: F) -> Result<()>
    where
        F: Fn(&str) -> bool + Send + Sync + 'static,
    {
        self.check_can_subscribe()?;
        self.subscribe_to(Wanted::Matching(Arc::new(matches)))
    }

    fn check_can_subscribe(&self) -> Result<()> {
        self.check_free()?;
        if matches!(self.mode, Mode::Assigned) {
            let reason = "the consumer was assigned partitions, so it cannot subscribe to topics; unsubscribe first";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        Ok(())
    }

    /// Reads nothing any more, and leaves the group; with automatic commits, the positions are committed first. A static
    /// member leaves nothing but its partitions, which wait for it.
    ///
    /// # Errors
    ///
    /// What committing can meet, and what the rebalance listener returns.
    pub fn unsubscribe(&mut self) -> Result<()> {
        self.check_free()?;
        let result = self.stop();
        self.mode = Mode::None;
        self.partitions.clear();
        result
    }

    /// The partitions that are read now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.partitions.keys().cloned().collect()
    }

    /// Makes these the partitions that are read; those that were already keep where they are.
    fn take_over(&mut self, found: Vec<(TopicPartition, Arc<Partition>)>) {
        let mut before = std::mem::take(&mut self.partitions);
        for (name, partition) in found {
            let kept = before.remove(&name).filter(|fetch| fetch.is_of(&partition));
            self.partitions.insert(name, kept.unwrap_or_else(|| Fetch::new(partition)));
        }
    }

    /// For what changes who reads what: not while the rebalance listener is told of just that.
    fn check_free(&self) -> Result<()> {
        if self.in_listener {
            let reason = "a rebalance listener can commit, seek and pause, but neither poll nor change what is read";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        self.check_usable()
    }

    fn check_usable(&self) -> Result<()> {
        if self.closed { Err(Error::Closed) } else { self.catalog.check_open() }
    }

    /// What the clock of the log shows.
    fn now(&self) -> Duration {
        self.catalog.env().clock.monotonic()
    }

    /// A handle that wakes this consumer from another thread.
    pub fn waker(&self) -> ConsumerWaker {
        ConsumerWaker { bell: Arc::clone(&self.bell), woken: Arc::clone(&self.woken) }
    }
}

/// Ending.
impl Consumer {
    /// Commits the positions, if automatic commits are on, leaves the group, and ends the consumer. A static member
    /// ([`group_instance_id`](ConsumerConfig::group_instance_id)) stays in its group for the
    /// [`session_timeout`](ConsumerConfig::session_timeout).
    ///
    /// # Errors
    ///
    /// What committing can meet, and what the rebalance listener returns. The consumer is closed in any case.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        self.catalog.env().check_not_forked().inspect_err(|_| self.closed = true)?;
        let result = if self.catalog.check_open().is_ok() { self.stop() } else { Ok(()) };
        self.closed = true;
        self.forget();
        result
    }

    /// Commits if that is automatic, and leaves the group if it is in one.
    fn stop(&mut self) -> Result<()> {
        match self.mode {
            Mode::Subscribed(_) => self.leave(),
            _ => self.auto_commit_now(),
        }
        .and(self.finish_commits())
    }

    /// Takes its bell from wherever it hangs.
    fn forget(&mut self) {
        self.partitions.values().for_each(|fetch| fetch.unlisten(&self.bell));
        self.catalog.unlisten(&self.bell);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if point::is_dead() {
            return;
        }
        // A panic in the middle of processing must not commit what it did not get to.
        if std::thread::panicking() && !self.closed && self.catalog.env().check_not_forked().is_ok() {
            self.closed = true;
            self.vanish();
            self.forget();
        }
        // There is nobody to tell; whoever wants to know calls `close`. Of a panic of the listener the panic hook has told.
        drop(panic::catch_unwind(AssertUnwindSafe(|| self.end())));
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
