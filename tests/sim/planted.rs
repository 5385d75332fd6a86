//! The mistakes that people make in consumers, planted one by one. Each must be found, and its shortest run must be short.
//!
//! `cargo test --features sim --test sim planted -- --nocapture` prints the table of what it took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidelog::sim::{Counterexample, Faults, Outside, Scope, Sent, Sim, check};
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, OffsetReset, ProducerRecord, Result, TopicConfig,
};

const POLL: Duration = Duration::from_millis(100);

/// How often each order was charged.
type Ledger = BTreeMap<u64, u64>;

fn charge(ledger: &Outside<Ledger>, offset: u64) {
    ledger.with(|ledger| *ledger.entry(offset).or_default() += 1);
}

fn times(ledger: &Ledger, record: &Sent) -> u64 {
    ledger.get(&record.offset().get()).copied().unwrap_or(0)
}

/// As it should be; what is planted then is elsewhere.
fn charge_then_commit(mut consumer: Consumer, ledger: &Outside<Ledger>) -> Result<()> {
    loop {
        let records = consumer.poll(POLL)?;
        records.iter().for_each(|record| charge(ledger, record.offset().get()));
        consumer.commit()?;
    }
}

fn commit_then_charge(mut consumer: Consumer, ledger: &Outside<Ledger>) -> Result<()> {
    loop {
        let records = consumer.poll(POLL)?;
        consumer.commit()?;
        records.iter().for_each(|record| charge(ledger, record.offset().get()));
    }
}

fn orders(sim: &mut Sim) -> Outside<Ledger> {
    sim.topic("orders").keyed((0..8).map(|n| (format!("user-{}", n % 3), format!("order {n}"))));
    sim.faults(Faults::none().crashes(1));
    sim.outside()
}

fn manual(group: &str) -> ConsumerConfig {
    ConsumerConfig::group(group).auto_offset_reset(OffsetReset::Earliest).auto_commit(false)
}

/// The longest run that a person shall have to read.
const MOST_STEPS: usize = 12;

/// Searches as a user's test would, and returns what was found.
fn found(name: &str, guarantee: &str, scenario: impl Fn(&mut Sim) + Sync) -> Counterexample {
    let failure = check(scenario).regressions(None).seeds(2_000).search().failure;
    let failure = failure.unwrap_or_else(|| panic!("{name}: not found in 2,000 runs"));
    println!("{name:<52} {guarantee:<28} {:>5} runs {:>3} steps", failure.runs, failure.steps);
    assert_eq!(failure.guarantee, guarantee, "{}", failure.report);
    assert!(failure.steps <= MOST_STEPS, "{} steps:\n{}", failure.steps, failure.report);
    failure
}

#[test]
fn commit_before_processing() {
    found("commit before processing", "no record lost", |sim| {
        let ledger = orders(sim);
        sim.group("billing").config(manual("billing")).run(move |consumer| commit_then_charge(consumer, &ledger));
        sim.run_until_idle().no_record_lost();
    });
}

#[test]
fn commit_of_the_next_record_instead_of_this_one() {
    found("off by one: commit of offset + 2", "no offset skipped", |sim| {
        let ledger = orders(sim);
        sim.group("billing").config(manual("billing").max_poll_records(3)).run(move |mut consumer| {
            loop {
                let records = consumer.poll(POLL)?;
                for record in &records {
                    charge(&ledger, record.offset().get());
                    let end = consumer.end_offsets(&[record.topic_partition().clone()])?;
                    let wrong = record.offset().advance(2).min(end[record.topic_partition()]);
                    consumer.commit_offsets([(record.topic_partition().clone(), wrong)])?;
                }
            }
        });
        sim.run_until_idle().at_least_once();
    });
}

#[test]
fn commit_of_the_offset_of_the_record_itself() {
    found("off by one: commit of the offset itself", "drained", |sim| {
        let ledger = orders(sim);
        sim.group("billing").config(manual("billing")).run(move |mut consumer| {
            loop {
                for record in &consumer.poll(POLL)? {
                    charge(&ledger, record.offset().get());
                    consumer.commit_offsets([(record.topic_partition().clone(), record.offset())])?;
                }
            }
        });
        sim.run_until_idle().at_least_once();
    });
}

#[test]
fn records_kept_for_later_and_committed_now() {
    found("a buffer across polls, committed too early", "no record lost", |sim| {
        let ledger = orders(sim);
        sim.group("billing").config(manual("billing").max_poll_records(2)).run(move |mut consumer| {
            let mut buffer = Vec::new();
            loop {
                let records = consumer.poll(POLL)?;
                buffer.extend(records.iter().map(|record| record.offset().get()));
                if buffer.len() >= 4 || records.is_empty() {
                    for offset in buffer.drain(..) {
                        charge(&ledger, offset);
                    }
                }
                consumer.commit()?;
            }
        });
        sim.run_until_idle().no_record_lost();
    });
}

#[test]
fn a_charge_that_is_not_idempotent() {
    found("a charge that is not idempotent", "exactly once", |sim| {
        let ledger = orders(sim);
        let theirs = ledger.clone();
        sim.group("billing").config(manual("billing")).run(move |consumer| charge_then_commit(consumer, &theirs));
        sim.run_until_idle().at_least_once().exactly_once(&ledger, times);
    });
}

