//! What becomes of the log when there is more of everything: partitions, segments, bytes in a record, records, consumers,
//! groups; and what it takes to open it again.
//!
//! `cargo bench --bench growth`, for a look whether it runs with `-- --quick`; with a word behind it only those tables
//! whose names have it in them: `-- reopen`. Each curve is a table, and most are a line of a picture that is written
//! beside the build. What should be flat is flat in the picture.

mod grown;
mod limit;
mod plot;
mod subject;

use std::env;
use std::time::{Duration, Instant};

use tidelog::{Durability, EventLog, ProducerRecord, TopicConfig};

use grown::{consumer, directory, resident, room, steps};
use limit::{Effort, Pages, Shape, Table, append_limit, nanos_per_record, quick};
use plot::{Curve, plot};
use subject::{LABEL_WIDTH, TOPIC, row};

const COLUMNS: [(&str, usize); 8] = [
    ("", LABEL_WIDTH),
    ("send ns", 9),
    ("limit ns", 9),
    ("read ns", 9),
    ("close ms", 9),
    ("open ms", 9),
    ("B/record", 9),
    ("file RSS MiB", 13),
];

fn main() {
    grown::reopening::be_doomed();
    let wanted =
        |name: &str| env::args().skip(1).filter(|word| !word.starts_with('-')).all(|word| name.contains(&word));
    let tables: [(&str, fn()); 8] = [
        ("partitions", partitions),
        ("segments", segments),
        ("bytes", bytes),
        ("records", long_logs),
        ("consumers", grown::readers::consumers),
        ("groups", grown::readers::groups),
        ("reopen", grown::reopening::measure),
        ("size", grown::size::measure),
    ];
    tables.iter().filter(|(name, _)| wanted(name)).for_each(|(_, table)| table());
}

/// What is measured: what the axis says, the topic, the bytes of a record, and how many.
type Point = (usize, TopicConfig, usize, usize);

fn measure(title: &str, axis: &str, file: &str, points: impl IntoIterator<Item = Point>) {
    let table = Table::new(title, &COLUMNS);
    let names = ["send, ns", "limit, ns", "read, ns", "open, µs"];
    let mut curves = names.map(|name| Curve { name: name.to_owned(), points: Vec::new() });
    for (what, config, bytes, records) in points {
        let found = measure_one(config, &vec![7; bytes - 8], records);
        // Room for a few of the largest records, or there is no limit to be seen and none to be plotted.
        let effort = Effort { file_bytes: effort().file_bytes.max(4 * bytes), ..effort() };
        let limit = append_limit(Shape { record_bytes: bytes, records_per_batch: 1 }, Pages::Untouched, effort);
        let open = found.open.as_secs_f64() * 1e3;
        let cells = [found.send, limit, found.read, found.close.as_secs_f64() * 1e3, open, found.room];
        let cells = cells.iter().map(|number| format!("{number:.1}")).chain([(found.resident >> 20).to_string()]);
        table.row(&row(&format!("{what} {axis}"), cells));
        for (curve, y) in curves.iter_mut().zip([found.send, limit, found.read, open * 1e3]) {
            curve.points.push((what as f64, y));
        }
    }
    println!("\n{}", plot(file, title, (axis, "per record; opening as a whole"), &curves).display());
}

fn records() -> usize {
    if quick() { 20_000 } else { 2_000_000 }
}

fn config() -> TopicConfig {
    TopicConfig::new().durability(Durability::Os)
}

fn most() -> usize {
    if quick() { 10 } else { 10_000 }
}

fn partitions() {
    let points = steps(most()).map(|partitions| (partitions, config().partitions(partitions as u32), 100, records()));
    measure("more partitions, 100 B", "partitions", "growth-partitions.svg", points);
}

fn segments() {
    let segment = |segments: usize| ((records() * 152 / segments) as u32).clamp(16 << 10, 1 << 30);
    let points = steps(most()).map(|segments| (segments, config().segment_bytes(segment(segments)), 100, records()));
    measure("more segments, 100 B", "segments", "growth-segments.svg", points);
}

fn bytes() {
    let sizes = [10usize, 100, 1 << 10, 10 << 10, 100 << 10, 1 << 20, 16 << 20];
    let points = sizes.map(|bytes| {
        let records = (records() * 100 / bytes.max(100)).max(16);
        (bytes, config().segment_bytes(128 << 20).max_record_bytes(17 << 20), bytes, records)
    });
    measure("larger records", "bytes", "growth-bytes.svg", points);
}

fn long_logs() {
    let points = steps(records() * 5).skip(3).map(|records| (records, config(), 100, records));
    measure("longer logs, 100 B", "records", "growth-records.svg", points);
}

fn effort() -> Effort {
    Effort { rounds: 3, ..Effort::from_args() }
}

struct Found {
    send: f64,
    read: f64,
    close: Duration,
    open: Duration,
    /// Bytes on the disk for each record.
    room: f64,
    /// Bytes of files in the memory of the process, behind it all.
    resident: u64,
}

fn measure_one(config: TopicConfig, value: &[u8], records: usize) -> Found {
    let directory = directory();
    let log = EventLog::open(directory.path()).expect("a new log");
    let partitions = config.partition_count();
    log.create_topic(TOPIC, config).expect("a new topic");
    let producer = log.producer();
    let start = Instant::now();
    for number in 0..records {
        let record = ProducerRecord::new(TOPIC, value).key(b"12345678").partition(number as u32 % partitions);
        producer.send(record).expect("there is room");
    }
    let send = nanos_per_record(start.elapsed(), records);
    let read = read(&log, partitions, records);
    let resident = resident("RssFile");
    drop(producer);
    let start = Instant::now();
    log.close().expect("everything can be synced");
    let close = start.elapsed();
    let room = room(directory.path()) as f64 / records as f64;
    let start = Instant::now();
    let log = EventLog::open(directory.path()).expect("the log that was closed");
    let open = start.elapsed();
    log.close().expect("nothing is left to sync");
    Found { send, read, close, open, room, resident }
}

fn read(log: &EventLog, partitions: u32, records: usize) -> f64 {
    let mut consumer = consumer(log, partitions, 500);
    let start = Instant::now();
    let mut read = 0;
    while read < records {
        read += consumer.poll(Duration::ZERO).expect("the log is whole").iter().count();
    }
    nanos_per_record(start.elapsed(), records)
}
