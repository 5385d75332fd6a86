//! What every benchmark shares: the machine's own limit, a table, and a recorder of latencies.
//!
//! The limit of an append is the least that any log must do that keeps its records in mapped files and can tell whether
//! they are whole: copy the record and a header, and compute a CRC-32. The limit of a read is to walk the mapped bytes.
//! No lock, no offset to hand out, nobody to wake. A log is as good as it comes close.
//!
//! | bytes  | type | field  | value                                                       |
//! |--------|------|--------|-------------------------------------------------------------|
//! | 0..4   | u32  | length | of all that follows the header, without padding             |
//! | 4..8   | u32  | crc    | CRC-32 of what follows this field                           |
//! | 8..16  | u64  | offset | of the first record                                         |
//! | 16..   |      | body   | a record; or, in a batch, records with a `u32` length each  |
//!
//! Zero bytes pad each to a multiple of eight.

#![allow(dead_code, reason = "each benchmark is a program of its own and uses a part of this")]

use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, fallocate};

/// Bytes in front of a record or batch.
const HEADER_BYTES: usize = 16;

/// Bytes in front of a record within a batch.
const LENGTH_BYTES: usize = 4;

/// What is appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The bytes of a record.
    pub(crate) record_bytes: usize,
    /// How many records share a header and a checksum; 1 leaves out the lengths between them.
    pub(crate) records_per_batch: usize,
}

impl Shape {
    fn body_bytes(self) -> usize {
        match self.records_per_batch {
            1 => self.record_bytes,
            records => records * (LENGTH_BYTES + self.record_bytes),
        }
    }

    /// The bytes that a batch takes in the file.
    pub(crate) fn batch_bytes(self) -> usize {
        (HEADER_BYTES + self.body_bytes()).next_multiple_of(8)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.records_per_batch {
            1 => write!(f, "{} B, one at a time", self.record_bytes),
            records => write!(f, "{} B, {records} in a batch", self.record_bytes),
        }
    }
}

/// Whether the pages of the file were there before the measured append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Each page was written once: an append costs no page fault.
    Touched,
    /// Allocated on the disk, and never touched: the kernel makes each page when the append gets there.
    Untouched,
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pages::Touched => "touched",
            Pages::Untouched => "untouched",
        })
    }
}

/// What a walk over records looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// The lengths, to get from one record to the next.
    Lengths,
    /// Each byte of each record, as a consumer that uses its records does.
    EveryByte,
    /// The same, of the key and then of the value: a record is not one run of bytes to a consumer. The shorter the runs, the
    /// more of the time goes into where they end.
    KeyAndValue,
}

/// The bytes of a record that are its key.
pub(crate) const KEY_BYTES: usize = 8;

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Walk::Lengths => "lengths only",
            Walk::EveryByte => "every byte",
            Walk::KeyAndValue => "key and value",
        })
    }
}

/// How much is measured: the size of the mapped file, and how often; the fastest round counts.
///
/// The fastest, because all that disturbs a copy makes it slower, and a limit is what is left without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) file_bytes: usize,
    pub(crate) rounds: usize,
}

impl Effort {
    /// 64 MiB nine times; with `--quick` on the command line, 8 MiB twice, to see that it runs.
    pub(crate) fn from_args() -> Self {
        if quick() { Effort { file_bytes: 8 << 20, rounds: 2 } } else { Effort { file_bytes: 64 << 20, rounds: 9 } }
    }
}

