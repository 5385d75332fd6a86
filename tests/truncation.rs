//! Cutting the tail of a log: for readers, groups, senders, other processes, and a machine that stops anywhere.
#![cfg(feature = "sim")]

mod sweep;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tidelog::sim::{Failure, Fault, Machine, Operation, PowerCut};
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, GroupsBeyond, LogConfig, Offset, OffsetReset,
    ProducerRecord, TopicConfig, TopicPartition,
};

use crate::sweep::Life;

const TOPIC: &str = "orders";
const NOW: Duration = Duration::ZERO;
/// Five of these fill a segment.
const VALUE_BYTES: usize = 700;

fn orders() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

fn open(machine: &Machine) -> EventLog {
    machine.open(LogConfig::new().background(false)).unwrap()
}

fn config() -> TopicConfig {
    TopicConfig::new().segment_bytes(4096)
}

/// What is sent in this generation: an offset that is given again holds something else.
fn value(generation: u8) -> Vec<u8> {
    vec![generation; VALUE_BYTES]
}

fn send(log: &EventLog, count: u64, generation: u8) {
    (0..count).for_each(|_| drop(log.producer().send(ProducerRecord::new(TOPIC, &value(generation))).unwrap()));
    log.producer().flush().unwrap();
}

fn log_with(machine: &Machine, config: TopicConfig, records: u64) -> EventLog {
    let log = open(machine);
    log.create_topic(TOPIC, config).unwrap();
    send(&log, records, 1);
    log
}

/// Log start, log end, and how many segments there are.
fn state(log: &EventLog) -> (u64, u64, usize) {
    let partition = &log.describe_topic(TOPIC).unwrap().partitions[0];
    assert!(partition.durable_end <= partition.log_end && partition.high_watermark <= partition.log_end);
    (partition.log_start.get(), partition.log_end.get(), partition.segments)
}

fn cut(log: &EventLog, end: u64) {
    log.truncate(&orders(), end, GroupsBeyond::Refuse).unwrap();
}

fn reader(log: &EventLog, reset: OffsetReset) -> Consumer {
    let mut reader = log.consumer(ConsumerConfig::new().auto_offset_reset(reset)).unwrap();
    reader.assign([orders()]).unwrap();
    reader
}

/// Offsets and generations of what comes now.
fn drain(reader: &mut Consumer) -> Vec<(u64, u8)> {
    let mut found = Vec::new();
    loop {
        let records = reader.poll(NOW).unwrap();
        if records.is_empty() {
            return found;
        }
        for record in &records {
            let generation = record.value().unwrap()[0];
            assert_eq!(record.value(), Some(&value(generation)[..]));
            found.push((record.offset().get(), generation));
        }
    }
}

fn read(log: &EventLog) -> Vec<u8> {
    let found = drain(&mut reader(log, OffsetReset::Earliest));
    let start = state(log).0;
    found.iter().zip(start..).for_each(|((offset, _), due)| assert_eq!(*offset, due));
    found.iter().map(|(_, generation)| *generation).collect()
}

fn commit(log: &EventLog, group: &str, offset: u64) {
    let mut group = log.consumer(ConsumerConfig::group(group).auto_commit(false)).unwrap();
    group.assign([orders()]).unwrap();
    group.commit_offsets([(orders(), Offset::new(offset))]).unwrap();
}

fn committed(log: &EventLog, group: &str) -> u64 {
    log.describe_group(group).unwrap().offsets[0].committed.unwrap().get()
}

