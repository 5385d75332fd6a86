//! More partitions than the process may have files open. Alone in its program, because the limit is that of the process.
#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidelog::{ConsumerConfig, Durability, EventLog, OffsetReset, ProducerRecord, TopicConfig, TopicPartition};

const LIMIT: u64 = 100;
const PARTITIONS: u32 = 150;

#[test]
fn a_log_may_have_more_partitions_than_the_process_may_have_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: most }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let open = || EventLog::open(dir.path()).unwrap();
    let log = open();
    for (topic, durability) in [("synced", Durability::Sync), ("unsynced", Durability::Os)] {
        let config = TopicConfig::new().partitions(PARTITIONS).durability(durability).segment_bytes(65536);
        log.create_topic(topic, config).unwrap();
    }

    let producer = log.producer();
    // So much that every file grows and is rolled.
    for round in 0..3u8 {
        for topic in ["synced", "unsynced"] {
            for partition in 0..PARTITIONS {
                producer.send(ProducerRecord::new(topic, &[round; 30_000]).partition(partition)).unwrap();
            }
        }
        producer.flush().unwrap();
    }
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    assert!(descriptors < LIMIT * 3 / 4, "{descriptors}");
    drop(producer);
    log.close().unwrap();

    let log = open();
    assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
    for topic in ["synced", "unsynced"] {
        let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
        consumer.assign((0..PARTITIONS).map(|number| TopicPartition::new(topic, number))).unwrap();
        let mut read = 0;
        while read < 3 * PARTITIONS as usize {
            for record in &consumer.poll(Duration::ZERO).unwrap() {
                assert_eq!(record.value(), Some(&[record.offset().get() as u8; 30_000][..]));
                read += 1;
            }
        }
    }
}
