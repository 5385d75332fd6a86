//! Kafka's semantics of consuming. The cases are those of `vectors/consumer_semantics.json`, taken from Apache Kafka's
//! integration tests; a comment in a test names its case. What needs a group of several members is in `tests/groups.rs`.
//!
//! | case                          | where it runs, or why it does not |
//! |-------------------------------|---|
//! | `commit-nothing`              | `consumer::a_commit_without_a_position_commits_nothing` |
//! | `commit-all-consumed`         | `consumer::a_commit_names_the_next_offset_to_read` |
//! | `assign-no-group`             | `consumer::a_consumer_without_a_group_reads_what_it_is_assigned_and_commits_nothing` |
//! | `assign-seek`                 | `consumer::a_seek_before_the_first_poll_decides_where_it_begins` |
//! | `assign-second-consumer`      | `consumer::what_one_consumer_of_a_group_commits_another_sees_and_starts_from` |
//! | `assign-from-commit`          | `consumer::what_one_consumer_of_a_group_commits_another_sees_and_starts_from` |
//! | `commit-async-order`          | `groups::commits_without_waiting_hold_at_once_and_call_back_in_order` |
//! | `commit-specified`            | `consumer::offsets_are_committed_one_by_one_and_leave_the_positions_alone` |
//! | `position-and-commit`         | `consumer::a_position_is_found_out_when_it_is_asked_for` |
//! | `autocommit-on-rebalance`     | `consumer::positions_are_committed_before_a_subscription_changes` |
//! | `reset-none`                  | `consumer::without_a_reset_policy_a_missing_or_impossible_position_is_an_error_until_it_is_sought` |
//! | `reset-earliest-out-of-range` | `consumer::an_impossible_position_is_reset_as_the_policy_says` |
//! | `reset-latest-out-of-range`   | `consumer::an_impossible_position_is_reset_as_the_policy_says` |
//! | `large-record-first`          | left out: there are no fetch sizes, `max_poll_records` alone limits a poll |
//! | `seek-basic`                  | `consumer::seeking_goes_to_the_beginning_the_end_and_any_place_between` |
//! | `seek-unassigned`             | `consumer::seeking_goes_to_the_beginning_the_end_and_any_place_between` |
//! | `pause-resume`                | `consumer::a_paused_partition_returns_nothing_until_it_is_resumed` |
//! | `max-poll-records-lag`        | `consumer::a_poll_returns_at_most_what_it_may_and_the_rest_is_lag` |
//! | `poll-zero`                   | `consumer::a_poll_that_may_not_wait_returns_everything_in_the_end` |
//! | `max-poll-interval`           | `groups::who_does_not_poll_is_put_out_and_what_it_commits_is_refused` |
//! | `slow-assign-callback`        | `groups::time_within_a_poll_does_not_count` |
//! | `null-group`                  | `consumer::a_consumer_without_a_group_reads_what_it_is_assigned_and_commits_nothing` |
//! | `subscribe-pattern`           | `groups::a_pattern_takes_in_what_matches_now_and_what_will` |
//! | `subscribe-shrink-expand`     | `consumer::a_subscription_follows_what_it_is_changed_to`, `groups::members_with_different_subscriptions_get_what_they_want_only` |
//! | `subscribe-then-assign`       | `consumer::a_subscription_follows_what_it_is_changed_to`, `groups::a_listener_can_ask_and_move_but_not_poll` |
//! | `callback-position`           | `groups::a_listener_can_ask_and_move_but_not_poll` |
//! | `callback-seek-pause`         | `groups::a_listener_can_ask_and_move_but_not_poll` |
//! | `assigned-always-called`      | `groups::what_is_committed_while_partitions_are_revoked_is_where_the_new_owner_starts` |
//! | `lost`                        | `groups::who_does_not_poll_is_put_out_and_what_it_commits_is_refused` |
//! | `interceptors`                | left out: there are no interceptors; callbacks, listeners and codecs are there |
//! | `next-offsets`                | `consumer::the_next_offsets_of_a_poll_are_what_to_commit_for_it` |
//! | `end-offsets`                 | `consumer::beginning_and_end_are_known_of_any_partition` |
//! | `create-partitions`           | `consumer::partitions_are_added_and_never_taken_away_and_consumers_notice` |
#![cfg(feature = "sim")]

