//! The latest offset of each key that a compaction has seen, in a fixed amount of memory. Kafka: `SkimpyOffsetMap`.
//!
//! A key is known by its hash alone: SipHash-2-4 with 128 bits, under a secret of this compaction. Two different keys
//! with the same hash would pass for one, and the earlier of their last records would be lost. Nobody can look for such
//! keys without the secret; by chance, among a hundred million keys, it happens once in 10^22 compactions. That is far
//! less than what disks and memory lose unnoticed, so keys are not compared. (Kafka does the same with MD5 and no secret.)

use crate::env::random::Random;
use crate::types::Offset;

/// A hash and an offset. An entry that is all zero is free, so offsets are kept with one added.
const ENTRY_BYTES: usize = 24;

/// So much of the table is used at most, in fifths: the fuller it is, the longer one looks for a key that is not there.
const FIFTHS: usize = 4;

#[derive(Debug)]
pub(super) struct OffsetMap {
    entries: Vec<[u64; 3]>,
    used: usize,
    most: usize,
    secret: [u64; 2],
}

impl OffsetMap {
    /// One that takes at most so much memory, and no more than for so many keys.
    pub(super) fn new(memory_bytes: usize, keys: u64, secret: &mut Random) -> Self {
        let affordable = memory_bytes / ENTRY_BYTES * FIFTHS / 5;
        Self::with_room_for(affordable.min(usize::try_from(keys).unwrap_or(usize::MAX)), secret)
    }

    /// One for so many keys, at least one.
    pub(super) fn with_room_for(keys: usize, secret: &mut Random) -> Self {
        let most = keys.max(1);
        // Zeroed memory that nobody has touched takes no room.
        let entries = vec![[0; 3]; (most * 5).div_ceil(FIFTHS) + 1];
        OffsetMap { entries, used: 0, most, secret: [secret.next(), secret.next()] }
    }

    /// Notes a key at an offset, which is behind all that were noted; false if there is no room for another key.
    #[must_use]
    pub(super) fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = siphash(self.secret, key);
        let place = self.place(hash);
        if self.entries[place][2] == 0 {
            if self.used == self.most {
                return false;
            }
            self.used += 1;
        }
        self.entries[place] = [hash[0], hash[1], offset.get() + 1];
        true
    }

    /// Where the key was noted last.
    pub(super) fn latest(&self, key: &[u8]) -> Option<Offset> {
        let place = self.place(siphash(self.secret, key));
        self.entries[place][2].checked_sub(1).map(Offset::new)
    }

    /// The entry with this hash, or the free one in which it belongs. There always is a free one.
    fn place(&self, hash: [u64; 2]) -> usize {
        // The high half of the product is below the length, and as even as the hash.
        let length = self.entries.len();
        let mut place = ((u128::from(hash[0]) * length as u128) >> 64) as usize;
        loop {
            let entry = &self.entries[place];
            if entry[2] == 0 || entry[..2] == hash {
                return place;
            }
            place = if place + 1 == length { 0 } else { place + 1 };
        }
    }
}

/// SipHash-2-4 with a result of 128 bits, by Aumasson and Bernstein.
fn siphash(secret: [u64; 2], bytes: &[u8]) -> [u64; 2] {
    let mut state = [
        secret[0] ^ 0x736f_6d65_7073_6575,
        secret[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        secret[0] ^ 0x6c79_6765_6e65_7261,
        secret[1] ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        absorb(&mut state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    absorb(&mut state, u64::from_le_bytes(last));
    state[2] ^= 0xee;
    let first = finish(&mut state);
    state[1] ^= 0xdd;
    [first, finish(&mut state)]
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    mix(state);
    mix(state);
    state[0] ^= word;
}

fn finish(state: &mut [u64; 4]) -> u64 {
    (0..4).for_each(|_| mix(state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn mix([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_its_authors() {
        // From the reference implementation's `vectors.h`: the key is 00 01 .. 0f, the message 00 01 .. of this length.
        let secret = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let message: Vec<u8> = (0..64).collect();
        for (length, expected) in
            [(0, 0x930255c71472f66de6a825ba047f81a3_u128), (1, 0x45fc229b1159763444af996bd8c187da)]
        {
            let [low, high] = siphash(secret, &message[..length]);
            assert_eq!(u128::from(high) << 64 | u128::from(low), expected, "{length} bytes");
        }
    }

    #[test]
    fn every_bit_of_a_key_and_its_length_count() {
        let mut seen = std::collections::BTreeSet::new();
        for length in 0..40 {
            let mut key = vec![0; length];
            assert!(seen.insert(siphash([1, 2], &key)), "{length} zeros");
            for bit in 0..length * 8 {
                key[bit / 8] ^= 1 << (bit % 8);
                assert!(seen.insert(siphash([1, 2], &key)), "bit {bit} of {length} bytes");
                key[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_full_map_takes_news_of_keys_that_it_knows_and_of_no_others() {
        for room in [1, 2, 3, 42, 1000] {
            let mut map = OffsetMap::with_room_for(room, &mut Random::new(1));
            for n in 0..room as u64 {
                assert!(map.note(&n.to_le_bytes(), Offset::new(n)));
            }
            assert!(!map.note(b"another", Offset::new(5000)), "{room}");
            for n in 0..room as u64 {
                assert_eq!(map.latest(&n.to_le_bytes()), Some(Offset::new(n)), "{room}");
                assert!(map.note(&n.to_le_bytes(), Offset::new(9000 + n)));
                assert_eq!(map.latest(&n.to_le_bytes()), Some(Offset::new(9000 + n)), "{room}");
            }
            assert_eq!((map.latest(b"another"), map.used), (None, room));
        }
    }

    #[test]
    fn a_map_takes_no_more_memory_than_it_may() {
        for memory in [1024, 5000, 1 << 20] {
            let map = OffsetMap::new(memory, u64::MAX, &mut Random::new(1));
            assert!(map.entries.len() * ENTRY_BYTES <= memory + 2 * ENTRY_BYTES, "{memory}");
            assert!(map.entries.len() * ENTRY_BYTES > memory * 9 / 10, "{memory}");
        }
        assert!(OffsetMap::new(1 << 40, 10, &mut Random::new(1)).entries.len() < 20);
    }
}
