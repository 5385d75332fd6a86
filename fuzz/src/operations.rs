//! The log against a plain model: steps, killed and cut at random, at every level of durability, on a disk whose calls fail
//! and in which the machine dies in the middle of a call.
//!
//! A call that fails because the disk did leaves in doubt whether what it was to do is done. The process is started again
//! then, and must find all that was accepted before, and of what is in doubt nothing or a beginning.
//!
//! Where the topic is compacted a record may be missing of whose key there is a later one, or was when a tail was cut off. A
//! copy of the log holds in the end what the log held when it was made, whatever has become of that since.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidelog::sim::{Failure, Fault, Machine, Operation, PowerCut};
use tidelog::{
    CleanupPolicy, Consumer, ConsumerConfig, Durability, Error, EventLog, GroupsBeyond, LogConfig, Offset, OffsetReset,
    Producer, ProducerRecord, RecoveryReport, Result, TopicConfig, TopicPartition,
};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
/// Where a copy of the log is made, below it on the simulated disk.
const COPY: &str = "/simulated/copy";
/// So many keys there are: few, so that most records are superseded soon.
const KEYS: u8 = 5;

/// What is done to the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Send {
        partition: u32,
        bytes: usize,
    },
    SendBatch {
        partition: u32,
        count: usize,
    },
    Wait,
    Flush,
    Poll,
    Commit,
    CommitAt {
        partition: u32,
        back: u64,
    },
    Maintain {
        millis: u64,
    },
    NewConsumer,
    AddPartition,
    Reopen,
    Kill,
    PowerCut(usize),
    /// The call number `at` from now of this kind fails; see [`fault`].
    Fail {
        kind: u8,
        at: u64,
    },
    /// The machine dies within the call number `at` from now. `how`: what is left, as by a power cut or, behind those, a kill.
    Die {
        at: u64,
        how: usize,
    },
    /// The kernel loses a page that it writes back unasked.
    LosePage {
        partition: u32,
    },
    /// So many records are cut off the end.
    Truncate {
        partition: u32,
        back: u64,
    },
    /// A fork or a backup is made, once.
    Copy {
        fork: bool,
    },
    Compact {
        partition: u32,
    },
}

/// The calls that fail.
const OPERATIONS: [Operation; 8] = [
    Operation::Sync,
    Operation::SyncDir,
    Operation::Allocate,
    Operation::Create,
    Operation::Rename,
    Operation::Map,
    Operation::Open,
    Operation::List,
];

/// The lowest three bits say what fails, one how, and one whether a sync that fails loses pages.
fn fault(kind: u8, at: u64) -> Fault {
    let fault = Fault::new(OPERATIONS[usize::from(kind) % OPERATIONS.len()], at);
    let fault = if kind & 8 == 0 { fault } else { fault.failure(Failure::Kind(std::io::ErrorKind::StorageFull)) };
    if kind & 16 == 0 { fault } else { fault.losing_pages() }
}

/// So many steps at the most: a longer run says nothing new, slowly.
const MOST_STEPS: usize = 60;

/// Three bytes say what the world is like, then there are steps of one to three bytes.
pub fn operations(input: &[u8]) {
    let Some((&[seed, durability, segment_bytes], mut rest)) = input.split_first_chunk() else { return };
    let durability = DURABILITIES[usize::from(durability) % DURABILITIES.len()];
    let compacts = segment_bytes / 3 % 2 == 1;
    let segment_bytes = [4096, 8192, 65536][usize::from(segment_bytes) % 3];
    let mut world = World::new(u64::from(seed), durability, segment_bytes, compacts);
    for _ in 0..MOST_STEPS {
        let Some((step, behind)) = Step::read(rest) else { break };
        rest = behind;
        world.take(&step);
    }
    world.finish();
}

/// All levels.
pub const DURABILITIES: [Durability; 3] =
    [Durability::Sync, Durability::Interval { every: Duration::from_millis(50), bytes: 3000 }, Durability::Os];