use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{
    Consumer, ConsumerConfig, Durability, Error, EventLog, LogConfig, Offset, OffsetAndMetadata, OffsetReset,
    ProducerRecord, TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;

fn tp() -> TopicPartition {
    TopicPartition::new("topic", 0)
}

fn tp2() -> TopicPartition {
    TopicPartition::new("topic", 1)
}

/// A log with a topic of two partitions.
fn log() -> (Machine, EventLog) {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    log.create_topic("topic", TopicConfig::new().partitions(2).durability(Durability::Os)).unwrap();
    (machine, log)
}

fn send(log: &EventLog, partition: &TopicPartition, count: usize) {
    for n in 0..count {
        let value = n.to_string();
        let record = ProducerRecord::new(partition.topic(), &value).partition(partition.partition());
        log.producer().send(record).unwrap();
    }
}

/// The set-up of Kafka's integration tests: earliest, no automatic commits.
fn config(group: &str) -> ConsumerConfig {
    ConsumerConfig::group(group).auto_offset_reset(OffsetReset::Earliest).auto_commit(false)
}

fn consumer(log: &EventLog) -> Consumer {
    log.consumer(config("group")).unwrap()
}

fn assigned(log: &EventLog) -> Consumer {
    let mut consumer = consumer(log);
    consumer.assign([tp()]).unwrap();
    consumer
}

/// The offsets of all records that polls return now.
fn drain(consumer: &mut Consumer) -> Vec<u64> {
    let mut offsets = Vec::new();
    loop {
        let records = consumer.poll(NOW).unwrap();
        if records.is_empty() {
            return offsets;
        }
        offsets.extend(records.iter().map(|record| record.offset().get()));
    }
}

fn committed(consumer: &Consumer, partition: &TopicPartition) -> Option<u64> {
    consumer.committed(partition).unwrap().map(|committed| committed.offset.get())
}

#[test]
fn a_commit_without_a_position_commits_nothing() {
    // commit-nothing
    let (_machine, log) = log();
    send(&log, &tp(), 10_000);
    let mut consumer = assigned(&log);

    consumer.commit().unwrap();

    assert_eq!(committed(&consumer, &tp()), None);
}

#[test]
fn a_commit_names_the_next_offset_to_read() {
    // commit-all-consumed
    let (_machine, log) = log();
    send(&log, &tp(), 10_000);
    let mut consumer = assigned(&log);
    consumer.seek(&tp(), 0).unwrap();
    assert_eq!(drain(&mut consumer).len(), 10_000);

    consumer.commit().unwrap();

    assert_eq!(committed(&consumer, &tp()), Some(10_000));
}

#[test]
fn a_consumer_without_a_group_reads_what_it_is_assigned_and_commits_nothing() {
    // assign-no-group, null-group
    let (_machine, log) = log();
    send(&log, &tp(), 3);
    let read = |reset, seek: Option<u64>| {
        let mut consumer = log.consumer(ConsumerConfig::new().auto_offset_reset(reset)).unwrap();
        consumer.assign([tp()]).unwrap();
        if let Some(offset) = seek {
            consumer.seek(&tp(), offset).unwrap();
        }
        drain(&mut consumer)
    };

    assert_eq!(read(OffsetReset::Earliest, None), [0, 1, 2]);
    assert!(read(OffsetReset::Latest, None).is_empty());
    assert_eq!(read(OffsetReset::Latest, Some(1)), [1, 2]);
    let mut consumer = log.consumer(ConsumerConfig::new()).unwrap();
    assert!(matches!(consumer.commit(), Err(Error::InvalidGroup { .. })));
    assert!(matches!(consumer.committed(&tp()), Err(Error::InvalidGroup { .. })));
    let explicit = ConsumerConfig::new().auto_commit(true);
    assert!(matches!(log.consumer(explicit), Err(Error::InvalidConfig { setting: "enable.auto.commit", .. })));
}

#[test]
fn a_seek_before_the_first_poll_decides_where_it_begins() {
    // assign-seek
    let (_machine, log) = log();
    send(&log, &tp(), 10);
    let mut consumer = assigned(&log);

    consumer.seek(&tp(), 1).unwrap();

    assert_eq!(drain(&mut consumer), (1..10).collect::<Vec<_>>());
    assert_eq!(consumer.position(&tp()).unwrap(), Offset::new(10));
}

#[test]
fn what_one_consumer_of_a_group_commits_another_sees_and_starts_from() {
    // assign-second-consumer, assign-from-commit
    let (_machine, log) = log();
    send(&log, &tp(), 100);
    let mut first = assigned(&log);
    first.commit_offsets([(tp(), Offset::new(10))]).unwrap();
    first.close().unwrap();

    let mut second = consumer(&log);

    assert_eq!(committed(&second, &tp()), Some(10));
    second.assign([tp()]).unwrap();
    assert_eq!(drain(&mut second), (10..100).collect::<Vec<_>>());
}

#[test]
fn offsets_are_committed_one_by_one_and_leave_the_positions_alone() {
    // commit-specified
    let (_machine, log) = log();
    send(&log, &tp(), 5);
    send(&log, &tp2(), 7);
    let mut consumer = consumer(&log);
    consumer.assign([tp(), tp2()]).unwrap();
    let before = (consumer.position(&tp()).unwrap(), consumer.position(&tp2()).unwrap());

    consumer.commit_offsets([(tp(), OffsetAndMetadata::new(Offset::new(3), "foo"))]).unwrap();
    assert_eq!((committed(&consumer, &tp()), committed(&consumer, &tp2())), (Some(3), None));
    assert_eq!(consumer.committed(&tp()).unwrap().unwrap().metadata, "foo");
    consumer.commit_offsets([(tp2(), Offset::new(5))]).unwrap();

    assert_eq!((committed(&consumer, &tp()), committed(&consumer, &tp2())), (Some(3), Some(5)));
    assert_eq!((consumer.position(&tp()).unwrap(), consumer.position(&tp2()).unwrap()), before);
}

#[test]
fn a_commit_that_cannot_be_is_refused_whole() {
    let (_machine, log) = log();
    send(&log, &tp(), 5);
    let mut consumer = assigned(&log);

    let long = OffsetAndMetadata::new(Offset::new(1), "x".repeat(4097));
    let refused = consumer.commit_offsets([(tp2(), OffsetAndMetadata::from(Offset::ZERO)), (tp(), long)]);
    assert!(matches!(refused, Err(Error::OffsetMetadataTooLarge { bytes: 4097, limit: 4096 })));
    assert!(matches!(
        consumer.commit_offsets([(tp(), Offset::new(6))]),
        Err(Error::OffsetOutOfRange { requested, .. }) if requested == Offset::new(6)
    ));
    assert!(matches!(
        consumer.commit_offsets([(TopicPartition::new("topic", 15), Offset::ZERO)]),
        Err(Error::UnknownPartition { partitions: 2, .. })
    ));
    assert_eq!((committed(&consumer, &tp()), committed(&consumer, &tp2())), (None, None));
    consumer.commit_offsets([(tp(), OffsetAndMetadata::new(Offset::new(5), "x".repeat(4096)))]).unwrap();
}

#[test]
fn a_position_is_found_out_when_it_is_asked_for() {
    // position-and-commit
    let (_machine, log) = log();
    send(&log, &tp(), 5);
    let mut consumer = consumer(&log);
    assert_eq!(committed(&consumer, &TopicPartition::new("topic", 15)), None);
    assert!(matches!(consumer.position(&tp()), Err(Error::NotAssigned { .. })));

    consumer.assign([tp()]).unwrap();
    assert_eq!(consumer.position(&tp()).unwrap(), Offset::ZERO);
    consumer.commit().unwrap();
    assert_eq!(committed(&consumer, &tp()), Some(0));
    assert_eq!(drain(&mut consumer).len(), 5);
    consumer.commit().unwrap();
    send(&log, &tp(), 1);

    let mut other = assigned(&log);
    assert_eq!(drain(&mut other), [5]);
}

#[test]
fn without_a_reset_policy_a_missing_or_impossible_position_is_an_error_until_it_is_sought() {
    // reset-none
    let (_machine, log) = log();
    send(&log, &tp(), 2);
    let mut consumer = log.consumer(config("group").auto_offset_reset(OffsetReset::None)).unwrap();
    consumer.assign([tp()]).unwrap();

    assert!(matches!(consumer.poll(NOW), Err(Error::NoOffsetForPartition { partition }) if partition == tp()));
    consumer.seek(&tp(), 3).unwrap();
    assert!(matches!(
        consumer.poll(NOW),
        Err(Error::OffsetOutOfRange { partition, requested, .. }) if partition == tp() && requested == Offset::new(3)
    ));
    consumer.seek(&tp(), 0).unwrap();
    assert_eq!(drain(&mut consumer), [0, 1]);
}

#[test]
fn an_impossible_position_is_reset_as_the_policy_says() {
    // reset-earliest-out-of-range, reset-latest-out-of-range
    let (_machine, log) = log();
    send(&log, &tp(), 10);
    let mut earliest = assigned(&log);
    drain(&mut earliest);
    earliest.seek(&tp(), 11).unwrap();
    assert_eq!(drain(&mut earliest)[0], 0);

    let mut latest = log.consumer(config("other").auto_offset_reset(OffsetReset::Latest).max_poll_records(5)).unwrap();
    latest.assign([tp()]).unwrap();
    latest.seek(&tp(), 0).unwrap();
    assert_eq!(latest.poll(NOW).unwrap().len(), 5);
    latest.seek(&tp(), 27).unwrap();
    assert!(latest.poll(NOW).unwrap().is_empty());
    assert_eq!(latest.position(&tp()).unwrap(), Offset::new(10));
    send(&log, &tp(), 10);
    assert_eq!(drain(&mut latest)[0], 10);
}

#[test]
fn seeking_goes_to_the_beginning_the_end_and_any_place_between() {
    // seek-basic, seek-unassigned
    let (_machine, log) = log();
    send(&log, &tp(), 50);
    let mut consumer = assigned(&log);
    consumer.seek_to_end(&[tp()]).unwrap();
    assert_eq!(consumer.position(&tp()).unwrap(), Offset::new(50));
    assert!(consumer.poll(NOW).unwrap().is_empty());
    consumer.seek_to_beginning(&[]).unwrap();
    assert_eq!(consumer.position(&tp()).unwrap(), Offset::ZERO);
    assert_eq!(consumer.poll(NOW).unwrap().iter().next().unwrap().offset(), Offset::ZERO);
    consumer.seek(&tp(), 25).unwrap();
    assert_eq!(consumer.position(&tp()).unwrap(), Offset::new(25));
    assert_eq!(drain(&mut consumer)[0], 25);

    let refused = consumer.seek_to_end(&[tp(), tp2()]).unwrap_err();
    assert_eq!(refused.to_string(), "no current assignment for partition topic-1");
    assert_eq!(consumer.position(&tp()).unwrap(), Offset::new(50), "none was moved");
}

#[test]
fn a_seek_to_the_end_goes_to_where_the_end_is_when_it_is_needed() {
    let (_machine, log) = log();
    send(&log, &tp(), 3);
    let mut consumer = assigned(&log);

    consumer.seek_to_end(&[]).unwrap();
    send(&log, &tp(), 4);

    assert_eq!(consumer.position(&tp()).unwrap(), Offset::new(7));
}

#[test]
fn a_paused_partition_returns_nothing_until_it_is_resumed() {
    // pause-resume
    let (_machine, log) = log();
    send(&log, &tp(), 5);
    let mut consumer = assigned(&log);
    assert_eq!(drain(&mut consumer).len(), 5);
    consumer.pause(&[tp()]).unwrap();
    send(&log, &tp(), 5);
    assert!(consumer.poll(NOW).unwrap().is_empty());
    assert_eq!(consumer.paused(), [tp()]);

    consumer.resume(&[tp()]).unwrap();

    assert_eq!(drain(&mut consumer), [5, 6, 7, 8, 9]);
}

#[test]
fn a_poll_returns_at_most_what_it_may_and_the_rest_is_lag() {
    // max-poll-records-lag
    let (_machine, log) = log();
    send(&log, &tp(), 1000);
    let mut consumer = log.consumer(config("group").max_poll_records(10)).unwrap();
    consumer.assign([tp()]).unwrap();

    assert_eq!(consumer.poll(NOW).unwrap().len(), 10);

    assert_eq!(consumer.lag(&tp()).unwrap(), 990);
    assert!(matches!(
        log.consumer(config("group").max_poll_records(0)),
        Err(Error::InvalidConfig { setting: "max.poll.records", .. })
    ));
}

#[test]
fn polls_and_seeks_come_to_every_place_of_a_long_batch() {
    let (_machine, log) = log();
    let value = |n: u64| vec![n as u8; if n % 7 == 3 { n as usize } else { 20 }];
    for first in (0..200).step_by(50) {
        let values: Vec<Vec<u8>> = (first..first + 50).map(value).collect();
        let records = values.iter().map(|value| ProducerRecord::new("topic", value).partition(0));
        log.producer().send_batch(records).unwrap();
    }

    for most in [1, 3, 49, 50, 64, 500] {
        let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest).max_poll_records(most);
        let mut consumer = log.consumer(config).unwrap();
        consumer.assign([tp()]).unwrap();
        for from in (0..200).rev() {
            consumer.seek(&tp(), from).unwrap();
            // The first poll goes there, the second goes on from where that ended.
            for from in [from, (from + most as u64).min(200)] {
                let records = consumer.poll(NOW).unwrap();
                let read: Vec<_> =
                    records.iter().map(|record| (record.offset().get(), record.value().unwrap().to_vec())).collect();
                let due: Vec<_> = (from..200).take(most).map(|n| (n, value(n))).collect();
                assert_eq!(read, due, "{most} from {from} on");
                assert_eq!(consumer.position(&tp()).unwrap().get(), from + due.len() as u64);
            }
        }
    }
}

