//! What a topic keeps and what it does when it is full: Kafka's cases, groups, bounds, readers, and a machine that stops
//! anywhere.
#![cfg(feature = "sim")]

mod sweep;

use std::time::Duration;

use serde_json::Value;
use tidelog::sim::{Machine, Operation, PowerCut};
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, ProducerRecord, Retention,
    Timestamp, TopicConfig, TopicPartition, WhenFull,
};

use crate::sweep::Life;

const TOPIC: &str = "orders";
const NOW: Duration = Duration::ZERO;
/// Five of these fill a segment.
const VALUE_BYTES: usize = 700;

fn orders() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

fn open(machine: &Machine) -> EventLog {
    machine.open(LogConfig::new().background(false)).unwrap()
}

fn config() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096)
}

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(VALUE_BYTES, number as u8);
    value
}

fn send(log: &EventLog, count: u64) {
    let first = state(log).1;
    (first..first + count).for_each(|number| {
        log.producer().send(ProducerRecord::new(TOPIC, &value(number))).unwrap();
    });
    log.producer().flush().unwrap();
}

/// A log with a topic of this configuration and so many records.
fn log_with(machine: &Machine, config: TopicConfig, records: u64) -> EventLog {
    let log = open(machine);
    log.create_topic(TOPIC, config).unwrap();
    send(&log, records);
    log
}

/// Log start, log end, and how many segments there are.
fn state(log: &EventLog) -> (u64, u64, usize) {
    let partition = &log.describe_topic(TOPIC).unwrap().partitions[0];
    (partition.log_start.get(), partition.log_end.get(), partition.segments)
}

fn reader(log: &EventLog, reset: OffsetReset) -> Consumer {
    let mut reader = log.consumer(ConsumerConfig::new().auto_offset_reset(reset)).unwrap();
    reader.assign([orders()]).unwrap();
    reader
}

/// All that can be read, from the beginning: each must be as it was written.
fn read(log: &EventLog) -> Vec<u64> {
    let mut reader = reader(log, OffsetReset::None);
    reader.seek_to_beginning(&[]).unwrap();
    let mut offsets = Vec::new();
    loop {
        let records = reader.poll(NOW).unwrap();
        if records.is_empty() {
            return offsets;
        }
        for record in &records {
            assert_eq!(record.value(), Some(&value(record.offset().get())[..]));
            offsets.push(record.offset().get());
        }
    }
}

fn commit(log: &EventLog, group: &str, offset: u64) {
    let mut group = log.consumer(ConsumerConfig::group(group).auto_commit(false)).unwrap();
    group.assign([orders()]).unwrap();
    group.commit_offsets([(orders(), Offset::new(offset))]).unwrap();
}

