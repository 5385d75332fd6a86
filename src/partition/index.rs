//! A sparse index in memory: where in a segment to begin looking for an offset.
//!
//! An entry for about every KiB of batches: who looks for one record walks over a few, and what the entries take is
//! less than a hundredth of what they point to. It is derived from the log, never stored, so it cannot be stale. One
//! writer at a time adds to it (the appender, or whoever checks a sealed segment, under that segment's lock);
//! readers need no lock: the length is published after the entry.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// An entry for a batch that begins at least this many bytes behind the last one indexed. Kafka:
/// `index.interval.bytes`, which is 4096: there the index is a file.
pub(super) const INTERVAL_BYTES: u64 = 1024;
/// Entries are made room for in blocks, so that a large segment that holds little costs little. A small segment has one that
/// is shorter.
const BLOCK: usize = 512;

#[derive(Debug)]
pub(crate) struct Index {
    blocks: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// How many entries there can be.
    most: usize,
    length: AtomicUsize,
    /// The position of the last entry.
    last: AtomicU64,
}

impl Index {
    /// For a segment of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        let entries = usize::try_from(capacity / INTERVAL_BYTES + 1).expect("a segment is at most 2 GiB");
        Index {
            blocks: (0..entries.div_ceil(BLOCK)).map(|_| OnceLock::new()).collect(),
            most: entries,
            length: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Says that a batch begins at `position`, with an offset `ahead` of the segment's base. In ascending order.
    #[inline]
    pub(crate) fn note(&self, ahead: u64, position: u64) {
        if position >= self.last.load(Ordering::Relaxed) + INTERVAL_BYTES {
            self.push(ahead, position);
        }
    }

    #[cold]
    fn push(&self, ahead: u64, position: u64) {
        let (Ok(ahead), Ok(position32)) = (u32::try_from(ahead), u32::try_from(position)) else { return };
        let length = self.length.load(Ordering::Relaxed);
        let Some(block) = self.blocks.get(length / BLOCK) else { return };
        let block = block.get_or_init(|| (0..self.most.min(BLOCK)).map(|_| AtomicU64::new(0)).collect());
        let Some(entry) = block.get(length % BLOCK) else { return };
        entry.store(u64::from(ahead) << 32 | u64::from(position32), Ordering::Relaxed);
        self.last.store(position, Ordering::Relaxed);
        self.length.store(length + 1, Ordering::Release);
    }

    /// Forgets the batches from `position` on, which were cut. Only before anybody else knows the segment.
    pub(crate) fn truncate(&self, position: u64) {
        let mut length = self.length.load(Ordering::Relaxed);
        while length > 0 && self.entry(length - 1) & u64::from(u32::MAX) >= position {
            length -= 1;
        }
        let last = length.checked_sub(1).map_or(0, |at| self.entry(at) & u64::from(u32::MAX));
        self.last.store(last, Ordering::Relaxed);
        self.length.store(length, Ordering::Release);
    }

    /// An entry below the length: how far ahead of the base in the upper half, the position in the lower.
    fn entry(&self, at: usize) -> u64 {
        let block = self.blocks[at / BLOCK].get().expect("entries below the length are there");
        block[at % BLOCK].load(Ordering::Relaxed)
    }

    /// Whether the batches that are known reach to the offset that is `ahead` of the base.
    pub(crate) fn reaches(&self, ahead: u64) -> bool {
        let length = self.length.load(Ordering::Acquire);
        length > 0 && self.entry(length - 1) >> 32 >= ahead
    }

    /// A batch at or before the offset that is `ahead` of the base: how far ahead it is itself, and its position; `None`:
    /// from the first batch on.
    pub(crate) fn floor(&self, ahead: u64) -> Option<(u64, u64)> {
        let length = self.length.load(Ordering::Acquire);
        let last = self.entry(length.checked_sub(1)?) >> 32;
        // Where it would be if all batches were alike; from there the steps double, until it lies between two of them.
        let guess = usize::try_from(length as u64 * ahead.min(last) / (last + 1)).expect("less than the length");
        let is_before = |at: usize| self.entry(at) >> 32 <= ahead;
        let (mut low, mut high) = (guess, guess);
        let mut step = 1;
        while low > 0 && !is_before(low - 1) {
            high = low - 1;
            low = low.saturating_sub(step);
            step *= 2;
        }
        while high < length && is_before(high) {
            low = high + 1;
            high = (high + step).min(length);
            step *= 2;
        }
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_before(middle) { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).map(|at| self.entry(at)).map(|entry| (entry >> 32, entry & u64::from(u32::MAX)))
    }

    /// The last position that is known to be that of a batch and is not behind `position`; `None`: the first batch's.
    pub(crate) fn floor_position(&self, position: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.length.load(Ordering::Acquire));
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.entry(middle) & u64::from(u32::MAX) <= position { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).map(|at| self.entry(at) & u64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_of_an_offset_is_the_last_entry_that_is_not_behind_it() {
        let index = Index::new(64 << 20);
        assert_eq!(index.floor(5), None);
        for batch in 0..4000u64 {
            index.note(batch * 10, 128 + batch * 5000);
        }

        assert_eq!(index.floor(9), None, "the first batch is not worth an entry");
        assert_eq!(index.floor_position(5127), None);
        assert_eq!(index.floor_position(5128), Some(5128));
        assert_eq!(index.floor_position(12_000), Some(10_128));
        for ahead in [10, 11, 19, 20, 5120, 39_990, 50_000] {
            let batch = (ahead / 10).min(3999);
            assert_eq!(index.floor(ahead), Some((batch * 10, 128 + batch * 5000)), "{ahead}");
        }
    }

    #[test]
    fn what_was_cut_is_not_found_and_what_comes_in_its_place_is() {
        let index = Index::new(1 << 20);
        for batch in 0..10u64 {
            index.note(batch, 128 + batch * 5000);
        }

        index.truncate(128 + 5 * 5000);
        assert_eq!(index.floor(9), Some((4, 128 + 4 * 5000)));

        index.note(5, 128 + 5 * 5000);
        assert_eq!(index.floor(9), Some((5, 128 + 5 * 5000)));
    }

    #[test]
    fn batches_closer_than_the_interval_share_an_entry() {
        let index = Index::new(1 << 20);
        for batch in 0..100u64 {
            index.note(batch, 128 + batch * 256);
        }
        assert_eq!(index.floor(99), Some((96, 128 + 96 * 256)));
        assert_eq!(index.floor(5), Some((4, 128 + 4 * 256)));
    }

    #[test]
    fn however_unlike_the_batches_are_the_floor_is_the_same_as_of_a_search_from_the_start() {
        for seed in 0..20u64 {
            let index = Index::new(4 << 20);
            let mut entries = Vec::new();
            let (mut ahead, mut position) = (0, 128);
            for batch in 0..2000u64 {
                let draw = (batch + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                ahead += if draw % 97 == 0 { 100_000 } else { draw % 3 };
                position += INTERVAL_BYTES;
                index.note(ahead, position);
                entries.push((ahead, position));
            }
            for wanted in entries.iter().flat_map(|(ahead, _)| [ahead.saturating_sub(1), *ahead, ahead + 1]) {
                let expected = entries.iter().rev().find(|(ahead, _)| *ahead <= wanted).copied();
                assert_eq!(index.floor(wanted), expected, "seed {seed}, {wanted}");
                assert_eq!(index.reaches(wanted), wanted <= ahead, "seed {seed}, {wanted}");
            }
        }
    }
}