#[test]
fn polls_take_turns_among_the_partitions() {
    let (_machine, log) = log();
    send(&log, &tp(), 100);
    send(&log, &tp2(), 100);
    let mut consumer = log.consumer(config("group").max_poll_records(10)).unwrap();
    consumer.subscribe(["topic"]).unwrap();

    let mut asked = Vec::new();
    for _ in 0..20 {
        asked.extend(consumer.poll(NOW).unwrap().partitions().map(TopicPartition::partition));
    }

    assert_eq!(asked.iter().filter(|partition| **partition == 0).count(), 10, "{asked:?}");
}

#[test]
fn a_poll_that_may_not_wait_returns_everything_in_the_end() {
    // poll-zero
    let (_machine, log) = log();
    send(&log, &tp(), 60);
    send(&log, &tp2(), 40);
    let mut consumer = consumer(&log);
    consumer.subscribe(["topic"]).unwrap();

    assert_eq!(drain(&mut consumer).len(), 100);
}

#[test]
fn a_subscription_follows_what_it_is_changed_to() {
    // subscribe-shrink-expand, subscribe-then-assign
    let (_machine, log) = log();
    log.create_topic("other", TopicConfig::new()).unwrap();
    let mut consumer = consumer(&log);
    for (topics, partitions) in [(&["topic", "other"][..], 3), (&["topic"], 2), (&["topic", "other"], 3)] {
        consumer.subscribe(topics.iter().copied()).unwrap();
        consumer.poll(NOW).unwrap();
        assert_eq!(consumer.assignment().len(), partitions, "{topics:?}");
    }

    assert!(matches!(consumer.assign([tp()]), Err(Error::InvalidState { .. })));
    consumer.unsubscribe().unwrap();
    consumer.assign([tp()]).unwrap();
    assert!(matches!(consumer.subscribe(["topic"]), Err(Error::InvalidState { .. })));
    assert!(matches!(log.consumer(config("x")).unwrap().poll(NOW), Err(Error::InvalidState { .. })));
}

