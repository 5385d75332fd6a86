//! Forks and backups: what they hold, what they share, and what is left of one that was interrupted.
#![cfg(feature = "sim")]

mod sweep;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidelog::sim::{Failure, Fault, Machine, Operation, PowerCut};
use tidelog::{
    ConsumerConfig, Durability, Error, EventLog, GroupsBeyond, LogConfig, Offset, OffsetReset, ProducerRecord,
    Retention, TopicConfig, TopicPartition, WhenFull, inspect,
};

const TOPIC: &str = "orders";
const NOW: Duration = Duration::ZERO;
const COPY: &str = "/simulated/copy";
/// Five of these fill a segment.
const VALUE_BYTES: usize = 700;

fn partition(number: u32) -> TopicPartition {
    TopicPartition::new(TOPIC, number)
}

fn options() -> LogConfig {
    LogConfig::new().background(false)
}

fn open(machine: &Machine) -> EventLog {
    machine.open(options()).unwrap()
}

fn value(tag: u8) -> Vec<u8> {
    vec![tag; VALUE_BYTES]
}

fn send(log: &EventLog, number: u32, count: u64, tag: u8) {
    for _ in 0..count {
        log.producer().send(ProducerRecord::new(TOPIC, &value(tag)).partition(number)).unwrap();
    }
    log.producer().flush().unwrap();
}

/// A log with two partitions of so many records, and a group that has committed some of them.
fn log_with(machine: &Machine, durability: Durability, records: u64) -> EventLog {
    let log = open(machine);
    log.create_topic(TOPIC, TopicConfig::new().partitions(2).segment_bytes(4096).durability(durability)).unwrap();
    send(&log, 0, records, 1);
    send(&log, 1, records / 2, 2);
    commit(&log, 0, records - 1);
    log
}

fn commit(log: &EventLog, number: u32, offset: u64) {
    let mut group = log.consumer(ConsumerConfig::group("billing").auto_commit(false)).unwrap();
    group.assign([partition(number)]).unwrap();
    group.commit_offsets([(partition(number), Offset::new(offset))]).unwrap();
}

/// All records and all that is committed: what the log is to its users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Contents {
    records: BTreeMap<TopicPartition, Vec<(u64, u8)>>,
    committed: BTreeMap<(String, TopicPartition), u64>,
}

fn contents(log: &EventLog) -> Contents {
    let mut found = Contents::default();
    for topic in log.list_topics() {
        for place in log.describe_topic(&topic).unwrap().partitions {
            let name = TopicPartition::new(topic.as_str(), place.partition);
            let mut reader = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::None)).unwrap();
            reader.assign([name.clone()]).unwrap();
            reader.seek_to_beginning(&[]).unwrap();
            let records = found.records.entry(name).or_default();
            loop {
                let polled = reader.poll(NOW).unwrap();
                if polled.is_empty() {
                    break;
                }
                for record in &polled {
                    let tag = record.value().unwrap()[0];
                    assert_eq!(record.value(), Some(&value(tag)[..]));
                    records.push((record.offset().get(), tag));
                }
            }
        }
    }
    for group in log.list_groups() {
        for offset in log.describe_group(&group).unwrap().offsets {
            assert!(offset.committed <= Some(offset.end), "{group} is beyond: {offset:?}");
            found.committed.extend(offset.committed.map(|at| ((group.clone(), offset.partition), at.get())));
        }
    }
    found
}

fn is_clean(log: &EventLog) {
    assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
}

/// Makes a copy of either kind.
fn copy(log: &EventLog, fork: bool) -> Result<tidelog::Copied, Error> {
    if fork { log.fork(COPY) } else { log.backup(COPY, None, |_| {}) }
}

/// The segment files below a directory of the machine.
fn segments(machine: &Machine, below: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = machine.files().into_iter().filter(|path| path.starts_with(below));
    files
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .map(|path| (path.clone(), machine.read_file(path)))
        .collect()
}

