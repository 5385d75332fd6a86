//! Reading: everything in order through `poll`, beside a bare walk over mapped bytes, and one record by its offset.
//!
//! `cargo bench --bench read`, for a look whether it runs with `-- --quick`. The log is closed and opened again before
//! it is read, so the *first* pass checks the checksums of all segments but the newest, which opening has checked; the
//! others are warm: every page is in memory and mapped. To the limit a record is one run of bytes; that of *key and value*
//! looks at it in two, as every reader of the log does, key first.

mod limit;
mod subject;

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidelog::{Consumer, ConsumerConfig, ConsumerRecord, Durability, OffsetReset, TopicPartition};

use limit::{Effort, Latencies, Shape, Table, Walk, nanos_per_record, quick, read_limit, sum_of};
use subject::{LABEL_WIDTH, Records, Subject, TOPIC, median, repetitions, row, send_all, shape_columns, shapes};

/// A log that is full, and who reads it.
struct Full {
    subject: Subject,
    consumer: Consumer,
    count: usize,
}

impl Full {
    fn new(shape: Shape, bytes: usize) -> Self {
        let count = (bytes / shape.record_bytes).next_multiple_of(shape.records_per_batch);
        let subject = Subject::new(Durability::Os);
        send_all(&subject.producer, &Records::new(shape), shape, count);
        let subject = subject.reopened();
        let consumer = consumer(&subject, ConsumerConfig::new());
        Full { subject, consumer, count }
    }

    /// Nanoseconds per record to hand each to `look`, from the beginning to the end.
    fn read(&mut self, look: impl Fn(&ConsumerRecord<'_>) -> u64) -> f64 {
        self.consumer.seek_to_beginning(&[]).expect("the partition is assigned");
        let (mut read, mut sum) = (0, 0u64);
        let start = Instant::now();
        loop {
            let records = self.consumer.poll(Duration::ZERO).expect("the log is whole");
            if records.is_empty() {
                break;
            }
            for record in &records {
                sum = sum.wrapping_add(look(&record));
                read += 1;
            }
        }
        let took = start.elapsed();
        black_box(sum);
        assert_eq!(read, self.count, "every record is read once");
        nanos_per_record(took, read)
    }
}

fn consumer(subject: &Subject, config: ConsumerConfig) -> Consumer {
    let mut consumer = subject.log.consumer(config.auto_offset_reset(OffsetReset::Earliest)).expect("a consumer");
    consumer.assign([TopicPartition::new(TOPIC, 0)]).expect("the partition is there");
    consumer
}

fn every_byte(record: &ConsumerRecord<'_>) -> u64 {
    sum_of(record.key().unwrap_or_default()) + sum_of(record.value().unwrap_or_default())
}

fn lengths(record: &ConsumerRecord<'_>) -> u64 {
    (record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)) as u64
}

fn main() {
    in_order();
    by_offset();
}

fn in_order() {
    let table = Table::new("read through poll, 500 at a time: ns per record, medians", &shape_columns());
    let effort = Effort { rounds: 1, ..Effort::from_args() };
    let shapes = shapes();
    let mut logs: Vec<Full> = shapes.iter().map(|(shape, _)| Full::new(*shape, effort.file_bytes)).collect();
    let first: Vec<f64> = logs.iter_mut().map(|log| log.read(every_byte)).collect();
    let mut runs: [Vec<Vec<f64>>; 5] = std::array::from_fn(|_| vec![Vec::new(); shapes.len()]);
    for _ in 0..repetitions() {
        for (at, (shape, _)) in shapes.iter().enumerate() {
            runs[0][at].push(read_limit(*shape, Walk::EveryByte, effort));
            runs[1][at].push(logs[at].read(every_byte));
            runs[2][at].push(read_limit(*shape, Walk::Lengths, effort));
            runs[3][at].push(logs[at].read(lengths));
            runs[4][at].push(read_limit(*shape, Walk::KeyAndValue, effort));
        }
    }
    let medians = |runs: &[Vec<f64>]| -> Vec<f64> { runs.iter().map(|run| median(run)).collect() };
    let every_byte_limit = medians(&runs[0]);
    for (what, pair) in ["every byte", "lengths"].iter().zip(runs[..4].chunks(2)) {
        let (mut limit, read) = (medians(&pair[0]), medians(&pair[1]));
        // Who has seen every byte has seen the lengths. Beyond the last cache that can be the faster way, because
        // the prefetcher does not follow strides of about 100 bytes; what is not the fastest way is no limit.
        limit.iter_mut().zip(&every_byte_limit).for_each(|(limit, other)| *limit = limit.min(*other));
        table.row(&row(&format!("{what}: limit"), limit.iter().map(|nanos| format!("{nanos:.2}"))));
        table.row(&row(&format!("{what}: poll"), read.iter().map(|nanos| format!("{nanos:.2}"))));
        table.row(&row(&format!("{what}: poll, M/s"), read.iter().map(|nanos| format!("{:.1}", 1e3 / nanos))));
        let ratios = limit.iter().zip(&read).map(|(limit, read)| format!("{:.2}", limit / read));
        table.row(&row(&format!("{what}: of the limit"), ratios));
    }
    let parts = medians(&runs[4]);
    table.row(&row("key and value: limit", parts.iter().map(|nanos| format!("{nanos:.2}"))));
    let ratios = parts.iter().zip(medians(&runs[1])).map(|(limit, read)| format!("{:.2}", limit / read));
    table.row(&row("key and value: of the limit", ratios));
    table.row(&row("every byte: first pass", first.iter().map(|nanos| format!("{nanos:.2}"))));
    logs.into_iter().for_each(|log| log.subject.discard());
}

/// Offsets all over the log, none of them near the one before.
fn scattered(number: usize, count: usize) -> u64 {
    (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % count as u64
}

fn by_offset() {
    let columns = [&[("", LABEL_WIDTH), ("ns", 8), ("M/s", 6)], &Latencies::COLUMNS[..3]].concat();
    let table = Table::new("read one by offset: seek, poll of at most one record, warm", &columns);
    let reads = if quick() { 1000 } else { 300_000 };
    for (shape, name) in shapes() {
        let log = Full::new(shape, Effort::from_args().file_bytes);
        let partition = TopicPartition::new(TOPIC, 0);
        let mut consumer = consumer(&log.subject, ConsumerConfig::new().max_poll_records(1));
        let mut read_one = |number: usize| {
            let offset = scattered(number, log.count);
            consumer.seek(&partition, offset).expect("the partition is assigned");
            let records = consumer.poll(Duration::ZERO).expect("the log is whole");
            let record = records.iter().next().expect("the offset is there");
            assert_eq!(record.offset().get(), offset);
            every_byte(&record)
        };
        for number in 0..log.count / 8 {
            black_box(read_one(number));
        }
        let runs: Vec<f64> = (0..repetitions())
            .map(|_| {
                let start = Instant::now();
                for number in 0..reads {
                    black_box(read_one(number));
                }
                nanos_per_record(start.elapsed(), reads)
            })
            .collect();
        let mut latencies = Latencies::new();
        for number in 0..reads {
            black_box(latencies.time(|| read_one(number)));
        }
        let nanos = median(&runs);
        let cells = [format!("{nanos:.0}"), format!("{:.2}", 1e3 / nanos)].into_iter().chain(latencies.cells());
        table.row(&row(name, cells.take(5)));
        log.subject.discard();
    }
}
