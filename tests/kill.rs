//! SIGKILL at random moments, of a process at full speed: what was acknowledged is there, what was committed holds.
//!
//! The processes are those of `tidelog demo`: they report each acknowledgement through a pipe, which outlives them. The
//! moment is chosen by how many lines were read from the pipe; since the process runs on meanwhile, the kill falls
//! anywhere: into an append, a roll, a sync, a commit, the opening of the log.
//!
//! `TIDELOG_KILLS=50` says how often, `TIDELOG_SEED` repeats the moments of a run, as far as the machine does.

mod tool;

#[path = "../src/bin/tidelog/demo/event.rs"]
mod event;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidelog::{ConsumerConfig, Durability, EventLog, OffsetReset, TopicConfig, TopicPartition};
use tool::{Chance, Place, Running, kills};

const TOPIC: &str = "events";
const GROUP: &str = "readers";
const PARTITIONS: u32 = 3;
/// Small, so that the kill meets many rolls.
const SEGMENT_BYTES: u32 = 256 << 10;
/// Records whose lines a pipe does not hold: a reader that is killed while it waits for the pipe has not committed.
const MORE_THAN_A_PIPE: u64 = 6000;

/// A line of a child: what it is, and its numbers.
fn parse(line: &[u8]) -> (String, Vec<u64>) {
    let text = std::str::from_utf8(line).unwrap();
    let mut words = text.split(' ');
    let kind = words.next().unwrap().to_owned();
    (kind, words.map(|word| word.parse().unwrap_or_else(|_| panic!("{text:?}"))).collect())
}

/// Reads `count` lines, kills, and returns all lines that were written.
fn listen_and_kill(mut child: Running, count: u64) -> (Vec<Vec<u8>>, bool) {
    let mut lines = Vec::new();
    while (lines.len() as u64) < count {
        match child.line() {
            Some(line) => lines.push(line),
            None => break,
        }
    }
    let (rest, was_killed) = child.kill();
    lines.extend(rest);
    (lines, was_killed)
}

/// What a partition holds, in the order of offsets: key and value of each.
type Held = Vec<Vec<(Vec<u8>, Vec<u8>)>>;

/// Reads all that a log holds, from `starts` on, and checks that offsets have no gap.
fn read_from(log: &EventLog, starts: &[u64]) -> Held {
    let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::None)).unwrap();
    let partitions: Vec<_> = (0..PARTITIONS).map(|number| TopicPartition::new(TOPIC, number)).collect();
    consumer.assign(partitions.iter().cloned()).unwrap();
    for (name, start) in partitions.iter().zip(starts) {
        consumer.seek(name, *start).unwrap();
    }
    let mut held: Held = vec![Vec::new(); PARTITIONS as usize];
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            return held;
        }
        for record in &records {
            let at = record.partition() as usize;
            assert_eq!(record.offset().get(), starts[at] + held[at].len() as u64, "partition {at} has a gap");
            held[at].push((record.key().unwrap().to_vec(), record.value().unwrap().to_vec()));
        }
    }
}

/// Each user's events are there from the first on, in order, without a gap.
fn check_order(held: &Held, message: &str) {
    let mut due: HashMap<Vec<u8>, u64> = HashMap::new();
    for (key, value) in held.iter().flatten() {
        assert!(event::user_of(key).is_some_and(|user| user < event::USERS), "{key:?}; {message}");
        let due = due.entry(key.clone()).or_insert(0);
        assert_eq!(event::number_of(value), Some(*due), "{}; {message}", String::from_utf8_lossy(key));
        *due += 1;
    }
}

/// Where an event was acknowledged, and which.
type Acked = Vec<(usize, u64, u64, u64)>;

fn check_acked(acked: &Acked, held: &Held, starts: &[u64], message: &str) {
    for (partition, offset, user, number) in acked {
        let place = format!("offset {offset} of partition {partition}; {message}");
        let found = usize::try_from(offset - starts[*partition]).ok().and_then(|at| held[*partition].get(at));
        let (key, value) = found.unwrap_or_else(|| panic!("acknowledged and not there: {place}"));
        assert_eq!(*key, event::key(*user), "{place}");
        assert_eq!(*value, event::value(*user, *number), "{place}");
    }
}

