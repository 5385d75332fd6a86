//! Bytes that were on the disk and are no longer, or are others: each byte, each length, each page, each file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tidelog::sim::{Machine, PowerCut};
use tidelog::{ConsumerConfig, Durability, Error, Flaw, OffsetReset, ProducerRecord, TopicConfig, TopicPartition};

use crate::shared::{
    Ledger, NOW, closed_log, commit, config, full_sweep, name, open, read_around_damage, reader, segments, small,
    some_of,
};

const PAGE: usize = 4096;

fn harmed() -> TopicPartition {
    name("orders", 0)
}

/// Changes a file of a copy of the machine and holds the log that is found then against the ledger; returns how many
/// records were reported.
fn tamper(machine: &Machine, ledger: &Ledger, path: &Path, case: &str, change: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let machine = machine.kill();
    let mut bytes = machine.read_file(path);
    change(&mut bytes);
    machine.write_file(path, &bytes);
    ledger.check_damaged(&machine, &[harmed()], &format!("{}: {case}", path.display()))
}

/// How far a file holds more than zeros.
fn used(machine: &Machine, path: &Path) -> usize {
    machine.read_file(path).iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_flipped_byte_anywhere_in_a_partition_is_reported_and_no_wrong_record_is_read() {
    let (machine, ledger) = closed_log(1, 6);
    let (mut flipped, mut reported) = (0, 0);
    for (nth, path) in segments(&machine, &harmed()).iter().enumerate() {
        // Headers of segments and batches are worth every byte; of a record's value one in many says the same.
        for at in some_of(machine.read_file(path).len() as u64, 37, nth as u64 * 5) {
            let case = format!("byte {at} flipped");
            reported += tamper(&machine, &ledger, path, &case, |bytes| bytes[at as usize] ^= 1 << (at % 8));
            flipped += 1;
        }
        for at in (0..128 + 44).filter(|at| full_sweep() || at % 3 == nth % 3) {
            reported += tamper(&machine, &ledger, path, &format!("byte {at} inverted"), |bytes| bytes[at] ^= 0xff);
            flipped += 1;
        }
    }
    println!("{flipped} bytes were flipped, {reported} records were lost and reported");
    assert!(flipped > 200 && reported > 100, "{flipped}, {reported}");
}

#[test]
fn every_byte_of_a_segment_that_holds_something_is_watched_over() {
    let (machine, ledger) = closed_log(2, 4);
    let first = &segments(&machine, &harmed())[0];
    let used = used(&machine, first);
    for at in some_of(used as u64, 29, 3) {
        let reported = tamper(&machine, &ledger, first, &format!("byte {at}"), |bytes| bytes[at as usize] ^= 0x10);
        // The end of the segment holds the marker of the roll or of the closing, which is no record.
        assert!(reported > 0 || at as usize >= used - 48, "byte {at} of {used} changed and nobody noticed");
    }
}

#[test]
fn a_segment_cut_short_at_any_length_has_its_missing_offsets_reported_and_not_reused() {
    let (machine, ledger) = closed_log(3, 6);
    let (mut cut, mut reported) = (0, 0);
    for (nth, path) in segments(&machine, &harmed()).iter().enumerate() {
        let length = machine.read_file(path).len();
        for at in some_of(length as u64, 41, nth as u64).chain([0, 1, 127, 128, 129, length as u64 - 1]) {
            reported +=
                tamper(&machine, &ledger, path, &format!("cut to {at} bytes"), |bytes| bytes.truncate(at as usize));
            cut += 1;
        }
    }
    println!("{cut} segments were cut, {reported} records were lost and reported");
    assert!(reported > 100, "{reported}");
}

#[test]
fn a_zeroed_sector_or_page_is_damage_and_not_the_end_of_the_log() {
    let (machine, ledger) = closed_log(4, 6);
    let (mut zeroed, mut reported) = (0, 0);
    for path in &segments(&machine, &harmed()) {
        let bytes = machine.read_file(path);
        for size in [512, PAGE] {
            for at in (0..bytes.len()).step_by(size) {
                let holds_records = bytes[at..at + size].iter().any(|byte| *byte != 0) && at >= size;
                let found = tamper(&machine, &ledger, path, &format!("{size} bytes zeroed at {at}"), |bytes| {
                    bytes[at..at + size].fill(0);
                });
                assert!(found > 0 || !holds_records || at + size > used(&machine, path) - 48, "{at}: nobody noticed");
                reported += found;
                zeroed += 1;
            }
        }
    }
    println!("{zeroed} sectors and pages were zeroed, {reported} records were lost and reported");
    assert!(reported > 20, "{reported}");
}

#[test]
fn the_last_page_with_the_marker_of_the_closing_is_missed_too() {
    // One segment of many pages, so that the page is lost with the marker and the last records, and with nothing else.
    let machine = Machine::new(5);
    let log = open(&machine);
    let mut ledger = Ledger::default();
    log.create_topic("orders", small(Durability::Sync).partitions(2).segment_bytes(1 << 20)).unwrap();
    for _ in 0..10 {
        ledger.send(&log, &harmed()).unwrap().wait().unwrap();
    }
    log.close().unwrap();
    let machine = machine.kill();
    let path = &segments(&machine, &harmed())[0];
    let last = (used(&machine, path) - 1) / PAGE * PAGE;

    let reported = tamper(&machine, &ledger, path, "last page zeroed", |bytes| bytes[last..last + PAGE].fill(0));
    assert!(reported >= 2, "{reported}");

    for page in 0..=last / PAGE {
        let start = page * PAGE;
        tamper(&machine, &ledger, path, &format!("page {page} twice"), |bytes| {
            bytes.copy_within(start..start + PAGE, start + PAGE);
        });
        tamper(&machine, &ledger, path, &format!("page {page} as another page"), |bytes| {
            let other = (page + 1) % (last / PAGE + 1) * PAGE;
            bytes.copy_within(other..other + PAGE, start);
        });
    }
}

#[test]
fn a_page_of_another_file_is_none_of_this_one() {
    let (machine, ledger) = closed_log(6, 6);
    let others: Vec<PathBuf> = machine
        .files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    let mut swapped = 0;
    for path in &segments(&machine, &harmed()) {
        for other in others.iter().filter(|other| *other != path) {
            let page = machine.read_file(other)[..PAGE].to_vec();
            tamper(&machine, &ledger, path, &format!("a page of {}", other.display()), |bytes| {
                bytes[..PAGE].copy_from_slice(&page);
            });
            // And without the header, so that only the batches are another's.
            tamper(&machine, &ledger, path, &format!("the batches of {}", other.display()), |bytes| {
                bytes[128..PAGE].copy_from_slice(&page[128..]);
            });
            swapped += 2;
        }
    }
    println!("{swapped} pages were swapped");
    assert!(swapped > 20, "{swapped}");
}

#[test]
fn what_reading_would_miss_verify_finds_and_repair_mends() {
    let (machine, ledger) = closed_log(18, 6);
    let all = segments(&machine, &harmed());
    assert!(machine.verify().unwrap().findings.is_empty());
    for case in ["a byte", "the last records and the marker", "the end of the file", "the last segment", "the first"] {
        let machine = machine.kill();
        let newest = &all[all.len() - 1];
        match case {
            "a byte" => machine.flip_bit(&all[0], 8 * 1000),
            "the last records and the marker" => {
                machine.write_file(newest, &[&machine.read_file(newest)[..128], &[0; PAGE - 128]].concat());
            }
            "the end of the file" => machine.write_file(newest, &machine.read_file(newest)[..1200]),
            "the last segment" => machine.remove_file(newest),
            _ => machine.remove_file(&all[0]),
        }
        let found = machine.verify().unwrap();
        assert!(!found.is_sound(), "{case}: {found:?}");
        assert!(found.findings.iter().all(|finding| finding.place == "orders-0"), "{case}: {found:?}");

        let mended = machine.repair(true).unwrap();

        assert!(mended.beyond.is_empty() && !mended.mends.is_empty(), "{case}: {mended:?}");
        assert!(machine.verify().unwrap().is_sound(), "{case}: {:?}", machine.verify());
        let log = open(&machine);
        let (read, damaged) = read_around_damage(&log, &harmed());
        assert!(damaged.is_empty(), "{case}: {damaged:?}");
        let accepted = &ledger.accounts[&harmed()].accepted;
        assert!(read.iter().all(|(offset, value)| accepted[*offset as usize] == *value), "{case}");
        let next = ledger_next(&log);
        assert!(next >= 6, "{case}: offset {next} was given twice");
    }
}

fn ledger_next(log: &tidelog::EventLog) -> u64 {
    let record = ProducerRecord::new("orders", b"new").partition(0);
    log.producer().send(record).unwrap().wait().unwrap().offset().get()
}

#[test]
fn bytes_of_an_earlier_life_behind_newer_ones_are_not_taken_for_records() {
    let machine = Machine::new(17);
    machine.set_write_back(false);
    let log = open(&machine);
    let mut ledger = Ledger::default();
    let clicks = name("clicks", 0);
    log.create_topic("clicks", small(Durability::Os).segment_bytes(1 << 16)).unwrap();
    for _ in 0..4 {
        ledger.send(&log, &clicks).unwrap();
    }
    let path = segments(&machine, &clicks)[0].clone();
    let old = machine.read_file(&path);
    let machine = machine.power_cut(PowerCut::LoseUnsynced);
    drop(log);
    let log = open(&machine);
    let mut ledger = Ledger::default();
    ledger.send(&log, &clicks).unwrap();
    let machine = machine.kill();
    drop(log);

    // The disk has lost what zeroed them: old batches, whole and with the offsets that are due, behind the new one.
    let mut bytes = machine.read_file(&path);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 8 * 8 + 8;
    bytes[end..].copy_from_slice(&old[end..]);
    assert!(bytes[end..end + 8] != [0; 8], "an old batch stands there");
    machine.write_file(&path, &bytes);

    let log = open(&machine);
    assert_eq!(log.describe_topic("clicks").unwrap().partitions[0].log_end.get(), 1);
    drop(log);
    assert_eq!(ledger.check_damaged(&machine, &[], "bytes of an earlier life"), 0);
}

#[test]
fn a_batch_older_than_its_segment_is_none_whoever_looks() {
    let (machine, mut ledger) = closed_log(22, 1);
    let log = open(&machine);
    for _ in 0..8 {
        ledger.send(&log, &harmed()).unwrap().wait().unwrap();
    }
    log.close().unwrap();
    let all = segments(&machine, &harmed());
    assert_eq!(all.len(), 3);
    // The one in the middle is sealed, and looked at by who reads it; the newest is walked over by recovery.
    for (nth, path) in [(1, &all[1]), (2, &all[2])] {
        let machine = machine.kill();
        let mut bytes = machine.read_file(path);
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (salt, length) = (word(&bytes, 12), word(&bytes, 128));
        let batch = &mut bytes[128..128 + length as usize];
        assert_eq!(word(batch, 32), 2, "written by the second opening");
        batch[32] = 1;
        let mut crc = crc32fast::Hasher::new_with_initial(length ^ salt);
        crc.update(&batch[8..]);
        batch[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
        machine.write_file(path, &bytes);

        let log = open(&machine);
        let mut reader = reader(&log, &harmed());
        reader.seek(&harmed(), 4 * nth).unwrap();
        let Err(Error::Corrupt(damage)) = reader.poll(NOW) else { panic!("segment {nth}: it was believed") };
        assert_eq!(damage.flaw, Flaw::Epoch { stored: 1, expected: 2 }, "segment {nth}");
        drop((reader, log));
        let reported = ledger.check_damaged(&machine, &[harmed()], &format!("segment {nth}"));
        assert_eq!(reported, 1, "segment {nth}");
    }
}

#[test]
fn corrupt_names_partition_offsets_file_and_position_and_the_consumer_decides_to_go_on() {
    let (machine, ledger) = closed_log(7, 3);
    let path = &segments(&machine, &harmed())[0];
    machine.flip_bit(path, 8 * (128 + 960 + 500));

    let log = open(&machine);
    let mut reader = reader(&log, &harmed());
    assert_eq!(reader.poll(NOW).unwrap().iter().map(|record| record.offset().get()).collect::<Vec<_>>(), [0]);
    for _ in 0..2 {
        let Err(Error::Corrupt(damage)) = reader.poll(NOW) else { panic!("damage was skipped") };
        assert_eq!(damage.partition, Some(harmed()));
        assert_eq!((damage.offsets.start.get(), damage.offsets.end.get()), (1, 2));
        assert_eq!(damage.path, Path::new("/simulated").join(path));
        assert!((128 + 900..128 + 1000).contains(&damage.position), "{damage:?}");
        assert!(matches!(damage.flaw, Flaw::Checksum { .. }), "{damage:?}");
    }
    reader.seek(&harmed(), 2).unwrap();
    assert_eq!(reader.poll(NOW).unwrap().len(), 1);
    drop((reader, log));
    ledger.check_damaged(&machine, &[harmed()], "one record");
}

#[test]
fn a_deleted_segment_first_middle_or_last_is_missed_and_the_rest_is_served() {
    let (machine, ledger) = closed_log(8, 18);
    let all = segments(&machine, &harmed());
    assert!(all.len() >= 5, "{all:?}");
    for gone in [vec![0], vec![2], vec![all.len() - 1], vec![0, 1], vec![1, 3], vec![all.len() - 2, all.len() - 1]] {
        let machine = machine.kill();
        gone.iter().for_each(|at| machine.remove_file(&all[*at]));
        let reported = ledger.check_damaged(&machine, &[harmed()], &format!("without the segments {gone:?}"));
        assert!((1..=4 * gone.len() as u64).contains(&reported), "{gone:?}: {reported} of 18 records were reported");
    }
}

#[test]
fn a_partition_that_lost_all_its_segments_says_so_and_gives_no_offset_twice() {
    // Once as it was closed, and once as a process left it that was killed: then nobody knows where it ended.
    for closed in [true, false] {
        let (mut machine, mut ledger) = closed_log(9, 10);
        if !closed {
            let log = open(&machine);
            ledger.send(&log, &harmed()).unwrap().wait().unwrap();
            // Before the log is dropped, which would close it.
            machine = machine.kill();
        }
        let paths = segments(&machine, &harmed());
        assert!(paths.len() > 1);
        paths.iter().for_each(|path| machine.remove_file(path));

        let log = open(&machine);
        let end = log.describe_topic("orders").unwrap().partitions[0].log_end.get();
        assert!(if closed { end == 10 } else { end > 1 << 32 }, "closed: {closed}, end: {end}");
        drop(log);
        let reported = ledger.check_damaged(&machine.kill(), &[harmed()], &format!("closed: {closed}"));
        assert_eq!(reported, if closed { 10 } else { 11 });
    }
}

#[test]
fn a_lost_end_goes_on_behind_all_that_can_have_been_given_since_the_log_was_closed() {
    let (machine, mut ledger) = closed_log(23, 2);
    let log = open(&machine);
    for _ in 0..2 {
        ledger.send(&log, &harmed()).unwrap().wait().unwrap();
    }
    // Before the log is dropped, which would close it: nobody is told that there are four records now.
    let machine = machine.kill();
    let path = &segments(&machine, &harmed())[0];

    let reported =
        tamper(&machine, &ledger, path, "all but the first record are gone", |bytes| bytes[128 + 952..].fill(0));

    assert_eq!(reported, 3);
}

#[test]
fn a_rolled_segment_misses_its_successor_also_after_a_kill() {
    let machine = Machine::new(10);
    let log = open(&machine);
    let mut ledger = Ledger::default();
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    for _ in 0..14 {
        ledger.send(&log, &harmed()).unwrap().wait().unwrap();
    }
    let all = segments(&machine, &harmed());
    for gone in 1..all.len() {
        let machine = machine.kill();
        all[gone..].iter().for_each(|path| machine.remove_file(path));
        let reported = ledger.check_damaged(&machine, &[harmed()], &format!("from segment {gone} on"));
        assert_eq!(reported, 14 - 4 * gone as u64, "from segment {gone} on");
    }
    drop(log);
}

/// Segments of four records each of which only the first was synced, and says with its rolled marker that the second has
/// its name: no other witness reaches beyond the first.
fn log_behind_a_rolled_segment(seed: u64) -> (Machine, Ledger, TopicPartition) {
    let machine = Machine::new(seed);
    let log = open(&machine);
    let (mut ledger, clicks) = (Ledger::default(), name("clicks", 0));
    log.create_topic("clicks", small(Durability::Os)).unwrap();
    for nth in 0..14 {
        ledger.send(&log, &clicks).unwrap();
        if nth == 4 {
            // What was rolled is synced once nothing more has come for a while.
            log.maintain();
            machine.advance(Duration::from_millis(100));
            log.maintain();
        }
    }
    // Before the log is dropped, which would close it.
    let killed = machine.kill();
    assert_eq!(segments(&killed, &clicks).len(), 4);
    (killed, ledger, clicks)
}

#[test]
fn a_segment_that_is_gone_behind_a_rolled_one_takes_no_later_segment_with_it() {
    let (machine, ledger, clicks) = log_behind_a_rolled_segment(19);
    let all = segments(&machine, &clicks);
    for (gone, lost) in [(vec![1], 4), (vec![1, 2], 8), (vec![1, 2, 3], 10)] {
        let machine = machine.kill();
        gone.iter().for_each(|at| machine.remove_file(&all[*at]));
        assert!(!machine.verify().unwrap().is_sound(), "without the segments {gone:?}");
        let log = machine.kill().open(config()).unwrap();
        let damage = &log.recovery_report().damage;
        assert!(damage.iter().any(|damage| damage.offsets.start.get() == 4), "{gone:?}: {damage:?}");
        drop(log);
        let mended = machine.kill();
        assert!(mended.repair(true).unwrap().beyond.is_empty(), "without the segments {gone:?}");
        assert!(mended.verify().unwrap().is_sound(), "{gone:?}: {:?}", mended.verify());
        assert!(open(&mended).recovery_report().is_clean(), "without the segments {gone:?}");

        let reported =
            ledger.check_damaged(&machine, std::slice::from_ref(&clicks), &format!("without the segments {gone:?}"));

        assert_eq!(reported, lost, "without the segments {gone:?}");
    }
}

#[test]
fn what_a_rolled_segment_lost_is_damage_also_if_nothing_else_says_that_it_was_synced() {
    let machine = Machine::new(20);
    let log = open(&machine);
    let mut ledger = Ledger::default();
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    for _ in 0..5 {
        ledger.send(&log, &harmed()).unwrap();
    }
    // One sync for all five: header and batch of the second segment were written before it, and know of none.
    log.producer().flush().unwrap();
    let machine = machine.kill();
    let all = segments(&machine, &harmed());
    assert_eq!(all.len(), 2);
    for at in (130..128 + 4 * 952).step_by(300) {
        let reported = tamper(&machine, &ledger, &all[0], &format!("byte {at}"), |bytes| bytes[at] ^= 1);
        assert_eq!(reported, 1, "byte {at}");
    }
    for length in [128, 1000, 128 + 4 * 952 - 1] {
        let zeros = |bytes: &mut Vec<u8>| bytes[length..128 + 4 * 952].fill(0);
        let reported = tamper(&machine, &ledger, &all[0], &format!("zeros from byte {length} on"), zeros);
        assert!((1..=4).contains(&reported), "zeros from byte {length} on: {reported} records");
    }
}

#[test]
fn a_marker_that_is_damaged_before_the_one_of_the_roll_does_not_hide_that_the_successor_is_gone() {
    let machine = Machine::new(21);
    let log = open(&machine);
    let mut ledger = Ledger::default();
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    for nth in 0..6 {
        ledger.send(&log, &harmed()).unwrap().wait().unwrap();
        for _ in 0..3 {
            if nth == 3 {
                // The partition is idle, and is marked as synced.
                log.maintain();
                machine.advance(Duration::from_millis(30));
            }
        }
    }
    let machine = machine.kill();
    let all = segments(&machine, &harmed());
    assert_eq!((all.len(), used(&machine, &all[0])), (2, 128 + 4 * 952 + 48 + 45), "two markers behind the records");
    machine.remove_file(&all[1]);
    machine.flip_bit(&all[0], 8 * (128 + 4 * 952 + 20));

    let reported = ledger.check_damaged(&machine, &[harmed()], "the successor and a marker are gone");

    assert_eq!(reported, 2);
}

#[test]
fn a_segment_of_another_partition_topic_log_or_time_is_refused_reported_and_left_alone() {
    let (machine, ledger) = closed_log(11, 6);
    let ours = segments(&machine, &harmed())[0].clone();
    let (elsewhere, _) = closed_log(12, 6);
    for (whose, machine_of, path) in [
        ("another partition", &machine, &segments(&machine, &name("orders", 1))[0]),
        ("another topic", &machine, &segments(&machine, &name("clicks", 0))[0]),
        ("another log", &elsewhere, &segments(&elsewhere, &harmed())[0]),
        ("another place", &machine, &segments(&machine, &harmed())[1]),
        ("the catalog", &machine, &PathBuf::from("catalog/00000000000000000000.log")),
    ] {
        let theirs = machine_of.read_file(path);
        let machine = machine.kill();
        machine.write_file(&ours, &theirs);

        let log = open(&machine);
        let damage = &log.recovery_report().damage;
        assert!(damage.iter().any(|damage| damage.flaw == Flaw::Foreign), "{whose}: {damage:?}");
        drop(log);
        assert_eq!(machine.read_file(&ours), theirs, "{whose}: it was touched");
        assert!(ledger.check_damaged(&machine, &[harmed()], whose) >= 4, "{whose}");
        assert_eq!(machine.read_file(&ours), theirs, "{whose}: it was touched");
    }
}

#[test]
fn a_foreign_segment_behind_the_end_is_set_aside_and_reported_and_makes_way() {
    let (machine, ledger) = closed_log(29, 2);
    let theirs = machine.read_file(segments(&machine, &name("clicks", 0)).first().unwrap());
    machine.write_file("topics/orders/0/00000000000000000050.log", &theirs);

    let log = open(&machine);

    let damage = log.recovery_report().damage.clone();
    let [of_it] = &damage[..] else { panic!("{damage:?}") };
    assert_eq!((of_it.flaw, of_it.partition.as_ref()), (Flaw::Foreign, Some(&harmed())));
    let there =
        machine.files().into_iter().filter(|path| of_it.path.ends_with(path)).map(|path| machine.read_file(path));
    assert_eq!(there.collect::<Vec<_>>(), [theirs], "it is where the report says");
    log.close().unwrap();
    ledger.check_damaged(&machine.kill(), &[harmed()], "in the next life");
    assert!(open(&machine.kill()).recovery_report().is_clean());
}

#[test]
fn a_foreign_segment_with_the_name_of_an_offset_inside_of_a_batch_takes_nothing_from_it() {
    for name_of_it in 1..7u64 {
        let machine = Machine::new(name_of_it);
        let log = open(&machine);
        for topic in ["orders", "clicks"] {
            log.create_topic(topic, TopicConfig::new()).unwrap();
        }
        let records =
            |values: &'static [&str]| values.iter().map(|value| ProducerRecord::new("orders", value.as_bytes()));
        for values in [&["a", "b"][..], &["c", "d", "e", "f"]] {
            log.producer().send_batch(records(values)).unwrap().wait().unwrap();
        }
        let machine = machine.kill();
        let theirs = machine.read_file(segments(&machine, &name("clicks", 0)).first().unwrap());
        machine.write_file(format!("topics/orders/0/{name_of_it:020}.log"), &theirs);

        let followed = machine.open_read_only().unwrap();
        assert_eq!(followed.recovery_report().damage.len(), 1, "{name_of_it}");
        drop(followed);
        for life in 0..2 {
            let log = open(&machine);
            let report = log.recovery_report();
            let said = report.damage.iter().any(|damage| damage.flaw == Flaw::Foreign);
            assert!(said || life > 0, "offset {name_of_it}, life {life}: {report:?}");
            let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
            consumer.assign([name("orders", 0)]).unwrap();
            let found = consumer.poll(Duration::ZERO).unwrap();
            let found: Vec<_> = found.iter().map(|record| record.value().unwrap().to_vec()).collect();
            assert_eq!(found, ["a", "b", "c", "d", "e", "f"].map(Vec::from), "offset {name_of_it}, life {life}");
        }
    }
}

#[test]
fn an_old_backup_in_the_place_of_a_segment_does_not_pass_for_it() {
    let (machine, mut ledger) = closed_log(13, 2);
    let path = segments(&machine, &harmed())[0].clone();
    let backup = machine.read_file(&path);
    for more in [1, 4] {
        // Still the newest segment; then one in the middle.
        let log = open(&machine);
        for _ in 0..more {
            ledger.send(&log, &harmed()).unwrap().wait().unwrap();
        }
        log.close().unwrap();
        let machine = machine.kill();
        machine.write_file(&path, &backup);

        let reported = ledger.check_damaged(&machine, &[harmed()], &format!("with {more} more"));
        assert!(reported > 0, "with {more} more");
    }
}

/// Such a disk has on it what it had before: what it called durable since is nowhere, and nothing can bring it back.
#[test]
fn what_a_disk_that_lies_about_flushing_took_is_missed_once_the_log_was_closed_and_else_no_record_is_wrong() {
    for (kept, closed) in (0..8).flat_map(|kept| [(kept, true), (kept, false)]) {
        let case = format!("{kept} of 8 kept, closed: {closed}");
        let (machine, mut ledger) = closed_log(28, 2);
        let log = open(&machine);
        let mut on_disk = Vec::new();
        for sent in 0..8 {
            if sent == kept {
                on_disk =
                    segments(&machine, &harmed()).into_iter().map(|path| (machine.read_file(&path), path)).collect();
            }
            ledger.send(&log, &harmed()).unwrap().wait().unwrap();
        }
        if closed {
            log.close().unwrap();
        }
        let machine = machine.kill();
        segments(&machine, &harmed()).iter().for_each(|path| machine.remove_file(path));
        on_disk.iter().for_each(|(bytes, path)| machine.write_file(path, bytes));

        if closed {
            let reported = ledger.check_damaged(&machine, &[harmed()], &case);
            assert!(reported >= 8 - kept, "{case}: {reported} were reported");
        } else {
            let (found, _) = read_around_damage(&open(&machine), &harmed());
            let sent = &ledger.accounts[&harmed()].accepted;
            assert!(found.iter().all(|(offset, value)| sent[*offset as usize] == *value), "{case}");
            assert!(found.len() as u64 >= 2 + kept, "{case}: {} are left", found.len());
        }
    }
}

#[test]
fn there_is_no_index_to_be_wrong_and_every_offset_is_found() {
    let (machine, ledger) = closed_log(14, 18);
    for stray in ["00000000000000000000.index", "00000000000000000004.index", "00000000000000000000.timeindex"] {
        machine.write_file(Path::new("topics/orders/0").join(stray), &[0xff; 1000]);
    }
    let log = open(&machine);
    assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
    let mut reader = reader(&log, &harmed());
    for offset in (0..18u64).rev() {
        reader.seek(&harmed(), offset).unwrap();
        let records = reader.poll(NOW).unwrap();
        let first = records.iter().next().unwrap();
        assert_eq!(first.offset().get(), offset);
        assert_eq!(first.value().unwrap(), ledger.accounts[&harmed()].accepted[offset as usize]);
    }
    assert!(machine.files().iter().all(|path| !path.ends_with("00000000000000000000.idx")));
}

#[test]
fn stray_files_are_left_alone_and_bytes_behind_the_end_are_cut_and_reported() {
    let (machine, ledger) = closed_log(15, 6);
    let newest = segments(&machine, &harmed()).pop().unwrap();
    let strays =
        ["notes.txt", "topics/orders/README", "topics/orders/0/7.log", "topics/orders/0/x.log.bak", "topics/.DS"];
    for stray in strays {
        machine.write_file(stray, b"mine");
    }
    let log = open(&machine);
    assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
    log.close().unwrap();
    strays.iter().for_each(|stray| assert_eq!(machine.read_file(stray), b"mine"));

    for garbage in [vec![7; 1], vec![7; 500], vec![0xff; 5000], [vec![0; 3000], vec![1; 9]].concat()] {
        let machine = machine.kill();
        let mut bytes = machine.read_file(&newest);
        bytes.extend(&garbage);
        machine.write_file(&newest, &bytes);

        let log = open(&machine);
        assert!(log.recovery_report().damage.is_empty(), "{:?}", log.recovery_report());
        assert!(log.recovery_report().bytes_cut > 0, "{} bytes of garbage", garbage.len());
        drop(log);
        assert_eq!(ledger.check_damaged(&machine, &[], "garbage behind the end"), 0);
    }
}

/// Bytes that somebody made up for us: noise, forged lengths, pieces of a real segment.
fn hostile(real: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = real.len();
    let real_again = real.clone();
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6000),
        prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), Just(8)], 0..6000),
        (0..length, prop::collection::vec(any::<u8>(), 1..64)).prop_map(move |(at, noise)| {
            let mut bytes = real.clone();
            let end = (at + noise.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&noise[..end - at]);
            bytes
        }),
        (0..length / 8, any::<u32>()).prop_map(move |(word, forged)| {
            let mut bytes = real_again.clone();
            bytes[word * 8..word * 8 + 4].copy_from_slice(&forged.to_le_bytes());
            bytes
        }),
    ]
}

