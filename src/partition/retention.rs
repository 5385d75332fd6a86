//! What a partition no longer keeps: decided from a few numbers, and removed so that it never comes back.
//!
//! | step                                                          | if the machine stops behind it, the next opening        |
//! |-----------------------------------------------------------------|----------------------------------------------------------|
//! | what stays is durable, down to the name of its first segment   | finds everything                                         |
//! | the new log start offset is recorded, durably, in the catalog  | removes the segments below it, however many came back    |
//! | nobody is shown an offset below it any more                    | the same                                                 |
//! | the segments below it lose their names, the oldest first       | the same                                                 |
//! | the directory is synced                                        | finds what stays, and knows that nothing is missing      |
//!
//! Whoever has read from a segment keeps it mapped. The log start offset may lie in the middle of a segment: what is below
//! is no longer shown, and goes with the segment.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Retention;
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::partition::slot::Slot;
use crate::types::{Offset, Timestamp};

/// A segment, as far as retention goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offsets: Range<Offset>,
    pub(crate) bytes: u64,
}

impl Extent {
    fn records(&self) -> u64 {
        self.offsets.end.since(self.offsets.start)
    }
}

/// What is removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) offsets: Range<Offset>,
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
}

/// How many segments, counted from the oldest, `limits` no longer keep, of those that hold nothing at or behind
/// `keep_from`. `segments` are in the order of their offsets; the one that is appended to is the last, and goes too, unless
/// it is empty.
///
/// `is_old` is asked of a segment by its number whether all of its records are over by time: `None` if nothing says so,
/// because nothing in it can be read. Such a segment goes with the next one.
///
/// # Errors
///
/// What `is_old` met.
pub(crate) fn expired(
    segments: &[Extent],
    limits: &Retention,
    keep_from: Offset,
    mut is_old: impl FnMut(usize) -> Result<Option<bool>>,
) -> Result<usize> {
    let mut removable = segments.iter().take_while(|segment| segment.offsets.end <= keep_from).count();
    if removable == segments.len() && segments.last().is_some_and(|active| active.offsets.is_empty()) {
        removable -= 1;
    }
    let unlimited = limits.time.is_none() && limits.bytes.is_none() && limits.records.is_none();
    if unlimited {
        return Ok(if limits.groups.is_empty() { 0 } else { removable });
    }
    let by_bytes = limits.bytes.map_or(0, |limit| in_excess(segments, |segment| segment.bytes, limit));
    let by_records = limits.records.map_or(0, |limit| in_excess(segments, Extent::records, limit));
    let mut by_time = 0;
    for at in 0..if limits.time.is_some() { removable } else { 0 } {
        match is_old(at)? {
            Some(true) => by_time = at + 1,
            Some(false) => break,
            None => {}
        }
    }
    Ok(by_bytes.max(by_records).max(by_time).min(removable))
}

/// How many segments can go without leaving less than `limit`.
fn in_excess(segments: &[Extent], size: impl Fn(&Extent) -> u64, limit: u64) -> usize {
    let mut excess = segments.iter().map(&size).sum::<u64>().saturating_sub(limit);
    let mut count = 0;
    while excess > 0
        && let Some(rest) = segments.get(count).and_then(|segment| excess.checked_sub(size(segment)))
    {
        excess = rest;
        count += 1;
    }
    count
}

impl Partition {
    /// What `limits` no longer keep, of what lies below `held`. `now`: what the clock shows, if it can be trusted.
    pub(crate) fn expired(&self, limits: &Retention, now: Option<Timestamp>, held: Option<Offset>) -> Result<Removal> {
        let slots: Vec<Arc<Slot>> = self.slots.read().clone();
        let log_end = self.log_end();
        let extents: Vec<Extent> = slots.iter().map(|slot| slot.extent(log_end)).collect();
        let keep_from = held.unwrap_or(log_end).min(self.high_watermark());
        let count = expired(&extents, limits, keep_from, |at| match (now, limits.time) {
            (Some(now), Some(time)) => self.is_older_than(&slots[at], now.saturating_sub(time)),
            _ => Ok(Some(false)),
        })?;
        let end = extents[..count].last().map_or(self.log_start(), |last| last.offsets.end);
        Ok(Removal {
            offsets: self.log_start()..end.max(self.log_start()),
            segments: count,
            bytes: extents[..count].iter().map(|segment| segment.bytes).sum(),
        })
    }