fn what_was_acknowledged_is_there(durability: Durability) {
    let mut chance = Chance::new();
    let place = Place::new();
    let log = EventLog::open(place.path()).unwrap();
    let config = TopicConfig::new().partitions(PARTITIONS).segment_bytes(SEGMENT_BYTES).durability(durability);
    log.create_topic(TOPIC, config).unwrap();
    log.close().unwrap();

    let kills = kills(6);
    let (mut all, mut fresh) = (Acked::new(), Acked::new());
    let mut starts = vec![0; PARTITIONS as usize];
    for kill in 1..=kills {
        let burst = chance.one_of(&[1, 20, 500]);
        let threads = chance.one_of(&["1", "4"]);
        // Some die before they have sent anything: while they open the log that the last one left.
        let count =
            if chance.below(6) == 0 { 0 } else { chance.below(burst * 20) + chance.below(3000).min(burst * 200) };
        let message =
            format!("{durability}, kill {kill} after {count} lines, {threads} threads, TIDELOG_SEED={}", chance.seed());
        let burst = burst.to_string();
        let words =
            ["demo-produce", "--topic", TOPIC, "--threads", threads, "--records", "1000000000", "--burst", &burst];
        let (lines, was_killed) = listen_and_kill(place.start(&words), count);
        assert!(was_killed, "it ended by itself; {message}");
        for line in &lines {
            let (kind, numbers) = parse(line);
            let [partition, offset, user, number] = numbers[..] else { panic!("{kind} {numbers:?}; {message}") };
            assert_eq!(kind, "acked", "{message}");
            fresh.push((partition as usize, offset, user, number));
        }
        // Not each time: the next one must cope with what a kill left, and not only with a log that was closed.
        if chance.below(2) == 0 || kill == kills {
            let log = EventLog::open(place.path()).unwrap_or_else(|error| panic!("{error}; {message}"));
            assert!(log.recovery_report().is_clean(), "{:?}; {message}", log.recovery_report());
            let held = read_from(&log, &starts);
            check_acked(&fresh, &held, &starts, &message);
            starts.iter_mut().zip(&held).for_each(|(start, events)| *start += events.len() as u64);
            all.append(&mut fresh);
            log.close().unwrap();
        }
    }

    let message = format!("{durability}, at the end, TIDELOG_SEED={}", chance.seed());
    let log = EventLog::open(place.path()).unwrap();
    let nowhere = vec![0; PARTITIONS as usize];
    let held = read_from(&log, &nowhere);
    check_acked(&all, &held, &nowhere, &message);
    check_order(&held, &message);
    let segments: usize = log.describe_topic(TOPIC).unwrap().partitions.iter().map(|one| one.segments).sum();
    let sent: usize = held.iter().map(Vec::len).sum();
    println!("{durability}: {kills} kills, {} acknowledged, {sent} in the log, {segments} segments", all.len());
}

#[test]
fn what_was_acknowledged_in_a_sync_topic_survives_kills() {
    what_was_acknowledged_is_there(Durability::Sync);
}

#[test]
fn what_was_acknowledged_in_an_interval_topic_survives_kills() {
    what_was_acknowledged_is_there("interval".parse().unwrap());
}

#[test]
fn what_was_acknowledged_in_an_os_topic_survives_kills() {
    what_was_acknowledged_is_there(Durability::Os);
}

