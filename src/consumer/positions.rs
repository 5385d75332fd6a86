//! Positions: asked for, moved, paused.

use std::collections::BTreeMap;

use crate::consumer::Consumer;
use crate::consumer::fetching::Position;
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::types::{Offset, TopicPartition};

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

    pub(super) fn check_assigned(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.catalog.env().check_not_forked()?;
        match partitions.iter().find(|name| !self.partitions.contains_key(*name)) {
            Some(name) => Err(Error::NotAssigned { partition: name.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn move_to(&mut self, partition: &TopicPartition, position: Position) -> Result<()> {
        self.fetch_of(partition)?.move_to(position);
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

    /// How many offsets the reset policy has stepped over in a partition, since it was assigned: records that were removed
    /// before the consumer got to them, and with [`OffsetReset::Latest`](crate::OffsetReset) those that were still there.
    /// With [`OffsetReset::None`](crate::OffsetReset) nothing is stepped over, and `poll` says so instead.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned).
    pub fn skipped(&self, partition: &TopicPartition) -> Result<u64> {
        self.check_assigned(std::slice::from_ref(partition))?;
        Ok(self.partitions[partition].skipped)
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
