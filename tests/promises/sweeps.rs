//! Every operation of the disk fails, and every operation is the last: systematic, and then several lives in a row.

use std::io;

use tidelog::sim::{Failure, Fault, Machine, Operation, PowerCut};
use tidelog::{Consumer, ConsumerConfig, Durability, Error, EventLog};

use crate::shared::{GROUP, Ledger, Left, NOW, config, full_sweep, name, small, some_of};

/// What a life does: everything that touches the disk, step by step, whatever the steps before came to. The ledger
/// learns what was promised; `Err` is the first thing that went wrong.
fn live(machine: &Machine, ledger: &mut Ledger) -> Result<(), Error> {
    let log = machine.open(config())?;
    let mut first = Ok(());
    let mut note = |result: Result<(), Error>| {
        if first.is_ok() {
            first = result;
        }
    };
    note(create(&log, "orders", Durability::Sync));
    note(create(&log, "clicks", Durability::Os));
    for round in 0..2 {
        for (topic, partition) in [("orders", 0), ("orders", 1), ("clicks", 0)] {
            note(send(machine, &log, ledger, topic, partition, 5 + round));
        }
        note(commit(machine, &log, ledger));
        let flushed = log.producer().flush();
        if flushed.is_ok() && !machine.has_crashed() {
            for partition in [name("orders", 0), name("orders", 1)] {
                ledger.promise_all(&partition);
            }
        }
        note(flushed);
        log.maintain();
    }
    let closed = log.close();
    if closed.is_ok() && !machine.has_crashed() {
        ledger.accounts.keys().cloned().collect::<Vec<_>>().iter().for_each(|partition| ledger.promise_all(partition));
    }
    note(closed);
    first
}

fn create(log: &EventLog, topic: &str, durability: Durability) -> Result<(), Error> {
    match log.create_topic(topic, small(durability).partitions(2)) {
        Err(Error::TopicExists { .. }) => Ok(()),
        done => done,
    }
}

fn send(
    machine: &Machine,
    log: &EventLog,
    ledger: &mut Ledger,
    topic: &str,
    partition: u32,
    records: u32,
) -> Result<(), Error> {
    let partition = name(topic, partition);
    for n in 0..records {
        let delivery = ledger.send_unless(log, &partition, || machine.has_crashed())?;
        if topic == "orders" && n % 3 == 0 {
            delivery.wait()?;
            if !machine.has_crashed() {
                ledger.promise_all(&partition);
            }
        }
    }
    Ok(())
}

fn commit(machine: &Machine, log: &EventLog, ledger: &mut Ledger) -> Result<(), Error> {
    let mut group = log.consumer(ConsumerConfig::group(GROUP).auto_commit(false))?;
    for partition in [name("orders", 0), name("clicks", 0)] {
        // What is seen of a topic that promises nothing but by syncs is not promised.
        see(&log.consumer(ConsumerConfig::new())?, log, &partition)?;
        let Some(account) = ledger.accounts.get_mut(&partition) else { continue };
        let end = account.accepted.len() as u64;
        if machine.has_crashed() {
            return Ok(());
        }
        account.commits.push((end, false));
        group.assign([partition.clone()])?;
        group.commit_offsets([(partition.clone(), tidelog::Offset::new(end))])?;
        if !machine.has_crashed() {
            ledger.accounts.get_mut(&partition).expect("looked at above").commits.last_mut().expect("just pushed").1 =
                true;
        }
    }
    Ok(())
}

/// Reads all there is: no fault may make a reader see what was not written.
fn see(_: &Consumer, log: &EventLog, partition: &tidelog::TopicPartition) -> Result<(), Error> {
    let mut reader = log.consumer(ConsumerConfig::new())?;
    reader.assign([partition.clone()])?;
    reader.seek_to_beginning(&[])?;
    while !reader.poll(NOW)?.is_empty() {}
    Ok(())
}

