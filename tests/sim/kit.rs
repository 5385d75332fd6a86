//! The kit's own promises: the same tape is the same run, saved failures come first, and code that is not deterministic is
//! told so.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelog::sim::{Faults, Outside, Scope, Sim, check, fuzz_one};
use tidelog::{
    Consumer, ConsumerConfig, DeadLetterConfig, Error, EventLog, OffsetReset, ProducerRecord, Result, TopicConfig,
    point,
};

const POLL: Duration = Duration::from_millis(100);

fn early(mut consumer: Consumer, done: &Outside<BTreeSet<u64>>) -> Result<()> {
    loop {
        let records = consumer.poll(POLL)?;
        consumer.commit()?;
        records.iter().for_each(|record| done.with(|done| done.extend([record.offset().get()])));
    }
}

fn mistaken(sim: &mut Sim) {
    sim.topic("orders").records((0..6).map(|n| format!("order {n}")));
    let done = sim.outside();
    sim.group("billing").run(move |consumer| early(consumer, &done));
    sim.faults(Faults::none().crashes(2).power_cuts(1));
    sim.run_until_idle().no_record_lost();
}

#[test]
fn a_failure_is_saved_and_comes_first_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let search = || check(mistaken).regressions(Some(folder.path().to_path_buf())).search();

    let first = search().failure.unwrap();
    let again = search();

    assert_eq!(again.runs, 1, "the saved one is the first");
    let again = again.failure.unwrap();
    assert_eq!((again.tape, again.says), (first.tape, first.says));
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(first.report.contains(files[0].to_str().unwrap()), "{}", first.report);
}

#[test]
#[should_panic(expected = "group billing reads topic orders, which the scenario does not have; it has: order")]
fn a_topic_that_is_misspelt_is_not_a_test_that_passes() {
    let found = check(|sim| {
        sim.topic("order").records(["order"]);
        let group = sim.group("billing").topics(["orders"]);
        group.run(|mut consumer| consumer.poll(POLL).map(drop));
        sim.run_until_idle().at_least_once();
    });

    found.regressions(None).run();
}

#[test]
fn a_member_that_only_fails_is_not_a_test_that_passes() {
    let found = check(|sim| {
        sim.topic("orders");
        sim.group("billing").run(|_| Err(Error::Timeout { waited: POLL }));
        sim.run_until_idle().at_least_once();
    });

    let failure = found.regressions(None).search().failure.expect("nothing is ever read");
    assert_eq!(failure.guarantee, "drained");
    assert!(failure.says.contains("billing has failed at last: not done after 100ms"), "{}", failure.says);
}

#[test]
#[ignore = "fails on purpose, for the test below"]
fn a_mistake_to_be_seen_by_its_seed() {
    check(mistaken).regressions(None).run();
}

#[test]
fn a_seed_that_is_asked_for_is_the_only_run_and_is_shown_as_it_was() {
    let report = |seed: Option<&str>| {
        let mut test = std::process::Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "kit::a_mistake_to_be_seen_by_its_seed", "--ignored", "--nocapture"]);
        let output = test.envs(seed.map(|seed| ("TIDELOG_SIM_SEED", seed))).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let lines = |report: &str| report.lines().filter(|line| line.contains(" | ")).count();

    let shortest = report(None);
    let hint = shortest.lines().find_map(|line| line.split_once("TIDELOG_SIM_SEED=")).expect("a seed to look at").1;
    let (seed, rest) = hint.split_once(' ').unwrap();
    assert_eq!(rest, "cargo test a_mistake_to_be_seen_by_its_seed");
    let whole = report(Some(seed));

    assert!(shortest.contains("the shortest of") && !whole.contains("the shortest of"), "{whole}");
    assert!(whole.contains(&format!("found by seed {seed}, in run 1")), "{whole}");
    assert!(lines(&whole) > lines(&shortest), "{whole}{shortest}");
}

#[test]
fn the_same_search_finds_the_same_failure_however_often_and_on_however_many_threads() {
    let reports: BTreeSet<String> =
        (0..20).map(|_| check(mistaken).regressions(None).search().failure.unwrap().report).collect();

    assert_eq!(reports.len(), 1, "{reports:#?}");
}

#[test]
fn code_that_depends_on_something_else_is_told_where_its_runs_part() {
    let calls = AtomicU64::new(0);

    let found = check(|sim| {
        mistaken_by_chance(sim, calls.fetch_add(1, Ordering::SeqCst));
    });
    let failure = found.regressions(None).seeds(10).search().failure.unwrap();

    assert!(failure.report.contains("cannot be repeated"), "{}", failure.report);
    assert!(failure.report.contains("they part"), "{}", failure.report);
}

fn mistaken_by_chance(sim: &mut Sim, call: u64) {
    sim.topic("orders").records(["order"]);
    sim.group("billing").run(move |mut consumer| {
        loop {
            let records = consumer.poll(POLL)?;
            (0..call % 7).for_each(|_| point!("by chance"));
            records.iter().for_each(drop);
            consumer.commit()?;
        }
    });
    sim.run_until_idle().holds("nothing", |_| Err("always".to_owned()));
}

