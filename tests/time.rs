//! Records by their timestamps: Kafka's cases, a plain model, and what a lookup reads.
#![cfg(feature = "sim")]

use std::os::unix::fs::FileExt;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tidelog::sim::{Machine, PowerCut};
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, ProducerRecord, Timestamp,
    TimestampType, TopicConfig, TopicPartition,
};

const TOPIC: &str = "orders";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn name(partition: u32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

fn open(machine: &Machine) -> EventLog {
    machine.open(LogConfig::new().background(false)).unwrap()
}

/// A topic whose segments hold a few records each.
fn config() -> TopicConfig {
    TopicConfig::new().durability(Durability::Os).segment_bytes(4096)
}

fn send(log: &EventLog, partition: u32, millis: i64) {
    let value = [7; 300];
    let record = ProducerRecord::new(TOPIC, &value).partition(partition).timestamp(at(millis));
    log.producer().send(record).unwrap();
}

fn consumer(log: &EventLog) -> Consumer {
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::None)).unwrap();
    consumer.assign([name(0)]).unwrap();
    consumer
}

/// The offset and the timestamp that a lookup finds.
fn since(log: &EventLog, partition: u32, millis: i64) -> Option<(u64, i64)> {
    let found = consumer(log).offsets_for_times([(name(partition), at(millis))]).unwrap();
    found[&name(partition)].map(|found| (found.offset.get(), found.timestamp.as_millis()))
}

fn latest(log: &EventLog) -> Option<(u64, i64)> {
    let found = consumer(log).offsets_of_latest_timestamps(&[name(0)]).unwrap();
    found[&name(0)].map(|found| (found.offset.get(), found.timestamp.as_millis()))
}

fn millis(value: &Value) -> i64 {
    match value.as_str() {
        Some("T") => 1_000,
        Some("T+1") => 1_001,
        _ => value.as_i64().unwrap(),
    }
}

/// The timestamps of a case, by offset; the case says its log as a list, or in words.
fn timestamps(case: &Value) -> Vec<i64> {
    match (case["id"].as_str().unwrap(), &case["log"]) {
        (_, Value::Array(records)) => records.iter().map(|record| millis(&record["timestamp"])).collect(),
        ("oft-per-partition", _) => (0..100).collect(),
        ("max-ts-separate-batches", _) => vec![100, 999, 200],
        (id, log) => panic!("{id}: {log}"),
    }
}

#[test]
fn kafkas_cases_of_lookups_by_time() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/offsets_for_times.json")).unwrap();
    let mut queries = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        if id == "max-ts-logappend-separate" {
            // The next test: its timestamps are not the sender's.
            continue;
        }
        let machine = Machine::new(1);
        let log = open(&machine);
        log.create_topic(TOPIC, config().partitions(2)).unwrap();
        // The logs of Kafka's cases begin where they like; ours at 0.
        let base = case["log"].get(0).map_or(0, |first| first["offset"].as_u64().unwrap());
        for partition in 0..2 {
            timestamps(case).into_iter().for_each(|millis| send(&log, partition, millis));
        }
        for query in case["queries"].as_array().unwrap() {
            let partition = query["partition"].as_u64().unwrap_or(0) as u32;
            let expected = query["offset"].as_i64().filter(|offset| *offset >= 0).map(|offset| offset as u64 - base);
            if query["error"] == "IllegalArgument" {
                let error = consumer(&log).offsets_for_times([(name(partition), at(millis(&query["ts"])))]);
                assert!(matches!(error, Err(Error::InvalidTimestamp { .. })), "{id}: {error:?}");
                queries += 1;
                continue;
            }
            let found = match query["special"].as_str() {
                None => since(&log, partition, millis(&query["ts"])),
                Some("max_timestamp") => latest(&log),
                Some("earliest") => Some((consumer(&log).beginning_offsets(&[name(0)]).unwrap()[&name(0)].get(), -1)),
                Some("latest") => Some((consumer(&log).end_offsets(&[name(0)]).unwrap()[&name(0)].get(), -1)),
                Some(special) => panic!("{id}: {special}"),
            };
            assert_eq!(found.map(|(offset, _)| offset), expected, "{id}: {query}");
            if let (Some(said), Some((_, shown))) = (query["timestamp"].as_i64(), found) {
                assert_eq!(shown, said, "{id}: {query}");
            }
            queries += 1;
        }
    }
    assert_eq!(queries, 19, "some queries are not asked");
}

