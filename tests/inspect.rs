//! Verify, dump and repair, on logs that were damaged in every way that a disk can.
#![cfg(feature = "sim")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidelog::inspect::{DumpItem, FindingClass, VerifyReport, dump, verify};
use tidelog::sim::Machine;
use tidelog::{ConsumerConfig, Error, EventLog, LogConfig, Offset, OffsetReset, ProducerRecord, TopicConfig};

/// A closed log with a partition of several segments and a group.
fn machine() -> Machine {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    log.create_topic("orders", TopicConfig::new().segment_bytes(4096)).unwrap();
    for n in 0..40u8 {
        log.producer().send(ProducerRecord::new("orders", &[n; 400])).unwrap();
    }
    log.producer().flush().unwrap();
    let mut consumer = log.consumer(ConsumerConfig::group("billing")).unwrap();
    consumer.assign([("orders", 0)]).unwrap();
    consumer.commit_offsets([(("orders", 0).into(), Offset::new(25))]).unwrap();
    drop(consumer);
    log.close().unwrap();
    machine
}

fn segments(machine: &Machine) -> Vec<PathBuf> {
    machine.files().into_iter().filter(|path| path.starts_with("topics/orders/0")).collect()
}

fn classes(report: &VerifyReport) -> Vec<FindingClass> {
    report.findings.iter().map(|finding| finding.class).collect()
}

