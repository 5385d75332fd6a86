//! A disk that is full, and room that comes back.

use std::path::Path;

use tidelog::sim::{Failure, Fault, Machine, Operation};
use tidelog::{Durability, Error, EventLog, ProducerRecord, TopicConfig};

use crate::shared::{Ledger, Left, NOW, commit, config, name, open, reader, resuming, small, some_of};

/// As full as it is now.
fn fill(machine: &Machine) {
    let bytes = machine.files().iter().map(|path| machine.read_file(path).len() as u64).sum();
    machine.set_capacity(Some(bytes));
}

fn log_with_records(machine: &Machine, ledger: &mut Ledger) -> EventLog {
    let log = open(machine);
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    for _ in 0..4 {
        ledger.send(&log, &name("orders", 0)).unwrap().wait().unwrap();
    }
    log
}

/// Sends until there is no room, and returns the error.
fn send_until_full(log: &EventLog, ledger: &mut Ledger) -> Error {
    for _ in 0..100_000 {
        match ledger.send(log, &name("orders", 0)) {
            Ok(delivery) => drop(delivery.wait().unwrap()),
            Err(error) => return error,
        }
    }
    panic!("the disk did not fill up");
}

#[test]
fn on_a_full_disk_send_fails_by_name_and_size_and_goes_on_once_there_is_room_without_reopening() {
    let machine = Machine::new(1);
    let mut ledger = Ledger::default();
    let log = log_with_records(&machine, &mut ledger);
    fill(&machine);
    for _ in 0..3 {
        let Error::NoSpace { path, bytes, .. } = send_until_full(&log, &mut ledger) else {
            panic!("no room, and no word")
        };
        assert!(path.starts_with("/simulated/topics/orders/0") && bytes == 4096, "{} {bytes}", path.display());
        assert!(machine.files().iter().all(|path| path.extension().is_none_or(|end| end != "new")), "half-done work");

        // Reading and committing go on.
        let accepted = ledger.accounts[&name("orders", 0)].accepted.len();
        assert_eq!(reader(&log, &name("orders", 0)).poll(NOW).unwrap().len(), accepted);
        commit(&log, &name("orders", 0), accepted as u64).unwrap();

        machine.set_capacity(None);
        ledger.send(&log, &name("orders", 0)).unwrap().wait().unwrap();
        fill(&machine);
    }
    let log = open(&machine.kill());
    ledger.accounts.get_mut(&name("orders", 0)).unwrap().commits.clear();
    let (found, _) = crate::shared::read_around_damage(&log, &name("orders", 0));
    assert_eq!(found.into_values().collect::<Vec<_>>(), ledger.accounts[&name("orders", 0)].accepted);
}

#[test]
fn a_segment_that_cannot_grow_is_as_it_was_and_grows_once_there_is_room() {
    let machine = Machine::new(2);
    let log = open(&machine);
    log.create_topic("orders", TopicConfig::new().durability(Durability::Os)).unwrap();
    let file = Path::new("topics/orders/0/00000000000000000000.log");
    fill(&machine);
    let mut sent = 0u64;
    let error = loop {
        match log.producer().send(ProducerRecord::new("orders", &[7; 1000])) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::NoSpace { path, bytes: 65536, .. } if path.ends_with(file)), "{error:?}");
    assert!(error.is_retriable());
    assert_eq!(machine.read_file(file).len(), 65536);

    machine.set_capacity(None);
    log.producer().send(ProducerRecord::new("orders", &[7; 1000])).unwrap();

    assert_eq!(machine.read_file(file).len(), 131_072);
    assert_eq!(log.describe_topic("orders").unwrap().partitions[0].log_end.get(), sent + 1);
}

#[test]
fn a_log_on_a_full_disk_opens_again_and_again_and_groups_move_on() {
    let machine = Machine::new(3);
    let mut ledger = Ledger::default();
    let log = log_with_records(&machine, &mut ledger);
    commit(&log, &name("orders", 0), 1).unwrap();
    drop(log);
    fill(&machine);
    // More than the first room of the catalog, and of the group's file, can hold.
    for life in 0..700u64 {
        let log = machine.open(config()).unwrap_or_else(|error| panic!("life {life}: {error}"));
        let offset = life % 5;
        commit(&log, &name("orders", 0), offset).unwrap_or_else(|error| panic!("life {life}: {error}"));
        let committed = resuming(&log, &name("orders", 0)).committed(&name("orders", 0)).unwrap();
        assert_eq!(committed.unwrap().offset.get(), offset, "life {life}");
        assert!(log.recovery_report().is_clean(), "life {life}: {:?}", log.recovery_report());
    }
}

#[test]
fn a_group_commits_for_the_first_time_and_thousands_of_times_on_a_full_disk() {
    let machine = Machine::new(4);
    let mut ledger = Ledger::default();
    let log = log_with_records(&machine, &mut ledger);
    fill(&machine);
    assert!(matches!(log.create_topic("more", TopicConfig::new()), Err(Error::NoSpace { .. })));
    for n in 0..3000u64 {
        commit(&log, &name("orders", 0), n % 5).unwrap_or_else(|error| panic!("commit {n}: {error}"));
    }
    drop(log);
    let log = open(&machine);
    let committed = resuming(&log, &name("orders", 0)).committed(&name("orders", 0)).unwrap();
    assert_eq!(committed.unwrap().offset.get(), 2999 % 5);
    assert_eq!(log.list_topics(), ["orders"]);
}

#[test]
fn whatever_allocation_or_name_finds_no_room_nothing_is_half_done() {
    let allocating = [Operation::Allocate, Operation::Create, Operation::CreateDir, Operation::Rename];
    let mut injected = 0;
    for (turn, operation) in allocating.into_iter().enumerate() {
        for at in some_of(16, 2, turn as u64) {
            let seed = turn as u64 * 100 + at;
            let machine = Machine::new(seed);
            let full = Failure::Kind(std::io::ErrorKind::StorageFull);
            machine.fail(Fault::new(operation, at).failure(full).forever());
            let case = format!("seed {seed}: no room at {operation:?} {at}");
            let mut ledger = Ledger::default();
            let mut refused = 0;
            // The same log goes on, once there is room.
            let log = loop {
                match machine.open(config()) {
                    Ok(log) => break log,
                    Err(error) => assert!(matches!(error, Error::NoSpace { .. }), "{case}: {error:?}"),
                }
                refused += 1;
                machine.heal();
            };
            let mut attempt = |work: &mut dyn FnMut() -> Result<(), Error>| {
                while let Err(error) = work() {
                    assert!(matches!(error, Error::NoSpace { .. }), "{case}: {error:?}");
                    refused += 1;
                    assert!(refused < 3, "{case}: there is room, and it did not pass: {error:?}");
                    machine.heal();
                }
            };
            attempt(&mut || log.create_topic("orders", small(Durability::Sync)));
            for n in 1..=14 {
                attempt(&mut || ledger.send(&log, &name("orders", 0))?.wait().map(drop));
                attempt(&mut || commit(&log, &name("orders", 0), n));
            }
            ledger.accounts.get_mut(&name("orders", 0)).unwrap().commits.push((14, true));
            injected += refused;
            drop(log);
            machine.heal();
            ledger.check(&open(&machine), Left::Everything, &case);
        }
    }
    println!("{injected} calls found no room");
    assert!(injected > 10, "{injected}");
}
