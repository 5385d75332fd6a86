//! Reading beside a process that writes.
#![cfg(feature = "sim")]

use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, OffsetReset, ProducerRecord, TopicConfig,
};

const NOW: Duration = Duration::ZERO;

fn reader(log: &EventLog) -> Consumer {
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    consumer
}

fn drain(consumer: &mut Consumer) -> Vec<u8> {
    let mut values = Vec::new();
    loop {
        let records = consumer.poll(NOW).unwrap();
        if records.is_empty() {
            return values;
        }
        values.extend(records.iter().map(|record| record.value().unwrap()[0]));
    }
}

#[test]
fn a_follower_sees_what_is_appended_as_it_comes_also_behind_a_roll() {
    let machine = Machine::new(1);
    let writer = machine.open(LogConfig::new().background(false)).unwrap();
    writer.create_topic("orders", TopicConfig::new().durability(Durability::Os).segment_bytes(4096)).unwrap();
    let log = machine.open_read_only().unwrap();
    let mut consumer = reader(&log);
    assert!(drain(&mut consumer).is_empty());

    for n in 0..60u8 {
        writer.producer().send(ProducerRecord::new("orders", &[n; 700])).unwrap();
        assert_eq!(drain(&mut consumer), [n]);
    }
    assert!(writer.describe_topic("orders").unwrap().partitions[0].segments > 10);
    assert_eq!(drain(&mut reader(&log)), (0..60).collect::<Vec<_>>());
}

#[test]
fn a_follower_that_listed_the_names_just_before_a_roll_finds_the_new_segment_all_the_same() {
    let machine = Machine::new(3);
    let log = machine.open(LogConfig::new()).unwrap();
    log.create_topic("orders", TopicConfig::new().segment_bytes(4096)).unwrap();
    let send = |number: u8| {
        let producer = log.producer();
        producer.send(ProducerRecord::new("orders", &[number; 1000])).unwrap().wait().unwrap();
    };
    (0..5).for_each(send);
    let machine = machine.kill();
    let newest = machine.files().into_iter().rfind(|path| path.starts_with("topics/orders/0")).unwrap();
    let bytes = machine.read_file(&newest);

    machine.remove_file(&newest);
    let follower = machine.open_read_only().unwrap();
    machine.write_file(&newest, &bytes);

    // Nothing says of the last one that it is durable.
    assert_eq!(drain(&mut reader(&follower)), [0, 1, 2, 3]);
}

#[test]
fn a_follower_of_a_sync_topic_sees_what_is_proven_to_be_durable() {
    let machine = Machine::new(1);
    let writer = machine.open(LogConfig::new().background(false)).unwrap();
    writer.create_topic("orders", TopicConfig::new()).unwrap();
    let log = machine.open_read_only().unwrap();
    let mut consumer = reader(&log);

    let delivery = writer.producer().send(ProducerRecord::new("orders", &[1])).unwrap();
    assert!(drain(&mut consumer).is_empty(), "appended, and not durable");
    delivery.wait().unwrap();
    assert!(drain(&mut consumer).is_empty(), "durable, and nothing on the disk says so");
    let delivery = writer.producer().send(ProducerRecord::new("orders", &[2])).unwrap();
    assert_eq!(drain(&mut consumer), [1], "the second batch says that the first is durable");

    delivery.wait().unwrap();
    for _ in 0..5 {
        machine.advance(Duration::from_millis(20));
        writer.maintain();
    }
    assert_eq!(drain(&mut consumer), [2], "an idle log leaves a marker that says so");
    let partition = log.describe_topic("orders").unwrap().partitions[0].clone();
    assert_eq!((partition.durable_end.get(), partition.log_end.get()), (2, 2));
}

