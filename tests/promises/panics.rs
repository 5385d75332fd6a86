//! Panics in what the user gave us: a codec, a partitioner, a callback, an iterator. On a real disk, with a worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use tidelog::{
    CodecError, ConsumerConfig, Durability, Encode, EventLog, OffsetReset, Partitioner, ProducerConfig, ProducerRecord,
    TopicConfig,
};

use crate::shared::{NOW, name, read_around_damage};

struct Explosive;

impl Encode<u8> for Explosive {
    fn encode(&self, value: &u8, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(*value);
        assert!(*value != 13, "a bug in the user's serializer");
        Ok(())
    }
}

fn log() -> (tempfile::TempDir, EventLog) {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic("orders", TopicConfig::new().partitions(2).durability(Durability::Os)).unwrap();
    (directory, log)
}

fn panics(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

fn values(log: &EventLog, partition: u32) -> Vec<Vec<u8>> {
    read_around_damage(log, &name("orders", partition)).0.into_values().collect()
}

#[test]
fn a_panic_in_a_serializer_partitioner_or_iterator_leaves_the_record_unwritten_and_everybody_else_going_on() {
    let (directory, log) = log();
    let producer = log.producer();
    let choosy = log.producer_with(ProducerConfig::new().partitioner(Partitioner::custom(|record, _| {
        assert!(record.value_bytes() != Some(b"boom"), "a bug in the user's partitioner");
        1
    })));
    producer.send(ProducerRecord::new("orders", b"before").partition(0)).unwrap();

    assert!(panics(|| drop(ProducerRecord::encoded("orders", &Explosive, &13).map(|record| producer.send(record)))));
    assert!(panics(|| drop(choosy.send(ProducerRecord::new("orders", b"boom")))));
    assert!(panics(|| {
        let records = (0..3).map(|n| {
            assert!(n < 2, "a bug in the user's iterator");
            ProducerRecord::new("orders", b"of a batch").partition(0)
        });
        drop(producer.send_batch(records));
    }));

    choosy.send(ProducerRecord::new("orders", b"other")).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| producer.send(ProducerRecord::new("orders", b"after").partition(0)).unwrap().wait().unwrap());
    });
    assert_eq!(values(&log, 0), [b"before".to_vec(), b"after".to_vec()]);
    assert_eq!(values(&log, 1), [b"other".to_vec()]);
    drop((producer, choosy));
    log.close().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    assert_eq!(values(&log, 0), [b"before".to_vec(), b"after".to_vec()]);
}

#[test]
fn a_panic_in_a_callback_takes_no_other_delivery_with_it() {
    let (_directory, log) = log();
    log.create_topic("safe", TopicConfig::new()).unwrap();
    let producer = log.producer();
    let (tell, told) = mpsc::channel();
    for n in 0..20u8 {
        let tell = tell.clone();
        producer
            .send_with(ProducerRecord::new("safe", &[n]), move |result| {
                assert!(n % 5 != 2, "a bug in the user's callback");
                tell.send((n, result.unwrap().offset().get())).unwrap();
            })
            .unwrap();
    }
    producer.flush().unwrap();
    drop(tell);

    let heard: Vec<_> = told.iter().collect();
    let expected: Vec<_> = (0..20u8).filter(|n| n % 5 != 2).map(|n| (n, u64::from(n))).collect();
    assert_eq!(heard, expected);
    assert_eq!(read_around_damage(&log, &name("safe", 0)).0.len(), 20, "all of them are written");
    producer.send(ProducerRecord::new("safe", b"more")).unwrap().wait().unwrap();
}

#[test]
fn a_panic_while_records_are_processed_commits_nothing_and_the_group_is_free() {
    let (_directory, log) = log();
    for n in 0..5u8 {
        log.producer().send(ProducerRecord::new("orders", &[n]).partition(0)).unwrap();
    }
    let config = || ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    assert!(panics(|| {
        let mut consumer = log.consumer(config()).unwrap();
        consumer.subscribe(["orders"]).unwrap();
        let records = consumer.poll(NOW).unwrap();
        assert!(records.is_empty(), "a bug in the user's processing");
    }));

    let mut consumer = log.consumer(config()).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    assert_eq!(consumer.poll(NOW).unwrap().len(), 5, "committed what nobody had processed");
}
