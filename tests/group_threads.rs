//! Groups whose members are threads: what blocks is woken, and what is shared is shared once.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use tidelog::{
    Consumer, ConsumerConfig, CooperativeStickyAssignor, Durability, EventLog, OffsetReset, ProducerRecord, TopicConfig,
};

/// Much longer than any of it takes; whoever waits so long was not woken.
const LONG: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(15);

fn log(partitions: u32) -> (tempfile::TempDir, EventLog) {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic("orders", TopicConfig::new().partitions(partitions).durability(Durability::Os)).unwrap();
    (directory, log)
}

fn config() -> ConsumerConfig {
    // Automatic commits would end the waiting of those that are not woken.
    ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false).max_poll_records(10)
}

fn member(log: &EventLog, config: ConsumerConfig) -> Consumer {
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    consumer
}

#[test]
fn members_that_block_are_woken_to_let_go_and_to_take_over() {
    let (_directory, log) = log(2);
    let start = Instant::now();
    let mut first = member(&log, config());
    assert_eq!(first.wait_for_assignment(LONG).unwrap().len(), 2);
    let waker = first.waker();
    let (tell, told) = channel();
    thread::scope(|scope| {
        let blocked = scope.spawn(move || {
            tell.send(()).unwrap();
            // Nothing is ever sent, so it blocks until it is woken from outside.
            assert!(matches!(first.poll(LONG), Err(tidelog::Error::Wakeup)));
            first.assignment().len()
        });
        told.recv().unwrap();
        let mut second = member(&log, config());
        assert_eq!(second.wait_for_assignment(LONG).unwrap().len(), 1);
        second.close().unwrap();
        while log.describe_group("billing").unwrap().members[0].assignment.len() < 2 {
            thread::yield_now();
        }
        waker.wake();
        blocked.join().unwrap();
    });
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn a_member_that_blocks_notices_a_topic_that_is_created() {
    let (_directory, log) = log(1);
    let start = Instant::now();
    let mut consumer = log.consumer(config()).unwrap();
    consumer.subscribe_matching(|topic| topic.starts_with("new")).unwrap();
    assert!(consumer.wait_for_assignment(LONG).unwrap().is_empty());
    let value = thread::scope(|scope| {
        let blocked = scope.spawn(|| {
            let records = consumer.poll(LONG).unwrap();
            records.iter().next().map(|record| record.topic().to_owned())
        });
        log.create_topic("new-1", TopicConfig::new()).unwrap();
        log.producer().send(ProducerRecord::new("new-1", b"1")).unwrap();
        blocked.join().unwrap()
    });
    assert_eq!(value.as_deref(), Some("new-1"));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn threads_that_share_a_group_read_every_record_once_if_all_of_them_close() {
    for cooperative in [false, true] {
        let (_directory, log) = log(8);
        let records: usize = 2000;
        let seen = Mutex::new(BTreeSet::new());
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let config = config().auto_commit(true);
                    let config = if cooperative { config.assignor(CooperativeStickyAssignor) } else { config };
                    let mut consumer = member(&log, config);
                    while count.load(Ordering::SeqCst) < records {
                        for record in &consumer.poll(Duration::from_millis(10)).unwrap() {
                            let is_new = seen.lock().unwrap().insert((record.partition(), record.offset()));
                            assert!(is_new, "{record:?} came twice");
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    consumer.close().unwrap();
                });
            }
            let producer = log.producer();
            for n in 0..records {
                producer.send(ProducerRecord::new("orders", b"x").key(n.to_string().as_bytes())).unwrap();
            }
        });
        assert_eq!(seen.lock().unwrap().len(), records);
    }
}
