//! Offsets and positions by time.

use std::collections::BTreeMap;

use crate::config::OffsetReset;
use crate::consumer::Consumer;
use crate::consumer::fetching::Position;
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::types::{Offset, OffsetAndTimestamp, Timestamp, TopicPartition};

/// Offsets by time.
impl Consumer {
    /// For each partition, assigned or not, the first record whose timestamp is that or later, with its own timestamp;
    /// `None` if there is none. Kafka: `offsetsForTimes`.
    ///
    /// The first by its offset: if timestamps are not in order, that is not the one that is nearest to it. A record that
    /// cannot be read, because it is damaged, has no timestamp and is stepped over. The first lookup after the log was
    /// opened reads the segments up to where the record is. After that, those that have no such record are passed over
    /// without a look, and of one that is in use a few pages are read.
    ///
    /// # Errors
    ///
    /// [`InvalidTimestamp`](Error::InvalidTimestamp) for a negative one; [`UnknownTopic`](Error::UnknownTopic),
    /// [`UnknownPartition`](Error::UnknownPartition), [`Io`](Error::Io).
    pub fn offsets_for_times<I, P>(&self, times: I) -> Result<BTreeMap<TopicPartition, Option<OffsetAndTimestamp>>>
    where
        I: IntoIterator<Item = (P, Timestamp)>,
        P: Into<TopicPartition>,
    {
        self.check_usable()?;
        let mut found = BTreeMap::new();
        for (name, since) in times {
            let name = name.into();
            check_timestamp(since)?;
            let partition = self.catalog.partition(&name)?;
            found.insert(name, partition.first_since(since)?.map(OffsetAndTimestamp::from));
        }
        Ok(found)
    }

    /// For each partition, assigned or not, the record with the latest timestamp, the first of several; `None` if there is
    /// no record. Kafka: `OffsetSpec.maxTimestamp`.
    ///
    /// # Errors
    ///
    /// [`UnknownTopic`](Error::UnknownTopic), [`UnknownPartition`](Error::UnknownPartition), [`Io`](Error::Io).
    pub fn offsets_of_latest_timestamps(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Option<OffsetAndTimestamp>>> {
        self.check_usable()?;
        let latest = |name: &TopicPartition| {
            let latest = self.catalog.partition(name)?.latest()?;
            Ok((name.clone(), latest.map(OffsetAndTimestamp::from)))
        };
        partitions.iter().map(latest).collect()
    }

    /// The next poll begins at the first record whose timestamp is that or later, behind the last if there is none now. No
    /// partitions: all that are assigned.
    ///
    /// # Errors
    ///
    /// [`NotAssigned`](Error::NotAssigned), [`InvalidTimestamp`](Error::InvalidTimestamp), [`Io`](Error::Io); then none
    /// was moved.
    pub fn seek_to_time(&mut self, partitions: &[TopicPartition], since: Timestamp) -> Result<()> {
        self.check_assigned(partitions)?;
        check_timestamp(since)?;
        let names = if partitions.is_empty() { self.assignment() } else { partitions.to_vec() };
        let mut found = Vec::new();
        for name in names {
            let offset = since_or_end(&self.fetch_of(&name)?.partition, since)?;
            found.push((name, offset));
        }
        found.iter().try_for_each(|(name, offset)| self.move_to(name, Position::At(*offset)))
    }
}

fn check_timestamp(since: Timestamp) -> Result<()> {
    if since.as_millis() < 0 {
        return Err(Error::InvalidTimestamp {
            timestamp: since,
            reason: "it is negative; records are from 1970 on".into(),
        });
    }
    Ok(())
}

fn since_or_end(partition: &Partition, since: Timestamp) -> Result<Offset> {
    // Before the lookup: what comes meanwhile is not stepped over.
    let end = partition.high_watermark();
    Ok(partition.first_since(since)?.map_or(end, |(offset, _)| offset))
}

/// Where the reset policy says to begin; `None` if it says nowhere.
pub(super) fn reset(partition: &Partition, policy: OffsetReset) -> Result<Option<Offset>> {
    Ok(match policy {
        OffsetReset::Earliest => Some(partition.log_start()),
        OffsetReset::Latest => Some(partition.high_watermark()),
        OffsetReset::ByDuration(ago) => Some(since_or_end(partition, partition.now().saturating_sub(ago))?),
        OffsetReset::None => None,
    })
}
