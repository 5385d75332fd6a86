//! What a power cut may take, and what it may not: each of these once broke a trial of the design.
//!
//! | test                                                        | what was lost, and how                                                    |
//! |-------------------------------------------------------------|---------------------------------------------------------------------------|
//! | `a_topic_does_not_vanish_after_its_creation_returned`       | a whole topic: the directory's name was not synced                        |
//! | `a_segment_gets_its_name_after_its_header_is_on_the_disk`   | a log that could not be opened: a name led to a file of zeros             |
//! | `old_bytes_behind_a_torn_tail_do_not_come_back_as_records`  | the truth: batches of an earlier life lined up behind new ones            |
//! | `the_directory_stays_locked_as_long_as_a_producer_lives`    | everything: two writers, because the log handle had been dropped          |
//! | `a_group_skips_nothing_after_a_power_cut_took_what_it_had_committed` | records: they got offsets that the group believed to have read   |
#![cfg(feature = "sim")]

use std::time::Duration;

use tidelog::sim::{Machine, PowerCut};
use tidelog::{
    ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, ProducerRecord, TopicConfig,
};

const SEEDS: u64 = 40;

fn open(machine: &Machine) -> EventLog {
    machine.open(LogConfig::new().background(false)).unwrap()
}

fn lives() -> impl Iterator<Item = (u64, PowerCut)> {
    (0..SEEDS).flat_map(|seed| PowerCut::ALL.map(|how| (seed, how)))
}

fn read_all(log: &EventLog, topic: &str) -> Vec<Vec<u8>> {
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
fn a_topic_does_not_vanish_after_its_creation_returned() {
    for (seed, how) in lives() {
        let machine = Machine::new(seed);
        let log = open(&machine);
        log.create_topic("orders", TopicConfig::new().partitions(3).segment_bytes(8192)).unwrap();

        let log = open(&machine.power_cut(how));

        let description = log.describe_topic("orders").unwrap_or_else(|error| panic!("seed {seed}, {how:?}: {error}"));
        assert_eq!(description.config, TopicConfig::new().partitions(3).segment_bytes(8192), "seed {seed}, {how:?}");
        assert!(log.recovery_report().is_clean(), "seed {seed}, {how:?}: {:?}", log.recovery_report());
    }
}

#[test]
fn a_segment_gets_its_name_after_its_header_is_on_the_disk() {
    for (seed, how) in lives() {
        let machine = Machine::new(seed);
        let log = open(&machine);
        let config = TopicConfig::new().segment_bytes(4096).durability(Durability::Os);
        log.create_topic("orders", config).unwrap();
        for n in 0..seed % 37 {
            log.producer().send(ProducerRecord::new("orders", &[n as u8; 500])).unwrap();
        }

        let machine = machine.power_cut(how);

        for path in machine.files().iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            let bytes = machine.read_file(path);
            assert_eq!(bytes.get(..8), Some(&b"tidelog\0"[..]), "seed {seed}, {how:?}: {}", path.display());
        }
        let log = open(&machine);
        assert!(log.recovery_report().is_clean(), "seed {seed}, {how:?}: {:?}", log.recovery_report());
    }
}

#[test]
fn old_bytes_behind_a_torn_tail_do_not_come_back_as_records() {
    for (seed, how) in lives() {
        // Equal sizes, so that batches of the first life lie where those of the second would end.
        let machine = Machine::new(seed);
        let log = open(&machine);
        log.create_topic("orders", TopicConfig::new().durability(Durability::Os).segment_bytes(65536)).unwrap();
        for n in 0..40u8 {
            log.producer().send(ProducerRecord::new("orders", &[n; 460])).unwrap();
        }
        let machine = machine.power_cut(how);
        let log = open(&machine);
        let mut expected = read_all(&log, "orders");
        for (n, value) in expected.iter().enumerate() {
            assert_eq!(*value, [n as u8; 460], "seed {seed}, {how:?}: not a prefix of what was sent");
        }
        log.producer().send(ProducerRecord::new("orders", &[200; 460])).unwrap();
        expected.push(vec![200; 460]);

        let log = open(&machine.kill());

        assert_eq!(read_all(&log, "orders"), expected, "seed {seed}, {how:?}");
    }
}

#[test]
fn the_directory_stays_locked_as_long_as_a_producer_lives() {
    let machine = Machine::new(0);
    let log = open(&machine);
    log.create_topic("orders", TopicConfig::new()).unwrap();
    let producer = log.producer();
    let consumer = log.consumer(ConsumerConfig::new()).unwrap();

    drop(log);
    assert!(matches!(machine.open(LogConfig::new()), Err(Error::Locked { .. })));
    producer.send(ProducerRecord::new("orders", b"still here")).unwrap().wait().unwrap();
    drop(producer);
    assert!(matches!(machine.open(LogConfig::new()), Err(Error::Locked { .. })), "a consumer can commit");
    drop(consumer);

    assert_eq!(read_all(&open(&machine), "orders"), [b"still here"]);
}

#[test]
fn a_group_skips_nothing_after_a_power_cut_took_what_it_had_committed() {
    for (seed, how) in lives() {
        let machine = Machine::new(seed);
        let log = open(&machine);
        log.create_topic("orders", TopicConfig::new().durability(Durability::Os).segment_bytes(8192)).unwrap();
        for n in 0..30u8 {
            log.producer().send(ProducerRecord::new("orders", &[n; 300])).unwrap();
        }
        let config = || ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
        let mut consumer = log.consumer(config()).unwrap();
        consumer.subscribe(["orders"]).unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 30);
        consumer.commit().unwrap();

        let machine = machine.power_cut(how);
        let log = open(&machine);
        let end = log.describe_topic("orders").unwrap().partitions[0].log_end;
        let pulled_back = log.recovery_report().pulled_back.len();
        assert_eq!(pulled_back, usize::from(end < Offset::new(30)), "seed {seed}, {how:?}: end {end}");
        for n in 0..40u8 {
            log.producer().send(ProducerRecord::new("orders", &[100 + n; 300])).unwrap();
        }
        // Once more, without a hitch: what was pulled back stays so.
        drop(log);
        let log = open(&machine);
        let mut consumer = log.consumer(config()).unwrap();
        consumer.subscribe(["orders"]).unwrap();
        let records = consumer.poll(Duration::ZERO).unwrap();

        let values: Vec<u8> = records.iter().map(|record| record.value().unwrap()[0]).collect();
        assert_eq!(values, (100..140).collect::<Vec<_>>(), "seed {seed}, {how:?}: end {end}");
    }
}
