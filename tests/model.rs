//! The log against a plain model: random steps, killed and cut at random, at every level of durability.
//!
//! `PROPTEST_CASES=20000 cargo test --release --all-features --test model` runs as many cases as one likes.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tidelog::sim::{Machine, PowerCut};
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, Producer, ProducerRecord,
    TopicConfig, TopicPartition,
};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";

#[derive(Clone, Debug)]
enum Step {
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

fn step() -> impl Strategy<Value = Step> {
    let partition = || 0..2u32;
    prop_oneof![
        // Mostly of one size, so that a batch of the past can line up with one of today.
        12 => partition().prop_map(|partition| Step::Send { partition, bytes: 460 }),
        4 => (partition(), 0..1500usize).prop_map(|(partition, bytes)| Step::Send { partition, bytes }),
        3 => (partition(), 1..6usize).prop_map(|(partition, count)| Step::SendBatch { partition, count }),
        2 => Just(Step::Wait),
        2 => Just(Step::Flush),
        3 => Just(Step::Poll),
        2 => Just(Step::Commit),
        1 => (partition(), 0..9u64).prop_map(|(partition, back)| Step::CommitAt { partition, back }),
        2 => (0..200u64).prop_map(|millis| Step::Maintain { millis }),
        1 => Just(Step::NewConsumer),
        1 => Just(Step::AddPartition),
        1 => Just(Step::Reopen),
        2 => Just(Step::Kill),
        3 => (0..PowerCut::ALL.len()).prop_map(Step::PowerCut),
    ]
}

/// What a partition must hold: all of `sent`, of which a power cut may take no more than what lies behind `durable`.
#[derive(Debug, Default)]
struct Model {
    sent: Vec<Vec<u8>>,
    durable: u64,
    seen: u64,
    committed: Option<u64>,
}

struct World {
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
    fn new(seed: u64, durability: Durability, segment_bytes: u32) -> Self {
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

    fn take(&mut self, step: &Step) {
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
    fn check(&self) {
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

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::Sync),
        Just(Durability::Interval { every: Duration::from_millis(50), bytes: 3000 }),
        Just(Durability::Os),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_log_behaves_like_vectors_that_may_lose_their_unsynced_tails(
        seed in any::<u64>(),
        durability in durability(),
        segment_bytes in prop_oneof![Just(4096u32), Just(8192), Just(65536)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(seed, durability, segment_bytes);
        for step in &steps {
            world.take(step);
        }
        world.check();
    }
}