#[test]
fn the_next_offsets_of_a_poll_are_what_to_commit_for_it() {
    // next-offsets
    let (_machine, log) = log();
    send(&log, &tp(), 3);
    send(&log, &tp2(), 2);
    let mut consumer = consumer(&log);
    consumer.subscribe(["topic"]).unwrap();

    let records = consumer.poll(NOW).unwrap();

    assert_eq!(records.next_offsets().collect::<Vec<_>>(), [(tp(), Offset::new(3)), (tp2(), Offset::new(2))]);
    assert_eq!(records.records(&tp2()).map(|record| record.offset().get()).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn the_records_of_a_partition_are_all_of_them_also_beyond_the_end_of_a_segment() {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    let small = TopicConfig::new().partitions(2).durability(Durability::Os).segment_bytes(4096);
    log.create_topic("topic", small).unwrap();
    send(&log, &tp(), 120);
    send(&log, &tp2(), 3);
    let mut consumer = consumer(&log);
    consumer.assign([tp(), tp2()]).unwrap();

    let records = consumer.poll(NOW).unwrap();

    assert_eq!(records.len(), 123);
    for (partition, count) in [(tp(), 120), (tp2(), 3)] {
        let offsets: Vec<u64> = records.records(&partition).map(|record| record.offset().get()).collect();
        assert_eq!(offsets, (0..count).collect::<Vec<_>>(), "{partition}");
    }
    assert_eq!(records.records(&("other", 0).into()).count(), 0);
    assert_eq!(records.partitions().cloned().collect::<Vec<_>>(), [tp(), tp2()]);
}

#[test]
fn beginning_and_end_are_known_of_any_partition() {
    // end-offsets
    let (_machine, log) = log();
    send(&log, &tp(), 10_000);
    let consumer = consumer(&log);

    assert_eq!(consumer.end_offsets(&[tp(), tp2()]).unwrap(), [(tp(), 10_000.into()), (tp2(), 0.into())].into());
    assert_eq!(consumer.beginning_offsets(&[tp()]).unwrap(), [(tp(), Offset::ZERO)].into());
}

#[test]
fn partitions_are_added_and_never_taken_away_and_consumers_notice() {
    // create-partitions
    let (_machine, log) = log();
    let mut consumer = consumer(&log);
    consumer.subscribe(["topic"]).unwrap();
    consumer.poll(NOW).unwrap();

    log.add_partitions("topic", 3).unwrap();
    for total in [3, 1, 0] {
        let refused = log.add_partitions("topic", total);
        assert!(matches!(refused, Err(Error::InvalidPartitions { requested, .. }) if requested == total));
    }
    assert!(matches!(log.add_partitions("nope", 3), Err(Error::UnknownTopic { .. })));

    send(&log, &TopicPartition::new("topic", 2), 1);
    assert_eq!(consumer.poll(NOW).unwrap().len(), 1);
    assert_eq!(consumer.assignment().len(), 3);
}

#[test]
fn automatic_commits_cover_what_earlier_polls_returned() {
    let (machine, log) = log();
    send(&log, &tp(), 30);
    let config = ConsumerConfig::group("group").auto_offset_reset(OffsetReset::Earliest).max_poll_records(10);
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["topic"]).unwrap();

    consumer.poll(NOW).unwrap();
    machine.advance(Duration::from_millis(4999));
    consumer.poll(NOW).unwrap();
    assert_eq!(committed(&consumer, &tp()), None, "not yet");
    machine.advance(Duration::from_millis(1));
    consumer.poll(NOW).unwrap();
    assert_eq!(committed(&consumer, &tp()), Some(20), "what the poll itself returns is not processed yet");

    let other = log.consumer(ConsumerConfig::group("group")).unwrap();
    consumer.close().unwrap();
    assert_eq!(committed(&other, &tp()), Some(30), "closing commits everything that was returned");
}

#[test]
fn an_offset_that_was_sought_is_committed_on_close() {
    let (_machine, log) = log();
    send(&log, &tp(), 30);
    let mut consumer = log.consumer(ConsumerConfig::group("group")).unwrap();
    consumer.assign([tp()]).unwrap();
    consumer.seek(&tp(), 7).unwrap();
    consumer.close().unwrap();

    assert_eq!(committed(&self::consumer(&log), &tp()), Some(7));
}

#[test]
fn positions_are_committed_before_a_subscription_changes() {
    // autocommit-on-rebalance, without its listener
    let (_machine, log) = log();
    log.create_topic("topic2", TopicConfig::new()).unwrap();
    send(&log, &tp(), 600);
    send(&log, &tp2(), 600);
    let mut consumer = log.consumer(ConsumerConfig::group("group")).unwrap();
    consumer.subscribe(["topic"]).unwrap();
    consumer.poll(NOW).unwrap();
    consumer.pause(&[tp(), tp2()]).unwrap();
    consumer.seek(&tp(), 300).unwrap();
    consumer.seek(&tp2(), 500).unwrap();

    consumer.subscribe(["topic", "topic2"]).unwrap();
    consumer.poll(NOW).unwrap();

    assert_eq!(consumer.assignment().len(), 3);
    assert_eq!((committed(&consumer, &tp()), committed(&consumer, &tp2())), (Some(300), Some(500)));
}

#[test]
fn a_consumer_that_panics_commits_nothing_and_leaves_the_group() {
    let (_machine, log) = log();
    send(&log, &tp(), 3);
    let config = || ConsumerConfig::group("group").auto_offset_reset(OffsetReset::Earliest);
    let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut consumer = log.consumer(config()).unwrap();
        consumer.subscribe(["topic"]).unwrap();
        assert_eq!(consumer.poll(NOW).unwrap().len(), 3);
        panic!("in the middle of processing");
    }));
    assert!(crashed.is_err());

    let mut next = log.consumer(config()).unwrap();
    next.subscribe(["topic"]).unwrap();

    assert_eq!(drain(&mut next), [0, 1, 2]);
}

