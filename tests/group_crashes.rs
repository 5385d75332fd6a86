//! Administration of groups, stopped anywhere: what a group has committed is as it was or as it was to be, never half of it.
//!
//! Each change is made again and again, and the machine stops at another of its calls to the disk each time: once for every
//! thing that a power cut can take, and once for the death of the process.
#![cfg(feature = "sim")]

use std::time::Duration;

use tidelog::sim::{Machine, PowerCut};
use tidelog::{
    ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetReset, ProducerRecord, ResetTo, Result,
    Timestamp, TopicConfig,
};

const GROUP: &str = "billing";

/// What the group has committed, by partition.
type Committed = Vec<(u32, u64)>;

fn open(machine: &Machine) -> EventLog {
    machine.open(LogConfig::new().background(false)).unwrap()
}

fn committed(log: &EventLog) -> Committed {
    match log.describe_group(GROUP) {
        Ok(group) => {
            let entries = group.offsets.iter();
            entries.filter_map(|entry| Some((entry.partition.partition(), entry.committed?.get()))).collect()
        }
        Err(Error::UnknownGroup { .. }) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// A log with a group that has read three partitions to their ends, and has no members any more.
fn prepared() -> (Machine, EventLog) {
    let machine = Machine::new(7);
    let log = open(&machine);
    log.create_topic("orders", TopicConfig::new().partitions(3).durability(Durability::Sync)).unwrap();
    for (partition, count) in [(0, 5), (1, 4), (2, 3)] {
        for n in 0..count {
            log.producer().send(ProducerRecord::new("orders", &[n]).partition(partition)).unwrap().wait().unwrap();
        }
    }
    let config = ConsumerConfig::group(GROUP).auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 12);
    consumer.commit().unwrap();
    consumer.close().unwrap();
    log.producer().flush().unwrap();
    (machine, log)
}

/// Stops the machine at each call to the disk that `change` makes; what it leaves must be the old or `new`.
fn sweep(change: fn(&EventLog) -> Result<()>, new: &Committed) {
    let old = vec![(0, 5), (1, 4), (2, 3)];
    let (machine, log) = prepared();
    assert_eq!(committed(&log), old);
    let from = machine.operations();
    change(&log).unwrap();
    let to = machine.operations();
    assert_eq!(committed(&log), *new);
    assert!(to > from, "there is nothing to stop at");

    let (mut olds, mut news) = (0, 0);
    for crash in from..=to {
        for how in PowerCut::ALL.map(Some).into_iter().chain([None]) {
            let (machine, log) = prepared();
            assert_eq!(machine.operations(), from, "another run takes another way");
            machine.crash_at(crash);
            let made = change(&log);
            let machine = how.map_or_else(|| machine.kill(), |how| machine.power_cut(how));

            let log = open(&machine);

            let found = committed(&log);
            let place = format!("stopped at {crash} of {from}..{to}, {how:?}: {made:?}");
            assert!(log.recovery_report().is_clean(), "{place}: {:?}", log.recovery_report());
            assert!(found == *new || (found == old && made.is_err()), "{place}: {found:?}");
            if found == *new {
                news += 1;
            } else {
                olds += 1;
            }
            // And it can be made again, for good.
            match change(&log) {
                Ok(()) | Err(Error::UnknownGroup { .. }) => {}
                Err(error) => panic!("{place}, then {error}"),
            }
            drop(log);
            assert_eq!(committed(&open(&machine.kill())), *new, "{place}");
        }
    }
    println!("{} calls, {olds} times as it was, {news} times as it was to be", to - from);
    assert!(olds > 0 && news > 0);
}

#[test]
fn a_group_is_deleted_as_a_whole_or_not_at_all() {
    sweep(|log| log.delete_group(GROUP), &Vec::new());
}

#[test]
fn the_offsets_of_several_partitions_are_deleted_together() {
    sweep(|log| log.delete_group_offsets(GROUP, &[("orders", 0).into(), ("orders", 2).into()]), &vec![(1, 4)]);
}

#[test]
fn the_offsets_of_several_partitions_are_reset_together() {
    let reset = |log: &EventLog, to| log.reset_group_offsets(GROUP, &[], to, true).map(drop);
    sweep(|log| log.reset_group_offsets(GROUP, &[], ResetTo::Earliest, true).map(drop), &vec![(0, 0), (1, 0), (2, 0)]);
    sweep(
        |log| log.reset_group_offsets(GROUP, &[], ResetTo::Offset(Offset::new(1)), true).map(drop),
        &vec![(0, 1), (1, 1), (2, 1)],
    );
    sweep(
        |log| log.reset_group_offsets(GROUP, &[], ResetTo::Since(Timestamp::from_millis(0)), true).map(drop),
        &vec![(0, 0), (1, 0), (2, 0)],
    );
    // What is not there cannot be reset, and that changes nothing.
    let (_machine, log) = prepared();
    let missing =
        log.reset_group_offsets(GROUP, &[("orders", 0).into(), ("orders", 9).into()], ResetTo::Earliest, true);
    assert!(matches!(missing, Err(Error::UnknownPartition { .. })));
    reset(&log, ResetTo::Current).unwrap();
    assert_eq!(committed(&log), [(0, 5), (1, 4), (2, 3)]);
}