    /// Removes everything below `start`, for good: `record` says durably that it is. See the head of this file.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] if `start` lies behind what is visible; what a sync, `record` and the disk say. What
    /// was recorded is finished later, or by the next opening.
    pub(crate) fn delete_before(&self, start: Offset, record: impl FnOnce() -> Result<()>) -> Result<Removal> {
        let _removing = self.removing.lock();
        self.check_open()?;
        let before = self.log_start();
        if start > self.high_watermark() {
            return Err(self.out_of_range(start));
        }
        if start > before {
            self.make_durable_from(start)?;
            record()?;
        }
        let mut removal = self.remove_below(start)?;
        if self.begin_behind(start)? {
            let active = self.remove_below(start)?;
            removal.segments += active.segments;
            removal.bytes += active.bytes;
        }
        self.room.ring();
        Ok(Removal { offsets: before..start.max(before), ..removal })
    }

    /// Takes care that a power cut leaves a log that reaches `start`.
    fn make_durable_from(&self, start: Offset) -> Result<()> {
        if self.slots.read().iter().any(|slot| slot.base == start) {
            // The segment that begins there says so, once its name is on the disk.
            return self.sync_names();
        }
        self.sync_to(start, None)
    }

    pub(super) fn sync_names(&self) -> Result<()> {
        let dir = &self.home.dir;
        self.home.env.storage.sync_dir(dir).map_err(Error::io("sync", || self.home.full(dir)))
    }

    /// Begins another segment if all records of the active one lie below `start`; whether it did. Without room for one,
    /// the active segment stays: what it holds is not shown.
    fn begin_behind(&self, start: Offset) -> Result<bool> {
        let mut writer = self.writer.lock();
        let base = writer.active.as_ref().map(|active| active.segment.base());
        if writer.next != start || base.is_none_or(|base| base == start) {
            return Ok(false);
        }
        match self.roll(&mut writer) {
            Err(Error::NoSpace { .. } | Error::PartitionFull { .. }) => return Ok(false),
            rolled => rolled?,
        }
        drop(writer);
        self.sync_names()?;
        Ok(true)
    }

    /// Removes the segments that hold nothing at or behind `start`; the oldest first, so that what is left is always a log.
    /// Whoever reads them goes on reading them. While somebody copies them, they stay.
    pub(crate) fn remove_below(&self, start: Offset) -> Result<Removal> {
        let storage = &self.home.env.storage;
        // First, so that whoever finds a file gone finds out why.
        self.log_start.fetch_max(start.get(), Ordering::AcqRel);
        let mut removal = Removal { offsets: start..start, segments: 0, bytes: 0 };
        let pins = self.pins.lock();
        if *pins > 0 {
            return Ok(removal);
        }
        loop {
            let is_over = |slot: &&Arc<Slot>| slot.next().is_some_and(|next| next <= start);
            let Some(oldest) = self.slots.read().first().filter(is_over).cloned() else { break };
            match storage.remove(&oldest.path) {
                // Whoever removed it did what was to be done.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io("remove", || self.home.full(&oldest.path)))?,
            }
            self.slots.write().remove(0);
            removal.segments += 1;
            removal.bytes += oldest.extent(start).bytes;
        }
        if removal.segments > 0 {
            self.sync_names()?;
        }
        Ok(removal)
    }

    /// Another process has removed everything below `start`. Only for a partition that was opened read-only.
    pub(crate) fn follow_start(&self, start: Offset) {
        // Only what was durable is removed.
        self.durable_end.fetch_max(start.get(), Ordering::AcqRel);
        self.high_watermark.fetch_max(start.get(), Ordering::AcqRel);
        self.log_start.fetch_max(start.get(), Ordering::AcqRel);
        self.slots.write().retain(|slot| slot.next().is_none_or(|next| next > start));
    }

