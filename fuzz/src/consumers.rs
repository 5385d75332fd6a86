//! Consumers under simulation, every choice taken from the input: what a target for a consumer of your own looks like.
//!
//! The scenario is what `sim::check` would be given; only the numbers come from the fuzzer. An input is a tape: a byte for
//! each choice, of which 0 is the dull one, and zeros behind its end. So the empty input is the run in which nothing happens.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog::sim::{Faults, Outside, Sim, fuzz_one};
use tidelog::{Consumer, ConsumerConfig, DeadLetterConfig, Error, OffsetReset, ProcessingError, Result, TopicConfig};

const POLL: Duration = Duration::from_millis(100);

/// How often each order was charged, by partition and offset: a database outside of the log.
type Ledger = BTreeMap<(u32, u64), u64>;

/// The first byte chooses a scenario, the others are the tape.
pub fn consumer(input: &[u8]) {
    let Some((scenario, tape)) = input.split_first() else { return };
    match scenario % 4 {
        0 => fuzz_one(tape, one_member),
        1 => fuzz_one(tape, two_members),
        2 => fuzz_one(tape, a_handler),
        _ => fuzz_one(tape, an_async_function),
    }
}

/// The code under test, as in production: takes, does, commits.
fn charge(mut consumer: Consumer, ledger: &Outside<Ledger>) -> Result<()> {
    loop {
        for record in &consumer.poll(POLL)? {
            let order = (record.partition(), record.offset().get());
            ledger.with(|ledger| *ledger.entry(order).or_default() += 1);
        }
        match consumer.commit() {
            // Somebody else has the partitions now, and goes on where this one last committed.
            Ok(()) | Err(Error::CommitFailed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A member that has not polled for three seconds has lost its partitions.
fn config() -> ConsumerConfig {
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    config.max_poll_records(2).max_poll_interval(Duration::from_secs(3))
}

fn orders(sim: &mut Sim, partitions: u32, count: u32) -> Outside<Ledger> {
    let config = TopicConfig::new().partitions(partitions).segment_bytes(4096);
    sim.topic("orders").config(config).keyed((0..count).map(|n| (format!("user-{}", n % 3), format!("order {n}"))));
    sim.outside::<Ledger>()
}

fn one_member(sim: &mut Sim) {
    let ledger = orders(sim, 2, 6);
    sim.group("billing").config(config()).run(move |consumer| charge(consumer, &ledger));
    sim.faults(Faults::none().crashes(2).power_cuts(2).panics(1).disk_errors(1).disk_full(1));
    sim.run_until_idle().at_least_once();
}

/// They take over from each other, and one that was given up must not go on.
fn two_members(sim: &mut Sim) {
    let ledger = orders(sim, 1, 6);
    sim.group("billing").members(2).config(config()).run(move |consumer| charge(consumer, &ledger));
    sim.faults(Faults::none().crashes(1).power_cuts(1).panics(1).stalls(1).visitors(1));
    sim.run_until_idle().at_least_once();
}

/// The kit polls and commits; one order is refused for good.
fn a_handler(sim: &mut Sim) {
    let ledger = orders(sim, 2, 6);
    sim.topic("dead-orders").config(TopicConfig::new().segment_bytes(4096));
    let billing = sim.group("billing").config(config()).topics(["orders"]);
    billing.run_handler_with_dead_letters("dead-orders", DeadLetterConfig::new(), move |record| {
        let order = (record.partition(), record.offset().get());
        ledger.with(|ledger| *ledger.entry(order).or_default() += 1);
        if record.value() == Some(b"order 3") {
            return Err(ProcessingError::fatal("nobody pays for this one"));
        }
        Ok(())
    });
    sim.faults(Faults::none().crashes(2).power_cuts(2));
    sim.run_until_idle().at_least_once();
}

fn an_async_function(sim: &mut Sim) {
    let ledger = orders(sim, 2, 6);
    sim.group("billing").config(config()).run_async(move |mut consumer| {
        let ledger = ledger.clone();
        async move {
            loop {
                let records = consumer.poll(Duration::ZERO)?;
                for record in &records {
                    let order = (record.partition(), record.offset().get());
                    ledger.with(|ledger| *ledger.entry(order).or_default() += 1);
                }
                consumer.commit()?;
                if records.is_empty() {
                    tidelog::sim::sleep_async(POLL).await;
                }
            }
        }
    });
    sim.faults(Faults::none().crashes(2).power_cuts(2));
    sim.run_until_idle().at_least_once();
}
