//! What holds on the simulated machine holds on the real one: the same suite over how the log is opened, so that the two
//! cannot drift apart.

use std::collections::BTreeSet;
use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, ProducerRecord, TopicConfig,
};

const POLL: Duration = Duration::from_millis(20);

/// A place where a log lies, and can be opened again once it is closed.
trait Place {
    fn open(&self) -> EventLog;
}

struct Directory(tempfile::TempDir);

impl Place for Directory {
    fn open(&self) -> EventLog {
        EventLog::open_with(self.0.path(), LogConfig::new().background(false)).unwrap()
    }
}

impl Place for Machine {
    fn open(&self) -> EventLog {
        Machine::open(self, LogConfig::new().background(false)).unwrap()
    }
}

fn places() -> [(&'static str, Box<dyn Place>); 2] {
    let directory = Directory(tempfile::tempdir().unwrap());
    [("real", Box::new(directory)), ("simulated", Box::new(Machine::new(11)))]
}

fn member(log: &EventLog) -> Consumer {
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    consumer
}

/// A topic of two partitions with `count` records, in turn.
fn fill(log: &EventLog, count: u32) {
    log.create_topic("orders", TopicConfig::new().partitions(2).segment_bytes(4096)).unwrap();
    for n in 0..count {
        let value = [n.to_le_bytes().as_slice(), &[7; 300]].concat();
        let number = n.to_le_bytes();
        let record = ProducerRecord::new("orders", &value).key(&number).header("n", &number);
        log.producer().send(record.partition(n % 2)).unwrap();
    }
    log.producer().flush().unwrap();
}

/// What a consumer finds, as `partition: number`.
fn drain(consumer: &mut Consumer) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    loop {
        let records = consumer.poll(POLL).unwrap();
        if records.is_empty() {
            return found;
        }
        for record in &records {
            let number = u32::from_le_bytes(record.value().unwrap()[..4].try_into().unwrap());
            assert_eq!(record.header("n"), Some(&number.to_le_bytes()[..]));
            found.push((record.partition(), number));
        }
    }
}

#[test]
fn what_was_sent_is_read_in_order_by_partition_also_after_reopening() {
    for (name, place) in places() {
        let log = place.open();
        fill(&log, 60);
        drop(log);

        let found = drain(&mut member(&place.open()));

        for partition in 0..2 {
            let numbers: Vec<u32> =
                found.iter().filter(|(of, _)| *of == partition).map(|(_, number)| *number).collect();
            assert_eq!(numbers, (0..60).filter(|number| number % 2 == partition).collect::<Vec<_>>(), "{name}");
        }
    }
}

#[test]
fn a_group_goes_on_where_it_has_committed_and_nowhere_else() {
    for (name, place) in places() {
        let log = place.open();
        fill(&log, 10);
        let mut consumer = member(&log);
        assert_eq!(drain(&mut consumer).len(), 10, "{name}");
        consumer.commit_offsets([(("orders", 0).into(), Offset::new(3))]).unwrap();
        drop((consumer, log));

        let found = drain(&mut member(&place.open()));

        assert_eq!(found, [(0, 6), (0, 8), (1, 1), (1, 3), (1, 5), (1, 7), (1, 9)], "{name}");
    }
}

#[test]
fn two_members_share_what_there_is_and_one_takes_over_what_the_other_leaves() {
    for (name, place) in places() {
        let log = place.open();
        fill(&log, 8);
        let (mut one, mut other) = (member(&log), member(&log));
        let mut found = BTreeSet::new();
        for _ in 0..6 {
            for consumer in [&mut one, &mut other] {
                let records = consumer.poll(Duration::ZERO).unwrap();
                found.extend(records.iter().map(|record| (record.partition(), record.offset().get())));
                // Not while the group waits for the other to join.
                assert!(matches!(consumer.commit(), Ok(()) | Err(Error::CommitFailed { .. } | Error::Timeout { .. })));
            }
        }
        assert_eq!((one.assignment().len(), other.assignment().len()), (1, 1), "{name}");
        assert_eq!(found.len(), 8, "{name}");

        drop(other);
        one.poll(POLL).unwrap();
        one.poll(POLL).unwrap();
        assert_eq!(one.assignment().len(), 2, "{name}");
    }
}

#[test]
fn errors_are_the_same_errors() {
    for (name, place) in places() {
        let log = place.open();
        fill(&log, 1);
        let mut consumer = member(&log);
        drain(&mut consumer);

        assert!(matches!(log.create_topic("orders", TopicConfig::new()), Err(Error::TopicExists { .. })), "{name}");
        let unknown = log.producer().send(ProducerRecord::new("invoices", b"x"));
        assert!(matches!(unknown, Err(Error::UnknownTopic { .. })), "{name}");
        let behind = consumer.commit_offsets([(("orders", 0).into(), Offset::new(2))]);
        assert!(matches!(behind, Err(Error::OffsetOutOfRange { .. })), "{name}");
        let large = log.producer().send(ProducerRecord::new("orders", &[0; 1 << 20]));
        assert!(matches!(large, Err(Error::RecordTooLarge { .. })), "{name}");
        let nothing = TopicConfig::new().durability(Durability::Interval { every: Duration::ZERO, bytes: 1 });
        assert!(matches!(log.create_topic("x", nothing), Err(Error::InvalidConfig { .. })), "{name}");
    }
}
