//! How many runs of a simulation there are in a second.
//!
//! `cargo bench --features sim --bench sim`; `-- --quick` for a first look, `-- handler` for one line of the table. Runs are
//! spread over all processors. A run that draws what another has drawn is not made again: *runs* counts it, *made* does
//! not. The last column is the processors' time for a run that is made, which hardly depends on what else they do.

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
    handlers(sim, 1, ledger);
    sim.run_until_idle().at_least_once();
}

fn two_handlers(sim: &mut Sim) {
    let ledger = orders(sim, 2);
    handlers(sim, 2, ledger);
    sim.run_until_idle().no_record_lost();
}

fn handlers(sim: &mut Sim, members: usize, ledger: Outside<Ledger>) {
    sim.group("billing").members(members).run_handler(move |record| {
        ledger.with(|ledger| *ledger.entry((record.partition(), record.offset().get())).or_default() += 1);
        Ok(())
    });
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let runs = if quick { 2_000 } else { 30_000 };
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let columns = ["runs", "runs/s", "made", "made/s", "cpu us/made"];
    println!(
        "{:<34}{:>10}{:>10}{:>10}{:>10}{:>14}",
        "8 records, a crash, a power cut", columns[0], columns[1], columns[2], columns[3], columns[4]
    );
    type Scenario = fn(&mut Sim);
    let scenarios: [(&str, Scenario); 4] = [
        ("a blocking loop", one_loop),
        ("two blocking loops", two_loops),
        ("a handler", one_handler),
        ("two handlers", two_handlers),
    ];
    for (name, scenario) in scenarios {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        check(scenario).regressions(None).seeds(200).search();
        let (start, used) = (Instant::now(), processor_time());
        let found = check(scenario).regressions(None).seeds(runs).search();
        let (took, used) = (start.elapsed(), processor_time() - used);
        if let Some(failure) = found.failure {
            panic!("{}", failure.report);
        }
        let per_second = |count: u64| count as f64 / took.as_secs_f64();
        let (runs, made) = (found.runs, found.different);
        let per_made = used.as_secs_f64() * 1e6 / made as f64;
        let (all, new) = (per_second(runs), per_second(made));
        println!("{name:<34}{runs:>10}{all:>10.0}{made:>10}{new:>10.0}{per_made:>14.1}");
    }
    if only.is_some() {
        return;
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

/// What this process has used of the processors, by `/proc/self/stat`: in hundredths of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15; behind the name, which may hold anything, come a space and field 3.
    let fields = stat.rsplit(')').next().unwrap_or_default().split(' ').skip(12).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