#[test]
fn records_stay_readable_after_topic_consumer_and_log_are_gone() {
    let (_machine, log) = log();
    send(&log, &tp(), 3);
    let mut consumer = consumer(&log);
    consumer.subscribe(["topic"]).unwrap();
    let records = consumer.poll(NOW).unwrap();

    log.delete_topic("topic").unwrap();
    drop(consumer);
    log.close().unwrap();

    let values: Vec<&[u8]> = records.iter().map(|record| record.value().unwrap()).collect();
    assert_eq!(values, [b"0", b"1", b"2"]);
}

#[test]
fn a_deleted_topic_takes_its_committed_offsets_along() {
    let (_machine, log) = log();
    send(&log, &tp(), 3);
    let mut consumer = assigned(&log);
    drain(&mut consumer);
    consumer.commit().unwrap();
    consumer.close().unwrap();

    log.delete_topic("topic").unwrap();
    log.create_topic("topic", TopicConfig::new()).unwrap();

    assert_eq!(committed(&self::consumer(&log), &tp()), None);
    assert!(log.describe_group("group").unwrap().offsets.is_empty());
}

#[test]
fn a_blocked_poll_ends_when_its_time_is_over_a_record_comes_or_it_is_woken() {
    let machine = Machine::new(3);
    let log = machine.open(LogConfig::new()).unwrap();
    log.create_topic("topic", TopicConfig::new()).unwrap();
    let mut consumer = log.consumer(config("group")).unwrap();
    consumer.subscribe(["topic"]).unwrap();

    let before = machine.now();
    assert!(consumer.poll(Duration::from_secs(3)).unwrap().is_empty());
    assert_eq!(machine.now().as_millis() - before.as_millis(), 3000, "nobody moved the clock but the poll");

    let delivery = log.producer().send(ProducerRecord::new("topic", b"1")).unwrap();
    assert!(!delivery.is_delivered(), "nobody has synced");
    assert_eq!(consumer.poll(Duration::from_secs(3)).unwrap().len(), 1, "the worker syncs what nobody waits for");

    consumer.waker().wake();
    assert!(matches!(consumer.poll(Duration::from_secs(3)), Err(Error::Wakeup)));
    assert!(consumer.poll(Duration::from_secs(1)).unwrap().is_empty(), "a wake-up counts once");
}

