//! The records that everybody appends, and the check that everybody gives them back.

use std::collections::BTreeMap;

/// Different records before the bytes repeat; a multiple of every batch, so that a batch is one piece of the pool, and
/// so many that no compression finds the one before.
const POOL: usize = 1000;

/// Bytes of the number with which every record begins.
const NUMBER_BYTES: usize = 8;

/// Records of one size. Each begins with its number and is otherwise noise, so none is like another.
pub(crate) struct Records {
    pool: Vec<u8>,
    bytes: usize,
}

impl Records {
    pub(crate) fn new(bytes: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        Records { pool: (0..POOL * bytes).map(|_| noise()).collect(), bytes }
    }

    /// The record with this number.
    #[inline]
    pub(crate) fn get(&mut self, number: u64) -> &[u8] {
        let at = (number % POOL as u64) as usize * self.bytes;
        let record = &mut self.pool[at..][..self.bytes];
        record[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
        record
    }

    /// The records `first..first + count`, where `first` is a multiple of `count`.
    #[inline]
    pub(crate) fn batch(&mut self, first: u64, count: usize) -> Vec<&[u8]> {
        let at = (first % POOL as u64) as usize * self.bytes;
        let batch = &mut self.pool[at..][..count * self.bytes];
        for (number, record) in (first..).zip(batch.chunks_exact_mut(self.bytes)) {
            record[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
        }
        batch.chunks_exact(self.bytes).collect()
    }
}

/// The number with which a record begins.
#[inline]
pub(crate) fn number_of(record: &[u8]) -> Option<u64> {
    record.first_chunk().map(|number| u64::from_le_bytes(*number))
}

/// The number of the `count`th record of a lane: a thread, or a topic.
pub(crate) fn number_in(lane: usize, count: u64) -> u64 {
    (lane as u64) << 40 | count
}

/// Compares what is read back with what was appended: order, bytes, and in the end the count.
pub(crate) struct Check {
    records: Records,
    /// The records of each lane that were seen.
    seen: BTreeMap<u64, u64>,
    flaw: Option<String>,
}

impl Check {
    pub(crate) fn new(record_bytes: usize) -> Self {
        Check { records: Records::new(record_bytes), seen: BTreeMap::new(), flaw: None }
    }

    /// The next record that was read.
    pub(crate) fn see(&mut self, record: &[u8]) {
        let number = number_of(record).unwrap_or(u64::MAX);
        let seen = self.seen.entry(number >> 40).or_default();
        let expected = (number >> 40) << 40 | *seen;
        *seen += 1;
        if self.flaw.is_some() {
            return;
        }
        if number != expected {
            self.flaw = Some(format!("record {number} came where {expected} was due"));
        } else if record != self.records.get(number) {
            self.flaw = Some(format!("record {number} has other bytes"));
        }
    }

    /// How many records were seen, if each was the one that was due, lane by lane.
    pub(crate) fn count(&self) -> Result<u64, String> {
        match &self.flaw {
            Some(flaw) => Err(flaw.clone()),
            None => Ok(self.seen.values().sum()),
        }
    }

    /// Whether exactly `expected` records were seen.
    pub(crate) fn finish(&self, expected: u64) -> Result<(), String> {
        match self.count()? {
            count if count == expected => Ok(()),
            count => Err(format!("{count} of {expected} records came back")),
        }
    }
}
