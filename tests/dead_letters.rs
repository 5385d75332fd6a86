//! Records that cannot be processed: tried again in the log's time, put aside with where they are from and why, and never
//! committed before that is durable. The table at the head of `src/dead_letters.rs` has the cases.
#![cfg(feature = "sim")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tidelog::sim::{Fault, Machine, Operation, PowerCut};
use tidelog::{
    Consumer, ConsumerConfig, DeadLetterConfig, DeadLetterQueue, Durability, Error, EventLog, LogConfig, OffsetReset,
    Processed, ProcessingError, ProducerRecord, TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;
/// Small, because each life of a simulated machine begins with a copy of its disk.
const SEGMENT_BYTES: u32 = 1 << 16;

fn tp(partition: u32) -> TopicPartition {
    ("orders", partition).into()
}

/// A log with `orders` of three partitions and `dlq.orders` of two.
fn open(machine: &Machine) -> EventLog {
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    for (topic, partitions) in [("orders", 3), ("dlq.orders", 2)] {
        match log.create_topic(topic, TopicConfig::new().partitions(partitions).segment_bytes(SEGMENT_BYTES)) {
            Err(Error::TopicExists { .. }) => {}
            created => created.unwrap(),
        }
    }
    log
}

fn send(log: &EventLog, partition: u32, values: &[&str]) {
    let producer = log.producer();
    for value in values {
        producer.send(ProducerRecord::new("orders", value).partition(partition)).unwrap();
    }
    producer.flush().unwrap();
}

/// A member of the group `billing` that reads from the beginning; automatic commits as they are by default, on.
fn member(log: &EventLog) -> Consumer {
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    consumer
}

fn queue(log: &EventLog, config: DeadLetterConfig) -> DeadLetterQueue {
    DeadLetterQueue::new(log.producer(), "dlq.orders", config).unwrap()
}

fn committed(log: &EventLog, partition: u32) -> Option<u64> {
    let consumer = log.consumer(ConsumerConfig::group("billing").auto_commit(false)).unwrap();
    consumer.committed(&tp(partition)).unwrap().map(|committed| committed.offset.get())
}

/// A record of the dead-letter topic, as text.
#[derive(Debug, PartialEq)]
struct Letter {
    partition: u32,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

fn letters(log: &EventLog) -> Vec<Letter> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    consumer.subscribe(["dlq.orders"]).unwrap();
    let records = consumer.poll(NOW).unwrap();
    let letter = |record: tidelog::ConsumerRecord<'_>| Letter {
        partition: record.partition(),
        key: record.key().map(text),
        value: record.value().map(text),
        headers: record.headers().map(|(name, value)| (name.to_owned(), text(value.unwrap_or_default()))).collect(),
    };
    records.iter().map(letter).collect()
}

fn value<'a>(record: &tidelog::ConsumerRecord<'a>) -> &'a str {
    std::str::from_utf8(record.value().unwrap()).unwrap()
}

/// Two errors, one beneath the other.
#[derive(Debug)]
struct Refused(Option<Box<Refused>>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "not booked" } else { "the bank is closed" })
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|cause| cause.as_ref() as _)
    }
}