#[test]
fn what_is_cut_off_does_not_come_back_and_its_offsets_are_given_again() {
    for end in 0..=13 {
        for durability in [Durability::Sync, Durability::Os] {
            let machine = Machine::new(end);
            let log = log_with(&machine, config().durability(durability), 13);
            let plan = log.plan_truncation(&orders(), end).unwrap();
            assert_eq!(read(&log), [1; 13], "a plan changes nothing");
            let done = log.truncate(&orders(), end, GroupsBeyond::Refuse).unwrap();
            assert_eq!(done, plan);
            assert_eq!((done.offsets.start.get(), done.offsets.end.get()), (end, 13));
            assert_eq!(done.segments as u64, 3 - end.div_ceil(5).min(3), "{end}");
            assert_eq!((state(&log).0, state(&log).1), (0, end));
            let left = vec![1; end as usize];
            assert_eq!(read(&log), left);
            send(&log, 7, 2);
            let all = [left.clone(), vec![2; 7]].concat();
            assert_eq!(read(&log), all, "{end}");
            // Neither what the disk holds nor what it says of itself tells otherwise.
            for machine in [machine.kill(), machine.power_cut(PowerCut::KeepAll)] {
                let log = open(&machine);
                assert!(log.recovery_report().is_clean(), "{end}: {:?}", log.recovery_report());
                assert_eq!((read(&log)[..end as usize].to_vec(), state(&log).1 - end <= 7), (left.clone(), true));
                log.close().unwrap();
            }
            log.close().unwrap();
            let machine = machine.kill();
            assert_eq!(machine.verify().unwrap().findings, [], "{end}");
            assert!(machine.repair(false).unwrap().mends.is_empty(), "{end}");
            assert_eq!(machine.open_read_only().unwrap().recovery_report().damage, [], "{end}");
            let log = open(&machine);
            assert!(log.recovery_report().is_clean(), "{end}: {:?}", log.recovery_report());
            assert_eq!(read(&log), all, "{end}");
        }
    }
}

#[test]
fn an_offset_that_is_not_there_or_lies_inside_of_a_batch_is_refused() {
    let log = log_with(&Machine::new(1), config(), 7);
    log.delete_records(&orders(), 3).unwrap();
    let refused = |end: u64| log.truncate(&orders(), end, GroupsBeyond::Refuse).unwrap_err().to_string();
    assert_eq!(refused(2), "offset 2 of orders-0 is out of range: it holds 3..7");
    assert_eq!(refused(8), "offset 8 of orders-0 is out of range: it holds 3..7");
    let batch: Vec<_> = (0..4).map(|_| ProducerRecord::new(TOPIC, b"x").partition(0)).collect();
    log.producer().send_batch(batch).unwrap().wait().unwrap();
    for end in 8..11 {
        let message = format!(
            "offset {end} of orders-0 lies between records that stay or go together, 7..11: they were sent as one batch, or \
             are damaged; truncate to 7 or 11"
        );
        assert!(refused(end).contains(&message), "{}", refused(end));
        assert!(matches!(log.plan_truncation(&orders(), end), Err(Error::InvalidState { .. })));
    }
    cut(&log, 7);
    assert_eq!(read(&log), [1; 4]);
    cut(&log, 3);
    assert_eq!((read(&log), state(&log).1), (vec![], 3));
}

#[test]
fn groups_beyond_stand_in_the_way_unless_they_are_to_be_pulled_back() {
    let machine = Machine::new(2);
    let log = log_with(&machine, config(), 12);
    commit(&log, "audit", 5);
    commit(&log, "billing", 9);
    commit(&log, "mail", 12);
    let plan = log.plan_truncation(&orders(), 6).unwrap();
    let beyond: Vec<_> = plan.groups.iter().map(|group| (&group.group[..], group.from.get(), group.to.get())).collect();
    assert_eq!(beyond, [("billing", 9, 6), ("mail", 12, 6)]);
    let refused = log.truncate(&orders(), 6, GroupsBeyond::Refuse).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "orders-0 cannot be truncated to 6: group \"billing\" has committed 9, group \"mail\" has committed 12; reset their \
         offsets, or have them pulled back"
    );
    assert_eq!(read(&log), [1; 12]);
    log.truncate(&orders(), 12, GroupsBeyond::Refuse).unwrap();
    let done = log.truncate(&orders(), 6, GroupsBeyond::PullBack).unwrap();
    assert_eq!(done.groups, plan.groups);
    assert_eq!(["audit", "billing", "mail"].map(|group| committed(&log, group)), [5, 6, 6]);
    send(&log, 6, 2);
    for machine in [machine.kill(), machine.power_cut(PowerCut::LoseUnsynced)] {
        let log = open(&machine);
        assert!(log.recovery_report().pulled_back.is_empty(), "{:?}", log.recovery_report());
        assert_eq!(["audit", "billing", "mail"].map(|group| committed(&log, group)), [5, 6, 6]);
    }
}