#[test]
fn hostile_bytes_in_any_file_are_an_error_and_never_a_panic_or_a_wrong_record() {
    let (machine, ledger) = closed_log(16, 6);
    let log = open(&machine);
    commit(&log, &harmed(), 2).unwrap();
    drop(log);
    let machine = machine.kill();
    let files: Vec<_> = machine.files().into_iter().filter(|path| path.extension().is_some()).collect();
    let real = machine.read_file(&segments(&machine, &harmed())[0]);
    let cases = if full_sweep() { 2000 } else { 60 };
    proptest!(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() },
        |(which in 0..files.len(), bytes in hostile(real))| {
            let machine = machine.kill();
            let path = &files[which];
            machine.write_file(path, &bytes);
            let in_topics = path.starts_with("topics");
            if in_topics {
                let mut parts = path.components().skip(1).map(|part| part.as_os_str().to_str().unwrap());
                let harmed = name(parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
                ledger.check_damaged(&machine, &[harmed], &format!("{}", path.display()));
            } else if let Ok(log) = machine.open(config()) {
                // Whatever became of catalog and groups, no record is another.
                drop(log);
                ledger.check_damaged(&machine.kill(), &[], &format!("{}", path.display()));
            }
        }
    );
}

#[test]
fn a_file_longer_than_any_segment_is_not_walked_over() {
    let directory = tempfile::tempdir().unwrap();
    let log = tidelog::EventLog::open_with(directory.path(), config()).unwrap();
    log.create_topic("orders", small(Durability::Os)).unwrap();
    log.producer().send(ProducerRecord::new("orders", b"1")).unwrap();
    drop(log);
    // A hole of a terabyte, which would take an hour to read.
    let path = directory.path().join("topics/orders/0/00000000000000000000.log");
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 40).unwrap();

    let log = tidelog::EventLog::open_with(directory.path(), config()).unwrap();

    assert!(matches!(log.recovery_report().damage[0].flaw, Flaw::Length(_)), "{:?}", log.recovery_report());
}
