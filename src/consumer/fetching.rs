//! Reading: what a poll does, and where it begins in each partition.

use std::io::ErrorKind::NotFound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::OffsetReset;
use crate::consumer::{Consumer, ConsumerRecords, ConsumerWaker, Fetch, Mode, Position, times};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::partition::Chunk;
use crate::types::{Offset, OffsetAndMetadata, TopicPartition};

/// How often a consumer of a log that another process writes looks for news: a mapped file announces nothing.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(5);

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
        self.check_usable()?;
        if matches!(self.mode, Mode::None) {
            let reason = "the consumer reads nothing yet; subscribe to topics or assign partitions first";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        let clock = Arc::clone(&self.catalog.env().clock);
        let start = clock.monotonic();
        let mut looked_again = false;
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
            let records = match self.fetch() {
                // Another process has removed it since the last look; the next one finds out.
                Err(Error::Io { source, .. })
                    if source.kind() == NotFound && self.catalog.is_read_only() && !looked_again =>
                {
                    looked_again = true;
                    continue;
                }
                fetched => fetched?,
            };
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
            let policy = self.config.auto_offset_reset;
            let fetch = self.partitions.get_mut(&name).expect("its name was just read");
            // A chunk ends with its segment, so there may be more than one.
            let failed = loop {
                match fetch.read(policy, left) {
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

    pub(super) fn resolve(&mut self, name: &TopicPartition) -> Result<Offset> {
        let group = self.group.clone();
        let policy = self.config.auto_offset_reset;
        let fetch = self.fetch_of(name)?;
        let offset = match fetch.position {
            Position::At(offset) => return Ok(offset),
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

    fn read(&mut self, policy: OffsetReset, most: usize) -> Result<Option<Chunk>> {
        let Position::At(offset) = self.position else { return Ok(None) };
        let chunk = match self.partition.read(&mut self.cursor, offset, most) {
            Err(out_of_range @ Error::OffsetOutOfRange { .. }) => {
                let to = times::reset(&self.partition, policy)?.ok_or(out_of_range)?;
                self.position = Position::At(to);
                self.skipped += to.since(offset);
                // If that is removed in this moment, the next poll resets it again.
                match self.partition.read(&mut self.cursor, to, most) {
                    Err(Error::OffsetOutOfRange { .. }) => None,
                    result => result?,
                }
            }
            result => result?,
        };
        if let Some(chunk) = &chunk {
            self.position = Position::At(chunk.offsets.end);
        }
        Ok(chunk)
    }
}
