//! Committing: when told to, and by itself.

use std::sync::Arc;

use crate::consumer::{Consumer, Fetch, Mode, Position};
use crate::env::point::{self, What};
use crate::env::refusals::Call;
use crate::error::{Error, Result};
use crate::group::{Group, MemberId};
use crate::types::{OffsetAndMetadata, TopicPartition};

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

    pub(super) fn group(&self) -> Result<&Arc<Group>> {
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
        self.catalog.env().refusals.check(Call::Commit)?;
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

    pub(super) fn commits_by_itself(&self) -> bool {
        self.config.commits_by_itself() && !self.catalog.is_read_only()
    }

    pub(super) fn restart_auto_commit(&mut self) {
        let now = self.catalog.env().clock.monotonic();
        self.next_auto_commit = now.saturating_add(self.config.auto_commit_interval);
    }

    /// Commits the positions if it is time, without waiting for the disk.
    pub(super) fn auto_commit_if_due(&mut self) -> Result<()> {
        if !self.commits_by_itself() || self.catalog.env().clock.monotonic() < self.next_auto_commit {
            return Ok(());
        }
        self.restart_auto_commit();
        let offsets = self.committable();
        self.group()?.commit(&offsets, self.membership()).map(drop)
    }

    /// Commits the positions and waits for it, if automatic commits are on.
    pub(super) fn auto_commit_now(&mut self) -> Result<()> {
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
}