#[test]
fn a_follower_sees_topics_that_are_made_grown_and_deleted() {
    let machine = Machine::new(1);
    let writer = machine.open(LogConfig::new().background(false)).unwrap();
    let log = machine.open_read_only().unwrap();
    assert!(log.list_topics().is_empty());

    writer.create_topic("orders", TopicConfig::new().durability(Durability::Os)).unwrap();
    writer.producer().send(ProducerRecord::new("orders", &[1])).unwrap();
    assert_eq!(log.list_topics(), ["orders"]);
    assert_eq!(drain(&mut reader(&log)), [1]);

    writer.add_partitions("orders", 2).unwrap();
    assert_eq!(log.describe_topic("orders").unwrap().partitions.len(), 2);

    writer.delete_topic("orders").unwrap();
    assert!(log.list_topics().is_empty());
}

#[test]
fn a_follower_does_not_wait_for_a_segment_that_does_not_count() {
    for dir in ["catalog", "topics/orders/0"] {
        let machine = Machine::new(1);
        let writer = machine.open(LogConfig::new().background(false)).unwrap();
        writer.create_topic("orders", TopicConfig::new().durability(Durability::Os)).unwrap();
        writer.producer().send(ProducerRecord::new("orders", &[7])).unwrap();
        let machine = machine.kill();
        machine.write_file(format!("{dir}/00000000000000000050.log"), b"of nobody");

        let log = machine.open_read_only().unwrap();

        assert_eq!(log.list_topics(), ["orders"], "{dir}");
        assert_eq!(drain(&mut reader(&log)), [7], "{dir}");
        // Who writes sets it aside and goes on, and the follower goes with them.
        let writer = machine.open(LogConfig::new().background(false)).unwrap();
        writer.create_topic("audit", TopicConfig::new()).unwrap();
        assert_eq!(log.list_topics(), ["audit", "orders"], "{dir}");
    }
}

#[test]
fn a_reader_changes_nothing_and_says_so() {
    let machine = Machine::new(1);
    let writer = machine.open(LogConfig::new().background(false)).unwrap();
    writer.create_topic("orders", TopicConfig::new()).unwrap();
    writer.producer().send(ProducerRecord::new("orders", &[1])).unwrap().wait().unwrap();
    let mut consumer = writer.consumer(ConsumerConfig::group("billing")).unwrap();
    consumer.assign([("orders", 0)]).unwrap();
    consumer.commit_offsets([(("orders", 0).into(), tidelog::Offset::new(1))]).unwrap();
    let before: Vec<_> = machine.files().into_iter().map(|path| (machine.read_file(&path), path)).collect();

    let log = machine.open_read_only().unwrap();

    assert!(matches!(log.create_topic("x", TopicConfig::new()), Err(Error::ReadOnly { .. })));
    assert!(matches!(log.delete_topic("orders"), Err(Error::ReadOnly { .. })));
    assert!(matches!(log.producer().send(ProducerRecord::new("orders", &[1])), Err(Error::ReadOnly { .. })));
    let mut reader = log.consumer(ConsumerConfig::group("billing")).unwrap();
    assert_eq!(reader.committed(&("orders", 0).into()).unwrap().unwrap().offset.get(), 1);
    reader.subscribe(["orders"]).unwrap();
    reader.poll(NOW).unwrap();
    assert!(matches!(reader.commit(), Err(Error::ReadOnly { .. })));
    assert_eq!(log.list_groups(), ["billing"]);
    assert_eq!(log.describe_group("billing").unwrap().offsets[0].committed, Some(tidelog::Offset::new(1)));
    drop((reader, log));
    let after: Vec<_> = machine.files().into_iter().map(|path| (machine.read_file(&path), path)).collect();
    assert_eq!(before, after);
    assert!(matches!(Machine::new(2).open_read_only(), Err(Error::NotALog { .. })));
}

#[test]
fn an_open_log_is_refused_to_a_second_writer_with_the_name_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();

    let refused = EventLog::open(directory.path()).unwrap_err();

    let message = refused.to_string();
    assert!(matches!(refused, Error::Locked { holder, .. } if holder == Some(std::process::id())), "{message}");
    assert!(message.contains(directory.path().file_name().unwrap().to_str().unwrap()), "{message}");
    drop(log);
    EventLog::open(directory.path()).unwrap();
}