#[test]
fn a_copy_holds_what_the_log_held_and_both_go_their_own_way() {
    for (fork, durability) in [(true, Durability::Sync), (true, Durability::Os), (false, Durability::Sync)] {
        let machine = Machine::new(1);
        let log = log_with(&machine, durability, 23);
        log.delete_records(&partition(0), 6).unwrap();
        log.truncate(&partition(1), 8, GroupsBeyond::Refuse).unwrap();
        send(&log, 1, 3, 3);
        let held = contents(&log);

        let report = copy(&log, fork).unwrap();

        assert_eq!(report.path, Path::new(COPY));
        assert_eq!((report.shared > 0, report.copied >= 4), (fork, true), "{report:?}");
        assert_eq!(contents(&log), held);
        // Whatever becomes of the one is nothing to the other, also when power cuts and recovery come in between.
        send(&log, 0, 9, 4);
        let after = contents(&log);
        let machine = machine.power_cut(PowerCut::KeepAll);
        assert_eq!(machine.verify_copy(COPY).unwrap().findings, []);
        let twin = machine.open_copy(COPY, options()).unwrap();
        is_clean(&twin);
        assert_eq!(contents(&twin), held);
        let before = segments(&machine, "topics");
        send(&twin, 0, 12, 5);
        twin.truncate(&partition(1), 3, GroupsBeyond::Refuse).unwrap();
        twin.delete_records(&partition(0), 20).unwrap();
        commit(&twin, 1, 3);
        let experiment = contents(&twin);
        twin.close().unwrap();
        assert_eq!(segments(&machine, "topics"), before);
        let log = open(&machine);
        is_clean(&log);
        assert_eq!(contents(&log), after);
        log.delete_topic(TOPIC).unwrap();
        log.close().unwrap();
        let machine = machine.power_cut(PowerCut::LoseUnsynced);
        assert_eq!(machine.verify_copy(COPY).unwrap().findings, []);
        let twin = machine.open_copy(COPY, options()).unwrap();
        is_clean(&twin);
        assert_eq!(contents(&twin), experiment);
    }
}

#[test]
fn a_fork_shares_all_but_what_is_appended_to() {
    let machine = Machine::new(2);
    let log = log_with(&machine, Durability::Sync, 50);
    let report = log.fork(COPY).unwrap();
    // Ten segments and five; of each partition, the catalog and the group the last.
    assert_eq!((report.shared, report.copied), (9 + 4, 4));
    send(&log, 0, 500, 1);
    let more = log.fork("/simulated/again").unwrap();
    assert_eq!((more.shared, more.copied), (report.shared + 100, 4));
    assert!(more.copied_bytes < report.copied_bytes + 8192, "it takes no longer: {report:?}, {more:?}");
    let machine = machine.kill();
    for path in [COPY, "/simulated/again"] {
        is_clean(&machine.open_copy(path, options()).unwrap());
    }
}

#[test]
fn what_is_there_already_is_left_alone_and_what_was_interrupted_is_cleared() {
    let machine = Machine::new(3);
    let log = log_with(&machine, Durability::Sync, 12);
    for fork in [true, false] {
        machine.fail(Fault::new(Operation::Sync, 3).failure(Failure::Errno(5)));
        copy(&log, fork).unwrap_err();
        machine.heal();
        assert!(machine.files().iter().any(|path| path.starts_with("copy.unfinished")));
        assert!(!machine.files().iter().any(|path| path.starts_with("copy")));
    }
    copy(&log, true).unwrap();
    assert!(!machine.files().iter().any(|path| path.starts_with("copy.unfinished")));
    for fork in [true, false] {
        let error = copy(&log, fork).unwrap_err().to_string();
        assert_eq!(error, "cannot create /simulated/copy: there is something already; a copy is a new directory");
    }
    let machine = machine.kill();
    assert_eq!(machine.verify_copy(COPY).unwrap().findings, []);
}