/// Goes on until nothing is due any more.
fn idle(machine: &Machine, log: &EventLog) {
    while let Some(due) = log.maintain() {
        machine.advance(due);
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn case(id: &str) -> Value {
    let vectors: Value = serde_json::from_str(include_str!("vectors/retention_roll.json")).unwrap();
    let found = vectors["cases"].as_array().unwrap().iter().find(|case| case["id"] == id);
    found.unwrap_or_else(|| panic!("there is no case {id}")).clone()
}

#[test]
fn kafkas_cases_of_retention_by_size_and_time() {
    // By size: one unit is a segment of five records, without its header and the marker of its end.
    let segment = 128 + 5 * 752;
    for id in ["ret-size", "ret-size-under"] {
        let case = case(id);
        let units = case["retention_bytes"].as_str().unwrap().trim_end_matches('S').parse::<u64>().unwrap() / 5;
        let kept = config().retention(Retention::new().bytes(units * segment));
        let log = log_with(&Machine::new(1), kept, case["append"].as_u64().unwrap());
        log.apply_retention().unwrap();
        assert_eq!(state(&log).2 as u64, case["expect_segments_after"].as_u64().unwrap(), "{id}");
    }
    for id in ["ret-time", "ret-time-none"] {
        let case = case(id);
        let machine = Machine::new(1);
        let kept = Retention::new().time(ms(case["retention_ms"].as_u64().unwrap()));
        let log = log_with(&machine, config().retention(kept), 0);
        let timestamp = case["record_timestamp"].as_i64().unwrap_or(machine.now().as_millis());
        for number in 0..case["append"].as_u64().unwrap() {
            let (value, at) = (value(number), Timestamp::from_millis(timestamp));
            log.producer().send(ProducerRecord::new(TOPIC, &value).timestamp(at)).unwrap().wait().unwrap();
        }
        log.apply_retention().unwrap();
        let (start, end, segments) = state(&log);
        assert_eq!(segments as u64, case["expect_segments_after"].as_u64().unwrap(), "{id}");
        assert_eq!((start, end), (if segments == 1 { 15 } else { 0 }, 15), "{id}");
    }
}

#[test]
fn kafkas_cases_of_deleted_records() {
    let deletes = case("delete-records");
    let machine = Machine::new(2);
    let log = log_with(&machine, config(), deletes["append"].as_u64().unwrap());
    for step in deletes["steps"].as_array().unwrap() {
        let (before, start) = (step["delete_before"].as_u64().unwrap(), step["log_start"].as_u64().unwrap());
        assert_eq!(log.delete_records(&orders(), before).unwrap(), Offset::new(start));
        assert_eq!(state(&log), (start, 15, step["segments"].as_u64().unwrap() as usize), "{step}");
    }
    send(&log, 1);
    assert_eq!(read(&log), [15]);

    // seek-after-delete-records
    let log = log_with(&Machine::new(3), config(), 10);
    let mut consumer = reader(&log, OffsetReset::None);
    let beginning = |consumer: &mut Consumer| {
        consumer.seek_to_beginning(&[]).unwrap();
        consumer.position(&orders()).unwrap().get()
    };
    assert_eq!(beginning(&mut consumer), 0);
    assert_eq!(log.delete_records(&orders(), 5).unwrap(), Offset::new(5));
    assert_eq!(beginning(&mut consumer), 5);
    consumer.seek(&orders(), 7).unwrap();
    assert_eq!(consumer.position(&orders()).unwrap(), Offset::new(7));
    let end = consumer.end_offsets(&[orders()]).unwrap()[&orders()];
    log.delete_records(&orders(), end).unwrap();
    assert_eq!(beginning(&mut consumer), 10);

    // delete-records-error
    let log = log_with(&Machine::new(4), config(), 10);
    assert_eq!(log.delete_records(&orders(), 5).unwrap(), Offset::new(5));
    let error = log.delete_records(&orders(), 20).unwrap_err();
    assert_eq!(error.to_string(), "offset 20 of orders-0 is out of range: it holds 5..10");
    assert_eq!(log.delete_records(&orders(), 3).unwrap(), Offset::new(5), "what is gone already is no error");
    assert_eq!(state(&log).0, 5);
}

#[test]
fn a_deleted_beginning_is_no_damage_to_whoever_opens_verifies_or_repairs() {
    for before in [1, 5, 7, 10, 14, 15] {
        let machine = Machine::new(before);
        let log = log_with(&machine, config(), 15);
        log.delete_records(&orders(), before).unwrap();
        log.close().unwrap();
        let machine = machine.kill();
        assert_eq!(machine.verify().unwrap().findings, [], "{before}");
        assert!(machine.repair(false).unwrap().mends.is_empty(), "{before}");
        assert_eq!(machine.open_read_only().unwrap().recovery_report().damage, [], "{before}");
        let log = open(&machine);
        assert!(log.recovery_report().is_clean(), "{before}: {:?}", log.recovery_report());
        assert_eq!(read(&log), (before..15).collect::<Vec<_>>());
        send(&log, 3);
        assert_eq!(read(&log), (before..18).collect::<Vec<_>>());
        // What is missing behind it is damage all the same.
        log.close().unwrap();
        let machine = machine.kill();
        let first = machine.files().into_iter().find(|file| file.starts_with("topics/orders")).unwrap();
        machine.remove_file(&first);
        assert!(!machine.verify().unwrap().is_sound(), "{before}");
        let report = open(&machine).recovery_report().clone();
        assert_eq!(report.damage[0].offsets.start.get(), before, "{before}: {report:?}");
    }
}

#[test]
fn a_topic_keeps_so_many_records_and_no_limit_keeps_everything() {
    let log = log_with(&Machine::new(5), config().retention(Retention::new().records(12)), 29);
    let removed = log.apply_retention().unwrap();
    assert_eq!(state(&log).0, 15, "12 are kept, whole segments go");
    let [removed] = &removed[..] else { panic!("{removed:?}") };
    assert_eq!((removed.offsets.clone(), removed.segments), (Offset::new(0)..Offset::new(15), 3));
    assert_eq!(log.apply_retention().unwrap(), [], "nothing goes twice");

    let machine = Machine::new(5);
    let log = log_with(&machine, config(), 29);
    machine.advance(Duration::from_secs(100 * 365 * 24 * 3600));
    idle(&machine, &log);
    assert_eq!((log.apply_retention().unwrap(), state(&log).0), (vec![], 0));
}

#[test]
fn the_worker_looks_now_and_then_and_whoever_has_none_calls_maintain() {
    let day = Duration::from_secs(24 * 3600);
    for background in [true, false] {
        let machine = Machine::new(6);
        let log = machine.open(LogConfig::new().background(background)).unwrap();
        log.create_topic(TOPIC, config().retention(Retention::new().time(day))).unwrap();
        send(&log, 12);
        let wait = |by: Duration| if background { machine.sleep(by) } else { machine.advance(by) };
        let maintain = || if background { None } else { log.maintain() };
        wait(day / 2);
        assert!(background || maintain().is_some());
        assert_eq!(state(&log).0, 0);
        wait(day / 2 + Duration::from_secs(301));
        let due = maintain();
        assert_eq!(state(&log), (12, 12, 1), "background: {background}");
        assert!(background || due == Some(Duration::from_secs(300)), "{due:?}");
        assert!(log.retention_report().rounds >= 2);
        assert_eq!(log.retention_report().records, 12);
    }
}

#[test]
fn what_a_topic_keeps_survives_an_opening_and_can_be_changed() {
    let machine = Machine::new(7);
    let kept = config().retention(Retention::new().records(5).until_committed_by(["b", "a"]));
    let log = log_with(&machine, kept.clone().max_bytes(Some(1 << 20), WhenFull::Wait(ms(5))), 20);
    log.close().unwrap();
    let machine = machine.kill();
    let log = open(&machine);
    let found = log.describe_topic(TOPIC).unwrap().config;
    assert_eq!(found, kept.max_bytes(Some(1 << 20), WhenFull::Wait(ms(5))));
    let wider = found.clone().retention(Retention::new().records(5));
    let plan = log.plan_retention(TOPIC, &wider).unwrap();
    assert_eq!((plan[0].offsets.end.get(), state(&log).0), (15, 0), "a plan removes nothing");
    log.alter_topic(TOPIC, wider).unwrap();
    assert_eq!(log.apply_retention().unwrap(), plan);
}

#[test]
fn one_record_from_the_future_keeps_its_segment_and_those_behind_it() {
    let machine = Machine::new(9);
    let log = log_with(&machine, config().retention(Retention::new().time(Duration::from_secs(60))), 7);
    let far = Timestamp::from_millis(machine.now().as_millis() + 3_600_000);
    log.producer().send(ProducerRecord::new(TOPIC, &value(7)).timestamp(far)).unwrap().wait().unwrap();
    send(&log, 7);
    // It began a segment of its own: it is more than a minute later than what was there.
    machine.advance(Duration::from_secs(600));
    log.apply_retention().unwrap();
    assert_eq!(state(&log).0, 7);
    machine.advance(Duration::from_secs(3600));
    log.apply_retention().unwrap();
    assert_eq!(state(&log).0, 15);
}

#[test]
fn a_queue_keeps_what_a_group_has_not_committed_and_nothing_else() {
    let machine = Machine::new(10);
    let log = log_with(&machine, config().retention(Retention::new().until_committed_by(["billing", "audit"])), 20);
    let kept = |log: &EventLog| {
        log.apply_retention().unwrap();
        state(log).0
    };
    assert_eq!(kept(&log), 0);
    commit(&log, "billing", 20);
    assert_eq!(kept(&log), 0, "the other has committed nothing");
    commit(&log, "audit", 9);
    assert_eq!(kept(&log), 5);
    commit(&log, "audit", 20);
    assert_eq!(kept(&log), 20, "the segment that is appended to goes too");
    send(&log, 6);
    assert_eq!((kept(&log), read(&log)), (20, (20..26).collect()));

    // With limits, the limits ask and the groups allow.
    let limits = Retention::new().records(8).until_committed_by(["billing"]);
    let log = log_with(&Machine::new(11), config().retention(limits), 20);
    assert_eq!(kept(&log), 0);
    commit(&log, "billing", 7);
    assert_eq!(kept(&log), 5);
    commit(&log, "billing", 20);
    assert_eq!(kept(&log), 10, "8 are kept whatever is committed");
}

#[test]
fn a_power_cut_that_takes_a_commit_has_left_the_records_that_it_would_have_let_go() {
    for how in PowerCut::ALL {
        let machine = Machine::new(12);
        machine.set_write_back(false);
        let options = LogConfig::new().background(false).commit_durability(Durability::Os);
        let log = machine.open(options.clone()).unwrap();
        log.create_topic(TOPIC, config().retention(Retention::new().until_committed_by(["billing"]))).unwrap();
        send(&log, 20);
        commit(&log, "billing", 17);
        log.apply_retention().unwrap();
        let start = state(&log).0;
        assert_eq!(start, 15);

        let machine = machine.power_cut(how);

        let again = machine.open(options.clone()).unwrap();
        let committed = again.describe_group("billing").unwrap().offsets[0].committed;
        assert!(committed >= Some(Offset::new(start)), "{how:?}: {committed:?}");
        drop(log);
    }
}

#[test]
fn commits_that_cannot_be_read_keep_everything() {
    let machine = Machine::new(13);
    let log = log_with(&machine, config().retention(Retention::new().until_committed_by(["billing"])), 20);
    commit(&log, "billing", 4);
    commit(&log, "billing", 17);
    log.close().unwrap();
    let machine = machine.kill();
    let file = machine.files().into_iter().find(|file| file.starts_with("groups/billing")).unwrap();
    machine.flip_bit(&file, 8 * 300);
    let log = open(&machine);
    assert_eq!((log.apply_retention().unwrap(), state(&log).0), (vec![], 0));
    commit(&log, "billing", 17);
    log.apply_retention().unwrap();
    assert_eq!(state(&log).0, 15);
}

#[test]
fn a_slow_consumer_is_told_what_it_lost_or_it_is_counted() {
    let machine = Machine::new(14);
    let log = log_with(&machine, config(), 20);
    let mut strict = reader(&log, OffsetReset::None);
    let mut lenient = reader(&log, OffsetReset::Earliest);
    let mut latest = reader(&log, OffsetReset::Latest);
    for consumer in [&mut strict, &mut lenient, &mut latest] {
        consumer.seek(&orders(), 3).unwrap();
    }
    commit(&log, "slow", 3);
    let held = strict.poll(NOW).unwrap();
    strict.seek(&orders(), 3).unwrap();

    log.delete_records(&orders(), 12).unwrap();

    assert_eq!(held.len(), 17, "what was polled stays readable");
    assert!(held.iter().all(|record| record.value() == Some(&value(record.offset().get())[..])));
    for _ in 0..2 {
        let error = strict.poll(NOW).unwrap_err();
        assert_eq!(error.to_string(), "offset 3 of orders-0 is out of range: it holds 12..20");
    }
    assert_eq!(strict.skipped(&orders()).unwrap(), 0);
    assert_eq!(lenient.poll(NOW).unwrap().iter().next().unwrap().offset(), Offset::new(12));
    assert_eq!(lenient.skipped(&orders()).unwrap(), 9);
    assert!(latest.poll(NOW).unwrap().is_empty());
    assert_eq!(latest.skipped(&orders()).unwrap(), 17);
    let offset = &log.describe_group("slow").unwrap().offsets[0];
    assert_eq!((offset.lost, offset.lag), (9, 17));
}

#[test]
fn a_reader_in_another_process_sees_the_beginning_move_and_takes_it_for_no_damage() {
    let machine = Machine::new(15);
    let log = log_with(&machine, config(), 20);
    // What a reader beside sees of a `Sync` topic is what later batches or a marker prove.
    idle(&machine, &log);
    let beside = machine.open_read_only().unwrap();
    let mut late = reader(&beside, OffsetReset::Earliest);
    let mut strict = reader(&beside, OffsetReset::None);
    strict.seek(&orders(), 0).unwrap();
    strict.seek(&orders(), 6).unwrap();
    late.seek(&orders(), 0).unwrap();

    log.delete_records(&orders(), 12).unwrap();

    assert_eq!(late.poll(NOW).unwrap().iter().next().unwrap().offset(), Offset::new(12));
    assert!(matches!(strict.poll(NOW), Err(Error::OffsetOutOfRange { start, .. }) if start == Offset::new(12)));
    // All of it goes, and the log goes on in another segment.
    log.delete_records(&orders(), 20).unwrap();
    send(&log, 7);
    idle(&machine, &log);
    let records = late.poll(NOW).unwrap();
    assert_eq!(records.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), (20..27).collect::<Vec<_>>());
    assert_eq!(state(&beside).0, 20);
    assert_eq!(machine.open_read_only().unwrap().recovery_report().damage, []);
}

#[test]
fn a_full_partition_refuses_by_name_and_goes_on_once_there_is_room() {
    let machine = Machine::new(16);
    let log = log_with(&machine, config().max_bytes(Some(3 * 4096), WhenFull::Refuse), 15);
    let try_send = || log.producer().send(ProducerRecord::new(TOPIC, &value(state(&log).1))).map(drop);
    let error = try_send().unwrap_err();
    assert!(error.is_retriable());
    assert_eq!(
        error.to_string(),
        "orders-0 is full: its segments take 12288 bytes, and one more step would be over `partition.max.bytes`, 12288; \
         delete records, let the groups commit that hold them, raise the limit, or choose another `when.full`"
    );
    assert_eq!(state(&log), (0, 15, 3));
    log.delete_records(&orders(), 5).unwrap();
    (0..5).for_each(|_| try_send().unwrap());
    assert!(matches!(try_send(), Err(Error::PartitionFull { .. })));
    // Retention makes room, a higher limit does, and an opening changes nothing.
    log.alter_topic(TOPIC, config().max_bytes(Some(4 * 4096), WhenFull::Refuse)).unwrap();
    try_send().unwrap();
    log.producer().flush().unwrap();
    log.alter_topic(TOPIC, config().max_bytes(Some(2 * 4096), WhenFull::Refuse)).unwrap();
    (0..4).for_each(|_| try_send().unwrap());
    assert!(matches!(try_send(), Err(Error::PartitionFull { bytes: 16384, limit: 8192, .. })));
    log.close().unwrap();
    let machine = machine.kill();
    let log = open(&machine);
    let refused = log.producer().send(ProducerRecord::new(TOPIC, &value(0)));
    assert!(matches!(refused, Err(Error::PartitionFull { limit: 8192, .. })), "{refused:?}");
    assert_eq!(read(&log), (5..25).collect::<Vec<_>>());
}

#[test]
fn a_full_partition_drops_its_oldest_segments_and_takes_no_more_of_the_disk_than_it_may() {
    for durability in [Durability::Sync, Durability::Os] {
        let machine = Machine::new(17);
        let bounded = config().durability(durability).max_bytes(Some(3 * 4096), WhenFull::DropOldest);
        let log = log_with(&machine, bounded, 0);
        for number in 0..200 {
            log.producer().send(ProducerRecord::new(TOPIC, &value(number))).unwrap();
            let files = machine.files();
            let segments = files.iter().filter(|file| file.starts_with("topics/orders"));
            let bytes: usize = segments.map(|file| machine.read_file(file).len()).sum();
            assert!(bytes <= 3 * 4096, "{bytes} bytes after {number} records");
            let (start, end, _) = state(&log);
            assert!(end - start >= 10.min(end), "{start}..{end}");
        }
        log.producer().flush().unwrap();
        assert_eq!(read(&log), (185..200).collect::<Vec<_>>());
        assert_eq!(log.retention_report().records, 185);
        let machine = machine.kill();
        assert_eq!(read(&open(&machine)), (185..200).collect::<Vec<_>>());
        drop(log);
    }
}

#[test]
fn a_sender_waits_for_room_as_long_as_its_topic_says() {
    let machine = Machine::new(18);
    let queue = config().retention(Retention::new().until_committed_by(["billing"]));
    let log = log_with(&machine, queue.max_bytes(Some(3 * 4096), WhenFull::Wait(ms(500))), 15);
    let try_send = || log.producer().send(ProducerRecord::new(TOPIC, &value(state(&log).1))).map(drop);
    let before = machine.now();
    assert!(matches!(try_send(), Err(Error::PartitionFull { .. })));
    assert_eq!(machine.now().as_millis() - before.as_millis(), 500);
    // What is committed makes room at once, without a round of retention.
    commit(&log, "billing", 7);
    let before = machine.now();
    (0..5).for_each(|_| try_send().unwrap());
    assert_eq!((machine.now(), state(&log).0), (before, 5));
    assert!(try_send().is_err());
}

#[test]
fn a_sender_that_waits_goes_on_when_another_thread_commits() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    let queue = config().retention(Retention::new().until_committed_by(["billing"]));
    log.create_topic(TOPIC, queue.max_bytes(Some(3 * 4096), WhenFull::Wait(Duration::from_secs(60)))).unwrap();
    std::thread::scope(|scope| {
        let (log, all) = (&log, 100);
        scope.spawn(move || (0..all).for_each(|_| send(log, 1)));
        scope.spawn(move || {
            let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::None).auto_commit(false);
            let mut consumer = log.consumer(config).unwrap();
            consumer.assign([orders()]).unwrap();
            consumer.seek(&orders(), 0).unwrap();
            let mut next = 0;
            while next < all {
                for record in &consumer.poll(Duration::from_secs(60)).unwrap() {
                    assert_eq!((record.offset().get(), record.value()), (next, Some(&value(next)[..])));
                    next += 1;
                }
                consumer.commit().unwrap();
            }
        });
    });
    assert!(state(&log).0 >= 85, "{:?}", state(&log));
}

