//! The processes that the demo kills. They tell on standard output, which survives them, what the log has told them:
//!
//! | line                                   | said when                                                          |
//! |----------------------------------------|--------------------------------------------------------------------|
//! | `acked PARTITION OFFSET USER NUMBER`   | the delivery of this event was waited for                          |
//! | `read PARTITION OFFSET USER NUMBER CRC`| a poll returned it; CRC-32 of the bytes of the value, as read      |
//! | `committed PARTITION OFFSET`           | the commit has returned                                            |
//! | `done RECORDS MICROSECONDS`            | all is done, and how long sending or reading took                  |
//!
//! A line without its end was cut by the kill and was not said.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tidelog::{ConsumerConfig, EventLog, LogConfig, OffsetReset, Producer, ProducerRecord, TopicPartition};

use crate::args::{DemoConsume, DemoProduce};
use crate::demo::event;
use crate::failure::{Failure, Outcome};

/// Sends events with several threads, each with users of its own, going on from what the log holds.
pub(crate) fn produce(dir: &Path, what: &DemoProduce) -> Outcome {
    let log = EventLog::open_with(dir, LogConfig::new().create(false))?;
    let next = next_numbers(&log, &what.topic)?;
    let producer = log.producer();
    let threads = u64::from(what.threads.max(1));
    let start = Instant::now();
    let results: Vec<Outcome<u64>> = thread::scope(|scope| {
        let work = |thread: u64| {
            let users: Vec<(u64, u64)> = (thread..event::USERS)
                .step_by(threads.try_into().expect("few"))
                .map(|user| (user, next.get(&user).copied().unwrap_or(0)))
                .collect();
            let count = what.records / threads + u64::from(thread < what.records % threads);
            let producer = &producer;
            scope.spawn(move || send(producer, what, users, count))
        };
        let workers: Vec<_> = (0..threads).map(work).collect();
        workers.into_iter().map(|worker| worker.join().expect("a thread of ours does not panic")).collect()
    });
    let taken = start.elapsed();
    let sent = results.into_iter().sum::<Outcome<u64>>()?;
    drop(producer);
    log.close()?;
    say(&format!("done {sent} {}\n", taken.as_micros()))
}

/// The number that the next event of each user has.
fn next_numbers(log: &EventLog, topic: &str) -> Outcome<HashMap<u64, u64>> {
    let mut next = HashMap::new();
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest))?;
    consumer.subscribe([topic])?;
    loop {
        let records = consumer.poll(Duration::ZERO)?;
        if records.is_empty() {
            return Ok(next);
        }
        for record in &records {
            let user = record.key().and_then(event::user_of);
            let number = record.value().and_then(event::number_of);
            if let (Some(user), Some(number)) = (user, number) {
                next.insert(user, number + 1);
            }
        }
    }
}

fn send(producer: &Producer, what: &DemoProduce, mut users: Vec<(u64, u64)>, count: u64) -> Outcome<u64> {
    let mut sent = 0;
    let mut lines = String::new();
    let mut waiting = Vec::with_capacity(what.burst);
    let mut turn = 0;
    while sent < count {
        for _ in 0..(what.burst as u64).min(count - sent) {
            let at = turn % users.len();
            let (user, number) = &mut users[at];
            let (key, value) = (event::key(*user), event::value(*user, *number));
            let delivery = producer.send(ProducerRecord::new(&what.topic, &value).key(&key))?;
            waiting.push((delivery, *user, *number));
            *number += 1;
            turn += 1;
            sent += 1;
        }
        lines.clear();
        for (delivery, user, number) in waiting.drain(..) {
            let metadata = delivery.wait()?;
            writeln!(lines, "acked {} {} {user} {number}", metadata.partition(), metadata.offset())
                .expect("text takes everything");
        }
        say(&lines)?;
    }
    Ok(sent)
}

/// Reads events for a group to the end, and commits after each poll.
pub(crate) fn consume(dir: &Path, what: &DemoConsume) -> Outcome {
    let log = EventLog::open_with(dir, LogConfig::new().create(false))?;
    let config = ConsumerConfig::group(&what.group)
        .auto_offset_reset(OffsetReset::Earliest)
        .auto_commit(false)
        .max_poll_records(what.poll);
    let mut consumer = log.consumer(config)?;
    consumer.subscribe([what.topic.as_str()])?;
    let mut lines = String::new();
    let mut read = 0u64;
    let start = Instant::now();
    loop {
        let records = consumer.poll(Duration::ZERO)?;
        if records.is_empty() {
            break;
        }
        lines.clear();
        for record in &records {
            let value = record.value().unwrap_or_default();
            let user = record.key().and_then(event::user_of).ok_or_else(|| foreign(record.topic_partition()))?;
            let number = event::number_of(value).ok_or_else(|| foreign(record.topic_partition()))?;
            let crc = crc32fast::hash(value);
            writeln!(lines, "read {} {} {user} {number} {crc}", record.partition(), record.offset())
                .expect("text takes everything");
            read += 1;
        }
        // What is processed is said before it is committed: a kill in between makes it read twice, not lost.
        say(&lines)?;
        consumer.commit()?;
        lines.clear();
        for (name, offset) in records.next_offsets() {
            writeln!(lines, "committed {} {offset}", name.partition()).expect("text takes everything");
        }
        say(&lines)?;
    }
    let taken = start.elapsed();
    consumer.close()?;
    log.close()?;
    say(&format!("done {read} {}\n", taken.as_micros()))
}

fn foreign(partition: &TopicPartition) -> Failure {
    Failure::failed(format!("{partition} holds an event that the demo did not send"))
}

/// Writes whole lines, those of one call together.
fn say(lines: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).map_err(Failure::of_stdout)
}
