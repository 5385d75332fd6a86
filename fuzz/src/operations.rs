//! The log against a plain model: steps, killed and cut at random, at every level of durability.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog::sim::{Machine, PowerCut};
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, Producer, ProducerRecord,
    TopicConfig, TopicPartition,
};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";

/// What is done to the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Send { partition: u32, bytes: usize },
    SendBatch { partition: u32, count: usize },
    Wait,
    Flush,
    Poll,
    Commit,
    CommitAt { partition: u32, back: u64 },
    Maintain { millis: u64 },
    NewConsumer,
    AddPartition,
    Reopen,
    Kill,
    PowerCut(usize),
}

/// So many steps at the most: a longer run says nothing new, slowly.
const MOST_STEPS: usize = 60;

/// Three bytes say what the world is like, then there are steps of one to three bytes.
pub fn operations(input: &[u8]) {
    let Some((&[seed, durability, segment_bytes], mut rest)) = input.split_first_chunk() else { return };
    let durability = DURABILITIES[usize::from(durability) % DURABILITIES.len()];
    let segment_bytes = [4096, 8192, 65536][usize::from(segment_bytes) % 3];
    let mut world = World::new(u64::from(seed), durability, segment_bytes);
    for _ in 0..MOST_STEPS {
        let Some((step, behind)) = Step::read(rest) else { break };
        rest = behind;
        world.take(&step);
    }
    world.check();
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
            // The first number from 13 on with this remainder.
            Step::PowerCut(how) => out.push((18 + how) as u8),
        }
    }
}

/// What a partition must hold: all of `sent`, of which a power cut may take no more than what lies behind `durable`.
#[derive(Debug, Default)]
struct Model {
    sent: Vec<Vec<u8>>,
    durable: u64,
    seen: u64,
    committed: Option<u64>,
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
}

