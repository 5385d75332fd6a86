//! Groups: how long it takes to decide who reads what.
//!
//! `cargo bench --bench groups`, for a look whether it runs with `-- --quick`. *First* is a group that begins, *joins* one
//! that another member comes to, *leaves* one that a member has gone from, *alone* one of a single member that all the
//! others come to; in the last three everybody says what they have. *Same* wishes are all topics, *mixed* ones every member's own half of them.

use std::collections::BTreeMap;
use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tidelog::{Assignor, CooperativeStickyAssignor, RangeAssignor, RoundRobinAssignor, StickyAssignor, Subscription};

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
