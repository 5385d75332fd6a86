//! Compaction: the last record of each key stays, whatever happens; what goes, goes for good; readers, groups and lookups
//! go on, and a machine that stops anywhere leaves the old segments or the new one.
#![cfg(feature = "sim")]

mod sweep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tidelog::sim::{Fault, Machine, Operation, PowerCut};
use tidelog::{
    CleanupPolicy, Compacted, Consumer, ConsumerConfig, Durability, Error, EventLog, GroupsBeyond, LogConfig,
    OffsetReset, ProducerRecord, Retention, TableView, Timestamp, TopicConfig, TopicPartition,
};

use crate::sweep::Life;

const TOPIC: &str = "users";
const NOW: Duration = Duration::ZERO;

fn users() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

fn log_config() -> LogConfig {
    LogConfig::new().background(false)
}

fn open(machine: &Machine) -> EventLog {
    machine.open(log_config()).unwrap()
}

fn config() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096).cleanup_policy(CleanupPolicy::Compact).delete_retention(ms(1000))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A record as it was sent: its key, and its value, if it is no tombstone.
type Sent = (u64, Option<Vec<u8>>);

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(8 + number as usize * 37 % 500, number as u8);
    value
}

fn send(log: &EventLog, sent: &mut Vec<Sent>, key: u64, value: Option<Vec<u8>>) {
    let key_bytes = key.to_le_bytes();
    let record = match &value {
        Some(value) => ProducerRecord::new(TOPIC, value).key(&key_bytes),
        None => ProducerRecord::tombstone(TOPIC, &key_bytes),
    };
    let delivery = log.producer().send(record).unwrap();
    assert_eq!(delivery.offset().get(), sent.len() as u64);
    sent.push((key, value));
}

/// Sends so many records with so many keys; every seventh is a tombstone.
fn send_many(log: &EventLog, sent: &mut Vec<Sent>, count: u64, keys: u64) {
    for _ in 0..count {
        let number = sent.len() as u64;
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        send(log, sent, key % keys, (!number.is_multiple_of(7)).then(|| value(number)));
    }
    log.producer().flush().unwrap();
}

fn compact(log: &EventLog) -> Compacted {
    log.compact(&users(), |_| {}).unwrap()
}

fn reader(log: &EventLog) -> Consumer {
    let mut reader = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::None)).unwrap();
    reader.assign([users()]).unwrap();
    reader.seek_to_beginning(&[]).unwrap();
    reader
}

/// The records from where the reader is, up to the end.
fn rest(reader: &mut Consumer) -> BTreeMap<u64, Sent> {
    let mut found = BTreeMap::new();
    let mut before = None;
    loop {
        let records = reader.poll(NOW).unwrap();
        for record in &records {
            let key = u64::from_le_bytes(record.key().unwrap().try_into().unwrap());
            let offset = record.offset().get();
            assert!(before < Some(offset), "offset {offset} behind {before:?}");
            before = Some(offset);
            found.insert(offset, (key, record.value().map(<[u8]>::to_vec)));
        }
        if records.is_empty() {
            let end = reader.end_offsets(&[users()]).unwrap()[&users()];
            if reader.position(&users()).unwrap() == end {
                return found;
            }
        }
    }
}

fn read(log: &EventLog) -> BTreeMap<u64, Sent> {
    rest(&mut reader(log))
}

/// Log start, clean end, log end, and how many segments there are.
fn state(log: &EventLog) -> (u64, u64, u64, usize) {
    let partition = &log.describe_topic(TOPIC).unwrap().partitions[0];
    (partition.log_start.get(), partition.clean_end.get(), partition.log_end.get(), partition.segments)
}

/// Holds what is there against what was sent: nothing is there that was not sent so; what is not there has a later record of
/// its key, or is a tombstone, with nothing of its key in front of it; below the clean end, each key is there once.
fn check(found: &BTreeMap<u64, Sent>, sent: &[Sent], (start, clean_end): (u64, u64), case: &str) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for (offset, (key, _)) in sent.iter().enumerate() {
        last.insert(*key, offset as u64);
    }
    for (offset, record) in found {
        assert_eq!(Some(record), sent.get(*offset as usize), "{case}: offset {offset} is not what was sent");
    }
    for (offset, (key, value)) in sent.iter().enumerate().skip(start as usize) {
        let offset = offset as u64;
        if found.contains_key(&offset) {
            continue;
        }
        assert!(offset < clean_end, "{case}: offset {offset} is gone, and was never compacted");
        if last[key] == offset {
            assert_eq!(*value, None, "{case}: the last value of key {key}, at offset {offset}, is gone");
            let older = found.range(..offset).find(|(_, record)| record.0 == *key);
            assert_eq!(older, None, "{case}: key {key}, deleted at offset {offset}, is back");
        }
    }
    let mut once = BTreeMap::new();
    for (offset, (key, _)) in found.range(..clean_end) {
        if let Some(before) = once.insert(*key, *offset) {
            panic!("{case}: key {key} is there at {before} and at {offset}, below {clean_end}");
        }
    }
}

fn check_log(log: &EventLog, sent: &[Sent], case: &str) {
    let (start, clean_end, end, _) = state(log);
    assert_eq!(end, sent.len() as u64, "{case}");
    check(&read(log), sent, (start, clean_end), case);
}

#[test]
fn of_each_key_the_last_record_stays_where_it_was() {
    let machine = Machine::new(1);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    for round in 0..6 {
        send_many(&log, &mut sent, 100, 23);
        let before = state(&log).3;
        let done = compact(&log);
        let (_, clean_end, end, segments) = state(&log);
        assert_eq!((clean_end, done.clean_end.get()), (end, end), "round {round}");
        // Small segments become one with the next compaction; what is written is never longer than what is read.
        assert!(segments <= before + 1 && done.bytes_after < done.bytes_before, "round {round}: {done:?}");
        assert_eq!(done.records, read(&log).len() as u64);
        check_log(&log, &sent, &format!("round {round}"));
    }
    assert_eq!(read(&log).len(), 23);
    compact(&log);
    assert_eq!(state(&log).3, 3, "8 KiB of records, and the segment that is appended to");
    let machine = {
        drop(log);
        machine.kill()
    };
    assert!(machine.verify().unwrap().is_sound(), "{:?}", machine.verify().unwrap());
    let log = open(&machine);
    assert!(log.recovery_report().is_clean());
    assert_eq!(state(&log).1, 600, "what was compacted is known to be");
    check_log(&log, &sent, "reopened");
}

