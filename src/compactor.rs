//! Compaction: finds out, now and then, which partition needs it most, and does it a little at a time.
//!
//! What goes is decided in [`partition`](crate::partition). There is one compaction at a time, so that the memory for keys
//! is taken once; whoever asks for one by a call puts the background worker's aside, which begins anew later.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::config::TopicConfig;
use crate::error::{Error, Result};
use crate::partition::{Compaction, Partition, Step, Tally};
use crate::retainer::believed;
use crate::types::{Offset, Timestamp, TopicPartition};
use crate::upkeep::Ward;

/// A background worker rests so long at least between two rounds.
const SHORTEST_REST: Duration = Duration::from_secs(1);

/// How long the background worker leaves somebody alone who compacts by a call.
const LEAVE_ALONE: Duration = Duration::from_millis(100);

/// What a compaction did to a partition, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// The partition.
    pub partition: TopicPartition,
    /// In front of this offset, there is one record of each key, and its tombstone or value is the last that was sent.
    pub clean_end: Offset,
    /// How many passes it took: more than one if there were more new keys than
    /// [`compaction_memory`](crate::LogConfig::compaction_memory) has room for.
    pub passes: u64,
    /// Records that went because there is a later one with their key.
    pub superseded: u64,
    /// Tombstones that went because their time was over.
    pub tombstones: u64,
    /// Records without a key that went: they were sent before the topic was compacted.
    pub keyless: u64,
    /// Records that are left in the segments that were compacted.
    pub records: u64,
    /// How many segments there were, and how many there are in their place.
    pub segments_before: usize,
    /// See `segments_before`.
    pub segments_after: usize,
    /// Their bytes, before and after.
    pub bytes_before: u64,
    /// See `bytes_before`.
    pub bytes_after: u64,
}

/// How far a compaction has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionProgress {
    /// The partition.
    pub partition: TopicPartition,
    /// The number of the pass, from 1.
    pub pass: u64,
    /// How many bytes of it were read, and how many are to be read.
    pub done_bytes: u64,
    /// See `done_bytes`.
    pub total_bytes: u64,
}

/// What compaction has done since the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// How often nothing was begun in the background because the wall clock was not believed: tombstones go by it.
    pub clock_steps: u64,
    /// How many compactions were finished.
    pub compactions: u64,
    /// Records that went, of whatever kind.
    pub records: u64,
    /// Bytes that segments became shorter by.
    pub bytes: u64,
    /// What is being compacted in the background.
    pub running: Option<CompactionProgress>,
    /// Partitions that are not compacted in the background any more, because something in them is damaged; until the log
    /// is opened again.
    pub uncleanable: Vec<TopicPartition>,
    /// What went wrong last, if something did; the others are compacted all the same.
    pub last_error: Option<String>,
}

pub(crate) struct Compactor {
    catalog: Arc<Catalog>,
    state: Mutex<State>,
    report: Mutex<CompactionReport>,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Compaction>,
    /// When the next look is due, and when the next step of what is running is, by the clock that never steps.
    due: Duration,
    resume: Duration,
    /// What both clocks showed in the last look.
    last: Option<(Timestamp, Duration)>,
    /// Topic ids and numbers of partitions that are damaged.
    uncleanable: BTreeSet<(u128, u32)>,
}

impl fmt::Debug for Compactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compactor(every {:?})", self.catalog.config().compaction_interval)
    }
}

