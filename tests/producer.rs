//! Producing: what is refused, what a delivery promises, who is told and when.
#![cfg(feature = "sim")]

use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tidelog::sim::{Fault, Machine, Operation, PowerCut};
use tidelog::{
    ConsumerConfig, ConsumerRecords, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, Partitioner,
    ProducerConfig, ProducerRecord, Timestamp, TimestampType, TopicConfig,
};

fn machine_and_log(config: TopicConfig) -> (Machine, EventLog) {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    log.create_topic("orders", config).unwrap();
    (machine, log)
}

fn read(log: &EventLog) -> ConsumerRecords {
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    consumer.poll(Duration::ZERO).unwrap()
}

fn syncs(machine: &Machine) -> usize {
    machine.trace().iter().filter(|(operation, _)| *operation == Operation::Sync).count()
}

#[test]
fn a_record_comes_back_as_it_was_sent() {
    let (_machine, log) = machine_and_log(TopicConfig::new().durability(Durability::Os));
    let producer = log.producer();
    producer
        .send(
            ProducerRecord::new("orders", b"value")
                .key(b"key")
                .header("a", b"1")
                .header_without_value("b")
                .header("a", b"2")
                .timestamp(Timestamp::from_millis(5)),
        )
        .unwrap();
    producer.send(ProducerRecord::new("orders", b"").key("")).unwrap();
    producer.send(ProducerRecord::tombstone("orders", "gone")).unwrap();
    producer.send(ProducerRecord::new("orders", "no key")).unwrap();

    let records = read(&log);
    let records: Vec<_> = records.iter().collect();

    assert_eq!((records[0].key(), records[0].value()), (Some(&b"key"[..]), Some(&b"value"[..])));
    let headers: Vec<_> = records[0].headers().collect();
    assert_eq!(headers, [("a", Some(&b"1"[..])), ("b", None), ("a", Some(&b"2"[..]))]);
    assert_eq!(records[0].header("a"), Some(&b"2"[..]), "the last of a name counts");
    assert_eq!(records[0].timestamp(), Timestamp::from_millis(5));
    assert_eq!((records[1].key(), records[1].value()), (Some(&b""[..]), Some(&b""[..])), "empty is not absent");
    assert_eq!((records[2].key(), records[2].value()), (Some(&b"gone"[..]), None));
    assert_eq!(records[3].key(), None);
    assert_eq!(records[3].headers().count(), 0);
}

#[test]
fn what_cannot_be_sent_is_refused_before_anything_is_written() {
    let (_machine, log) = machine_and_log(TopicConfig::new().partitions(2).max_record_bytes(1000));
    let producer = log.producer_with(ProducerConfig::new().partitioner(Partitioner::custom(|_, _| 9)));

    let big = [0; 949];
    let refused = producer.send(ProducerRecord::new("orders", &big).partition(0));
    assert!(matches!(refused, Err(Error::RecordTooLarge { bytes: 1008, limit: 1000, .. })), "{refused:?}");
    assert!(matches!(producer.send(ProducerRecord::new("nope", b"1")), Err(Error::UnknownTopic { .. })));
    assert!(matches!(producer.send(ProducerRecord::new("no/pe", b"1")), Err(Error::InvalidTopic { .. })));
    let elsewhere = producer.send(ProducerRecord::new("orders", b"1").partition(2));
    assert!(matches!(elsewhere, Err(Error::UnknownPartition { partitions: 2, .. })));
    let astray = producer.send(ProducerRecord::new("orders", b"1"));
    assert!(matches!(astray, Err(Error::UnknownPartition { partitions: 2, .. })), "the partitioner said 9");
    let early = ProducerRecord::new("orders", b"1").partition(0).timestamp(Timestamp::from_millis(-1));
    assert!(matches!(producer.send(early), Err(Error::InvalidTimestamp { .. })));
    let batch = [ProducerRecord::new("orders", b"1").partition(0), ProducerRecord::new("orders", &big).partition(1)];
    assert!(matches!(producer.send_batch(batch), Err(Error::RecordTooLarge { .. })), "and the good one neither");
    producer.close().unwrap();
    assert!(matches!(producer.send(ProducerRecord::new("orders", b"1").partition(0)), Err(Error::Closed)));
    assert!(matches!(producer.clone().send(ProducerRecord::new("orders", b"1").partition(0)), Err(Error::Closed)));

    for partition in log.describe_topic("orders").unwrap().partitions {
        assert_eq!(partition.log_end, Offset::ZERO);
    }
    log.producer().send(ProducerRecord::new("orders", &big[..948]).partition(0)).unwrap();
}