#[test]
fn a_poll_of_a_log_with_gaps_returns_as_many_records_as_were_asked_for() {
    let machine = Machine::new(31);
    let log = open(&machine);
    log.create_topic(TOPIC, config().segment_bytes(1 << 16)).unwrap();
    let mut sent = Vec::new();
    for number in 0..1500 {
        // Every third record stays, so there are gaps all over.
        let key = if number % 3 == 0 { number } else { 1 << 40 };
        send(&log, &mut sent, key, Some(value(number % 13)));
    }
    compact(&log);
    let expected: Vec<u64> = read(&log).into_keys().collect();
    assert!(expected.len() < sent.len() / 2, "{} of {} records are left", expected.len(), sent.len());

    for most in [1, 2, 3, 10, 100, 499, 10_000] {
        let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest).max_poll_records(most);
        let mut consumer = log.consumer(config).unwrap();
        consumer.assign([users()]).unwrap();
        for due in expected.chunks(most) {
            let records = consumer.poll(NOW).unwrap();
            let found: Vec<u64> = records.iter().map(|record| record.offset().get()).collect();
            assert_eq!((records.len(), &found[..]), (due.len(), due), "{most} at a time");
        }
        assert!(consumer.poll(NOW).unwrap().is_empty());
    }
}

#[test]
fn whatever_memory_there_is_every_key_is_there_once_in_the_end() {
    for memory in [1024, 1500, 4000, 1 << 20] {
        let machine = Machine::new(2);
        let (log, mut sent) = (machine.open(log_config().compaction_memory(memory)).unwrap(), Vec::new());
        log.create_topic(TOPIC, config()).unwrap();
        send_many(&log, &mut sent, 1500, 400);
        let done = compact(&log);
        assert_eq!(done.passes == 1, memory > 4000 * 4, "{memory}: {} passes", done.passes);
        assert_eq!(state(&log).1, 1500);
        check_log(&log, &sent, &format!("{memory} bytes of memory"));
    }
}

#[test]
fn a_tombstone_goes_when_its_time_is_over_and_not_before_also_after_an_opening() {
    let machine = Machine::new(3);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config().delete_retention(ms(5000))).unwrap();
    send_many(&log, &mut sent, 60, 5);
    for key in 0..5 {
        send(&log, &mut sent, key, None);
    }
    compact(&log);
    assert_eq!(read(&log).len(), 5);
    machine.advance(ms(4999));
    assert_eq!(compact(&log).tombstones, 0);
    drop(log);
    let machine = machine.power_cut(PowerCut::LoseUnsynced);
    let log = open(&machine);
    assert_eq!(compact(&log).tombstones, 0, "the time that was given counts on, and is not given again");
    machine.advance(ms(1));
    assert_eq!(compact(&log).tombstones, 5);
    assert!(read(&log).is_empty());
    assert_eq!(state(&log).2, 65, "offsets never go back");
    send(&log, &mut sent, 1, Some(value(1)));
    log.producer().flush().unwrap();
    check_log(&log, &sent, "all were deleted");
}

fn case(id: &str) -> serde_json::Value {
    let compaction = include_str!("vectors/compaction.json");
    let retention = include_str!("vectors/retention_roll.json");
    let all = [compaction, retention].map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
    let mut cases = all.iter().flat_map(|vectors| vectors["cases"].as_array().unwrap());
    cases.find(|case| case["id"] == id).unwrap_or_else(|| panic!("there is no case {id}")).clone()
}

#[test]
fn kafkas_case_of_deleted_keys() {
    case("c-deletes");
    let machine = Machine::new(4);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    (0..40).for_each(|key| send(&log, &mut sent, key, Some(vec![1; 200])));
    (0..40).step_by(2).for_each(|key| send(&log, &mut sent, key, None));
    (40..60).for_each(|key| send(&log, &mut sent, key, Some(vec![1; 200])));
    compact(&log);
    for (_, (key, value)) in read(&log) {
        assert!(value.is_none() || key >= 40 || key % 2 == 1, "key {key} has a value");
    }
    check_log(&log, &sent, "c-deletes");
}

#[test]
fn kafkas_cases_of_records_without_a_key() {
    case("c-unkeyed");
    let machine = Machine::new(5);
    let log = open(&machine);
    log.create_topic(TOPIC, config().cleanup_policy(CleanupPolicy::Delete)).unwrap();
    let producer = log.producer();
    for _ in 0..20 {
        producer.send(ProducerRecord::new(TOPIC, &[1; 300])).unwrap();
    }
    log.alter_topic(TOPIC, config()).unwrap();
    let mut sent = vec![(0, None); 20];
    (0..10).for_each(|key| send(&log, &mut sent, key, Some(value(key))));
    producer.flush().unwrap();
    let done = compact(&log);
    assert_eq!((done.keyless, done.superseded, done.records), (20, 0, 10));
    assert_eq!(read(&log).into_keys().collect::<Vec<_>>(), (20..30).collect::<Vec<_>>());

    case("c-null-key-rejected");
    let error = producer.send(ProducerRecord::new(TOPIC, b"no key")).unwrap_err();
    assert!(matches!(error, Error::InvalidRecord { .. }));
    assert_eq!(error.to_string(), "invalid record: topic \"users\" is compacted, so every record needs a key");
    let keyed = ProducerRecord::new(TOPIC, b"with a key").key(b"1");
    producer.send_batch([keyed, ProducerRecord::new(TOPIC, b"no key")]).map(drop).unwrap_err();
    assert_eq!(state(&log).2, 30, "the batch as a whole is refused");
}

