//! How many runs of a simulation there are in a second.
//!
//! `cargo bench --features sim --bench sim`; `-- --quick` for a first look. Runs are spread over all processors.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidelog::sim::{Faults, Outside, Scope, Sim, check};
use tidelog::{Consumer, Result};

type Ledger = BTreeMap<(u32, u64), u64>;

fn charge(mut consumer: Consumer, ledger: &Outside<Ledger>) -> Result<()> {
    loop {
        for record in &consumer.poll(Duration::from_millis(100))? {
            ledger.with(|ledger| *ledger.entry((record.partition(), record.offset().get())).or_default() += 1);
        }
        consumer.commit()?;
    }
}

fn orders(sim: &mut Sim, partitions: u32) -> Outside<Ledger> {
    let records = (0..8).map(|n| (format!("user-{}", n % 4), format!("order {n}")));
    sim.topic("orders").partitions(partitions).keyed(records);
    sim.faults(Faults::none().crashes(1).power_cuts(1));
    sim.outside()
}

fn one_loop(sim: &mut Sim) {
    let ledger = orders(sim, 1);
    sim.group("billing").run(move |consumer| charge(consumer, &ledger));
    sim.run_until_idle().at_least_once();
}

/// Each member reads one of the partitions.
fn two_loops(sim: &mut Sim) {
    let ledger = orders(sim, 2);
    sim.group("billing").members(2).run(move |consumer| charge(consumer, &ledger));
    sim.run_until_idle().no_record_lost();
}

fn one_handler(sim: &mut Sim) {
    let ledger = orders(sim, 1);
    sim.group("billing").run_handler(move |record| {
        ledger.with(|ledger| *ledger.entry((record.partition(), record.offset().get())).or_default() += 1);
        Ok(())
    });
    sim.run_until_idle().at_least_once();
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let runs = if quick { 2_000 } else { 20_000 };
    println!("{:<34}{:>12}{:>14}{:>14}", "8 records, a crash, a power cut", "runs", "runs/s", "us/run");
    type Scenario = fn(&mut Sim);
    let scenarios: [(&str, Scenario); 3] =
        [("a blocking loop", one_loop), ("two blocking loops", two_loops), ("a handler", one_handler)];
    for (name, scenario) in scenarios {
        check(scenario).regressions(None).seeds(200).search();
        let start = Instant::now();
        let found = check(scenario).regressions(None).seeds(runs).search();
        let took = start.elapsed();
        if let Some(failure) = found.failure {
            panic!("{}", failure.report);
        }
        let per_run = took.as_secs_f64() / found.runs as f64;
        println!("{name:<34}{:>12}{:>14.0}{:>14.1}", found.runs, 1.0 / per_run, per_run * 1e6);
    }
    println!();
    for (faults, preemptions) in [(1, 1), (2, 1)] {
        let scope = Scope { faults, preemptions, runs: if quick { 2_000 } else { 200_000 } };
        let start = Instant::now();
        let found = check(one_loop).regressions(None).seeds(0).exhaustive(scope).search();
        let schedules = found.schedules.expect("all were asked for");
        println!("a blocking loop, {faults} faults: {schedules}, {:.2} s", start.elapsed().as_secs_f64());
    }
}
