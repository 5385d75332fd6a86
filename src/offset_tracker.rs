//! Which records have been processed, when they are not processed in order; what may be committed follows from that.
//!
//! A committed offset is one number for a partition, and says that everything below it is done. So while threads work
//! beside each other, it may not pass the first record that one of them still has.
//!
//! | delivered  | finished | may be committed | why                                     |
//! |------------|----------|------------------|-----------------------------------------|
//! | 5, 6, 7    | none     | 5                | nothing below 5 was delivered here      |
//! | 5, 6, 7    | 6, 7     | 5                | 5 is not finished                       |
//! | 5, 6, 7    | 5        | 6                | 6 is not finished                       |
//! | 5, 7, 9    | 5        | 7                | there is no 6 to wait for               |
//! | 5, 6, 7    | all      | 8                | where the poll ended                    |

use std::collections::{BTreeMap, BTreeSet};

use crate::consumer::{Consumer, ConsumerRecords};
use crate::error::Result;
use crate::types::{Offset, TopicPartition};

/// Keeps which of the records that a consumer polled are not processed yet, and commits only what lies below them.
///
/// For consumers that hand records to threads and poll on: the positions, which [`Consumer::commit`] and automatic
/// commits commit, are ahead of the threads then, and a crash would lose what the threads had not finished. Turn
/// [`auto_commit`](crate::ConsumerConfig::auto_commit) off, tell the tracker what was polled and what is finished, in
/// whatever order, and let it commit. Records may then be processed twice after a crash, never not at all. Confluent's
/// Parallel Consumer calls this *out-of-order* commits.
///
/// ```
/// # fn main() -> tidelog::Result<()> {
/// # use std::time::Duration;
/// # let directory = tempfile::tempdir().unwrap();
/// # let log = tidelog::EventLog::open(directory.path())?;
/// # log.create_topic("orders", tidelog::TopicConfig::new())?;
/// # for order in 0..20u8 { log.producer().send(tidelog::ProducerRecord::new("orders", &[order]))?; }
/// # log.producer().flush()?;
/// use std::sync::mpsc;
/// use std::thread;
///
/// use tidelog::{ConsumerConfig, OffsetReset, OffsetTracker};
///
/// let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
/// let mut consumer = log.consumer(config)?;
/// consumer.subscribe(["orders"])?;
/// let mut tracker = OffsetTracker::new();
/// let (tell, finished) = mpsc::channel();
///
/// let records = consumer.poll(Duration::from_millis(100))?;
/// tracker.track(&records);
/// let workers: Vec<_> = (0..4)
///     .map(|worker| {
///         // A clone keeps the segments mapped that the records lie in, and copies none of them.
///         let (records, tell) = (records.clone(), tell.clone());
///         thread::spawn(move || {
///             for record in records.iter().skip(worker).step_by(4) {
///                 // Process it, and then:
///                 tell.send((record.topic_partition().clone(), record.offset())).unwrap();
///             }
///         })
///     })
///     .collect();
/// drop(tell);
///
/// for (partition, offset) in finished {
///     tracker.finish(&partition, offset);
///     tracker.commit(&mut consumer)?; // or now and then
/// }
/// # workers.into_iter().for_each(|worker| worker.join().unwrap());
/// # assert_eq!(tracker.unfinished(), 0);
/// # assert_eq!(consumer.committed(&("orders", 0).into())?.unwrap().offset.get(), 20);
/// # Ok(())
/// # }
/// ```
///
/// # Memory
///
/// In proportion to [`unfinished`](Self::unfinished), and to the number of partitions: what is finished is forgotten at
/// once, however far it is ahead of something that is not. Each poll adds at most
/// [`max_poll_records`](crate::ConsumerConfig::max_poll_records), so a consumer that pauses its partitions, or polls only
/// while `unfinished` is below a bound, bounds this too.
#[derive(Clone, Debug, Default)]
pub struct OffsetTracker {
    partitions: BTreeMap<TopicPartition, Progress>,
}

/// How far a partition is.
#[derive(Clone, Debug)]
struct Progress {
    /// What was delivered and is not finished.
    unfinished: BTreeSet<Offset>,
    /// Behind everything that was delivered.
    end: Offset,
    /// What was committed last.
    committed: Option<Offset>,
}

impl Progress {
    /// Where the group would have to go on.
    fn next(&self) -> Offset {
        self.unfinished.first().copied().unwrap_or(self.end)
    }
}

impl OffsetTracker {
    /// A tracker that knows of no record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that these records were polled, and are to be processed. Records that are polled again, after a seek, are to
    /// be processed again.
    pub fn track(&mut self, records: &ConsumerRecords) {
        for (partition, end) in records.next_offsets() {
            let offsets = records.records(&partition).map(|record| record.offset());
            self.deliver(partition, offsets, end);
        }
    }

    fn deliver(&mut self, partition: TopicPartition, offsets: impl Iterator<Item = Offset>, end: Offset) {
        let fresh = || Progress { unfinished: BTreeSet::new(), end, committed: None };
        let progress = self.partitions.entry(partition).or_insert_with(fresh);
        progress.unfinished.extend(offsets);
        progress.end = end;
    }