#[test]
fn kafkas_cases_of_retention_beside_compaction() {
    for (id, policy) in
        [("ret-compact-only", CleanupPolicy::Compact), ("ret-compact-delete", CleanupPolicy::CompactAndDelete)]
    {
        assert_eq!(case(id)["policy"], policy.to_string());
        let machine = Machine::new(6);
        let (log, mut sent) = (open(&machine), Vec::new());
        let limits = Retention::new().time(ms(1)).bytes(1);
        log.create_topic(TOPIC, config().cleanup_policy(policy).retention(limits)).unwrap();
        send_many(&log, &mut sent, 60, 60);
        machine.advance(ms(1000));
        log.apply_retention().unwrap();
        let (start, _, end, _) = state(&log);
        assert_eq!(start, if policy.deletes() { end } else { 0 }, "{id}");
        log.delete_records(&users(), 60).unwrap();
        assert_eq!((state(&log).0, state(&log).3), (60, 1), "{id}: what lies below the log start goes in any case");
    }
}

#[test]
fn whoever_is_in_a_gap_goes_on_behind_it_and_has_lost_nothing() {
    let machine = Machine::new(7);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    send_many(&log, &mut sent, 200, 10);
    let group = || {
        let config = ConsumerConfig::group("g").auto_offset_reset(OffsetReset::None).auto_commit(false);
        let mut group = log.consumer(config.max_poll_records(7)).unwrap();
        group.assign([users()]).unwrap();
        group
    };
    group().commit_offsets([(users(), tidelog::Offset::new(50))]).unwrap();
    let mut reading = group();
    // It holds the segment that is compacted, and has read half of it.
    reading.poll(NOW).unwrap();
    let held = reading.poll(NOW).unwrap();
    let values: Vec<Vec<u8>> = held.iter().map(|record| record.value().unwrap_or_default().to_vec()).collect();
    compact(&log);
    let again: Vec<Vec<u8>> = held.iter().map(|record| record.value().unwrap_or_default().to_vec()).collect();
    assert_eq!(values, again, "what was polled stays");
    let there = read(&log);
    for at in 0..200 {
        let mut consumer = reader(&log);
        consumer.seek(&users(), at).unwrap();
        let next = consumer.poll(NOW).unwrap().iter().next().map(|record| record.offset().get());
        assert_eq!(next, there.range(at..).next().map(|(offset, _)| *offset), "from {at}");
    }
    let position = reading.position(&users()).unwrap().get();
    let found = rest(&mut reading);
    assert!(found.keys().next_back() == there.keys().next_back() && found.len() < 200 - position as usize);
    assert_eq!(
        rest(&mut group()).into_keys().collect::<Vec<_>>(),
        there.range(50..).map(|(at, _)| *at).collect::<Vec<_>>()
    );
    let described = log.describe_group("g").unwrap();
    assert_eq!((described.offsets[0].lost, described.offsets[0].lag), (0, 150));
}

#[test]
fn lookups_by_time_find_what_is_left() {
    let machine = Machine::new(8);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    let mut times = Vec::new();
    for _ in 0..150 {
        times.push(machine.now().as_millis());
        send_many(&log, &mut sent, 1, 12);
        machine.advance(ms(10));
    }
    compact(&log);
    let machine = {
        drop(log);
        machine.kill()
    };
    for log in [open(&machine), machine.open_read_only().unwrap()] {
        let there = read(&log);
        let reader = log.consumer(ConsumerConfig::new()).unwrap();
        for since in (times[0] - 5..times[149] + 20).step_by(37) {
            let found = reader.offsets_for_times([(users(), Timestamp::from_millis(since))]).unwrap()[&users()];
            let expected = there.keys().copied().find(|offset| times[*offset as usize] >= since);
            assert_eq!(found.map(|found| found.offset.get()), expected, "since {since}");
        }
        let latest = reader.offsets_of_latest_timestamps(&[users()]).unwrap()[&users()];
        assert_eq!(latest.map(|latest| latest.offset.get()), Some(149));
    }
}

#[test]
fn a_reader_in_another_process_goes_on_beside_compaction() {
    let kinds = [Durability::Sync, Durability::Os].into_iter().flat_map(|kind| [(kind, false), (kind, true)]);
    for (durability, crowded) in kinds {
        // In every other life, files are open only while they are used.
        let machine = if crowded { Machine::new(9) } else { Machine::new(9).kill() };
        let (log, mut sent) = (open(&machine), Vec::new());
        log.create_topic(TOPIC, config().durability(durability)).unwrap();
        send_many(&log, &mut sent, 100, 9);
        let beside = machine.open_read_only().unwrap();
        let mut lagging = reader(&beside);
        let mut current = reader(&beside);
        lagging.poll(NOW).unwrap();
        let from = lagging.position(&users()).unwrap().get();
        for round in 0..5 {
            rest(&mut current);
            send_many(&log, &mut sent, 40, 9);
            compact(&log);
            send_many(&log, &mut sent, 3, 9);
            // What the catalog says is looked for, and so are the names of the segments.
            let visible = beside.describe_topic(TOPIC).unwrap().partitions[0].high_watermark.get();
            assert!(visible >= sent.len() as u64 - 3, "{durability}, round {round}: {visible} of {}", sent.len());
            let found = rest(&mut reader(&beside));
            check(&found, &sent[..visible as usize], (0, state(&log).1), &format!("{durability}, round {round}"));
            let beside_again = machine.open_read_only().unwrap();
            assert_eq!(found.keys().next(), rest(&mut reader(&beside_again)).keys().next(), "{durability}, {round}");
        }
        // The segment that begins where the reader is becomes part of the one before.
        for _ in 0..4 {
            send_many(&log, &mut sent, 2, 9);
            rest(&mut current);
            compact(&log);
            send_many(&log, &mut sent, 2, 9);
            compact(&log);
            let visible = beside.describe_topic(TOPIC).unwrap().partitions[0].high_watermark.get();
            assert!(visible + 2 >= sent.len() as u64, "{durability}: {visible} of {}", sent.len());
        }
        let found = rest(&mut lagging);
        assert!(found.keys().next().is_some_and(|first| *first >= from));
        assert_eq!(found.keys().next_back(), rest(&mut reader(&beside)).keys().next_back(), "{durability}");
    }
}

