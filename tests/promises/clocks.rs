//! A wall clock that does what it likes.

use std::time::Duration;

use tidelog::Timestamp;
use tidelog::sim::{Machine, PowerCut};
use tidelog::{ConsumerConfig, Durability, Retention};

use crate::shared::{Ledger, Left, NOW, commit, name, open, reader, resuming, small};

/// 1970, a year before it, 2106 (where 32 bits end), the end of time, and back.
const MOMENTS: [i64; 6] = [1_577_836_800_000, 0, -31_536_000_000, 4_294_967_296_000, i64::MAX, 1_000];

#[test]
fn order_offsets_and_recovery_do_not_depend_on_the_wall_clock() {
    let mut machine = Machine::new(1);
    let mut ledger = Ledger::default();
    open(&machine).create_topic("orders", small(Durability::Sync)).unwrap();
    for (life, moment) in MOMENTS.into_iter().cycle().take(12).enumerate() {
        machine.set_wall_clock(Timestamp::from_millis(moment));
        let log = open(&machine);
        for _ in 0..3 {
            ledger.send(&log, &name("orders", 0)).unwrap().wait().unwrap();
            machine.set_wall_clock(Timestamp::from_millis(-moment / 3));
        }
        ledger.promise_all(&name("orders", 0));
        commit(&log, &name("orders", 0), life as u64 * 3).unwrap();

        machine = machine.power_cut(PowerCut::ALL[life % 6]);

        let log = open(&machine);
        ledger.accounts.get_mut(&name("orders", 0)).unwrap().commits = vec![(life as u64 * 3, true)];
        ledger.check(&log, Left::Everything, &format!("life {life}, in which the clock showed {moment}"));
        let records = resuming(&log, &name("orders", 0)).poll(NOW).unwrap();
        assert_eq!(records.iter().next().unwrap().offset().get(), life as u64 * 3);
    }
}

#[test]
fn a_record_keeps_the_timestamp_that_it_was_given_whatever_the_clock_does_later() {
    let machine = Machine::new(2);
    let log = open(&machine);
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    for moment in MOMENTS {
        machine.set_wall_clock(Timestamp::from_millis(moment));
        log.producer().send(tidelog::ProducerRecord::new("orders", b"1")).unwrap().wait().unwrap();
    }
    let machine = machine.power_cut(PowerCut::LoseUnsynced);
    let log = open(&machine);
    let records = reader(&log, &name("orders", 0)).poll(NOW).unwrap();
    let shown: Vec<_> = records.iter().map(|record| record.timestamp().as_millis()).collect();
    assert_eq!(shown, MOMENTS);
}

#[test]
fn waiting_is_told_by_the_clock_that_never_steps() {
    let machine = Machine::new(3);
    let log = open(&machine);
    log.create_topic("orders", small(Durability::Interval { every: Duration::from_secs(1), bytes: 1 << 20 })).unwrap();
    let mut consumer = log.consumer(ConsumerConfig::group("g").auto_commit(true)).unwrap();
    consumer.subscribe(["orders"]).unwrap();
    assert!(consumer.poll(NOW).unwrap().is_empty());
    log.producer().send(tidelog::ProducerRecord::new("orders", b"1")).unwrap();
    for moment in MOMENTS {
        machine.set_wall_clock(Timestamp::from_millis(moment));
        log.maintain();
        assert_eq!(consumer.committed(&name("orders", 0)).unwrap(), None, "no five seconds have gone by");
        assert_eq!(log.describe_topic("orders").unwrap().partitions[0].durable_end.get(), 0, "nor one");
    }
    machine.advance(Duration::from_secs(2));
    log.maintain();
    assert_eq!(log.describe_topic("orders").unwrap().partitions[0].durable_end.get(), 1);
}

#[test]
fn a_step_of_the_wall_clock_does_not_empty_the_log() {
    let year = Duration::from_secs(365 * 24 * 3600);
    let machine = Machine::new(4);
    let log = open(&machine);
    let yearly = small(Durability::Sync).retention(Retention::new().time(year));
    log.create_topic("orders", yearly.clone()).unwrap();
    let mut ledger = Ledger::default();
    for _ in 0..12 {
        ledger.send(&log, &name("orders", 0)).unwrap().wait().unwrap();
    }
    let start = || {
        log.apply_retention().unwrap();
        log.describe_topic("orders").unwrap().partitions[0].log_start.get()
    };
    let today = machine.now();
    assert_eq!(start(), 0);
    for moment in MOMENTS.into_iter().skip(1).chain([today.as_millis() + 2 * year.as_millis() as i64]) {
        machine.set_wall_clock(Timestamp::from_millis(moment));
        assert_eq!(start(), 0, "the clock stepped to {moment}");
        machine.set_wall_clock(today);
        assert_eq!(start(), 0, "the clock stepped back from {moment}");
    }
    let report = log.retention_report();
    assert_eq!((report.rounds, report.clock_steps, report.records), (13, 12, 0));
    // What is over by another limit goes all the same; and time that goes by for both clocks is believed.
    log.alter_topic("orders", yearly.retention(Retention::new().time(year).records(5))).unwrap();
    machine.set_wall_clock(Timestamp::from_millis(0));
    assert_eq!(start(), 4);
    machine.set_wall_clock(today);
    start();
    machine.advance(2 * year);
    assert_eq!(start(), 12);
}
