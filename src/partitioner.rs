//! Which partition a record goes to when its producer did not say.
//!
//! | partitioner  | record with a key                              | record without a key                      |
//! |--------------|------------------------------------------------|-------------------------------------------|
//! | `Murmur2`    | `(murmur2(key) & 0x7fff_ffff) % partitions`    | sticky: 16 KiB to one, then a random next |
//! | `Crc32`      | `crc32(key) % partitions`; empty key: random   | random                                    |
//! | `RoundRobin` | the next in turn                               | the next in turn                          |
//! | `Custom`     | what the function says                         | what the function says                    |
//!
//! The first two agree, key by key, with the clients that have them as their default, so that a topic which was copied
//! from a broker keeps its keys where they were: `Murmur2` with Kafka's Java client (`BuiltInPartitioner`, KIP-794),
//! `Crc32` with librdkafka (`consistent_random`) and what is built upon it. The key decides over *all* partitions: a
//! topic that gets more of them sends the old keys elsewhere.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::record::ProducerRecord;

/// How a producer chooses the partition of a record that does not name one. Kafka: `partitioner.class`.
///
/// ```
/// use tidelog::{Partitioner, ProducerRecord};
///
/// // Everything from the one large customer goes to the last partition.
/// let partitioner = Partitioner::custom(|record: &ProducerRecord<'_>, partitions| match record.key_bytes() {
///     Some(b"large customer") => partitions - 1,
///     key => (tidelog::murmur2(key.unwrap_or_default()) & 0x7fff_ffff) % (partitions - 1).max(1),
/// });
/// # let _: Partitioner = partitioner;
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Partitioner {
    /// Kafka's own. A key, even an empty one, chooses by its [`murmur2`] hash. Records without a key stay on one
    /// partition until 16,384 bytes of them (Kafka's default `batch.size`) went there, so that they travel in few
    /// large batches; then the next partition is drawn at random, and may be the same.
    #[default]
    Murmur2,
    /// librdkafka's default, `consistent_random`. A key chooses by its CRC-32 (the IEEE polynomial); a record without
    /// a key, or with an empty one, goes anywhere.
    Crc32,
    /// Every record goes to the partition after that of the one before, whatever its key.
    ///
    /// The turn is that of the producer and topic, and counts records, not batches: Kafka's class of this name skips
    /// every other partition when batches fill up (KAFKA-9965), and this one does not.
    RoundRobin,
    /// A function of the record and the number of partitions, which is at least 1. See [`Partitioner::custom`].
    Custom(Arc<Choose>),
}

/// What a custom partitioner is: the record and the number of partitions in, the number of a partition out.
type Choose = dyn Fn(&ProducerRecord<'_>, u32) -> u32 + Send + Sync;

impl Partitioner {
    /// A partitioner of your own: a function of the record and the number of partitions, which is at least 1.
    ///
    /// It runs inside `send`, before anything is written. A number that is no partition makes `send` fail with
    /// [`Error::UnknownPartition`](crate::error::Error::UnknownPartition).
    pub fn custom(choose: impl Fn(&ProducerRecord<'_>, u32) -> u32 + Send + Sync + 'static) -> Self {
        Partitioner::Custom(Arc::new(choose))
    }
}

impl fmt::Debug for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Partitioner::Murmur2 => "Murmur2",
            Partitioner::Crc32 => "Crc32",
            Partitioner::RoundRobin => "RoundRobin",
            Partitioner::Custom(_) => "Custom(..)",
        })
    }
}

/// The 32-bit Murmur2 hash with the seed that Kafka's clients use for keys.
///
/// Kafka chooses partition `(murmur2(key) & 0x7fff_ffff) % partitions`. The sign bit is cleared, not the absolute
/// value taken.
///
/// ```
/// assert_eq!(tidelog::murmur2(b"kafka") & 0x7fff_ffff, 1_348_980_580);
/// ```
pub fn murmur2(bytes: &[u8]) -> u32 {
    // Names and numbers are those of Austin Appleby's MurmurHash2; the seed is Kafka's (`Utils.murmur2`).
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Java, too, mixes in the low 32 bits of the length.
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let word = tail.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ word).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// So many bytes without a key go to one partition before the next one is drawn. Kafka: the default of `batch.size`.
const STICKY_BYTES: u32 = 16_384;