#[test]
fn a_consumer_beyond_goes_on_where_the_log_was_cut_or_is_told() {
    for (grown, batches) in [(0, 1), (2, 1), (7, 1), (20, 7)] {
        let machine = Machine::new(3);
        let log = log_with(&machine, config(), 12);
        let mut at_the_end = reader(&log, OffsetReset::Earliest);
        assert_eq!(drain(&mut at_the_end).len(), 12);
        let mut strict = reader(&log, OffsetReset::None);
        strict.seek(&orders(), 0).unwrap();
        drain(&mut strict);
        let mut behind = reader(&log, OffsetReset::None);
        behind.seek(&orders(), 0).unwrap();
        let few = log.consumer(ConsumerConfig::new().max_poll_records(3).auto_offset_reset(OffsetReset::Earliest));
        let mut in_the_middle = few.unwrap();
        in_the_middle.assign([orders()]).unwrap();
        let held = in_the_middle.poll(NOW).unwrap();
        let mut from_the_end = reader(&log, OffsetReset::Latest);
        from_the_end.poll(NOW).unwrap();

        cut(&log, 4);
        (0..batches).for_each(|_| send(&log, grown / batches, 2));
        let grown = grown / batches * batches;

        let new: Vec<_> = (4..4 + grown).map(|offset| (offset, 2)).collect();
        assert_eq!(drain(&mut at_the_end), new, "grown by {grown}");
        assert_eq!(drain(&mut from_the_end), new);
        assert_eq!(drain(&mut behind).len() as u64, 4 + grown);
        assert_eq!(
            drain(&mut in_the_middle).iter().map(|(offset, _)| *offset).collect::<Vec<_>>(),
            Vec::from_iter(3..4 + grown)
        );
        assert!(held.iter().all(|record| record.value() == Some(&value(1)[..])), "what was polled stays as it was");
        for _ in 0..2 {
            let told = strict.poll(NOW).unwrap_err();
            assert_eq!(
                told.to_string(),
                "orders-0 was truncated to 4 while the consumer was at 12; seek to 4 to read what was sent since"
            );
        }
        let Err(Error::LogTruncated { end, .. }) = strict.poll(NOW) else { panic!("it was told") };
        strict.seek(&orders(), end).unwrap();
        assert_eq!(drain(&mut strict), new);
    }
}

#[test]
fn what_was_polled_stays_as_it_was_while_its_offsets_are_given_again() {
    let log = log_with(&Machine::new(4), config(), 12);
    let records = reader(&log, OffsetReset::Earliest).poll(NOW).unwrap();
    for generation in 2..20 {
        cut(&log, u64::from(generation) % 11);
        send(&log, 9, generation);
        assert!(records.iter().all(|record| record.value() == Some(&value(1)[..])));
        assert_eq!(read(&log).last(), Some(&generation));
    }
}

#[test]
fn a_waiting_consumer_is_woken_and_automatic_commits_stay_within_the_log() {
    let machine = Machine::new(5);
    let log = machine.open(LogConfig::new()).unwrap();
    log.create_topic(TOPIC, config()).unwrap();
    send(&log, 8, 1);
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = log.consumer(config.auto_commit_interval(Duration::from_millis(10))).unwrap();
    consumer.subscribe([TOPIC]).unwrap();
    assert_eq!(drain(&mut consumer).len(), 8);
    machine.sleep(Duration::from_secs(1));
    consumer.poll(NOW).unwrap();
    assert_eq!(committed(&log, "billing"), 8);
    log.truncate(&orders(), 3, GroupsBeyond::PullBack).unwrap();
    assert_eq!(committed(&log, "billing"), 3);
    machine.sleep(Duration::from_secs(1));
    assert_eq!(drain(&mut consumer), []);
    send(&log, 1, 2);
    assert_eq!(drain(&mut consumer), [(3, 2)]);
    consumer.commit().unwrap();
    assert_eq!(committed(&log, "billing"), 4);
}

