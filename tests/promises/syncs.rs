//! A sync that fails is final, for this opening; and reopening is what finds out, and heals.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidelog::sim::{Failure, Fault, Machine, Operation, PowerCut};
use tidelog::{Durability, Error, EventLog, ProducerRecord};

use crate::shared::{Ledger, Left, NOW, config, name, open, reader, segments, small};

fn log_of_two(machine: &Machine) -> (EventLog, Ledger) {
    let log = open(machine);
    log.create_topic("orders", small(Durability::Sync).partitions(2).segment_bytes(1 << 20)).unwrap();
    let mut ledger = Ledger::default();
    for partition in [name("orders", 0), name("orders", 1)] {
        for _ in 0..3 {
            ledger.send(&log, &partition).unwrap().wait().unwrap();
        }
        ledger.promise_all(&partition);
    }
    (log, ledger)
}

fn kinds() -> [(&'static str, Failure); 3] {
    [
        ("EIO", Failure::Errno(rustix::io::Errno::IO.raw_os_error())),
        ("ENOSPC", Failure::Kind(io::ErrorKind::StorageFull)),
        ("EDQUOT", Failure::Kind(io::ErrorKind::QuotaExceeded)),
    ]
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_partition_takes_nothing_until_it_is_reopened() {
    for (seed, (what, failure)) in kinds().into_iter().enumerate() {
        let machine = Machine::new(seed as u64);
        let (log, mut ledger) = log_of_two(&machine);
        let partition = name("orders", 0);
        let waiting: Vec<_> = (0..3).map(|_| ledger.send(&log, &partition).unwrap()).collect();
        let called = Arc::new(AtomicUsize::new(0));
        let (producer, counter) = (log.producer(), Arc::clone(&called));
        let record = ProducerRecord::new("orders", b"with a callback").partition(0);
        producer
            .send_with(record, move |result| {
                assert!(matches!(result, Err(Error::SyncFailed { .. })));
                counter.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
        let durable = log.describe_topic("orders").unwrap().partitions[0].durable_end;
        machine.fail(Fault::new(Operation::Sync, 0).failure(failure).losing_pages());

        assert!(matches!(waiting[1].wait(), Err(Error::SyncFailed { .. })), "{what}");

        // The fault is over, and nothing is tried again: the next sync would say that all is well.
        for delivery in &waiting {
            assert!(matches!(delivery.wait(), Err(Error::SyncFailed { .. })), "{what}");
            assert!(!delivery.is_delivered(), "{what}");
        }
        assert_eq!(called.load(Ordering::SeqCst), 1, "{what}");
        assert!(matches!(producer.flush(), Err(Error::SyncFailed { .. })), "{what}");
        let refused = producer.send(ProducerRecord::new("orders", b"refused").partition(0));
        assert!(matches!(refused, Err(Error::SyncFailed { .. })), "{what}: {refused:?}");
        let described = log.describe_topic("orders").unwrap();
        assert_eq!(described.partitions[0].durable_end, durable, "{what}: the durable end moved");
        assert_eq!(described.partitions[0].high_watermark, durable, "{what}: what is not durable was shown");
        assert_eq!(reader(&log, &partition).poll(NOW).unwrap().len(), 3, "{what}: reading goes on");
        ledger.send(&log, &name("orders", 1)).unwrap().wait().unwrap();
        ledger.promise_all(&name("orders", 1));
        assert!(log.close().is_err(), "{what}: closing cannot make it good");
    }
}

#[test]
fn reopening_after_a_failed_sync_writes_again_what_it_keeps() {
    for seed in 0..60 {
        let machine = Machine::new(seed);
        machine.set_write_back(false);
        let (log, mut ledger) = log_of_two(&machine);
        let partition = name("orders", 0);
        for _ in 0..9 {
            ledger.send(&log, &partition).unwrap();
        }
        machine.fail(Fault::new(Operation::Sync, 0).losing_pages());
        assert!(log.producer().flush().is_err());

        // The process goes on and opens the log again; or it dies, and another does. The page cache shows everything.
        let machine = if seed % 2 == 0 {
            drop(log);
            machine
        } else {
            machine.kill()
        };
        let log = open(&machine);
        ledger.check(&log, Left::Everything, &format!("seed {seed}: reopened"));

        // And what it showed, the disk has.
        for how in PowerCut::ALL {
            let machine = machine.power_cut(how);
            ledger.check(&open(&machine), Left::Everything, &format!("seed {seed}: after {how:?}"));
        }
        drop(log);
    }
}

#[test]
fn a_page_that_is_lost_in_background_write_back_is_never_declared_durable() {
    let mut lost = 0;
    for seed in 0..60 {
        let machine = Machine::new(seed);
        machine.set_write_back(false);
        let (log, mut ledger) = log_of_two(&machine);
        let partition = name("orders", 0);
        let deliveries: Vec<_> = (0..9).map(|_| ledger.send(&log, &partition).unwrap()).collect();
        assert!(machine.lose_in_write_back(&segments(&machine, &partition)[0]), "seed {seed}: nothing was dirty");
        lost += 1;
        let dies = seed % 3 == 0;
        if !dies {
            for delivery in &deliveries {
                assert!(matches!(delivery.wait(), Err(Error::SyncFailed { .. })), "seed {seed}: declared durable");
            }
        }

        let machine = machine.kill();
        let opened = machine.open(config());
        // If nobody had synced since, it is the recovery that is told of it, and refuses.
        assert_eq!(opened.is_err(), dies, "seed {seed}: {opened:?}");
        let log = opened.or_else(|_| machine.open(config())).unwrap();
        ledger.check(&log, Left::Everything, &format!("seed {seed}: reopened"));
        for how in PowerCut::ALL {
            let machine = machine.power_cut(how);
            ledger.check(&open(&machine), Left::Everything, &format!("seed {seed}: after {how:?}"));
        }
        drop(log);
    }
    println!("{lost} pages were lost in background write-back");
}

#[test]
fn a_topic_that_syncs_at_intervals_keeps_what_the_last_completed_sync_covered() {
    for seed in 0..60 {
        let machine = Machine::new(seed);
        let log = open(&machine);
        let every = std::time::Duration::from_millis(50);
        log.create_topic("orders", small(Durability::Interval { every, bytes: 1 << 20 })).unwrap();
        let mut ledger = Ledger::default();
        let partition = name("orders", 0);
        for n in 0..seed % 17 + 1 {
            ledger.send(&log, &partition).unwrap().wait().unwrap();
            if n % 5 == 3 {
                machine.advance(every * 2);
                log.maintain();
                ledger.promise_all(&partition);
            }
        }
        let how = PowerCut::ALL[seed as usize % 6];

        let machine = machine.power_cut(how);

        ledger.check(&open(&machine), Left::ThePromised, &format!("seed {seed}: {how:?}"));
        drop(log);
    }
}

#[test]
fn nothing_of_a_segment_is_promised_before_its_name_is_durable() {
    let machine = Machine::new(1);
    machine.set_write_back(false);
    let log = open(&machine);
    log.create_topic("orders", small(Durability::Sync)).unwrap();
    let mut ledger = Ledger::default();
    let partition = name("orders", 0);
    for _ in 0..9 {
        ledger.send(&log, &partition).unwrap().wait().unwrap();
        ledger.promise_all(&partition);
        let machine = machine.power_cut(PowerCut::LoseUnsynced);
        ledger.check(&open(&machine), Left::ThePromised, "after each delivery");
    }
    let trace = machine.trace();
    let dir = Path::new("topics/orders/0");
    let renamed =
        trace.iter().filter(|(operation, path)| *operation == Operation::Rename && path.starts_with(dir)).count();
    let synced = trace.iter().filter(|(operation, path)| *operation == Operation::SyncDir && path == dir).count();
    assert!(renamed == 3 && synced >= renamed, "{renamed} names, {synced} syncs of the directory");
    drop(log);
}