#[test]
fn the_latest_of_append_times_is_the_last() {
    let machine = Machine::new(1);
    let log = open(&machine);
    log.create_topic(TOPIC, config().timestamp_type(TimestampType::Append)).unwrap();
    for _ in 0..3 {
        machine.advance(Duration::from_millis(10));
        send(&log, 0, 77);
    }
    assert_eq!(latest(&log), Some((2, machine.now().as_millis())));
    assert_eq!(since(&log, 0, machine.now().as_millis() - 5), Some((2, machine.now().as_millis())));
}

/// What a lookup must find: the first by its offset.
fn model_since(timestamps: &[i64], start: usize, since: i64) -> Option<(u64, i64)> {
    let found = timestamps.iter().enumerate().skip(start).find(|(_, millis)| **millis >= since);
    found.map(|(offset, millis)| (offset as u64, *millis))
}

fn model_latest(timestamps: &[i64], start: usize) -> Option<(u64, i64)> {
    let latest = timestamps.iter().skip(start).max()?;
    model_since(timestamps, start, *latest)
}

/// Mostly rising, often equal, now and then of a far past or future.
fn times() -> impl Strategy<Value = Vec<i64>> {
    let one = prop_oneof![
        6 => (0..20i64).prop_map(|by| (true, by)),
        3 => Just((true, 0)),
        1 => (0..100_000i64).prop_map(|millis| (false, millis)),
        1 => prop_oneof![Just((false, 0)), Just((false, i64::MAX)), Just((false, 1))],
    ];
    prop::collection::vec(one, 0..120).prop_map(|steps| {
        let mut now = 1000;
        let mut next = |(relative, millis)| {
            now += if relative { millis } else { 0 };
            if relative { now } else { millis }
        };
        steps.into_iter().map(&mut next).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn lookups_find_what_a_scan_finds_whatever_the_order_of_the_timestamps(
        seed in any::<u64>(),
        times in times(),
        batch in 1..5usize,
        asked in prop::collection::vec(0..2000i64, 8),
        cut in 0..6usize,
    ) {
        let machine = Machine::new(seed);
        let log = open(&machine);
        let segment_bytes = if seed.is_multiple_of(2) { 4096 } else { 1 << 16 };
        log.create_topic(TOPIC, config().segment_bytes(segment_bytes)).unwrap();
        for times in times.chunks(batch) {
            let values: Vec<_> = times.iter().map(|millis| vec![3u8; 40 + (millis % 400) as usize]).collect();
            let records = times.iter().zip(&values).map(|(millis, value)| ProducerRecord::new(TOPIC, value).timestamp(at(*millis)));
            log.producer().send_batch(records).unwrap();
        }
        let edges = times.iter().flat_map(|millis| [*millis, millis.saturating_add(1), (millis - 1).max(0)]);
        let asked: Vec<i64> = asked.into_iter().chain(edges).collect();
        // As they were appended, as they are read after an opening, and after a power cut took some and the log went on.
        let check = |log: &EventLog, times: &[i64], when: &str| {
            for millis in &asked {
                assert_eq!(since(log, 0, *millis), model_since(times, 0, *millis), "{when}: since {millis} of {times:?}");
            }
            assert_eq!(latest(log), model_latest(times, 0), "{when}: of {times:?}");
        };
        check(&log, &times, "appended");
        log.close().unwrap();
        let machine = machine.kill();
        let log = open(&machine);
        assert_eq!(latest(&log), model_latest(&times, 0), "opened");
        check(&log, &times, "opened");
        // So many that whole stretches of them are cut.
        for _ in 0..40 {
            send(&log, 0, 50_000);
        }
        let mut all = times.clone();
        all.extend([50_000; 40]);
        let machine = machine.power_cut(PowerCut::ALL[cut]);
        drop(log);
        let log = open(&machine);
        let end = log.describe_topic(TOPIC).unwrap().partitions[0].log_end.get() as usize;
        check(&log, &all[..end], "after a power cut");
    }
}

#[test]
fn a_lookup_in_a_segment_that_was_read_before_reads_the_pages_around_the_record_and_no_others() {
    // Of real files, because a mapped one shows what somebody else writes to it.
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path()).unwrap();
    log.create_topic(TOPIC, config().segment_bytes(1 << 20)).unwrap();
    (0..4000).for_each(|millis| send(&log, 0, millis * 10));
    log.close().unwrap();
    let log = EventLog::open_read_only(dir.path()).unwrap();
    // The first lookups read the segment.
    assert_eq!(since(&log, 0, 2000 * 10), Some((2000, 20_000)));
    assert_eq!(since(&log, 0, 2900 * 10), Some((2900, 29_000)));

    // From here on, whoever walks over another place finds no batch there.
    let batch_bytes = 352_u64;
    let middle = 128 + 2000 * batch_bytes;
    let file = dir.path().join("topics/orders/0/00000000000000000000.log");
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    for at in (0..2950).map(|batch| 128 + batch * batch_bytes).filter(|at| middle.abs_diff(*at) > 3 * 4096) {
        file.write_all_at(&[0xff; 4], at).unwrap();
    }

    assert_eq!(since(&log, 0, 2000 * 10), Some((2000, 20_000)));
    assert_eq!(since(&log, 0, 2000 * 10 - 9), Some((2000, 20_000)));
    assert_ne!(since(&log, 0, 2900 * 10), Some((2900, 29_000)), "the other places are readable");
}

#[test]
fn what_was_there_when_the_log_was_opened_is_found_in_front_of_what_came_since() {
    for records in [3, 700, 2500] {
        let machine = Machine::new(12);
        let log = open(&machine);
        log.create_topic(TOPIC, config().segment_bytes(1 << 20)).unwrap();
        (0..records).for_each(|millis| send(&log, 0, millis * 10));
        log.close().unwrap();
        let machine = machine.kill();
        // The newest segment is not looked into when the log is opened, and goes on.
        let log = open(&machine);
        send(&log, 0, 40_000);

        for found in [1, records / 2, records - 1] {
            assert_eq!(since(&log, 0, found * 10 - 1), Some((found as u64, found * 10)), "of {records}");
        }
        assert_eq!(since(&log, 0, records * 10), Some((records as u64, 40_000)));
        assert_eq!(latest(&log), Some((records as u64, 40_000)));
    }
}

#[test]
fn what_comes_after_an_opening_is_found_behind_a_beginning_that_was_deleted() {
    for (records, deleted) in [(3, 1), (3, 3), (12, 12)] {
        let machine = Machine::new(13);
        let log = open(&machine);
        log.create_topic(TOPIC, config()).unwrap();
        (0..records).for_each(|millis| send(&log, 0, millis * 10));
        log.delete_records(&name(0), deleted as u64).unwrap();
        log.close().unwrap();
        let machine = machine.kill();
        let log = open(&machine);
        send(&log, 0, 40_000);

        assert_eq!(since(&log, 0, 30_000), Some((records as u64, 40_000)), "{deleted} of {records}");
    }
}

#[test]
fn only_what_consumers_may_see_is_found() {
    let machine = Machine::new(6);
    let log = open(&machine);
    log.create_topic(TOPIC, config().durability(Durability::Sync)).unwrap();
    (0..5).for_each(|millis| send(&log, 0, millis));
    assert_eq!((since(&log, 0, 0), latest(&log)), (None, None), "nothing is on the disk yet");
    log.producer().flush().unwrap();
    (5..40).for_each(|millis| send(&log, 0, millis));
    assert_eq!((since(&log, 0, 4), since(&log, 0, 5), latest(&log)), (Some((4, 4)), None, Some((4, 4))));
    log.producer().flush().unwrap();
    assert_eq!((since(&log, 0, 5), latest(&log)), (Some((5, 5)), Some((39, 39))));
}

#[test]
fn a_lookup_steps_over_damage_and_finds_what_can_be_read() {
    let machine = Machine::new(7);
    let log = open(&machine);
    log.create_topic(TOPIC, config()).unwrap();
    (0..40).for_each(|millis| send(&log, 0, millis));
    log.close().unwrap();
    let machine = machine.kill();
    machine.flip_bit("topics/orders/0/00000000000000000000.log", (128 + 352 * 3 + 60) * 8);
    machine.remove_file("topics/orders/0/00000000000000000011.log");
    let log = open(&machine);
    assert_eq!(since(&log, 0, 2), Some((2, 2)));
    assert_eq!(since(&log, 0, 3), Some((4, 4)), "3 is damaged");
    assert_eq!(since(&log, 0, 11), Some((22, 22)), "11 to 21 are gone");
    assert_eq!(latest(&log), Some((39, 39)));
}

#[test]
fn a_consumer_begins_by_time_by_a_call_or_by_its_reset_policy() {
    let machine = Machine::new(8);
    let log = open(&machine);
    log.create_topic(TOPIC, config()).unwrap();
    let start = machine.now().as_millis();
    for _ in 0..10 {
        send(&log, 0, machine.now().as_millis());
        machine.advance(Duration::from_secs(60));
    }
    let mut consumer = consumer(&log);
    consumer.seek_to_time(&[], at(start + 150_000)).unwrap();
    assert_eq!(consumer.position(&name(0)).unwrap(), Offset::new(3));
    consumer.seek_to_time(&[name(0)], at(start + 10_000_000)).unwrap();
    assert_eq!(consumer.position(&name(0)).unwrap(), Offset::new(10), "there is none so late");
    assert!(matches!(consumer.seek_to_time(&[], at(-1)), Err(Error::InvalidTimestamp { .. })));
    assert!(matches!(consumer.seek_to_time(&[name(7)], at(0)), Err(Error::NotAssigned { .. })));

    for (minutes, expected) in [(5u64, 5u64), (0, 10), (10, 0), (u64::MAX / 60, 0)] {
        let policy = OffsetReset::ByDuration(Duration::from_secs(minutes * 60));
        let mut late = log.consumer(ConsumerConfig::new().auto_offset_reset(policy)).unwrap();
        late.assign([name(0)]).unwrap();
        assert_eq!(late.position(&name(0)).unwrap(), Offset::new(expected), "{minutes} minutes ago");
        late.seek(&name(0), Offset::new(99)).unwrap();
        let first = late.poll(Duration::ZERO).unwrap().iter().next().map(|record| record.offset().get());
        assert_eq!(first, (expected < 10).then_some(expected), "{minutes} minutes ago, out of range");
    }
}

#[test]
fn a_timestamp_outside_of_the_window_of_its_topic_is_refused() {
    let machine = Machine::new(9);
    let log = open(&machine);
    let hour = Duration::from_secs(3600);
    let window = config().timestamp_before_max(Some(hour)).timestamp_after_max(Some(hour));
    log.create_topic(TOPIC, window.clone()).unwrap();
    let now = machine.now().as_millis();
    let try_send = |millis| log.producer().send(ProducerRecord::new(TOPIC, b"1").timestamp(at(millis))).map(drop);
    for allowed in [now, now - 3_600_000, now + 3_600_000] {
        try_send(allowed).unwrap();
    }
    for (refused, message) in [
        (
            now - 3_600_001,
            "it is 3600001 ms before the clock, which shows 1577836800000; `message.timestamp.before.max.ms` is 3600000",
        ),
        (
            now + 3_600_001,
            "it is 3600001 ms ahead of the clock, which shows 1577836800000; `message.timestamp.after.max.ms` is 3600000",
        ),
        (-1, "it is negative; records are from 1970 on"),
    ] {
        let error = try_send(refused).unwrap_err();
        assert!(matches!(error, Error::InvalidTimestamp { timestamp, .. } if timestamp == at(refused)));
        assert_eq!(error.to_string(), format!("timestamp {refused} is not allowed: {message}"));
    }
    // Of append times nothing is asked, and a wider window counts at once.
    log.alter_topic(TOPIC, window.clone().timestamp_type(TimestampType::Append)).unwrap();
    try_send(5).unwrap();
    log.alter_topic(TOPIC, window.timestamp_before_max(None)).unwrap();
    try_send(5).unwrap();
    assert_eq!(log.describe_topic(TOPIC).unwrap().partitions[0].log_end, Offset::new(5));
}

#[test]
fn a_segment_is_rolled_when_its_records_span_more_time_than_it_may() {
    let machine = Machine::new(10);
    let log = open(&machine);
    let hour = Duration::from_secs(3600);
    log.create_topic(TOPIC, config().segment_bytes(1 << 20).segment_age(Some(hour))).unwrap();
    let segments = |log: &EventLog| log.describe_topic(TOPIC).unwrap().partitions[0].segments;
    // An empty segment is never rolled, however old it is; and time alone rolls nothing.
    machine.advance(2 * hour);
    let began = 1_000_000;
    send(&log, 0, began);
    send(&log, 0, began + 3_600_000);
    assert_eq!(segments(&log), 1);
    send(&log, 0, began + 3_600_001);
    assert_eq!(segments(&log), 2);
    // Earlier ones belong to any segment, and what counts is the first.
    send(&log, 0, 5);
    send(&log, 0, began + 7_200_001);
    assert_eq!(segments(&log), 2);

    // What the first record said is found out again after an opening.
    log.close().unwrap();
    let machine = machine.kill();
    let log = open(&machine);
    send(&log, 0, began + 7_200_001);
    assert_eq!(segments(&log), 2);
    send(&log, 0, began + 7_200_002);
    assert_eq!(segments(&log), 3);

    // A changed setting counts from the next record on.
    log.alter_topic(TOPIC, config().segment_bytes(1 << 20).segment_age(Some(Duration::from_millis(1)))).unwrap();
    send(&log, 0, began + 7_200_004);
    assert_eq!(segments(&log), 4);
    assert_eq!(since(&log, 0, began + 7_200_003).map(|(offset, _)| offset), Some(7));
    let offsets: Vec<_> = {
        let mut consumer = consumer(&log);
        consumer.seek_to_beginning(&[]).unwrap();
        let mut offsets = Vec::new();
        loop {
            let records = consumer.poll(Duration::ZERO).unwrap();
            if records.is_empty() {
                break offsets;
            }
            offsets.extend(records.iter().map(|record| record.offset().get()));
        }
    };
    assert_eq!(offsets, (0..8).collect::<Vec<_>>());
}

#[test]
fn without_room_for_another_segment_an_old_one_goes_on() {
    let machine = Machine::new(11);
    let log = open(&machine);
    log.create_topic(TOPIC, config().segment_bytes(1 << 20).segment_age(Some(Duration::from_secs(1)))).unwrap();
    send(&log, 0, 0);
    machine.set_capacity(Some(0));
    send(&log, 0, 5_000);
    assert_eq!(log.describe_topic(TOPIC).unwrap().partitions[0].segments, 1);
    machine.set_capacity(None);
    send(&log, 0, 5_000);
    assert_eq!(log.describe_topic(TOPIC).unwrap().partitions[0].segments, 2);
}
