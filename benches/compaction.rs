//! Compaction: what it costs those who send meanwhile, how fast it is, and how much memory it takes.
//!
//! `cargo bench --bench compaction`, for a look whether it runs with `-- --quick`. `-- --records 50000000 --keys 5000000`
//! says how large the log is that is compacted from end to end; it takes about 60 bytes of the disk for each record, and
//! as much again meanwhile. Latencies take two processors that have nothing else to do; the two ways take turns, so that
//! what disturbs one disturbs both.

mod limit;
mod subject;

use std::fs;
use std::hint;
use std::time::{Duration, Instant};

use tidelog::{
    CleanupPolicy, ConsumerConfig, Durability, EventLog, LogConfig, OffsetReset, ProducerRecord, TopicConfig,
    TopicPartition,
};

use limit::{Latencies, Table, quick};
use subject::{LABEL_WIDTH, TOPIC};

/// The bytes of a value.
const VALUE_BYTES: usize = 40;

/// Records that go into one batch where that does not matter.
const BATCH: u64 = 500;

fn main() {
    let columns = [&[("100 B", LABEL_WIDTH)], Latencies::COLUMNS.as_slice()].concat();
    let table = Table::new("send, one record at a time, every 20 us", &columns);
    let interval = Durability::Interval { every: Duration::from_millis(10), bytes: 1 << 20 };
    for (level, durability) in [("os", Durability::Os), ("10 ms", interval)] {
        let (mut without, mut with, mut compactions) = (Latencies::new(), Latencies::new(), 0);
        for _ in 0..if quick() { 1 } else { 5 } {
            send_paced(durability, CleanupPolicy::Delete, &mut without);
            compactions += send_paced(durability, CleanupPolicy::Compact, &mut with);
        }
        table.row(&subject::row(&format!("{level}, nobody compacts"), without.cells()));
        table.row(&subject::row(&format!("{level}, {compactions} compactions"), with.cells()));
    }
    let (records, keys) = (number("--records"), number("--keys"));
    let usual = if quick() { (200_000, 20_000) } else { (5_000_000, 500_000) };
    from_end_to_end(records.unwrap_or(usual.0), keys.unwrap_or(usual.1));
}

/// The number behind an argument.
fn number(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map(|value| value.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {value:?}")))
}

/// A number that looks drawn.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory beside the build")
}

/// Sends records so many, in batches, each with its number in its value.
fn fill(log: &EventLog, records: u64, keys: u64) {
    let producer = log.producer();
    for first in (0..records).step_by(BATCH as usize) {
        let made: Vec<_> = (first..records.min(first + BATCH)).map(|number| made(number, keys)).collect();
        let batch = made.iter().map(|(key, value)| ProducerRecord::new(TOPIC, value).key(key));
        producer.send_batch(batch).expect("there is room");
    }
}

