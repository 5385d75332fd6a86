//! The rows: one piece of work each, done by one peer in a process of its own.

use std::fs;
use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::limit::sum_of;
use crate::peer::{Mode, Peer, Reader, Result, Setup, Writer, unsupported};
use crate::records::{Check, Records, number_in, number_of};

/// Appends between two looks at the clock.
const CLOCK_EVERY: u64 = 64;

/// What is sent before the clock starts: routes are looked up and files are made, which is no part of an append.
const WARM_UP: u64 = 100;

/// Records that say how much space one takes.
const ENOUGH: u64 = 10_000;

/// The word with which a child says that what follows is acknowledged.
pub(crate) const ACKNOWLEDGED: &str = "acknowledged";

/// How much is done, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) append_bytes: usize,
    pub(crate) read_bytes: usize,
    pub(crate) reads_by_offset: u64,
    pub(crate) reopen_bytes: usize,
    pub(crate) topic_rounds: u64,
    /// After this a piece of work ends, wherever it is: the slow are measured by fewer records.
    pub(crate) cap: Duration,
    /// The same for the preparation that is not measured.
    pub(crate) fill_cap: Duration,
    /// The same for what is to be opened again.
    pub(crate) reopen_cap: Duration,
}

impl Effort {
    pub(crate) const FULL: Effort = Effort {
        append_bytes: 256 << 20,
        read_bytes: 32 << 20,
        reads_by_offset: 200_000,
        reopen_bytes: 2 << 30,
        topic_rounds: 200,
        cap: Duration::from_millis(500),
        fill_cap: Duration::from_secs(2),
        reopen_cap: Duration::from_secs(5),
    };

    /// To see that it runs.
    pub(crate) const QUICK: Effort = Effort {
        append_bytes: 16 << 20,
        read_bytes: 8 << 20,
        reads_by_offset: 20_000,
        reopen_bytes: 64 << 20,
        topic_rounds: 20,
        cap: Duration::from_millis(200),
        fill_cap: Duration::from_secs(1),
        reopen_cap: Duration::from_secs(1),
    };
}

/// A piece of work, with the name under which it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Append {
        record_bytes: usize,
        records_per_batch: usize,
    },
    Sync {
        threads: usize,
    },
    InOrder,
    ByOffset,
    Follow,
    /// Appends until it is killed: the first half of the row *reopen*.
    Doomed,
    Reopen {
        acknowledged: u64,
    },
    Topics,
}

/// What came out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Nanoseconds per record, records per second, or nanoseconds: the row knows.
    pub(crate) value: f64,
    /// Bytes that the disk gives for a record, or for all topics; of what is opened again, the bytes of the records.
    pub(crate) disk: f64,
    /// Open files.
    pub(crate) descriptors: f64,
    /// Nanoseconds from opening until each topic had its first record.
    pub(crate) first: f64,
}

impl Measured {
    fn nanos_per_record(took: Duration, records: u64) -> Self {
        Measured { value: took.as_secs_f64() * 1e9 / records.max(1) as f64, ..Measured::default() }
    }
}

/// Partitions or topics of the last row.
pub(crate) const TOPICS: usize = 1000;

pub(crate) fn measure<P: Peer>(row: Row, directory: &Path, effort: &Effort) -> Result<Measured> {
    let setup = |record_bytes: usize, records_per_batch: usize, bytes: usize| Setup {
        directory: directory.to_owned(),
        mode: Mode::Kill,
        record_bytes,
        records_per_batch,
        records: (bytes / record_bytes).next_multiple_of(100) + WARM_UP as usize,
        topics: 0,
    };
    match row {
        Row::Append { record_bytes, records_per_batch } => {
            append::<P>(&setup(record_bytes, records_per_batch, effort.append_bytes), effort)
        }
        Row::Sync { threads } => {
            let room = (effort.cap.as_secs_f64() * 1e6) as usize * 100;
            sync::<P>(&Setup { mode: Mode::PowerCut, ..setup(100, 1, room) }, threads, effort)
        }
        Row::InOrder => in_order::<P>(&setup(100, P::FILL_BATCH, effort.read_bytes), effort),
        Row::ByOffset => by_offset::<P>(&setup(100, P::FILL_BATCH, effort.read_bytes), effort),
        Row::Follow => follow::<P>(&setup(100, 1, effort.append_bytes), effort),
        Row::Doomed => doomed::<P>(&setup(1024, P::FILL_BATCH, effort.reopen_bytes), effort),
        Row::Reopen { acknowledged } => reopen::<P>(&setup(1024, P::FILL_BATCH, effort.reopen_bytes), acknowledged),
        Row::Topics => {
            let setup = setup(100, 1, TOPICS * (effort.topic_rounds as usize + 1) * 100);
            topics::<P>(&Setup { topics: TOPICS, ..setup }, effort)
        }
    }
}

