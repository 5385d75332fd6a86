//! Appending: `send` and `send_batch` beside the machine's own limit, and what a sync of each record costs.
//!
//! `cargo bench --bench append`, for a look whether it runs with `-- --quick`. The first table is of topics that nobody
//! syncs (`Durability::Os`), the last of one that syncs (`Durability::Sync`). The limit is that of `benches/limit`: it
//! copies and computes a CRC-32, in pages that were there before (*touched*) or are made on the way (*untouched*).
//! Rolls of segments are part of what is measured.

mod limit;
mod subject;

use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use tidelog::Durability;

use limit::{Effort, Latencies, Pages, Shape, Table, append_limit, nanos_per_record, quick};
use subject::{Records, Subject, TOPIC, median, repetitions, row, send_all, shape_columns, shapes};

/// What one run of a shape sends: four segments, so that three rolls are among it.
const RUN_BYTES: usize = 256 << 20;

/// Records between two calls of `flush`.
const FLUSH_EVERY: usize = 1000;

/// Threads that commit together.
const THREADS: [usize; 2] = [8, 64];

fn main() {
    unsynced();
    latencies();
    synced();
}

/// How many records of a shape one run sends.
fn run_length(shape: Shape) -> usize {
    let bytes = if quick() { RUN_BYTES / 64 } else { RUN_BYTES };
    (bytes / shape.record_bytes).next_multiple_of(shape.records_per_batch)
}

fn unsynced() {
    let table = Table::new("append, Durability::Os: ns per record, medians", &shape_columns());
    let effort = Effort { rounds: 1, ..Effort::from_args() };
    let shapes = shapes();
    let mut touched = vec![Vec::new(); shapes.len()];
    let mut untouched = touched.clone();
    let mut sent = touched.clone();
    for _ in 0..repetitions() {
        for (at, (shape, _)) in shapes.iter().enumerate() {
            touched[at].push(append_limit(*shape, Pages::Touched, effort));
            untouched[at].push(append_limit(*shape, Pages::Untouched, effort));
            let (records, count) = (Records::new(*shape), run_length(*shape));
            let subject = Subject::new(Durability::Os);
            // Routes are looked up once: that is no part of an append.
            send_all(&subject.producer, &records, *shape, shape.records_per_batch);
            sent[at].push(nanos_per_record(send_all(&subject.producer, &records, *shape, count), count));
            subject.discard();
        }
    }
    let medians = |runs: &[Vec<f64>]| -> Vec<f64> { runs.iter().map(|run| median(run)).collect() };
    let (touched, untouched, sent) = (medians(&touched), medians(&untouched), medians(&sent));
    table.row(&row("limit, touched", touched.iter().map(|nanos| format!("{nanos:.1}"))));
    table.row(&row("limit, untouched", untouched.iter().map(|nanos| format!("{nanos:.1}"))));
    table.row(&row("send", sent.iter().map(|nanos| format!("{nanos:.1}"))));
    table.row(&row("send, M/s", sent.iter().map(|nanos| format!("{:.2}", 1e3 / nanos))));
    let ratios = |limit: &[f64]| -> Vec<String> {
        limit.iter().zip(&sent).map(|(limit, sent)| format!("{:.2}", limit / sent)).collect()
    };
    table.row(&row("of the untouched limit", ratios(&untouched)));
    table.row(&row("of the touched limit", ratios(&touched)));
}

fn latencies() {
    let columns = [&[("", subject::LABEL_WIDTH)], Latencies::COLUMNS.as_slice()].concat();
    let table = Table::new("send, Durability::Os: latency, with two readings of the clock", &columns);
    for (shape, name) in shapes().into_iter().filter(|(shape, _)| shape.records_per_batch == 1) {
        let mut latencies = Latencies::new();
        let (records, count) = (Records::new(shape), run_length(shape));
        let subject = Subject::new(Durability::Os);
        send_all(&subject.producer, &records, shape, 1);
        for number in 0..count {
            latencies.time(|| subject.producer.send(records.get(number)).expect("there is room"));
        }
        subject.discard();
        table.row(&row(name, latencies.cells()));
    }
}

/// One way to append and sync, run after run.
struct Way {
    label: String,
    latencies: Latencies,
    rates: Vec<f64>,
}

impl Way {
    fn new(label: &str) -> Self {
        Way { label: label.to_owned(), latencies: Latencies::new(), rates: Vec::new() }
    }

    fn add(&mut self, count: usize, took: Duration) {
        self.rates.push(count as f64 / took.as_secs_f64());
    }
}

