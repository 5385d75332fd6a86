//! Consuming: poll an assignment, keep the positions, commit them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::catalog::Catalog;
use crate::codec::{Decode, decode_at};
use crate::config::{ConsumerConfig, OffsetReset};
use crate::env::point::{self, What};
use crate::env::scheduling::Bell;
use crate::error::{Error, Result};
use crate::format::batch::{RecordView, headers};
use crate::group::{Group, Groups, Input, MemberId, Output};
use crate::partition::{Chunk, ChunkRecords, Cursor, Partition};
use crate::producer::Lifeline;
use crate::types::{Offset, OffsetAndMetadata, Timestamp, TimestampType, TopicPartition};

/// How often a consumer of a log that another process writes looks for news: a mapped file announces nothing.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(5);

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
        point::note(|| What::Assigned {
            generation: 0,
            partitions: found.iter().map(|(name, _)| name.clone()).collect(),
        });
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
            let fresh = Fetch { partition, position: Position::Unknown, cursor: None, paused: false };
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
        point::note(|| What::Assigned { generation: new, partitions: partitions.clone() });
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

/// Reading.
impl Consumer {
    /// Returns records from where the positions are, at most [`max_poll_records`](ConsumerConfig::max_poll_records) of
    /// them, and moves the positions behind them. If there are none, waits for some, up to `timeout`, without using
    /// the processor; then returns nothing.
    ///
    /// Joins the group first, if the consumer subscribes and has not yet; commits first, if automatic commits are on and
    /// due: what *earlier* polls returned.
    ///
    /// The records are not copied: they lie in the mapped segments, and stay valid for as long as what is returned
    /// lives, whatever becomes of consumer, topic and log.
    ///
    /// # Errors
    ///
    /// [`Wakeup`](Error::Wakeup) if [`ConsumerWaker::wake`] was called; [`Corrupt`](Error::Corrupt) where records that
    /// were promised cannot be read, again and again until the consumer seeks past them, or where what the group had
    /// committed cannot, until it seeks or commits;
    /// [`OffsetOutOfRange`](Error::OffsetOutOfRange) and [`NoOffsetForPartition`](Error::NoOffsetForPartition) with
    /// [`OffsetReset::None`]; [`GroupBusy`](Error::GroupBusy), [`InvalidState`](Error::InvalidState) if neither
    /// subscribed nor assigned; what an automatic commit can meet. The positions are as they were.
    pub fn poll(&mut self, timeout: Duration) -> Result<ConsumerRecords> {
        point::reach(|| What::Poll);
        let records = self.poll_records(timeout);
        point::note(|| What::Polled(records.as_ref().map_or(0, ConsumerRecords::len)));
        point::pass();
        records
    }

