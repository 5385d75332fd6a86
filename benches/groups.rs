//! Groups: how long it takes to decide who reads what.
//!
//! `cargo bench --bench groups`, for a look whether it runs with `-- --quick`. *First* is a group that begins, *joins* one
//! that another member comes to, *leaves* one that a member has gone from, *alone* one of a single member that all the
//! others come to; in the last three everybody says what they have. *Same* wishes are all topics, *mixed* ones every member's own half of them.
//!
//! Then whole rebalances on a real log: from the moment at which a member comes or goes until each of 64 consumers has been
//! polled and reads what it was assigned, in one thread. And what a poll costs that finds nothing, and a commit, in time
//! and in allocations; a poll that finds nothing must not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tidelog::{
    Assignor, Consumer, ConsumerConfig, CooperativeStickyAssignor, Durability, EventLog, GroupState, LogConfig,
    OffsetReset, ProducerRecord, RangeAssignor, RoundRobinAssignor, StickyAssignor, Subscription, TopicConfig,
};

/// The system's allocator, counting what each thread asks it for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is done by `System`, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from `System`, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Topics = BTreeMap<String, u32>;
type Members = BTreeMap<String, Subscription>;

/// A group, by what makes deciding dear.
#[derive(Clone, Copy)]
struct Shape {
    members: usize,
    topics: usize,
    partitions: u32,
    mixed: bool,
}

impl Shape {
    fn topics(self) -> Topics {
        (0..self.topics).map(|at| (topic(at), self.partitions)).collect()
    }

    fn members(self, count: usize) -> Members {
        // The half of a member: topics by the bits of a number that differs from member to member.
        let wants =
            |member: usize, at: usize| !self.mixed || (member.wrapping_mul(2_654_435_761) >> (at % 24)) & 1 == 0;
        let member = |member: usize| {
            let wanted = (0..self.topics).filter(|at| wants(member + 1, *at)).map(topic);
            (format!("member-{member:05}"), Subscription::new(wanted))
        };
        (0..count).map(member).collect()
    }
}

fn topic(at: usize) -> String {
    format!("topic-{at:04}")
}

/// `members` with what `assignor` gave to those who were there before.
fn owning(assignor: &dyn Assignor, topics: &Topics, before: &Members, members: Members) -> Members {
    let given = assignor.assign(topics, before);
    let with = |(id, member): (String, Subscription)| {
        let owned = given.get(&id).cloned().unwrap_or_default();
        (id, member.owning(owned, 1))
    };
    members.into_iter().map(with).collect()
}

/// The shortest of several runs: what the work takes when nobody disturbs it.
fn shortest(repetitions: usize, mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..repetitions).map(once).min().expect("at least one")
}

fn main() {
    let quick = env::args().any(|argument| argument == "--quick");
    let small = |topics, partitions, mixed| Shape { members: 64, topics, partitions, mixed };
    let mut shapes = vec![small(16, 64, false), small(16, 64, true), small(1, 1024, false)];
    if !quick {
        // The largest of Kafka's own tests, which allows them 30 s and, with mixed wishes, 90 s.
        shapes.extend([false, true].map(|mixed| Shape { members: 2000, topics: 500, partitions: 2000, mixed }));
    }
    println!("| members | topics | partitions | wishes | assignor | first | joins | leaves | alone |");
    println!("|--:|--:|--:|---|---|--:|--:|--:|--:|");
    for shape in shapes {
        for assignor in
            [&RangeAssignor as &dyn Assignor, &RoundRobinAssignor, &StickyAssignor, &CooperativeStickyAssignor]
        {
            measure(shape, assignor, if quick { 1 } else { 50 });
        }
    }
    rebalances(if quick { 1 } else { 20 });
}

const GROUP: &str = "group";

fn member(log: &EventLog, assignor: impl Assignor + 'static) -> Consumer {
    let config = ConsumerConfig::group(GROUP).auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    let mut consumer = log.consumer(config.assignor(assignor)).unwrap();
    consumer.subscribe(["topic"]).unwrap();
    consumer
}

/// Polls in turn until everybody reads what it was assigned; how many rounds that took.
fn settle(log: &EventLog, members: &mut [Consumer]) -> usize {
    for round in 1.. {
        for member in &mut *members {
            member.poll(Duration::ZERO).unwrap();
        }
        if log.describe_group(GROUP).unwrap().state == GroupState::Stable {
            return round;
        }
    }
    unreachable!("the loop has no end")
}

/// Members come and go on a real log.
fn rebalances(repetitions: usize) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = LogConfig::new().background(false).commit_durability(Durability::Os);
    let log = EventLog::open_with(directory.path(), config).unwrap();
    log.create_topic("topic", TopicConfig::new().partitions(1024).durability(Durability::Os)).unwrap();
    println!("\n| members | partitions | assignor | a member joins | a member leaves | rounds of polls |");
    println!("|--:|--:|---|--:|--:|--:|");
    whole(&log, RangeAssignor, repetitions);
    whole(&log, RoundRobinAssignor, repetitions);
    whole(&log, StickyAssignor, repetitions);
    whole(&log, CooperativeStickyAssignor, repetitions);
    polls_and_commits(&log, if repetitions == 1 { 1_000 } else { 200_000 });
    drop(log);
    durable_commits(if repetitions == 1 { 100 } else { 5_000 });
}