/// Appends the records `first..last`, one by one or in batches, and stops early when `cap` is over. Returns where it
/// stopped.
fn append_some(
    writer: &mut impl Writer,
    records: &mut Records,
    mut first: u64,
    last: u64,
    records_per_batch: usize,
    cap: Duration,
) -> Result<u64> {
    let start = Instant::now();
    let mut looks = 0;
    while first < last {
        if records_per_batch == 1 {
            writer.append(records.get(first))?;
        } else {
            writer.append_batch(&records.batch(first, records_per_batch))?;
        }
        first += records_per_batch as u64;
        looks += 1;
        if looks % CLOCK_EVERY == 0 && start.elapsed() > cap {
            break;
        }
    }
    Ok(first)
}

fn read_back<P: Peer>(peer: &mut P, record_bytes: usize, expected: u64) -> Result<()> {
    let mut check = Check::new(record_bytes);
    peer.read_back(&mut |record| check.see(record))?;
    Ok(check.finish(expected)?)
}

fn append<P: Peer>(setup: &Setup, effort: &Effort) -> Result<Measured> {
    let mut records = Records::new(setup.record_bytes);
    let mut peer = P::open(setup)?;
    let mut writer = peer.writer()?;
    let batch = setup.records_per_batch;
    let warm = append_some(&mut writer, &mut records, 0, WARM_UP, batch, Duration::MAX)?;
    let start = Instant::now();
    let end = append_some(&mut writer, &mut records, warm, setup.records as u64, batch, effort.cap)?;
    let measured = Measured::nanos_per_record(start.elapsed(), end - warm);
    drop(writer);
    read_back(&mut peer, setup.record_bytes, end)?;
    drop(peer);
    // Of a few records, the space that is taken beforehand says nothing.
    let disk = if end < ENOUGH { 0.0 } else { disk_bytes(&setup.directory)? as f64 / end as f64 };
    Ok(Measured { disk, ..measured })
}

fn sync<P: Peer>(setup: &Setup, threads: usize, effort: &Effort) -> Result<Measured> {
    let mut peer = P::open(setup)?;
    let mut writers = (0..threads).map(|_| peer.writer()).collect::<Result<Vec<_>>>()?;
    let mut records: Vec<Records> = (0..threads).map(|_| Records::new(setup.record_bytes)).collect();
    let most = setup.records / threads - 1;
    for (lane, (writer, records)) in writers.iter_mut().zip(&mut records).enumerate() {
        writer.append(records.get(number_in(lane, 0)))?;
    }
    let start = Instant::now();
    let counts: Vec<Result<u64>> = thread::scope(|scope| {
        let lanes = writers.iter_mut().zip(&mut records).enumerate().map(|(lane, (writer, records))| {
            scope.spawn(move || {
                let mut count = 1;
                while start.elapsed() < effort.cap && count < most as u64 {
                    writer.append(records.get(number_in(lane, count)))?;
                    count += 1;
                }
                Ok(count)
            })
        });
        let lanes: Vec<_> = lanes.collect();
        lanes.into_iter().map(|lane| lane.join().expect("no thread panics")).collect()
    });
    let took = start.elapsed();
    drop(writers);
    let count: u64 = counts.into_iter().collect::<Result<Vec<u64>>>()?.iter().sum();
    read_back(&mut peer, setup.record_bytes, count)?;
    Ok(Measured { value: (count - threads as u64) as f64 / took.as_secs_f64(), ..Measured::default() })
}

