//! Committing: when told to, and by itself.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::Consumer;
use crate::consumer::fetching::Position;
use crate::env::point::{self, What};
#[cfg(test)]
use crate::env::point::{Mistake, is_planted};
use crate::env::refusals::Call;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::types::{Offset, OffsetAndMetadata, TopicPartition};

/// Offsets to commit, each of the *next* record to read.
type Offsets = Vec<(TopicPartition, OffsetAndMetadata)>;

/// Runs when what it is about is committed, or cannot be.
type Callback = Box<dyn FnOnce(Result<Offsets>) + Send>;

/// What a consumer keeps of its commits.
#[derive(Debug)]
pub(super) struct Commits {
    /// When the next automatic commit is due.
    pub(super) next_auto: Duration,
    /// Those that somebody waits for with a callback, the oldest first.
    waiting: VecDeque<Waiting>,
}

/// A commit that was made and may not be durable yet.
struct Waiting {
    /// How far the group's log must be durable.
    end: Offset,
    offsets: Offsets,
    callback: Callback,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waiting({:?})", self.offsets)
    }
}

impl Commits {
    pub(super) fn new(next_auto: Duration) -> Self {
        Commits { next_auto, waiting: VecDeque::new() }
    }
}

/// Committing.
impl Consumer {
    /// Commits the positions: what polls have returned counts as done. Returns when that is as durable as
    /// [`commit_durability`](crate::LogConfig::commit_durability) says, and after the callbacks of all commits before it.
    ///
    /// With [`auto_offset_store`](crate::ConsumerConfig::auto_offset_store) off, commits what was stored instead.
    ///
    /// # Errors
    ///
    /// [`InvalidGroup`](Error::InvalidGroup) without a group; what was committed before is as it was:
    /// [`CommitFailed`](Error::CommitFailed) if the consumer is no longer a member,
    /// [`FencedInstanceId`](Error::FencedInstanceId) if another has taken its place,
    /// [`RebalanceInProgress`](Error::RebalanceInProgress) if it must poll first; [`ReadOnly`](Error::ReadOnly); what an
    /// append and a sync can meet.
    pub fn commit(&mut self) -> Result<()> {
        self.check_usable()?;
        let offsets = self.due_offsets();
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
        self.commit_and_wait(&listed(offsets))
    }

    /// [`commit`](Self::commit) without waiting for the disk: what is committed holds at once, for this process and after
    /// its death. When it is as durable as configured, or it is known that it will not be, a later
    /// [`poll`](Self::poll), [`commit`](Self::commit) or [`close`](Self::close) of this consumer calls `callback`,
    /// in the order of the commits, in its own thread. A callback that panics is left there.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit), and then the callback is not called.
    pub fn commit_async<F>(&mut self, callback: F) -> Result<()>
    where
        F: FnOnce(Result<Vec<(TopicPartition, OffsetAndMetadata)>>) + Send + 'static,
    {
        self.check_usable()?;
        let offsets = self.due_offsets();
        self.commit_then(offsets, Box::new(callback))
    }

    /// [`commit_offsets`](Self::commit_offsets) as [`commit_async`](Self::commit_async) does it.
    ///
    /// # Errors
    ///
    /// As [`commit_offsets`](Self::commit_offsets), and then the callback is not called.
    pub fn commit_offsets_async<I, O, F>(&mut self, offsets: I, callback: F) -> Result<()>
    where
        I: IntoIterator<Item = (TopicPartition, O)>,
        O: Into<OffsetAndMetadata>,
        F: FnOnce(Result<Vec<(TopicPartition, OffsetAndMetadata)>>) + Send + 'static,
    {
        self.check_usable()?;
        self.commit_then(listed(offsets), Box::new(callback))
    }

