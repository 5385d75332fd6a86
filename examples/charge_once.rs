//! A consumer that charges cards and must not charge twice, whatever dies: tested as it is, and as it was written first.
//!
//! `cargo run --features sim --example charge_once`

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog::sim::{Counterexample, Faults, Outside, Sim, check};
use tidelog::{Consumer, ConsumerConfig, Error, OffsetReset, Result, point};

/// The payment provider: what it has booked, by the key of the request, and the requests that it was sent.
#[derive(Default)]
struct Provider {
    booked: BTreeMap<String, u64>,
    without_key: u64,
}

impl Provider {
    fn charge(&mut self, idempotency_key: Option<String>, cents: u64) {
        match idempotency_key {
            // A second request with the same key changes nothing, as with every provider that one would choose.
            Some(key) => drop(self.booked.insert(key, cents)),
            None => {
                self.booked.insert(format!("request {}", self.without_key), cents);
                self.without_key += 1;
            }
        }
    }
}

/// The code under test, as it would run in production: it does not know that it is tested.
fn billing(mut consumer: Consumer, charge: impl Fn(Option<String>, u64), idempotent: bool) -> Result<()> {
    loop {
        for record in &consumer.poll(Duration::from_millis(100))? {
            let cents = record.value().map_or(0, |value| value.len() as u64);
            // Topic, partition and offset name a record for ever.
            let key = format!("{}@{}", record.topic_partition(), record.offset());
            charge(idempotent.then_some(key), cents);
            point!("charged");
        }
        match consumer.commit() {
            // The group has given the partition to another member: it will come to the same records, with the same keys.
            Ok(()) | Err(Error::CommitFailed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn scenario(sim: &mut Sim, idempotent: bool) {
    sim.topic("payments").partitions(2).keyed((0..6).map(|n| (format!("user-{}", n % 3), format!("payment {n}"))));
    let provider: Outside<Provider> = sim.outside();
    let theirs = provider.clone();
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    let config = config.max_poll_interval(Duration::from_secs(10));
    sim.group("billing").members(2).config(config).run(move |consumer| {
        billing(consumer, |key, cents| theirs.with(|provider| provider.charge(key, cents)), idempotent)
    });
    sim.faults(Faults::none().crashes(1).power_cuts(1).stalls(1));
    let outcome = sim.run_until_idle();
    outcome.at_least_once().holds("every payment is booked once", |outcome| {
        let (booked, payments) = (provider.with(|provider| provider.booked.len()), outcome.sent().len());
        if booked == payments { Ok(()) } else { Err(format!("{booked} bookings for {payments} payments")) }
    });
}

fn search(idempotent: bool) -> Option<Counterexample> {
    check(move |sim| scenario(sim, idempotent)).seeds(300).regressions(None).search().failure
}

fn main() {
    let first = search(false).expect("a crash between a charge and its commit");
    println!("without an idempotency key:\n\n{}", first.report);
    match search(true) {
        None => println!("with one: nothing found in 300 runs"),
        Some(failure) => panic!("{}", failure.report),
    }
}
