//! The first crash test: a consumer that commits before it works. `cargo run --features sim --example crash_test`

use std::time::Duration;

use tidelog::sim::{Faults, check};

fn main() {
    let found = check(|sim| {
        sim.topic("orders").records((0..5).map(|n| format!("order {n}")));
        let shipped = sim.outside::<Vec<u64>>();
        sim.group("shipping").run(move |mut consumer| {
            loop {
                let records = consumer.poll(Duration::from_millis(100))?;
                consumer.commit()?; // too early
                records.iter().for_each(|record| shipped.with(|shipped| shipped.push(record.offset().get())));
            }
        });
        sim.faults(Faults::none().crashes(1));
        sim.run_until_idle().no_record_lost();
    });
    let failure = found.regressions(None).search().failure.expect("an order that is never shipped");
    println!("{}", failure.report);
}