#[test]
fn readers_go_on_while_segments_are_removed_under_them() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    let bounded = config().durability(Durability::Os).max_bytes(Some(3 * 4096), WhenFull::DropOldest);
    log.create_topic(TOPIC, bounded).unwrap();
    let all = 1500;
    std::thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || {
            (0..all).for_each(|number| drop(log.producer().send(ProducerRecord::new(TOPIC, &value(number))).unwrap()));
        });
        for _ in 0..2 {
            scope.spawn(move || {
                let mut reader = reader(log, OffsetReset::Earliest);
                reader.seek(&orders(), 0).unwrap();
                let (mut next, mut read) = (0, 0);
                while next < all {
                    for record in &reader.poll(Duration::from_secs(60)).unwrap() {
                        let offset = record.offset().get();
                        assert!(offset >= next, "{offset} behind {next}");
                        assert_eq!(record.value(), Some(&value(offset)[..]));
                        (next, read) = (offset + 1, read + 1);
                    }
                }
                assert_eq!(read + reader.skipped(&orders()).unwrap(), all, "each was read or counted as lost");
            });
        }
    });
    assert_eq!(state(&log).2, 3);
}

#[test]
fn settings_that_contradict_one_another_are_refused() {
    let log = open(&Machine::new(19));
    let groups = Retention::new().until_committed_by(["billing"]);
    for (config, message) in [
        (
            config().max_bytes(Some(8191), WhenFull::Refuse),
            "invalid `partition.max.bytes`: 8191 is less than two segments, 8192; room is made by a segment at a time",
        ),
        (
            config().max_bytes(Some(8192), WhenFull::DropOldest).retention(groups),
            "invalid `when.full`: `drop-oldest` contradicts keeping what billing did not commit",
        ),
        (
            config().retention(Retention::new().until_committed_by(["a,b"])),
            "invalid `retention.groups`: \"a,b\" cannot be named here: a group's name is not empty, and has no comma",
        ),
        (config().segment_age(Some(Duration::ZERO)), "invalid `segment.ms`: it is at least 1; -1 is no limit"),
    ] {
        assert_eq!(log.create_topic(TOPIC, config).unwrap_err().to_string(), message);
    }
    for (name, value) in
        [("retention.ms", "soon"), ("retention.bytes", "-2"), ("when.full", "burst"), ("when.full", "wait:5")]
    {
        assert!(matches!(config().set(name, value), Err(Error::InvalidConfig { .. })), "{name}={value}");
    }
    let said = [
        ("retention.ms", "5"),
        ("retention.groups", "b,a"),
        ("when.full", "wait:7ms"),
        ("partition.max.bytes", "9000"),
        ("segment.ms", "9223372036854775807"),
        ("message.timestamp.after.max.ms", "3600000"),
    ];
    let set = said.iter().fold(config(), |config, (name, value)| config.set(name, value).unwrap());
    let meant = config()
        .retention(Retention::new().time(ms(5)).until_committed_by(["a", "b"]))
        .max_bytes(Some(9000), WhenFull::Wait(ms(7)))
        .timestamp_after_max(Some(ms(3_600_000)));
    assert_eq!(set, meant);
    let again = set.entries().iter().fold(TopicConfig::new(), |config, (name, value)| config.set(name, value).unwrap());
    assert_eq!(again, set);
}