    /// Returns once nobody removes or makes segments any more. Only for one that takes no more appends.
    pub(crate) fn wait_for_removals(&self) {
        drop(self.compacting.lock());
        drop(self.removing.lock());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Segments of these sizes, of a record a byte.
    fn segments(sizes: &[u64]) -> Vec<Extent> {
        let mut next = Offset::ZERO;
        let mut extent = |bytes: &u64| {
            let base = next;
            next = next.advance(*bytes);
            Extent { offsets: base..next, bytes: *bytes }
        };
        sizes.iter().map(&mut extent).collect()
    }

    fn count(sizes: &[u64], limits: &Retention, keep_from: u64, old: &[Option<bool>]) -> usize {
        expired(&segments(sizes), limits, Offset::new(keep_from), |at| Ok(old[at])).unwrap()
    }

    /// `5S` is 5.
    fn size(value: &Value) -> u64 {
        value.as_str().unwrap().trim_end_matches('S').parse().unwrap()
    }

    #[test]
    fn kafkas_cases_of_retention_by_size() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/retention_roll.json")).unwrap();
        let mut cases = 0;
        for case in vectors["cases"].as_array().unwrap().iter().filter(|case| !case["retention_bytes"].is_null()) {
            let (segment, append) = (size(&case["segment_bytes"]), case["append"].as_u64().unwrap());
            let sizes = vec![segment; (append / segment) as usize];
            let limits = Retention::new().bytes(size(&case["retention_bytes"]));
            let left = sizes.len() - count(&sizes, &limits, append, &[]);
            assert_eq!(left as u64, case["expect_segments_after"].as_u64().unwrap(), "{case}");
            cases += 1;
        }
        assert_eq!(cases, 2);
    }

    #[test]
    fn at_least_what_a_limit_says_is_kept() {
        for limit in 0..20 {
            for limits in [Retention::new().bytes(limit), Retention::new().records(limit)] {
                let sizes = [3, 4, 1, 5, 2];
                let gone = count(&sizes, &limits, 15, &[]);
                let left: u64 = sizes[gone..].iter().sum();
                assert!(left >= limit.min(15), "{limit}: {left}");
                assert!(gone == 5 || left - sizes[gone] < limit || left <= limit, "{limit}: one more could go");
            }
        }
    }

    #[test]
    fn the_limit_that_keeps_least_counts() {
        let old = [Some(true), Some(false), Some(true), Some(false)];
        let time = Retention::new().time(std::time::Duration::from_secs(1));
        assert_eq!(count(&[1, 1, 1, 1], &time, 4, &old), 1);
        assert_eq!(count(&[1, 1, 1, 1], &time.clone().bytes(2), 4, &old), 2);
        assert_eq!(count(&[1, 1, 1, 1], &time.clone().bytes(2).records(1), 4, &old), 3);
        assert_eq!(count(&[1, 1, 1, 1], &time.records(4), 4, &old), 1);
    }

    #[test]
    fn what_is_not_visible_or_not_committed_stays_whatever_the_limits_say() {
        for keep_from in 0..=4 {
            let nothing = Retention::new().bytes(0);
            assert_eq!(count(&[1, 1, 1, 1], &nothing, keep_from, &[]), keep_from as usize);
            let queue = Retention::new().until_committed_by(["g"]);
            assert_eq!(count(&[1, 1, 1, 1], &queue, keep_from, &[]), keep_from as usize);
        }
        assert_eq!(count(&[2, 2], &Retention::new().bytes(0), 3, &[]), 1, "a segment goes as a whole");
        assert_eq!(count(&[1, 1, 1, 1], &Retention::new().bytes(3).until_committed_by(["g"]), 4, &[]), 1);
    }

    #[test]
    fn a_segment_without_a_time_goes_with_the_next_and_the_empty_last_one_stays() {
        let time = Retention::new().time(std::time::Duration::from_secs(1));
        assert_eq!(count(&[1, 1, 1], &time, 3, &[None, Some(true), None]), 2);
        assert_eq!(count(&[1, 1, 1], &time, 3, &[None, None, Some(false)]), 0);
        assert_eq!(count(&[1, 1, 0], &time, 2, &[Some(true), Some(true), None]), 2);
        assert_eq!(count(&[1, 1], &time, 2, &[Some(true), Some(true)]), 2, "the last one goes if it holds something");
        assert_eq!(count(&[0], &Retention::new().bytes(0), 0, &[]), 0);
        assert_eq!(count(&[], &time, 0, &[]), 0);
    }

    #[test]
    fn without_a_limit_nothing_goes() {
        assert_eq!(count(&[1, 1, 1], &Retention::new(), 3, &[]), 0);
    }
}