impl Step {
    /// The step that these bytes begin with, and what is behind it.
    fn read(input: &[u8]) -> Option<(Step, &[u8])> {
        let (kind, rest) = input.split_first()?;
        let (low, high) = (rest.first().copied().unwrap_or(0), rest.get(1).copied().unwrap_or(0));
        let partition = u32::from(kind >> 7);
        let (step, used) = match kind & 0x7f {
            // Mostly of one size, so that a batch of the past can line up with one of today.
            0 => (Step::Send { partition, bytes: 460 }, 0),
            1 => (Step::Send { partition, bytes: usize::from(u16::from_le_bytes([low, high])) % 3500 }, 2),
            2 => (Step::SendBatch { partition, count: 1 + usize::from(low) % 6 }, 1),
            3 => (Step::Wait, 0),
            4 => (Step::Flush, 0),
            5 => (Step::Poll, 0),
            6 => (Step::Commit, 0),
            7 => (Step::CommitAt { partition, back: u64::from(low) % 9 }, 1),
            8 => (Step::Maintain { millis: u64::from(low) }, 1),
            9 => (Step::NewConsumer, 0),
            10 => (Step::AddPartition, 0),
            11 => (Step::Reopen, 0),
            12 => (Step::Kill, 0),
            13 => (Step::Fail { kind: low, at: u64::from(high) % 16 }, 2),
            14 => (Step::Die { at: u64::from(low) % 64, how: usize::from(high) % (PowerCut::ALL.len() + 1) }, 2),
            15 => (Step::LosePage { partition }, 0),
            16 => (Step::Truncate { partition, back: u64::from(low) % 24 }, 1),
            17 => (Step::Copy { fork: low & 1 == 0 }, 1),
            120 => (Step::Compact { partition }, 0),
            _ => (Step::PowerCut(usize::from(*kind) % PowerCut::ALL.len()), 0),
        };
        Some((step, &rest[used.min(rest.len())..]))
    }

    /// The bytes that [`read`](Self::read) makes this step of, for seeds.
    pub fn write(&self, out: &mut Vec<u8>) {
        let with = |kind: u8, partition: u32| kind | (partition as u8) << 7;
        match *self {
            Step::Send { partition, bytes: 460 } => out.push(with(0, partition)),
            Step::Send { partition, bytes } => {
                out.push(with(1, partition));
                out.extend((bytes as u16).to_le_bytes());
            }
            Step::SendBatch { partition, count } => out.extend([with(2, partition), count as u8 - 1]),
            Step::Wait => out.push(3),
            Step::Flush => out.push(4),
            Step::Poll => out.push(5),
            Step::Commit => out.push(6),
            Step::CommitAt { partition, back } => out.extend([with(7, partition), back as u8]),
            Step::Maintain { millis } => out.extend([8, millis as u8]),
            Step::NewConsumer => out.push(9),
            Step::AddPartition => out.push(10),
            Step::Reopen => out.push(11),
            Step::Kill => out.push(12),
            // The first number from 16 on with this remainder.
            Step::PowerCut(how) => out.push((18 + how) as u8),
            Step::Fail { kind, at } => out.extend([13, kind, at as u8]),
            Step::Die { at, how } => out.extend([14, at as u8, how as u8]),
            Step::LosePage { partition } => out.push(with(15, partition)),
            Step::Truncate { partition, back } => out.extend([with(16, partition), back as u8]),
            Step::Copy { fork } => out.extend([17, u8::from(!fork)]),
            Step::Compact { partition } => out.push(with(120, partition)),
        }
    }
}

