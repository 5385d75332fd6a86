//! Reading: what a poll does, and where it begins in each partition.

use std::io::ErrorKind::NotFound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::OffsetReset;
use crate::consumer::{Consumer, ConsumerRecords, Mode, times};
use crate::env::point::{self, What};
use crate::env::refusals::Call;
use crate::env::scheduling::Bell;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::partition::{Chunk, Cursor, Partition};
use crate::types::{Offset, OffsetAndMetadata, TopicPartition};

/// How often a consumer of a log that another process writes looks for news: a mapped file announces nothing.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(5);

/// A partition that is read, and how far.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) partition: Arc<Partition>,
    pub(super) position: Position,
    cursor: Cursor,
    pub(super) paused: bool,
    /// How many offsets a reset has stepped over.
    pub(super) skipped: u64,
    /// What was stored to be committed next, if that is said apart from polling.
    pub(super) stored: Option<OffsetAndMetadata>,
}

/// Where a consumer is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Wherever the group has committed, or the reset policy says; found out when it is needed.
    Unknown,
    /// At the beginning or the end, whatever that will be when it is needed.
    Beginning,
    End,
    At(Offset),
}

/// How long a poll may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) timeout: Duration,
    /// Since when it waits.
    start: Option<Duration>,
    looked_again: bool,
}

impl Patience {
    pub(super) fn new(timeout: Duration) -> Self {
        Patience { timeout, start: None, looked_again: false }
    }

    fn waited(&mut self, now: Duration) -> Duration {
        now.saturating_sub(*self.start.get_or_insert(now))
    }
}

/// What a poll has seen.
pub(super) enum Look {
    /// What it returns.
    Found(ConsumerRecords),
    /// Nothing yet, when the bell had rung so often, after so long.
    Nothing { seen: u64, waited: Duration },
}

/// Reading.
impl Consumer {
    /// Returns records from where the positions are, at most
    /// [`max_poll_records`](crate::ConsumerConfig::max_poll_records) of them, and moves the positions behind them. If
    /// there are none, waits for some, up to `timeout`, without using the processor unless
    /// [`spin`](crate::ConsumerConfig::spin) says otherwise; then returns nothing.
    ///
    /// Joins the group first, if the consumer subscribes and has not yet; commits first, if automatic commits are on and
    /// due: what *earlier* polls returned.
    ///
    /// The records are not copied: they lie in the mapped segments, and stay valid for as long as what is returned
    /// lives, whatever becomes of consumer, topic and log.
    ///
    /// # Errors
    ///
    /// [`Wakeup`](Error::Wakeup) if [`ConsumerWaker::wake`](crate::ConsumerWaker::wake) was called;
    /// [`Corrupt`](Error::Corrupt) where records that were promised cannot be read, again and again until the consumer
    /// seeks past them, or where what the group had committed cannot, until it seeks or commits;
    /// [`OffsetOutOfRange`](Error::OffsetOutOfRange), [`NoOffsetForPartition`](Error::NoOffsetForPartition) and
    /// [`LogTruncated`](Error::LogTruncated) with [`OffsetReset::None`]; [`InvalidState`](Error::InvalidState) if neither subscribed nor assigned;
    /// [`InconsistentGroupProtocol`](Error::InconsistentGroupProtocol) and
    /// [`FencedInstanceId`](Error::FencedInstanceId) in a group; what the rebalance listener returns; what an automatic
    /// commit can meet. The positions are as they were.
    pub fn poll(&mut self, timeout: Duration) -> Result<ConsumerRecords> {
        point::reach(|| What::Poll);
        self.catalog.env().refusals.check(Call::Poll)?;
        let records = self.poll_records(timeout);
        point::note(|| What::Polled(records.as_ref().map_or(0, ConsumerRecords::len)));
        point::pass();
        records
    }

    fn poll_records(&mut self, timeout: Duration) -> Result<ConsumerRecords> {
        self.check_can_poll()?;
        let _polling = self.polling();
        let mut patience = Patience::new(timeout);
        loop {
            let (seen, waited) = match self.look(&mut patience)? {
                Look::Found(records) => return Ok(records),
                Look::Nothing { seen, waited } => (seen, waited),
            };
            if waited < self.config.spin && !self.catalog.is_read_only() {
                self.spin((self.config.spin - waited).min(timeout - waited));
            } else if !self.listen() {
                self.bell.wait(seen, Some(self.longest_wait(timeout - waited)));
            }
        }
    }

