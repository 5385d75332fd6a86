//! The catalog, damaged or gone: rebuilt from the directories, and nothing is removed because nobody mentions it.

use std::path::{Path, PathBuf};

use tidelog::sim::Machine;
use tidelog::{Durability, Error, EventLog, LogConfig};

use crate::shared::{Ledger, closed_log, commit, config, name, open, read_around_damage, resuming, small, some_of};

const FILE: &str = "catalog/00000000000000000000.log";

fn data(machine: &Machine) -> Vec<(PathBuf, Vec<u8>)> {
    let files = machine.files().into_iter().filter(|path| path.starts_with("topics") || path.starts_with("groups"));
    files.map(|path| (path.clone(), machine.read_file(&path))).collect()
}

/// A closed log with a group that has committed, and a topic without a record.
fn whole_log(seed: u64) -> (Machine, Ledger) {
    let (machine, ledger) = closed_log(seed, 6);
    let log = open(&machine);
    log.create_topic("empty", small(Durability::Sync).partitions(3)).unwrap();
    commit(&log, &name("orders", 1), 4).unwrap();
    log.close().unwrap();
    (machine.kill(), ledger)
}

fn partitions(log: &EventLog, topic: &str) -> usize {
    log.describe_topic(topic).unwrap().partitions.len()
}

#[test]
fn a_lost_catalog_is_rebuilt_from_the_directories_and_reported() {
    let (machine, ledger) = whole_log(1);
    let removed = machine.kill();
    removed.remove_file(FILE);
    let unreadable = machine.kill();
    unreadable.flip_bit(FILE, 8 * 20);
    let emptied = machine.kill();
    emptied.write_file(FILE, &[]);
    let zeroed = machine.kill();
    zeroed.write_file(FILE, &[0; 65536]);

    for (case, machine) in [("removed", removed), ("header", unreadable), ("emptied", emptied), ("zeroed", zeroed)] {
        let log = open(&machine);
        let report = log.recovery_report();
        assert_eq!(report.rebuilt, ["clicks", "empty", "orders"], "{case}: {report:?}");
        assert!(!report.damage.is_empty() && !report.is_clean(), "{case}: {report:?}");
        assert_eq!(log.list_topics(), ["clicks", "empty", "orders"], "{case}");
        assert_eq!((partitions(&log, "orders"), partitions(&log, "empty")), (2, 3), "{case}");
        let mut group = resuming(&log, &name("orders", 1));
        assert_eq!(group.poll(crate::shared::NOW).unwrap().len(), 2, "{case}: the group is where it was");
        drop(group);
        log.close().unwrap();
        ledger.check_damaged(&machine.kill(), &[], case);

        // The second time there is nothing to rebuild.
        assert_eq!(open(&machine).recovery_report().rebuilt, Vec::<String>::new(), "{case}");
    }
}

#[test]
fn whatever_byte_of_the_catalog_is_damaged_no_record_and_no_commit_is_lost() {
    let (machine, ledger) = whole_log(2);
    let before = data(&machine);
    let used = machine.read_file(FILE).iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let mut rebuilt = 0;
    for at in some_of(used, 43, 0) {
        let machine = machine.kill();
        machine.flip_bit(FILE, at * 8 + at % 8);
        let log = machine.open(config()).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        rebuilt += log.recovery_report().rebuilt.len();
        assert_eq!(log.list_topics(), ["clicks", "empty", "orders"], "byte {at}");
        assert_eq!((partitions(&log, "orders"), partitions(&log, "empty")), (2, 3), "byte {at}");
        let committed = resuming(&log, &name("orders", 1)).committed(&name("orders", 1)).unwrap();
        assert_eq!(committed.unwrap().offset.get(), 4, "byte {at}");
        drop(log);
        ledger.check_damaged(&machine.kill(), &[], &format!("byte {at}"));
    }
    assert!(rebuilt > 0);
    assert_eq!(data(&machine), before);
}

#[test]
fn a_catalog_that_forgot_its_epoch_does_not_give_one_twice() {
    let (machine, mut ledger) = whole_log(3);
    // Three lives, the last of which leaves bytes behind that never became durable.
    for _ in 0..3 {
        open(&machine).close().unwrap();
    }
    machine.remove_file(FILE);
    for life in 0..3 {
        let log = open(&machine);
        ledger.send(&log, &name("orders", 0)).unwrap().wait().unwrap();
        drop(log);
        if life == 0 {
            // And again, with what the first rebuilt one had written.
            machine.remove_file(machine.files().iter().find(|path| path.starts_with("catalog")).unwrap());
        }
    }
    // A batch with a lower epoch than its predecessor's would not be believed.
    ledger.check_damaged(&machine, &[], "three lives after the catalog was lost");
}