#[test]
fn what_fails_again_and_again_is_put_aside_with_where_it_is_from_why_and_how_often() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 2, &["a"]);
    let sent = machine.now();
    let record = ProducerRecord::new("orders", "poison").key("user-7").header("trace", "1").partition(2);
    log.producer().send(record).unwrap().wait().unwrap();
    send(&log, 2, &["b"]);
    let mut consumer = member(&log);
    let mut queue = queue(&log, DeadLetterConfig::new());
    let records = consumer.poll(NOW).unwrap();

    let seen = RefCell::new(Vec::new());
    let processed = queue.process(&mut consumer, &records, |record| {
        let since = machine.now().as_millis() - sent.as_millis();
        seen.borrow_mut().push((value(record).to_owned(), since));
        if value(record) == "poison" { Err(Refused(Some(Box::new(Refused(None)))))? } else { Ok(()) }
    });

    assert_eq!(processed.unwrap(), Processed { done: 2, dead_letters: 1, postponed: 0 });
    let attempts =
        [("a", 0), ("poison", 0), ("poison", 100), ("poison", 300), ("poison", 700), ("poison", 1500), ("b", 1500)];
    assert_eq!(seen.into_inner(), attempts.map(|(value, at)| (value.to_owned(), at)));
    let headers = [
        ("trace", "1".to_owned()),
        ("__dlq.errors.topic", "orders".to_owned()),
        ("__dlq.errors.partition", "2".to_owned()),
        ("__dlq.errors.offset", "1".to_owned()),
        ("__dlq.errors.timestamp", sent.to_string()),
        ("__dlq.errors.group", "billing".to_owned()),
        ("__dlq.errors.delivery.count", "5".to_owned()),
        ("__dlq.errors.message", "not booked: the bank is closed".to_owned()),
    ];
    let letter = Letter {
        partition: 0,
        key: Some("user-7".into()),
        value: Some("poison".into()),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
    };
    assert_eq!(letters(&log), [letter]);

    consumer.commit().unwrap();
    assert_eq!(committed(&log, 2), Some(3), "the group goes on behind it");
}

#[test]
fn what_goes_well_in_the_end_is_done_and_nothing_is_put_aside() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a", "b"]);
    let mut consumer = member(&log);
    let mut queue = queue(&log, DeadLetterConfig::new().delivery_count_limit(3));
    let records = consumer.poll(NOW).unwrap();
    let mut attempts = BTreeMap::new();

    let processed = queue.process(&mut consumer, &records, |record| {
        let attempt = attempts.entry(record.offset()).or_insert(0);
        *attempt += 1;
        if *attempt < 3 { Err(ProcessingError::retriable("busy")) } else { Ok(()) }
    });

    assert_eq!(processed.unwrap(), Processed { done: 2, dead_letters: 0, postponed: 0 });
    assert_eq!(attempts.into_values().collect::<Vec<_>>(), [3, 3], "each record has its own attempts");
    assert_eq!(letters(&log), []);
}

#[test]
fn what_is_bad_for_good_is_tried_once() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 1, &["bad"]);
    let mut consumer = member(&log);
    let before = machine.now();
    let records = consumer.poll(NOW).unwrap();

    let mut queue = queue(&log, DeadLetterConfig::new());
    let processed = queue.process(&mut consumer, &records, |_| Err(ProcessingError::fatal("no number"))).unwrap();

    assert_eq!(processed, Processed { done: 0, dead_letters: 1, postponed: 0 });
    assert_eq!(machine.now(), before, "nothing was waited for");
    let letters = letters(&log);
    let header = |name: &str| letters[0].headers.iter().find(|(other, _)| other == name).unwrap().1.as_str();
    assert_eq!((header("__dlq.errors.delivery.count"), header("__dlq.errors.message")), ("1", "no number"));
    assert_eq!(letters[0].partition, 1);
}

/// Whatever keeps the dead letter from being written: the consumer stands at the record, so that no commit covers it.
#[test]
fn a_record_that_cannot_be_put_aside_is_not_committed_and_comes_again() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a", "poison", "b"]);
    send(&log, 1, &["c"]);
    let mut consumer = member(&log);
    let mut queue = queue(&log, DeadLetterConfig::new().delivery_count_limit(1));
    let handler = |record: &tidelog::ConsumerRecord<'_>| match value(record) {
        "poison" => Err(ProcessingError::fatal("poison")),
        _ => Ok(()),
    };
    let records = consumer.poll(NOW).unwrap();

    machine.fail(Fault::new(Operation::Sync, 0));
    let failed = queue.process(&mut consumer, &records, handler);

    assert!(matches!(failed, Err(Error::SyncFailed { .. })), "{failed:?}");
    machine.heal();
    assert_eq!(consumer.position(&tp(0)).unwrap().get(), 1, "at the poison, and not behind it");
    assert_eq!(consumer.position(&tp(1)).unwrap().get(), 0, "what comes after it was not processed either");
    consumer.close().unwrap();
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(1), Some(0)));

    // A partition whose sync failed takes nothing until the log is opened again. Then it goes on.
    log.close().unwrap_err();
    let log = open(&machine);
    let mut consumer = member(&log);
    let mut queue = self::queue(&log, DeadLetterConfig::new());
    let records = consumer.poll(NOW).unwrap();
    let processed = queue.process(&mut consumer, &records, handler).unwrap();
    assert_eq!(processed, Processed { done: 2, dead_letters: 1, postponed: 0 });
    consumer.close().unwrap();
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(3), Some(1)));
}