#[test]
fn a_thousand_records_and_one_flush_cost_one_sync() {
    let (machine, log) = machine_and_log(TopicConfig::new());
    let before = syncs(&machine);
    let producer = log.producer();
    let deliveries: Vec<_> =
        (0..300u32).map(|n| producer.send(ProducerRecord::new("orders", &n.to_le_bytes())).unwrap()).collect();
    assert_eq!(syncs(&machine), before);
    assert!(deliveries.iter().all(|delivery| !delivery.is_delivered()));
    assert!(read(&log).is_empty(), "nothing is seen before it is durable");

    producer.flush().unwrap();

    assert_eq!(syncs(&machine), before + 1);
    assert!(deliveries.iter().all(tidelog::Delivery::is_delivered));
    assert_eq!(deliveries[299].wait().unwrap().offset(), Offset::new(299));
    assert_eq!(syncs(&machine), before + 1, "who waits for what is durable already syncs nothing");
    assert_eq!(read(&log).len(), 300);
}

#[test]
fn each_level_of_durability_delivers_when_it_promises_to() {
    for (durability, at_once) in [
        (Durability::Sync, false),
        (Durability::Interval { every: Duration::from_millis(50), bytes: 1 << 20 }, true),
        (Durability::Os, true),
    ] {
        let (machine, log) = machine_and_log(TopicConfig::new().durability(durability));
        let delivery = log.producer().send(ProducerRecord::new("orders", b"1")).unwrap();
        assert_eq!(delivery.is_delivered(), at_once, "{durability}");
        assert_eq!(read(&log).len(), usize::from(at_once), "{durability}");

        let partition = log.describe_topic("orders").unwrap().partitions[0].clone();
        assert_eq!((partition.log_end.get(), partition.durable_end.get()), (1, 0), "{durability}");
        assert_eq!(partition.high_watermark.get(), u64::from(at_once), "{durability}");

        machine.set_write_back(false);
        let lost = machine.power_cut(PowerCut::LoseUnsynced).open(LogConfig::new()).unwrap();
        assert_eq!(lost.describe_topic("orders").unwrap().partitions[0].log_end.get(), 0, "{durability}");
    }
}

#[test]
fn an_interval_syncs_by_time_and_by_bytes() {
    let durability = Durability::Interval { every: Duration::from_millis(50), bytes: 1000 };
    let (machine, log) = machine_and_log(TopicConfig::new().durability(durability));
    let durable = || log.describe_topic("orders").unwrap().partitions[0].durable_end.get();
    let send = |bytes: usize| drop(log.producer().send(ProducerRecord::new("orders", &vec![1; bytes])).unwrap());

    send(10);
    machine.advance(Duration::from_millis(49));
    assert_eq!(log.maintain(), Some(Duration::from_millis(1)));
    assert_eq!(durable(), 0);
    machine.advance(Duration::from_millis(1));
    log.maintain();
    assert_eq!(durable(), 1);

    send(400);
    log.maintain();
    assert_eq!(durable(), 1);
    send(700);
    log.maintain();
    assert_eq!(durable(), 3, "over a thousand bytes, and no time went by");
}

#[test]
fn callbacks_run_in_the_order_of_the_records_and_one_that_panics_takes_nobody_along() {
    let (_machine, log) = machine_and_log(TopicConfig::new());
    let producer = log.producer();
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..10u64 {
        let order = Arc::clone(&order);
        let record = ProducerRecord::new("orders", b"1");
        producer
            .send_with(record, move |result| {
                assert!(n != 4, "planted");
                order.lock().unwrap().push((n, result.unwrap().offset().get()));
            })
            .unwrap();
    }
    assert!(order.lock().unwrap().is_empty());

    producer.flush().unwrap();

    let expected: Vec<_> = (0..10).filter(|n| *n != 4).map(|n| (n, n)).collect();
    assert_eq!(*order.lock().unwrap(), expected);
    assert_eq!(read(&log).len(), 10, "the record of the one that panicked is written");
}