    /// Keeps these offsets, of the *next* records to read, for the next commit, automatic or not. Only with
    /// [`auto_offset_store`](crate::ConsumerConfig::auto_offset_store) off. librdkafka: `offsets_store`.
    ///
    /// What was polled and not stored is polled again after a crash: store a record once it is processed, and automatic
    /// commits are as safe as those that you make.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned), and then none was stored; [`InvalidState`](Error::InvalidState) if polling
    /// stores by itself.
    pub fn store_offsets<I, O>(&mut self, offsets: I) -> Result<()>
    where
        I: IntoIterator<Item = (TopicPartition, O)>,
        O: Into<OffsetAndMetadata>,
    {
        self.check_usable()?;
        if self.config.auto_offset_store {
            let reason = "polling stores offsets by itself; turn that off with ConsumerConfig::auto_offset_store";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        let offsets = listed(offsets);
        if let Some((name, _)) = offsets.iter().find(|(name, _)| !self.partitions.contains_key(name)) {
            return Err(Error::NotAssigned { partition: name.clone() });
        }
        for (name, offset) in offsets {
            self.fetch_of(&name)?.stored = Some(offset);
        }
        Ok(())
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

    /// What a commit commits that names no offsets: the positions that are known, or else what was stored; no more than what
    /// is left, where the log was cut since.
    fn due_offsets(&self) -> Offsets {
        let due = |(name, fetch): (&TopicPartition, &super::Fetch)| {
            let offset = match fetch.position {
                _ if !self.config.auto_offset_store => {
                    let stored = fetch.stored.clone()?;
                    OffsetAndMetadata { offset: fetch.standing(stored.offset), ..stored }
                }
                #[cfg(test)]
                Position::At(offset) if is_planted(Mistake::CommitIsOneFurther) => {
                    OffsetAndMetadata::from(offset.advance(1).min(fetch.partition.log_end()))
                }
                Position::At(offset) => OffsetAndMetadata::from(fetch.standing(offset)),
                _ => return None,
            };
            Some((name.clone(), offset))
        };
        self.partitions.iter().filter_map(due).collect()
    }

    /// Appends the commit. Returns how far the group's log must be durable for it to be; `None`: it is.
    fn append_commit(&mut self, offsets: &Offsets) -> Result<Option<Offset>> {
        let end = self.group()?.commit(self.now(), offsets, self.membership())?;
        for (name, offset) in offsets {
            // Where polling stores, nothing else is stored.
            if !self.config.auto_offset_store
                && let Some(fetch) = self.partitions.get_mut(name)
            {
                // What was stored meanwhile is still to come.
                fetch.stored.take_if(|stored| stored == offset);
            }
        }
        Ok(end)
    }

    fn commit_and_wait(&mut self, offsets: &Offsets) -> Result<()> {
        point::reach(|| What::Commit);
        self.catalog.env().refusals.check(Call::Commit)?;
        let delivered = match self.append_commit(offsets) {
            Ok(Some(end)) => self.group()?.deliver(end),
            other => other.map(drop),
        };
        if delivered.is_ok() {
            point::note(|| What::CommitReturned);
        }
        point::pass();
        self.run_callbacks();
        delivered
    }

    fn commit_then(&mut self, offsets: Offsets, callback: Callback) -> Result<()> {
        let end = self.append_commit(&offsets)?.unwrap_or(Offset::ZERO);
        self.commits.waiting.push_back(Waiting { end, offsets, callback });
        Ok(())
    }

    /// Calls back whose commits are as durable as configured, or will never be.
    pub(super) fn run_callbacks(&mut self) {
        while let Some(first) = self.commits.waiting.front() {
            let Some(group) = &self.group else { return };
            let Some(result) = group.delivered(first.end, &self.bell) else { return };
            let Some(Waiting { offsets, callback, .. }) = self.commits.waiting.pop_front() else { return };
            // A callback that panics takes nobody with it: the panic hook has told of it.
            drop(panic::catch_unwind(AssertUnwindSafe(|| callback(result.map(|()| offsets)))));
        }
    }

    /// Whether somebody can be called back now; if not, the bell rings when that changes.
    pub(super) fn listen_for_commits(&self) -> bool {
        match (self.commits.waiting.front(), &self.group) {
            (Some(first), Some(group)) => group.delivered(first.end, &self.bell).is_some(),
            _ => false,
        }
    }

    /// Waits for all commits that somebody waits for, and calls back.
    pub(super) fn finish_commits(&mut self) -> Result<()> {
        let (Some(last), Some(group)) = (self.commits.waiting.back(), &self.group) else { return Ok(()) };
        let delivered = group.deliver(last.end);
        self.run_callbacks();
        delivered
    }
}

fn listed<I, O>(offsets: I) -> Offsets
where
    I: IntoIterator<Item = (TopicPartition, O)>,
    O: Into<OffsetAndMetadata>,
{
    offsets.into_iter().map(|(name, offset)| (name, offset.into())).collect()
}

/// Committing by itself.
impl Consumer {
    pub(super) fn commits_by_itself(&self) -> bool {
        self.config.commits_by_itself() && !self.catalog.is_read_only()
    }

    pub(super) fn restart_auto_commit(&mut self) {
        self.commits.next_auto = self.now().saturating_add(self.config.auto_commit_interval);
    }

    /// Commits the positions if it is time, without waiting for the disk.
    pub(super) fn auto_commit_if_due(&mut self) -> Result<()> {
        if !self.commits_by_itself() || self.now() < self.commits.next_auto {
            return Ok(());
        }
        self.restart_auto_commit();
        let offsets = self.committable();
        unless_out(self.append_commit(&offsets).map(drop))
    }

    /// Commits the positions and waits for it, if automatic commits are on.
    pub(super) fn auto_commit_now(&mut self) -> Result<()> {
        if !self.commits_by_itself() || self.partitions.is_empty() {
            return Ok(());
        }
        let offsets = self.committable();
        unless_out(self.commit_and_wait(&offsets))
    }

    /// What can be committed: not a position that was sought behind the end, nor one of a deleted topic.
    fn committable(&self) -> Offsets {
        let mut offsets = self.due_offsets();
        offsets.retain(|(name, offset)| {
            self.catalog.partition(name).is_ok_and(|partition| offset.offset <= partition.committable_end())
        });
        offsets
    }
}

/// That a consumer was put out of its group is not for its automatic commits to tell, but for its next poll.
fn unless_out(committed: Result<()>) -> Result<()> {
    match committed {
        Err(Error::CommitFailed { .. } | Error::FencedInstanceId { .. } | Error::RebalanceInProgress { .. }) => Ok(()),
        committed => committed,
    }
}