fn synced() {
    let columns = [&[("100 B", subject::LABEL_WIDTH), ("k/s", 8)], &Latencies::COLUMNS[..3]].concat();
    let table = Table::new("append and sync, Durability::Sync: median rates, latency of one record", &columns);
    let shape = Shape { record_bytes: 100, records_per_batch: 1 };
    let records = Records::new(shape);
    let syncs = if quick() { 50 } else { 2000 };
    let mut bare = Way::new("write + fdatasync, no log");
    let mut lone = Way::new("send + wait, 1 thread");
    let mut groups = THREADS.map(|threads| (threads, Way::new(&format!("send + wait, {threads} threads"))));
    let mut callbacks = Way::new("send_with, nobody waits");
    let mut pipelined = Way::new("send, flush every 1,000");
    let mut without = Way::new("the same with Durability::Os");
    for _ in 0..repetitions() {
        bare_syncs(&mut bare, shape, syncs);
        lone_syncs(&mut lone, &records, syncs);
        for (threads, way) in &mut groups {
            group_syncs(way, *threads, &records, syncs * 8 / *threads);
        }
        called_back(&mut callbacks, &records, syncs * 50);
        flushes(&mut pipelined, Durability::Sync, &records, syncs * 50);
        flushes(&mut without, Durability::Os, &records, syncs * 50);
    }
    let groups = groups.iter().map(|(_, way)| way);
    for way in [&bare, &lone].into_iter().chain(groups).chain([&pipelined, &callbacks, &without]) {
        let rate = format!("{:.1}", median(&way.rates) / 1e3);
        let cells: Vec<String> = [rate].into_iter().chain(way.latencies.cells()).take(4).collect();
        table.row(&row(&way.label, cells));
    }
    println!();
    println!("send + wait, of a bare sync: {:.2}", median(&lone.rates) / median(&bare.rates));
    println!("called back, of an append without sync: {:.2}", median(&callbacks.rates) / median(&without.rates));
    println!("pipelined, of an append without sync: {:.2}", median(&pipelined.rates) / median(&without.rates));
}

/// Writes a record and syncs it, into a file whose blocks were all written before: the least that the disk asks for.
fn bare_syncs(way: &mut Way, shape: Shape, syncs: usize) {
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("a file beside the build");
    let record = vec![7u8; shape.record_bytes + 56];
    file.write_all_at(&vec![0; syncs * record.len()], 0).expect("room on the disk");
    file.sync_all().expect("a disk that works");
    let start = Instant::now();
    for number in 0..syncs {
        way.latencies.time(|| {
            file.write_all_at(&record, (number * record.len()) as u64).expect("the room is allocated");
            file.sync_data().expect("a disk that works");
        });
    }
    way.add(syncs, start.elapsed());
}

fn lone_syncs(way: &mut Way, records: &Records, syncs: usize) {
    let subject = Subject::new(Durability::Sync);
    let start = Instant::now();
    for number in 0..syncs {
        way.latencies.time(|| subject.producer.send(records.get(number)).and_then(|sent| sent.wait()).expect("synced"));
    }
    way.add(syncs, start.elapsed());
    subject.discard();
}

fn group_syncs(way: &mut Way, threads: usize, records: &Records, syncs: usize) {
    let subject = Subject::new(Durability::Sync);
    let each = || {
        let producer = subject.producer.clone();
        let mut latencies = Latencies::new();
        for number in 0..syncs {
            latencies.time(|| producer.send(records.get(number)).and_then(|sent| sent.wait()).expect("synced"));
        }
        latencies
    };
    let start = Instant::now();
    thread::scope(|scope| {
        let group: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
        for thread in group {
            way.latencies.add(&thread.join().expect("no thread panics"));
        }
    });
    way.add(threads * syncs, start.elapsed());
    subject.discard();
}

/// Callbacks are told what is durable; the background worker syncs, and only the end is waited for.
fn called_back(way: &mut Way, records: &Records, count: usize) {
    let subject = Subject::new(Durability::Sync);
    let start = Instant::now();
    for number in 0..count {
        let send = || subject.producer.send_with(records.get(number), |told| drop(told.expect("a disk that works")));
        way.latencies.time(send).expect("there is room");
    }
    subject.producer.flush().expect("a disk that works");
    way.add(count, start.elapsed());
    subject.discard();
}

/// The latency is that of `send` alone, among which the syncs of others are hidden or not.
fn flushes(way: &mut Way, durability: Durability, records: &Records, count: usize) {
    let subject = Subject::new(durability);
    let start = Instant::now();
    for number in 0..count {
        way.latencies.time(|| subject.producer.send(records.get(number)).expect("there is room"));
        if (number + 1) % FLUSH_EVERY == 0 {
            subject.producer.flush().expect("a disk that works");
        }
    }
    way.add(count, start.elapsed());
    assert_eq!(subject.log.describe_topic(TOPIC).expect("it is there").partitions[0].log_end.get(), count as u64);
    subject.discard();
}