/// What the users of the log were told: how far it reached, and where it begins at least and at most.
#[derive(Clone, Debug, Default)]
struct Told {
    sent: u64,
    promised: u64,
    deleted: u64,
    asked: u64,
}

impl Life for Told {
    type Kind = Durability;

    const ONE_IN: u64 = 12;

    /// Segments are rolled, removed by retention and by hand, and all of them at once.
    fn live(&mut self, durability: Durability, machine: &Machine) -> Result<(), Error> {
        let dead = || machine.has_crashed();
        let log = machine.open(LogConfig::new().background(false))?;
        match log.create_topic(TOPIC, config().durability(durability).retention(Retention::new().records(7))) {
            Err(Error::TopicExists { .. }) => {}
            created => created?,
        }
        for round in 0..3 {
            for _ in 0..8 {
                let number = log.describe_topic(TOPIC)?.partitions[0].log_end.get();
                let delivery = log.producer().send(ProducerRecord::new(TOPIC, &value(number)))?;
                if !dead() {
                    assert_eq!(delivery.offset().get(), number);
                    self.sent = self.sent.max(number + 1);
                }
            }
            log.producer().flush()?;
            if !dead() && durability == Durability::Sync {
                self.promised = self.sent;
            }
            let (start, end) = {
                let partition = &log.describe_topic(TOPIC)?.partitions[0];
                (partition.log_start.get(), partition.high_watermark.get())
            };
            let before = [start + 3, (start + 6).min(end), end][round];
            self.asked = self.asked.max(before);
            let done = log.delete_records(&orders(), before)?;
            if !dead() {
                self.deleted = self.deleted.max(done.get());
            }
            self.asked = self.asked.max(end);
            log.apply_retention()?;
            if !dead() {
                self.deleted = self.deleted.max(log.describe_topic(TOPIC)?.partitions[0].log_start.get());
            }
        }
        log.close()
    }