#[test]
fn where_no_links_can_be_a_fork_says_what_to_do() {
    let machine = Machine::new(4);
    let log = log_with(&machine, Durability::Sync, 23);
    machine.fail(Fault::new(Operation::Link, 0).failure(Failure::Errno(18)));
    let error = log.fork(COPY).unwrap_err().to_string();
    assert!(error.starts_with("cannot link /simulated/topics/orders/0/00000000000000000000.log: "), "{error}");
    assert!(error.ends_with(
        "; a fork shares files with its log, so /simulated/copy must lie on the same file system, and that must know hard \
         links; a backup can lie anywhere"
    ), "{error}");
    log.backup(COPY, None, |_| {}).unwrap();
}

#[test]
fn a_later_backup_shares_with_the_one_before_what_is_the_same_there() {
    let machine = Machine::new(5);
    let log = log_with(&machine, Durability::Sync, 23);
    let first = log.backup("/simulated/first", None, |_| {}).unwrap();
    assert_eq!(first.shared, 0);
    send(&log, 0, 10, 3);
    let path = Path::new("/simulated/first");
    let second = log.backup("/simulated/second", Some(path), |_| {}).unwrap();
    // Of the 5 segments of the one and the 3 of the other partition, all but the last.
    assert_eq!(second.shared, 4 + 2, "{second:?}");
    let held = contents(&log);
    log.close().unwrap();

    // A backup that went on by itself has other records under the same names, of the same lengths.
    let machine = machine.kill();
    let twin = machine.open_copy("/simulated/first", options()).unwrap();
    send(&twin, 0, 20, 9);
    twin.close().unwrap();
    let machine = machine.kill();
    machine.flip_bit("first/topics/orders/1/00000000000000000000.log", 8 * 1000);
    let log = open(&machine);
    let third = log.backup("/simulated/third", Some(path), |_| {}).unwrap();
    assert_eq!(third.shared, 4 + 1, "{third:?}");
    log.close().unwrap();
    let machine = machine.kill();
    for path in ["/simulated/second", "/simulated/third"] {
        assert_eq!(machine.verify_copy(path).unwrap().findings, [], "{path}");
        let twin = machine.open_copy(path, options()).unwrap();
        assert_eq!(contents(&twin), held, "{path}");
    }
    assert!(matches!(
        open(&machine).backup(COPY, Some(Path::new("/simulated/none")), |_| {}),
        Err(Error::NotALog { .. })
    ));
}

#[test]
fn what_is_lost_of_a_copy_is_missed() {
    for fork in [true, false] {
        let machine = Machine::new(9);
        let log = log_with(&machine, Durability::Os, 23);
        copy(&log, fork).unwrap();
        let machine = machine.kill();
        machine.remove_file("copy/topics/orders/0/00000000000000000020.log");
        assert!(!machine.verify_copy(COPY).unwrap().is_sound());
        let twin = machine.open_copy(COPY, options()).unwrap();
        assert_eq!(twin.recovery_report().damage[0].offsets.start, Offset::new(20));
    }
}

#[test]
fn what_goes_while_it_is_copied_is_copied_and_goes_then() {
    let machine = Machine::new(6);
    let log = log_with(&machine, Durability::Sync, 23);
    let ring = TopicConfig::new().segment_bytes(4096).max_bytes(Some(3 * 4096), WhenFull::DropOldest);
    log.create_topic("ring", ring).unwrap();
    let fill_ring = |tag: u8| {
        (0..40).for_each(|_| drop(log.producer().send(ProducerRecord::new("ring", &value(tag))).unwrap()));
        log.producer().flush().unwrap();
    };
    fill_ring(1);
    let held = contents(&log);
    let files = segments(&machine, "topics").len();
    let (mut told, mut done) = (0, 0);
    log.backup(COPY, None, |progress| {
        assert!(progress.done_bytes >= done && progress.done_bytes <= progress.total_bytes);
        done = progress.done_bytes;
        told += 1;
        if told == 1 {
            log.delete_records(&partition(0), 20).unwrap();
            log.alter_topic(TOPIC, log.describe_topic(TOPIC).unwrap().config.retention(Retention::new().records(1)))
                .unwrap();
            log.apply_retention().unwrap();
            for refused in [
                log.delete_topic(TOPIC).unwrap_err(),
                log.delete_group("billing").unwrap_err(),
                log.truncate(&partition(1), 10, GroupsBeyond::PullBack).map(drop).unwrap_err(),
            ] {
                assert!(refused.to_string().contains("is being copied"), "{refused}");
            }
            send(&log, 0, 30, 7);
            fill_ring(2);
            commit(&log, 0, 50);
            log.create_topic("new", TopicConfig::new()).unwrap();
        }
    })
    .unwrap();
    assert!(told >= 8 && done > 0);
    assert_eq!(log.describe_topic(TOPIC).unwrap().partitions[0].log_start.get(), 20);
    assert!(segments(&machine, "topics").len() < files + 7, "the segments are gone");
    assert_eq!(log.describe_topic("ring").unwrap().partitions[0].segments, 3);
    assert!(log.describe_group("billing").is_ok());
    log.truncate(&partition(1), 10, GroupsBeyond::PullBack).unwrap();
    log.delete_group("billing").unwrap();
    log.delete_topic(TOPIC).unwrap();
    let machine = machine.kill();
    let twin = machine.open_copy(COPY, options()).unwrap();
    is_clean(&twin);
    assert_eq!(contents(&twin), held);
}