#[test]
fn a_consumer_that_commits_what_is_stored_has_stored_what_was_processed() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a", "b"]);
    send(&log, 1, &["c", "boom", "d"]);
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_offset_store(false);
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let mut queue = queue(&log, DeadLetterConfig::new());
    let waker = consumer.waker();

    let records = consumer.poll(NOW).unwrap();
    let woken = queue.process(&mut consumer, &records, |record| match value(record) {
        "boom" => {
            waker.wake();
            Err(ProcessingError::retriable("boom"))
        }
        _ => Ok(()),
    });
    assert!(matches!(woken, Err(Error::Wakeup)), "{woken:?}");
    consumer.commit().unwrap();
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(2), Some(1)));

    let records = consumer.poll(NOW).unwrap();
    queue.process(&mut consumer, &records, |_| Ok(())).unwrap();
    consumer.commit().unwrap();
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(2), Some(3)));
}

#[test]
fn a_handler_that_panics_leaves_the_consumer_at_the_record() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a", "boom", "b"]);
    let mut consumer = member(&log);
    let mut queue = queue(&log, DeadLetterConfig::new());
    let records = consumer.poll(NOW).unwrap();

    let caught = catch_unwind(AssertUnwindSafe(|| {
        queue.process(&mut consumer, &records, |record| {
            assert!(value(record) != "boom", "boom");
            Ok(())
        })
    }));

    assert!(caught.is_err());
    assert_eq!(consumer.position(&tp(0)).unwrap().get(), 1);
    consumer.close().unwrap();
    assert_eq!(committed(&log, 0), Some(1));
}

#[test]
fn waking_the_consumer_ends_the_waiting_and_loses_nothing() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a", "b"]);
    let mut consumer = member(&log);
    let waker = consumer.waker();
    let mut queue = queue(&log, DeadLetterConfig::new());
    let records = consumer.poll(NOW).unwrap();
    let before = machine.now();

    let woken = queue.process(&mut consumer, &records, |record| {
        if value(record) == "a" {
            return Ok(());
        }
        waker.wake();
        Err(ProcessingError::retriable("busy"))
    });

    assert!(matches!(woken, Err(Error::Wakeup)), "{woken:?}");
    assert_eq!(machine.now(), before);
    assert_eq!(consumer.position(&tp(0)).unwrap().get(), 1);
    // The attempt counts: the second of five comes when it is due, and not at once.
    let records = consumer.poll(NOW).unwrap();
    queue.process(&mut consumer, &records, |_| Ok(())).unwrap();
    assert_eq!(machine.now().as_millis() - before.as_millis(), 100);
}

