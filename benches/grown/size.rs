//! Longer and longer logs: what a record costs, what opening costs, and how much memory the process has at most.
//!
//! Up to 10 GiB they are what they seem. One of 100 GiB few disks have room for, so there is a second table of logs whose
//! values are zeros and are taken from the disk again as soon as their segment is full: a hole reads as the same zeros. For
//! the library nothing is different, it reads and checks every byte; only the disk is spared.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tidelog::{Consumer, Durability, EventLog, ProducerRecord, TopicConfig, TopicPartition};

use super::{consumer, directory, resident, room, segments};
use crate::limit::{Table, nanos_per_record, quick};
use crate::subject::{LABEL_WIDTH, TOPIC, row};

const COLUMNS: [(&str, usize); 9] = [
    ("", LABEL_WIDTH),
    ("send ns", 9),
    ("read ns", 9),
    ("seek ns", 9),
    ("close ms", 9),
    ("open ms", 9),
    ("disk MiB", 9),
    ("sent MiB", 9),
    ("read MiB", 9),
];

/// How often the memory is looked at: once for so many bytes.
const LOOK_BYTES: usize = 8 << 20;

pub(crate) fn measure() {
    let mib = if quick() { vec![16, 64] } else { vec![100, 1_000, 10_000] };
    let table = Table::new(
        "longer logs, 1 KiB; sent, read: the most memory meanwhile, beyond what the process had before",
        &COLUMNS,
    );
    for mib in mib {
        if has_room_for((mib as u64) << 20) {
            table.row(&one(mib, 1 << 10, false));
        } else {
            println!("{mib} MiB: left out, the disk has no room for it");
        }
    }
    let gib = if quick() { vec![1] } else { vec![1, 10, 100] };
    let table = Table::new("longer logs, 1 MiB of zeros that take no room on the disk", &COLUMNS);
    gib.into_iter().for_each(|gib| table.row(&one(gib << 10, 1 << 20, true)));
}

/// Whether there is room on the disk for so much, and as much again for others.
fn has_room_for(bytes: u64) -> bool {
    let free = statvfs(env!("CARGO_TARGET_TMPDIR")).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
    free / 2 > bytes
}

/// The most memory that was seen, beyond what there was at first.
struct Memory {
    before: u64,
    most: u64,
}

impl Memory {
    fn look(&mut self) {
        self.most = self.most.max(resident("VmRSS").saturating_sub(self.before));
    }
}

fn one(mib: usize, record_bytes: usize, sparse: bool) -> Vec<String> {
    let directory = directory();
    let count = (mib << 20) / record_bytes;
    let mut memory = Memory { before: resident("VmRSS"), most: 0 };
    let log = EventLog::open(directory.path()).expect("a new log");
    let config = TopicConfig::new().durability(Durability::Os).max_record_bytes(2 << 20);
    log.create_topic(TOPIC, config).expect("a new topic");
    let send = fill(&log, directory.path(), (count, record_bytes), sparse, &mut memory);
    let while_sent = std::mem::take(&mut memory.most);
    let start = Instant::now();
    log.close().expect("everything can be synced");
    let close = start.elapsed();
    let start = Instant::now();
    let log = EventLog::open(directory.path()).expect("the log that was closed");
    let open = start.elapsed();
    // What a poll has returned is the caller's, so that is not to be much.
    let mut all = consumer(&log, 1, (LOOK_BYTES / record_bytes).min(500));
    let read = read(&mut all, count, record_bytes, &mut memory);
    drop(all);
    let seek = by_offset(&log, count, record_bytes);
    memory.look();
    let disk = room(directory.path());
    log.delete_topic(TOPIC).expect("the topic is there");
    log.close().expect("nothing is left to sync");
    let millis = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let nanos = [send, read, seek].map(|nanos| format!("{nanos:.0}"));
    let mibs = [disk, while_sent, memory.most].map(|bytes| (bytes >> 20).to_string());
    row(&format!("{mib} MiB"), nanos.into_iter().chain([millis(close), millis(open)]).chain(mibs))
}

/// Nanoseconds per record to send so many; what spares the disk is not counted.
fn fill(log: &EventLog, path: &Path, (count, bytes): (usize, usize), sparse: bool, memory: &mut Memory) -> f64 {
    let producer = log.producer();
    let value = vec![u8::from(!sparse); bytes - 8];
    let (mut took, mut spared) = (Duration::ZERO, 0);
    let at_once = LOOK_BYTES / bytes;
    for first in (0..count).step_by(at_once) {
        let start = Instant::now();
        for _ in first..count.min(first + at_once) {
            producer.send(ProducerRecord::new(TOPIC, &value).key(b"12345678")).expect("there is room");
        }
        took += start.elapsed();
        memory.look();
        if sparse {
            let full = segments(path).len() - 1;
            segments(path)[spared..full].iter().for_each(|path| spare(path, bytes));
            spared = full;
        }
    }
    nanos_per_record(took, count)
}

/// Takes the zeros in the batches of a full segment from the disk.
fn spare(path: &Path, value_bytes: usize) {
    /// More than what a batch has in front of its value, and a page.
    const EDGE: u64 = 8192;
    /// The header of the segment.
    const FIRST: u64 = 128;
    let file = File::options().read(true).write(true).open(path).expect("the segment is there");
    let (mut at, mut word) = (FIRST, [0; 4]);
    while file.read_at(&mut word, at).expect("the segment can be read") == word.len() {
        let length = u64::from(u32::from_le_bytes(word));
        if length == 0 {
            break;
        }
        if length > value_bytes as u64 {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, mode, at + EDGE, length - 2 * EDGE).expect("a file system with holes");
        }
        at += length;
    }
}

/// Nanoseconds per record to read all.
fn read(consumer: &mut Consumer, count: usize, bytes: usize, memory: &mut Memory) -> f64 {
    let (mut read, mut looked, start) = (0, 0, Instant::now());
    while read < count {
        read += consumer.poll(Duration::ZERO).expect("the log is whole").iter().count();
        if (read - looked) * bytes >= LOOK_BYTES {
            looked = read;
            memory.look();
        }
    }
    assert_eq!(read, count, "every record is read once");
    nanos_per_record(start.elapsed(), count)
}

/// Nanoseconds to seek one and poll it, near the end of the log: who seeks all over it has all of it mapped.
fn by_offset(log: &EventLog, count: usize, bytes: usize) -> f64 {
    const READS: usize = 10_000;
    const NEAR_BYTES: usize = 32 << 20;
    let mut consumer = consumer(log, 1, 1);
    let partition = TopicPartition::new(TOPIC, 0);
    let near = count.min(NEAR_BYTES / bytes);
    let mut one = |number: usize| {
        let offset = (count - 1 - number * 7919 % near) as u64;
        consumer.seek(&partition, offset).expect("the partition is assigned");
        let records = consumer.poll(Duration::ZERO).expect("the log is whole");
        assert_eq!(records.iter().next().map(|record| record.offset().get()), Some(offset));
    };
    (0..READS / 10).for_each(&mut one);
    let start = Instant::now();
    (0..READS).for_each(&mut one);
    nanos_per_record(start.elapsed(), READS)
}