    fn poll_records(&mut self, timeout: Duration) -> Result<ConsumerRecords> {
        self.check_usable()?;
        if matches!(self.mode, Mode::None) {
            let reason = "the consumer reads nothing yet; subscribe to topics or assign partitions first";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        let clock = Arc::clone(&self.catalog.env().clock);
        let start = clock.monotonic();
        loop {
            let seen = self.bell.rung();
            if self.woken.swap(false, Ordering::AcqRel) {
                return Err(Error::Wakeup);
            }
            self.check_usable()?;
            if self.catalog.is_read_only() {
                self.catalog.follow()?;
            }
            self.refresh()?;
            self.auto_commit_if_due()?;
            let records = self.fetch()?;
            let waited = clock.monotonic().saturating_sub(start);
            if !records.is_empty() || waited >= timeout {
                return Ok(records);
            }
            if !self.listen() {
                self.bell.wait(seen, Some(self.longest_wait(timeout - waited)));
            }
        }
    }

    /// Takes what there is, beginning with another partition each time.
    fn fetch(&mut self) -> Result<ConsumerRecords> {
        self.resolve_positions()?;
        let mut chunks: Vec<(TopicPartition, Chunk)> = Vec::new();
        let mut left = self.config.max_poll_records;
        let first = self.first.take();
        let split = |name: &TopicPartition| first.as_ref().is_none_or(|first| name >= first);
        let names =
            self.partitions.keys().filter(|name| split(name)).chain(self.partitions.keys().filter(|name| !split(name)));
        // Only names that have something are cloned, so a poll that finds nothing allocates nothing.
        let ready: Vec<TopicPartition> = names.filter(|name| self.partitions[*name].has_news()).cloned().collect();
        for name in ready {
            if left == 0 {
                self.first = Some(name);
                break;
            }
            let reset = self.config.auto_offset_reset;
            let fetch = self.partitions.get_mut(&name).expect("its name was just read");
            // A chunk ends with its segment, so there may be more than one.
            let failed = loop {
                match fetch.read(reset, left) {
                    Ok(Some(chunk)) => {
                        left = left.saturating_sub(chunk.count);
                        chunks.push((name.clone(), chunk));
                        if left == 0 {
                            break None;
                        }
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            if let Some(error) = failed {
                if chunks.is_empty() {
                    self.first = self.partitions.range(name..).nth(1).map(|(next, _)| next.clone());
                    return Err(error);
                }
                // What was read is not lost: the error comes next time, and from this partition first.
                self.first = Some(name);
                break;
            }
        }
        Ok(ConsumerRecords { chunks })
    }

    /// Asks to be told of news. Returns whether there are some already.
    fn listen(&self) -> bool {
        self.partitions.values().filter(|fetch| !fetch.paused).any(|fetch| match fetch.position {
            Position::At(offset) => fetch.partition.listen(offset, &self.bell),
            _ => false,
        })
    }

    /// How long to wait for news that somebody announces, when there is something else to do in time.
    fn longest_wait(&self, left: Duration) -> Duration {
        let mut longest = left;
        if self.catalog.is_read_only() {
            longest = longest.min(FOLLOW_INTERVAL);
        }
        if self.commits_by_itself() {
            let now = self.catalog.env().clock.monotonic();
            longest = longest.min(self.next_auto_commit.saturating_sub(now));
        }
        longest
    }

    /// Finds out every position that is not known yet.
    fn resolve_positions(&mut self) -> Result<()> {
        let unresolved: Vec<TopicPartition> = self
            .partitions
            .iter()
            .filter(|(_, fetch)| !matches!(fetch.position, Position::At(_)))
            .map(|(name, _)| name.clone())
            .collect();
        unresolved.iter().try_for_each(|name| self.resolve(name).map(drop))
    }

    fn resolve(&mut self, name: &TopicPartition) -> Result<Offset> {
        let group = self.group.clone();
        let reset = self.config.auto_offset_reset;
        let fetch = self.fetch_of(name)?;
        let offset = match fetch.position {
            Position::At(offset) => return Ok(offset),
            Position::Beginning => fetch.partition.log_start(),
            Position::End => fetch.partition.high_watermark(),
            Position::Unknown => match committed_of(group.as_deref(), fetch)? {
                Some(committed) => committed.offset,
                None => match reset {
                    OffsetReset::Earliest => fetch.partition.log_start(),
                    OffsetReset::Latest => fetch.partition.high_watermark(),
                    OffsetReset::None => return Err(Error::NoOffsetForPartition { partition: name.clone() }),
                },
            },
        };
        fetch.position = Position::At(offset);
        Ok(offset)
    }

    fn fetch_of(&mut self, name: &TopicPartition) -> Result<&mut Fetch> {
        self.catalog.env().check_not_forked()?;
        self.partitions.get_mut(name).ok_or_else(|| Error::NotAssigned { partition: name.clone() })
    }

    /// A handle that wakes this consumer from another thread.
    pub fn waker(&self) -> ConsumerWaker {
        ConsumerWaker { bell: Arc::clone(&self.bell), woken: Arc::clone(&self.woken) }
    }
}

fn committed_of(group: Option<&Group>, fetch: &Fetch) -> Result<Option<OffsetAndMetadata>> {
    group.map_or(Ok(None), |group| group.committed(fetch.partition.name(), fetch.partition.topic_id()))
}

impl Fetch {
    /// Whether reading may find something: a record, or an error.
    fn has_news(&self) -> bool {
        !self.paused && self.position != Position::At(self.partition.high_watermark())
    }

    fn read(&mut self, reset: OffsetReset, most: usize) -> Result<Option<Chunk>> {
        let Position::At(offset) = self.position else { return Ok(None) };
        let chunk = match self.partition.read(&mut self.cursor, offset, most) {
            Err(Error::OffsetOutOfRange { start, end, .. }) if reset != OffsetReset::None => {
                let offset = if reset == OffsetReset::Earliest { start } else { end };
                self.position = Position::At(offset);
                self.partition.read(&mut self.cursor, offset, most)?
            }
            result => result?,
        };
        if let Some(chunk) = &chunk {
            self.position = Position::At(chunk.offsets.end);
        }
        Ok(chunk)
    }
}

/// Positions.
impl Consumer {
    /// The next poll begins at `offset`, whether there is a record there or not: that is found out then, and outside
    /// of what there is the reset policy applies.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned).
    pub fn seek(&mut self, partition: &TopicPartition, offset: impl Into<Offset>) -> Result<()> {
        self.move_to(partition, Position::At(offset.into()))
    }

    /// The next poll begins at the first record that there will be then. No partitions: all that are assigned.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned); then none was moved.
    pub fn seek_to_beginning(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.move_all(partitions, Position::Beginning)
    }

    /// The next poll begins behind the last record that there will be then. No partitions: all that are assigned.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned); then none was moved.
    pub fn seek_to_end(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.move_all(partitions, Position::End)
    }

    fn move_all(&mut self, partitions: &[TopicPartition], position: Position) -> Result<()> {
        self.check_assigned(partitions)?;
        let names = if partitions.is_empty() { self.assignment() } else { partitions.to_vec() };
        names.iter().try_for_each(|name| self.move_to(name, position))
    }

    fn check_assigned(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.catalog.env().check_not_forked()?;
        match partitions.iter().find(|name| !self.partitions.contains_key(*name)) {
            Some(name) => Err(Error::NotAssigned { partition: name.clone() }),
            None => Ok(()),
        }
    }

    fn move_to(&mut self, partition: &TopicPartition, position: Position) -> Result<()> {
        let fetch = self.fetch_of(partition)?;
        fetch.position = position;
        fetch.cursor = None;
        Ok(())
    }

    /// The offset that the next poll returns first. Found out now, if it is not known yet: from what is committed, or
    /// by the reset policy.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned), [`NoOffsetForPartition`](Error::NoOffsetForPartition).
    pub fn position(&mut self, partition: &TopicPartition) -> Result<Offset> {
        self.resolve(partition)
    }

    /// Polls return nothing from these partitions until they are resumed; their positions stay.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned); then none was paused.
    pub fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Polls return records from these partitions again.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned); then none was resumed.
    pub fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, false)
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) -> Result<()> {
        self.check_assigned(partitions)?;
        for name in partitions {
            self.fetch_of(name)?.paused = paused;
        }
        Ok(())
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.partitions.iter().filter(|(_, fetch)| fetch.paused).map(|(name, _)| name.clone()).collect()
    }

    /// The first offset of each partition, assigned or not.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic), [`UnknownPartition`](Error::UnknownPartition).
    pub fn beginning_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Offset>> {
        self.offsets_of(partitions, Partition::log_start)
    }

    /// The offset behind the last visible record of each partition, assigned or not: its high watermark.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic), [`UnknownPartition`](Error::UnknownPartition).
    pub fn end_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Offset>> {
        self.offsets_of(partitions, Partition::high_watermark)
    }

    fn offsets_of(
        &self,
        partitions: &[TopicPartition],
        offset: impl Fn(&Partition) -> Offset,
    ) -> Result<BTreeMap<TopicPartition, Offset>> {
        partitions.iter().map(|name| Ok((name.clone(), offset(&*self.catalog.partition(name)?)))).collect()
    }

    /// How many offsets lie between the position and the end of the partition.
    ///
    /// # Errors
    ///
    /// As [`position`](Self::position).
    pub fn lag(&mut self, partition: &TopicPartition) -> Result<u64> {
        let position = self.resolve(partition)?;
        Ok(self.fetch_of(partition)?.partition.high_watermark().since(position))
    }
}

/// Committing.
impl Consumer {
    /// Commits the positions: what polls have returned counts as done. Returns when that is as durable as
    /// [`commit_durability`](crate::LogConfig::commit_durability) says.
    ///
    /// # Errors
    ///
    /// [`InvalidGroup`](Error::InvalidGroup) without a group; [`CommitFailed`](Error::CommitFailed) if the consumer is
    /// no longer a member; [`ReadOnly`](Error::ReadOnly); what an append and a sync can meet.
    pub fn commit(&mut self) -> Result<()> {
        self.check_usable()?;
        let offsets = self.known_positions();
        self.commit_and_wait(&offsets)
    }

