//! When the records of a segment are from: where in it to look for a timestamp.
//!
//! For each stretch of 4 KiB the latest timestamp of the batches that begin in it, in memory. Timestamps may come in any
//! order, so nothing is concluded from one stretch about another: whoever looks goes over the numbers, and reads the one
//! stretch that has what is looked for. Derived from the log and never stored, like the [`Index`](super::index).
//! Two may note at a time, who appends and who looks at what was there before: numbers only grow. Readers take no lock,
//! and must not look beyond what was published.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::types::Timestamp;

/// What one number stands for.
pub(crate) const STRETCH_BYTES: u64 = 4096;
/// Numbers are made room for in blocks, so that a large segment that holds little costs little. A small segment has one that
/// is shorter.
const BLOCK: usize = 128;
/// No batch begins in the stretch.
const NEVER: i64 = i64::MIN;

#[derive(Debug)]
pub(crate) struct TimeIndex {
    blocks: Box<[OnceLock<Box<[AtomicI64]>>]>,
    /// How many stretches there are.
    stretches: usize,
    /// Of all stretches.
    latest: AtomicI64,
}

impl TimeIndex {
    /// For a segment of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        let stretches = usize::try_from(capacity.div_ceil(STRETCH_BYTES)).expect("a segment is at most 2 GiB");
        TimeIndex {
            blocks: (0..stretches.div_ceil(BLOCK)).map(|_| OnceLock::new()).collect(),
            stretches,
            latest: AtomicI64::new(NEVER),
        }
    }

    /// Says that the batch at `position` has records as late as `latest`.
    #[inline]
    pub(crate) fn note(&self, position: u64, latest: Timestamp) {
        let stretch = (position / STRETCH_BYTES) as usize;
        let Some(block) = self.blocks.get(stretch / BLOCK) else { return };
        let block = block.get_or_init(|| (0..self.stretches.min(BLOCK)).map(|_| AtomicI64::new(NEVER)).collect());
        let Some(number) = block.get(stretch % BLOCK) else { return };
        raise(number, latest.as_millis());
        raise(&self.latest, latest.as_millis());
    }

    /// The latest timestamp of all that was noted.
    pub(crate) fn latest(&self) -> Option<Timestamp> {
        timestamp(self.latest.load(Ordering::Relaxed))
    }

    /// The latest timestamp of the stretches from one number up to another.
    pub(crate) fn latest_in(&self, stretches: Range<u64>) -> Option<Timestamp> {
        let latest = stretches.map(|stretch| self.of_stretch(stretch)).max();
        latest.and_then(timestamp)
    }

    /// The first of these positions whose stretch has a record of `since` or later; or the start of that stretch, if
    /// that is one of them.
    pub(crate) fn first_since(&self, since: Timestamp, positions: Range<u64>) -> Option<u64> {
        if positions.is_empty() {
            return None;
        }
        let stretches = positions.start / STRETCH_BYTES..positions.end.div_ceil(STRETCH_BYTES);
        let found = stretches.into_iter().find(|stretch| {
            let latest = self.of_stretch(*stretch);
            latest != NEVER && latest >= since.as_millis()
        });
        found.map(|stretch| (stretch * STRETCH_BYTES).max(positions.start))
    }

    /// Forgets all batches from the stretch of `position` on; returns the start of that stretch, from which on those
    /// before `position` must be noted again. Only before anybody reads.
    pub(crate) fn truncate(&self, position: u64) -> u64 {
        let first = position / STRETCH_BYTES;
        for number in (first..self.stretches as u64).map_while(|stretch| self.number(stretch)) {
            number.store(NEVER, Ordering::Relaxed);
        }
        let latest = self.latest_in(0..first).map_or(NEVER, Timestamp::as_millis);
        self.latest.store(latest, Ordering::Relaxed);
        first * STRETCH_BYTES
    }

    fn of_stretch(&self, stretch: u64) -> i64 {
        self.number(stretch).map_or(NEVER, |number| number.load(Ordering::Relaxed))
    }

    /// The number of a stretch, if there is room for it yet.
    fn number(&self, stretch: u64) -> Option<&AtomicI64> {
        self.blocks.get(stretch as usize / BLOCK)?.get()?.get(stretch as usize % BLOCK)
    }
}

/// Most batches are no later than the one before, and a load is cheaper.
#[inline]
fn raise(latest: &AtomicI64, to: i64) {
    if to > latest.load(Ordering::Relaxed) {
        latest.fetch_max(to, Ordering::Relaxed);
    }
}

fn timestamp(millis: i64) -> Option<Timestamp> {
    (millis != NEVER).then(|| Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_stretch_knows_its_latest_record_in_whatever_order_they_came() {
        let index = TimeIndex::new(64 << 20);
        for (position, millis) in [(128, 5), (200, 9), (4096, 3), (3 << 20, 7), ((3 << 20) + 8, -4)] {
            index.note(position, at(millis));
        }

        assert_eq!(index.latest(), Some(at(9)));
        assert_eq!(index.first_since(at(9), 128..1 << 22), Some(128));
        assert_eq!(index.first_since(at(9), 4096..1 << 22), None);
        assert_eq!(index.first_since(at(3), 4100..1 << 22), Some(4100));
        assert_eq!(index.first_since(at(4), 4096..1 << 22), Some(3 << 20));
        assert_eq!(index.first_since(at(4), 4096..3 << 20), None);
        assert_eq!(index.latest_in(1..768), Some(at(3)));
        assert_eq!(index.latest_in(2..3), None);
    }

    #[test]
    fn what_was_cut_is_forgotten_with_its_whole_stretch() {
        let index = TimeIndex::new(1 << 20);
        for position in (128..60_000).step_by(1000) {
            index.note(position, at(position as i64));
        }

        let again = index.truncate(20_000);

        assert_eq!(again, 16_384);
        assert_eq!(index.latest(), Some(at(16_128)));
        assert_eq!(index.first_since(at(16_129), 0..1 << 20), None);
    }
}
