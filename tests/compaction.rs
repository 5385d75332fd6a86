//! Compaction: the last record of each key stays, whatever happens; what goes, goes for good; readers, groups and lookups
//! go on, and a machine that stops anywhere leaves the old segments or the new one.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog::sim::{Failure, Fault, Machine, Operation, PowerCut};
use tidelog::{
    CleanupPolicy, Compacted, Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, OffsetReset,
    ProducerRecord, Retention, Timestamp, TopicConfig, TopicPartition,
};

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
    let machine = { drop(log); machine.kill() };
    assert!(machine.verify().unwrap().is_sound(), "{:?}", machine.verify().unwrap());
    let log = open(&machine);
    assert!(log.recovery_report().is_clean());
    assert_eq!(state(&log).1, 600, "what was compacted is known to be");
    check_log(&log, &sent, "reopened");
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

/// What the users of the log were told.
#[derive(Clone, Debug, Default)]
struct Told {
    sent: Vec<Sent>,
    promised: u64,
    clean: u64,
    asked: u64,
}

/// Segments are filled, compacted, compacted again together with news, deleted at the front. Ends with the first error.
fn live(machine: &Machine, durability: Durability, told: &mut Told) -> Result<(), Error> {
    let dead = || machine.has_crashed();
    let log = machine.open(log_config().compaction_memory(1024))?;
    match log.create_topic(TOPIC, config().durability(durability).delete_retention(ms(20))) {
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
                assert_eq!(delivery.offset().get(), told.sent.len() as u64);
                told.sent.push((key, value));
            }
        }
        log.producer().flush()?;
        if !dead() && durability == Durability::Sync {
            told.promised = told.sent.len() as u64;
        }
        if round == 2 {
            let before = log.describe_topic(TOPIC)?.partitions[0].log_start.advance(20);
            told.asked = told.asked.max(before.get());
            log.delete_records(&users(), before)?;
        }
        let done = log.compact(&users(), |_| {})?;
        if !dead() {
            told.clean = done.clean_end.get();
            told.promised = told.promised.max(told.clean);
        }
        machine.advance(ms(15));
    }
    log.close()
}

/// Holds a new life against what was told in the last.
fn check_life(log: &EventLog, told: &mut Told, case: &str) {
    let damage = &log.recovery_report().damage;
    assert!(damage.is_empty(), "{case}: {damage:?}");
    if log.list_topics().is_empty() {
        assert_eq!(told.promised, 0, "{case}: the topic is gone");
        return;
    }
    let (start, clean_end, end, _) = state(log);
    assert!(start <= told.asked, "{case}: {start}: kept records are gone");
    assert!(clean_end >= told.clean, "{case}: {clean_end}: what was compacted is to be compacted again, {}", told.clean);
    assert!(end >= told.promised && end <= told.sent.len() as u64, "{case}: the end is {end} of {}", told.sent.len());
    told.sent.truncate(end as usize);
    check_log(log, &told.sent, case);
    told.promised = end;
    told.asked = told.asked.max(start);
}

fn sweep() -> u64 {
    if std::env::var("TIDELOG_SWEEP").is_ok_and(|value| value == "full") { 1 } else { 12 }
}

#[test]
fn wherever_the_machine_stops_the_last_record_of_each_key_is_there() {
    let mut crashes = 0;
    for durability in [Durability::Sync, Durability::Os] {
        let all = {
            let machine = Machine::new(1);
            live(&machine, durability, &mut Told::default()).unwrap();
            let renames = machine.trace().iter().filter(|(operation, _)| *operation == Operation::Rename).count();
            assert!(renames > 10, "{renames}: hardly anything was compacted");
            machine.operations()
        };
        for at in 0..all {
            for (nth, how) in PowerCut::ALL.into_iter().enumerate() {
                if !(at + nth as u64).is_multiple_of(sweep()) {
                    continue;
                }
                let case = format!("{durability}: stopped at operation {at} of {all}, {how:?}");
                let (machine, mut told) = (Machine::new(1 + at), Told::default());
                machine.crash_at(at);
                let ended = live(&machine, durability, &mut told);
                assert!(machine.has_crashed() || ended.is_ok(), "{case}: {ended:?}");
                let machine = machine.power_cut(how);
                // The next opening is interrupted too.
                machine.crash_at(at % 23);
                drop(machine.open(log_config()));
                let machine = machine.power_cut(PowerCut::ALL[(nth + 1) % 6]);
                let log = machine.open(log_config()).unwrap_or_else(|error| panic!("{case}: {error}"));
                check_life(&log, &mut told, &case);
                drop(log);
                live(&machine, durability, &mut told).unwrap_or_else(|error| panic!("{case}: {error}"));
                let machine = machine.kill();
                assert!(machine.verify().unwrap().is_sound(), "{case}: {:?}", machine.verify().unwrap());
                check_life(&open(&machine), &mut told, &case);
                crashes += 1;
            }
        }
    }
    println!("the machine was stopped {crashes} times");
    assert!(crashes > 100, "{crashes}");
}

#[test]
fn whatever_operation_fails_the_last_record_of_each_key_is_there() {
    let mut faults = 0;
    for failure in [Failure::Errno(5), Failure::Kind(std::io::ErrorKind::StorageFull)] {
        for forever in [false, true] {
            for at in (0..400).filter(|at| at % sweep() == 0) {
                let case = format!("operation {at} fails with {failure:?}, forever: {forever}");
                let (machine, mut told) = (Machine::new(at), Told::default());
                let mut fault = Fault::new(None::<Operation>, at).failure(failure);
                fault.forever = forever;
                machine.fail(fault);
                faults += u64::from(live(&machine, Durability::Sync, &mut told).is_err());
                machine.heal();
                let machine = machine.power_cut(PowerCut::ALL[at as usize % 6]);
                check_life(&open(&machine), &mut told, &case);
                live(&machine, Durability::Sync, &mut told).unwrap_or_else(|error| panic!("{case}: {error}"));
                check_life(&open(&machine.kill()), &mut told, &case);
            }
        }
    }
    println!("{faults} lives ended with an error");
    assert!(faults > 20, "{faults}");
}
