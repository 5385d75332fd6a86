//! Retention: finds out, now and then, what topics no longer keep, and removes it.
//!
//! What goes is decided by [`partition`](crate::partition) from limits, what the groups have committed, and the time. Here
//! is where these three come together:
//!
//! | what                       | what could go wrong                      | what is done                                       |
//! |----------------------------|------------------------------------------|----------------------------------------------------|
//! | what a group has committed | a power cut takes the commit              | it is synced before anything goes because of it    |
//! | what a group has committed | its files are damaged                     | nothing goes until somebody commits again          |
//! | the time                   | the wall clock steps                      | it is not believed until the next round            |
//! | anything                   | an error                                  | it is kept for the report, and tried again         |

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::config::{Retention, TopicConfig};
use crate::error::{Error, Result};
use crate::group::Groups;
use crate::partition::{Partition, Removal};
use crate::topic::Topic;
use crate::types::{Offset, Timestamp, TopicPartition};
use crate::upkeep::{Retain, Ward};

/// The wall clock has stepped if, since the last round, it went by so much more or less than the one that never steps.
const STEP: Duration = Duration::from_secs(60);

/// A background worker rests so long at least between two rounds.
const SHORTEST_REST: Duration = Duration::from_secs(1);

/// Records that were removed from a partition, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The partition.
    pub partition: TopicPartition,
    /// Their offsets.
    pub offsets: Range<Offset>,
    /// How many segments went with them.
    pub segments: usize,
    /// The bytes of these segments.
    pub bytes: u64,
}

/// What retention has done since the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionReport {
    /// How often the log looked for what is no longer kept.
    pub rounds: u64,
    /// In how many of these rounds the wall clock was not believed, so that nothing went because of its age.
    pub clock_steps: u64,
    /// Offsets that were removed: by retention, by dropping the oldest, and by `delete_records`.
    pub records: u64,
    /// Segments that were removed.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What went wrong in the last round, if something did. It is tried again.
    pub last_error: Option<String>,
}

pub(crate) struct Retainer {
    catalog: Arc<Catalog>,
    groups: Arc<Groups>,
    interval: Duration,
    rounds: Mutex<Rounds>,
}

#[derive(Debug, Default)]
struct Rounds {
    /// When the next one is due, by the clock that never steps.
    due: Duration,
    /// What both clocks showed in the last one.
    last: Option<(Timestamp, Duration)>,
    report: RetentionReport,
}

impl fmt::Debug for Retainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Retainer(every {:?})", self.interval)
    }
}

impl Retainer {
    pub(crate) fn new(catalog: Arc<Catalog>, groups: Arc<Groups>, interval: Duration) -> Self {
        Retainer { catalog, groups, interval, rounds: Mutex::default() }
    }

    pub(crate) fn report(&self) -> RetentionReport {
        self.rounds.lock().report.clone()
    }

    /// Removes what topics no longer keep. All partitions are tried; the first error is returned.
    pub(crate) fn apply(&self) -> Result<Vec<Removed>> {
        self.catalog.check_writable()?;
        let now = self.begin_round();
        let (mut all_removed, mut result) = (Vec::new(), Ok(()));
        for topic in self.catalog.topics() {
            let config = topic.config();
            let limits = config.limits();
            if limits.keeps_everything() {
                continue;
            }
            for partition in topic.partitions() {
                match self.apply_to(&partition, &limits, now) {
                    Ok(removed) if removed.offsets.is_empty() => {}
                    Ok(removed) => all_removed.push(removed),
                    // Deleted, or failed, since it was listed.
                    Err(_) if partition.check_open().is_err() => {}
                    Err(error) => result = result.and(Err(error)),
                }
            }
        }
        self.rounds.lock().report.last_error = result.as_ref().err().map(Error::to_string);
        result.map(|()| all_removed)
    }

    /// What would go, if the topic kept what `config` says.
    pub(crate) fn plan(&self, topic: &Topic, config: &TopicConfig) -> Result<Vec<Removed>> {
        let (now, limits) = (self.believed_now(), config.limits());
        let mut plan = Vec::new();
        for partition in topic.partitions() {
            let held = self.held(&partition, &limits)?;
            let removal = partition.expired(&limits, now, held)?;
            if !removal.offsets.is_empty() {
                plan.push(removed(&partition, removal));
            }
        }
        Ok(plan)
    }

    /// Removes everything below `start`, whatever the topic keeps.
    pub(crate) fn delete(&self, partition: &Partition, start: Offset) -> Result<Removed> {
        let removal = self.catalog.delete_before(partition, start)?;
        let report = &mut self.rounds.lock().report;
        report.records += removal.offsets.end.since(removal.offsets.start);
        report.segments += removal.segments as u64;
        report.bytes += removal.bytes;
        Ok(removed(partition, removal))
    }

