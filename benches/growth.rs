//! What becomes of the log when there is more of everything: partitions, segments, bytes in a record, records.
//!
//! `cargo bench --bench growth`, for a look whether it runs with `-- --quick`. Each curve is a table, and a line of a
//! picture that is written beside the build. What should be flat is flat in the picture.

mod limit;
mod plot;
mod subject;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tidelog::{ConsumerConfig, Durability, EventLog, OffsetReset, ProducerRecord, TopicConfig, TopicPartition};

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
    let value = |bytes: usize| vec![7; bytes];
    let records = if quick() { 20_000 } else { 2_000_000 };
    let config = TopicConfig::new().durability(Durability::Os);
    let measure = |title: &str, axis: &str, file: &str, points: Vec<(usize, TopicConfig, usize, usize)>| {
        let table = Table::new(title, &COLUMNS);
        let names = ["send, ns", "limit, ns", "read, ns", "open, µs"];
        let mut curves = names.map(|name| Curve { name: name.to_owned(), points: Vec::new() });
        for (what, config, bytes, records) in points {
            let point = measure_one(config, &value(bytes - 8), records);
            // Room for a few of the largest records, or there is no limit to be seen and none to be plotted.
            let effort = Effort { file_bytes: effort().file_bytes.max(4 * bytes), ..effort() };
            let limit = append_limit(Shape { record_bytes: bytes, records_per_batch: 1 }, Pages::Untouched, effort);
            let open = point.open.as_secs_f64() * 1e3;
            let cells = [point.send, limit, point.read, point.close.as_secs_f64() * 1e3, open, point.room];
            let cells = cells.iter().map(|number| format!("{number:.1}")).chain([(point.resident >> 20).to_string()]);
            table.row(&row(&format!("{what} {axis}"), cells));
            for (curve, y) in curves.iter_mut().zip([point.send, limit, point.read, open * 1e3]) {
                curve.points.push((what as f64, y));
            }
        }
        println!("\n{}", plot(file, title, (axis, "per record; opening as a whole"), &curves).display());
    };
    let steps = |most: usize| (0..).map(|power| 10usize.pow(power)).take_while(move |step| *step <= most);
    let most = if quick() { 10 } else { 10_000 };
    let points = steps(most).map(|partitions| (partitions, config.clone().partitions(partitions as u32), 100, records));
    measure("more partitions, 100 B", "partitions", "growth-partitions.svg", points.collect());
    let segment = |segments: usize| ((records * 152 / segments) as u32).clamp(16 << 10, 1 << 30);
    let points = steps(most).map(|segments| (segments, config.clone().segment_bytes(segment(segments)), 100, records));
    measure("more segments, 100 B", "segments", "growth-segments.svg", points.collect());
    let sizes = [10usize, 100, 1 << 10, 10 << 10, 100 << 10, 1 << 20, 16 << 20];
    let points = sizes.map(|bytes| {
        let records = (records * 100 / bytes.max(100)).max(16);
        (bytes, config.clone().segment_bytes(128 << 20).max_record_bytes(17 << 20), bytes.max(10), records)
    });
    measure("larger records", "bytes", "growth-bytes.svg", points.to_vec());
    let points = steps(records * 5).skip(3).map(|records| (records, config.clone(), 100, records));
    measure("longer logs, 100 B", "records", "growth-records.svg", points.collect());
}

fn effort() -> Effort {
    Effort { rounds: 3, ..Effort::from_args() }
}

struct Point {
    send: f64,
    read: f64,
    close: Duration,
    open: Duration,
    /// Bytes on the disk for each record.
    room: f64,
    /// Bytes of files in the memory of the process, behind it all.
    resident: u64,
}

fn measure_one(config: TopicConfig, value: &[u8], records: usize) -> Point {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory beside the build");
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
    let resident = resident();
    drop(producer);
    let start = Instant::now();
    log.close().expect("everything can be synced");
    let close = start.elapsed();
    let room = room(directory.path()) as f64 / records as f64;
    let start = Instant::now();
    let log = EventLog::open(directory.path()).expect("the log that was closed");
    let open = start.elapsed();
    log.close().expect("nothing is left to sync");
    Point { send, read, close, open, room, resident }
}

fn read(log: &EventLog, partitions: u32, records: usize) -> f64 {
    let mut consumer =
        log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).expect("a consumer");
    consumer.assign((0..partitions).map(|number| TopicPartition::new(TOPIC, number))).expect("they are there");
    let start = Instant::now();
    let mut read = 0;
    while read < records {
        read += consumer.poll(Duration::ZERO).expect("the log is whole").iter().count();
    }
    nanos_per_record(start.elapsed(), records)
}

/// Bytes on the disk of all files below `directory`.
fn room(directory: &Path) -> u64 {
    let of = |entry: fs::DirEntry| {
        let metadata = entry.metadata().expect("a file that is there");
        if metadata.is_dir() { room(&entry.path()) } else { metadata.blocks() * 512 }
    };
    fs::read_dir(directory).expect("a directory").map(|entry| of(entry.expect("a name"))).sum()
}

/// Bytes of files in the memory of this process; 0 where nobody says so.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssFile:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
