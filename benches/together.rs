//! A producer and a consumer in one process: how soon a record is seen, what sending costs meanwhile, and how many go
//! through.
//!
//! `cargo bench --bench together`, for a look whether it runs with `-- --quick`. It takes two processors that have nothing
//! else to do: with one, or a busy machine, it measures the scheduler. The limit of a consumer
//! that sleeps is a thread that sleeps on a bare futex until another wakes it.

mod limit;
mod subject;

use std::hint;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::futex;
use tidelog::{Consumer, ConsumerConfig, Durability, OffsetReset, ProducerRecord, TopicPartition};

use limit::{Latencies, Table, quick};
use subject::{LABEL_WIDTH, Subject, TOPIC};

/// How long a consumer spins that does: longer than anything here lasts between two records.
const SPIN: Duration = Duration::from_millis(100);

fn main() {
    let columns = [&[("100 B", LABEL_WIDTH)], Latencies::COLUMNS.as_slice()].concat();
    let table = Table::new("from before send to behind poll, one record at a time", &columns);
    for (label, spin, gap) in [
        ("the consumer spins", SPIN, Duration::from_micros(5)),
        ("the consumer sleeps", Duration::ZERO, Duration::from_micros(100)),
    ] {
        let interval = Durability::Interval { every: Duration::from_millis(10), bytes: 1 << 20 };
        for (level, durability) in [("os", Durability::Os), ("10 ms", interval)] {
            let (seen, sent) = one_at_a_time(durability, spin, gap);
            table.row(&subject::row(&format!("{label}, {level}"), seen.cells()));
            table.row(&subject::row("  send meanwhile", sent.cells()));
        }
    }
    let (seen, sent) = bare_futex(Duration::from_micros(100));
    table.row(&subject::row("limit: a bare futex", seen.cells()));
    table.row(&subject::row("  wake meanwhile", sent.cells()));
    let table = Table::new("one producer beside one consumer, 100 B", &[("", LABEL_WIDTH), ("M/s", 8)]);
    for (label, spin) in [("the consumer spins", SPIN), ("the consumer sleeps", Duration::ZERO)] {
        let rate = beside(spin);
        table.row(&subject::row(label, [format!("{rate:.2}")]));
    }
}

fn consumer(subject: &Subject, spin: Duration) -> Consumer {
    let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest).spin(spin);
    let mut consumer = subject.log.consumer(config).expect("a consumer");
    consumer.assign([TopicPartition::new(TOPIC, 0)]).expect("the partition is there");
    consumer
}

fn one_at_a_time(durability: Durability, spin: Duration, gap: Duration) -> (Latencies, Latencies) {
    let count = if quick() { 1_000 } else { 100_000 };
    let subject = Subject::new(durability);
    let mut consumer = consumer(&subject, spin);
    let start = Instant::now();
    let now = || start.elapsed().as_nanos() as u64;
    let mut sent = Latencies::new();
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let (mut seen, mut read) = (Latencies::new(), 0);
            while read < count {
                let records = consumer.poll(Duration::from_secs(10)).expect("the log is whole");
                let at = start.elapsed().as_nanos() as u64;
                for record in &records {
                    let value = record.value().expect("a value");
                    let before = u64::from_le_bytes(value[..8].try_into().expect("eight bytes"));
                    seen.record(Duration::from_nanos(at - before));
                    read += 1;
                }
            }
            seen
        });
        let mut value = [7; 92];
        for _ in 0..count {
            let before = Instant::now();
            while before.elapsed() < gap {
                hint::spin_loop();
            }
            value[..8].copy_from_slice(&now().to_le_bytes());
            sent.time(|| {
                subject.producer.send(ProducerRecord::new(TOPIC, &value).key(b"12345678")).expect("there is room")
            });
        }
        reader.join().expect("the reader does not panic")
    });
    subject.discard();
    (seen, sent)
}

/// A thread that sleeps, another that wakes it, and nothing else: from before the wake until it runs, and the wake.
fn bare_futex(gap: Duration) -> (Latencies, Latencies) {
    let count = if quick() { 1_000 } else { 100_000 };
    let (word, before) = (AtomicU32::new(0), AtomicU64::new(0));
    let start = Instant::now();
    let now = || start.elapsed().as_nanos() as u64;
    let mut woke = Latencies::new();
    let seen = thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let (mut seen, mut last) = (Latencies::new(), 0);
            while last < count {
                // It returns early if the word has changed, or for no reason.
                futex::wait(&word, futex::Flags::PRIVATE, last, None).ok();
                let at = now();
                let number = word.load(Ordering::SeqCst);
                if number != last {
                    seen.record(Duration::from_nanos(at.saturating_sub(before.load(Ordering::SeqCst))));
                    last = number;
                }
            }
            seen
        });
        for _ in 0..count {
            let begin = Instant::now();
            while begin.elapsed() < gap {
                hint::spin_loop();
            }
            woke.time(|| {
                before.store(now(), Ordering::SeqCst);
                word.fetch_add(1, Ordering::SeqCst);
                futex::wake(&word, futex::Flags::PRIVATE, 1).expect("the word is there")
            });
        }
        sleeper.join().expect("the sleeper does not panic")
    });
    (seen, woke)
}

/// Millions of records per second that are sent and read.
fn beside(spin: Duration) -> f64 {
    let count = if quick() { 10_000 } else { 5_000_000 };
    let subject = Subject::new(Durability::Os);
    let mut consumer = consumer(&subject, spin);
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut read = 0;
            while read < count {
                let records = consumer.poll(Duration::from_secs(10)).expect("the log is whole");
                read += records.iter().map(|record| black_box(record.value()).iter().count()).sum::<usize>();
            }
        });
        for _ in 0..count {
            subject.producer.send(ProducerRecord::new(TOPIC, &[7; 92]).key(b"12345678")).expect("there is room");
        }
    });
    let took = start.elapsed();
    subject.discard();
    count as f64 / took.as_secs_f64() / 1e6
}