/// Whether the program was asked to be done soon.
pub(crate) fn quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// Nanoseconds per record to append to a mapped file.
pub(crate) fn append_limit(shape: Shape, pages: Pages, effort: Effort) -> f64 {
    let record = a_record(shape);
    let rounds = (0..effort.rounds).map(|_| {
        let mut map = mapped(effort.file_bytes);
        if pages == Pages::Touched {
            map.fill(1);
        }
        let (records, took) = fill(&mut map, shape, &record);
        nanos_per_record(took, records)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

/// Nanoseconds per record to walk over what [`append_limit`] wrote, every page being in memory.
pub(crate) fn read_limit(shape: Shape, walk: Walk, effort: Effort) -> f64 {
    let mut map = mapped(effort.file_bytes);
    map.fill(0);
    let (written, _) = fill(&mut map, shape, &a_record(shape));
    let rounds = (0..effort.rounds).map(|_| {
        let start = Instant::now();
        let (records, sum) = match walk {
            Walk::Lengths => walk_over(&map, shape, |record| record.len() as u64),
            Walk::EveryByte => walk_over(&map, shape, sum_of),
            Walk::KeyAndValue => walk_over(&map, shape, |record| {
                let (key, value) = record.split_at(KEY_BYTES.min(record.len()));
                sum_of(key) + sum_of(value)
            }),
        };
        let took = start.elapsed();
        black_box(sum);
        assert_eq!(records, written, "the walk lost its way");
        nanos_per_record(took, records)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

/// The sum of all bytes, as far as a byte can hold it: the least that looks at each.
pub(crate) fn sum_of(bytes: &[u8]) -> u64 {
    u64::from(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)))
}

/// `took` shared out among `records`.
pub(crate) fn nanos_per_record(took: Duration, records: usize) -> f64 {
    took.as_secs_f64() * 1e9 / records as f64
}

fn a_record(shape: Shape) -> Vec<u8> {
    (0..shape.record_bytes).map(|at| (at * 31) as u8).collect()
}

/// As [`mapped_in`], beside the build: on a disk, if the build is on one.
fn mapped(bytes: usize) -> MmapMut {
    // Cargo says it to benchmarks; the comparison with others, which shares this file, says itself where.
    mapped_in(Path::new(option_env!("CARGO_TARGET_TMPDIR").unwrap_or(".")), bytes)
}

/// A new mapped file without a name, with all its space allocated.
pub(crate) fn mapped_in(directory: &Path, bytes: usize) -> MmapMut {
    let file: File = tempfile::tempfile_in(directory).expect("a directory that can be written to");
    fallocate(&file, FallocateFlags::empty(), 0, bytes as u64).expect("space on the disk");
    // SAFETY: the file has no name and this is its only handle, so nobody else changes or shortens it while it is
    // mapped; that its space is allocated means that writing to the map finds no full disk.
    unsafe { MmapMut::map_mut(&file) }.expect("address space")
}

/// Appends `record` until the next one does not fit. Returns how many there are, and how long it took.
fn fill(map: &mut [u8], shape: Shape, record: &[u8]) -> (usize, Duration) {
    let record = black_box(record);
    let start = Instant::now();
    let mut records = 0;
    for batch in map.chunks_exact_mut(shape.batch_bytes()) {
        put(batch, shape, records as u64, std::iter::repeat(record));
        records += shape.records_per_batch;
    }
    (records, start.elapsed())
}

/// Writes the next of `records`, as many as belong together, into `batch`, which is [`Shape::batch_bytes`] long.
#[inline]
pub(crate) fn put<'a>(batch: &mut [u8], shape: Shape, first: u64, mut records: impl Iterator<Item = &'a [u8]>) {
    let body = &mut batch[HEADER_BYTES..][..shape.body_bytes()];
    if shape.records_per_batch == 1 {
        body.copy_from_slice(records.next().expect("a batch has a record"));
    } else {
        for (place, record) in body.chunks_exact_mut(LENGTH_BYTES + shape.record_bytes).zip(records) {
            place[..LENGTH_BYTES].copy_from_slice(&(record.len() as u32).to_le_bytes());
            place[LENGTH_BYTES..].copy_from_slice(record);
        }
    }
    batch[8..16].copy_from_slice(&first.to_le_bytes());
    let crc = crc32fast::hash(&batch[8..HEADER_BYTES + shape.body_bytes()]);
    batch[4..8].copy_from_slice(&crc.to_le_bytes());
    batch[..4].copy_from_slice(&(shape.body_bytes() as u32).to_le_bytes());
}

/// Hands each record to `look`. Returns how many there were, and the sum of the answers.
pub(crate) fn walk_over(map: &[u8], shape: Shape, mut look: impl FnMut(&[u8]) -> u64) -> (usize, u64) {
    let mut rest = black_box(map);
    let mut records = 0;
    let mut sum = 0u64;
    while let Some((header, behind)) = rest.split_at_checked(HEADER_BYTES) {
        let length = length_of(header);
        if length == 0 {
            break;
        }
        if shape.records_per_batch == 1 {
            sum = sum.wrapping_add(look(&behind[..length]));
            records += 1;
        } else {
            let mut body = &behind[..length];
            while !body.is_empty() {
                let (record, next) = body[LENGTH_BYTES..].split_at(length_of(body));
                sum = sum.wrapping_add(look(record));
                records += 1;
                body = next;
            }
        }
        rest = &rest[(HEADER_BYTES + length).next_multiple_of(8)..];
    }
    (records, sum)
}

fn length_of(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize
}

/// A table that is printed row by row, so that a long measurement shows where it is.
#[derive(Debug)]
pub(crate) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Prints the head: a title, and the names of the columns with the width that each is to have.
    pub(crate) fn new(title: &str, columns: &[(&str, usize)]) -> Self {
        println!("\n{title}\n");
        let table = Table { widths: columns.iter().map(|(name, width)| (*width).max(name.len())).collect() };
        let names: Vec<_> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        table.row(&names);
        let rules: Vec<_> = table.widths.iter().map(|width| "-".repeat(*width)).collect();
        table.row(&rules);
        table
    }

    /// Prints a row: the first cell from the left, the others, which are numbers, from the right.
    pub(crate) fn row(&self, cells: &[String]) {
        let (first, numbers) = cells.split_first().expect("a row has a first cell");
        print!("{first:<width$}", width = self.widths[0]);
        numbers.iter().zip(&self.widths[1..]).for_each(|(number, width)| print!("  {number:>width$}"));
        println!();
    }
}

/// The longest latency that is told from longer ones: a minute.
const LONGEST_NANOS: u64 = 60_000_000_000;

/// Latencies, of which the slow ones are of interest.
#[derive(Debug)]
pub(crate) struct Latencies {
    nanos: Histogram<u64>,
}

impl Latencies {
    /// The names of the columns of [`Latencies::cells`], with their widths.
    pub(crate) const COLUMNS: [(&str, usize); 4] = [("p50", 9), ("p99", 9), ("p99.9", 9), ("max", 9)];

    /// An empty recorder, exact to three digits.
    ///
    /// With bounds, because a histogram that grows does so only for `record`: `saturating_record` would cut every
    /// latency down to the bound of an empty one, which is 2 ns.
    pub(crate) fn new() -> Self {
        Latencies { nanos: Histogram::new_with_bounds(1, LONGEST_NANOS, 3).expect("three digits are allowed") }
    }

    /// Runs `work` and records how long it took.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.record(start.elapsed());
        done
    }

    /// Records a latency that was measured elsewhere.
    pub(crate) fn record(&mut self, took: Duration) {
        self.nanos.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes in what another thread recorded.
    pub(crate) fn add(&mut self, other: &Latencies) {
        self.nanos.add(&other.nanos).expect("both have the same bounds");
    }

    /// The 50th, 99th and 99.9th percentile and the maximum, as cells of a [`Table`].
    pub(crate) fn cells(&self) -> [String; 4] {
        let at = |quantile| readable(self.nanos.value_at_quantile(quantile));
        [at(0.5), at(0.99), at(0.999), readable(self.nanos.max())]
    }
}

/// A time in the unit that fits it.
fn readable(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        _ => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}