    fn apply_to(&self, partition: &Partition, limits: &Retention, now: Option<Timestamp>) -> Result<Removed> {
        let held = self.held(partition, limits)?;
        let removal = partition.expired(limits, now, held)?;
        if removal.segments == 0 {
            return Ok(removed(partition, removal));
        }
        for group in &limits.groups {
            self.groups.group(group)?.sync()?;
        }
        self.delete(partition, removal.offsets.end)
    }

    /// From where on some group still needs the records; `None` if no group has a say in it.
    fn held(&self, partition: &Partition, limits: &Retention) -> Result<Option<Offset>> {
        let mut held = None;
        for group in &limits.groups {
            let committed = self.groups.group(group)?.committed(partition.name(), partition.topic_id());
            // Damage may have taken the commit: then it is not known, and everything stays.
            let committed = committed.ok().flatten().map_or(Offset::ZERO, |committed| committed.offset);
            held = Some(held.map_or(committed, |held: Offset| held.min(committed)));
        }
        Ok(held)
    }

    /// What the wall clock shows, unless it has stepped since the last round.
    fn believed_now(&self) -> Option<Timestamp> {
        believed(self.clocks(), self.rounds.lock().last)
    }

    fn begin_round(&self) -> Option<Timestamp> {
        let clocks = self.clocks();
        let mut rounds = self.rounds.lock();
        let now = believed(clocks, rounds.last);
        rounds.last = Some(clocks);
        rounds.report.rounds += 1;
        rounds.report.clock_steps += u64::from(now.is_none());
        now
    }

    fn clocks(&self) -> (Timestamp, Duration) {
        let clock = &self.catalog.env().clock;
        (clock.now(), clock.monotonic())
    }

    fn has_work(&self) -> bool {
        self.catalog.topics().iter().any(|topic| !topic.config().limits().keeps_everything())
    }
}

impl Ward for Retainer {
    fn look(&self) -> Option<Duration> {
        if self.catalog.check_writable().is_err() || !self.has_work() {
            return None;
        }
        let now = self.catalog.env().clock.monotonic();
        let due = self.rounds.lock().due;
        if due > now {
            return Some(due);
        }
        // What goes wrong is in the report.
        drop(self.apply());
        let mut rounds = self.rounds.lock();
        rounds.due = now.saturating_add(self.interval);
        Some(rounds.due.max(now.saturating_add(SHORTEST_REST)))
    }
}

impl Retain for Retainer {
    fn delete_before(&self, partition: &Partition, start: Offset) -> Result<()> {
        self.delete(partition, start).map(drop)
    }

    fn apply_retention(&self, partition: &Partition) -> Result<usize> {
        let limits = self.catalog.topic(partition.name().topic())?.config().limits();
        Ok(self.apply_to(partition, &limits, self.believed_now())?.segments)
    }
}

fn removed(partition: &Partition, removal: Removal) -> Removed {
    let Removal { offsets, segments, bytes } = removal;
    Removed { partition: partition.name().clone(), offsets, segments, bytes }
}

/// What the wall clock shows, unless it and the one that never steps disagree on how much time went by.
pub(crate) fn believed(
    (wall, monotonic): (Timestamp, Duration),
    last: Option<(Timestamp, Duration)>,
) -> Option<Timestamp> {
    let Some((last_wall, last_monotonic)) = last else { return Some(wall) };
    let due = last_wall.saturating_add(monotonic.saturating_sub(last_monotonic));
    (wall.since(due).max(due.since(wall)) <= STEP).then_some(wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_believed_as_long_as_it_goes_with_the_other_one() {
        let (wall, monotonic) = (Timestamp::from_millis(1_000_000), Duration::from_secs(50));
        let later = |by: i64| Timestamp::from_millis(1_000_000 + by);
        assert_eq!(believed((wall, monotonic), None), Some(wall));
        for (wall_went, went, is_believed) in [
            (0, 0, true),
            (3_600_000, 3600, true),
            (3_660_000, 3600, true),
            (3_660_001, 3600, false),
            (3_540_000, 3600, true),
            (3_539_999, 3600, false),
            (-70_000, 0, false),
            (i64::MAX - 1_000_000, 1, false),
        ] {
            let clocks = (later(wall_went), monotonic + Duration::from_secs(went));
            assert_eq!(believed(clocks, Some((wall, monotonic))).is_some(), is_believed, "{wall_went} in {went} s");
        }
    }
}