#[test]
fn a_consumer_that_waits_beyond_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic(TOPIC, config()).unwrap();
    send(&log, 8, 1);
    std::thread::scope(|scope| {
        let mut waiting = reader(&log, OffsetReset::None);
        waiting.seek(&orders(), 0).unwrap();
        drain(&mut waiting);
        let began = Instant::now();
        let waits = scope.spawn(move || waiting.poll(Duration::from_secs(20)).map(|records| records.len()));
        // Whether it waits already or comes later, it is told.
        (0..10_000).for_each(|_| std::thread::yield_now());
        cut(&log, 3);
        assert!(matches!(waits.join().unwrap(), Err(Error::LogTruncated { .. })));
        assert!(began.elapsed() < Duration::from_secs(15), "it was told when its time was over");
    });
}

#[test]
fn deliveries_of_what_was_cut_off_are_done_with() {
    // With the first offset nothing must be synced before the cut, with the second everything is.
    for (end, durability) in [3, 4].into_iter().flat_map(|end| [(end, Durability::Sync), (end, Durability::Os)]) {
        let log = log_with(&Machine::new(6), config().durability(durability), 3);
        let called = Arc::new(AtomicU64::new(0));
        let send = || log.producer().send(ProducerRecord::new(TOPIC, b"y")).unwrap();
        let mut pending: Vec<_> = (0..9)
            .map(|_| {
                let called = Arc::clone(&called);
                let record = ProducerRecord::new(TOPIC, b"x");
                let callback = move |result: Result<_, Error>| {
                    result.unwrap();
                    called.fetch_add(1, Ordering::Relaxed);
                };
                log.producer().send_with(record, callback).unwrap();
                send()
            })
            .collect();
        cut(&log, end);
        assert_eq!(called.load(Ordering::Relaxed), 9, "{durability}");
        let mut awaited = pin!(pending.pop().unwrap());
        let ready = awaited.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ready, Poll::Ready(Ok(_))), "{ready:?}");
        let last = send();
        pending.into_iter().for_each(|delivery| drop(delivery.wait().unwrap()));
        assert_eq!(last.wait().unwrap().offset().get(), end);
        log.producer().flush().unwrap();
    }
}

#[test]
fn a_reader_in_another_process_takes_nothing_old_for_new() {
    for durability in [Durability::Sync, Durability::Os] {
        for looks in [true, false] {
            let machine = Machine::new(7);
            let log = log_with(&machine, config().durability(durability), 12);
            let beside = machine.open_read_only().unwrap();
            let mut follower = reader(&beside, OffsetReset::Earliest);
            let first = drain(&mut follower);
            assert!(first.len() >= 10, "{first:?}");
            for (round, (end, more)) in [(7, 20), (5, 0), (0, 9), (9, 1), (4, 30)].into_iter().enumerate() {
                let generation = round as u8 + 2;
                cut(&log, end);
                if looks {
                    assert_eq!(drain(&mut follower), [], "{round}: only what is gone");
                    assert_eq!(state(&beside).1, end);
                }
                send(&log, more, generation);
                let kept = read(&log);
                let seen = drain(&mut follower);
                assert!(
                    seen.iter().all(|(offset, generation)| kept[*offset as usize] == *generation),
                    "{round}: {seen:?}"
                );
                let fresh = read(&beside);
                assert!(kept.starts_with(&fresh) && fresh.len() + 6 >= kept.len(), "{round}: {fresh:?} of {kept:?}");
                assert_eq!(beside.recovery_report().damage, []);
            }
        }
    }
}

