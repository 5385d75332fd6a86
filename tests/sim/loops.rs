use std::collections::BTreeMap;
use std::time::Duration;

use tidelog::sim::{Faults, Outside, Scope, Sim, check};
use tidelog::{Consumer, Result, point};

type Ledger = BTreeMap<u64, u64>;

fn charge_then_commit(mut consumer: Consumer, ledger: &Outside<Ledger>) -> Result<()> {
    loop {
        for record in &consumer.poll(Duration::from_millis(100))? {
            ledger.with(|ledger| *ledger.entry(record.offset().get()).or_default() += 1);
            point!("charged");
        }
        consumer.commit()?;
    }
}

fn commit_then_charge(mut consumer: Consumer, ledger: &Outside<Ledger>) -> Result<()> {
    loop {
        let records = consumer.poll(Duration::from_millis(100))?;
        consumer.commit()?;
        for record in &records {
            ledger.with(|ledger| *ledger.entry(record.offset().get()).or_default() += 1);
        }
    }
}

fn scenario(sim: &mut Sim, code: fn(Consumer, &Outside<Ledger>) -> Result<()>) -> Outside<Ledger> {
    sim.topic("orders").keyed((0..8).map(|n| (format!("user-{}", n % 3), format!("order {n}"))));
    let ledger = sim.outside::<Ledger>();
    let theirs = ledger.clone();
    sim.group("billing").run(move |consumer| code(consumer, &theirs));
    sim.faults(Faults::none().crashes(1).power_cuts(1));
    ledger
}

#[test]
fn a_loop_that_commits_what_it_has_done_loses_nothing() {
    let found = check(|sim| {
        scenario(sim, charge_then_commit);
        sim.run_until_idle().at_least_once().at_most_duplicates(16);
    })
    .seeds(500)
    .exhaustive(Scope::default())
    .search();

    assert!(found.failure.is_none(), "{}", found.failure.unwrap().report);
    println!("{found:?}");
}

/// Without a store the kit sees what is taken and how the loop goes on, and nothing else: a crash between the commit and the
/// next poll must not look like a loss.
#[test]
fn a_correct_loop_without_anything_outside_loses_nothing_either() {
    let found = check(|sim| {
        sim.topic("orders").records((0..4).map(|n| format!("order {n}")));
        sim.group("billing").run(|mut consumer| {
            loop {
                consumer.poll(Duration::from_millis(100))?.iter().for_each(drop);
                consumer.commit()?;
            }
        });
        sim.faults(Faults::none().crashes(1).power_cuts(1));
        sim.run_until_idle().at_least_once();
    });

    found.seeds(300).regressions(None).exhaustive(Scope::default()).run();
}

#[test]
fn a_search_that_is_not_complete_says_about_how_many_schedules_there_are() {
    let search = |runs| {
        let found = check(|sim| {
            scenario(sim, charge_then_commit);
            sim.run_until_idle().at_least_once();
        });
        let found = found.seeds(0).regressions(None).exhaustive(Scope { runs, ..Scope::default() }).search();
        found.schedules.expect("all were asked for")
    };

    let (all, some) = (search(1_000), search(10));

    println!("{all}; {some}");
    assert!(all.complete && !some.complete && some.tried == 10);
    let estimated = some.estimated.expect("it is not complete");
    assert!((all.tried / 2..all.tried * 2).contains(&estimated), "{estimated} of {}", all.tried);
}

#[test]
fn a_loop_that_commits_first_is_found() {
    let found = check(|sim| {
        scenario(sim, commit_then_charge);
        sim.run_until_idle().no_record_lost();
    })
    .regressions(None)
    .search();

    let failure = found.failure.expect("the mistake is found");
    println!("{}", failure.report);
    assert!(failure.steps <= 12);
}