#[test]
fn nothing_is_removed_because_nobody_mentions_it() {
    let (machine, ledger) = whole_log(4);
    // An old catalog, from when there was nothing: as a backup, or a disk that lost a write, would leave it.
    let old = {
        let (elsewhere, _) = whole_log(4);
        let fresh = Machine::new(4);
        drop(open(&fresh));
        let bytes = fresh.read_file(FILE);
        // The same seed gives the same log, so this is a catalog of this log.
        assert_eq!(bytes[..32], elsewhere.read_file(FILE)[..32]);
        bytes
    };
    machine.write_file(FILE, &old);
    let log = open(&machine);
    assert_eq!(log.recovery_report().rebuilt, ["clicks", "orders"], "{:?}", log.recovery_report());
    drop(log);
    ledger.check_damaged(&machine.kill(), &[], "an old catalog");

    // And a directory of another log is none of ours, and stays.
    let (elsewhere, _) = whole_log(5);
    for path in elsewhere.files().iter().filter(|path| path.starts_with("topics/orders")) {
        let there = Path::new("topics/strange").join(path.strip_prefix("topics/orders").unwrap());
        machine.write_file(there, &elsewhere.read_file(path));
    }
    let before = data(&machine);
    let log = open(&machine);
    assert_eq!(log.recovery_report().unknown, [Path::new("/simulated/topics/strange")]);
    drop(log);
    let strange = |data: Vec<(PathBuf, Vec<u8>)>| {
        data.into_iter().filter(|(path, _)| path.starts_with("topics/strange")).collect::<Vec<_>>()
    };
    assert_eq!(strange(data(&machine)), strange(before));
}

#[test]
fn a_copy_of_a_topic_s_directory_is_reported_and_takes_nothing_from_the_topic() {
    for lost in [false, true] {
        let (machine, ledger) = whole_log(8);
        let orders = machine.files().into_iter().filter(|path| path.starts_with("topics/orders")).collect::<Vec<_>>();
        for path in &orders {
            let there = Path::new("topics/orders-copy").join(path.strip_prefix("topics/orders").unwrap());
            machine.write_file(there, &machine.read_file(path));
        }
        if lost {
            machine.remove_file(FILE);
        }
        for opening in 0..3 {
            let log = open(&machine);
            let report = log.recovery_report();
            let case = format!("lost: {lost}, opening {opening}: {report:?}");
            assert_eq!(report.unknown, [Path::new("/simulated/topics/orders-copy")], "{case}");
            assert_eq!(log.list_topics(), ["clicks", "empty", "orders"], "{case}");
            log.close().unwrap();
            ledger.check_damaged(&machine.kill(), &[], &case);
        }
        let log = machine.open_read_only().unwrap();
        assert_eq!(log.list_topics(), ["clicks", "empty", "orders"]);
        for path in &orders {
            let there = Path::new("topics/orders-copy").join(path.strip_prefix("topics/orders").unwrap());
            assert!(machine.files().contains(&there), "{there:?} is gone");
        }
    }
}

#[test]
fn without_its_catalog_a_log_is_read_as_the_directories_say_and_nothing_is_written() {
    let (machine, ledger) = whole_log(7);
    let removed = machine.kill();
    removed.remove_file(FILE);
    let unreadable = machine.kill();
    unreadable.flip_bit(FILE, 8 * 20);
    for (case, machine) in [("removed", removed), ("header", unreadable)] {
        let before: Vec<_> = machine.files().iter().map(|path| (path.clone(), machine.read_file(path))).collect();
        let log = machine.open_read_only().unwrap();
        let report = log.recovery_report();
        assert_eq!(report.rebuilt, ["clicks", "empty", "orders"], "{case}");
        assert!(!report.damage.is_empty(), "{case}: {report:?}");
        for (partition, account) in &ledger.accounts {
            let (found, damaged) = read_around_damage(&log, partition);
            assert_eq!(found.into_values().collect::<Vec<_>>(), account.accepted, "{case}: {partition}");
            assert!(damaged.is_empty(), "{case}: {partition}: {damaged:?}");
        }
        let committed = resuming(&log, &name("orders", 1)).committed(&name("orders", 1)).unwrap();
        assert_eq!(committed.unwrap().offset.get(), 4, "{case}");
        drop(log);
        let after: Vec<_> = machine.files().iter().map(|path| (path.clone(), machine.read_file(path))).collect();
        assert!(before == after, "{case}: reading changes nothing");
    }

    // Where no file says what the log is called, there is nothing to read.
    for path in machine.files() {
        machine.remove_file(path);
    }
    assert!(matches!(machine.open_read_only(), Err(Error::Corrupt(_))));
}

#[test]
fn a_log_without_its_catalog_is_a_log_all_the_same() {
    let (machine, _) = whole_log(6);
    machine.remove_file(FILE);
    assert!(machine.open(LogConfig::new().background(false).create(false)).is_ok());
}