#[test]
fn a_full_disk_can_be_cut_and_the_cut_counts_without_a_new_segment() {
    let machine = Machine::new(8);
    let log = log_with(&machine, config(), 12);
    machine.fail(Fault::new(Operation::Allocate, 0).failure(Failure::Kind(std::io::ErrorKind::StorageFull)).forever());
    cut(&log, 11);
    assert_eq!(read(&log), [1; 11]);
    assert!(matches!(log.producer().send(ProducerRecord::new(TOPIC, b"x")), Err(Error::NoSpace { .. })));
    for machine in [machine.kill(), machine.power_cut(PowerCut::LoseUnsynced)] {
        assert_eq!(machine.verify().unwrap().findings, []);
        assert_eq!(read(&machine.open_read_only().unwrap()), [1; 11]);
        let log = open(&machine);
        assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
        assert_eq!(read(&log), [1; 11]);
        log.close().unwrap();
        let machine = machine.kill();
        let log = open(&machine);
        assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
        send(&log, 3, 2);
        assert_eq!(read(&log), [vec![1; 11], vec![2; 3]].concat());
    }
    machine.heal();
    send(&log, 3, 2);
    assert_eq!(read(&log), [vec![1; 11], vec![2; 3]].concat());
}

#[test]
fn what_is_lost_behind_a_cut_is_missed() {
    for (end, mended) in [0, 4, 5, 7].into_iter().flat_map(|end| [(end, false), (end, true)]) {
        let machine = Machine::new(end);
        let log = log_with(&machine, config(), 12);
        cut(&log, end);
        send(&log, 12, 2);
        log.close().unwrap();
        let machine = machine.kill();
        let newer = |path: &std::path::PathBuf| {
            let base: Option<u64> = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            path.starts_with("topics/orders") && base >= Some(end)
        };
        machine.files().iter().filter(|path| newer(path)).for_each(|path| machine.remove_file(path));
        assert!(!machine.verify().unwrap().is_sound(), "{end}");
        if !mended {
            let log = open(&machine);
            let damage = &log.recovery_report().damage;
            assert_eq!((damage[0].offsets.start.get(), damage.len()), (end, 1), "{damage:?}");
            assert!(damage[0].offsets.end.get() >= end + 12, "offsets are not given twice: {damage:?}");
        } else if end > 0 {
            machine.repair(true).unwrap();
            assert_eq!(machine.verify().unwrap().findings, [], "{end}");
            let log = open(&machine);
            assert!(log.recovery_report().is_clean(), "{end}: {:?}", log.recovery_report());
            assert_eq!((read(&log), state(&log).1), (vec![1; end as usize], end + 12));
        }
    }
}

#[test]
fn damage_can_be_cut_off() {
    for (bit, lost) in [(8 * 150, 0), (8 * 1000, 1)] {
        let machine = Machine::new(9);
        let log = log_with(&machine, config(), 12);
        log.close().unwrap();
        let machine = machine.kill();
        machine.flip_bit("topics/orders/0/00000000000000000005.log", bit);
        let log = open(&machine);
        let error = log.truncate(&orders(), 6 + lost, GroupsBeyond::Refuse);
        if lost == 0 {
            // The damaged record is one by itself.
            error.unwrap();
        }
        log.truncate(&orders(), 5 + lost, GroupsBeyond::Refuse).unwrap();
        send(&log, 4, 2);
        assert_eq!(read(&log), [vec![1; 5 + lost as usize], vec![2; 4]].concat());
        log.close().unwrap();
        assert_eq!(machine.kill().verify().unwrap().findings, []);
    }
    // A header, and so all that the segment held.
    let machine = Machine::new(10);
    log_with(&machine, config(), 12).close().unwrap();
    let machine = machine.kill();
    machine.flip_bit("topics/orders/0/00000000000000000005.log", 8 * 20);
    let log = open(&machine);
    assert!(matches!(log.plan_truncation(&orders(), 7), Err(Error::InvalidState { .. })));
    cut(&log, 5);
    send(&log, 4, 2);
    assert_eq!(read(&log), [vec![1; 5], vec![2; 4]].concat());
    log.close().unwrap();
    let machine = machine.kill();
    assert_eq!(machine.verify().unwrap().findings, []);
    assert!(open(&machine).recovery_report().is_clean());
}

#[test]
fn a_topic_that_was_cut_can_be_deleted_and_made_again() {
    let machine = Machine::new(11);
    let log = log_with(&machine, config(), 12);
    cut(&log, 3);
    log.delete_topic(TOPIC).unwrap();
    log.create_topic(TOPIC, config()).unwrap();
    send(&log, 9, 2);
    log.close().unwrap();
    let log = open(&machine.kill());
    assert!(log.recovery_report().is_clean());
    assert_eq!(read(&log), [2; 9]);
}

