//! Three well-known ways never to process a record, each told on a simulated machine in no time at all.
//!
//! The log loses none of them: they are all there to be read. But a group that has committed an offset says that
//! everything below it is done, and here it is not. The second half of each story is what helps.
//!
//! ```text
//! cargo run --example losses --features sim
//! ```

mod shop;

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{
    ConsumerConfig, ConsumerRecord, DeadLetterConfig, DeadLetterQueue, EventLog, LogConfig, OffsetTracker,
    ProcessingError,
};

use shop::{ORDERS, member};

/// The one that nobody can process.
const POISON: &str = "order 4";

type Outcome = Result<(), Box<dyn StdError>>;

fn main() -> Outcome {
    committed_before_it_was_processed()?;
    closed_in_the_middle_of_a_batch_that_failed()?;
    committed_while_threads_were_still_at_work()
}

#[test]
fn the_stories_end_as_they_are_told() {
    main().unwrap();
}

/// What was shipped, whatever became of the process that did it.
type Shipped = BTreeSet<String>;

fn value(record: &ConsumerRecord<'_>) -> String {
    String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()
}

fn shipping() -> ConsumerConfig {
    ConsumerConfig::group("shipping").auto_commit(false)
}

/// Ships what the group has not committed, and returns how many orders will never be.
fn lost_after(log: &EventLog, shipped: &mut Shipped) -> tidelog::Result<usize> {
    let mut consumer = member(log, shipping())?;
    loop {
        let records = consumer.poll(Duration::from_millis(100))?;
        if records.is_empty() {
            return Ok(ORDERS - shipped.len());
        }
        shipped.extend(records.iter().map(|record| value(&record)));
        consumer.commit()?;
    }
}

fn committed_before_it_was_processed() -> Outcome {
    for commit_first in [true, false] {
        let (machine, mut shipped) = (Machine::new(1), Shipped::new());
        let log = shop::open(&machine)?;
        let mut consumer = member(&log, shipping())?;
        let records = consumer.poll(Duration::ZERO)?;
        if commit_first {
            consumer.commit()?;
        }
        // Killed after six; whoever commits behind the work does not get there.
        shipped.extend(records.iter().take(6).map(|record| value(&record)));
        let log = machine.kill().open(LogConfig::new())?;
        let lost = lost_after(&log, &mut shipped)?;
        if commit_first {
            println!("Committed before it was processed: {lost} of {ORDERS} were never shipped.");
            assert_eq!(lost, 4);
        } else {
            println!("    Processed, then committed: {lost}.");
            assert_eq!(lost, 0);
        }
    }
    Ok(())
}

fn closed_in_the_middle_of_a_batch_that_failed() -> Outcome {
    // Automatic commits are on. The function fails at the poison, the consumer is dropped, and that closes it: it commits
    // what it has polled.
    let (machine, mut shipped) = (Machine::new(1), Shipped::new());
    let log = shop::open(&machine)?;
    let failed = ship_all(&log, &mut shipped);
    let lost = lost_after(&log, &mut shipped)?;
    println!("Closed in the middle of a batch that failed: {lost} of {ORDERS} were never shipped.");
    assert!(failed.is_err());
    assert_eq!(lost, 6, "the poison and all behind it");

    // Positions move with the work, what nobody can process is put aside, and the group goes on.
    let (machine, mut shipped) = (Machine::new(1), Shipped::new());
    let log = shop::open(&machine)?;
    let mut consumer = member(&log, ConsumerConfig::group("shipping"))?;
    let mut dead_letters = DeadLetterQueue::new(log.producer(), "dlq.orders", DeadLetterConfig::new())?;
    let records = consumer.poll(Duration::ZERO)?;
    let processed = dead_letters.process(&mut consumer, &records, |record| {
        if value(record) == POISON {
            return Err(ProcessingError::retriable("no such address"));
        }
        shipped.insert(value(record));
        Ok(())
    })?;
    consumer.close()?;
    let lost = lost_after(&log, &mut shipped)? - processed.dead_letters;
    println!("    With a dead-letter queue: {lost}, and {} was put aside.", processed.dead_letters);
    assert_eq!((lost, processed.dead_letters), (0, 1));
    Ok(())
}

fn ship_all(log: &EventLog, shipped: &mut Shipped) -> Outcome {
    let mut consumer = member(log, ConsumerConfig::group("shipping"))?;
    for record in &consumer.poll(Duration::ZERO)? {
        if value(&record) == POISON {
            return Err("no such address".into());
        }
        shipped.insert(value(&record));
    }
    Ok(())
}

fn committed_while_threads_were_still_at_work() -> Outcome {
    // Records are handed to others, who are done with the even ones when the process dies; the consumer has polled on
    // and committed its positions.
    for tracked in [false, true] {
        let (machine, mut shipped) = (Machine::new(1), Shipped::new());
        let log = shop::open(&machine)?;
        let mut consumer = member(&log, shipping())?;
        let mut tracker = OffsetTracker::new();
        let records = consumer.poll(Duration::ZERO)?;
        tracker.track(&records);
        for record in records.iter().step_by(2) {
            shipped.insert(value(&record));
            tracker.finish(record.topic_partition(), record.offset());
        }
        if tracked {
            tracker.commit(&mut consumer)?;
        } else {
            consumer.commit()?;
        }
        let log = machine.kill().open(LogConfig::new())?;
        let lost = lost_after(&log, &mut shipped)?;
        if tracked {
            println!("    With an offset tracker: {lost}.");
            assert_eq!(lost, 0);
        } else {
            println!("Committed while threads were still at work: {lost} of {ORDERS} were never shipped.");
            assert_eq!(lost, 5);
        }
    }
    Ok(())
}