/// Goes on until nothing is due within a minute.
fn idle(machine: &Machine, log: &EventLog) {
    let until = machine.now().as_millis() + 60_000;
    while let Some(due) = log.maintain() {
        machine.advance(due.max(ms(1)));
        if machine.now().as_millis() > until {
            return;
        }
    }
}

#[test]
fn the_background_compacts_what_is_dirty_enough_the_dirtiest_first() {
    let machine = Machine::new(10);
    let log = open(&machine);
    log.create_topic(TOPIC, config()).unwrap();
    log.create_topic("other", config()).unwrap();
    log.create_topic("kept", config().cleanup_policy(CleanupPolicy::Delete)).unwrap();
    let mut sent = Vec::new();
    send_many(&log, &mut sent, 300, 60);
    for number in 0..50_u64 {
        for topic in ["other", "kept"] {
            log.producer().send(ProducerRecord::new(topic, &value(number)).key(b"same")).unwrap();
        }
    }
    log.producer().flush().unwrap();
    idle(&machine, &log);
    let report = log.compaction_report();
    assert_eq!((report.compactions, report.last_error.clone()), (2, None), "{report:?}");
    let clean = |topic: &str| log.describe_topic(topic).unwrap().partitions[0].clone();
    assert!(state(&log).1 > 280 && clean("other").clean_end.get() > 20 && clean("kept").clean_end.get() == 0);
    check_log(&log, &sent, "compacted in the background");

    // A little news is not enough.
    send_many(&log, &mut sent, 12, 5);
    let dirty = clean(TOPIC).dirty_bytes;
    idle(&machine, &log);
    assert_eq!((log.compaction_report().compactions, clean(TOPIC).dirty_bytes), (2, dirty));
    // With a limit in time it is.
    log.alter_topic(TOPIC, config().max_compaction_lag(Some(ms(60_000)))).unwrap();
    machine.advance(ms(60_001));
    send_many(&log, &mut sent, 12, 5);
    idle(&machine, &log);
    assert_eq!(log.compaction_report().compactions, 3);
    check_log(&log, &sent, "for its age");
}

#[test]
fn a_partition_that_cannot_be_read_keeps_no_other_from_being_compacted() {
    let machine = Machine::new(32);
    let (log, mut sent) = (open(&machine), Vec::new());
    for topic in ["lost", TOPIC] {
        log.create_topic(topic, config().min_compaction_lag(ms(10))).unwrap();
    }
    send_many(&log, &mut sent, 100, 5);
    for number in 0..50 {
        log.producer().send(ProducerRecord::new("lost", &value(number)).key(b"same")).unwrap();
    }
    log.close().unwrap();
    let machine = machine.kill();
    let log = open(&machine);
    machine.advance(ms(60_000));
    // The first that is looked at.
    machine.fail(Fault::new(Operation::Open, 0));
    while log.compaction_report().compactions < 2 {
        assert!(log.maintain().is_some_and(|due| due.is_zero()), "{:?}", log.compaction_report());
    }
    let error = log.compaction_report().last_error.unwrap();
    assert!(state(&log).1 > 80 && error.contains("topics/lost/0"), "{error}");
    check_log(&log, &sent, "beside one that cannot be read");
}

#[test]
fn what_is_running_is_no_more_when_the_log_is_closed() {
    let machine = Machine::new(33);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    send_many(&log, &mut sent, 400, 150);
    while log.compaction_report().running.is_none() {
        assert!(log.maintain().is_some());
    }
    let again = log.clone();
    log.close().unwrap();
    assert_eq!(again.compaction_report().running, None);
}

#[test]
fn a_step_of_the_wall_clock_takes_no_tombstone() {
    let machine = Machine::new(20);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config().delete_retention(ms(100_000)).min_cleanable_dirty_ratio(0.0)).unwrap();
    (0..20).for_each(|key| send(&log, &mut sent, key, None));
    send_many(&log, &mut sent, 20, 5);
    compact(&log);
    idle(&machine, &log);
    send_many(&log, &mut sent, 20, 5);
    let tombstones = |log: &EventLog| read(log).values().filter(|(_, value)| value.is_none()).count();
    let before = tombstones(&log);
    machine.set_wall_clock(Timestamp::from_millis(machine.now().as_millis() + 1_000_000));
    let due = log.maintain().unwrap();
    machine.advance(due);
    log.maintain();
    assert_eq!(log.compaction_report().clock_steps, 1, "{:?}", log.compaction_report());
    assert_eq!(tombstones(&log), before);
}

#[test]
fn what_is_young_is_not_compacted_yet() {
    let machine = Machine::new(11);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config().min_compaction_lag(ms(10_000))).unwrap();
    send_many(&log, &mut sent, 60, 3);
    machine.advance(ms(5_000));
    send_many(&log, &mut sent, 60, 3);
    machine.advance(ms(5_000));
    let done = compact(&log);
    assert!(done.clean_end.get() > 40 && done.clean_end.get() <= 60, "{done:?}");
    check_log(&log, &sent, "half is old enough");
    machine.advance(ms(5_000));
    assert_eq!(compact(&log).clean_end.get(), 120);
}