#[test]
fn senders_and_readers_go_on_while_the_log_is_cut_under_them() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    log.create_topic(TOPIC, config()).unwrap();
    let all = 300;
    std::thread::scope(|scope| {
        let log = &log;
        let sender = scope.spawn(move || {
            for number in 0..all {
                let sent = log.producer().send(ProducerRecord::new(TOPIC, &value(number as u8))).unwrap();
                if number % 7 == 0 {
                    sent.wait().unwrap();
                }
            }
        });
        for _ in 0..2 {
            scope.spawn(move || {
                let mut reader = reader(log, OffsetReset::Earliest);
                let mut polls = 0;
                while polls < 200 {
                    for record in &reader.poll(Duration::from_millis(1)).unwrap() {
                        let generation = record.value().unwrap()[0];
                        assert_eq!(record.value(), Some(&value(generation)[..]));
                    }
                    polls += 1;
                }
            });
        }
        let mut cuts = 0;
        while !sender.is_finished() {
            let end = state(log).1;
            match log.truncate(&orders(), end.saturating_sub(end % 13), GroupsBeyond::Refuse) {
                Ok(_) => cuts += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(cuts > 0);
    });
    let held = read(&log);
    log.close().unwrap();
    let log = EventLog::open(directory.path()).unwrap();
    assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
    assert_eq!(read(&log), held);
}

/// What the users of the log were told: what each offset holds, how many of them are promised, and where it is being cut.
#[derive(Clone, Debug, Default)]
struct Told {
    held: Vec<u8>,
    promised: usize,
    cutting: Option<usize>,
    generation: u8,
}

impl Life for Told {
    type Kind = Durability;

    const ONE_IN: u64 = 12;

    /// The log is cut in the middle of a segment, at the beginning of one, and at its own beginning, and goes on.
    fn live(&mut self, durability: Durability, machine: &Machine) -> Result<(), Error> {
        let log = machine.open(LogConfig::new().background(false))?;
        match log.create_topic(TOPIC, config().durability(durability)) {
            Err(Error::TopicExists { .. }) => {}
            created => created?,
        }
        for round in 0..4 {
            self.generation += 1;
            for _ in 0..7 {
                let delivery = log.producer().send(ProducerRecord::new(TOPIC, &value(self.generation)))?;
                assert_eq!(delivery.offset().get(), self.held.len() as u64);
                self.held.push(self.generation);
            }
            log.producer().flush()?;
            if !machine.has_crashed() && durability == Durability::Sync {
                self.promised = self.held.len();
            }
            let end = [self.held.len() - 3, self.held.len() / 5 * 5, 0, 4][round].min(self.held.len());
            if round % 2 == 1 {
                let mut group = log.consumer(ConsumerConfig::group("billing").auto_commit(false))?;
                group.assign([orders()])?;
                group.commit_offsets([(orders(), Offset::new(self.held.len() as u64))])?;
            }
            self.cutting = Some(end);
            log.truncate(&orders(), end as u64, GroupsBeyond::PullBack)?;
            if !machine.has_crashed() {
                self.held.truncate(end);
                (self.promised, self.cutting) = (end, None);
            }
        }
        log.close()
    }

    fn look(&self, machine: &Machine, case: &str) {
        if let Ok(beside) = machine.open_read_only()
            && !beside.list_topics().is_empty()
        {
            assert_eq!(beside.recovery_report().damage, [], "{case}");
            let end = self.cutting.filter(|end| state(&beside).1 == *end as u64).unwrap_or(self.held.len());
            assert!(self.held[..end].starts_with(&read(&beside)), "{case}: {self:?}");
        }
    }

    fn check(&mut self, log: &EventLog, case: &str) {
        if log.list_topics().is_empty() {
            assert_eq!(self.promised, 0, "{case}: the topic is gone");
            return;
        }
        let found = read(log);
        assert_eq!(found.len() as u64, state(log).1, "{case}");
        let whole = self.held.starts_with(&found) && found.len() >= self.promised;
        let is_cut = self.cutting.is_some_and(|end| found == self.held[..end]);
        assert!(whole || is_cut, "{case}: {found:?}, {self:?}");
        if let Ok(group) = log.describe_group("billing") {
            let committed = group.offsets.iter().filter_map(|offset| offset.committed).max();
            assert!(committed <= Some(Offset::new(found.len() as u64)), "{case}: {committed:?}");
        }
        *self = Told { promised: found.len(), held: found, cutting: None, generation: self.generation };
    }
}

#[test]
fn wherever_the_machine_stops_the_log_is_cut_or_it_is_not() {
    sweep::stop_everywhere::<Told>(&[Durability::Sync, Durability::Os]);
}

#[test]
fn whatever_operation_fails_the_log_is_cut_or_it_is_not() {
    sweep::fail_everywhere::<Told>(Durability::Sync, 260);
}

/// Cuts a log of ten records at 5. `meanwhile` is called as soon as others can be sent
/// behind the cut.
fn cut_while(log: &EventLog, meanwhile: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    log.producer().send_with(ProducerRecord::new(TOPIC, &value(1)), |_| meanwhile())?;
    log.truncate(&orders(), 5, GroupsBeyond::PullBack).map(drop)
}

#[test]
fn whoever_joins_or_commits_right_behind_the_cut_skips_nothing() {
    for sent_meanwhile in [3, 6, 12] {
        let machine = Machine::new(5);
        let log = log_with(&machine, config(), 10);
        commit(&log, "billing", 10);
        let (again, (tell, told)) = (log.producer(), std::sync::mpsc::channel());
        let mut late = log.consumer(ConsumerConfig::group("billing").auto_commit(false)).unwrap();
        late.assign([orders()]).unwrap();
        let config = ConsumerConfig::group("early").auto_offset_reset(OffsetReset::Earliest);
        let mut early = log.consumer(config.auto_commit(false)).unwrap();
        early.assign([orders()]).unwrap();
        assert_eq!(drain(&mut early).len(), 10);

        let meanwhile = move || {
            for _ in 0..sent_meanwhile {
                again.send(ProducerRecord::new(TOPIC, &value(2))).unwrap().wait().unwrap();
            }
            // It has read what was cut off, and has not been told yet.
            early.commit().unwrap();
            assert_eq!(early.position(&orders()).unwrap().get(), 10);
            tell.send((late.poll(NOW).unwrap().iter().next().map(|record| record.offset().get()), early)).unwrap();
        };
        cut_while(&log, meanwhile).unwrap();

        assert_eq!(state(&log).1, 5 + sent_meanwhile, "it was called");
        let (found, mut early) = told.recv().unwrap();
        assert_eq!((found, committed(&log, "billing"), committed(&log, "early")), (Some(5), 5, 5), "{sent_meanwhile}");
        assert_eq!(drain(&mut early).len() as u64, sent_meanwhile);
    }
}

#[test]
fn wherever_the_machine_stops_no_group_skips_what_was_sent_behind_the_cut() {
    let mut sent_behind = 0;
    for step in 0.. {
        for how in PowerCut::ALL {
            let machine = Machine::new(step);
            let log = log_with(&machine, config(), 10);
            commit(&log, "billing", 10);
            let again = log.producer();
            machine.crash_at(machine.operations() + step);
            let meanwhile = move || {
                for _ in 0..8 {
                    drop(again.send(ProducerRecord::new(TOPIC, &value(2))).and_then(|delivery| delivery.wait()));
                }
            };
            let done = cut_while(&log, meanwhile).is_ok();
            let log = open(&machine.power_cut(how));
            let new = read(&log).iter().position(|generation| *generation == 2);
            let case = format!("{how:?} after {step} operations, {:?}", read(&log));
            assert!(new.is_none_or(|new| new == 5 && committed(&log, "billing") == 5), "{case}");
            sent_behind += u64::from(new.is_some());
            if done && !machine.has_crashed() {
                assert!(sent_behind > 6, "{sent_behind}");
                return;
            }
        }
    }
}