/// The waits of five attempts add up to more than the consumer may take between two polls, so it polls in between.
#[test]
fn what_cannot_be_waited_for_before_the_next_poll_is_postponed_and_the_member_stays() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a", "poison", "b"]);
    send(&log, 1, &["c"]);
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = log.consumer(config.max_poll_interval(Duration::from_secs(1))).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let mut queue = queue(&log, DeadLetterConfig::new());
    let start = machine.now();
    let seen = RefCell::new(Vec::new());
    let handler = |record: &tidelog::ConsumerRecord<'_>| {
        seen.borrow_mut().push((value(record).to_owned(), machine.now().as_millis() - start.as_millis()));
        if value(record) == "poison" { Err(ProcessingError::retriable("busy")) } else { Ok(()) }
    };

    let records = consumer.poll(NOW).unwrap();
    let processed = queue.process(&mut consumer, &records, handler).unwrap();
    assert_eq!(processed, Processed { done: 1, dead_letters: 0, postponed: 3 });
    assert_eq!(machine.now().as_millis() - start.as_millis(), 700, "the next attempt would be at 1500");
    consumer.commit().unwrap();
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(1), Some(0)));

    let mut processed = Processed::default();
    while processed.done + processed.dead_letters < 3 {
        let records = consumer.poll(NOW).unwrap();
        let more = queue.process(&mut consumer, &records, handler).unwrap();
        processed.done += more.done;
        processed.dead_letters += more.dead_letters;
        consumer.commit().expect("it was never put out of its group");
    }

    let seen = seen.into_inner();
    let attempts: Vec<i64> = seen.iter().filter(|(value, _)| value == "poison").map(|(_, at)| *at).collect();
    assert_eq!(attempts, [0, 100, 300, 700, 1500], "five in all, as without the interruption");
    assert_eq!((processed.done, processed.dead_letters, letters(&log).len()), (2, 1, 1));
    assert_eq!((committed(&log, 0), committed(&log, 1)), (Some(3), Some(1)));
}

#[test]
fn a_wait_that_no_consumer_of_the_group_could_last_is_refused_before_anything_is_tried() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a"]);
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = log.consumer(config.max_poll_interval(Duration::from_millis(800))).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let records = consumer.poll(NOW).unwrap();

    let refused =
        queue(&log, DeadLetterConfig::new()).process(&mut consumer, &records, |_| unreachable!("it was tried"));

    let refused = refused.unwrap_err();
    let words = "up to 800ms pass between two attempts, and the consumer has to poll every 800ms";
    assert!(refused.to_string().contains(words), "{refused}");
    assert_eq!(consumer.position(&tp(0)).unwrap().get(), 0);
    // With one attempt less it fits; and who is no member may take all the time there is.
    let mut fits = queue(&log, DeadLetterConfig::new().delivery_count_limit(4));
    let records = consumer.poll(NOW).unwrap();
    assert_eq!(fits.process(&mut consumer, &records, |_| Ok(())).unwrap().done, 1);
    let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest);
    let mut alone = log.consumer(config.max_poll_interval(Duration::from_millis(1))).unwrap();
    alone.assign([tp(0)]).unwrap();
    let records = alone.poll(NOW).unwrap();
    let busy = |_: &tidelog::ConsumerRecord<'_>| Err(ProcessingError::retriable("busy"));
    let processed = queue(&log, DeadLetterConfig::new()).process(&mut alone, &records, busy).unwrap();
    assert_eq!(processed, Processed { done: 0, dead_letters: 1, postponed: 0 });
}

/// Whoever has taken longer than allowed is out of the group, and others process what is left.
#[test]
fn nothing_more_is_handled_once_the_next_poll_is_overdue() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a", "b", "c"]);
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = log.consumer(config.max_poll_interval(Duration::from_secs(1))).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let records = consumer.poll(NOW).unwrap();

    let processed =
        queue(&log, DeadLetterConfig::new().delivery_count_limit(1)).process(&mut consumer, &records, |_| {
            machine.sleep(Duration::from_millis(600));
            Ok(())
        });

    assert_eq!(processed.unwrap(), Processed { done: 2, dead_letters: 0, postponed: 1 });
}

#[test]
fn what_makes_no_sense_is_refused_and_moves_nothing() {
    let machine = Machine::new(1);
    let log = open(&machine);
    send(&log, 0, &["a"]);
    let none = DeadLetterQueue::new(log.producer(), "dlq.none", DeadLetterConfig::new());
    assert!(matches!(none, Err(Error::UnknownTopic { .. })), "{none:?}");
    let never = DeadLetterQueue::new(log.producer(), "dlq.orders", DeadLetterConfig::new().delivery_count_limit(0));
    assert!(matches!(never, Err(Error::InvalidConfig { .. })), "{never:?}");

    let mut consumer = member(&log);
    let records = consumer.poll(NOW).unwrap();
    let mut itself = DeadLetterQueue::new(log.producer(), "orders", DeadLetterConfig::new()).unwrap();
    let circle = itself.process(&mut consumer, &records, |_| Ok(()));
    assert!(matches!(circle, Err(Error::InvalidState { .. })), "{circle:?}");
    assert_eq!(consumer.position(&tp(0)).unwrap().get(), 0);
}