/// What a partition must hold: all of `sent`, of which a power cut may take no more than what lies behind `durable`.
#[derive(Debug, Default)]
struct Model {
    sent: Vec<Vec<u8>>,
    /// What a call was to send that failed: what is there of it comes behind what was sent.
    in_doubt: Vec<Vec<u8>>,
    durable: u64,
    committed: Option<u64>,
    /// What a commit was to commit that failed.
    commit_in_doubt: Option<u64>,
    /// Where a call was to cut that failed.
    cut_in_doubt: Option<u64>,
    /// Offsets of whose keys there was a later record, which has been cut off since.
    superseded: BTreeSet<u64>,
}

/// The key of a record with this value.
fn key_of(value: &[u8]) -> [u8; 1] {
    [value[0] % KEYS]
}

impl Model {
    /// Cuts off what lies at `end` and behind.
    fn cut(&mut self, end: u64) {
        let superseded: Vec<u64> = (0..end).filter(|offset| self.is_superseded(*offset)).collect();
        self.superseded = superseded.into_iter().collect();
        if (end as usize) < self.sent.len() {
            // What stays is made durable first.
            self.durable = end;
        }
        self.sent.truncate(end as usize);
        self.committed = self.committed.map(|committed| committed.min(end));
    }

    fn is_superseded(&self, offset: u64) -> bool {
        let key = key_of(&self.sent[offset as usize]);
        let later = &self.sent[offset as usize + 1..];
        self.superseded.contains(&offset) || later.iter().any(|value| key_of(value) == key)
    }
}

/// What somebody reads of a log: records by offset, and what is committed, by partition.
type Contents = BTreeMap<u32, (Vec<(u64, Vec<u8>)>, Option<u64>)>;

fn contents(log: &EventLog, partitions: impl IntoIterator<Item = u32>) -> Result<Contents> {
    let mut reader = log.consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest))?;
    let outsider = log.consumer(ConsumerConfig::group(GROUP))?;
    let mut contents = Contents::new();
    for number in partitions {
        reader.assign([name(number)])?;
        reader.seek_to_beginning(&[])?;
        let mut found = Vec::new();
        loop {
            let records = reader.poll(Duration::ZERO)?;
            if records.is_empty() {
                break;
            }
            found.extend(records.iter().map(|record| (record.offset().get(), record.value().unwrap().to_vec())));
        }
        let committed = outsider.committed(&name(number))?.map(|committed| committed.offset.get());
        contents.insert(number, (found, committed));
    }
    Ok(contents)
}

/// A log, its consumer, and what must be true of them.
pub struct World {
    machine: Machine,
    log: Option<EventLog>,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    durability: Durability,
    partitions: BTreeMap<u32, Model>,
    written: u64,
    /// Whether calls may fail in this life.
    trouble: bool,
    /// Whether pages were lost since the machine was started.
    pages_lost: bool,
    /// What is left if the machine dies within a call; `None`: everything, it is the process alone.
    death: Option<PowerCut>,
    /// Whether the topic is compacted.
    compacts: bool,
    /// What a copy holds that was made.
    copied: Option<Contents>,
}