impl Compactor {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Compactor { catalog, state: Mutex::default(), report: Mutex::default(), stopped: AtomicBool::new(false) }
    }

    pub(crate) fn report(&self) -> CompactionReport {
        self.report.lock().clone()
    }

    /// Compacts a partition from end to end, what was sent last too.
    pub(crate) fn compact(
        &self,
        partition: &Arc<Partition>,
        progress: impl FnMut(&CompactionProgress),
    ) -> Result<Compacted> {
        self.catalog.check_writable()?;
        let config = self.catalog.topic(partition.name().topic())?.config();
        if !config.cleanup_policy.compacts() {
            let topic = partition.name().topic();
            let reason = format!("topic {topic:?} is not compacted; its cleanup.policy is {}", config.cleanup_policy);
            return Err(Error::InvalidConfig { setting: "cleanup.policy", reason });
        }
        let mut state = self.state.lock();
        state.running = None;
        self.report.lock().running = None;
        // What is appended to is never compacted: so something else is appended to.
        partition.begin_segment()?;
        partition.finish_sealed()?;
        let compacted = self.run(partition, &config, false, progress)?;
        self.note(&compacted);
        state.uncleanable.remove(&number_of(partition));
        Ok(compacted)
    }

    /// What compacting the sealed segments of a partition would do, whatever the policy of its topic is. Nothing changes.
    pub(crate) fn plan(&self, partition: &Arc<Partition>) -> Result<Compacted> {
        let config = self.catalog.topic(partition.name().topic())?.config();
        let mut state = self.state.lock();
        state.running = None;
        self.report.lock().running = None;
        self.run(partition, &config, true, |_| {})
    }

    fn run(
        &self,
        partition: &Arc<Partition>,
        config: &TopicConfig,
        dry_run: bool,
        mut progress: impl FnMut(&CompactionProgress),
    ) -> Result<Compacted> {
        let Some(mut compaction) = self.begin(partition, config, dry_run)? else {
            return Ok(compacted(partition, partition.log_start(), &Tally::default()));
        };
        while !self.stopped.load(Ordering::Acquire) {
            if compaction.step()? == Step::Done {
                return Ok(compacted(partition, compaction.clean_end(), &compaction.tally));
            }
            progress(&progress_of(&compaction));
        }
        Err(Error::Closed)
    }

    fn begin(&self, partition: &Arc<Partition>, config: &TopicConfig, dry_run: bool) -> Result<Option<Compaction>> {
        let memory = self.catalog.config().compaction_memory;
        Compaction::begin(partition, config.compacting, config.segment_bytes, memory, dry_run)
    }

    /// Lets go of what is being done, and does nothing more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.state.lock().running = None;
        self.report.lock().running = None;
    }

    /// The partition that needs it most: of those that need it, the one of which most is dirty. Kafka:
    /// `grabFilthiestCompactedLog`. One that cannot be looked at keeps no other from it.
    fn choose(&self, uncleanable: &BTreeSet<(u128, u32)>) -> Result<Option<Compaction>> {
        let mut dirtiest: Option<(u128, Arc<Partition>, TopicConfig)> = None;
        for topic in self.catalog.topics() {
            let config = topic.config();
            if !config.cleanup_policy.compacts() {
                continue;
            }
            for partition in topic.partitions() {
                let is_free = partition.check_open().is_ok() && !partition.is_pinned();
                if !is_free || uncleanable.contains(&number_of(&partition)) {
                    continue;
                }
                match dirtiness(&partition, &config) {
                    Ok(Some(dirtiness)) if dirtiest.as_ref().is_none_or(|(most, ..)| dirtiness > *most) => {
                        dirtiest = Some((dirtiness, partition, config.clone()));
                    }
                    Ok(_) => {}
                    Err(error) => self.report.lock().last_error = Some(error.to_string()),
                }
            }
        }
        let Some((_, partition, config)) = dirtiest else { return Ok(None) };
        self.begin(&partition, &config, false)
    }

    /// Does a step of what is running; when the next is due.
    fn go_on(&self, state: &mut State, now: Duration) -> Duration {
        let Some(mut compaction) = state.running.take() else { return now };
        let before = compaction.tally.bytes_moved;
        match compaction.step() {
            Ok(Step::More) => {
                let moved = compaction.tally.bytes_moved.saturating_sub(before);
                self.report.lock().running = Some(progress_of(&compaction));
                state.resume = now.saturating_add(self.rest(moved));
                state.running = Some(compaction);
            }
            Ok(Step::Done) => {
                self.note(&compacted(compaction.partition(), compaction.clean_end(), &compaction.tally));
                // Another may need it as well.
                state.due = now;
            }
            Err(error) => {
                let mut report = self.report.lock();
                report.running = None;
                // Deleted, or failed, or closed, since it was begun.
                if compaction.partition().check_open().is_ok() {
                    report.last_error = Some(error.to_string());
                    if error.is_corruption() {
                        report.uncleanable.push(compaction.partition().name().clone());
                        state.uncleanable.insert(number_of(compaction.partition()));
                    }
                }
                state.due = now.saturating_add(self.catalog.config().compaction_interval);
            }
        }
        if state.running.is_some() { state.resume } else { state.due }
    }

    /// How long to rest after so many bytes.
    fn rest(&self, bytes: u64) -> Duration {
        let Some(rate) = self.catalog.config().compaction_rate else { return Duration::ZERO };
        Duration::from_nanos(u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX))
    }

    fn note(&self, compacted: &Compacted) {
        let mut report = self.report.lock();
        report.running = None;
        report.compactions += 1;
        report.records += compacted.superseded + compacted.tombstones + compacted.keyless;
        report.bytes += compacted.bytes_before.saturating_sub(compacted.bytes_after);
    }

    fn has_work(&self) -> bool {
        self.catalog.topics().iter().any(|topic| topic.config().cleanup_policy.compacts())
    }
}

