//! What the benchmarks of the log share: a log to measure, records to send, and how repetitions become one number.

#![allow(dead_code, reason = "each benchmark is a program of its own and uses a part of this")]

use std::time::{Duration, Instant};

use tidelog::{Durability, EventLog, Producer, ProducerRecord, TopicConfig};

use crate::limit::{KEY_BYTES, Shape, quick};

/// The topic that everything is sent to.
pub(crate) const TOPIC: &str = "bench";

/// How many different keys there are: enough that no branch predictor learns their hashes.
const KEYS: usize = 1024;

/// How often everything is measured, one after the other and then all over again, so that a noisy minute touches all
/// alike; odd, so that the median is one of the values.
pub(crate) fn repetitions() -> usize {
    if quick() { 1 } else { 7 }
}

/// An empty log with one topic, in a directory of its own beside the files of the limit.
pub(crate) struct Subject {
    pub(crate) log: EventLog,
    pub(crate) producer: Producer,
    directory: tempfile::TempDir,
}

impl Subject {
    /// One partition, segments of 64 MiB.
    pub(crate) fn new(durability: Durability) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory beside the build");
        let log = EventLog::open(directory.path()).expect("a new log");
        let config = TopicConfig::new().durability(durability).segment_bytes(64 << 20);
        log.create_topic(TOPIC, config).expect("a new topic");
        let producer = log.producer();
        Subject { log, producer, directory }
    }

    /// Closes the log and opens it again, so that nothing of it is known but what lies on the disk.
    pub(crate) fn reopened(self) -> Self {
        let Subject { log, producer, directory } = self;
        drop(producer);
        log.close().expect("everything can be synced");
        let log = EventLog::open(directory.path()).expect("the log that was closed");
        let producer = log.producer();
        Subject { log, producer, directory }
    }

    /// Deletes the topic first, so that closing does not sync what nobody wants to keep.
    pub(crate) fn discard(self) {
        self.log.delete_topic(TOPIC).expect("the topic is there");
        self.log.close().expect("nothing is left to sync");
    }
}

/// Keys and values of one size, made before anything is measured.
pub(crate) struct Records {
    keys: Vec<[u8; KEY_BYTES]>,
    value: Vec<u8>,
}

impl Records {
    /// Of as many bytes as `shape` says, the key's among them.
    pub(crate) fn new(shape: Shape) -> Self {
        let key = |number: usize| (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let value_bytes = shape.record_bytes - KEY_BYTES;
        Records { keys: (0..KEYS).map(key).collect(), value: (0..value_bytes).map(|at| (at * 31) as u8).collect() }
    }

    /// The record with this number.
    #[inline]
    pub(crate) fn get(&self, number: usize) -> ProducerRecord<'_> {
        // Looked up first: behind a record that is half made a look-up that may panic has the record moved about.
        let key = &self.keys[number % KEYS];
        ProducerRecord::new(TOPIC, &self.value).key(key)
    }
}

/// Sends `count` records in the batches of `shape`, forgets the deliveries, and says how long it took.
pub(crate) fn send_all(producer: &Producer, records: &Records, shape: Shape, count: usize) -> Duration {
    let start = Instant::now();
    if shape.records_per_batch == 1 {
        for number in 0..count {
            producer.send(records.get(number)).expect("there is room");
        }
    } else {
        for first in (0..count).step_by(shape.records_per_batch) {
            let batch = (first..first + shape.records_per_batch).map(|number| records.get(number));
            producer.send_batch(batch).expect("there is room");
        }
    }
    start.elapsed()
}

/// The value in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The shapes that are measured, and what a column of a table calls them.
pub(crate) fn shapes() -> Vec<(Shape, &'static str)> {
    let shape = |record_bytes, records_per_batch| Shape { record_bytes, records_per_batch };
    vec![
        (shape(100, 1), "100 B"),
        (shape(100, 100), "100 B x100"),
        (shape(1024, 1), "1 KiB"),
        (shape(1024, 100), "1 KiB x100"),
    ]
}

/// The first column of a table whose others are shapes.
pub(crate) const LABEL_WIDTH: usize = 28;

/// The columns of a table with one for each shape.
pub(crate) fn shape_columns() -> Vec<(&'static str, usize)> {
    let shapes = shapes().into_iter().map(|(_, name)| (name, 10));
    [("", LABEL_WIDTH)].into_iter().chain(shapes).collect()
}

/// A row of a table with a column for each shape.
pub(crate) fn row(label: &str, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    [label.to_owned()].into_iter().chain(cells).collect()
}
