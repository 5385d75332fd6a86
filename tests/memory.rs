//! What a log takes of the machine beside its records: memory while it is written and read, and room on the disk.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tidelog::{
    ConsumerConfig, Durability, EventLog, LogConfig, OffsetReset, ProducerRecord, TopicConfig, TopicPartition,
};

const SEGMENT_BYTES: u32 = 16 << 20;
const VALUE: [u8; 1000] = [7; 1000];

/// Bytes of files that are in the memory of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Bytes on the disk of all files below `dir`.
fn room(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let of = |entry: fs::DirEntry| {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() { room(&entry.path()) } else { metadata.blocks() * 512 }
    };
    entries.map(of).sum()
}

/// One test, because the memory is that of the process.
#[test]
fn however_long_the_log_is_its_memory_is_bounded_and_its_room_is_that_of_the_records() {
    whoever_appends_lets_go_of_memory_if_nobody_else_does();
    for durability in [Durability::Os, Durability::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::open(dir.path()).unwrap();
        log.create_topic("topic", TopicConfig::new().durability(durability).segment_bytes(SEGMENT_BYTES)).unwrap();
        let producer = log.producer();
        let before = resident();
        let count = 20 * u64::from(SEGMENT_BYTES) / 1100;

        let mut most = 0;
        for number in 0..count {
            producer.send(ProducerRecord::new("topic", &VALUE)).unwrap();
            if number % 1000 == 0 {
                producer.flush().unwrap();
                most = most.max(resident() - before);
            }
        }
        producer.flush().unwrap();
        log.maintain();

        let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest);
        let mut consumer = log.consumer(config).unwrap();
        consumer.assign([TopicPartition::new("topic", 0)]).unwrap();
        let mut read = 0;
        while read < count {
            for record in &consumer.poll(Duration::from_secs(10)).unwrap() {
                assert_eq!((record.offset().get(), record.value()), (read, Some(&VALUE[..])));
                read += 1;
            }
            most = most.max(resident().saturating_sub(before));
        }
        // One that is written, one that is read, one between them; and what is not of the log.
        assert!(most < 7 * u64::from(SEGMENT_BYTES) / 2, "{durability:?}: {most} bytes");

        drop((producer, consumer));
        log.close().unwrap();
        let payload = count * VALUE.len() as u64;
        let room = room(dir.path());
        assert!(room < payload * 11 / 10, "{durability:?}: {room} bytes for {payload}");
    }
}

fn whoever_appends_lets_go_of_memory_if_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open_with(dir.path(), LogConfig::new().background(false)).unwrap();
    log.create_topic("topic", TopicConfig::new().durability(Durability::Os).segment_bytes(SEGMENT_BYTES)).unwrap();
    let producer = log.producer();
    let before = resident();

    let mut most = 0;
    for _ in 0..10 {
        for _ in 0..SEGMENT_BYTES / 1100 {
            producer.send(ProducerRecord::new("topic", &VALUE)).unwrap();
        }
        most = most.max(resident() - before);
    }

    // One that is written, as much of others as may stay, and what is not of the log.
    assert!(most < 4 * u64::from(SEGMENT_BYTES), "{most} bytes");
}
