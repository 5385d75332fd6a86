//! Three well-known ways to process a record twice, each told on a simulated machine in no time at all.
//!
//! A group reads *at least once*: it goes on where it has committed, and processes again what came after that. Nothing
//! below is a fault of the log, and the second half of each story is what helps.
//!
//! ```text
//! cargo run --example duplicates --features sim
//! ```

mod shop;

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{Consumer, ConsumerConfig, ConsumerRecord, Error, LogConfig};

use shop::{ORDERS, member};

const MINUTE: Duration = Duration::from_secs(60);

type Outcome = Result<(), Box<dyn StdError>>;

fn main() -> Outcome {
    killed_before_the_commit()?;
    slower_than_the_group_allows()?;
    killed_before_the_automatic_commit_was_due()
}

#[test]
fn the_stories_end_as_they_are_told() {
    main().unwrap();
}

/// The world outside, which a crash does not undo: who was charged, and how often.
#[derive(Default)]
struct Bank {
    charges: Vec<String>,
    /// Partition and offset of what was charged: they name a record for ever.
    seen: BTreeSet<(u32, u64)>,
}

impl Bank {
    fn charge(&mut self, record: &ConsumerRecord<'_>) {
        self.charges.push(String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned());
    }

    /// Charges no record twice, however often it is asked to.
    fn charge_once(&mut self, record: &ConsumerRecord<'_>) {
        if self.seen.insert((record.partition(), record.offset().get())) {
            self.charge(record);
        }
    }

    fn charged_twice(&self) -> usize {
        self.charges.len() - self.charges.iter().collect::<BTreeSet<_>>().len()
    }
}

fn billing() -> ConsumerConfig {
    ConsumerConfig::group("billing").auto_commit(false)
}

/// Polls until there is nothing left, and commits after each poll.
fn work_off(consumer: &mut Consumer, mut charge: impl FnMut(&ConsumerRecord<'_>)) -> tidelog::Result<()> {
    loop {
        let records = consumer.poll(Duration::from_millis(100))?;
        if records.is_empty() {
            return Ok(());
        }
        records.iter().for_each(|record| charge(&record));
        consumer.commit()?;
    }
}

fn killed_before_the_commit() -> Outcome {
    // All ten are charged, and the process dies on the way to the commit.
    let (machine, mut bank) = (Machine::new(1), Bank::default());
    let log = shop::open(&machine)?;
    let mut consumer = member(&log, billing())?;
    consumer.poll(Duration::ZERO)?.iter().for_each(|record| bank.charge(&record));
    let log = machine.kill().open(LogConfig::new())?;
    work_off(&mut member(&log, billing())?, |record| bank.charge(record))?;
    println!("Killed before the commit: {} of {ORDERS} were charged twice.", bank.charged_twice());
    assert_eq!(bank.charged_twice(), ORDERS);

    // What is done twice must make no difference. Partition and offset tell that it is the same record.
    let (machine, mut bank) = (Machine::new(1), Bank::default());
    let log = shop::open(&machine)?;
    let mut consumer = member(&log, billing())?;
    consumer.poll(Duration::ZERO)?.iter().for_each(|record| bank.charge_once(&record));
    let log = machine.kill().open(LogConfig::new())?;
    work_off(&mut member(&log, billing())?, |record| bank.charge_once(record))?;
    println!("    The bank remembers partition and offset: {}.", bank.charged_twice());
    assert_eq!((bank.charges.len(), bank.charged_twice()), (ORDERS, 0));
    Ok(())
}

fn slower_than_the_group_allows() -> Outcome {
    // A charge takes a minute, and the member has five between two polls: then it is taken for stuck, and another gets
    // its partition. It notices when it commits.
    let (machine, mut bank) = (Machine::new(1), Bank::default());
    let log = shop::open(&machine)?;
    let mut slow = member(&log, billing())?;
    let mut charge = |record: &ConsumerRecord<'_>| {
        machine.sleep(MINUTE);
        bank.charge(record);
    };
    slow.poll(Duration::ZERO)?.iter().for_each(|record| charge(&record));
    let mut other = member(&log, billing().max_poll_interval(60 * MINUTE))?;
    work_off(&mut other, &mut charge)?;
    let refused = slow.commit();
    println!("Slower than max.poll.interval.ms: {} of {ORDERS} were charged twice.", bank.charged_twice());
    assert!(matches!(refused, Err(Error::CommitFailed { .. })), "{refused:?}");
    assert_eq!(bank.charged_twice(), ORDERS);

    // So many records per poll that they are done in time, on a bad day too.
    let (machine, mut bank) = (Machine::new(1), Bank::default());
    let log = shop::open(&machine)?;
    let mut charge = |record: &ConsumerRecord<'_>| {
        machine.sleep(MINUTE);
        bank.charge(record);
    };
    work_off(&mut member(&log, billing().max_poll_records(2))?, &mut charge)?;
    work_off(&mut member(&log, billing())?, &mut charge)?;
    println!("    Two records a poll: {}.", bank.charged_twice());
    assert_eq!((bank.charges.len(), bank.charged_twice()), (ORDERS, 0));
    Ok(())
}

fn killed_before_the_automatic_commit_was_due() -> Outcome {
    // Automatic commits are made by the first poll after each five seconds. Here the process lives for four.
    let config = || ConsumerConfig::group("billing").max_poll_records(1);
    let (machine, mut bank) = (Machine::new(1), Bank::default());
    let log = shop::open(&machine)?;
    let mut consumer = member(&log, config())?;
    for _ in 0..ORDERS {
        consumer.poll(Duration::ZERO)?.iter().for_each(|record| bank.charge(&record));
        machine.sleep(Duration::from_millis(400));
    }
    let log = machine.kill().open(LogConfig::new())?;
    work_off(&mut member(&log, config())?, |record| bank.charge(record))?;
    println!("Killed before the automatic commit was due: {} of {ORDERS} were charged twice.", bank.charged_twice());
    assert_eq!(bank.charged_twice(), ORDERS);

    // Whoever commits after each poll does at most that poll's records twice: here the last one.
    let (machine, mut bank) = (Machine::new(1), Bank::default());
    let log = shop::open(&machine)?;
    let mut consumer = member(&log, config().auto_commit(false))?;
    for order in 1..=ORDERS {
        consumer.poll(Duration::ZERO)?.iter().for_each(|record| bank.charge(&record));
        machine.sleep(Duration::from_millis(400));
        if order < ORDERS {
            consumer.commit()?;
        }
    }
    let log = machine.kill().open(LogConfig::new())?;
    work_off(&mut member(&log, config())?, |record| bank.charge(record))?;
    println!("    A commit after each poll: {}.", bank.charged_twice());
    assert_eq!(bank.charged_twice(), 1);
    Ok(())
}
