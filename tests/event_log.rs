//! The main job on a real directory: produce, consume, commit, reopen.

use std::time::Duration;

use tidelog::{ConsumerConfig, EventLog, OffsetReset, ProducerRecord, TopicConfig};

const SOON: Duration = Duration::from_millis(100);

fn earliest(group: &str) -> ConsumerConfig {
    ConsumerConfig::group(group).auto_offset_reset(OffsetReset::Earliest)
}

fn values(log: &EventLog, topic: &str) -> Vec<Vec<u8>> {
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    consumer.subscribe([topic]).unwrap();
    let mut values = Vec::new();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return values;
        }
        values.extend(records.iter().map(|record| record.value().unwrap().to_vec()));
    }
}

#[test]
fn what_was_sent_is_read_back_in_order_also_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic("orders", TopicConfig::new().segment_bytes(4096)).unwrap();
    let sent: Vec<Vec<u8>> = (0..500).map(|n| format!("order {n}").into_bytes()).collect();
    let producer = log.producer();
    for value in &sent {
        producer.send(ProducerRecord::new("orders", value).key(b"k").header("h", b"1")).unwrap();
    }
    producer.flush().unwrap();

    assert_eq!(values(&log, "orders"), sent);
    drop(producer);
    log.close().unwrap();

    let log = EventLog::open(directory.path()).unwrap();
    assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
    assert_eq!(values(&log, "orders"), sent);
    let description = log.describe_topic("orders").unwrap();
    assert!(description.partitions[0].segments > 5, "{description:?}");
}

#[test]
fn a_group_resumes_where_it_committed() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic("orders", TopicConfig::new()).unwrap();
    let producer = log.producer();
    for n in 0..10u32 {
        producer.send(ProducerRecord::new("orders", &n.to_le_bytes())).unwrap();
    }
    producer.flush().unwrap();
    let mut consumer = log.consumer(earliest("billing").max_poll_records(4)).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    assert_eq!(consumer.poll(SOON).unwrap().len(), 4);
    consumer.commit().unwrap();
    consumer.close().unwrap();
    drop(producer);
    log.close().unwrap();

    let log = EventLog::open(directory.path()).unwrap();
    let mut consumer = log.consumer(earliest("billing")).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let records = consumer.poll(SOON).unwrap();
    assert_eq!(records.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
}