/// What one producer remembers about one topic, so that it can choose the next partition.
///
/// Shared by all threads that send, without a lock. Each field is a number of its own that publishes nothing else, so
/// every access is relaxed; read-modify-write makes each of them exact under contention.
pub(crate) struct Route {
    /// How far the sequence of random numbers has come.
    random: AtomicU64,
    /// The draw that stands for the current partition, above the bytes that went there since (below `STICKY_BYTES`).
    ///
    /// In one word, because a draw and a count of different partitions would let a partition go too early. The draw is
    /// kept, not the partition, because the number of partitions may grow between two records.
    sticky: AtomicU64,
    /// How many records went round.
    turn: AtomicU64,
}

impl Route {
    /// A fresh route. Equal seeds make equal choices.
    pub(crate) fn new(seed: u64) -> Self {
        let route = Route { random: AtomicU64::new(seed), sticky: AtomicU64::new(0), turn: AtomicU64::new(0) };
        route.sticky.store(pack(route.draw(), 0), Ordering::Relaxed);
        route
    }

    /// The partition for `record`, of which nobody has asked whether it names one itself.
    ///
    /// There is at least one partition. The answer is one of them, but for a custom partitioner, which may say anything.
    #[inline]
    pub(crate) fn choose(&self, partitioner: &Partitioner, record: &ProducerRecord<'_>, partitions: u32) -> u32 {
        match (partitioner, record.key_bytes()) {
            // Whatever the hash is.
            (Partitioner::Murmur2, Some(_)) if partitions == 1 => 0,
            (Partitioner::Murmur2, Some(key)) => (murmur2(key) & 0x7fff_ffff) % partitions,
            (Partitioner::Murmur2, None) => self.stay(record.payload_bytes(), partitions),
            (Partitioner::Crc32, Some(key)) if !key.is_empty() => crc32fast::hash(key) % partitions,
            (Partitioner::Crc32, _) => scale(self.draw(), partitions),
            (Partitioner::RoundRobin, _) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                u32::try_from(turn % u64::from(partitions)).expect("a remainder is smaller than its divisor")
            }
            (Partitioner::Custom(choose), _) => choose(record, partitions),
        }
    }

    /// The sticky partition, which takes these `bytes`, and is the next record's as well unless they filled it up.
    fn stay(&self, bytes: usize, partitions: u32) -> u32 {
        // An empty record counts one byte, or else a stream of them would never move on.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        let take = |sticky| match unpack(sticky) {
            (draw, before) if bytes < STICKY_BYTES - before => Some(pack(draw, before + bytes)),
            _ => Some(pack(self.draw(), 0)),
        };
        let sticky = self.sticky.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let (draw, _) = unpack(sticky.expect("there is always a next state"));
        scale(draw, partitions)
    }

    /// The next of a sequence of random numbers: the upper half of splitmix64 (Vigna's public domain `splitmix64.c`).
    fn draw(&self) -> u32 {
        const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.random.fetch_add(GOLDEN_GAMMA, Ordering::Relaxed).wrapping_add(GOLDEN_GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 32) as u32
    }
}

/// `draw` as a number below `partitions`. No number is favoured by more than one draw in 2^32.
fn scale(draw: u32, partitions: u32) -> u32 {
    ((u64::from(draw) * u64::from(partitions)) >> 32) as u32
}

fn pack(draw: u32, bytes: u32) -> u64 {
    u64::from(draw) << 32 | u64::from(bytes)
}

