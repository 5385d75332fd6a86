//! Processes that die and machines that lose their power.

use tidelog::sim::{Machine, PowerCut};
use tidelog::{Durability, ProducerRecord};

use crate::shared::{GROUP, Ledger, Left, commit, full_sweep, name, open, small};

fn seeds() -> std::ops::Range<u64> {
    0..if full_sweep() { 400 } else { 24 }
}

#[test]
fn the_death_of_a_process_takes_nothing_that_was_accepted_at_any_level() {
    for seed in seeds() {
        let machine = Machine::new(seed);
        let log = open(&machine);
        let mut ledger = Ledger::default();
        let interval = Durability::Interval { every: std::time::Duration::from_secs(9), bytes: 1 << 20 };
        for (topic, durability) in [("orders", Durability::Sync), ("views", interval), ("clicks", Durability::Os)] {
            log.create_topic(topic, small(durability)).unwrap();
            for _ in 0..seed % 13 + 1 {
                ledger.send(&log, &name(topic, 0)).unwrap();
            }
            // Accepted too, though nobody waited for the disk.
            commit(&log, &name(topic, 0), seed % 13).unwrap();
            ledger.accounts.get_mut(&name(topic, 0)).unwrap().commits.push((seed % 13, true));
        }

        let machine = machine.kill();

        ledger.check(&open(&machine), Left::Everything, &format!("seed {seed}"));
        drop(log);
    }
}

#[test]
fn a_power_cut_takes_nothing_from_a_sync_topic_that_was_delivered_or_seen() {
    for seed in seeds() {
        for how in PowerCut::ALL {
            let machine = Machine::new(seed);
            let log = open(&machine);
            log.create_topic("orders", small(Durability::Sync)).unwrap();
            let (mut ledger, partition) = (Ledger::default(), name("orders", 0));
            for _ in 0..seed % 9 {
                ledger.send(&log, &partition).unwrap().wait().unwrap();
            }
            ledger.promise_all(&partition);
            for _ in 0..5 {
                ledger.send(&log, &partition).unwrap();
            }
            let seen = crate::shared::read_around_damage(&log, &partition).0.len();
            assert_eq!(seen as u64, seed % 9, "what is not durable was shown");

            let machine = machine.power_cut(how);

            ledger.check(&open(&machine), Left::ThePromised, &format!("seed {seed}: {how:?}"));
            drop(log);
        }
    }
}

#[test]
fn a_power_cut_leaves_a_prefix_and_never_a_hole_at_the_other_levels() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in seeds() {
        for how in PowerCut::ALL {
            let machine = Machine::new(seed);
            let log = open(&machine);
            log.create_topic("clicks", small(Durability::Os)).unwrap();
            let (mut ledger, partition) = (Ledger::default(), name("clicks", 0));
            for _ in 0..14 {
                ledger.send(&log, &partition).unwrap();
            }

            let machine = machine.power_cut(how);

            let found = open(&machine);
            ledger.check(&found, Left::ThePromised, &format!("seed {seed}: {how:?}"));
            kept.insert(found.describe_topic("clicks").unwrap().partitions[0].log_end.get());
            drop(log);
        }
    }
    assert!(kept.len() > 5, "always the same was kept, so nothing was tried: {kept:?}");
}

#[test]
fn a_batch_is_there_as_a_whole_or_not_at_all() {
    for seed in seeds() {
        for how in PowerCut::ALL {
            let machine = Machine::new(seed);
            let log = open(&machine);
            log.create_topic("clicks", small(Durability::Os).segment_bytes(1 << 16)).unwrap();
            let values: Vec<[u8; 700]> = (0..5).map(|n| [n; 700]).collect();
            for _ in 0..6 {
                log.producer().send_batch(values.iter().map(|value| ProducerRecord::new("clicks", value))).unwrap();
            }

            let machine = machine.power_cut(how);

            let end = open(&machine).describe_topic("clicks").unwrap().partitions[0].log_end.get();
            assert_eq!(end % 5, 0, "seed {seed}: {how:?}: {end} records of batches of five");
            drop(log);
        }
    }
}

#[test]
fn what_recovery_cut_does_not_come_back() {
    for seed in seeds() {
        let mut machine = Machine::new(seed);
        let (mut ledger, partition) = (Ledger::default(), name("clicks", 0));
        open(&machine).create_topic("clicks", small(Durability::Os).segment_bytes(1 << 16)).unwrap();
        // Records of one size in every life, so that those of an old one lie where a new one ends.
        for life in 0..5 {
            let log = open(&machine);
            for _ in 0..7 {
                ledger.send(&log, &partition).unwrap();
            }
            let how = PowerCut::ALL[(seed as usize + life) % 6];
            machine = machine.power_cut(how);
            ledger.check(&open(&machine), Left::ThePromised, &format!("seed {seed}, life {life}: {how:?}"));
            // Durably gone: nothing is left of it that a later recovery would have to judge.
            let again = open(&machine.power_cut(PowerCut::LoseUnsynced));
            assert_eq!(again.recovery_report().bytes_cut, 0, "seed {seed}, life {life}: {how:?}");
            drop(log);
        }
    }
}

#[test]
fn a_group_that_had_committed_what_a_power_cut_took_is_pulled_back_and_the_report_says_so() {
    let mut pulled_back = 0;
    for seed in seeds() {
        let machine = Machine::new(seed);
        let log = open(&machine);
        log.create_topic("clicks", small(Durability::Os)).unwrap();
        let (mut ledger, partition) = (Ledger::default(), name("clicks", 0));
        for _ in 0..9 {
            ledger.send(&log, &partition).unwrap();
        }
        commit(&log, &partition, 9).unwrap();

        let machine = machine.power_cut(PowerCut::ALL[seed as usize % 6]);

        let found = open(&machine);
        let end = found.describe_topic("clicks").unwrap().partitions[0].log_end;
        let report = &found.recovery_report().pulled_back;
        assert_eq!(report.len(), usize::from(end.get() < 9), "seed {seed}: {report:?}");
        for back in report {
            assert_eq!((back.group.as_str(), &back.partition, back.from.get(), back.to), (GROUP, &partition, 9, end));
            pulled_back += 1;
        }
        drop(log);
    }
    assert!(pulled_back > 3, "{pulled_back}");
}