    fn check(&mut self, log: &EventLog, case: &str) {
        if log.list_topics().is_empty() {
            assert_eq!((self.promised, self.deleted), (0, 0), "{case}: the topic is gone");
            return;
        }
        let (start, end, _) = state(log);
        assert!(start >= self.deleted, "{case}: {start}: deleted records are back, {self:?}");
        assert!(start <= self.asked, "{case}: {start}: kept records are gone, {self:?}");
        assert!(end >= self.promised.max(self.deleted) && end <= self.sent, "{case}: the end is {end}, {self:?}");
        assert_eq!(read(log), (start..end).collect::<Vec<_>>(), "{case}");
        *self = Told { sent: end, promised: end, deleted: start, asked: start };
    }
}

#[test]
fn the_last_segment_goes_only_once_the_name_of_the_next_is_durable() {
    for (seed, how) in (0..20).flat_map(|seed| PowerCut::ALL.map(|how| (seed, how))) {
        // When the last file goes, in a life in which nothing goes wrong.
        let twin = Machine::new(seed);
        log_with(&twin, config(), 7).delete_records(&orders(), 7).unwrap();
        let gone = twin.trace().iter().rposition(|(operation, _)| *operation == Operation::Remove).unwrap();

        let machine = Machine::new(seed);
        let log = log_with(&machine, config(), 7);
        machine.crash_at(gone as u64 + 1);
        log.delete_records(&orders(), 7).unwrap_err();

        let again = open(&machine.power_cut(how));
        assert!(again.recovery_report().is_clean(), "seed {seed}, {how:?}: {:?}", again.recovery_report());
        assert_eq!((state(&again).0, state(&again).1), (7, 7), "seed {seed}, {how:?}");
        drop(log);
    }
}

#[test]
fn wherever_the_machine_stops_deleted_records_stay_deleted_and_kept_ones_kept() {
    sweep::stop_everywhere::<Told>(&[Durability::Sync, Durability::Os]);
}

#[test]
fn whatever_operation_fails_deleted_records_stay_deleted_and_kept_ones_kept() {
    sweep::fail_everywhere::<Told>(Durability::Sync, 220);
}