    pub(super) fn check_can_poll(&self) -> Result<()> {
        self.check_free()?;
        if matches!(self.mode, Mode::None) {
            let reason = "the consumer reads nothing yet; subscribe to topics or assign partitions first";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        Ok(())
    }

    /// Does everything that is due, and takes what there is. Nothing is found only if there is time to wait for more.
    #[inline]
    pub(super) fn look(&mut self, patience: &mut Patience) -> Result<Look> {
        loop {
            let seen = self.bell.rung();
            self.take_wakeup()?;
            self.check_usable()?;
            if self.catalog.is_read_only() {
                self.catalog.follow()?;
            }
            self.keep_up()?;
            self.run_callbacks();
            self.auto_commit_if_due()?;
            let records = match self.fetch() {
                // Another process has removed it since the last look; the next one finds out.
                Err(Error::Io { source, .. })
                    if source.kind() == NotFound && self.catalog.is_read_only() && !patience.looked_again =>
                {
                    patience.looked_again = true;
                    continue;
                }
                fetched => fetched?,
            };
            // Who finds something, or is in a hurry, need not know the time.
            if !records.is_empty() || patience.timeout.is_zero() {
                return Ok(Look::Found(records));
            }
            let waited = patience.waited(self.now());
            let is_over = waited >= patience.timeout;
            return Ok(if is_over { Look::Found(records) } else { Look::Nothing { seen, waited } });
        }
    }

    pub(super) fn take_wakeup(&self) -> Result<()> {
        // Looked at first: to swap is dearer, and it is rarely there.
        let is_woken = self.woken.load(Ordering::Relaxed) && self.woken.swap(false, Ordering::AcqRel);
        if is_woken { Err(Error::Wakeup) } else { Ok(()) }
    }

    /// Takes what there is, beginning with another partition each time.
    fn fetch(&mut self) -> Result<ConsumerRecords> {
        self.resolve_positions()?;
        let policy = self.config.auto_offset_reset;
        let mut catch = Catch { chunks: Vec::new(), left: self.config.max_poll_records, policy };
        let stopped = match self.first.take() {
            None => catch.all(self.partitions.iter_mut()),
            Some(first) => match catch.all(self.partitions.range_mut(&first..)) {
                None => catch.all(self.partitions.range_mut(..&first)),
                stopped => stopped,
            },
        };
        match stopped {
            Some((name, Some(error))) if catch.chunks.is_empty() => {
                self.first = self.partitions.range(name..).nth(1).map(|(next, _)| next.clone());
                return Err(error);
            }
            // What was read is not lost: an error comes next time, and from this partition first.
            Some((name, _)) => self.first = Some(name),
            None => {}
        }
        Ok(ConsumerRecords { chunks: catch.chunks })
    }

    /// Looks for news until there are some, or something else to do.
    fn spin(&self, at_most: Duration) {
        let ready = || self.woken.load(Ordering::Relaxed) || self.partitions.values().any(Fetch::has_news);
        self.catalog.env().scheduler.spin(&ready, self.longest_wait(at_most));
    }

    /// Asks to be told of news. Returns whether there are some already.
    pub(super) fn listen(&self) -> bool {
        if self.listen_for_topics() || self.listen_for_commits() {
            return true;
        }
        self.partitions.values().filter(|fetch| !fetch.paused).any(|fetch| match fetch.position {
            // The log may have been cut since it was looked at, and be as long again.
            Position::At(offset) => fetch.partition.listen(offset, &self.bell) || fetch.has_news(),
            _ => false,
        })
    }

    /// How long to wait for news that somebody announces, when there is something else to do in time.
    pub(super) fn longest_wait(&self, left: Duration) -> Duration {
        let mut longest = left;
        let now = self.now();
        if self.catalog.is_read_only() {
            longest = longest.min(FOLLOW_INTERVAL);
        }
        if self.commits_by_itself() {
            longest = longest.min(self.commits.next_auto.saturating_sub(now));
        }
        if let (Mode::Subscribed(_), Some(group)) = (&self.mode, &self.group) {
            // Somebody must look whether others are late, also where there is no worker.
            longest = longest.min(group.due().saturating_sub(now));
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

    pub(super) fn resolve(&mut self, name: &TopicPartition) -> Result<Offset> {
        let group = self.group.clone();
        let policy = self.config.auto_offset_reset;
        let fetch = self.fetch_of(name)?;
        if let Position::At(offset) = fetch.position {
            return Ok(offset);
        }
        // First: if the log is cut from here on, what is found out below may be of before.
        fetch.partition.renew(&mut fetch.cursor);
        let offset = match fetch.position {
            Position::At(offset) => offset,
            Position::Beginning => fetch.partition.log_start(),
            Position::End => fetch.partition.high_watermark(),
            Position::Unknown => match committed_of(group.as_deref(), fetch)? {
                Some(committed) => committed.offset,
                None => times::reset(&fetch.partition, policy)?
                    .ok_or_else(|| Error::NoOffsetForPartition { partition: name.clone() })?,
            },
        };
        fetch.position = Position::At(offset);
        Ok(offset)
    }

    pub(super) fn fetch_of(&mut self, name: &TopicPartition) -> Result<&mut Fetch> {
        self.catalog.env().check_not_forked()?;
        self.partitions.get_mut(name).ok_or_else(|| Error::NotAssigned { partition: name.clone() })
    }
}

/// What one poll takes.
struct Catch {
    chunks: Vec<(TopicPartition, Chunk)>,
    /// How many more records may be taken.
    left: usize,
    policy: OffsetReset,
}

impl Catch {
    /// Takes from these partitions; the one at which that ended early, and what failed there, if something did.
    fn all<'a>(
        &mut self,
        partitions: impl Iterator<Item = (&'a TopicPartition, &'a mut Fetch)>,
    ) -> Option<(TopicPartition, Option<Error>)> {
        for (name, fetch) in partitions.filter(|(_, fetch)| fetch.has_news()) {
            if self.left == 0 {
                return Some((name.clone(), None));
            }
            if let Err(error) = self.one(name, fetch) {
                return Some((name.clone(), Some(error)));
            }
        }
        None
    }

    fn one(&mut self, name: &TopicPartition, fetch: &mut Fetch) -> Result<()> {
        // A chunk ends with its segment, so there may be more than one.
        while self.left > 0
            && let Some(chunk) = fetch.read(self.policy, self.left)?
        {
            self.left = self.left.saturating_sub(chunk.count);
            // A gap has no records, and what lies behind it need not wait for another poll.
            if chunk.count > 0 {
                self.chunks.push((name.clone(), chunk));
            }
        }
        Ok(())
    }
}

fn committed_of(group: Option<&Group>, fetch: &Fetch) -> Result<Option<OffsetAndMetadata>> {
    group.map_or(Ok(None), |group| group.committed(fetch.partition.name(), fetch.partition.topic_id()))
}

impl Fetch {
    pub(super) fn new(partition: Arc<Partition>) -> Self {
        let cursor = partition.cursor();
        Fetch { partition, position: Position::Unknown, cursor, paused: false, skipped: 0, stored: None }
    }

    pub(super) fn is_of(&self, partition: &Partition) -> bool {
        self.partition.topic_id() == partition.topic_id()
    }

    pub(super) fn unlisten(&self, bell: &Arc<Bell>) {
        self.partition.unlisten(bell);
    }

    pub(super) fn move_to(&mut self, position: Position) {
        self.position = position;
        self.partition.renew(&mut self.cursor);
    }

    /// How far it has read the log as it is, if it is at `offset`: not what was cut off since.
    pub(super) fn standing(&self, offset: Offset) -> Offset {
        self.partition.standing(&self.cursor, offset)
    }

    /// Whether reading may find something: a record, or an error.
    fn has_news(&self) -> bool {
        let at_end = || self.position == Position::At(self.partition.high_watermark());
        !self.paused && (!at_end() || self.partition.is_stale(&self.cursor))
    }

    #[inline(always)]
    fn read(&mut self, policy: OffsetReset, most: usize) -> Result<Option<Chunk>> {
        let Position::At(offset) = self.position else { return Ok(None) };
        match self.read_from(offset, most) {
            Err(error) => self.read_elsewhere(error, policy, offset, most),
            chunk => chunk,
        }
    }

    #[inline(always)]
    fn read_from(&mut self, offset: Offset, most: usize) -> Result<Option<Chunk>> {
        let chunk = self.partition.read(&mut self.cursor, offset, most)?;
        if let Some(chunk) = &chunk {
            self.position = Position::At(chunk.offsets.end);
        }
        Ok(chunk)
    }

    /// Where the policy says, when what the consumer is at cannot be read.
    #[cold]
    fn read_elsewhere(
        &mut self,
        error: Error,
        policy: OffsetReset,
        from: Offset,
        most: usize,
    ) -> Result<Option<Chunk>> {
        match error {
            // As Kafka does it: whoever has a policy goes on where what was cut off began.
            Error::LogTruncated { end, .. } if policy != OffsetReset::None => {
                self.move_to(Position::At(end));
                self.read(policy, most)
            }
            Error::OffsetOutOfRange { .. } => {
                let to = times::reset(&self.partition, policy)?.ok_or(error)?;
                self.position = Position::At(to);
                self.skipped += to.since(from);
                // If that is removed in this moment, the next poll resets it again.
                match self.read_from(to, most) {
                    Err(Error::OffsetOutOfRange { .. }) => Ok(None),
                    chunk => chunk,
                }
            }
            error => Err(error),
        }
    }
}