    /// Commits these offsets, of the *next* records to read, and leaves the positions alone.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit); also [`OffsetOutOfRange`](Error::OffsetOutOfRange) for an offset behind the end of
    /// the partition and [`OffsetMetadataTooLarge`](Error::OffsetMetadataTooLarge). Nothing was committed then.
    pub fn commit_offsets<I, O>(&mut self, offsets: I) -> Result<()>
    where
        I: IntoIterator<Item = (TopicPartition, O)>,
        O: Into<OffsetAndMetadata>,
    {
        self.check_usable()?;
        let offsets: Vec<_> = offsets.into_iter().map(|(name, offset)| (name, offset.into())).collect();
        self.commit_and_wait(&offsets)
    }

    /// What the group has committed for a partition, assigned or not; `None` if nothing.
    ///
    /// # Errors
    ///
    /// [`InvalidGroup`](Error::InvalidGroup) without a group; [`Corrupt`](Error::Corrupt) if the group's files were
    /// damaged and may have said more, until something is committed for the partition. A partition that is not there has
    /// nothing committed.
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<OffsetAndMetadata>> {
        let group = self.group()?;
        match self.catalog.partition(partition) {
            Ok(found) => group.committed(partition, found.topic_id()),
            Err(_) => Ok(None),
        }
    }