/// The machine stops at every operation of the disk in turn. Whatever the group has committed by then is done, or lies in
/// the dead-letter topic.
#[test]
fn wherever_the_machine_stops_what_is_committed_is_done_or_put_aside() {
    let values: Vec<String> =
        (0..12).map(|n| if n % 3 == 1 { format!("poison {n}") } else { format!("fine {n}") }).collect();
    let (mut cut_short, mut put_aside) = (0, 0);
    for at in 0.. {
        let machine = Machine::new(at);
        let log = open(&machine);
        send(&log, 0, &values.iter().map(String::as_str).collect::<Vec<_>>());
        machine.crash_at(machine.operations() + at);
        let done = work_until_it_stops(&log);
        let crashed = machine.has_crashed();
        drop(log);

        let machine = machine.power_cut(PowerCut::LoseUnsynced);
        let log = open(&machine);
        let aside: Vec<String> = letters(&log).into_iter().map(|letter| letter.value.unwrap()).collect();
        for value in values.iter().take(usize::try_from(committed(&log, 0).unwrap_or(0)).unwrap()) {
            assert!(done.contains(value) || aside.contains(value), "{value} is lost when the machine stops at {at}");
        }
        put_aside = put_aside.max(aside.len());
        if !crashed {
            assert_eq!((aside.len(), committed(&log, 0)), (4, Some(12)));
            break;
        }
        cut_short += 1;
    }
    assert!(cut_short > 8, "it stopped only {cut_short} times");
    assert_eq!(put_aside, 4);
}

/// What the handler was done with, three records at a time and a commit after each three.
fn work_until_it_stops(log: &EventLog) -> Vec<String> {
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).max_poll_records(3);
    let mut done = Vec::new();
    let Ok(mut consumer) = log.consumer(config) else { return done };
    consumer.subscribe(["orders"]).unwrap();
    let mut queue = queue(log, DeadLetterConfig::new().delivery_count_limit(2));
    loop {
        let Ok(records) = consumer.poll(NOW) else { return done };
        if records.is_empty() {
            return done;
        }
        let processed = queue.process(&mut consumer, &records, |record| {
            if value(record).starts_with("poison") {
                return Err(ProcessingError::retriable("poison"));
            }
            done.push(value(record).to_owned());
            Ok(())
        });
        // Whoever is unlucky commits all the same: the position is where it may be.
        if consumer.commit().is_err() || processed.is_err() {
            return done;
        }
    }
}

/// At the other levels of durability a dead letter is as durable as its topic says, and no more is waited for.
#[test]
fn a_dead_letter_is_as_durable_as_its_topic_promises() {
    for (durability, left) in [(Durability::Sync, 1), (Durability::Os, 0)] {
        let machine = Machine::new(1);
        machine.set_write_back(false);
        let log = machine.open(LogConfig::new().background(false)).unwrap();
        log.create_topic("orders", TopicConfig::new()).unwrap();
        log.create_topic("dlq.orders", TopicConfig::new().durability(durability)).unwrap();
        send(&log, 0, &["poison"]);
        let mut consumer = member(&log);
        let mut queue = queue(&log, DeadLetterConfig::new());
        let records = consumer.poll(NOW).unwrap();
        queue.process(&mut consumer, &records, |_| Err(ProcessingError::fatal("poison"))).unwrap();

        let log = open(&machine.power_cut(PowerCut::LoseUnsynced));

        assert_eq!(letters(&log).len(), left, "{durability}");
    }
}