#[test]
fn a_dry_run_says_what_would_go_and_changes_nothing() {
    let machine = Machine::new(12);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config().cleanup_policy(CleanupPolicy::Delete)).unwrap();
    send_many(&log, &mut sent, 200, 20);
    let before: Vec<_> = machine.files().into_iter().map(|path| (machine.read_file(&path), path)).collect();
    let planned = log.plan_compaction(&users()).unwrap();
    let beside = machine.open_read_only().unwrap().plan_compaction(&users()).unwrap();
    assert_eq!(planned, beside);
    let after: Vec<_> = machine.files().into_iter().map(|path| (machine.read_file(&path), path)).collect();
    assert!(before == after, "a dry run has changed a file");
    assert_eq!(read(&log).len(), 200);
    let error = log.compact(&users(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("is not compacted; its cleanup.policy is delete"), "{error}");
    log.alter_topic(TOPIC, config()).unwrap();
    let done = compact(&log);
    assert!(planned.superseded > 100 && planned.superseded <= done.superseded, "{planned:?}, {done:?}");
}

#[test]
fn what_is_damaged_is_left_as_it_is_and_compaction_says_so() {
    let machine = Machine::new(13);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    send_many(&log, &mut sent, 100, 5);
    log.close().unwrap();
    let segments = segments(&machine);
    machine.flip_bit(&segments[3], 8 * 600);
    let machine = machine.kill();
    let log = open(&machine);
    let bytes = machine.read_file(&segments[3]);
    let error = log.compact(&users(), |_| {}).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    idle(&machine, &log);
    let report = log.compaction_report();
    assert_eq!(report.uncleanable, [users()], "{report:?}");
    assert!(report.last_error.is_some_and(|error| error.contains("is damaged at byte")));
    assert!(machine.read_file(&segments[3]) == bytes, "what was damaged was touched");
    log.close().unwrap();
    let machine = machine.kill();
    assert!(!machine.verify().unwrap().is_sound());
    machine.repair(true).unwrap();
    let log = open(&machine);
    assert_eq!(compact(&log).clean_end.get(), 100, "what is lost is a gap, and can be compacted");
}