fn name(partition: u32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

impl World {
    pub fn new(seed: u64, durability: Durability, segment_bytes: u32) -> Self {
        let machine = Machine::new(seed);
        let log = machine.open(LogConfig::new().background(false)).unwrap();
        let config = TopicConfig::new().partitions(2).durability(durability).segment_bytes(segment_bytes);
        log.create_topic(TOPIC, config).unwrap();
        let partitions = [(0, Model::default()), (1, Model::default())].into();
        let mut world =
            World { machine, log: None, producer: None, consumer: None, durability, partitions, written: 0 };
        world.adopt(log);
        world
    }

    fn adopt(&mut self, log: EventLog) {
        self.producer = Some(log.producer());
        self.log = Some(log);
        self.join();
    }

    fn join(&mut self) {
        let config = ConsumerConfig::group(GROUP)
            .auto_offset_reset(OffsetReset::Earliest)
            .auto_commit(false)
            .max_poll_records(7);
        let mut consumer = self.log().consumer(config).unwrap();
        consumer.subscribe([TOPIC]).unwrap();
        self.consumer = Some(consumer);
    }

    fn log(&self) -> &EventLog {
        self.log.as_ref().unwrap()
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
        match *step {
            Step::Send { partition, bytes } => {
                let value = self.value(bytes);
                let producer = self.producer.as_ref().unwrap();
                let delivery = producer.send(ProducerRecord::new(TOPIC, &value).partition(partition)).unwrap();
                let model = self.partitions.get_mut(&partition).unwrap();
                assert_eq!(delivery.offset().get(), model.sent.len() as u64);
                model.sent.push(value);
            }
            Step::SendBatch { partition, count } => {
                let values: Vec<_> = (0..count).map(|_| self.value(100)).collect();
                let records = values.iter().map(|value| ProducerRecord::new(TOPIC, value).partition(partition));
                let sent = self.producer.as_ref().unwrap().send_batch(records).unwrap();
                assert_eq!(sent.len(), count);
                self.partitions.get_mut(&partition).unwrap().sent.extend(values);
            }
            Step::Wait => {
                let value = self.value(8);
                let delivery = self.producer.as_ref().unwrap().send(ProducerRecord::new(TOPIC, &value).partition(0));
                let metadata = delivery.unwrap().wait().unwrap();
                let model = self.partitions.get_mut(&0).unwrap();
                model.sent.push(value);
                self.note_delivered(0, metadata.offset().get() + 1);
            }
            Step::Flush => {
                self.producer.as_ref().unwrap().flush().unwrap();
                let ends: Vec<_> = self.partitions.iter().map(|(number, model)| (*number, model.sent.len())).collect();
                for (number, end) in ends {
                    self.note_delivered(number, end as u64);
                }
            }
            Step::Poll => self.poll(),
            Step::Commit => {
                let consumer = self.consumer.as_mut().unwrap();
                let assigned = consumer.assignment();
                if assigned.is_empty() {
                    // It has not joined yet, so it cannot commit.
                    assert!(matches!(consumer.commit(), Err(Error::CommitFailed { .. }) | Ok(())));
                }
                for name in &assigned {
                    // Without a position yet, asking for it finds it out.
                    let position = consumer.position(name).unwrap();
                    self.partitions.get_mut(&name.partition()).unwrap().committed = Some(position.get());
                }
                if !assigned.is_empty() {
                    consumer.commit().unwrap();
                }
            }
            Step::CommitAt { partition, back } => {
                let model = self.partitions.get_mut(&partition).unwrap();
                let offset = (model.sent.len() as u64).saturating_sub(back);
                // As somebody from outside, who may commit as long as the group has no members.
                let config = ConsumerConfig::group(GROUP).auto_commit(false);
                let mut outsider = self.log.as_ref().unwrap().consumer(config).unwrap();
                outsider.assign([name(partition)]).unwrap();
                let done = outsider.commit_offsets([(name(partition), Offset::new(offset))]);
                let group = self.log.as_ref().unwrap().describe_group(GROUP);
                if group.is_ok_and(|group| !group.members.is_empty()) {
                    assert!(matches!(done, Err(Error::CommitFailed { .. })), "{done:?}");
                } else {
                    done.unwrap();
                    model.committed = Some(offset);
                }
            }
            Step::Maintain { millis } => {
                self.machine.advance(Duration::from_millis(millis));
                self.log().maintain();
            }
            Step::NewConsumer => {
                self.consumer = None;
                self.join();
            }
            Step::AddPartition => {
                let total = self.partitions.len() as u32 + 1;
                if total <= 4 {
                    self.log().add_partitions(TOPIC, total).unwrap();
                    self.partitions.insert(total - 1, Model::default());
                }
            }
            Step::Reopen => {
                self.leave();
                let log = self.machine.open(LogConfig::new().background(false)).unwrap();
                assert_eq!(log.recovery_report().bytes_cut, 0);
                self.found(log, true);
            }
            Step::Kill => {
                self.machine = self.machine.kill();
                self.leave();
                let log = self.machine.open(LogConfig::new().background(false)).unwrap();
                self.found(log, true);
            }
            Step::PowerCut(how) => {
                self.note_durable();
                self.machine = self.machine.power_cut(PowerCut::ALL[how]);
                self.leave();
                let log = self.machine.open(LogConfig::new().background(false)).unwrap();
                self.found(log, false);
            }
        }
    }

    fn note_delivered(&mut self, partition: u32, end: u64) {
        self.note_durable();
        if self.durability == Durability::Sync {
            assert!(self.partitions[&partition].durable >= end, "delivered, and not durable");
        }
    }

    /// What the log says of how much is durable now.
    fn note_durable(&mut self) {
        for partition in self.log().describe_topic(TOPIC).unwrap().partitions {
            let model = self.partitions.get_mut(&partition.partition).unwrap();
            assert_eq!(partition.log_end.get(), model.sent.len() as u64);
            assert!(partition.durable_end.get() >= model.durable, "the durable end moved back");
            model.durable = partition.durable_end.get();
        }
    }

    fn poll(&mut self) {
        let records = self.consumer.as_mut().unwrap().poll(Duration::ZERO).unwrap();
        assert!(records.len() <= 7);
        self.note_durable();
        for record in &records {
            let model = self.partitions.get_mut(&record.partition()).unwrap();
            assert_eq!(record.value().unwrap(), model.sent[record.offset().get() as usize]);
            if self.durability == Durability::Sync {
                assert!(record.offset().get() < model.durable, "seen, and not durable");
            }
            model.seen = model.seen.max(record.offset().get() + 1);
        }
    }

    /// Holds what a new life offers against what the old one promised.
    fn found(&mut self, log: EventLog, everything: bool) {
        let report = log.recovery_report();
        assert!(report.damage.is_empty() && report.unknown.is_empty(), "{report:?}");
        let mut pulled_back = 0;
        for partition in log.describe_topic(TOPIC).unwrap().partitions {
            let model = self.partitions.get_mut(&partition.partition).unwrap();
            let found = partition.log_end.get();
            assert!(!everything || found == model.sent.len() as u64, "the death of the process took something");
            assert!(found >= model.durable, "durable records are gone: {found} of {}", model.durable);
            assert!(found <= model.sent.len() as u64, "more than was sent");
            model.sent.truncate(found as usize);
            // What is offered is durable.
            model.durable = found;
            assert_eq!(partition.durable_end.get(), found);
            model.seen = model.seen.min(found);
            if model.committed.is_some_and(|committed| committed > found) {
                model.committed = Some(found);
                pulled_back += 1;
            }
        }
        assert_eq!(report.pulled_back.len(), pulled_back, "{report:?}");
        self.adopt(log);
        self.check();
    }

    /// All records and all committed offsets are what the model says.
    pub fn check(&self) {
        let mut reader = self.log().consumer(ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest)).unwrap();
        let outsider = self.log().consumer(ConsumerConfig::group(GROUP)).unwrap();
        self.producer.as_ref().unwrap().flush().unwrap();
        for (number, model) in &self.partitions {
            reader.assign([name(*number)]).unwrap();
            reader.seek_to_beginning(&[]).unwrap();
            let mut found = Vec::new();
            loop {
                let records = reader.poll(Duration::ZERO).unwrap();
                if records.is_empty() {
                    break;
                }
                found.extend(records.iter().map(|record| record.value().unwrap().to_vec()));
            }
            assert!(
                found == model.sent,
                "partition {number}: {} records found, {} sent",
                found.len(),
                model.sent.len()
            );
            let committed = outsider.committed(&name(*number)).unwrap().map(|committed| committed.offset.get());
            assert_eq!(committed, model.committed, "partition {number}");
        }
    }
}