#[test]
fn recovery_does_not_zero_a_tail_in_a_file_that_another_log_reads_too() {
    for shared in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
        let log = EventLog::open_with(&data, options()).unwrap();
        log.create_topic(TOPIC, TopicConfig::new().segment_bytes(4096).durability(Durability::Os)).unwrap();
        send(&log, 0, 13, 1);
        if shared { log.fork(&copy) } else { log.backup(&copy, None, |_| {}) }.unwrap();
        log.close().unwrap();
        // Everything is gone that proves the first segment to be synced: its end, what came behind it, and the catalog.
        let first = data.join("topics/orders/0/00000000000000000000.log");
        let mut bytes = fs::read(&first).unwrap();
        bytes[3000..].iter_mut().for_each(|byte| *byte = 7);
        let file = fs::OpenOptions::new().write(true).open(&first).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        for gone in ["00000000000000000005.log", "00000000000000000010.log"] {
            fs::remove_file(first.with_file_name(gone)).unwrap();
        }
        fs::remove_dir_all(data.join("catalog")).unwrap();

        let log = EventLog::open_with(&data, options()).unwrap();
        let end = log.describe_topic(TOPIC).unwrap().partitions[0].log_end.get();
        assert_eq!(fs::read(&first).unwrap() == bytes, shared);
        // Nor is it written to later.
        send(&log, 0, 5, 2);
        assert_eq!(fs::read(&first).unwrap() == bytes, shared);
        log.close().unwrap();
        let log = EventLog::open_with(&data, options()).unwrap();
        assert!(log.describe_topic(TOPIC).unwrap().partitions[0].log_end.get() >= end + 5);
    }
}

#[test]
fn what_is_not_proven_to_be_synced_is_not_shared_beside_its_writer() {
    for how in PowerCut::ALL {
        let machine = Machine::new(8);
        machine.set_write_back(false);
        let log = log_with(&machine, Durability::Os, 23);
        let held = contents(&log);
        machine.open_read_only().unwrap().fork(COPY).unwrap();
        let machine = machine.power_cut(how);
        drop(log);
        let twin = machine.open_copy(COPY, options()).unwrap();
        is_clean(&twin);
        assert_eq!(contents(&twin), held, "{how:?}");
    }
}