fn made(number: u64, keys: u64) -> ([u8; 8], [u8; VALUE_BYTES]) {
    let mut value = [number as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    ((mixed(number) % keys).to_le_bytes(), value)
}

/// Sends to a log that holds a lot already, and notes how long each call took; how many compactions ended meanwhile.
fn send_paced(durability: Durability, policy: CleanupPolicy, latencies: &mut Latencies) -> u64 {
    const KEYS: u64 = 100_000;
    let (filled, sent) = if quick() { (100_000, 5_000) } else { (4_000_000, 200_000) };
    let directory = directory();
    let config = LogConfig::new().compaction_interval(Duration::ZERO);
    let log = EventLog::open_with(directory.path(), config.clone()).expect("a new log");
    let topic = TopicConfig::new().durability(durability).segment_bytes(16 << 20);
    log.create_topic(TOPIC, topic.clone()).expect("a new topic");
    fill(&log, filled, KEYS);
    // So that all of it is durable: nothing else is compacted.
    log.close().expect("everything can be synced");
    let log = EventLog::open_with(directory.path(), config).expect("the log");
    log.alter_topic(TOPIC, topic.cleanup_policy(policy).min_cleanable_dirty_ratio(0.0)).expect("the topic is there");
    let producer = log.producer();
    let value = [7; 92];
    let mut next = Instant::now();
    for number in 0..sent {
        let key = (mixed(number) % KEYS).to_le_bytes();
        while Instant::now() < next {
            hint::spin_loop();
        }
        let start = Instant::now();
        producer.send(ProducerRecord::new(TOPIC, &value).key(&key)).expect("there is room");
        latencies.record(start.elapsed());
        next = start + Duration::from_micros(20);
    }
    let compactions = log.compaction_report().compactions;
    log.delete_topic(TOPIC).expect("the topic is there");
    compactions
}

/// Compacts a log of so many records at once, and checks what is left.
fn from_end_to_end(records: u64, keys: u64) {
    let directory = directory();
    let log = EventLog::open_with(directory.path(), LogConfig::new().background(false)).expect("a new log");
    let topic = TopicConfig::new().durability(Durability::Os).cleanup_policy(CleanupPolicy::Compact);
    log.create_topic(TOPIC, topic).expect("a new topic");
    fill(&log, records, keys);
    log.close().expect("everything can be synced");
    let log = EventLog::open_with(directory.path(), LogConfig::new().background(false)).expect("the log");
    let partition = TopicPartition::new(TOPIC, 0);
    let before = memory();
    forget_peak();
    let start = Instant::now();
    let mut most_anonymous = 0;
    let done = log
        .compact(&partition, |progress| {
            if progress.done_bytes / (64 << 20) != progress.done_bytes.saturating_sub(1 << 20) / (64 << 20) {
                most_anonymous = most_anonymous.max(memory().anonymous);
            }
        })
        .expect("nothing is damaged");
    let took = start.elapsed();
    let after = memory();
    println!("\n{records} records with {keys} keys, compacted from end to end in {took:.2?}, {} passes", done.passes);
    let rate = |amount: u64| amount as f64 / took.as_secs_f64();
    println!(
        "  {:.2} M records/s; {:.0} MB/s of {} MB; {} records and {} MB are left in {} segments",
        rate(records) / 1e6,
        rate(done.bytes_before) / 1e6,
        done.bytes_before / 1_000_000,
        done.records,
        done.bytes_after / 1_000_000,
        done.segments_after
    );
    println!(
        "  memory: at most {} MB, of it {} MB not of files; before: {} MB, of it {} MB not of files",
        after.peak >> 20,
        most_anonymous >> 20,
        before.resident >> 20,
        before.anonymous >> 20
    );
    check(&log, &partition, records, keys);
    log.delete_topic(TOPIC).expect("the topic is there");
}

/// Of each key the last record must be there, and no other.
fn check(log: &EventLog, partition: &TopicPartition, records: u64, keys: u64) {
    let mut last = vec![u64::MAX; keys as usize];
    (0..records).for_each(|number| last[(mixed(number) % keys) as usize] = number);
    let mut consumer =
        log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).expect("a consumer");
    consumer.assign([partition.clone()]).expect("the partition is there");
    let mut found = 0;
    loop {
        let polled = consumer.poll(Duration::ZERO).expect("nothing is damaged");
        for record in &polled {
            let key = u64::from_le_bytes(record.key().and_then(|key| key.try_into().ok()).expect("a key of 8 bytes"));
            let offset = record.offset().get();
            let value = record.value().and_then(|value| value.first_chunk()).expect("a value of more than 8 bytes");
            assert_eq!((offset, u64::from_le_bytes(*value)), (last[key as usize], offset), "key {key}");
            found += 1;
        }
        if polled.is_empty() && consumer.position(partition).expect("it is known").get() == records {
            break;
        }
    }
    assert_eq!(found, last.iter().filter(|last| **last != u64::MAX).count(), "keys");
    println!("  {found} keys, each with its last record, were read back");
}

/// What the process holds in memory, in bytes, and held at most; zeros where the system does not say.
#[derive(Clone, Copy, Default)]
struct Memory {
    resident: u64,
    anonymous: u64,
    peak: u64,
}

fn memory() -> Memory {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) << 10
    };
    Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:"), peak: field("VmHWM:") }
}

/// Makes the most that was ever held what is held now.
fn forget_peak() {
    // Where that cannot be, the peak is that of the whole run.
    fs::write("/proc/self/clear_refs", "5").ok();
}
