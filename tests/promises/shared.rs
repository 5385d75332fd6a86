//! What was promised, and whether it is kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, ProducerRecord, TopicConfig,
    TopicPartition,
};

pub(crate) const NOW: Duration = Duration::ZERO;
pub(crate) const GROUP: &str = "billing";

/// Whether every case of a sweep is to be run, however long that takes.
pub(crate) fn full_sweep() -> bool {
    std::env::var("TIDELOG_SWEEP").is_ok_and(|value| value == "full")
}

/// Some of the cases `0..all`, or all of them: every `one_in`-th, and not the same ones for another `turn`.
pub(crate) fn some_of(all: u64, one_in: u64, turn: u64) -> impl Iterator<Item = u64> {
    let step = if full_sweep() { 1 } else { one_in };
    (0..all).filter(move |case| (case + turn).is_multiple_of(step))
}

/// Whoever has no worker decides when something happens.
pub(crate) fn config() -> LogConfig {
    LogConfig::new().background(false)
}

pub(crate) fn open(machine: &Machine) -> EventLog {
    machine.open(config()).unwrap()
}

/// A topic whose segments hold four of the ledger's records.
pub(crate) fn small(durability: Durability) -> TopicConfig {
    TopicConfig::new().durability(durability).segment_bytes(4096)
}

pub(crate) fn name(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// A consumer of one partition, at its beginning, that says where it cannot go on.
pub(crate) fn reader(log: &EventLog, partition: &TopicPartition) -> Consumer {
    let mut reader = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::None)).unwrap();
    reader.assign([partition.clone()]).unwrap();
    reader.seek_to_beginning(&[]).unwrap();
    reader
}

/// The group commits an offset, by somebody who is no member.
pub(crate) fn commit(log: &EventLog, partition: &TopicPartition, offset: u64) -> Result<(), Error> {
    let mut group = log.consumer(ConsumerConfig::group(GROUP).auto_commit(false))?;
    group.assign([partition.clone()])?;
    group.commit_offsets([(partition.clone(), Offset::new(offset))])
}

/// A consumer of the group that has no other place to begin than where the group is.
pub(crate) fn resuming(log: &EventLog, partition: &TopicPartition) -> Consumer {
    let config = ConsumerConfig::group(GROUP).auto_offset_reset(OffsetReset::None).auto_commit(false);
    let mut consumer = log.consumer(config).unwrap();
    consumer.assign([partition.clone()]).unwrap();
    consumer
}

/// What can be read of a partition, by offset, and the offsets that are said to be damaged.
pub(crate) fn read_around_damage(
    log: &EventLog,
    partition: &TopicPartition,
) -> (BTreeMap<u64, Vec<u8>>, Vec<Range<u64>>) {
    let mut reader = reader(log, partition);
    let (mut found, mut damaged) = (BTreeMap::new(), Vec::new());
    loop {
        match reader.poll(NOW) {
            Ok(records) if records.is_empty() => return (found, damaged),
            Ok(records) => {
                for record in &records {
                    let value = record.value().unwrap().to_vec();
                    assert_eq!(
                        found.insert(record.offset().get(), value),
                        None,
                        "{partition}: an offset was read twice"
                    );
                }
            }
            Err(Error::Corrupt(damage)) => {
                assert_eq!(damage.partition.as_ref(), Some(partition));
                let range = damage.offsets.start.get()..damage.offsets.end.get();
                let position = reader.position(partition).unwrap().get();
                assert!(range.end > position, "{partition}: no way on from {position} behind {range:?}");
                reader.seek(partition, damage.offsets.end).unwrap();
                damaged.push(range);
            }
            Err(error) => panic!("{partition}: {error}"),
        }
    }
}

/// One partition as its users know it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// What was accepted, by offset.
    pub(crate) accepted: Vec<Vec<u8>>,
    /// So many of them were promised to survive a power cut.
    pub(crate) promised: usize,
    /// What was committed, in order, and whether the commit returned.
    pub(crate) commits: Vec<(u64, bool)>,
}

/// What the users of a log were told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<TopicPartition, Account>,
    written: u64,
}

/// What is left after a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Everything that was accepted: only the process died.
    Everything,
    /// What was promised, and perhaps more: the machine died.
    ThePromised,
}

impl Ledger {
    /// Sends a record to a partition; what is refused must never be seen.
    pub(crate) fn send(&mut self, log: &EventLog, partition: &TopicPartition) -> Result<tidelog::Delivery, Error> {
        self.send_unless(log, partition, || false)
    }

    /// Sends, and forgets it if by then the machine was dead.
    pub(crate) fn send_unless(
        &mut self,
        log: &EventLog,
        partition: &TopicPartition,
        dead: impl Fn() -> bool,
    ) -> Result<tidelog::Delivery, Error> {
        self.written += 1;
        let mut value = self.written.to_le_bytes().to_vec();
        value.resize(900, self.written as u8);
        let record = ProducerRecord::new(partition.topic(), &value).partition(partition.partition());
        let delivery = log.producer().send(record)?;
        if !dead() {
            let account = self.accounts.entry(partition.clone()).or_default();
            assert_eq!(delivery.offset().get(), account.accepted.len() as u64, "{partition}: not the next offset");
            account.accepted.push(value);
        }
        Ok(delivery)
    }

    /// All that was accepted of the partition counts as promised.
    pub(crate) fn promise_all(&mut self, partition: &TopicPartition) {
        if let Some(account) = self.accounts.get_mut(partition) {
            account.promised = account.accepted.len();
        }
    }

