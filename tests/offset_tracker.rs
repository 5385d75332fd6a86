//! Records that are finished out of order, through deaths and rebalances: whatever is committed, nothing unfinished lies
//! below it. What the tracker computes is tested beside it; here is what comes of it.
#![cfg(feature = "sim")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{
    Consumer, ConsumerConfig, CooperativeStickyAssignor, Error, EventLog, LogConfig, OffsetReset, OffsetTracker,
    ProducerRecord, RebalanceListener, Result, TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;
const RECORDS: u64 = 60;

fn open(machine: &Machine, partitions: u32) -> EventLog {
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    log.create_topic("orders", TopicConfig::new().partitions(partitions).segment_bytes(1 << 16)).unwrap();
    for n in 0..RECORDS {
        let partition = u32::try_from(n).unwrap() % partitions;
        log.producer().send(ProducerRecord::new("orders", &n.to_string()).partition(partition)).unwrap();
    }
    log.producer().flush().unwrap();
    log
}

fn member(log: &EventLog) -> Consumer {
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    log.consumer(config.assignor(CooperativeStickyAssignor).max_poll_records(7)).unwrap()
}

type Done = BTreeSet<(TopicPartition, u64)>;

/// Whoever has finished the later half of what was polled when the process dies reads the earlier half again.
#[test]
fn after_a_death_the_group_goes_on_at_the_first_record_that_was_not_finished() {
    for latest in [false, true] {
        let machine = Machine::new(1);
        let log = open(&machine, 1);
        let mut consumer = member(&log);
        consumer.subscribe(["orders"]).unwrap();
        let mut tracker = OffsetTracker::new();
        let first = consumer.poll(NOW).unwrap();
        tracker.track(&first);
        let second = consumer.poll(NOW).unwrap();
        tracker.track(&second);
        let finished: &[u64] = if latest { &[0, 1, 2, 4, 5, 6, 9, 13] } else { &[5, 6, 7] };
        for offset in finished {
            assert!(tracker.finish(&("orders", 0).into(), (*offset).into()));
        }
        tracker.commit(&mut consumer).unwrap();
        tracker.commit(&mut consumer).unwrap();

        let log = machine.kill().open(LogConfig::new().background(false)).unwrap();

        let mut consumer = member(&log);
        consumer.subscribe(["orders"]).unwrap();
        let records = consumer.poll(NOW).unwrap();
        assert_eq!(records.iter().next().unwrap().offset().get(), if latest { 3 } else { 0 });
    }
}

/// Commits what it may of what goes, and forgets it.
struct Handover(Arc<Mutex<OffsetTracker>>);

impl RebalanceListener for Handover {
    fn revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        let mut tracker = self.0.lock().unwrap();
        let committed = tracker.commit(consumer);
        tracker.forget(partitions);
        committed
    }
}

/// A member hands its records to slow threads, another one joins and takes half of the partitions: it goes on at what the
/// threads of the first had not finished, so that every record is finished by one of them at least.
#[test]
fn the_next_owner_of_a_partition_gets_what_the_threads_of_the_last_had_not_finished() {
    let mut left_to_others = 0;
    for seed in 0..20u64 {
        let machine = Machine::new(seed);
        let log = open(&machine, 4);
        let trackers = [(); 2].map(|()| Arc::new(Mutex::new(OffsetTracker::new())));
        let mut members: Vec<Consumer> = Vec::new();
        let mut at_work: Vec<Vec<(TopicPartition, u64)>> = vec![Vec::new(), Vec::new()];
        let mut done = Done::new();

        for round in 0..200u64 {
            if members.is_empty() || (members.len() == 1 && round == 2 + seed % 5) {
                let mut member = member(&log);
                member.set_rebalance_listener(Handover(Arc::clone(&trackers[members.len()])));
                member.subscribe(["orders"]).unwrap();
                members.push(member);
            }
            for (nth, member) in members.iter_mut().enumerate() {
                let records = member.poll(NOW).unwrap();
                let mut tracker = trackers[nth].lock().unwrap();
                tracker.track(&records);
                at_work[nth]
                    .extend(records.iter().map(|record| (record.topic_partition().clone(), record.offset().get())));
                // The threads: of all that they have, something from the middle, and less than what comes.
                for step in 0..4 {
                    if at_work[nth].is_empty() || (round < 20 && step > 1) {
                        break;
                    }
                    let place = usize::try_from(seed * 7 + round * 3 + step * 5).unwrap() % at_work[nth].len();
                    let (partition, offset) = at_work[nth].swap_remove(place);
                    // What was handed over, another finishes; these threads are told to leave it.
                    if tracker.finish(&partition, offset.into()) {
                        done.insert((partition, offset));
                    } else {
                        left_to_others += 1;
                    }
                }
                match tracker.commit(member) {
                    // Somebody is joining: the next poll says what is to be handed over.
                    Err(Error::RebalanceInProgress { .. }) => {}
                    committed => committed.unwrap(),
                }
            }
        }

        assert_eq!(done.len() as u64, RECORDS, "seed {seed}");
        let owned: Vec<usize> = members.iter().map(|member| member.assignment().len()).collect();
        assert_eq!(owned, [2, 2], "seed {seed}");
        for partition in 0..4 {
            let committed = members[0].committed(&("orders", partition).into()).unwrap().unwrap();
            assert_eq!(committed.offset.get(), RECORDS / 4, "seed {seed}, partition {partition}");
        }
    }
    assert!(left_to_others > 50, "only {left_to_others} records changed hands unfinished");
}