/// The table above is whole.
#[test]
fn every_case_of_kafkas_has_a_row() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("vectors/consumer_semantics.json")).unwrap();
    let rows: Vec<&str> = include_str!("consumer.rs").lines().filter(|line| line.starts_with("//! | `")).collect();
    let tests = [include_str!("consumer.rs"), include_str!("groups.rs")].concat();
    for case in vectors["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let row = rows.iter().find(|row| row.starts_with(&format!("//! | `{id}` ")));
        let place = row.unwrap_or_else(|| panic!("{id} has no row")).split('|').nth(2).unwrap();
        for test in place.split('`').filter_map(|name| name.split_once("::")) {
            assert!(tests.contains(&format!("fn {}()", test.1)), "{id}: there is no test {}", test.1);
        }
        assert!(place.contains("::") || place.contains("left out"), "{id}");
    }
}

/// Not of Kafka, which has no such setting.
#[test]
fn a_consumer_that_spins_sees_what_comes_and_gives_up_when_the_time_is_over() {
    let (machine, log) = log();
    let config = ConsumerConfig::new().auto_offset_reset(OffsetReset::Earliest).spin(Duration::from_millis(50));
    let mut consumer = log.consumer(config).unwrap();
    consumer.assign([tp()]).unwrap();
    let before = machine.now();

    assert!(consumer.poll(Duration::from_millis(20)).unwrap().is_empty());
    assert_eq!(machine.now().as_millis() - before.as_millis(), 20);
    assert!(consumer.poll(Duration::from_millis(200)).unwrap().is_empty());
    assert_eq!(machine.now().as_millis() - before.as_millis(), 220);

    send(&log, &tp(), 1);
    assert_eq!(consumer.poll(Duration::from_millis(20)).unwrap().len(), 1);
    consumer.waker().wake();
    assert!(matches!(consumer.poll(Duration::from_millis(20)), Err(Error::Wakeup)));
}