fn unpack(sticky: u64) -> (u32, u32) {
    ((sticky >> 32) as u32, sticky as u32)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;
    use std::thread;

    use serde_json::Value;

    use super::*;

    /// A record with this key, no value, and no partition of its own.
    fn keyed(key: &[u8]) -> ProducerRecord<'_> {
        ProducerRecord::tombstone("orders", key)
    }

    fn unhex(hex: &Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn number(value: &Value) -> u32 {
        u32::try_from(value.as_u64().unwrap()).unwrap()
    }

    /// The key, the number of partitions and the partition of each case that other clients publish under `name`.
    fn published(name: &str) -> Vec<(Vec<u8>, u32, u32)> {
        let vectors: Value = serde_json::from_str(include_str!("../tests/vectors/partition_for_key.json")).unwrap();
        let cases = vectors[name].as_array().unwrap();
        assert!(!cases.is_empty());
        cases.iter().map(|c| (unhex(&c["key_hex"]), number(&c["partitions"]), number(&c["partition"]))).collect()
    }

    #[test]
    fn murmur2_agrees_with_the_hashes_that_other_clients_publish() {
        let vectors: Value = serde_json::from_str(include_str!("../tests/vectors/murmur2.json")).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let hash = murmur2(&unhex(&case["key_hex"]));
            assert_eq!(hash, number(&case["hash_u32"]), "{case}");
            assert_eq!(hash & 0x7fff_ffff, number(&case["to_positive"]), "{case}");
        }
    }

    #[test]
    fn a_key_goes_where_the_java_client_would_send_it() {
        let route = Route::new(1);
        for (key, partitions, expected) in published("java_murmur2") {
            assert_eq!(route.choose(&Partitioner::default(), &keyed(&key), partitions), expected, "{key:?}");
        }
    }

    #[test]
    fn a_key_goes_where_librdkafka_would_send_it() {
        let route = Route::new(1);
        for (key, partitions, expected) in published("crc32_ieee") {
            assert_eq!(route.choose(&Partitioner::Crc32, &keyed(&key), partitions), expected, "{key:?}");
        }
    }

    #[test]
    fn a_custom_partitioner_sees_record_and_count_and_its_answer_is_not_bent() {
        // FNV-1a as Sarama's default uses it: signed, and the absolute value of the remainder.
        let fnv1a = Partitioner::custom(|record, partitions| {
            let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
            let hash = record.key_bytes().unwrap().iter().fold(0x811c_9dc5, mix);
            (hash as i32 % i32::try_from(partitions).unwrap()).unsigned_abs()
        });
        let route = Route::new(1);
        for (key, partitions, expected) in published("fnv1a") {
            assert_eq!(route.choose(&fnv1a, &keyed(&key), partitions), expected, "{key:?}");
        }

        let outside = Partitioner::custom(|_, partitions| partitions + 7);
        assert_eq!(route.choose(&outside, &keyed(b"k"), 3), 10);
    }

    #[test]
    fn an_empty_key_is_a_key_to_murmur2_and_none_to_crc32() {
        let route = Route::new(1);
        let choices = |partitioner: Partitioner| -> BTreeSet<u32> {
            (0..200).map(|_| route.choose(&partitioner, &keyed(b""), 4)).collect()
        };
        assert_eq!(choices(Partitioner::Murmur2), BTreeSet::from([(murmur2(b"") & 0x7fff_ffff) % 4]));
        assert_eq!(choices(Partitioner::Crc32), BTreeSet::from([0, 1, 2, 3]));
    }

    /// The runs of equal partitions among `records` keyless records of `bytes` bytes: partition and length.
    fn runs(seed: u64, bytes: usize, records: usize, partitions: u32) -> Vec<(u32, usize)> {
        let route = Route::new(seed);
        let value = vec![0; bytes];
        let mut runs: Vec<(u32, usize)> = Vec::new();
        for _ in 0..records {
            let chosen = route.choose(&Partitioner::Murmur2, &ProducerRecord::new("orders", &value), partitions);
            match runs.last_mut() {
                Some((partition, length)) if *partition == chosen => *length += 1,
                _ => runs.push((chosen, 1)),
            }
        }
        runs
    }

    #[test]
    fn records_without_a_key_stay_on_a_partition_until_16384_bytes_went_there() {
        // 164 records of 100 bytes are the fewest that reach 16,384 bytes.
        for (bytes, stay) in
            [(100, 164), (16_383, 2), (16_384, 1), (16_385, 1), (1_000_000, 1), (1, 16_384), (0, 16_384)]
        {
            let mut runs = runs(7, bytes, stay * 50, 1_000_000);
            assert!(runs.len() > 40, "{bytes} bytes");
            runs.retain(|(_, length)| *length != stay);
            assert_eq!(runs, [], "{bytes} bytes");
        }
    }

    #[test]
    fn the_next_sticky_partition_need_not_differ_from_the_one_before() {
        // One record fills a partition, so that each record is a draw.
        let runs = runs(7, 16_384, 1_000, 4);
        assert!(runs.iter().any(|(_, length)| *length > 1));
        let expected_changes = 750;
        assert!(runs.len().abs_diff(expected_changes) < 75, "{} runs", runs.len());
    }

    #[test]
    fn key_and_headers_count_and_records_with_a_key_leave_the_sticky_partition_alone() {
        let route = Route::new(3);
        let first = route.choose(&Partitioner::Murmur2, &ProducerRecord::new("orders", b""), 1_000_000);
        let large = vec![0; 20_000];
        for _ in 0..10 {
            route.choose(&Partitioner::Murmur2, &ProducerRecord::new("orders", &large).key(b"k"), 1_000_000);
        }
        let with_header = ProducerRecord::new("orders", b"").header("trace", &large);
        assert_eq!(route.choose(&Partitioner::Murmur2, &with_header, 1_000_000), first);
        assert_ne!(route.choose(&Partitioner::Murmur2, &with_header, 1_000_000), first);
    }

    #[test]
    fn random_choices_are_uniform_and_follow_the_seed() {
        const DRAWS: u32 = 100_000;
        for (partitioner, bytes) in [(Partitioner::Crc32, 1), (Partitioner::Murmur2, 16_384)] {
            for partitions in [1, 3, 10, 64] {
                let value = vec![0; bytes];
                let choices = |seed| -> Vec<u32> {
                    let route = Route::new(seed);
                    let choose = || route.choose(&partitioner, &ProducerRecord::new("orders", &value), partitions);
                    (0..DRAWS).map(|_| choose()).collect()
                };
                let chosen = choices(42);
                assert_eq!(chosen, choices(42));
                assert!(partitions == 1 || chosen != choices(43));
                let mut counts = vec![0u32; partitions as usize];
                chosen.iter().for_each(|partition| counts[*partition as usize] += 1);
                let even = DRAWS / partitions;
                let widest = counts.iter().map(|count| count.abs_diff(even)).max().unwrap();
                assert!(widest < even / 8, "{partitioner:?} over {partitions}: {counts:?}");
            }
        }
    }

    #[test]
    fn round_robin_takes_every_partition_in_turn_whatever_the_key() {
        let route = Route::new(1);
        let keys: [Option<&[u8]>; 3] = [None, Some(b""), Some(b"user-7")];
        for turn in 0..30 {
            let key = keys[turn as usize % 3].map(Cow::Borrowed);
            let record = ProducerRecord::from_parts("orders", key, None);
            assert_eq!(route.choose(&Partitioner::RoundRobin, &record, 5), turn % 5);
        }
    }

    #[test]
    fn threads_that_share_a_route_lose_no_turn_and_no_byte() {
        const THREADS: usize = 4;
        const RECORDS: usize = 16_384;
        let route = Route::new(9);
        let counted = |partitioner: Partitioner, partitions: u32| {
            let count = || {
                let choose = |_| route.choose(&partitioner, &ProducerRecord::new("orders", b"x"), partitions);
                (0..RECORDS).map(choose).collect::<Vec<_>>()
            };
            let chosen = thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            let mut counts = std::collections::BTreeMap::new();
            chosen.into_iter().for_each(|partition| *counts.entry(partition).or_insert(0usize) += 1);
            counts
        };
        // As many rounds as each partition then gets records; and a draw for each 16,384 bytes, all of them different.
        assert!(counted(Partitioner::RoundRobin, 8).values().all(|records| *records == THREADS * RECORDS / 8));
        assert_eq!(counted(Partitioner::Murmur2, 1_000_000).into_values().collect::<Vec<_>>(), [RECORDS; THREADS]);
    }
}