#[test]
fn a_copy_is_of_one_moment_also_while_threads_send_commit_and_remove() {
    /// As many as it takes for a look at one after the other to be seen.
    const PARTITIONS: u32 = 40;
    for fork in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let log = EventLog::open(directory.path().join("data")).unwrap();
        let config = TopicConfig::new().partitions(PARTITIONS).segment_bytes(1 << 20).durability(Durability::Os);
        log.create_topic(TOPIC, config).unwrap();
        let done = AtomicBool::new(false);
        let copies: Vec<PathBuf> = std::thread::scope(|scope| {
            let (log, done) = (&log, &done);
            // The last partition answers the first: an answer without its question was never there.
            scope.spawn(move || {
                for number in 0..u64::MAX {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    for place in [0, PARTITIONS - 1] {
                        let value = value(number as u8);
                        log.producer()
                            .send(ProducerRecord::new(TOPIC, &value).partition(place))
                            .unwrap()
                            .wait()
                            .unwrap();
                    }
                }
            });
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let end = log.describe_topic(TOPIC).unwrap().partitions[0].high_watermark.get();
                    commit(log, 0, end);
                    for place in [0, PARTITIONS - 1].into_iter().filter(|_| end > 500) {
                        log.delete_records(&partition(place), end - 500).unwrap();
                    }
                }
            });
            let make = |number: u32| {
                let path = directory.path().join(format!("copy-{number}"));
                let copied = if fork { log.fork(&path) } else { log.backup(&path, None, |_| {}) };
                copied.unwrap();
                path
            };
            let made = (0..2).map(make).collect();
            done.store(true, Ordering::Relaxed);
            made
        });
        for path in copies {
            assert_eq!(inspect::verify(&path, |_| {}).unwrap().findings, []);
            let twin = EventLog::open_with(&path, options()).unwrap();
            is_clean(&twin);
            contents(&twin);
            let ends = twin
                .describe_topic(TOPIC)
                .unwrap()
                .partitions
                .iter()
                .map(|part| part.log_end.get())
                .collect::<Vec<_>>();
            let (asked, answered) = (ends[0], ends[PARTITIONS as usize - 1]);
            assert!(asked == answered || asked == answered + 1, "{ends:?}");
        }
    }
}

/// Tells a thread to end, also if a test fails: it would be waited for.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_log_that_another_process_writes_is_copied_beside_it() {
    for fork in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let log = EventLog::open(directory.path().join("data")).unwrap();
        log.create_topic(TOPIC, TopicConfig::new().partitions(2).segment_bytes(4096)).unwrap();
        send(&log, 0, 23, 1);
        let beside = EventLog::open_read_only(directory.path().join("data")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (log, done) = (&log, &done);
            let _stop = StopAtEnd(done);
            scope.spawn(move || {
                for number in 0..u64::MAX {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    send(log, number as u32 % 2, 1, number as u8);
                    let end = log.describe_topic(TOPIC).unwrap().partitions[0].log_end.get();
                    commit(log, 0, end);
                    if number % 100 == 99 {
                        log.delete_records(&partition(0), end - 20).unwrap();
                        log.truncate(&partition(1), number / 3, GroupsBeyond::PullBack).ok();
                    }
                }
            });
            for number in 0..6 {
                let path = directory.path().join(format!("copy-{number}"));
                let copied = if fork { beside.fork(&path) } else { beside.backup(&path, None, |_| {}) };
                match copied {
                    Err(Error::InvalidState { .. }) => continue,
                    copied => drop(copied.unwrap()),
                }
                let findings = inspect::verify(&path, |_| {}).unwrap();
                assert!(findings.is_sound(), "{:?}", findings.findings);
                let twin = EventLog::open_with(&path, options()).unwrap();
                let report = twin.recovery_report();
                assert!(report.damage.is_empty() && report.pulled_back.is_empty(), "{report:?}");
                contents(&twin);
            }
        });
        // The log whose files are shared has lost nothing by that.
        log.close().unwrap();
        assert_eq!(inspect::verify(directory.path().join("data"), |_| {}).unwrap().findings, []);
    }
}

#[test]
fn a_copy_beside_a_writer_is_begun_anew_when_that_cuts_or_removes_what_is_copied() {
    for what in 0..3 {
        let machine = Machine::new(10);
        let log = log_with(&machine, Durability::Sync, 23);
        let beside = machine.open_read_only().unwrap();
        let mut told = 0;
        beside
            .backup(COPY, None, |_| {
                told += 1;
                match what {
                    _ if told > 1 => {}
                    0 => {
                        // The files that are gone are there again, with other records.
                        log.truncate(&partition(0), 10, GroupsBeyond::PullBack).unwrap();
                        send(&log, 0, 20, 5);
                        log.maintain();
                    }
                    1 => drop(log.delete_records(&partition(1), 10).unwrap()),
                    _ => log.delete_topic(TOPIC).unwrap(),
                }
            })
            .unwrap();
        let held = contents(&log);
        let machine = machine.kill();
        assert!(machine.verify_copy(COPY).unwrap().is_sound(), "{what}");
        let twin = machine.open_copy(COPY, options()).unwrap();
        is_clean(&twin);
        assert_eq!(contents(&twin), held, "{what}");
    }
}