#[test]
fn a_callback_of_a_topic_that_does_not_wait_runs_before_send_returns() {
    let (_machine, log) = machine_and_log(TopicConfig::new().durability(Durability::Os));
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    log.producer()
        .send_with(ProducerRecord::new("orders", b"1"), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[test]
fn closing_the_log_runs_the_callbacks_that_wait() {
    let (_machine, log) = machine_and_log(TopicConfig::new());
    let results = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&results);
    log.producer()
        .send_with(ProducerRecord::new("orders", b"1"), move |result| sink.lock().unwrap().push(result.is_ok()))
        .unwrap();
    log.close().unwrap();
    assert_eq!(*results.lock().unwrap(), [true]);
}

struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_delivery_can_be_awaited() {
    let (machine, log) = machine_and_log(TopicConfig::new());
    let delivery = log.producer().send(ProducerRecord::new("orders", b"1")).unwrap();
    let woken = Arc::new(Counted(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let mut delivery = pin!(delivery);
    assert!(delivery.as_mut().poll(&mut context).is_pending());

    machine.advance(Duration::from_millis(1));
    log.maintain();

    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Ok(metadata)) = delivery.as_mut().poll(&mut context) else { panic!("it was woken for nothing") };
    assert_eq!((metadata.topic(), metadata.partition(), metadata.offset()), ("orders", 0, Offset::ZERO));
}

#[test]
fn after_a_failed_sync_nothing_is_delivered_and_nothing_appended() {
    let (machine, log) = machine_and_log(TopicConfig::new().partitions(2));
    let producer = log.producer();
    let send = |partition| producer.send(ProducerRecord::new("orders", b"1").partition(partition));
    send(0).unwrap().wait().unwrap();
    let results = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&results);
    let callback = move |result: Result<_, _>| sink.lock().unwrap().push(result.is_ok());
    producer.send_with(ProducerRecord::new("orders", b"2").partition(0), callback).unwrap();
    let delivery = send(0).unwrap();
    machine.fail(Fault::new(Operation::Sync, 0).losing_pages());

    assert!(matches!(delivery.wait(), Err(Error::SyncFailed { .. })));
    assert!(matches!(delivery.wait(), Err(Error::SyncFailed { .. })), "a later sync would succeed, and prove nothing");
    assert_eq!(*results.lock().unwrap(), [false]);
    assert!(matches!(send(0), Err(Error::SyncFailed { .. })));
    assert!(matches!(producer.flush(), Err(Error::SyncFailed { .. })));
    assert_eq!(log.describe_topic("orders").unwrap().partitions[0].durable_end, Offset::new(1));
    send(1).unwrap().wait().unwrap();
    assert_eq!(read(&log).len(), 2, "what was durable, and the other partition");
}

#[test]
fn a_wait_that_runs_out_of_time_takes_nothing_back() {
    // Somebody else syncs, and is not done: only on real threads can the wait end first. Here the time is over before
    // it begins, and the thread that would do the sync itself does it.
    let (_machine, log) = machine_and_log(TopicConfig::new());
    let delivery = log.producer().send(ProducerRecord::new("orders", b"1")).unwrap();
    assert_eq!(delivery.wait_timeout(Duration::ZERO).unwrap().offset(), Offset::ZERO);
}

#[test]
fn a_batch_is_one_per_partition_and_tells_where_each_record_went() {
    let (_machine, log) = machine_and_log(TopicConfig::new().partitions(3));
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    let records = keys.iter().map(|key| ProducerRecord::new("orders", key).key(key));

    let metadata = log.producer().send_batch(records).unwrap().wait().unwrap();

    assert_eq!(metadata.len(), 20);
    let found = read(&log);
    for (key, metadata) in keys.iter().zip(&metadata) {
        let record = found
            .records(&metadata.topic_partition())
            .find(|record| record.offset() == metadata.offset())
            .unwrap_or_else(|| panic!("{key} is not where it was said to be"));
        assert_eq!(record.key(), Some(key.as_bytes()));
        assert_eq!(metadata.partition(), (tidelog::murmur2(key.as_bytes()) & 0x7fff_ffff) % 3);
    }
    assert!(log.producer().send_batch([]).unwrap().is_empty());
}

#[test]
fn a_topic_of_append_times_replaces_what_the_producer_says() {
    let (machine, log) =
        machine_and_log(TopicConfig::new().durability(Durability::Os).timestamp_type(TimestampType::Append));
    let record = ProducerRecord::new("orders", b"1").timestamp(Timestamp::from_millis(5));
    let metadata = log.producer().send(record).unwrap().wait().unwrap();

    assert_eq!(metadata.timestamp(), machine.now());
    let records = read(&log);
    let record = records.iter().next().unwrap();
    assert_eq!((record.timestamp(), record.timestamp_type()), (machine.now(), TimestampType::Append));
}

#[test]
fn a_panic_in_the_users_partitioner_leaves_the_record_unwritten_and_everybody_going_on() {
    let (_machine, log) = machine_and_log(TopicConfig::new().partitions(2));
    let partitioner =
        Partitioner::custom(|record, _| if record.key_bytes() == Some(b"bad") { panic!("planted") } else { 1 });
    let producer = log.producer_with(ProducerConfig::new().partitioner(partitioner));

    let panicked =
        panic::catch_unwind(AssertUnwindSafe(|| producer.send(ProducerRecord::new("orders", b"1").key(b"bad"))));

    assert!(panicked.is_err());
    producer.send(ProducerRecord::new("orders", b"2").key(b"good")).unwrap().wait().unwrap();
    let values: Vec<_> = read(&log).iter().map(|record| record.value().unwrap().to_vec()).collect();
    assert_eq!(values, [b"2"]);
}

#[test]
fn topics_appear_by_themselves_only_where_that_was_asked_for() {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().auto_create_topics(TopicConfig::new().partitions(4))).unwrap();
    log.producer().send(ProducerRecord::new("orders", b"1")).unwrap().wait().unwrap();
    assert_eq!(log.describe_topic("orders").unwrap().partitions.len(), 4);
    assert!(matches!(log.producer().send(ProducerRecord::new("a b", b"1")), Err(Error::InvalidTopic { .. })));
}

