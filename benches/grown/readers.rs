//! More and more of those who read: consumers of the same partition, and groups.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tidelog::{Consumer, ConsumerConfig, Durability, EventLog, LogConfig, OffsetReset, ProducerRecord, TopicConfig};

use super::{consumer, directory, resident, steps};
use crate::limit::{Table, nanos_per_record, quick};
use crate::plot::{Curve, plot};
use crate::subject::{LABEL_WIDTH, TOPIC, row};

const VALUE: [u8; 92] = [7; 92];

fn most() -> usize {
    if quick() { 10 } else { 1_000 }
}

fn records() -> usize {
    if quick() { 2_000 } else { 200_000 }
}

fn log_config() -> LogConfig {
    LogConfig::new().commit_durability(Durability::Os)
}

fn send(log: &EventLog, count: usize) -> f64 {
    let producer = log.producer();
    let start = Instant::now();
    for _ in 0..count {
        producer.send(ProducerRecord::new(TOPIC, &VALUE).key(b"12345678")).expect("there is room");
    }
    nanos_per_record(start.elapsed(), count)
}

/// All of them read everything that is there, in turn: nanoseconds for each record of each.
fn read(consumers: &mut [Consumer], count: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..count.div_ceil(500) {
        for consumer in &mut *consumers {
            consumer
                .poll(Duration::ZERO)
                .expect("the log is whole")
                .iter()
                .for_each(|record| assert!(record.value().is_some()));
        }
    }
    nanos_per_record(start.elapsed(), count * consumers.len())
}

/// The mean time of what is done with each of them.
fn each(consumers: &mut [Consumer], work: impl FnMut(&mut Consumer)) -> f64 {
    let start = Instant::now();
    let count = consumers.len();
    consumers.iter_mut().for_each(work);
    nanos_per_record(start.elapsed(), count)
}

fn poll_nothing(consumer: &mut Consumer) {
    assert!(consumer.poll(Duration::ZERO).expect("the log is whole").is_empty(), "all was read");
}

/// A table with a row for each step, and its picture.
fn curves(title: &str, axis: &str, file: &str, columns: &[&str], one: impl Fn(usize) -> Vec<f64>) {
    let heads: Vec<_> = [("", LABEL_WIDTH)].into_iter().chain(columns.iter().map(|name| (*name, 12))).collect();
    let table = Table::new(title, &heads);
    let mut curves: Vec<Curve> =
        columns.iter().map(|name| Curve { name: (*name).to_owned(), points: Vec::new() }).collect();
    for step in steps(most()) {
        let found = one(step);
        table.row(&row(&format!("{step} {axis}"), found.iter().map(|number| format!("{number:.1}"))));
        for (curve, number) in curves.iter_mut().zip(found) {
            curve.points.push((step as f64, number.max(0.1)));
        }
    }
    println!("\n{}", plot(file, title, (axis, "as the table says"), &curves).display());
}

/// Consumers of one partition, each of its own. *Wake*: a send while all of them wait, shared out among them.
pub(crate) fn consumers() {
    let columns = ["send ns", "read ns", "idle poll ns", "wake ns", "KiB each"];
    curves("more consumers, 100 B", "consumers", "growth-consumers.svg", &columns, |count| {
        let directory = directory();
        let log = EventLog::open(directory.path()).expect("a new log");
        log.create_topic(TOPIC, TopicConfig::new().durability(Durability::Os)).expect("a new topic");
        let before = resident("RssAnon");
        let mut consumers: Vec<Consumer> = (0..count).map(|_| consumer(&log, 1, 500)).collect();
        consumers.iter_mut().for_each(poll_nothing);
        let memory = resident("RssAnon").saturating_sub(before) as f64 / 1024.0 / count as f64;
        let send = send(&log, records());
        let each_reads = (records() * 10 / count).min(records());
        let read = read(&mut consumers, each_reads);
        // Whoever has not read all of it goes to its end.
        consumers.iter_mut().for_each(|consumer| consumer.seek_to_end(&[]).expect("the partition is assigned"));
        let idle = each(&mut consumers, poll_nothing);
        let wake = wake(&log, &mut consumers);
        drop(consumers);
        log.close().expect("everything can be synced");
        vec![send, read, idle, wake, memory]
    });
}

/// Nanoseconds for each of those who wait to be told of a record, and to get it.
fn wake(log: &EventLog, consumers: &mut [Consumer]) -> f64 {
    let mut context = Context::from_waker(Waker::noop());
    let count = consumers.len();
    let mut waiting: Vec<_> =
        consumers.iter_mut().map(|one| Box::pin(one.poll_async(Duration::from_secs(60)))).collect();
    let start = Instant::now();
    for one in &mut waiting {
        assert!(pin!(one).poll(&mut context).is_pending(), "there is nothing yet");
    }
    send(log, 1);
    for one in &mut waiting {
        assert!(pin!(one).poll(&mut context).is_ready(), "there is a record");
    }
    nanos_per_record(start.elapsed(), count)
}

/// Groups of one member each, that read the same partition. The *first commit* makes the log of the group, which is synced a
/// few times. *Open* is that of the whole log.
pub(crate) fn groups() {
    let columns = ["send ns", "read ns", "idle poll ns", "first commit us", "commit ns", "open ms", "KiB each"];
    curves("more groups, 100 B", "groups", "growth-groups.svg", &columns, |count| {
        let directory = directory();
        let log = EventLog::open_with(directory.path(), log_config()).expect("a new log");
        log.create_topic(TOPIC, TopicConfig::new().durability(Durability::Os)).expect("a new topic");
        let before = resident("RssAnon");
        let member = |number: usize| {
            let config = ConsumerConfig::group(format!("group-{number}")).auto_offset_reset(OffsetReset::Earliest);
            let mut consumer = log.consumer(config.auto_commit(false)).expect("a consumer");
            consumer.subscribe([TOPIC]).expect("the topic is there");
            consumer.wait_for_assignment(Duration::from_secs(60)).expect("nobody else is in the group");
            consumer
        };
        let mut members: Vec<Consumer> = (0..count).map(member).collect();
        let memory = resident("RssAnon").saturating_sub(before) as f64 / 1024.0 / count as f64;
        let send = send(&log, records());
        let each_reads = (records() * 10 / count).min(records());
        let read = read(&mut members, each_reads);
        let commit = |member: &mut Consumer| member.commit().expect("there is room");
        let first_commit = each(&mut members, commit) / 1e3;
        let commit = each(&mut members, commit);
        members.iter_mut().for_each(|member| member.seek_to_end(&[]).expect("the partition is assigned"));
        let idle = each(&mut members, poll_nothing);
        drop(members);
        log.close().expect("everything can be synced");
        let start = Instant::now();
        let log = EventLog::open_with(directory.path(), log_config()).expect("the log that was closed");
        let open = start.elapsed().as_secs_f64() * 1e3;
        log.close().expect("nothing is left to sync");
        vec![send, read, idle, first_commit, commit, open, memory]
    });
}