    fn group(&self) -> Result<&Arc<Group>> {
        self.catalog.env().check_not_forked()?;
        self.group.as_ref().ok_or_else(|| Error::InvalidGroup {
            reason: "a consumer without a group has no committed offsets; name one with ConsumerConfig::group".into(),
        })
    }

    fn known_positions(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let known = |(name, fetch): (&TopicPartition, &Fetch)| match fetch.position {
            Position::At(offset) => Some((name.clone(), OffsetAndMetadata::from(offset))),
            _ => None,
        };
        self.partitions.iter().filter_map(known).collect()
    }

    fn commit_and_wait(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        point::reach(|| What::Commit);
        let group = self.group()?;
        let committed = match group.commit(offsets, self.membership()) {
            Ok(Some(end)) => group.deliver(end),
            other => other.map(drop),
        };
        if committed.is_ok() {
            point::note(|| What::CommitReturned);
        }
        point::pass();
        committed
    }

    /// As whom a commit is made.
    fn membership(&self) -> Option<(MemberId, u32)> {
        match self.mode {
            Mode::Subscribed { generation, .. } => Some((self.member, generation.unwrap_or(0))),
            _ => None,
        }
    }

    fn commits_by_itself(&self) -> bool {
        self.config.commits_by_itself() && !self.catalog.is_read_only()
    }

    fn restart_auto_commit(&mut self) {
        let now = self.catalog.env().clock.monotonic();
        self.next_auto_commit = now.saturating_add(self.config.auto_commit_interval);
    }

    /// Commits the positions if it is time, without waiting for the disk.
    fn auto_commit_if_due(&mut self) -> Result<()> {
        if !self.commits_by_itself() || self.catalog.env().clock.monotonic() < self.next_auto_commit {
            return Ok(());
        }
        self.restart_auto_commit();
        let offsets = self.committable();
        self.group()?.commit(&offsets, self.membership()).map(drop)
    }

    /// Commits the positions and waits for it, if automatic commits are on.
    fn auto_commit_now(&mut self) -> Result<()> {
        let joined = !matches!(self.mode, Mode::None | Mode::Subscribed { generation: None, .. });
        if !self.commits_by_itself() || !joined {
            return Ok(());
        }
        self.commit_and_wait(&self.committable())
    }

    /// The positions that can be committed: not one that was sought behind the end, nor one of a deleted topic.
    fn committable(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let mut offsets = self.known_positions();
        offsets.retain(|(name, offset)| {
            self.catalog.partition(name).is_ok_and(|partition| offset.offset <= partition.log_end())
        });
        offsets
    }

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

/// Records that a poll returned. Keeps the segments mapped that they lie in.
#[derive(Clone, Debug, Default)]
pub struct ConsumerRecords {
    chunks: Vec<(TopicPartition, Chunk)>,
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

    /// The last chunk of each partition; the chunks of a partition are neighbours.
    fn last_chunks(&self) -> impl Iterator<Item = &(TopicPartition, Chunk)> {
        let next = self.chunks.iter().skip(1).map(Some).chain([None]);
        let pairs = self.chunks.iter().zip(next);
        pairs.filter(|(chunk, next)| next.is_none_or(|next| next.0 != chunk.0)).map(|(chunk, _)| chunk)
    }

    /// All of them, partition after partition, in order within each.
    #[inline]
    pub fn iter(&self) -> Records<'_> {
        Records::of(&self.chunks)
    }

    /// Those of one partition, in order.
    pub fn records<'a>(&'a self, partition: &TopicPartition) -> Records<'a> {
        let chunk = self.chunks.iter().position(|(name, _)| name == partition);
        Records::of(chunk.map_or(&[], |at| &self.chunks[at..=at]))
    }

    /// For each partition the offset behind the last record: what to commit once they are processed. Kafka:
    /// `nextOffsets`.
    pub fn next_offsets(&self) -> impl Iterator<Item = (TopicPartition, Offset)> {
        self.last_chunks().map(|(name, chunk)| (name.clone(), chunk.offsets.end))
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

    #[inline]
    fn next(&mut self) -> Option<ConsumerRecord<'a>> {
        loop {
            if let Some((partition, records)) = &mut self.current
                && let Some(view) = records.next()
            {
                let offset = view.offset;
                point::reach(|| What::Take { partition, offset, key: view.key, value: view.value });
                return Some(ConsumerRecord { partition, view });
            }
            let (partition, chunk) = self.chunks.next()?;
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
    /// [`Deserialization`](Error::Deserialization) with topic, partition and offset. The records behind it can be read.
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