impl Ward for Compactor {
    fn look(&self) -> Option<Duration> {
        if self.stopped.load(Ordering::Acquire) || self.catalog.check_writable().is_err() || !self.has_work() {
            return None;
        }
        let now = self.catalog.env().clock.monotonic();
        let Some(mut state) = self.state.try_lock() else { return Some(now.saturating_add(LEAVE_ALONE)) };
        if state.running.is_some() {
            return Some(if state.resume > now { state.resume } else { self.go_on(&mut state, now) });
        }
        if state.due > now {
            return Some(state.due);
        }
        let clocks = (self.catalog.env().clock.now(), now);
        let last = state.last.replace(clocks);
        if believed(clocks, last).is_none() {
            self.report.lock().clock_steps += 1;
            state.due = now.saturating_add(self.catalog.config().compaction_interval);
            return Some(state.due.max(now.saturating_add(SHORTEST_REST)));
        }
        match self.choose(&state.uncleanable) {
            Ok(Some(compaction)) => {
                state.running = Some(compaction);
                state.resume = now;
                return Some(now);
            }
            Ok(None) => {}
            Err(error) => self.report.lock().last_error = Some(error.to_string()),
        }
        state.due = now.saturating_add(self.catalog.config().compaction_interval);
        Some(state.due.max(now.saturating_add(SHORTEST_REST)))
    }
}

/// How dirty a partition is, if it is time to compact it.
fn dirtiness(partition: &Partition, config: &TopicConfig) -> Result<Option<u128>> {
    let cleanable = partition.cleanable(&config.compacting)?;
    let is_due = partition.is_due(&cleanable, &config.compacting)?;
    Ok(is_due.then(|| cleanable.dirtiness()))
}

fn number_of(partition: &Partition) -> (u128, u32) {
    (partition.topic_id(), partition.name().partition())
}

fn progress_of(compaction: &Compaction) -> CompactionProgress {
    let Tally { passes, done_bytes, total_bytes, .. } = compaction.tally;
    CompactionProgress { partition: compaction.partition().name().clone(), pass: passes, done_bytes, total_bytes }
}

fn compacted(partition: &Partition, clean_end: Offset, tally: &Tally) -> Compacted {
    Compacted {
        partition: partition.name().clone(),
        clean_end,
        passes: tally.passes,
        superseded: tally.superseded,
        tombstones: tally.tombstones,
        keyless: tally.keyless,
        records: tally.kept,
        segments_before: tally.segments_before,
        segments_after: tally.segments_after,
        bytes_before: tally.bytes_before,
        bytes_after: tally.bytes_after,
    }
}