/// Opens the peer and fills it with records. Returns how many there are.
fn filled<P: Peer>(setup: &Setup, effort: &Effort) -> Result<(P, u64)> {
    let mut peer = P::open(setup)?;
    let mut writer = peer.writer()?;
    let mut records = Records::new(setup.record_bytes);
    let all = setup.records as u64;
    let count = append_some(&mut writer, &mut records, 0, all, setup.records_per_batch, effort.fill_cap)?;
    drop(writer);
    Ok((peer, count))
}

/// What a pass over records `0..` saw.
#[derive(Default)]
struct Pass {
    count: u64,
    sum: u64,
    in_order: bool,
}

impl Pass {
    fn new() -> Self {
        Pass { in_order: true, ..Pass::default() }
    }

    /// Touches each byte.
    #[inline]
    fn see(&mut self, record: &[u8]) {
        self.in_order &= number_of(record) == Some(self.count);
        self.sum = self.sum.wrapping_add(sum_of(record));
        self.count += 1;
    }

    fn check(&self, record_bytes: usize) -> Result<()> {
        let mut records = Records::new(record_bytes);
        let sum = (0..self.count).fold(0u64, |sum, number| sum.wrapping_add(sum_of(records.get(number))));
        if self.in_order && self.sum == sum { Ok(()) } else { Err("the records were not those that were sent".into()) }
    }
}

fn in_order<P: Peer>(setup: &Setup, effort: &Effort) -> Result<Measured> {
    let (mut peer, count) = filled::<P>(setup, effort)?;
    let mut reader = peer.reader()?;
    // Once to warm up, if it can be read again.
    if reader.rewind().is_ok() {
        let start = Instant::now();
        while start.elapsed() < effort.cap && reader.next(&mut |record| _ = black_box(sum_of(record)))? > 0 {}
        reader.rewind()?;
    }
    let mut pass = Pass::new();
    let start = Instant::now();
    while start.elapsed() < effort.cap && reader.next(&mut |record| pass.see(record))? > 0 {}
    let took = start.elapsed();
    pass.check(setup.record_bytes)?;
    if pass.count != count && took < effort.cap {
        return Err(format!("{} of {count} records came back", pass.count).into());
    }
    Ok(Measured::nanos_per_record(took, pass.count))
}

fn by_offset<P: Peer>(setup: &Setup, effort: &Effort) -> Result<Measured> {
    let (mut peer, count) = filled::<P>(setup, effort)?;
    let mut reader = peer.reader()?;
    let mut wrong = 0u64;
    let mut read = |turn: u64| -> Result<()> {
        // All over the log, none near the one before.
        let number = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
        let mut right = false;
        reader.one(number, &mut |record| {
            right = number_of(record) == Some(number);
            black_box(sum_of(record));
        })?;
        wrong += u64::from(!right);
        Ok(())
    };
    let mut reads = |most: u64| -> Result<u64> {
        let start = Instant::now();
        let mut turn = 0;
        while turn < most && (turn % CLOCK_EVERY != 0 || start.elapsed() < effort.cap) {
            read(turn)?;
            turn += 1;
        }
        Ok(turn)
    };
    reads(effort.reads_by_offset / 4)?;
    let start = Instant::now();
    let done = reads(effort.reads_by_offset)?;
    let took = start.elapsed();
    if wrong > 0 {
        Err(format!("{wrong} reads gave another record").into())
    } else {
        Ok(Measured::nanos_per_record(took, done))
    }
}

fn follow<P: Peer>(setup: &Setup, effort: &Effort) -> Result<Measured> {
    let mut records = Records::new(setup.record_bytes);
    let mut peer = P::open(setup)?;
    let mut writer = peer.writer()?;
    let mut reader = peer.reader()?;
    // `u64::MAX` until it is known how many records there are to be seen.
    let total = AtomicU64::new(u64::MAX);
    let given_up = AtomicBool::new(false);
    let patience = effort.cap * 2;
    let mut pass = Pass::new();
    let start = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let producer = scope.spawn(|| {
            let mut sent = 0;
            let mut result = Ok(());
            while result.is_ok() && sent < setup.records as u64 && !given_up.load(Ordering::Relaxed) {
                if sent % CLOCK_EVERY == 0 && start.elapsed() > effort.cap {
                    break;
                }
                result = writer.append(records.get(sent));
                sent += 1;
            }
            total.store(sent, Ordering::Release);
            result
        });
        let mut result = Ok(0);
        while result.is_ok() && pass.count < total.load(Ordering::Acquire) && start.elapsed() < patience {
            result = reader.next_or_wait(&mut |record| pass.see(record));
        }
        given_up.store(true, Ordering::Relaxed);
        producer.join().expect("no thread panics")?;
        result.map(|_| ())
    })?;
    let took = start.elapsed();
    pass.check(setup.record_bytes)?;
    Ok(Measured::nanos_per_record(took, pass.count))
}