#[test]
fn a_producer_notices_added_partitions_and_a_topic_that_was_made_anew() {
    let (_machine, log) = machine_and_log(TopicConfig::new().durability(Durability::Os));
    let producer = log.producer_with(ProducerConfig::new().partitioner(Partitioner::RoundRobin));
    producer.send(ProducerRecord::new("orders", b"1")).unwrap();
    log.add_partitions("orders", 3).unwrap();
    let mut used: Vec<_> =
        (0..3).map(|_| producer.send(ProducerRecord::new("orders", b"1")).unwrap().partition()).collect();
    used.sort_unstable();
    assert_eq!(used, [0, 1, 2]);

    log.delete_topic("orders").unwrap();
    assert!(matches!(producer.send(ProducerRecord::new("orders", b"1")), Err(Error::UnknownTopic { .. })));
    log.create_topic("orders", TopicConfig::new()).unwrap();
    assert_eq!(producer.send(ProducerRecord::new("orders", b"1")).unwrap().offset(), Offset::ZERO);
}

#[test]
fn configuration_is_kept_and_can_be_changed() {
    let (machine, log) = machine_and_log(TopicConfig::new().partitions(2).durability(Durability::Os));
    let config = log.describe_topic("orders").unwrap().config;
    log.alter_topic("orders", config.durability(Durability::Sync).segment_bytes(8192).max_record_bytes(500)).unwrap();
    log.add_partitions("orders", 3).unwrap();
    let three = log.describe_topic("orders").unwrap().config;
    assert!(matches!(log.alter_topic("orders", three.clone().partitions(2)), Err(Error::InvalidPartitions { .. })));
    assert!(matches!(log.alter_topic("orders", three.segment_bytes(1)), Err(Error::InvalidConfig { .. })));

    for machine in [machine.kill(), machine.power_cut(PowerCut::LoseUnsynced)] {
        let log = machine.open(LogConfig::new().background(false)).unwrap();
        let config = log.describe_topic("orders").unwrap().config;
        assert_eq!(config, TopicConfig::new().partitions(3).segment_bytes(8192).max_record_bytes(500));
        let delivery = log.producer().send(ProducerRecord::new("orders", b"1")).unwrap();
        assert!(!delivery.is_delivered(), "it is a Sync topic now");
        assert!(log.producer().send(ProducerRecord::new("orders", &[0; 500])).is_err());
    }
}