#[test]
fn remembered_as_done_before_it_is_done() {
    found("remembered as done before it is done", "exactly once", |sim| {
        let ledger = orders(sim);
        let seen = sim.outside::<BTreeSet<u64>>();
        let theirs = ledger.clone();
        sim.group("billing").config(manual("billing")).run(move |mut consumer| {
            loop {
                for record in &consumer.poll(POLL)? {
                    let offset = record.offset().get();
                    if seen.with(|seen| seen.insert(offset)) {
                        charge(&theirs, offset);
                    }
                }
                consumer.commit()?;
            }
        });
        sim.run_until_idle().exactly_once(&ledger, times);
    });
}

#[test]
fn an_error_half_way_with_automatic_commits() {
    found("an error half way, with automatic commits", "no record lost", |sim| {
        let ledger = orders(sim);
        let attempts = sim.outside::<u64>();
        sim.group("billing").run(move |mut consumer| {
            loop {
                for record in &consumer.poll(POLL)? {
                    // The third charge fails once; the consumer is dropped on the way out, and commits.
                    if attempts.with(|attempts| std::mem::replace(attempts, *attempts + 1)) == 2 {
                        return Err(Error::Timeout { waited: POLL });
                    }
                    charge(&ledger, record.offset().get());
                }
            }
        });
        sim.run_until_idle().no_record_lost();
    });
}

#[test]
fn a_group_that_begins_at_the_end() {
    found("a group that begins at the end", "no record lost", |sim| {
        let ledger = orders(sim);
        let config = ConsumerConfig::group("billing");
        sim.group("billing").config(config).run(move |consumer| charge_then_commit(consumer, &ledger));
        sim.run_until_idle().no_record_lost();
    });
}

#[test]
fn the_order_of_a_key_is_lost_to_a_sort() {
    found("records sorted by value, not by offset", "key order", |sim| {
        sim.topic("orders").keyed([("user", "b"), ("user", "a")]);
        sim.group("billing").config(manual("billing")).run(move |mut consumer| {
            // Two at a time, and the last first.
            let partition = ("orders", 0).into();
            let _ = consumer.poll(Duration::ZERO)?;
            consumer.seek(&partition, 1)?;
            consumer.poll(POLL)?.iter().for_each(drop);
            consumer.seek(&partition, 0)?;
            consumer.poll(POLL)?.iter().for_each(drop);
            consumer.commit()?;
            Ok(())
        });
        sim.run_until_idle().key_order();
    });
}

/// A consumer that sends on what it reads, to a topic of this durability.
fn forward(mut consumer: Consumer, log: &EventLog) -> Result<()> {
    let producer = log.producer();
    loop {
        for record in &consumer.poll(POLL)? {
            producer.send(ProducerRecord::new("invoices", record.value().unwrap_or_default()))?;
        }
        consumer.commit()?;
    }
}

#[test]
fn what_was_sent_on_is_not_on_the_disk_when_its_input_is_committed() {
    found("sent on without waiting for the disk", "every order has its invoice", |sim| {
        sim.topic("orders").keyed((0..4).map(|n| (format!("user-{n}"), format!("order {n}"))));
        sim.topic("invoices").config(TopicConfig::new().segment_bytes(65536).durability(Durability::Os));
        let group = sim.group("billing").config(manual("billing")).topics(["orders"]);
        group.run_with_log(|consumer, log| forward(consumer, &log));
        let invoices = sim.outside::<BTreeSet<Vec<u8>>>();
        let theirs = invoices.clone();
        sim.group("archive").topics(["invoices"]).config(manual("archive")).run(move |mut consumer| {
            loop {
                for record in &consumer.poll(POLL)? {
                    let value = record.value().unwrap_or_default().to_vec();
                    theirs.with(|invoices| invoices.insert(value));
                }
            }
        });
        sim.faults(Faults::none().power_cuts(1));
        sim.run_until_idle().holds("every order has its invoice", |outcome| {
            let mut orders = outcome.sent().iter().map(|order| order.value().to_vec());
            let missing = orders.find(|order| !invoices.with(|invoices| invoices.contains(order)));
            missing.map_or(Ok(()), |order| Err(format!("{} has none", String::from_utf8_lossy(&order))))
        });
    });
}

#[test]
fn commits_that_are_not_synced() {
    found("commits that are not synced", "commits never move back", |sim| {
        let ledger = orders(sim);
        sim.log_config(LogConfig::new().commit_durability(Durability::Os));
        sim.group("billing").config(manual("billing")).run(move |consumer| charge_then_commit(consumer, &ledger));
        sim.faults(Faults::none().power_cuts(1));
        sim.run_until_idle().commits_never_move_back();
    });
}

#[test]
fn a_poison_record_that_stops_everything() {
    found("a poison record without a way out", "drained", |sim| {
        let ledger = orders(sim);
        sim.group("billing").config(manual("billing")).run(move |mut consumer| {
            loop {
                for record in &consumer.poll(POLL)? {
                    if record.offset().get() == 5 {
                        return Err(Error::Timeout { waited: POLL });
                    }
                    charge(&ledger, record.offset().get());
                }
                consumer.commit()?;
            }
        });
        sim.run_until_idle().drained();
    });
}

#[test]
fn a_scope_of_one_crash_finds_what_seeds_find() {
    let found = check(|sim| {
        let ledger = orders(sim);
        sim.group("billing").config(manual("billing")).run(move |consumer| commit_then_charge(consumer, &ledger));
        sim.run_until_idle().no_record_lost();
    });
    let failure = found.regressions(None).seeds(0).exhaustive(Scope::default()).search().failure.unwrap();

    assert!(failure.runs < 100 && failure.steps <= MOST_STEPS, "{}", failure.report);
}
