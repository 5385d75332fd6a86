//! Mistakes planted in the library itself: the kit must find each, with a consumer that makes none.
//!
//! | mistake                                   | guarantee that it breaks    |
//! |-------------------------------------------|-----------------------------|
//! | a file is not synced                      | commits never move back     |
//! | a directory is not synced                 | commits never move back     |
//! | a commit does not wait for its sync       | commits never move back     |
//! | a commit of an old generation counts      | commits never move back     |
//! | a generation is looked at too early       | commits never move back     |
//! | a commit is one offset further            | no offset skipped           |
//! | a checksum is not looked at               | true records                |
//! | a waiting consumer is not woken           | drained within a time       |

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{ConsumerConfig, OffsetReset, TopicConfig};
use crate::consumer::Consumer;
use crate::env::point::Mistake;
use crate::error::{Error, Result};
use crate::record::ProducerRecord;
use crate::sim::{Counterexample, Faults, Outside, Sim, check};

const POLL: Duration = Duration::from_millis(100);

/// The longest run that a person shall have to read.
const MOST_STEPS: usize = 12;

fn charge(mut consumer: Consumer, ledger: &Outside<BTreeSet<(u32, u64)>>) -> Result<()> {
    loop {
        for record in &consumer.poll(POLL)? {
            ledger.with(|ledger| ledger.insert((record.partition(), record.offset().get())));
        }
        match consumer.commit() {
            Ok(()) | Err(Error::CommitFailed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn config() -> ConsumerConfig {
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    config.max_poll_records(2).max_poll_interval(Duration::from_secs(3))
}

fn orders(sim: &mut Sim, partitions: u32, members: usize) {
    let topic = TopicConfig::new().partitions(partitions).segment_bytes(4096);
    sim.topic("orders").config(topic).keyed((0..8).map(|n| (format!("user-{n}"), [n; 900])));
    let ledger = sim.outside();
    sim.group("billing").members(members).config(config()).run(move |consumer| charge(consumer, &ledger));
}

/// Searches with the mistake, and without: the mistake is found, and nothing else is.
fn found(mistake: Mistake, guarantee: &str, scenario: impl Fn(&mut Sim) + Sync) -> Counterexample {
    let search = |planted: Option<Mistake>, seeds| {
        let with = |sim: &mut Sim| {
            sim.mistake = planted;
            scenario(sim);
        };
        check(with).regressions(None).seeds(seeds).search().failure
    };
    let clean = search(None, 150);
    assert!(clean.is_none(), "without the mistake: {}", clean.unwrap().report);
    let failure = search(Some(mistake), 4_000).unwrap_or_else(|| panic!("{mistake:?}: not found in 4,000 runs"));
    println!("{:<28} {guarantee:<28} {:>5} runs {:>3} steps", format!("{mistake:?}"), failure.runs, failure.steps);
    assert_eq!(failure.guarantee, guarantee, "{}", failure.report);
    assert!(failure.steps <= MOST_STEPS, "{}", failure.report);
    failure
}

#[test]
fn a_sync_that_is_forgotten() {
    found(Mistake::SyncForgotten, "commits never move back", |sim| {
        orders(sim, 1, 1);
        sim.faults(Faults::none().power_cuts(1));
        sim.run_until_idle().commits_never_move_back();
    });
}

#[test]
fn a_directory_whose_sync_is_forgotten() {
    found(Mistake::DirectorySyncForgotten, "commits never move back", |sim| {
        orders(sim, 1, 1);
        sim.faults(Faults::none().power_cuts(1));
        sim.run_until_idle().commits_never_move_back();
    });
}

#[test]
fn a_commit_that_does_not_wait_for_its_sync() {
    found(Mistake::SyncNotWaitedFor, "commits never move back", |sim| {
        orders(sim, 1, 1);
        sim.faults(Faults::none().power_cuts(1));
        sim.run_until_idle().commits_never_move_back();
    });
}

#[test]
fn a_generation_that_is_over_and_still_counts() {
    found(Mistake::StaleGenerationCounts, "commits never move back", |sim| {
        orders(sim, 1, 2);
        sim.faults(Faults::none().stalls(1));
        sim.run_until_idle().commits_never_move_back();
    });
}

/// Only found because others may go on between two steps of one commit.
#[test]
fn a_generation_that_was_looked_at_before_the_lock_was_taken() {
    found(Mistake::GenerationLookedAtTooEarly, "commits never move back", |sim| {
        orders(sim, 1, 2);
        sim.faults(Faults::none().stalls(1));
        sim.run_until_idle().commits_never_move_back();
    });
}

#[test]
fn a_commit_that_is_one_offset_further() {
    found(Mistake::CommitIsOneFurther, "no offset skipped", |sim| {
        orders(sim, 1, 1);
        sim.faults(Faults::none().crashes(1));
        sim.run_until_idle().at_least_once();
    });
}

#[test]
fn a_checksum_that_nobody_looks_at() {
    found(Mistake::ChecksumNotLookedAt, "true records", |sim| {
        orders(sim, 1, 1);
        sim.faults(Faults::none().crashes(1).bit_flips(1));
        sim.run_until_idle().true_records();
    });
}

#[test]
fn a_consumer_that_is_not_woken() {
    found(Mistake::WakeUpLost, "drained within a time", |sim| {
        sim.topic("orders").records(["first"]);
        sim.group("billing").config(config()).run(|mut consumer| {
            loop {
                // For long, because it is woken when there is something.
                consumer.poll(Duration::from_secs(2))?.iter().for_each(drop);
                consumer.commit()?;
            }
        });
        sim.run("shop", |log| {
            crate::sim::sleep(Duration::from_millis(500));
            log.producer().send(ProducerRecord::new("orders", b"second"))?.wait().map(drop)
        });
        sim.run_until_idle().drained_within(Duration::from_secs(1));
    });
}