#[test]
fn many_threads_share_a_sync_and_keep_their_own_order() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic("orders", TopicConfig::new()).unwrap();
    let producer = log.producer();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let producer = &producer;
            scope.spawn(move || {
                for n in 0..25u32 {
                    let value = [thread.to_le_bytes(), n.to_le_bytes()].concat();
                    producer.send(ProducerRecord::new("orders", &value)).unwrap().wait().unwrap();
                }
            });
        }
    });

    let records = read(&log);
    assert_eq!(records.len(), 200);
    let mut next = [0; 8];
    for record in &records {
        let (thread, n) = record.value().unwrap().split_at(4);
        let (thread, n) = (u32::from_le_bytes(thread.try_into().unwrap()), u32::from_le_bytes(n.try_into().unwrap()));
        assert_eq!(n, next[thread as usize]);
        next[thread as usize] += 1;
    }
}

#[test]
fn the_segments_that_an_os_topic_has_rolled_are_synced_behind_its_back() {
    let (machine, log) = machine_and_log(TopicConfig::new().durability(Durability::Os).segment_bytes(4096));
    machine.set_write_back(false);
    for n in 0..12u8 {
        log.producer().send(ProducerRecord::new("orders", &[n; 900])).unwrap();
    }
    log.maintain();
    assert_eq!(log.describe_topic("orders").unwrap().partitions[0].durable_end.get(), 0, "more may come");

    while let Some(due) = log.maintain() {
        machine.advance(due);
    }

    let durable = log.describe_topic("orders").unwrap().partitions[0].durable_end.get();
    assert!((4..12).contains(&durable), "{durable}");
    let lost = machine.power_cut(PowerCut::LoseUnsynced).open(LogConfig::new()).unwrap();
    assert_eq!(lost.describe_topic("orders").unwrap().partitions[0].log_end.get(), durable);
}

#[test]
fn what_is_sent_when_room_is_asked_for_is_synced_in_time_too() {
    let durability = Durability::Interval { every: Duration::from_millis(100), bytes: 64 << 20 };
    let (machine, log) = machine_and_log(TopicConfig::new().durability(durability));
    let rest = || {
        while let Some(due) = log.maintain() {
            machine.advance(due);
        }
        log.describe_topic("orders").unwrap().partitions[0].durable_end.get()
    };
    for n in 1..=60 {
        // Each alone; one of them is the first past the place from which on the worker prepares room.
        log.producer().send(ProducerRecord::new("orders", &[7; 10_000])).unwrap();
        assert_eq!(rest(), n);
    }
}

#[test]
fn a_sync_that_fails_while_room_is_prepared_is_told_to_all_who_wait() {
    let (machine, log) = machine_and_log(TopicConfig::new());
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut reader = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    reader.subscribe(["orders"]).unwrap();
    assert!(reader.poll(Duration::ZERO).unwrap().is_empty());
    for _ in 0..30 {
        let told = Arc::clone(&told);
        let done = move |result: tidelog::Result<_>| told.lock().unwrap().push(result.err());
        log.producer().send_with(ProducerRecord::new("orders", &[7; 10_000]), done).unwrap();
    }
    // At such a rate that blocks are worth preparing, and before the worker's own sync has come.
    machine.advance(Duration::from_millis(250));
    machine.fail(Fault::new(Operation::Sync, 0).forever());

    log.maintain();

    let told = told.lock().unwrap();
    assert_eq!(told.len(), 30);
    assert!(told.iter().all(|error| matches!(error, Some(Error::SyncFailed { .. }))), "{told:?}");
}