#[test]
fn a_groups_log_is_written_anew_once_it_is_long_and_its_segment_says_how_long() {
    for (bytes, grows_to) in [(64 << 10, 128 << 10), (1 << 20, 1 << 20)] {
        let machine = Machine::new(1);
        let log = machine.open(LogConfig::new().background(false).offsets_segment_bytes(bytes)).unwrap();
        log.create_topic("orders", TopicConfig::new()).unwrap();
        let mut consumer = log.consumer(ConsumerConfig::group("billing").auto_commit(false)).unwrap();
        let partition = TopicPartition::new("orders", 0);
        consumer.assign([partition.clone()]).unwrap();
        for _ in 0..6_000 {
            consumer.commit_offsets_async([(partition.clone(), Offset::ZERO)], |_| {}).unwrap();
        }
        let held: usize = machine
            .files()
            .iter()
            .filter(|path| path.starts_with("groups"))
            .map(|path| machine.read_file(path).len())
            .sum();
        assert!(held <= grows_to, "{held} bytes with segments of {bytes}");
        assert!(held > bytes as usize / 4, "{held} bytes with segments of {bytes}: it is written anew too soon");
    }
    for bytes in [(64 << 10) - 1, (1 << 31) + 1] {
        let opened = Machine::new(1).open(LogConfig::new().offsets_segment_bytes(bytes));
        assert!(matches!(opened, Err(Error::InvalidConfig { setting: "offsets.topic.segment.bytes", .. })), "{bytes}");
    }
}
