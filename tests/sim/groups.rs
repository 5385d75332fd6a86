//! Groups of several members: rebalances, evictions, zombies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use tidelog::sim::{Faults, Outside, Scope, Sim, check};
use tidelog::{Consumer, ConsumerConfig, Error, OffsetReset, Result};

type Ledger = BTreeMap<(u32, u64), u64>;

/// As it is written in production: a commit that comes too late is no reason to end.
fn charge(mut consumer: Consumer, ledger: &Outside<Ledger>) -> Result<()> {
    loop {
        for record in &consumer.poll(Duration::from_millis(100))? {
            ledger.with(|ledger| *ledger.entry((record.partition(), record.offset().get())).or_default() += 1);
        }
        match consumer.commit() {
            Ok(()) | Err(Error::CommitFailed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn two_members(sim: &mut Sim, records: u32) {
    sim.topic("orders").partitions(2).keyed((0..records).map(|n| (format!("user-{}", n % 4), format!("order {n}"))));
    let ledger = sim.outside::<Ledger>();
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).max_poll_records(2);
    let config = config.max_poll_interval(Duration::from_secs(3));
    sim.group("billing").members(2).config(config).run(move |consumer| charge(consumer, &ledger));
}

#[test]
fn two_members_lose_nothing_whatever_happens() {
    let found = check(|sim| {
        two_members(sim, 8);
        sim.faults(Faults::none().crashes(1).power_cuts(1).panics(1).stalls(1));
        sim.run_until_idle().at_least_once();
    });
    found.seeds(600).regressions(None).run();
}

#[test]
fn members_that_come_and_go_take_nothing_with_them() {
    let found = check(|sim| {
        two_members(sim, 6);
        sim.faults(Faults::none().visitors(1).crashes(1));
        sim.run_until_idle().at_least_once();
    });
    found.seeds(300).regressions(None).run();
}

#[test]
fn two_members_lose_nothing_in_any_schedule_of_a_scope() {
    let found = check(|sim| {
        two_members(sim, 3);
        sim.faults(Faults::none().crashes(1).panics(1));
        sim.run_until_idle().at_least_once();
    });
    let found = found.seeds(0).regressions(None).exhaustive(Scope::default()).search();
    if let Some(failure) = found.failure {
        panic!("{}", failure.report);
    }
    let schedules = found.schedules.expect("all were asked for");
    println!("{schedules}");
    assert!(schedules.complete && schedules.tried > 1_000, "{schedules}");
}

/// The same, as a function of one record.
fn two_handlers(sim: &mut Sim, ledger: Outside<Ledger>) {
    sim.topic("orders").partitions(2).keyed((0..4).map(|n| (format!("user-{n}"), format!("order {n}"))));
    sim.group("billing").members(2).run_handler(move |record| {
        ledger.with(|ledger| *ledger.entry((record.partition(), record.offset().get())).or_default() += 1);
        Ok(())
    });
}

#[test]
fn a_group_of_handlers_loses_nothing_in_any_schedule_of_a_scope() {
    let found = check(|sim| {
        let ledger = sim.outside();
        two_handlers(sim, ledger);
        sim.faults(Faults::none().crashes(1).panics(1).visitors(1));
        sim.run_until_idle().at_least_once();
    });
    let found = found.seeds(300).regressions(None).exhaustive(Scope { runs: 3_000, ..Scope::default() }).search();
    if let Some(failure) = found.failure {
        panic!("{}", failure.report);
    }
    assert!(found.different > 3_000, "{} different runs", found.different);
}

#[test]
fn a_group_of_handlers_runs_on_the_thread_of_the_test_as_long_as_none_is_interrupted() {
    let threads = Mutex::new(BTreeSet::new());
    let names = &threads;
    let found = check(move |sim| {
        let ledger = sim.outside::<Vec<String>>();
        let theirs = ledger.clone();
        sim.topic("orders").partitions(2).keyed((0..6).map(|n| (format!("user-{n}"), format!("order {n}"))));
        sim.group("billing").members(2).run_handler(move |_| {
            theirs.with(|names| names.push(format!("{:?}", thread::current().id())));
            Ok(())
        });
        sim.faults(Faults::none().crashes(1));
        sim.run_until_idle().no_record_lost().holds("all is seen", |_| {
            ledger.with(|seen| names.lock().unwrap().extend(seen.drain(..)));
            Ok(())
        });
    });
    let scope = Scope { faults: 1, preemptions: 0, runs: 1_000 };
    let schedules = found.seeds(0).regressions(None).exhaustive(scope).search().schedules.expect("nothing is broken");

    assert!(schedules.complete && schedules.tried > 50, "{schedules}");
    assert_eq!(threads.into_inner().unwrap(), BTreeSet::from([format!("{:?}", thread::current().id())]));
}

#[test]
fn a_member_that_goes_on_after_it_was_given_up_is_found() {
    let found = check(|sim| {
        two_members(sim, 8);
        sim.faults(Faults::none().stalls(1));
        sim.run_until_idle().no_zombie_effects();
    });
    let failure = found.regressions(None).seeds(2_000).search().failure.expect("a stalled member is a zombie");

    println!("{}", failure.report);
    assert_eq!(failure.guarantee, "no zombie effects");
    assert!(failure.steps <= 12, "{} steps", failure.steps);
}
