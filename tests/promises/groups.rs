//! What a group has committed, damaged or gone: never silently "no position".

use std::path::{Path, PathBuf};

use tidelog::sim::Machine;
use tidelog::{Error, Offset};

use crate::shared::{GROUP, NOW, closed_log, commit, name, open, resuming, some_of};

const FILE: &str = "groups/billing/00000000000000000000.log";

/// A log whose group has committed 2 and then 5 of `orders-0`, and 3 of `orders-1`, closed cleanly.
fn committed_log(seed: u64) -> Machine {
    let (machine, _) = closed_log(seed, 6);
    let log = open(&machine);
    for (partition, offset) in [(0, 2), (1, 3), (0, 5)] {
        commit(&log, &name("orders", partition), offset).unwrap();
    }
    log.close().unwrap();
    machine.kill()
}

/// Where the group resumes, or that it is said to be damaged.
fn resumed(machine: &Machine, partition: u32, case: &str) -> Option<u64> {
    let log = open(machine);
    match resuming(&log, &name("orders", partition)).poll(NOW) {
        Ok(records) => Some(records.iter().next().expect("there are records behind").offset().get()),
        Err(Error::Corrupt(damage)) => {
            assert!(damage.path.ends_with(FILE), "{case}: {damage:?}");
            assert_eq!(damage.partition, None, "{case}");
            assert!(!log.recovery_report().damage.is_empty(), "{case}: opening said nothing");
            None
        }
        Err(error) => panic!("{case}: {error}"),
    }
}

#[test]
fn damaged_commits_are_reported_by_open_and_by_the_first_fetch_and_are_never_no_position() {
    let machine = committed_log(1);
    let bytes = machine.read_file(FILE);
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut damaged = 0;
    for at in some_of(used as u64, 2, 0) {
        let machine = machine.kill();
        machine.flip_bit(FILE, at * 8 + at % 8);
        for (partition, committed) in [(0, 5), (1, 3)] {
            let case = format!("byte {at}, partition {partition}");
            let found = resumed(&machine, partition, &case);
            assert!(found.is_none_or(|found| found == committed), "{case}: resumed at {found:?}");
            damaged += u64::from(found.is_none());
        }
    }
    println!("{damaged} fetches were told of damaged commits");
    assert!(damaged > 50, "{damaged}");
}

#[test]
fn commits_that_are_gone_with_their_page_file_or_directory_are_missed() {
    let machine = committed_log(2);
    let cut = |length: usize| {
        let machine = machine.kill();
        machine.write_file(FILE, &machine.read_file(FILE)[..length]);
        machine
    };
    let zeroed = machine.kill();
    let mut bytes = zeroed.read_file(FILE);
    bytes[128..4096].fill(0);
    zeroed.write_file(FILE, &bytes);
    let removed = machine.kill();
    removed.remove_file(FILE);

    for (case, machine) in
        [("empty", cut(0)), ("cut to the header", cut(128)), ("zeroed", zeroed), ("removed", removed)]
    {
        assert_eq!(resumed(&machine, 0, case), None, "{case}");
    }
}

#[test]
fn the_group_goes_on_once_somebody_says_where_and_is_not_asked_again() {
    let machine = committed_log(3);
    machine.remove_file(FILE);
    let log = open(&machine);
    let partition = name("orders", 0);
    let mut consumer = resuming(&log, &partition);
    for _ in 0..2 {
        assert!(matches!(consumer.poll(NOW), Err(Error::Corrupt(_))));
        assert!(matches!(consumer.committed(&partition), Err(Error::Corrupt(_))));
    }

    consumer.seek(&partition, 1).unwrap();
    assert_eq!(consumer.poll(NOW).unwrap().len(), 5);
    consumer.commit().unwrap();

    assert_eq!(consumer.committed(&partition).unwrap().unwrap().offset, Offset::new(6));
    assert!(
        matches!(consumer.committed(&name("orders", 1)), Err(Error::Corrupt(_))),
        "nobody said anything of that one"
    );
    drop(consumer);
    log.close().unwrap();
    let log = open(&machine);
    assert!(!log.recovery_report().damage.is_empty(), "what is lost stays lost");
    assert!(resuming(&log, &partition).poll(NOW).unwrap().is_empty());
    assert_eq!(log.list_groups(), [GROUP]);
}

#[test]
fn a_damaged_file_of_a_group_is_never_written_over() {
    let machine = committed_log(4);
    machine.flip_bit(FILE, 8 * 200);
    let before = machine.read_file(FILE);
    let log = open(&machine);
    // So often that a table is otherwise said again, and its old segment removed.
    for n in 0..3000u64 {
        commit(&log, &name("orders", 0), n % 6).unwrap();
    }
    drop(log);

    assert_eq!(machine.read_file(FILE), before);
    let others: Vec<PathBuf> = machine.files().into_iter().filter(|path| path.starts_with("groups")).collect();
    assert!(others.len() > 1, "{others:?}");
    assert!(resumed(&machine, 0, "committed anew").is_some());
    assert!(others.iter().all(|path| path.starts_with(Path::new("groups/billing"))));
}
