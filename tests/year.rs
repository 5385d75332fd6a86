//! A year of simulated time: records, retention, compaction, deletions, settings, restarts and power cuts at random, and a
//! plain model that agrees after every step.
//!
//! `TIDELOG_YEARS=100 cargo test --release --all-features --test year` lives as many years, each of another seed;
//! `TIDELOG_SEED` begins with that one.
#![cfg(feature = "sim")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidelog::sim::{Machine, PowerCut};
use tidelog::{
    CleanupPolicy, ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, ProducerRecord,
    Retention, Timestamp, TopicConfig, TopicPartition, WhenFull,
};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const DAY: u64 = 24 * 60 * 60 * 1000;

fn orders() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// Few enough that compaction finds something to do.
const KEYS: u64 = 25;

/// A record as it was sent: timestamp, key, and value, if it is no tombstone.
type Sent = (i64, u8, Option<Vec<u8>>);

/// What the log must hold.
#[derive(Debug, Default)]
struct Model {
    /// All that was ever sent, by offset. Those below the start are remembered too.
    sent: Vec<Sent>,
    /// The offsets of those that compaction has removed.
    compacted: BTreeSet<usize>,
    /// When tombstones may go, from the first compaction on that may have left them.
    horizons: BTreeMap<usize, Horizon>,
    /// A power cut may take what lies behind.
    durable: usize,
    /// Everything below is gone for good.
    start: usize,
    committed: Option<usize>,
}

/// What is known of when a tombstone may go: it was given one of the times from `earliest` to `latest`, if it is `given` at
/// all by now.
#[derive(Clone, Copy, Debug)]
struct Horizon {
    earliest: i64,
    latest: i64,
    given: bool,
}

impl Horizon {
    /// It may have been given this time, unless it was given one before.
    fn may_be(&mut self, time: i64) {
        if !self.given {
            (self.earliest, self.latest) = (self.earliest.min(time), self.latest.max(time));
        }
    }

    fn at(time: i64) -> Self {
        Horizon { earliest: time, latest: time, given: false }
    }
}