    /// Holds a new life against what was promised in the last, and goes on from what it offers.
    pub(crate) fn check(&mut self, log: &EventLog, left: Left, case: &str) {
        let damage = &log.recovery_report().damage;
        assert!(damage.is_empty(), "{case}: damage where none was done: {damage:?}");
        for (partition, account) in &mut self.accounts {
            let Ok(described) = log.describe_topic(partition.topic()) else {
                panic!("{case}: topic {} is gone", partition.topic());
            };
            let end = described.partitions[partition.partition() as usize].log_end.get() as usize;
            let (found, _) = read_around_damage(log, partition);
            let accepted = account.accepted.len();
            assert!(end <= accepted, "{case}: {partition} has {end} records, of {accepted} that were accepted");
            assert!(left != Left::Everything || end == accepted, "{case}: {partition} kept {end} of {accepted}");
            assert!(end >= account.promised, "{case}: {partition} kept {end}, promised {}", account.promised);
            let found: Vec<_> = found.into_values().collect();
            assert!(found == account.accepted[..end], "{case}: {partition} does not read as it was written");
            account.accepted.truncate(end);
            // What is offered is durable.
            account.promised = end;
        }
        self.check_commits(log, case);
    }

    fn check_commits(&mut self, log: &EventLog, case: &str) {
        let group = log.consumer(ConsumerConfig::group(GROUP)).unwrap();
        for (partition, account) in &mut self.accounts {
            let end = account.accepted.len() as u64;
            let committed = group.committed(partition).unwrap().map(|committed| committed.offset.get());
            let firm = account.commits.iter().rposition(|(_, returned)| *returned);
            let possible = &account.commits[firm.unwrap_or(0)..];
            // A power cut may have taken the records, and then the group with them.
            let fits = |offset: u64| possible.iter().any(|(tried, _)| (*tried).min(end) == offset);
            let kept = committed.map_or(firm.is_none(), fits);
            assert!(kept, "{case}: {partition}: committed is {committed:?}, of {possible:?}, and the end is {end}");
            account.commits = committed.map(|offset| (offset, true)).into_iter().collect();
        }
    }

    /// Holds a log against the ledger in which something was damaged: every record reads as it was written or is
    /// reported, in partitions of `harmed` only, and no offset is given twice. Returns how many were reported.
    pub(crate) fn check_damaged(&self, machine: &Machine, harmed: &[TopicPartition], case: &str) -> u64 {
        let log = machine.open(config()).unwrap_or_else(|error| panic!("{case}: {error}"));
        let reported = self.check_readable(&log, harmed, case);
        let mut added = Vec::new();
        for (partition, account) in &self.accounts {
            let record = ProducerRecord::new(partition.topic(), b"new").partition(partition.partition());
            let offset = log.producer().send(record).unwrap().wait().unwrap().offset().get();
            assert!(offset >= account.accepted.len() as u64, "{case}: {partition}: offset {offset} was given twice");
            added.push((partition, offset));
        }
        // And all of it is so in the next life too.
        let machine = machine.kill();
        drop(log);
        let log = machine.open(config()).unwrap_or_else(|error| panic!("{case}: the second time: {error}"));
        self.check_readable(&log, harmed, case);
        for (partition, offset) in added {
            let (found, _) = read_around_damage(&log, partition);
            assert_eq!(found.get(&offset).map(Vec::as_slice), Some(&b"new"[..]), "{case}: {partition}");
        }
        reported
    }

    fn check_readable(&self, log: &EventLog, harmed: &[TopicPartition], case: &str) -> u64 {
        let mut reported = 0;
        for (partition, account) in &self.accounts {
            let (found, mut damaged) = read_around_damage(log, partition);
            let of_this =
                log.recovery_report().damage.iter().filter(|damage| damage.partition.as_ref() == Some(partition));
            damaged.extend(of_this.map(|damage| damage.offsets.start.get()..damage.offsets.end.get()));
            assert!(
                damaged.is_empty() || harmed.contains(partition),
                "{case}: {partition} was not touched: {damaged:?}"
            );
            for (offset, value) in account.accepted.iter().enumerate() {
                match found.get(&(offset as u64)) {
                    Some(read) => {
                        assert!(read == value, "{case}: {partition}: offset {offset} reads as something else");
                    }
                    None => {
                        let said = damaged.iter().any(|range| range.contains(&(offset as u64)));
                        assert!(said, "{case}: {partition}: offset {offset} is gone and nobody says so: {damaged:?}");
                        reported += 1;
                    }
                }
            }
            let strange: Vec<_> =
                found.range(account.accepted.len() as u64..).filter(|(_, value)| **value != b"new").collect();
            assert!(strange.is_empty(), "{case}: {partition}: nobody wrote {strange:?}");
        }
        reported
    }
}

/// A log with two partitions of a `Sync` topic over several segments and one of an `Os` topic, closed cleanly; and what
/// is in it.
pub(crate) fn closed_log(seed: u64, records: usize) -> (Machine, Ledger) {
    let machine = Machine::new(seed);
    let log = open(&machine);
    let mut ledger = Ledger::default();
    log.create_topic("orders", small(Durability::Sync).partitions(2)).unwrap();
    log.create_topic("clicks", small(Durability::Os)).unwrap();
    for partition in [name("orders", 0), name("orders", 1), name("clicks", 0)] {
        for _ in 0..records {
            ledger.send(&log, &partition).unwrap().wait().unwrap();
        }
        ledger.promise_all(&partition);
    }
    log.close().unwrap();
    (machine.kill(), ledger)
}

/// The files of a partition, the oldest segment first.
pub(crate) fn segments(machine: &Machine, partition: &TopicPartition) -> Vec<std::path::PathBuf> {
    let dir = std::path::Path::new("topics").join(partition.topic()).join(partition.partition().to_string());
    machine
        .files()
        .into_iter()
        .filter(|path| path.starts_with(&dir) && path.extension().is_some_and(|e| e == "log"))
        .collect()
}