/// What the group has committed, as the next process finds it.
fn committed(place: &Place, message: &str) -> BTreeMap<u32, u64> {
    let log = EventLog::open(place.path()).unwrap_or_else(|error| panic!("{error}; {message}"));
    assert!(log.recovery_report().is_clean(), "{:?}; {message}", log.recovery_report());
    let mut committed: BTreeMap<u32, u64> = (0..PARTITIONS).map(|number| (number, 0)).collect();
    if log.list_groups().iter().any(|name| name == GROUP) {
        for offset in log.describe_group(GROUP).unwrap().offsets {
            committed.insert(offset.partition.partition(), offset.committed.unwrap().get());
        }
    }
    log.close().unwrap();
    committed
}

#[test]
fn a_group_that_is_killed_misses_nothing_and_reads_twice_only_what_it_had_not_committed() {
    let mut chance = Chance::new();
    let kills = kills(6);
    let place = Place::new();
    let log = EventLog::open(place.path()).unwrap();
    log.create_topic(TOPIC, TopicConfig::new().partitions(PARTITIONS).segment_bytes(SEGMENT_BYTES)).unwrap();
    log.close().unwrap();
    // More than the group can read until the last kill: what it may read ahead of us is what the pipe holds.
    let events = (kills * 8000).to_string();
    let words = ["demo-produce", "--topic", TOPIC, "--threads", "2", "--records", &events, "--burst", "5000"];
    place.run(&words).out();
    let log = EventLog::open(place.path()).unwrap();
    let held = read_from(&log, &[0; PARTITIONS as usize]);
    log.close().unwrap();
    check_order(&held, "before the kills");

    let mut times: Vec<Vec<u32>> = held.iter().map(|events| vec![0; events.len()]).collect();
    let mut resume = committed(&place, "before the kills");
    let mut twice = 0;
    for kill in 1..=kills + 1 {
        let is_last = kill == kills + 1;
        let poll = if is_last { 2000 } else { chance.one_of(&[1, 30, MORE_THAN_A_PIPE, MORE_THAN_A_PIPE]) };
        let count = if chance.below(6) == 0 { 0 } else { chance.below((poll * 40).min(3000)) };
        let message = format!("kill {kill} after {count} lines, {poll} a poll, TIDELOG_SEED={}", chance.seed());
        let poll = poll.to_string();
        let words = ["demo-consume", "--topic", TOPIC, "--group", GROUP, "--poll", &poll];
        let lines = if is_last {
            let out = place.run(&words).out();
            out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
        } else {
            let (lines, was_killed) = listen_and_kill(place.start(&words), count);
            assert!(was_killed, "it ended by itself; {message}");
            lines
        };

        let mut next = resume.clone();
        let mut promised = resume.clone();
        for line in &lines {
            match parse(line) {
                (kind, numbers) if kind == "read" => {
                    let [partition, offset, user, number, crc] = numbers[..] else { panic!("{numbers:?}; {message}") };
                    let due = next.get_mut(&(partition as u32)).unwrap();
                    assert_eq!(offset, *due, "partition {partition}; {message}");
                    *due += 1;
                    let (key, value) = &held[partition as usize][offset as usize];
                    assert_eq!((event::key(user), event::number_of(value)), (key.clone(), Some(number)), "{message}");
                    assert_eq!(u64::from(crc32fast::hash(value)), crc, "{message}");
                    let times = &mut times[partition as usize][offset as usize];
                    *times += 1;
                    twice += u64::from(*times == 2);
                }
                (kind, numbers) if kind == "committed" => {
                    promised.insert(numbers[0] as u32, numbers[1]);
                }
                (kind, _) => assert!(kind == "done" && is_last, "{kind}; {message}"),
            }
        }
        let found = committed(&place, &message);
        for (partition, found) in &found {
            // Between the two lies one commit, which may have been made without having been reported.
            let (least, most) = (promised[partition], next[partition]);
            assert!(
                (least..=most).contains(found),
                "{found} of partition {partition} is committed; {least} was promised, {most} read; {message}"
            );
        }
        resume = found;
    }
    let unread = times.iter().flatten().filter(|times| **times == 0).count();
    assert_eq!(unread, 0, "never read; TIDELOG_SEED={}", chance.seed());
    println!("{kills} kills, {events} events, {twice} read twice");
}