#[test]
fn damage_to_a_compacted_segment_takes_no_more_than_what_it_hit() {
    let machine = Machine::new(14);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config().segment_bytes(65536)).unwrap();
    // Few records stay of many: a batch takes far more offsets than it has bytes for.
    for number in 0..20_000 {
        let stays = number % 50 == 0;
        let key = if stays { number } else { 1 };
        send(&log, &mut sent, key, Some(vec![number as u8; if stays { 40 } else { 0 }]));
    }
    log.producer().flush().unwrap();
    compact(&log);
    compact(&log);
    let there = read(&log);
    log.close().unwrap();
    let used = |path: &PathBuf| machine.read_file(path).iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let segments = machine.files().into_iter().filter(|path| path.starts_with("topics"));
    let segment = &segments.max_by_key(used).unwrap();
    let used = used(segment);
    assert!(used > 10_000, "{used}");
    for at in [200, used / 2, used - 10] {
        let machine = machine.kill();
        machine.flip_bit(segment, 8 * at);
        let found = machine.verify().unwrap();
        assert_eq!(found.findings.len(), 1, "byte {at}: {:?}", found.findings);
        let log = open(&machine);
        let mut reader = reader(&log);
        let (mut read, mut lost) = (Vec::new(), 0..0);
        loop {
            match reader.poll(NOW) {
                Ok(records) if records.is_empty() => break,
                Ok(records) => read.extend(records.iter().map(|record| record.offset().get())),
                Err(Error::Corrupt(damage)) => {
                    lost = damage.offsets.start.get()..damage.offsets.end.get();
                    reader.seek(&users(), damage.offsets.end).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!lost.is_empty() && lost.end - lost.start < 6_000, "byte {at}: {lost:?}");
        let expected: Vec<u64> = there.keys().copied().filter(|offset| !lost.contains(offset)).collect();
        assert_eq!(read, expected, "byte {at}");
        log.close().unwrap();
        let machine = machine.kill();
        machine.repair(true).unwrap();
        assert!(machine.verify().unwrap().is_sound(), "byte {at}: {:?}", machine.verify().unwrap());
        assert_eq!(self::read(&open(&machine)).into_keys().collect::<Vec<_>>(), expected, "byte {at}");
    }
}

#[test]
fn the_latest_of_two_segments_of_which_one_is_gone_is_missed() {
    let machine = Machine::new(15);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    send_many(&log, &mut sent, 100, 40);
    compact(&log);
    log.close().unwrap();
    let segments = segments(&machine);
    for (at, gone) in segments.iter().enumerate() {
        let machine = machine.kill();
        machine.remove_file(gone);
        let found = machine.verify().unwrap();
        assert!(!found.is_sound(), "{gone:?} is gone, and nobody misses it");
        let log = open(&machine);
        let damage = &log.recovery_report().damage;
        assert_eq!(damage.len(), 1, "{gone:?}: {damage:?}");
        let next = log.producer().send(ProducerRecord::new(TOPIC, b"next").key(b"k")).unwrap().wait().unwrap().offset();
        assert!(next.get() >= 100, "segment {at}: offset {next} is given again");
    }
}

#[test]
fn a_topic_that_is_deleted_or_cut_short_while_it_is_compacted_is_not_the_worse_for_it() {
    for maintained in 0..40 {
        let machine = Machine::new(16);
        let (log, mut sent) = (open(&machine), Vec::new());
        log.create_topic(TOPIC, config()).unwrap();
        send_many(&log, &mut sent, 100, 9);
        (0..maintained).for_each(|_| {
            log.maintain();
        });
        let end = log.describe_topic(TOPIC).unwrap().partitions[0].high_watermark;
        let before = end.get() * maintained / 40;
        log.delete_records(&users(), before).unwrap();
        idle(&machine, &log);
        let (start, clean_end, ..) = state(&log);
        check(&read(&log), &sent, (start, clean_end), &format!("cut at {before}"));
        send_many(&log, &mut sent, 100, 9);
        (0..maintained).for_each(|_| {
            log.maintain();
        });
        log.delete_topic(TOPIC).unwrap();
        idle(&machine, &log);
        assert!(!machine.files().iter().any(|path| path.starts_with("topics")), "{:?}", machine.files());
        assert_eq!(log.compaction_report().last_error, None);
        log.create_topic(TOPIC, config()).unwrap();
        send_many(&log, &mut Vec::new(), 100, 9);
        (0..maintained).for_each(|_| {
            log.maintain();
        });
        log.close().unwrap();
        let unborn = machine.files().into_iter().find(|path| path.extension().is_some_and(|name| name == "new"));
        assert_eq!(unborn, None, "after {maintained} steps");
    }
}

/// Cuts at this offset, or at the next below at which a batch ends; where that was.
fn cut(log: &EventLog, at: u64) -> u64 {
    let cut = |at: &u64| match log.truncate(&users(), *at, GroupsBeyond::PullBack) {
        Ok(_) => true,
        // Inside of a batch that was compacted.
        Err(Error::InvalidState { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    (0..=at).rev().find(cut).expect("nothing is inside of a batch at the log start")
}

#[test]
fn a_cut_before_while_or_after_a_partition_is_compacted_takes_its_tail_and_nothing_else() {
    let mut within = 0;
    for (maintained, at) in (0..24).flat_map(|maintained| [7, 150, 260, 399].map(|at| (maintained, at))) {
        let machine = Machine::new(maintained + at);
        let (log, mut sent) = (open(&machine), Vec::new());
        log.create_topic(TOPIC, config().segment_bytes(16384).delete_retention(ms(1 << 40))).unwrap();
        send_many(&log, &mut sent, 400, 150);
        (0..maintained).for_each(|_| {
            log.maintain();
        });
        let (mut table, held, clean_end) = (log.table_view(TOPIC).unwrap(), read(&log), state(&log).1);
        let at = cut(&log, at);
        let case = format!("cut at {at} after {maintained} steps");
        within += u64::from(at > 0 && at < clean_end);
        sent.truncate(at as usize);
        // What had replaced a record may be gone, and does not bring it back.
        let before: BTreeMap<u64, Sent> = held.range(..at).map(|(offset, record)| (*offset, record.clone())).collect();
        assert_eq!(read(&log), before, "{case}");
        table.refresh().unwrap();
        assert_eq!(shown(&table, &sent), shown(&log.table_view(TOPIC).unwrap(), &sent), "{case}");
        // The catalog knows only the last cut.
        send_many(&log, &mut sent, 60, 150);
        sent.truncate(cut(&log, sent.len() as u64 - 3) as usize);
        let machine = if maintained % 2 == 0 { machine } else { machine.kill() };
        let log = if maintained % 2 == 0 { log } else { open(&machine) };
        assert_eq!(read(&log).range(..at).count(), before.len(), "{case}");
        assert_eq!(read(&log).range(at..).count(), 57, "{case}");
        // Whatever was being compacted goes on, or begins anew.
        idle(&machine, &log);
        let found = read(&log);
        for (offset, record) in &found {
            assert_eq!(Some(record), sent.get(*offset as usize), "{case}: offset {offset}");
        }
        for (offset, (key, value)) in &before {
            assert!(value.is_none() || found.range(*offset..).any(|(_, (other, _))| other == key), "{case}: key {key}");
        }
        assert!(found.range(at..).count() > 0, "{case}: what came behind the cut is gone");
        assert_eq!(compact(&log).clean_end.get(), sent.len() as u64, "{case}");
        check_seeks(&log, &case);
        let machine = machine.power_cut(PowerCut::LoseUnsynced);
        assert!(machine.verify().unwrap().is_sound(), "{case}: {:?}", machine.verify());
        let again = open(&machine);
        assert!(again.recovery_report().is_clean(), "{case}: {:?}", again.recovery_report());
        assert_eq!((state(&again).2, read(&again)), (sent.len() as u64, read(&log)), "{case}");
    }
    assert!(within > 10, "{within} cuts in what was compacted");
}

#[test]
fn what_a_compaction_could_not_remove_is_nobodys_successor_after_two_cuts() {
    let mut left = 0;
    'operations: for operation in 0.. {
        let machine = Machine::new(31);
        let (log, mut sent) = (open(&machine), Vec::new());
        log.create_topic(TOPIC, config()).unwrap();
        send_many(&log, &mut sent, 40, 1000);
        log.alter_topic(TOPIC, config().segment_bytes(1 << 16)).unwrap();
        let before = machine.operations();
        machine.fail(Fault::new(None, operation));
        let done = log.compact(&users(), |_| {});
        let is_last = machine.operations() - before <= operation;
        machine.heal();
        let case = format!("operation {operation} fails, {:?}", done.as_ref().err());
        left += u64::from(segments(&machine).len() > 2 && state(&log).3 == 2);
        // The first cut takes the compacted segment, which alone says what those stand for that are left.
        for at in [0, 25] {
            match log.truncate(&users(), at, GroupsBeyond::Refuse) {
                Ok(_) => {}
                // Nothing goes on before the next opening, which removes them.
                Err(Error::SyncFailed { .. }) => continue 'operations,
                Err(error) => panic!("{case}: {error}"),
            }
            sent.truncate(at as usize);
            (0..40 + at).for_each(|number| send(&log, &mut sent, 1000 + number, Some(value(at + 3 * number))));
            log.producer().flush().unwrap();
        }
        let machine = machine.kill();
        assert!(machine.verify().unwrap().is_sound(), "{case}: {:?}", machine.verify());
        let log = open(&machine);
        let report = log.recovery_report();
        assert!(report.is_clean() && report.bytes_cut == 0, "{case}: {report:?}");
        check_log(&log, &sent, &case);
        if is_last {
            assert!(left > 2, "{left} times something was left");
            return;
        }
    }
}

/// The files of all segments of the topic.
fn segments(machine: &Machine) -> Vec<PathBuf> {
    machine.files().into_iter().filter(|path| path.starts_with("topics")).collect()
}

#[test]
fn settings_of_compaction_are_checked_and_read_as_they_are_written() {
    let machine = Machine::new(17);
    let log = open(&machine);
    for (config, message) in [
        (
            config().segment_bytes((1 << 30) + 1),
            "invalid `segment.bytes`: 1073741825 is more than 1 GiB, the most for a topic that is compacted",
        ),
        (config().min_cleanable_dirty_ratio(1.5), "invalid `min.cleanable.dirty.ratio`: it is 0 to 1"),
        (
            config().max_compaction_lag(Some(NOW)),
            "invalid `max.compaction.lag.ms`: it is at least 1, and not below min.compaction.lag.ms",
        ),
        (
            config().max_bytes(Some(1 << 20), tidelog::WhenFull::DropOldest),
            "invalid `when.full`: `drop-oldest` contradicts keeping the last record of every key; say `compact,delete`",
        ),
    ] {
        assert_eq!(log.create_topic(TOPIC, config).unwrap_err().to_string(), message);
    }
    for (name, value) in [
        ("cleanup.policy", "shrink"),
        ("min.cleanable.dirty.ratio", "half"),
        ("delete.retention.ms", "-1"),
        ("min.compaction.lag.ms", "soon"),
    ] {
        assert!(matches!(config().set(name, value), Err(Error::InvalidConfig { .. })), "{name}={value}");
    }
    let said = [
        ("cleanup.policy", "delete,compact"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("delete.retention.ms", "5"),
        ("min.compaction.lag.ms", "6"),
        ("max.compaction.lag.ms", "7"),
    ];
    let set = said.iter().fold(config(), |config, (name, value)| config.set(name, value).unwrap());
    let meant = config()
        .cleanup_policy(CleanupPolicy::CompactAndDelete)
        .min_cleanable_dirty_ratio(0.25)
        .delete_retention(ms(5))
        .min_compaction_lag(ms(6))
        .max_compaction_lag(Some(ms(7)));
    assert_eq!(set, meant);
    log.create_topic(TOPIC, set.clone()).unwrap();
    log.close().unwrap();
    assert_eq!(open(&machine).describe_topic(TOPIC).unwrap().config, set);
    assert!(machine.kill().open(log_config().compaction_memory(1023)).is_err());
    assert!(machine.kill().open(log_config().compaction_rate(Some(0))).is_err());
}

/// The offset of the latest value of each key.
fn latest(sent: &[Sent]) -> BTreeMap<u64, u64> {
    let mut latest = BTreeMap::new();
    for (offset, (key, value)) in sent.iter().enumerate() {
        match value {
            Some(_) => drop(latest.insert(*key, offset as u64)),
            None => drop(latest.remove(key)),
        }
    }
    latest
}

/// What a table shows; each value must be the one that was sent.
fn shown(table: &TableView, sent: &[Sent]) -> BTreeMap<u64, u64> {
    let mut shown = BTreeMap::new();
    for record in table.iter() {
        let (key, offset) = (u64::from_le_bytes(record.key().try_into().unwrap()), record.offset().get());
        assert_eq!(sent[offset as usize].1.as_deref(), Some(record.value()), "offset {offset}");
        shown.insert(key, offset);
    }
    assert_eq!(table.len(), shown.len());
    shown
}

#[test]
fn a_table_shows_the_latest_value_of_each_key_whatever_becomes_of_the_log() {
    let machine = Machine::new(18);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    let mut table = log.table_view(TOPIC).unwrap();
    assert!(table.is_empty());
    for round in 0..12 {
        send_many(&log, &mut sent, 30, 40);
        if round % 3 == 2 {
            compact(&log);
        }
        assert!(table.refresh().unwrap() > 0, "round {round}");
        assert_eq!(table.refresh().unwrap(), 0, "round {round}");
        let fresh = log.table_view(TOPIC).unwrap();
        let beside = machine.open_read_only().unwrap();
        let visible = beside.describe_topic(TOPIC).unwrap().partitions[0].high_watermark.get();
        let beside = beside.table_view(TOPIC).unwrap();
        for (table, sent) in [(&table, &sent[..]), (&fresh, &sent[..]), (&beside, &sent[..visible as usize])] {
            assert_eq!(shown(table, sent), latest(sent), "round {round}");
        }
        let one = table.get(sent[7].0.to_le_bytes()).map(|record| record.offset().get());
        assert_eq!(one, latest(&sent).get(&sent[7].0).copied());
    }
    let last = log.describe_topic(TOPIC).unwrap().partitions[0].high_watermark;
    log.delete_records(&users(), last.get() - 5).unwrap();
    table.refresh().unwrap();
    assert!(table.iter().all(|record| record.offset().get() >= last.get() - 5), "what is deleted is no longer shown");
    log.delete_topic(TOPIC).unwrap();
    assert!(matches!(table.refresh(), Err(Error::UnknownTopic { .. })));
}

/// What the users of the log were told.
#[derive(Clone, Debug, Default)]
struct Told {
    sent: Vec<Sent>,
    promised: u64,
    clean: u64,
    asked: u64,
}

impl Life for Told {
    type Kind = (Durability, CleanupPolicy);

    const ONE_IN: u64 = 30;

    /// Segments are filled, compacted, compacted again together with news, deleted at the front, and by retention if the
    /// policy is so.
    fn live(&mut self, (durability, policy): Self::Kind, machine: &Machine) -> Result<(), Error> {
        let dead = || machine.has_crashed();
        let log = machine.open(log_config().compaction_memory(1024))?;
        let config = config().durability(durability).cleanup_policy(policy).retention(Retention::new().records(25));
        match log.create_topic(TOPIC, config.delete_retention(ms(20))) {
            Err(Error::TopicExists { .. }) => {}
            created => created?,
        }
        for round in 0..3 {
            for _ in 0..30 {
                let number = log.describe_topic(TOPIC)?.partitions[0].log_end.get();
                let (key, value) = (number * number % 6, (number % 5 != 0).then(|| value(number)));
                let key_bytes = key.to_le_bytes();
                let record = match &value {
                    Some(value) => ProducerRecord::new(TOPIC, value).key(&key_bytes),
                    None => ProducerRecord::tombstone(TOPIC, &key_bytes),
                };
                let delivery = log.producer().send(record)?;
                if !dead() {
                    assert_eq!(delivery.offset().get(), self.sent.len() as u64);
                    self.sent.push((key, value));
                }
            }
            log.producer().flush()?;
            if !dead() && durability == Durability::Sync {
                self.promised = self.sent.len() as u64;
            }
            if policy.deletes() {
                self.asked = self.asked.max(log.describe_topic(TOPIC)?.partitions[0].log_end.get());
                log.apply_retention()?;
            }
            if round == 2 {
                let before = log.describe_topic(TOPIC)?.partitions[0].log_start.advance(20);
                self.asked = self.asked.max(before.get());
                log.delete_records(&users(), before)?;
            }
            let done = log.compact(&users(), |_| {})?;
            if !dead() {
                self.clean = done.clean_end.get();
                self.promised = self.promised.max(self.clean);
            }
            machine.advance(ms(15));
        }
        log.close()
    }

    /// What was promised is not missing.
    fn look(&self, machine: &Machine, case: &str) {
        if self.clean > 0 {
            let report = machine.verify().unwrap();
            assert!(report.is_sound(), "{case}: {report:?}");
        }
    }

    fn check(&mut self, log: &EventLog, case: &str) {
        if log.list_topics().is_empty() {
            assert_eq!(self.promised, 0, "{case}: the topic is gone");
            return;
        }
        let (start, clean_end, end, _) = state(log);
        assert!(start <= self.asked, "{case}: {start}: kept records are gone");
        assert!(
            clean_end >= self.clean,
            "{case}: {clean_end}: what was compacted is to be compacted again, {}",
            self.clean
        );
        assert!(
            end >= self.promised && end <= self.sent.len() as u64,
            "{case}: the end is {end} of {}",
            self.sent.len()
        );
        self.sent.truncate(end as usize);
        check_log(log, &self.sent, case);
        self.promised = end;
        self.asked = self.asked.max(start);
    }
}

/// A log whose next compaction makes one segment of several.
fn shrunken(seed: u64) -> (Machine, EventLog, Vec<Sent>) {
    let machine = Machine::new(seed);
    let (log, mut sent) = (open(&machine), Vec::new());
    log.create_topic(TOPIC, config()).unwrap();
    send_many(&log, &mut sent, 80, 12);
    compact(&log);
    send_many(&log, &mut sent, 10, 12);
    (machine, log, sent)
}

/// Whoever begins anywhere finds what one finds who reads all of it.
fn check_seeks(log: &EventLog, case: &str) {
    let (there, end) = (read(log), state(log).2);
    for at in (0..end).step_by(3) {
        let mut consumer = reader(log);
        consumer.seek(&users(), at).unwrap();
        let next = consumer.poll(NOW).unwrap().iter().next().map(|record| record.offset().get());
        assert_eq!(next, there.range(at..).next().map(|(offset, _)| *offset), "{case}: from {at}");
    }
}

#[test]
fn whatever_step_of_a_compaction_is_the_last_there_are_the_old_segments_or_the_new_one() {
    let (machine, log, _) = shrunken(1);
    let first = machine.operations();
    compact(&log);
    let steps = first..machine.operations();
    let trace = &machine.trace()[first as usize..];
    let removed = trace.iter().filter(|(operation, path)| {
        *operation == Operation::Remove && path.extension().is_some_and(|extension| extension == "log")
    });
    assert!(removed.count() > 3, "{trace:?}");
    let lasts = [None].into_iter().chain(PowerCut::ALL.map(Some));
    for (at, last) in steps.flat_map(|at| lasts.clone().map(move |last| (at, last))) {
        // The next opening may be interrupted, too; if it is the first to make the new name durable, wherever it removes what
        // is replaced.
        let renamed = at > first && trace[(at - first) as usize - 1].0 == Operation::Rename;
        let anywhere = (44..64).flat_map(|again| PowerCut::ALL.map(|how| (again, how)));
        let few = [at % 7, 7 + at % 11].map(|again| (again, PowerCut::ALL[(at + again) as usize % 6]));
        let some = if last.is_none() && renamed { anywhere.collect() } else { few.to_vec() };
        for (again, how) in [(u64::MAX, PowerCut::KeepAll)].into_iter().chain(some) {
            let case = format!("stopped at operation {at}, {last:?}, and at {again} of the opening");
            let (machine, log, sent) = shrunken(1);
            machine.crash_at(at);
            drop(log.compact(&users(), |_| {}));
            let mut machine = last.map_or_else(|| machine.kill(), |how| machine.power_cut(how));
            assert!(machine.verify().unwrap().is_sound(), "{case}: {:?}", machine.verify());
            if again < u64::MAX {
                machine.crash_at(machine.operations() + again);
                drop(machine.open(log_config()));
                machine = machine.power_cut(how);
            }
            let log = open(&machine);
            assert!(log.recovery_report().is_clean(), "{case}: {:?}", log.recovery_report());
            check_log(&log, &sent, &case);
            check_seeks(&log, &case);
            let files = machine.files().into_iter().filter(|path| path.starts_with("topics/users")).count();
            assert_eq!(files, state(&log).3, "{case}: {:?}", machine.files());
        }
    }
}

#[test]
fn wherever_the_machine_stops_the_last_record_of_each_key_is_there() {
    let (compact, both) = (CleanupPolicy::Compact, CleanupPolicy::CompactAndDelete);
    let kinds = [(Durability::Sync, compact), (Durability::Os, compact), (Durability::Sync, both)];
    for kind in kinds {
        let machine = Machine::new(1);
        Told::default().live(kind, &machine).unwrap();
        let renames = machine.trace().iter().filter(|(operation, _)| *operation == Operation::Rename).count();
        assert!(renames > 10, "{renames}: hardly anything was compacted");
    }
    sweep::stop_everywhere::<Told>(&kinds);
}

#[test]
fn whatever_operation_fails_the_last_record_of_each_key_is_there() {
    sweep::fail_everywhere::<Told>((Durability::Sync, CleanupPolicy::CompactAndDelete), 400);
}