    /// Notes that a record was processed. Returns whether it was still to be: not if it was finished already, or its
    /// partition is [forgotten](Self::forget).
    pub fn finish(&mut self, partition: &TopicPartition, offset: Offset) -> bool {
        self.partitions.get_mut(partition).is_some_and(|progress| progress.unfinished.remove(&offset))
    }

    /// How many records were polled and are not finished.
    pub fn unfinished(&self) -> usize {
        self.partitions.values().map(|progress| progress.unfinished.len()).sum()
    }

    /// What can be committed and has not been: for each partition the offset of the first record that is not finished, or,
    /// if all are, the one at which the last poll ended.
    ///
    /// That of a partition from which nothing is finished yet is there too, once: a group that has committed it goes on
    /// there after a crash, where [`OffsetReset::Latest`](crate::OffsetReset::Latest) would skip what it was working on.
    pub fn committable(&self) -> Vec<(TopicPartition, Offset)> {
        let news = self.partitions.iter().filter(|(_, progress)| progress.committed != Some(progress.next()));
        news.map(|(partition, progress)| (partition.clone(), progress.next())).collect()
    }

    /// Commits what is [`committable`](Self::committable), if anything is.
    ///
    /// # Errors
    ///
    /// As [`Consumer::commit_offsets`]; it is committable still.
    pub fn commit(&mut self, consumer: &mut Consumer) -> Result<()> {
        let offsets = self.committable();
        if offsets.is_empty() {
            return Ok(());
        }
        consumer.commit_offsets(offsets.iter().cloned())?;
        for (partition, offset) in offsets {
            self.partitions.get_mut(&partition).expect("it is committable").committed = Some(offset);
        }
        Ok(())
    }

    /// Forgets these partitions: the consumer has them no more. [`commit`](Self::commit) before, as long as it has. What is
    /// unfinished, others will process.
    pub fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn orders() -> TopicPartition {
        ("orders", 0).into()
    }

    fn deliver(tracker: &mut OffsetTracker, offsets: &[u64], end: u64) {
        tracker.deliver(orders(), offsets.iter().copied().map(Offset::new), Offset::new(end));
    }

    fn next(tracker: &OffsetTracker) -> Option<u64> {
        tracker.committable().first().map(|(_, offset)| offset.get())
    }

    #[test]
    fn what_may_be_committed_is_as_the_table_says() {
        for (delivered, end, finished, expected) in [
            (vec![5, 6, 7], 8, vec![], 5),
            (vec![5, 6, 7], 8, vec![6, 7], 5),
            (vec![5, 6, 7], 8, vec![5], 6),
            (vec![5, 7, 9], 10, vec![5], 7),
            (vec![5, 6, 7], 8, vec![7, 5, 6], 8),
            // Behind the last record the poll stepped over what is none.
            (vec![5, 7], 12, vec![7, 5], 12),
        ] {
            let mut tracker = OffsetTracker::new();
            deliver(&mut tracker, &delivered, end);
            for offset in &finished {
                assert!(tracker.finish(&orders(), Offset::new(*offset)));
            }
            assert_eq!(next(&tracker), Some(expected), "{delivered:?} finished {finished:?}");
        }
    }

    #[test]
    fn what_is_not_known_or_finished_twice_changes_nothing() {
        let mut tracker = OffsetTracker::new();
        deliver(&mut tracker, &[1, 2], 3);
        assert!(!tracker.finish(&("other", 0).into(), Offset::new(1)));
        assert!(!tracker.finish(&orders(), Offset::new(9)));
        assert!(tracker.finish(&orders(), Offset::new(2)));
        assert!(!tracker.finish(&orders(), Offset::new(2)));
        assert_eq!((next(&tracker), tracker.unfinished()), (Some(1), 1));

        tracker.forget(&[orders()]);
        assert!(!tracker.finish(&orders(), Offset::new(1)));
        assert_eq!((next(&tracker), tracker.unfinished()), (None, 0));
    }

    proptest! {
        /// Polls and finished records in any order, with gaps. Nothing that is delivered and lies below what may be
        /// committed is unfinished, and what may be committed is as far as that allows.
        #[test]
        fn what_may_be_committed_is_the_prefix_that_is_finished(
            polls in prop::collection::vec(prop::collection::vec(1..4u64, 1..20), 1..8),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut tracker = OffsetTracker::new();
            let (mut delivered, mut done, mut end) = (Vec::new(), Vec::new(), 0);
            let mut picks = picks.into_iter();
            for gaps in polls {
                let mut poll = Vec::new();
                for gap in gaps {
                    end += gap;
                    poll.push(end - 1);
                }
                deliver(&mut tracker, &poll, end);
                delivered.extend(poll);
                // Threads finish some of what there is before the next poll.
                for pick in picks.by_ref().take(15) {
                    let offset = *pick.get(&delivered);
                    prop_assert_eq!(tracker.finish(&orders(), Offset::new(offset)), !done.contains(&offset));
                    done.push(offset);
                }
                let next = next(&tracker).unwrap();
                for offset in &delivered {
                    prop_assert!(*offset >= next || done.contains(offset), "{} is below {} and not finished", offset, next);
                }
                let held_back = delivered.contains(&next) && !done.contains(&next);
                prop_assert!(held_back || next == end, "{} could be passed", next);
                let open = delivered.iter().filter(|offset| !done.contains(offset)).count();
                prop_assert_eq!(tracker.unfinished(), open, "memory is in proportion to this");
            }
        }
    }
}