/// How many operations a life has in which nothing goes wrong.
fn operations(seed: u64) -> u64 {
    let machine = Machine::new(seed);
    live(&machine, &mut Ledger::default()).unwrap();
    machine.operations()
}

fn failures() -> Vec<(&'static str, Failure)> {
    vec![
        ("EIO", Failure::Errno(rustix::io::Errno::IO.raw_os_error())),
        ("ENOSPC", Failure::Kind(io::ErrorKind::StorageFull)),
    ]
}

/// The fault is over; what was promised while it lasted must be kept, whether the process dies or the machine.
fn outlive(machine: &Machine, ledger: &mut Ledger, seed: u64, case: &str) {
    machine.heal();
    let how = PowerCut::ALL[(seed % 6) as usize];
    if seed.is_multiple_of(2) {
        let machine = machine.kill();
        let log =
            machine.open(config()).unwrap_or_else(|error| panic!("{case}: after the death of the process: {error}"));
        ledger.check(&log, Left::Everything, case);
        // What was offered is there for good.
        let machine = machine.power_cut(how);
        drop(log);
        let log = machine.open(config()).unwrap_or_else(|error| panic!("{case}: after {how:?}: {error}"));
        ledger.check(&log, Left::Everything, case);
    } else {
        let machine = machine.power_cut(how);
        let log = machine.open(config()).unwrap_or_else(|error| panic!("{case}: after {how:?}: {error}"));
        ledger.check(&log, Left::ThePromised, case);
        drop(log);
        live(&machine, ledger).unwrap_or_else(|error| panic!("{case}: in the life after {how:?}: {error}"));
        let log = machine.open(config()).unwrap();
        ledger.check(&log, Left::Everything, case);
    }
}

#[test]
fn whatever_operation_fails_once_or_for_ever_what_was_promised_is_kept() {
    let (mut injected, mut refused) = (0, 0);
    for (turn, (what, failure)) in failures().into_iter().enumerate() {
        for forever in [false, true] {
            let turn = turn as u64 * 2 + u64::from(forever);
            for at in some_of(operations(turn), 5, turn) {
                let seed = turn;
                let machine = Machine::new(seed);
                let mut fault = Fault::new(None, at).failure(failure);
                fault.forever = forever;
                machine.fail(fault);
                let case = format!("seed {seed}: {what} at operation {at}, forever: {forever}");

                let mut ledger = Ledger::default();
                refused += u32::from(live(&machine, &mut ledger).is_err());

                outlive(&machine, &mut ledger, at / 5, &case);
                injected += 1;
            }
        }
    }
    println!("{injected} operations were made to fail; {refused} lives noticed");
    assert!(injected > 100 && refused > injected / 2, "{injected} faults, of which {refused} were noticed");
}

#[test]
fn whatever_sync_fails_and_loses_pages_that_reads_still_show_what_was_promised_is_kept() {
    let syncs = {
        let machine = Machine::new(0);
        live(&machine, &mut Ledger::default()).unwrap();
        machine.trace().iter().filter(|(operation, _)| *operation == Operation::Sync).count() as u64
    };
    let mut injected = 0;
    for forever in [false, true] {
        for at in some_of(syncs, 2, u64::from(forever)) {
            let seed = 100 + at;
            let machine = Machine::new(seed);
            let mut fault = Fault::new(Operation::Sync, at).losing_pages();
            fault.forever = forever;
            machine.fail(fault);
            let case = format!("seed {seed}: sync {at} loses pages, forever: {forever}");

            let mut ledger = Ledger::default();
            let lived = live(&machine, &mut ledger);
            let failed =
                machine.trace().into_iter().filter(|(operation, _)| *operation == Operation::Sync).nth(at as usize);
            let (_, path) = failed.expect("the sync that failed");
            // A segment that is made ahead holds nothing that could be lost: another is made.
            assert!(lived.is_err() || (!forever && path.ends_with("spare.log.new")), "{case}: {}", path.display());

            outlive(&machine, &mut ledger, at / 2, &case);
            injected += 1;
        }
    }
    println!("{injected} syncs were made to fail and lose pages");
    assert!(injected > 20, "{injected}");
}