struct World {
    machine: Machine,
    log: Option<EventLog>,
    config: TopicConfig,
    model: Model,
    chance: Chance,
    case: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let machine = Machine::new(seed);
        let durability = [Durability::Sync, Durability::Os][chance.below(2) as usize];
        let config = TopicConfig::new().segment_bytes(4096 << chance.below(3)).durability(durability);
        let case = format!("TIDELOG_SEED={seed}");
        let mut world = World { machine, log: None, config, model: Model::default(), chance, case };
        world.open();
        world.log().create_topic(TOPIC, world.config.clone()).unwrap();
        world
    }

    fn open(&mut self) {
        // Rounds of retention are steps of the world, not of the clock.
        let options = LogConfig::new().background(false).retention_interval(Duration::MAX);
        self.log = Some(self.machine.open(options).unwrap_or_else(|error| panic!("{}: {error}", self.case)));
        let log = self.log.as_ref().unwrap();
        assert!(log.recovery_report().damage.is_empty(), "{}: {:?}", self.case, log.recovery_report());
        assert!(log.recovery_report().rebuilt.is_empty(), "{}: {:?}", self.case, log.recovery_report());
    }

    fn log(&self) -> &EventLog {
        self.log.as_ref().expect("it is open")
    }

    fn bounds(&self) -> (usize, usize) {
        let partition = &self.log().describe_topic(TOPIC).unwrap().partitions[0];
        (partition.log_start.get() as usize, partition.log_end.get() as usize)
    }

    fn step(&mut self) {
        match self.chance.below(24) {
            0..9 => self.send(),
            9 => self.flush(),
            10..12 => self.commit(),
            12 => self.delete(),
            13..16 => self.retain(),
            16..19 => self.compact(),
            19 => self.compact_in_part(),
            20 => self.change_settings(),
            21 => self.reopen(),
            22 => self.kill(),
            _ => self.cut_power(),
        }
    }

    fn send(&mut self) {
        for _ in 0..self.chance.below(12) {
            let now = self.machine.now().as_millis();
            let timestamp = match self.chance.below(12) {
                0 => now - self.chance.below(90 * DAY) as i64,
                1 => now + self.chance.below(2 * DAY) as i64,
                _ => now,
            };
            let length = if self.chance.one_in(3) { self.chance.below(900) } else { 460 };
            let value = vec![self.model.sent.len() as u8; length as usize];
            let value = (!self.chance.one_in(6)).then_some(value);
            let key = self.chance.below(KEYS) as u8;
            let key_bytes = [key];
            let record = match &value {
                Some(value) => ProducerRecord::new(TOPIC, value).key(&key_bytes),
                None => ProducerRecord::tombstone(TOPIC, &key_bytes),
            };
            let record = record.timestamp(Timestamp::from_millis(timestamp));
            match self.log().producer().send(record) {
                Ok(delivery) => {
                    assert_eq!(delivery.offset().get() as usize, self.model.sent.len(), "{}", self.case);
                    self.model.sent.push((timestamp, key, value));
                }
                Err(Error::PartitionFull { .. }) => assert!(self.config != TopicConfig::new(), "{}", self.case),
                Err(error) => panic!("{}: {error}", self.case),
            }
        }
        // Dropping the oldest moves the start by whole segments, and never past what is visible.
        let (start, _) = self.bounds();
        assert!(start >= self.model.start, "{}", self.case);
        if start > self.model.start {
            assert!(self.config.entries().contains(&("when.full", "drop-oldest".into())), "{}: {start}", self.case);
            self.model.start = start;
            self.model.durable = self.model.durable.max(start);
        }
    }

    fn flush(&mut self) {
        self.log().producer().flush().unwrap();
        if self.config.durability_level() == Durability::Sync {
            self.model.durable = self.model.sent.len();
        }
    }

    fn commit(&mut self) {
        let (start, end) = self.bounds();
        let offset = start + self.chance.below((end - start + 1) as u64) as usize;
        let mut group = self.log().consumer(ConsumerConfig::group(GROUP).auto_commit(false)).unwrap();
        group.assign([orders()]).unwrap();
        group.commit_offsets([(orders(), Offset::new(offset as u64))]).unwrap();
        self.model.committed = Some(offset);
    }

    fn delete(&mut self) {
        let visible = self.log().describe_topic(TOPIC).unwrap().partitions[0].high_watermark.get() as usize;
        let before = self.model.start + self.chance.below((visible + 3 - self.model.start) as u64) as usize;
        match self.log().delete_records(&orders(), before as u64) {
            Ok(start) => {
                assert!(before <= visible, "{}", self.case);
                self.model.start = self.model.start.max(before);
                assert_eq!(start.get() as usize, self.model.start, "{}", self.case);
            }
            Err(Error::OffsetOutOfRange { .. }) => assert!(before > visible, "{}", self.case),
            Err(error) => panic!("{}: {error}", self.case),
        }
        self.model.durable = self.model.durable.max(self.model.start);
    }

    /// A round of retention: what went must have been over by some limit, and what is over and in reach must be gone.
    fn retain(&mut self) {
        let (start, visible) = {
            let partition = &self.log().describe_topic(TOPIC).unwrap().partitions[0];
            (partition.log_start.get() as usize, partition.high_watermark.get() as usize)
        };
        let limits: BTreeMap<_, _> = self.config.entries().into_iter().collect();
        let limit = |name: &str| limits[name].parse::<u64>().ok().filter(|_| self.config.policy().deletes());
        let planned = self.log().plan_retention(TOPIC, &self.config).unwrap();
        let removed = self.log().apply_retention().unwrap();
        assert_eq!(removed, planned, "{}: what was planned is what is done", self.case);
        let (now_start, end) = self.bounds();
        assert_eq!(now_start, removed.first().map_or(start, |removed| removed.offsets.end.get() as usize));
        assert!(now_start <= visible, "{}", self.case);
        if now_start > start {
            assert!(self.config.policy().deletes(), "{}: compacted, and {start}..{now_start} is gone", self.case);
            let gone: Vec<i64> = self.there(start..now_start).map(|(_, (at, ..))| *at).collect();
            let held = if limits["retention.groups"].is_empty() { end } else { self.model.committed.unwrap_or(0) };
            assert!(now_start <= held, "{}: {now_start} is gone, {held} committed", self.case);
            let now = self.machine.now().as_millis();
            let old = limit("retention.ms").is_some_and(|ms| gone.iter().all(|at| now - at > ms as i64));
            let many = limit("retention.records").is_some_and(|records| (end - now_start) as u64 >= records);
            let large = limit("retention.bytes").is_some();
            let queue =
                ["retention.ms", "retention.records", "retention.bytes"].iter().all(|name| limit(name).is_none());
            assert!(old || many || large || queue, "{}: {start}..{now_start} was kept by {limits:?}", self.case);
        }
        if let Some(ms) = limit("retention.ms").filter(|_| limits["retention.groups"].is_empty()) {
            // Whole segments: whoever is followed only by older ones of all others is gone.
            let now = self.machine.now().as_millis();
            let mut left = self.there(now_start..visible).peekable();
            // Where compaction has left nothing, nothing says how old it was.
            let all_old = left.peek().is_some() && left.all(|(_, (at, ..))| now - at > ms as i64);
            assert!(!all_old || visible < end, "{}: nothing but old records", self.case);
        }
        self.model.start = now_start;
        self.model.durable = self.model.durable.max(now_start);
    }

    fn change_settings(&mut self) {
        let mut retention = Retention::new();
        if self.chance.one_in(2) {
            retention = retention.time(Duration::from_millis(self.chance.below(40 * DAY)));
        }
        if self.chance.one_in(3) {
            retention = retention.records(self.chance.below(100));
        }
        if self.chance.one_in(3) {
            retention = retention.bytes(self.chance.below(60_000));
        }
        let policies = [CleanupPolicy::Delete, CleanupPolicy::Compact, CleanupPolicy::CompactAndDelete];
        let policy = policies[self.chance.below(3) as usize];
        let mut config = self.config.clone().cleanup_policy(policy);
        config = config.delete_retention(Duration::from_millis(1 + self.chance.below(20 * DAY)));
        let (mut bound, mut when_full) = (None, WhenFull::Refuse);
        match self.chance.below(4) {
            0 => retention = retention.until_committed_by([GROUP]),
            1 if policy.deletes() => {
                (bound, when_full) = (Some(40_000 + self.chance.below(40_000)), WhenFull::DropOldest);
            }
            2 => bound = Some(40_000 + self.chance.below(40_000)),
            _ => {}
        }
        let age = self.chance.one_in(2).then(|| Duration::from_millis(1 + self.chance.below(10 * DAY)));
        config = config.retention(retention).max_bytes(bound, when_full).segment_age(age);
        self.log().alter_topic(TOPIC, config.clone()).unwrap();
        self.config = config;
    }

    /// The records with these offsets that compaction has not removed.
    fn there(&self, offsets: std::ops::Range<usize>) -> impl Iterator<Item = (usize, &Sent)> {
        let sent = self.model.sent.iter().enumerate().take(offsets.end).skip(offsets.start);
        sent.filter(|(offset, _)| !self.model.compacted.contains(offset))
    }

    /// Compacts all that there is. What goes, and what stays, is known to the record.
    fn compact(&mut self) {
        if !self.config.policy().compacts() {
            assert!(self.log().compact(&orders(), |_| {}).is_err(), "{}", self.case);
            return;
        }
        match self.log().compact(&orders(), |_| {}) {
            Ok(done) => assert_eq!(done.clean_end.get() as usize, self.model.sent.len(), "{}", self.case),
            // It begins another segment, for which there is no room.
            Err(Error::PartitionFull { .. }) => return,
            Err(error) => panic!("{}: {error}", self.case),
        }
        let found: BTreeSet<usize> = self.read().into_iter().map(|(offset, _)| offset).collect();
        let (now, given) = (self.machine.now().as_millis(), self.horizon_now());
        let Model { sent, compacted, horizons, durable, start, .. } = &mut self.model;
        *durable = sent.len();
        let mut later = BTreeSet::new();
        for (offset, (_, key, value)) in sent.iter().enumerate().skip(*start).rev() {
            if compacted.contains(&offset) {
                continue;
            }
            if !later.insert(*key) {
                compacted.insert(offset);
            } else if value.is_none() {
                let horizon = horizons.entry(offset).or_insert(Horizon::at(given));
                let (may, must) = (now >= horizon.earliest, horizon.given && now >= horizon.latest);
                if must || (may && !found.contains(&offset)) {
                    compacted.insert(offset);
                }
                horizon.may_be(given);
                horizon.given = true;
            }
        }
    }

    /// The horizon that a tombstone is given now.
    fn horizon_now(&self) -> i64 {
        let entries = self.config.entries();
        let retention = entries.iter().find(|(name, _)| *name == "delete.retention.ms").expect("there is one");
        self.machine.now().as_millis() + retention.1.parse::<i64>().expect("it is a number")
    }

    /// Compacts as the background worker does, and stops somewhere. What went must have been superseded.
    fn compact_in_part(&mut self) {
        if self.config.policy() != CleanupPolicy::Compact {
            // Rounds of retention are steps of their own.
            return;
        }
        for _ in 0..1 + self.chance.below(40) {
            self.log().maintain();
        }
        // What waits for no time was done: it may have been synced.
        let partition = self.log().describe_topic(TOPIC).unwrap().partitions.swap_remove(0);
        self.model.durable = self.model.durable.max(partition.durable_end.get() as usize);
        let (start, clean_end) = (self.model.start, partition.clean_end.get() as usize);
        let found: BTreeSet<usize> = self.read().into_iter().map(|(offset, _)| offset).collect();
        let visible = partition.high_watermark.get() as usize;
        let gone: Vec<usize> = self.there(start..visible).map(|(at, _)| at).filter(|at| !found.contains(at)).collect();
        let now = self.machine.now().as_millis();
        for offset in &gone {
            let (_, key, value) = &self.model.sent[*offset];
            let later = self.model.sent[*offset + 1..visible].iter().any(|(_, other, _)| other == key);
            let over =
                value.is_none() && self.model.horizons.get(offset).is_some_and(|horizon| now >= horizon.earliest);
            assert!(later || over, "{}: the last record of key {key}, at {offset}, is gone", self.case);
        }
        let mut once = BTreeSet::new();
        for (_, (_, key, _)) in self.there(start..clean_end).filter(|(at, _)| found.contains(at)) {
            assert!(once.insert(*key), "{}: key {key} is there twice below {clean_end}", self.case);
        }
        // Whether tombstones were met, nobody says: they may have been given their time, or are given it next.
        let given = self.horizon_now();
        let tombstones = self.model.sent.iter().enumerate().filter(|(_, (.., value))| value.is_none());
        for (offset, _) in tombstones {
            self.model.horizons.entry(offset).or_insert(Horizon::at(given)).may_be(given);
        }
        self.model.compacted.extend(gone);
    }

    fn reopen(&mut self) {
        self.log.take().unwrap().close().unwrap();
        self.model.durable = self.model.sent.len();
        self.open();
        self.check(false);
    }

    fn kill(&mut self) {
        self.machine = self.machine.kill();
        self.open();
        // What is offered after an opening is durable.
        self.model.durable = self.model.sent.len();
        self.check(false);
    }

    fn cut_power(&mut self) {
        let how = PowerCut::ALL[self.chance.below(6) as usize];
        self.machine = self.machine.power_cut(how);
        self.open();
        self.check(true);
    }

    /// The log holds what the model says. `cut`: but for a tail that was never promised.
    fn check(&mut self, cut: bool) {
        let (start, end) = self.bounds();
        assert_eq!(start, self.model.start, "{}: where it begins", self.case);
        let Model { sent, durable, committed, .. } = &mut self.model;
        assert!(end >= *durable && end <= sent.len(), "{}: {end} of {} with {durable} durable", self.case, sent.len());
        assert!(cut || end == sent.len(), "{}: {end} of {}", self.case, sent.len());
        if cut {
            sent.truncate(end);
            *durable = end;
            *committed = committed.map(|offset| offset.min(end));
        }
        let read = self.read();
        let visible = self.log().describe_topic(TOPIC).unwrap().partitions[0].high_watermark.get() as usize;
        let expected: Vec<(usize, Sent)> =
            self.there(start..visible).map(|(offset, sent)| (offset, sent.clone())).collect();
        assert!(read == expected, "{}: not what was sent", self.case);
        self.check_times(start, visible);
        let group = self.log().consumer(ConsumerConfig::group(GROUP)).unwrap();
        let found = group.committed(&orders()).unwrap().map(|found| found.offset.get() as usize);
        assert_eq!(found, self.model.committed, "{}", self.case);
    }

    fn read(&self) -> Vec<(usize, Sent)> {
        let mut reader = self.log().consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::None)).unwrap();
        reader.assign([orders()]).unwrap();
        reader.seek_to_beginning(&[]).unwrap();
        let mut all = Vec::new();
        loop {
            let records = reader.poll(Duration::ZERO).unwrap_or_else(|error| panic!("{}: {error}", self.case));
            let end = reader.end_offsets(&[orders()]).unwrap()[&orders()];
            if records.is_empty() && reader.position(&orders()).unwrap() == end {
                return all;
            }
            all.extend(records.iter().map(|record| {
                let (key, value) = (record.key().unwrap()[0], record.value().map(<[u8]>::to_vec));
                (record.offset().get() as usize, (record.timestamp().as_millis(), key, value))
            }));
        }
    }

    /// Lookups by time find what a scan finds.
    fn check_times(&mut self, start: usize, visible: usize) {
        let asked = self.machine.now().as_millis() - self.chance.below(100 * DAY) as i64;
        let expected = self
            .there(start..visible)
            .find(|(_, (at, ..))| *at >= asked)
            .map(|(offset, (at, ..))| (offset as u64, *at));
        let latest = self.there(start..visible).map(|(_, (at, ..))| *at).max();
        let reader = self.log().consumer(ConsumerConfig::new()).unwrap();
        let found = reader.offsets_for_times([(orders(), Timestamp::from_millis(asked))]).unwrap()[&orders()];
        assert_eq!(found.map(|found| (found.offset.get(), found.timestamp.as_millis())), expected, "{}", self.case);
        let found = reader.offsets_of_latest_timestamps(&[orders()]).unwrap()[&orders()];
        assert_eq!(found.map(|found| found.timestamp.as_millis()), latest, "{}", self.case);
    }
}

/// A number from an environment variable.
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn a_log_that_lives_for_years_holds_what_the_model_holds() {
    let first = given("TIDELOG_SEED").unwrap_or(1);
    let (mut steps, mut removed, mut compacted) = (0, 0, 0);
    for seed in first..first + given("TIDELOG_YEARS").unwrap_or(3) {
        let mut world = World::new(seed);
        let began = world.machine.now().as_millis();
        while world.machine.now().as_millis() - began < 365 * DAY as i64 {
            world.step();
            world.check(false);
            let pause = 1 + world.chance.below(2 * DAY);
            world.machine.advance(Duration::from_millis(pause));
            steps += 1;
        }
        removed += world.model.start;
        compacted += world.model.compacted.len();
    }
    println!("{steps} steps, {removed} records removed, {compacted} by compaction");
    assert!(removed > 500 && compacted > 500, "{removed}, {compacted}");
}