fn name(partition: u32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

fn config() -> LogConfig {
    LogConfig::new().background(false)
}

impl World {
    pub fn new(seed: u64, durability: Durability, segment_bytes: u32, compacts: bool) -> Self {
        let machine = Machine::new(seed);
        let log = machine.open(config()).unwrap();
        let topic = TopicConfig::new().partitions(2).durability(durability).segment_bytes(segment_bytes);
        let policy = if compacts { CleanupPolicy::Compact } else { CleanupPolicy::Delete };
        let topic = topic.cleanup_policy(policy);
        log.create_topic(TOPIC, topic).unwrap();
        let mut world = World {
            machine,
            log: Some(log),
            producer: None,
            consumer: None,
            durability,
            partitions: [(0, Model::default()), (1, Model::default())].into(),
            written: 0,
            trouble: false,
            pages_lost: false,
            death: None,
            compacts,
            copied: None,
        };
        world.begin().unwrap();
        world
    }

    /// What a process does with the log that it has opened.
    fn begin(&mut self) -> Result<()> {
        self.producer = Some(self.log().producer());
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let config = ConsumerConfig::group(GROUP)
            .auto_offset_reset(OffsetReset::Earliest)
            .auto_commit(false)
            .max_poll_records(7);
        let mut consumer = self.log().consumer(config)?;
        consumer.subscribe([TOPIC])?;
        self.consumer = Some(consumer);
        Ok(())
    }

    fn log(&self) -> &EventLog {
        self.log.as_ref().unwrap()
    }

    fn model(&mut self, partition: u32) -> &mut Model {
        self.partitions.get_mut(&partition).unwrap()
    }

    /// Lets go of everything that the process had, without closing it any better than the drop does.
    fn leave(&mut self) {
        self.consumer = None;
        self.producer = None;
        self.log = None;
    }

    fn value(&mut self, bytes: usize) -> Vec<u8> {
        self.written += 1;
        let mut value = self.written.to_le_bytes().to_vec();
        value.resize(bytes.max(8), self.written as u8);
        value
    }

    pub fn take(&mut self, step: &Step) {
        let done = self.attempt(step);
        if let Err(error) = &done {
            assert!(self.trouble, "{step:?}: {error}");
        }
        if done.is_err() {
            // It gives up, which may be when the machine dies.
            self.leave();
        }
        match self.death {
            Some(how) if self.machine.has_crashed() => {
                self.cut(how);
                self.start_again(false);
            }
            _ if self.machine.has_crashed() || done.is_err() => {
                // What was accepted is still in memory.
                self.machine = self.machine.kill();
                self.start_again(true);
            }
            _ => {}
        }
    }

    fn cut(&mut self, how: PowerCut) {
        self.machine = self.machine.power_cut(how);
        self.pages_lost = false;
    }

    fn attempt(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Send { partition, bytes } => {
                let value = self.value(bytes);
                self.send(partition, &[value])
            }
            Step::SendBatch { partition, count } => {
                let values: Vec<_> = (0..count).map(|_| self.value(100)).collect();
                self.send(partition, &values)
            }
            Step::Wait => {
                let value = self.value(8);
                self.model(0).in_doubt = vec![value.clone()];
                let key = key_of(&value);
                let record = ProducerRecord::new(TOPIC, &value).key(&key).partition(0);
                let delivery = self.producer.as_ref().unwrap().send(record)?;
                self.accepted(0);
                let metadata = delivery.wait()?;
                self.note_delivered(0, metadata.offset().get() + 1)
            }
            Step::Flush => {
                self.producer.as_ref().unwrap().flush()?;
                self.note_durable()?;
                let is_durable = |model: &Model| model.durable == model.sent.len() as u64;
                let sync = self.durability == Durability::Sync;
                assert!(!sync || self.partitions.values().all(is_durable), "flushed, and not durable");
                Ok(())
            }
            Step::Poll => self.poll(),
            Step::Commit => self.commit(),
            Step::CommitAt { partition, back } => self.commit_at(partition, back),
            Step::Maintain { millis } => {
                self.machine.advance(Duration::from_millis(millis));
                self.log().maintain();
                Ok(())
            }
            Step::NewConsumer => {
                self.consumer = None;
                self.join()
            }
            Step::AddPartition => {
                let total = self.partitions.len() as u32 + 1;
                if total <= 4 {
                    self.log().add_partitions(TOPIC, total)?;
                    self.partitions.insert(total - 1, Model::default());
                }
                Ok(())
            }
            Step::Reopen => {
                self.leave();
                let log = self.machine.open(config())?;
                let (cut, trouble) = (log.recovery_report().bytes_cut, self.trouble);
                assert!(cut == 0 || trouble, "it was closed, and {cut} bytes were torn");
                self.log = Some(log);
                self.found(true)
            }
            Step::Kill => {
                self.machine = self.machine.kill();
                self.start_again(true);
                Ok(())
            }
            Step::PowerCut(how) => {
                self.note_durable()?;
                self.cut(PowerCut::ALL[how]);
                self.start_again(false);
                Ok(())
            }
            Step::Fail { kind, at } => {
                self.trouble = true;
                self.machine.fail(fault(kind, at));
                Ok(())
            }
            Step::Die { at, how } => {
                self.trouble = true;
                self.death = PowerCut::ALL.get(how).copied();
                self.machine.crash_at(self.machine.operations() + at);
                Ok(())
            }
            Step::LosePage { partition } => {
                let dir = format!("topics/{TOPIC}/{partition}");
                if let Some(newest) = self.machine.files().into_iter().rfind(|path| path.starts_with(&dir)) {
                    self.pages_lost |= self.machine.lose_in_write_back(newest);
                    self.trouble |= self.pages_lost;
                }
                Ok(())
            }
            Step::Truncate { partition, back } => self.truncate(partition, back),
            Step::Copy { fork } => self.copy(fork),
            Step::Compact { partition } if self.compacts => {
                self.log().compact(&name(partition), |_| {})?;
                self.check()
            }
            Step::Compact { .. } => Ok(()),
        }
    }

    fn truncate(&mut self, partition: u32, back: u64) -> Result<()> {
        let end = (self.partitions[&partition].sent.len() as u64).saturating_sub(back);
        self.model(partition).cut_in_doubt = Some(end);
        match self.log().truncate(&name(partition), end, GroupsBeyond::PullBack) {
            // It lies within a batch.
            Err(Error::InvalidState { .. }) => {
                self.model(partition).cut_in_doubt = None;
                return Ok(());
            }
            done => drop(done?),
        }
        let model = self.model(partition);
        if let Some(end) = model.cut_in_doubt.take() {
            model.cut(end);
        }
        // Where it was beyond, it goes on at the cut; here it begins anew, from what is committed.
        self.consumer = None;
        self.join()?;
        self.check()
    }

    fn copy(&mut self, fork: bool) -> Result<()> {
        if self.copied.is_some() || self.machine.files().iter().any(|path| path.starts_with("copy")) {
            return Ok(());
        }
        self.check()?;
        let held = contents(self.log(), self.partitions.keys().copied())?;
        let log = self.log();
        drop(if fork { log.fork(COPY)? } else { log.backup(COPY, None, |_| {})? });
        self.copied = Some(held);
        Ok(())
    }

    /// The copy is sound, and holds what it did when it was made.
    fn check_copy(&self) {
        let Some(held) = self.copied.as_ref().filter(|_| !self.trouble) else { return };
        assert_eq!(self.machine.verify_copy(COPY).unwrap().findings, []);
        let copy = self.machine.open_copy(COPY, config()).unwrap();
        assert!(copy.recovery_report().is_clean(), "{:?}", copy.recovery_report());
        assert_eq!(copy.describe_topic(TOPIC).unwrap().partitions.len(), held.len());
        assert!(contents(&copy, held.keys().copied()).unwrap() == *held, "the copy is not what the log was");
    }

    fn send(&mut self, partition: u32, values: &[Vec<u8>]) -> Result<()> {
        let model = self.model(partition);
        let at = model.sent.len() as u64;
        model.in_doubt = values.to_vec();
        let keys: Vec<_> = values.iter().map(|value| key_of(value)).collect();
        let record = |(value, key)| ProducerRecord::new(TOPIC, value).key(key).partition(partition);
        let mut records = values.iter().zip(&keys).map(record);
        let producer = self.producer.as_ref().unwrap();
        if values.len() == 1 {
            assert_eq!(producer.send(records.next().unwrap())?.offset().get(), at);
        } else {
            assert_eq!(producer.send_batch(records)?.len(), values.len());
        }
        self.accepted(partition);
        Ok(())
    }

    /// What was in doubt is not any more.
    fn accepted(&mut self, partition: u32) {
        let model = self.model(partition);
        let values = std::mem::take(&mut model.in_doubt);
        model.sent.extend(values);
    }

    fn commit(&mut self) -> Result<()> {
        let consumer = self.consumer.as_mut().unwrap();
        let assigned = consumer.assignment();
        if assigned.is_empty() {
            // It has not joined yet, so it cannot commit.
            return match consumer.commit() {
                Err(Error::CommitFailed { .. }) => Ok(()),
                done => done,
            };
        }
        for name in &assigned {
            // Without a position yet, asking for it finds it out.
            let position = self.consumer.as_mut().unwrap().position(name)?;
            self.model(name.partition()).commit_in_doubt = Some(position.get());
        }
        self.consumer.as_mut().unwrap().commit()?;
        self.committed();
        Ok(())
    }

    /// As somebody from outside, who may commit as long as the group has no members.
    fn commit_at(&mut self, partition: u32, back: u64) -> Result<()> {
        let offset = (self.partitions[&partition].sent.len() as u64).saturating_sub(back);
        let mut outsider = self.log().consumer(ConsumerConfig::group(GROUP).auto_commit(false))?;
        outsider.assign([name(partition)])?;
        self.model(partition).commit_in_doubt = Some(offset);
        let done = outsider.commit_offsets([(name(partition), Offset::new(offset))]);
        let group = self.log().describe_group(GROUP);
        if group.is_ok_and(|group| !group.members.is_empty()) && !self.trouble {
            assert!(matches!(done, Err(Error::CommitFailed { .. })), "{done:?}");
        }
        match done {
            Err(Error::CommitFailed { .. }) => self.model(partition).commit_in_doubt = None,
            done => {
                done?;
                self.committed();
            }
        }
        Ok(())
    }

    /// What was in doubt is not any more.
    fn committed(&mut self) {
        for model in self.partitions.values_mut() {
            model.committed = model.commit_in_doubt.take().or(model.committed);
        }
    }

    fn note_delivered(&mut self, partition: u32, end: u64) -> Result<()> {
        self.note_durable()?;
        if self.durability == Durability::Sync {
            assert!(self.partitions[&partition].durable >= end, "delivered, and not durable");
        }
        Ok(())
    }

    /// What the log says of how much is durable now.
    fn note_durable(&mut self) -> Result<()> {
        for partition in self.log().describe_topic(TOPIC)?.partitions {
            let Some(model) = self.partitions.get_mut(&partition.partition) else { continue };
            assert_eq!(partition.log_end.get(), model.sent.len() as u64);
            assert!(partition.durable_end.get() >= model.durable, "the durable end moved back");
            model.durable = partition.durable_end.get();
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<()> {
        let records = self.consumer.as_mut().unwrap().poll(Duration::ZERO)?;
        assert!(records.len() <= 7);
        if !records.is_empty() {
            self.note_durable()?;
        }
        for record in &records {
            let model = &self.partitions[&record.partition()];
            assert_eq!(record.value().unwrap(), model.sent[record.offset().get() as usize]);
            if self.durability == Durability::Sync {
                assert!(record.offset().get() < model.durable, "seen, and not durable");
            }
        }
        Ok(())
    }

    /// The next process, on a disk that is well again. `everything`: what was accepted in the one before is all there.
    fn start_again(&mut self, mut everything: bool) {
        self.death = None;
        // The kernel tells the next sync of each file of pages that it has lost, whoever asks.
        for _ in 0..=MOST_STEPS {
            self.leave();
            match self.machine.open(config()).and_then(|log| self.go_on(log, everything)) {
                Ok(()) => {
                    self.trouble = self.pages_lost;
                    return;
                }
                Err(error) => assert!(self.pages_lost, "{error}"),
            }
            everything = true;
        }
        panic!("it is told of lost pages again and again");
    }

    fn go_on(&mut self, log: EventLog, everything: bool) -> Result<()> {
        self.log = Some(log);
        self.found(everything)
    }

    /// Holds what a new life offers against what the old one promised.
    fn found(&mut self, everything: bool) -> Result<()> {
        let report = self.log().recovery_report().clone();
        assert!(report.damage.is_empty() && report.unknown.is_empty(), "{report:?}");
        let partitions = self.log().describe_topic(TOPIC)?.partitions;
        let (were, mut pulled_back_or_not) = (self.partitions.len(), false);
        // One may have been added by a call that failed.
        assert!((were..=were + 1).contains(&partitions.len()), "{} partitions of {were}", partitions.len());
        for partition in partitions {
            let model = self.partitions.entry(partition.partition).or_default();
            let found = partition.log_end.get();
            if let Some(end) = model.cut_in_doubt.take().filter(|end| *end == found) {
                // Groups are pulled back by now, whoever did it.
                pulled_back_or_not |= model.committed > Some(end);
                let committed = model.committed;
                model.cut(end);
                model.commit_in_doubt = committed;
            }
            let accepted = model.sent.len() as u64;
            let in_doubt = std::mem::take(&mut model.in_doubt);
            assert!(!everything || found >= accepted, "the death of the process took {found}..{accepted}");
            assert!(found >= model.durable, "durable records are gone: {found} of {}", model.durable);
            assert!(found <= accepted + in_doubt.len() as u64, "more than was sent");
            model.sent.extend(in_doubt);
            model.sent.truncate(found as usize);
            // What is offered is durable.
            model.durable = found;
            assert_eq!(partition.durable_end.get(), found);
        }
        self.found_committed(&report, !pulled_back_or_not)?;
        self.begin()?;
        self.check()
    }

    /// What is committed is what was, or was to be, and nothing that is not there.
    fn found_committed(&mut self, report: &RecoveryReport, mut sure: bool) -> Result<()> {
        let outsider = self.log().consumer(ConsumerConfig::group(GROUP))?;
        let mut pulled_back = 0;
        for (number, model) in &mut self.partitions {
            let found = outsider.committed(&name(*number))?.map(|committed| committed.offset.get());
            let (end, in_doubt) = (model.sent.len() as u64, model.commit_in_doubt.take());
            let kept = |offset: Option<u64>| found == offset.map(|offset| offset.min(end));
            let is_kept = kept(model.committed) || in_doubt.is_some() && kept(in_doubt);
            assert!(is_kept, "partition {number}: {found:?}, and not {:?} or {in_doubt:?}", model.committed);
            pulled_back += usize::from(model.committed > found);
            sure &= in_doubt.is_none();
            model.committed = found;
        }
        assert!(!sure || report.pulled_back.len() == pulled_back, "{report:?}");
        Ok(())
    }

    /// What the log holds in the end.
    pub fn finish(mut self) {
        if self.trouble {
            self.machine = self.machine.kill();
            self.start_again(true);
        }
        self.check().unwrap();
        self.check_copy();
    }

    /// All records and all committed offsets are what the model says.
    fn check(&self) -> Result<()> {
        self.producer.as_ref().unwrap().flush()?;
        let held = contents(self.log(), self.partitions.keys().copied())?;
        for (number, model) in &self.partitions {
            let (found, committed) = &held[number];
            let mut rest = found.iter().peekable();
            for (offset, value) in (0..).zip(&model.sent) {
                match rest.next_if(|(found, _)| *found == offset) {
                    Some((_, found)) => assert!(found == value, "partition {number}: {offset} is not what was sent"),
                    None => {
                        let may_be_gone = self.compacts && model.is_superseded(offset);
                        assert!(may_be_gone, "partition {number}: {offset} of {} is gone", model.sent.len());
                    }
                }
            }
            assert_eq!(rest.next(), None, "partition {number}: more than was sent");
            assert_eq!(*committed, model.committed, "partition {number}");
        }
        Ok(())
    }
}