/// Appends as much as is asked for, says how many records were acknowledged, and goes on until it is killed.
fn doomed<P: Peer>(setup: &Setup, effort: &Effort) -> Result<Measured> {
    let all = setup.records as u64;
    // Room for what comes until the kill.
    let mut peer = P::open(&Setup { records: setup.records * 2, ..setup.clone() })?;
    let mut writer = peer.writer()?;
    let mut records = Records::new(setup.record_bytes);
    let batch = setup.records_per_batch;
    let mut count = append_some(&mut writer, &mut records, 0, all, batch, effort.reopen_cap)?;
    println!("{ACKNOWLEDGED} {count}");
    std::io::stdout().flush()?;
    while count < all * 2 - batch as u64 {
        count = append_some(&mut writer, &mut records, count, count + batch as u64, batch, Duration::MAX)?;
    }
    loop {
        thread::park();
    }
}

fn reopen<P: Peer>(setup: &Setup, acknowledged: u64) -> Result<Measured> {
    let setup = Setup { records: setup.records * 2, ..setup.clone() };
    let mut check = Check::new(setup.record_bytes);
    let start = Instant::now();
    let mut peer = P::open(&setup)?;
    let mut reader = peer.reader()?;
    reader.next(&mut |record| check.see(record))?;
    let took = start.elapsed();
    if check.count()? == 0 {
        return Err("the first record did not come back".into());
    }
    if reader.rewind().is_ok() {
        drop(reader);
        check = Check::new(setup.record_bytes);
        peer.read_back(&mut |record| check.see(record))?;
    } else {
        while reader.next(&mut |record| check.see(record))? > 0 {}
    }
    match check.count()? {
        count if count < acknowledged => Err(format!("{} of {acknowledged} records lost", acknowledged - count).into()),
        _ => {
            let disk = (acknowledged * setup.record_bytes as u64) as f64;
            Ok(Measured { value: took.as_secs_f64() * 1e9, disk, ..Measured::default() })
        }
    }
}

fn topics<P: Peer>(setup: &Setup, effort: &Effort) -> Result<Measured> {
    let before = open_files()?;
    let mut records = Records::new(setup.record_bytes);
    let opening = Instant::now();
    let mut peer = P::open(setup)?;
    let mut writer = peer.writer()?;
    for topic in 0..setup.topics {
        writer.append_to(topic, records.get(number_in(topic, 0)))?;
    }
    let first = opening.elapsed().as_secs_f64() * 1e9;
    let start = Instant::now();
    let mut rounds = 1;
    while rounds <= effort.topic_rounds && (rounds == 1 || start.elapsed() < effort.cap) {
        for topic in 0..setup.topics {
            writer.append_to(topic, records.get(number_in(topic, rounds)))?;
        }
        rounds += 1;
    }
    let took = start.elapsed();
    let measured = Measured {
        disk: disk_bytes(&setup.directory)? as f64,
        descriptors: open_files()?.saturating_sub(before) as f64,
        first,
        ..Measured::nanos_per_record(took, (rounds - 1) * setup.topics as u64)
    };
    let mut reader = peer.reader()?;
    for topic in 0..setup.topics {
        let mut check = Check::new(setup.record_bytes);
        reader.topic(topic, &mut |record| check.see(record))?;
        check.finish(rounds)?;
    }
    Ok(measured)
}

/// What the disk gives for all files below `directory`, as `du` counts.
fn disk_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn open_files() -> Result<usize> {
    match fs::read_dir("/proc/self/fd") {
        Ok(files) => Ok(files.count()),
        Err(_) => unsupported("open files are counted on Linux only"),
    }
}
