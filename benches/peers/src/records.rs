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

#[cfg(test)]
mod tests {
    use super::*;

    /// The check of what `change` makes of five records.
    fn checked(change: impl Fn(&mut Vec<Vec<u8>>)) -> Result<(), String> {
        let mut records = Records::new(100);
        let mut read: Vec<Vec<u8>> = (0..5).map(|number| records.get(number).to_vec()).collect();
        change(&mut read);
        let mut check = Check::new(100);
        read.iter().for_each(|record| check.see(record));
        check.finish(5)
    }

    #[test]
    fn the_records_that_were_sent_pass() {
        assert_eq!(checked(|_| ()), Ok(()));
    }

    #[test]
    fn a_lost_a_doubled_a_swapped_and_an_altered_record_do_not() {
        assert!(checked(|read| _ = read.pop()).is_err());
        assert!(checked(|read| _ = read.remove(2)).is_err());
        assert!(checked(|read| read.push(read[4].clone())).is_err());
        assert!(checked(|read| read.swap(1, 2)).is_err());
        assert!(checked(|read| read[3][99] ^= 1).is_err());
        assert!(checked(|read| read[3].truncate(99)).is_err());
        assert!(checked(|read| read[0].clear()).is_err());
    }

    #[test]
    fn each_lane_has_an_order_of_its_own() {
        let mut records = Records::new(100);
        let mut check = Check::new(100);
        for (lane, count) in [(0, 0), (7, 0), (7, 1), (0, 1), (63, 0)] {
            check.see(records.get(number_in(lane, count)));
        }
        assert_eq!(check.finish(5), Ok(()));
        check.see(records.get(number_in(7, 3)));
        assert!(check.count().is_err());
    }

    #[test]
    fn a_batch_is_the_same_as_its_records() {
        let batch: Vec<Vec<u8>> = Records::new(1024).batch(900, 100).into_iter().map(<[u8]>::to_vec).collect();
        let mut records = Records::new(1024);
        assert!((900..).zip(batch).all(|(number, record)| record == records.get(number)));
    }
}