#[test]
fn a_fuzzer_drives_the_same_scenario() {
    fuzz_one(&[], mistaken_only_by_faults);
    let failed = (0..64).any(|dull| {
        let bytes = [vec![0; dull], vec![1]].concat();
        std::panic::catch_unwind(|| fuzz_one(&bytes, mistaken_only_by_faults)).is_err()
    });

    assert!(failed, "bytes that are choices break it");
}

fn mistaken_only_by_faults(sim: &mut Sim) {
    mistaken(sim);
}

#[test]
fn an_async_function_runs_without_a_runtime_and_its_future_is_dropped_by_a_crash() {
    let found = check(|sim| {
        sim.topic("orders").records((0..4).map(|n| format!("order {n}")));
        sim.topic("done").records(["none"]);
        let ledger = sim.outside::<BTreeMap<u64, u64>>();
        let theirs = ledger.clone();
        sim.group("billing").topics(["orders"]).run_async(move |consumer| {
            let ledger = theirs.clone();
            async move { charge_slowly(consumer, &ledger).await }
        });
        sim.faults(Faults::none().crashes(1).power_cuts(1));
        let outcome = sim.run_until_idle();
        outcome.no_record_lost().no_offset_skipped().true_records();
        assert!(outcome.faults() > 0 || ledger.with(|ledger| ledger.values().all(|times| *times == 1)));
    });

    found.seeds(200).regressions(None).exhaustive(Scope::default()).run();
}

async fn charge_slowly(mut consumer: Consumer, ledger: &Outside<BTreeMap<u64, u64>>) -> Result<()> {
    loop {
        for record in &consumer.poll_async(POLL).await? {
            // Somebody else answers, after a while.
            tidelog::sim::sleep_async(Duration::from_millis(20)).await;
            ledger.with(|ledger| *ledger.entry(record.offset().get()).or_default() += 1);
        }
        consumer.commit()?;
    }
}

#[test]
fn what_is_sent_in_a_batch_is_known_to_have_been_sent() {
    let found = check(|sim| {
        sim.topic("orders").partitions(2);
        let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
        let billed = sim.outside::<Vec<Vec<u8>>>();
        let theirs = billed.clone();
        sim.group("billing").config(config).run(move |mut consumer| {
            loop {
                let records = consumer.poll(POLL)?;
                records.iter().for_each(|record| theirs.with(|billed| billed.push(record.value().unwrap().to_vec())));
                consumer.commit()?;
            }
        });
        sim.run("shop", |log| {
            let batch =
                ["a", "b", "c", "d"].map(|order| ProducerRecord::new("orders", order.as_bytes()).key(order.as_bytes()));
            log.producer().send_batch(batch)?.wait().map(drop)
        });
        sim.faults(Faults::none().crashes(1));
        let outcome = sim.run_until_idle();
        outcome.at_least_once();
        assert!(outcome.faults() > 0 || billed.with(|billed| billed.len()) == 4);
    });

    found.seeds(300).regressions(None).run();
}