/// Of so many cases one is run, unless all are.
const ONE_IN: u64 = 7;

#[test]
fn wherever_the_machine_stops_a_copy_is_whole_or_it_is_none() {
    let (mut none, mut whole) = (0, 0);
    for fork in [true, false] {
        let (first, last) = {
            let machine = Machine::new(1);
            let log = log_with(&machine, Durability::Sync, 13);
            let first = machine.operations();
            copy(&log, fork).unwrap();
            (first, machine.operations())
        };
        for (at, nth) in sweep::stops(first..last + 1, ONE_IN) {
            let how = PowerCut::ALL[nth];
            let case = format!("fork: {fork}, stopped at operation {at} of {first}..{last}, {how:?}");
            let machine = Machine::new(1);
            let log = log_with(&machine, Durability::Sync, 13);
            let held = contents(&log);
            machine.crash_at(at);
            let told = copy(&log, fork).is_ok();
            drop(log);
            let machine = machine.power_cut(how);
            let is_there = machine.files().iter().any(|path| path.starts_with("copy"));
            assert!(is_there || !told, "{case}: the copy is gone");
            // The log first: what it recovers must leave the copy as it is; and the other way round.
            for log_first in [true, false] {
                let machine = machine.kill();
                let check_log = || {
                    let log = open(&machine);
                    is_clean(&log);
                    assert_eq!(contents(&log), held, "{case}");
                    send(&log, 0, 7, 8);
                    log.close().unwrap();
                };
                let check_copy = || {
                    if is_there {
                        assert_eq!(machine.verify_copy(COPY).unwrap().findings, [], "{case}");
                        let twin = machine.open_copy(COPY, options()).unwrap();
                        is_clean(&twin);
                        assert_eq!(contents(&twin), held, "{case}");
                        send(&twin, 0, 7, 9);
                        twin.close().unwrap();
                    }
                };
                if log_first {
                    check_log();
                    check_copy();
                } else {
                    check_copy();
                    check_log();
                }
                assert_eq!(machine.kill().verify().unwrap().findings, [], "{case}");
            }
            if !is_there {
                // What is left of it is in nobody's way.
                let log = open(&machine);
                copy(&log, !fork).unwrap();
                drop(log);
                assert_eq!(machine.verify_copy(COPY).unwrap().findings, [], "{case}");
            }
            if is_there { whole += 1 } else { none += 1 }
        }
    }
    println!("{none} times there was no copy, {whole} times a whole one");
    assert!(none > 20 && whole > 0, "{none}, {whole}");
}

#[test]
fn whatever_operation_fails_a_copy_is_whole_or_it_is_none() {
    let mut failed = 0;
    for fork in [true, false] {
        for fault in sweep::faults(&[Failure::Errno(5)], 120, ONE_IN) {
            let case = format!("fork: {fork}, {fault:?}");
            let machine = Machine::new(fault.at);
            let log = log_with(&machine, Durability::Sync, 13);
            let held = contents(&log);
            machine.fail(fault);
            let told = copy(&log, fork);
            machine.heal();
            failed += u64::from(told.is_err());
            let machine = machine.kill();
            let is_there = machine.files().iter().any(|path| path.starts_with("copy"));
            assert!(is_there || told.is_err(), "{case}");
            assert_eq!(contents(&open(&machine)), held, "{case}");
            if is_there {
                assert_eq!(machine.verify_copy(COPY).unwrap().findings, [], "{case}");
                assert_eq!(contents(&machine.open_copy(COPY, options()).unwrap()), held, "{case}");
            }
        }
    }
    println!("{failed} copies failed");
    assert!(failed > 10, "{failed}");
}