/// A life that ends at an operation, then others that end in their recovery.
fn lives_in_a_row(seed: u64, at: u64, cuts: &[PowerCut]) -> u64 {
    let mut machine = Machine::new(seed);
    let mut ledger = Ledger::default();
    let mut crashes = 0;
    machine.crash_at(at);
    let mut end = live(&machine, &mut ledger);
    for (nth, how) in cuts.iter().enumerate() {
        let case = format!("seed {seed}: crash at operation {at}, then the cuts {:?}", &cuts[..=nth]);
        crashes += u64::from(machine.has_crashed());
        assert!(machine.has_crashed() || end.is_ok(), "{case}: {end:?}");
        machine = machine.power_cut(*how);
        // The recovery of this life ends early; in the last one it does not.
        if nth + 1 < cuts.len() {
            machine.crash_at((seed + at * 7 + nth as u64 * 5) % 40);
            // What it offers is durable, if it gets so far as to offer something.
            if let Ok(log) = machine.open(config())
                && !machine.has_crashed()
            {
                machine.crash_at(u64::MAX);
                ledger.check(&log, Left::ThePromised, &case);
                end = Ok(());
            }
        } else {
            let log = machine.open(config()).unwrap_or_else(|error| panic!("{case}: {error}"));
            ledger.check(&log, Left::ThePromised, &case);
            drop(log);
            live(&machine, &mut ledger).unwrap_or_else(|error| panic!("{case}: {error}"));
            let log = machine.open(config()).unwrap();
            ledger.check(&log, Left::Everything, &case);
        }
    }
    crashes
}

#[test]
fn wherever_the_machine_stops_recovery_keeps_what_was_promised() {
    let mut crashes = 0;
    for at in some_of(operations(1), 2, 0) {
        for (nth, how) in PowerCut::ALL.into_iter().enumerate() {
            if full_sweep() || at as usize / 2 % PowerCut::ALL.len() == nth {
                crashes += lives_in_a_row(1, at, &[how]);
            }
        }
    }
    println!("the machine was stopped at {crashes} operations");
    assert!(crashes > 50, "{crashes}");
}

#[test]
fn many_power_cuts_in_a_row_also_during_recovery_come_to_the_same_as_one() {
    let mut crashes = 0;
    for at in some_of(operations(2), 4, 1) {
        for turn in 0..if full_sweep() { 6 } else { 1 } {
            let cuts: Vec<_> = (0..5).map(|nth| PowerCut::ALL[(at as usize + turn + nth * 5) % 6]).collect();
            crashes += lives_in_a_row(2 + at, at, &cuts);
        }
    }
    println!("{crashes} lives ended early, in a row of five each");
    assert!(crashes > 50, "{crashes}");
}

#[test]
fn what_recovery_offers_after_the_death_of_a_process_survives_the_power_cut_that_follows() {
    for seed in 0..if full_sweep() { 600 } else { 60 } {
        let machine = Machine::new(seed);
        // Nothing gets to the disk but what somebody asks for.
        machine.set_write_back(false);
        let log = machine.open(config()).unwrap();
        let mut ledger = Ledger::default();
        log.create_topic("clicks", small(Durability::Os)).unwrap();
        for _ in 0..seed % 11 + 1 {
            ledger.send(&log, &name("clicks", 0)).unwrap();
        }

        let machine = machine.kill();
        let log = machine.open(config()).unwrap();
        ledger.check(&log, Left::Everything, &format!("seed {seed}: after the death of the process"));

        for how in PowerCut::ALL {
            let machine = machine.power_cut(how);
            let log = machine.open(config()).unwrap();
            ledger.check(&log, Left::Everything, &format!("seed {seed}: after {how:?}"));
        }
        drop(log);
    }
}