/// The offsets that can be read, and their values as they should be; damage is stepped over.
fn readable(log: &EventLog) -> Vec<u64> {
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
    consumer.assign([("orders", 0)]).unwrap();
    let mut offsets = Vec::new();
    loop {
        match consumer.poll(Duration::ZERO) {
            Ok(records) if records.is_empty() => return offsets,
            Ok(records) => {
                for record in &records {
                    let n = record.offset().get();
                    assert_eq!(record.value().unwrap(), [n as u8; 400], "offset {n}");
                    offsets.push(n);
                }
            }
            Err(Error::Corrupt(damage)) => {
                let next = damage.offsets.end.max(consumer.position(&("orders", 0).into()).unwrap().advance(1));
                consumer.seek(&("orders", 0).into(), next).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_sound_log_verifies_and_needs_no_repair() {
    let machine = machine();

    let report = machine.verify().unwrap();

    assert_eq!(report.findings, []);
    assert!(report.is_sound() && report.segments > 5, "{report:?}");
    assert!(report.records > 40, "the catalog and the group have some too");
    assert!(machine.repair(true).unwrap().mends.is_empty());
    assert!(matches!(Machine::new(2).verify(), Err(Error::NotALog { .. })));
}

type Blow = fn(&Machine, &Path);

/// What is done to a segment in the middle, and what verify calls it.
const BLOWS: [(&str, Blow, FindingClass); 6] = [
    ("a bit of a record is flipped", |machine, path| machine.flip_bit(path, 900 * 8), FindingClass::Damaged),
    ("a sector is zeroed", |machine, path| zero(machine, path, 512..1024), FindingClass::Damaged),
    ("the header is zeroed", |machine, path| zero(machine, path, 0..128), FindingClass::Damaged),
    ("the file is cut short", |machine, path| cut(machine, path, 1500), FindingClass::Missing),
    ("the file is empty", |machine, path| cut(machine, path, 0), FindingClass::Missing),
    ("the file is gone", |machine, path| machine.remove_file(path), FindingClass::Missing),
];

fn zero(machine: &Machine, path: &Path, range: std::ops::Range<usize>) {
    let mut bytes = machine.read_file(path);
    bytes[range].fill(0);
    machine.write_file(path, &bytes);
}

fn cut(machine: &Machine, path: &Path, length: usize) {
    let bytes = machine.read_file(path);
    machine.write_file(path, &bytes[..length]);
}

#[test]
fn every_blow_is_found_mended_and_costs_only_what_it_hit() {
    for (what, blow, class) in BLOWS {
        let machine = machine().kill();
        let path = segments(&machine)[2].clone();
        blow(&machine, &path);

        let report = machine.verify().unwrap();
        assert!(!report.is_sound() && classes(&report).contains(&class), "{what}: {report:?}");
        let before = readable(&machine.kill().open(LogConfig::new().background(false)).unwrap());
        assert!(before.len() >= 30 && before.len() < 40, "{what}: {before:?}");

        let plan = machine.repair(false).unwrap();
        assert!(!plan.mends.is_empty() && plan.backup.is_none(), "{what}: {plan:?}");
        assert_eq!(machine.verify().unwrap().findings, report.findings, "{what}: a dry run changes nothing");
        let done = machine.repair(true).unwrap();
        assert_eq!(done.mends, plan.mends, "{what}: what was announced is what is done");

        let report = machine.verify().unwrap();
        assert!(report.is_sound(), "{what}: {report:?}");
        let log = machine.open(LogConfig::new().background(false)).unwrap();
        assert!(log.recovery_report().is_clean(), "{what}: {:?}", log.recovery_report());
        assert_eq!(readable(&log), before, "{what}: nothing more is lost, and nobody stumbles");
        for n in 0..40 {
            let lost = done.mends.iter().any(|mend| mend.lost.contains(&Offset::new(n)));
            assert_eq!(lost, !before.contains(&n), "{what}: offset {n} is said to be lost if it is");
        }
        let delivery = log.producer().send(ProducerRecord::new("orders", &[40; 400])).unwrap();
        assert_eq!(delivery.offset(), Offset::new(40), "{what}");
    }
}

#[test]
fn what_a_repair_changes_is_kept_aside_first() {
    let machine = machine().kill();
    let path = segments(&machine)[2].clone();
    machine.flip_bit(&path, 900 * 8);
    let damaged = machine.read_file(&path);

    let done = machine.repair(true).unwrap();

    let backup = done.backup.unwrap().strip_prefix("/simulated").unwrap().join(&path);
    assert_eq!(machine.read_file(backup), damaged);
}

#[test]
fn a_foreign_segment_is_told_from_a_damaged_one() {
    let machine = machine().kill();
    let paths = segments(&machine);
    let other = machine.read_file(&paths[3]);
    machine.write_file(&paths[2], &other);

    let report = machine.verify().unwrap();

    assert!(classes(&report).contains(&FindingClass::Foreign), "{report:?}");
    machine.repair(true).unwrap();
    assert!(machine.verify().unwrap().is_sound());
}

/// As many headers say the one as the other: the catalog knows.
#[test]
fn a_topic_of_another_log_is_foreign_and_repair_says_that_it_cannot_help() {
    for catalog_is_there in [true, false] {
        let machine = machine();
        let other = Machine::new(2);
        let log = other.open(LogConfig::new().background(false)).unwrap();
        log.create_topic("audit", TopicConfig::new()).unwrap();
        drop(log);
        machine.write_file(
            "topics/audit/0/00000000000000000000.log",
            &other.read_file("topics/audit/0/00000000000000000000.log"),
        );
        if !catalog_is_there {
            machine.remove_file("catalog/00000000000000000000.log");
        }

        let report = machine.verify().unwrap();
        let repaired = machine.repair(true).unwrap();

        let foreign = |place: &str| {
            report.findings.iter().any(|found| found.class == FindingClass::Foreign && found.place == place)
        };
        assert!(foreign("audit-0") && !foreign("orders-0"), "{report:?}");
        assert!(
            repaired.mends.is_empty() && repaired.beyond.iter().any(|said| said.contains("audit-0")),
            "{repaired:?}"
        );
    }
}

#[test]
fn a_foreign_segment_beside_a_single_one_is_told_from_that() {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    for (topic, records) in [("audit", 1), ("orders", 12u8)] {
        log.create_topic(topic, TopicConfig::new().segment_bytes(4096)).unwrap();
        for n in 0..records {
            log.producer().send(ProducerRecord::new(topic, &[n; 400])).unwrap().wait().unwrap();
        }
    }
    drop(log);
    let machine = machine.kill();
    let paths = segments(&machine);
    assert_eq!(paths.len(), 2, "{paths:?}");
    let (ours, theirs) = (machine.read_file(&paths[0]), machine.read_file("topics/audit/0/00000000000000000000.log"));
    machine.write_file(&paths[1], &theirs);

    let report = machine.verify().unwrap();

    let foreign: Vec<_> = report.findings.iter().filter(|found| found.class == FindingClass::Foreign).collect();
    assert!(matches!(foreign[..], [found] if found.path.ends_with(&paths[1])), "{report:?}");
    machine.repair(true).unwrap();
    assert_eq!(machine.read_file(&paths[0]), ours);
    assert!(machine.verify().unwrap().is_sound());
}

#[test]
fn a_foreign_segment_behind_the_end_is_said_and_opening_sets_it_aside() {
    let machine = machine();
    let theirs = machine.read_file("catalog/00000000000000000000.log");
    let behind = "topics/orders/0/00000000000000000050.log";
    machine.write_file(behind, &theirs);

    let report = machine.verify().unwrap();

    assert_eq!(classes(&report), [FindingClass::Foreign]);
    assert!(report.findings[0].path.ends_with(behind) && !report.is_sound(), "{report:?}");
    let repaired = machine.repair(true).unwrap();
    assert!(repaired.mends.is_empty() && repaired.beyond[0].contains("opening the log sets it aside"), "{repaired:?}");
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    assert_eq!(log.recovery_report().damage.len(), 1, "{:?}", log.recovery_report());
    assert_eq!(readable(&log).len(), 40);
    log.close().unwrap();
    assert_eq!(machine.verify().unwrap().findings, []);
}

#[test]
fn a_torn_tail_is_no_damage_and_opening_cuts_it() {
    let machine = machine().kill();
    let last = segments(&machine).pop().unwrap();
    let mut bytes = machine.read_file(&last);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(8);
    bytes[end + 16..end + 80].fill(7);
    machine.write_file(&last, &bytes);

    let report = machine.verify().unwrap();

    assert_eq!(classes(&report), [FindingClass::TornTail]);
    assert!(report.is_sound());
    assert!(machine.repair(true).unwrap().mends.is_empty());
    drop(machine.open(LogConfig::new().background(false)).unwrap());
    assert_eq!(machine.verify().unwrap().findings, []);
}

#[test]
fn a_catalog_that_is_gone_and_a_commit_beyond_the_end_are_found() {
    let machine = machine().kill();
    for path in machine.files().iter().filter(|path| path.starts_with("catalog")) {
        machine.remove_file(path);
    }
    let report = machine.verify().unwrap();
    assert!(!report.is_sound(), "{report:?}");
}

/// What a dump says of the file, one item a line, depth by depth.
fn items(path: &Path) -> Vec<DumpItem> {
    let mut items = Vec::new();
    dump(path, |item| items.push(item.clone())).unwrap();
    items
}

#[test]
fn a_dump_explains_every_byte_of_a_file_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic("orders", TopicConfig::new()).unwrap();
    let producer = log.producer();
    producer.send(ProducerRecord::new("orders", b"paid").key(b"user-7").header("trace", b"1")).unwrap();
    producer.send_batch((0..3).map(|_| ProducerRecord::new("orders", b"x"))).unwrap();
    drop(producer);
    log.close().unwrap();

    let items = items(&directory.path().join("topics/orders/0/00000000000000000000.log"));

    let mut next = 0;
    for item in items.iter().filter(|item| item.depth == 0) {
        assert_eq!(item.position, next, "{item:?}");
        next += item.length;
    }
    assert_eq!(next, 65536);
    let top: Vec<_> = items.iter().filter(|item| item.depth == 0).map(|item| (item.name, &item.value[..])).collect();
    assert_eq!(top[0], ("header", "segment from offset 0"));
    assert_eq!(top[1], ("batch", "offsets 0..1, 1 record"));
    assert_eq!(top[2], ("batch", "offsets 1..4, 3 records"));
    assert_eq!(top[3], ("marker", "closed at 4"));
    assert_eq!(top[4], ("free", "zeros"));
    assert!(items.iter().any(|item| item.name == "key" && item.value == "\"user-7\"" && item.length == 6));
    assert!(items.iter().any(|item| item.name == "header" && item.value == "trace = \"1\""));
    assert!(verify(directory.path(), |_| {}).unwrap().is_sound());
}

#[test]
fn a_dump_shows_what_is_wrong_and_goes_on_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("00000000000000000000.log");
    let machine = machine().kill();
    let mut bytes = machine.read_file(&segments(&machine)[0]);
    bytes[700] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let items = items(&path);

    let flaws: Vec<_> = items.iter().filter(|item| item.flaw.is_some()).collect();
    assert_eq!(flaws.len(), 1, "{flaws:?}");
    assert_eq!(flaws[0].value, "offset 1 was due; whole batches go on with 2");
    assert!(items.iter().filter(|item| item.name == "batch").count() > 5);
}

#[test]
fn a_hole_that_is_too_small_for_a_gap_is_said_to_be_beyond_repair() {
    let machine = machine();
    let path = segments(&machine)[2].clone();
    let bytes = machine.read_file(&path);
    // Eight bytes between header and batches, as nobody writes them.
    machine.write_file(&path, &[&bytes[..128], &[7; 8], &bytes[128..bytes.len() - 8]].concat());

    let repaired = machine.repair(true).unwrap();

    assert!(
        repaired.beyond.iter().any(|said| said.contains("bytes 128..136") && said.contains("no gap fits")),
        "{repaired:?}"
    );
}

#[test]
fn a_damaged_marker_costs_no_record() {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    log.create_topic("orders", TopicConfig::new()).unwrap();
    log.producer().send(ProducerRecord::new("orders", &[0; 400])).unwrap().wait().unwrap();
    for _ in 0..5 {
        machine.advance(Duration::from_millis(20));
        log.maintain();
    }
    for n in 1..3 {
        log.producer().send(ProducerRecord::new("orders", &[n; 400])).unwrap().wait().unwrap();
    }
    log.close().unwrap();
    let machine = machine.kill();
    let path = segments(&machine)[0].clone();
    let marker = 128 + 456;
    assert_eq!(machine.read_file(&path)[marker..marker + 4], 48u32.to_le_bytes());

    for damaged in [marker..marker + 8, marker..marker + 48, marker + 20..marker + 24] {
        let machine = machine.kill();
        zero(&machine, &path, damaged.clone());
        assert_eq!(classes(&machine.verify().unwrap()), [FindingClass::Damaged], "{damaged:?}");
        let log = machine.kill().open(LogConfig::new().background(false)).unwrap();
        assert_eq!(readable(&log), [0, 1, 2], "{damaged:?}");

        let done = machine.repair(true).unwrap();
        assert!(done.mends.iter().all(|mend| mend.lost.is_empty()), "{done:?}");
        assert_eq!(machine.verify().unwrap().findings, []);
        assert_eq!(readable(&machine.open(LogConfig::new().background(false)).unwrap()), [0, 1, 2]);
    }
}