fn whole<A: Assignor + Copy + 'static>(log: &EventLog, assignor: A, repetitions: usize) {
    let mut members: Vec<Consumer> = (0..63).map(|_| member(log, assignor)).collect();
    settle(log, &mut members);
    let (mut joins, mut leaves, mut rounds) = (Duration::MAX, Duration::MAX, 0);
    for _ in 0..repetitions {
        let start = Instant::now();
        members.push(member(log, assignor));
        rounds = settle(log, &mut members);
        joins = joins.min(start.elapsed());
        let start = Instant::now();
        members.remove(0).close().unwrap();
        settle(log, &mut members);
        leaves = leaves.min(start.elapsed());
    }
    let millis = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    println!("| 64 | 1024 | {} | {} | {} | {rounds} |", assignor.name(), millis(joins), millis(leaves));
}

fn polls_and_commits(log: &EventLog, repetitions: u32) {
    let mut consumers: Vec<Consumer> = (0..64).map(|_| member(log, RangeAssignor)).collect();
    settle(log, &mut consumers);
    let consumer = &mut consumers[0];
    let partition = consumer.assignment()[0].clone();
    log.producer().send(ProducerRecord::new("topic", b"1").partition(partition.partition())).unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    // The first one makes the group's directory.
    consumer.commit().unwrap();
    println!("\n| of a member with 16 partitions | time | allocations |");
    println!("|---|--:|--:|");
    let mut measure = |what: &str, work: &mut dyn FnMut(&mut Consumer)| {
        let (start, before) = (Instant::now(), ALLOCATIONS.get());
        (0..repetitions).for_each(|_| work(consumer));
        let allocations = ALLOCATIONS.get() - before;
        let each = allocations as f64 / f64::from(repetitions);
        println!("| {what} | {:.0} ns | {each:.1} |", start.elapsed().as_nanos() as f64 / f64::from(repetitions));
        allocations
    };
    let idle = measure("a poll that finds nothing", &mut |consumer| {
        assert!(black_box(consumer.poll(Duration::ZERO).unwrap()).is_empty());
    });
    measure("a commit of one offset, not waiting for the disk", &mut |consumer| {
        consumer.commit_offsets([(partition.clone(), tidelog::Offset::new(1))]).unwrap();
    });
    let producer = log.producer();
    measure("a send of 50 bytes, beside it", &mut |_| {
        drop(producer.send(ProducerRecord::new("topic", &[7; 50]).partition(1000)).unwrap());
    });
    assert_eq!(idle, 0, "a poll that finds nothing allocates");
}

/// Commits and sends as they are by default: each returns when it is on the disk. In turn, so that both meet the same disk.
fn durable_commits(repetitions: u32) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic("topic", TopicConfig::new()).unwrap();
    let mut consumer = member(&log, RangeAssignor);
    let producer = log.producer();
    let mut took = [Duration::ZERO; 2];
    for number in 0..=repetitions {
        let start = Instant::now();
        producer.send(ProducerRecord::new("topic", &[7; 50])).unwrap().wait().unwrap();
        let sent = start.elapsed();
        while consumer.poll(Duration::from_secs(1)).unwrap().is_empty() {}
        let start = Instant::now();
        consumer.commit().unwrap();
        // The first one makes the group's directory.
        if number > 0 {
            took[0] += sent;
            took[1] += start.elapsed();
        }
    }
    let [sent, committed] = took.map(|took| took.as_secs_f64() * 1e6 / f64::from(repetitions));
    println!("| a commit that waits for the disk | {committed:.1} us | |");
    println!("| a send that waits for the disk, in turn with it | {sent:.1} us | |");
}

fn measure(shape: Shape, assignor: &dyn Assignor, repetitions: usize) {
    let topics = shape.topics();
    let (fewer, all) = (shape.members(shape.members - 1), shape.members(shape.members));
    let joins = owning(assignor, &topics, &fewer, all.clone());
    let leaves = owning(assignor, &topics, &all, fewer);
    let alone = owning(assignor, &topics, &shape.members(1), all.clone());
    let large = shape.members > 1000;
    let took = [&all, &joins, &leaves, &alone].map(|members| {
        shortest(if large { 1 } else { repetitions }, || {
            black_box(assignor.assign(black_box(&topics), black_box(members)));
        })
    });
    let took = took.map(|took| format!("{:.3} ms", took.as_secs_f64() * 1e3));
    let wishes = if shape.mixed { "mixed" } else { "same" };
    let partitions = shape.topics * shape.partitions as usize;
    println!(
        "| {} | {} | {partitions} | {wishes} | {} | {} |",
        shape.members,
        shape.topics,
        assignor.name(),
        took.join(" | ")
    );
}
