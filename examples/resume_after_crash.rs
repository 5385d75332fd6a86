//! A process that counts orders dies in the middle, as with kill -9; the next one goes on where it had committed.
//!
//! The count is exact although some orders are read twice, because it is keyed by the offset: what was counted already
//! is recognized. Delivery is at least once; a result that knows its offsets makes it exactly once.
//!
//! ```text
//! cargo run --example resume_after_crash
//! ```

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidelog::{ConsumerConfig, EventLog, OffsetReset, ProducerRecord, TopicConfig};

const ORDERS: usize = 1000;
/// The first worker is killed once it has told of so many.
const KILL_AFTER: usize = 333;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The same program is also the worker, when it is told a directory.
    if let Some(directory) = env::args_os().nth(1) {
        return work(Path::new(&directory));
    }
    let directory = tempfile::tempdir()?;
    let log = EventLog::open(directory.path())?;
    log.create_topic("orders", TopicConfig::new())?;
    let producer = log.producer();
    for order in 0..ORDERS {
        producer.send(ProducerRecord::new("orders", &format!("order {order}")))?;
    }
    producer.flush()?;
    drop(producer);
    // One process at a time may write, and a group writes what it commits.
    log.close()?;

    let mut counted = BTreeSet::new();
    let first = run_worker(directory.path(), &mut counted, Some(KILL_AFTER))?;
    println!("The first worker read {first} orders and was killed.");
    let second = run_worker(directory.path(), &mut counted, None)?;
    println!("The second went on where the first had committed, and read {second}.");
    println!("{} were read twice; each of the {} was counted once.", first + second - counted.len(), counted.len());
    assert_eq!(counted.len(), ORDERS, "nothing is missing");
    Ok(())
}

/// Reads as a group, tells the offset of each order on standard output, and commits after every few.
fn work(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let log = EventLog::open(directory)?;
    let config = ConsumerConfig::group("counters")
        .auto_offset_reset(OffsetReset::Earliest)
        .auto_commit(false)
        .max_poll_records(50);
    let mut consumer = log.consumer(config)?;
    consumer.subscribe(["orders"])?;
    loop {
        let records = consumer.poll(Duration::ZERO)?;
        if records.is_empty() {
            return Ok(());
        }
        for record in &records {
            println!("{}", record.offset());
        }
        // Only now: whoever commits first and works then loses what a crash takes in between.
        consumer.commit()?;
    }
}

/// Runs a worker, and kills it once it has told of `kill_after` orders; returns of how many it has told.
fn run_worker(
    directory: &Path,
    counted: &mut BTreeSet<u64>,
    kill_after: Option<usize>,
) -> Result<usize, Box<dyn std::error::Error>> {
    let mut worker = Command::new(env::current_exe()?).arg(directory).stdout(Stdio::piped()).spawn()?;
    let mut told = 0;
    for line in BufReader::new(worker.stdout.take().expect("it was asked for")).lines() {
        counted.insert(line?.parse()?);
        told += 1;
        if kill_after == Some(told) {
            worker.kill()?;
            break;
        }
    }
    worker.wait()?;
    Ok(told)
}