/// The members await records for longer than the group waits for anybody, and whoever sends does so while they wait.
#[test]
fn members_that_await_records_are_woken_by_them_and_by_each_other() {
    let found = check(|sim| {
        sim.topic("orders").partitions(2).records(["early"]);
        let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
        let config = config.auto_commit(false).max_poll_interval(Duration::from_secs(3));
        sim.group("billing").members(2).config(config).run_async(move |mut consumer| async move {
            loop {
                consumer.poll_async(Duration::from_secs(8)).await?.iter().for_each(drop);
                match consumer.commit() {
                    Ok(()) | Err(Error::CommitFailed { .. } | Error::RebalanceInProgress { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        });
        sim.run("shop", |log| {
            for partition in 0..2 {
                tidelog::sim::sleep(Duration::from_millis(500));
                log.producer().send(ProducerRecord::new("orders", b"late").partition(partition))?.wait()?;
            }
            Ok(())
        });
        sim.faults(Faults::none().crashes(1).visitors(1));
        let outcome = sim.run_until_idle();
        outcome.at_least_once();
        if outcome.faults() == 0 {
            outcome.drained_within(Duration::from_secs(1));
        }
    });

    found.seeds(400).regressions(None).run();
}

#[test]
fn poison_ends_in_the_dead_letter_topic_whatever_dies() {
    let found = check(|sim| {
        sim.topic("orders").records(["1", "2", "a lot", "4"]);
        sim.topic("dlq.orders");
        let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest);
        let done = sim.outside::<BTreeSet<u64>>();
        let group = sim.group("billing").config(config).topics(["orders"]);
        group.run_handler_with_dead_letters("dlq.orders", DeadLetterConfig::new(), move |record| {
            let text = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            let number: u64 = text.parse()?;
            done.with(|done| done.insert(number));
            Ok(())
        });
        sim.faults(Faults::none().crashes(1).power_cuts(1));
        let outcome = sim.run_until_idle();
        outcome.at_least_once().dead_letters("dlq.orders", |record| record.value() == b"a lot");
    });

    found.seeds(150).regressions(None).run();
}

#[test]
fn a_poison_record_that_a_handler_swallows_is_found() {
    let found = check(|sim| {
        sim.topic("orders").records(["1", "a lot"]);
        sim.topic("dlq.orders");
        sim.group("billing").topics(["orders"]).run_handler(|_| Ok(()));
        sim.run_until_idle().dead_letters("dlq.orders", |record| record.value() == b"a lot");
    });

    let failure = found.regressions(None).seeds(1).search().failure.unwrap();
    assert_eq!(failure.guarantee, "poison ends in the dead-letter topic");
}

#[test]
fn disks_that_fail_and_fill_up_lose_nothing() {
    let found = check(|sim| {
        sim.topic("orders").config(TopicConfig::new().segment_bytes(4096)).records((0..6).map(|n| vec![n; 700]));
        let done = sim.outside::<BTreeSet<u64>>();
        sim.group("billing").run_handler(move |record| {
            done.with(|done| done.insert(record.offset().get()));
            Ok(())
        });
        sim.faults(Faults::none().disk_errors(1).disk_full(1).crashes(1));
        sim.run_until_idle().at_least_once();
    });

    found.seeds(300).regressions(None).run();
}

#[test]
fn a_panic_of_the_code_under_test_is_a_failure_with_its_message() {
    let found = check(|sim| {
        sim.topic("orders").records(["order"]);
        sim.group("billing").run(|mut consumer| {
            assert!(consumer.poll(POLL)?.is_empty(), "there was a record");
            Ok(())
        });
        sim.run_until_idle();
    });

    let failure = found.regressions(None).seeds(1).search().failure.unwrap();
    assert!(failure.says.contains("there was a record"), "{}", failure.report);
}

#[test]
fn a_failure_can_be_looked_at_as_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("failure.html");

    let failure = check(mistaken).regressions(None).html(&file).search().failure.unwrap();

    let page = std::fs::read_to_string(&file).unwrap();
    assert!(failure.report.contains("failure.html"));
    assert!(page.contains("CRASH") || page.contains("POWER CUT"), "{page}");
    assert!(page.contains(&format!("<h1>{}</h1><p class=w>{}</p>", failure.guarantee, failure.says)), "{page}");
    assert_eq!(page.matches("<div class='s ").count(), failure.steps, "{page}");
    // Lanes: of the member before the crash and behind it, and of the machine.
    assert!(page.matches("<i style=").count() >= 2, "{page}");
    assert!(!page.contains("http") && !page.contains("url("), "a page that needs no network");
}

#[test]
fn a_log_in_memory_does_what_a_test_tells_it() {
    let (log, controls) = EventLog::in_memory().unwrap();
    log.create_topic("orders", TopicConfig::new()).unwrap();
    let producer = log.producer();
    producer.send(ProducerRecord::new("orders", b"first")).unwrap();
    controls.fail_next_send(Error::Closed);
    assert!(producer.send(ProducerRecord::new("orders", b"lost")).is_err());
    let config = ConsumerConfig::group("billing").auto_offset_reset(OffsetReset::Earliest).auto_commit(false);
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["orders"]).unwrap();

    controls.fail_next_poll(Error::Wakeup);
    assert!(matches!(consumer.poll(POLL), Err(Error::Wakeup)));
    assert_eq!(consumer.poll(POLL).unwrap().len(), 1);
    controls.fail_next_commit(Error::Timeout { waited: POLL });
    assert!(matches!(consumer.commit(), Err(Error::Timeout { .. })));
    assert_eq!(consumer.committed(&("orders", 0).into()).unwrap(), None);
    consumer.commit().unwrap();

    controls.rebalance("billing", "orders").unwrap();
    assert!(matches!(consumer.commit(), Ok(()) | Err(Error::CommitFailed { .. })));
    assert_eq!(consumer.wait_for_assignment(Duration::from_secs(1)).unwrap(), [("orders", 0).into()]);

    let before = controls.now();
    controls.advance(Duration::from_secs(3600));
    assert_eq!(controls.now().as_millis() - before.as_millis(), 3_600_000);
    assert_eq!(consumer.committed(&("orders", 0).into()).unwrap().unwrap().offset.get(), 1);
}

#[test]
fn a_test_on_another_thread_knows_nothing_of_a_simulation() {
    thread_local! {
        static HERE: Cell<bool> = const { Cell::new(false) };
    }
    HERE.set(true);
    assert!(std::panic::catch_unwind(tidelog::sim::now).is_err(), "there is no time of a simulation here");
    assert!(HERE.get());
}
