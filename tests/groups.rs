//! Consumer groups with many members: who owns what, who is told of it and when, whose commits count.
//!
//! The cases named in comments are those of `vectors/consumer_semantics.json`, from Apache Kafka's integration tests.
//! Everything runs on the simulated clock, members taking turns in one thread; what needs threads is in
//! `tests/group_threads.rs`.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidelog::sim::Machine;
use tidelog::{
    Assignor, Consumer, ConsumerConfig, CooperativeStickyAssignor, Durability, Error, EventLog, GroupState, LogConfig,
    Offset, OffsetReset, ProducerRecord, RangeAssignor, RebalanceListener, ResetTo, Result, RoundRobinAssignor,
    Subscription, Timestamp, TopicConfig, TopicPartition,
};

const NOW: Duration = Duration::ZERO;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn tp(number: u32) -> TopicPartition {
    TopicPartition::new("topic", number)
}

fn tps(numbers: &[u32]) -> Vec<TopicPartition> {
    numbers.iter().map(|number| tp(*number)).collect()
}

/// A log with a topic of so many partitions.
fn log(partitions: u32) -> (Machine, EventLog) {
    let machine = Machine::new(1);
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    topic(&log, "topic", partitions);
    (machine, log)
}

fn topic(log: &EventLog, name: &str, partitions: u32) {
    log.create_topic(name, TopicConfig::new().partitions(partitions).durability(Durability::Os)).unwrap();
}

fn send(log: &EventLog, partition: u32, count: usize) {
    for n in 0..count {
        log.producer().send(ProducerRecord::new("topic", n.to_string().as_bytes()).partition(partition)).unwrap();
    }
}

/// Earliest, no automatic commits.
fn config() -> ConsumerConfig {
    ConsumerConfig::group("group").auto_offset_reset(OffsetReset::Earliest).auto_commit(false)
}

fn cooperative() -> ConsumerConfig {
    config().assignor(CooperativeStickyAssignor)
}

fn member(log: &EventLog, config: ConsumerConfig) -> Consumer {
    let mut consumer = log.consumer(config).unwrap();
    consumer.subscribe(["topic"]).unwrap();
    consumer
}

/// Lets the members poll in turn, until nobody has anything to do for the group any more. What they read is lost.
fn settle(members: &mut [&mut Consumer]) {
    for _ in 0..10 {
        for member in &mut *members {
            member.poll(NOW).unwrap();
        }
    }
}

fn assignments(members: &[&Consumer]) -> Vec<Vec<TopicPartition>> {
    members.iter().map(|member| member.assignment()).collect()
}

fn committed(consumer: &Consumer, partition: u32) -> Option<u64> {
    consumer.committed(&tp(partition)).unwrap().map(|committed| committed.offset.get())
}

fn state(log: &EventLog) -> GroupState {
    log.describe_group("group").unwrap().state
}

/// What the listeners of a test were told, in order: `a+[topic-0]`, `a-[topic-0]`, `a![topic-0]` for lost.
type Story = Arc<Mutex<Vec<String>>>;

/// Writes down what it is told, and commits what is revoked.
struct Recorder {
    name: &'static str,
    story: Story,
}

impl Recorder {
    fn write(&self, what: char, partitions: &[TopicPartition]) {
        self.story.lock().unwrap().push(format!("{}{what}{partitions:?}", self.name));
    }
}

impl RebalanceListener for Recorder {
    fn assigned(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.write('+', partitions);
        Ok(())
    }

    fn revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.write('-', partitions);
        consumer.commit()
    }

    fn lost(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.write('!', partitions);
        Ok(())
    }
}

fn recorded(log: &EventLog, config: ConsumerConfig, name: &'static str, story: &Story) -> Consumer {
    let mut consumer = member(log, config);
    consumer.set_rebalance_listener(Recorder { name, story: Arc::clone(story) });
    consumer
}

fn told(story: &Story) -> Vec<String> {
    std::mem::take(&mut *story.lock().unwrap())
}

#[test]
fn members_share_the_partitions_and_those_that_are_too_many_wait_with_none() {
    let (_machine, log) = log(3);
    let (mut a, mut b) = (member(&log, config()), member(&log, config()));

    settle(&mut [&mut a]);
    assert_eq!(a.assignment(), tps(&[0, 1, 2]));
    settle(&mut [&mut a, &mut b]);
    assert_eq!(assignments(&[&a, &b]), [tps(&[0, 1]), tps(&[2])]);
    let (mut c, mut d) = (member(&log, config()), member(&log, config()));
    settle(&mut [&mut a, &mut b, &mut c, &mut d]);

    assert_eq!(assignments(&[&a, &b, &c, &d]), [tps(&[0]), tps(&[1]), tps(&[2]), tps(&[])]);
    assert_eq!(state(&log), GroupState::Stable);
    a.close().unwrap();
    settle(&mut [&mut b, &mut c, &mut d]);
    assert_eq!(assignments(&[&b, &c, &d]), [tps(&[0]), tps(&[1]), tps(&[2])], "who waited has some now");
}

#[test]
fn a_rebalance_waits_until_every_member_has_polled() {
    let (_machine, log) = log(2);
    let (mut a, mut b) = (member(&log, config()), member(&log, config()));
    settle(&mut [&mut a]);

    assert!(matches!(b.wait_for_assignment(secs(1)), Err(Error::Timeout { .. })));
    assert_eq!(state(&log), GroupState::PreparingRebalance);
    assert_eq!(a.assignment(), tps(&[0, 1]), "who has not polled reads on");
    a.poll(NOW).unwrap();

    assert_eq!(state(&log), GroupState::CompletingRebalance);
    assert_eq!(b.wait_for_assignment(NOW).unwrap(), tps(&[1]));
    assert_eq!(state(&log), GroupState::Stable);
}

#[test]
fn who_leaves_in_whatever_way_leaves_its_partitions_to_the_others() {
    let (_machine, log) = log(2);
    type Leave = fn(Consumer);
    let leave: [(&str, Leave); 4] = [
        ("close", |consumer| consumer.close().unwrap()),
        ("drop", drop),
        ("unsubscribe", |mut consumer| {
            consumer.unsubscribe().unwrap();
            std::mem::forget(consumer);
        }),
        ("panic", |consumer| {
            let crashed = catch_unwind(AssertUnwindSafe(move || {
                let _consumer = consumer;
                panic!("in the middle of processing");
            }));
            assert!(crashed.is_err());
        }),
    ];
    for (how, leave) in leave {
        let (mut a, mut b) = (member(&log, config()), member(&log, config()));
        settle(&mut [&mut a, &mut b]);
        assert_eq!(a.assignment().len(), 1, "{how}");

        leave(b);
        settle(&mut [&mut a]);

        assert_eq!(a.assignment(), tps(&[0, 1]), "{how}");
        assert_eq!(log.describe_group("group").unwrap().members.len(), 1, "{how}");
    }
}

#[test]
fn what_is_committed_while_partitions_are_revoked_is_where_the_new_owner_starts() {
    // assigned-always-called
    let (_machine, log) = log(2);
    send(&log, 0, 5);
    send(&log, 1, 7);
    let story = Story::default();
    let mut a = recorded(&log, config(), "a", &story);
    assert_eq!(a.poll(NOW).unwrap().len(), 12);
    let mut b = recorded(&log, config(), "b", &story);

    assert!(b.poll(NOW).unwrap().is_empty());
    assert!(a.poll(NOW).unwrap().is_empty());
    assert!(b.poll(NOW).unwrap().is_empty(), "what a had read, b does not read again");

    let expected = ["a+[topic-0, topic-1]", "a-[topic-0, topic-1]", "a+[topic-0]", "b+[topic-1]"];
    assert_eq!(told(&story), expected);
    assert_eq!((committed(&b, 0), committed(&b, 1)), (Some(5), Some(7)));
    a.enforce_rebalance().unwrap();
    settle(&mut [&mut a, &mut b]);
    let again = told(&story);
    assert_eq!(again.iter().filter(|told| told.contains('+')).count(), 2, "once for each member: {again:?}");
}

#[test]
fn automatic_commits_come_before_a_revocation_and_on_close() {
    let (_machine, log) = log(2);
    send(&log, 0, 5);
    send(&log, 1, 7);
    let automatic = || config().auto_commit(true);
    let (mut a, mut b) = (member(&log, automatic()), member(&log, automatic()));
    assert_eq!(a.poll(NOW).unwrap().len(), 12);
    assert_eq!((committed(&a, 0), committed(&a, 1)), (None, None));

    settle(&mut [&mut b, &mut a]);

    assert_eq!((committed(&a, 0), committed(&a, 1)), (Some(5), Some(7)));
    send(&log, 1, 2);
    assert_eq!(b.poll(NOW).unwrap().len(), 2);
    b.close().unwrap();
    assert_eq!(committed(&a, 1), Some(9));
}

#[test]
fn cooperative_members_keep_what_stays_and_only_what_moves_is_revoked() {
    let (_machine, log) = log(4);
    (0..4).for_each(|partition| send(&log, partition, 1));
    let story = Story::default();
    let mut a = recorded(&log, cooperative(), "a", &story);
    assert_eq!(a.poll(NOW).unwrap().len(), 4);
    let mut b = recorded(&log, cooperative(), "b", &story);

    settle(&mut [&mut b, &mut a]);

    assert_eq!(assignments(&[&a, &b]), [tps(&[0, 1]), tps(&[2, 3])]);
    let told = told(&story);
    let revoked: Vec<_> = told.iter().filter(|told| told.contains("-[")).collect();
    assert_eq!(revoked, ["a-[topic-2, topic-3]"], "{told:?}");
    let at = |what: &str| told.iter().position(|told| told == what).unwrap_or_else(|| panic!("{what}: {told:?}"));
    assert!(at("a-[topic-2, topic-3]") < at("b+[topic-2, topic-3]"));
    assert_eq!(told.iter().filter(|told| *told == "a+[]").count(), 2, "{told:?}");
    assert_eq!((committed(&b, 2), a.position(&tp(0)).unwrap()), (Some(1), Offset::new(1)));
}

#[test]
fn cooperative_members_read_and_commit_while_the_group_rebalances() {
    let (_machine, log) = log(4);
    let (mut a, mut b) = (member(&log, cooperative()), member(&log, cooperative()));
    settle(&mut [&mut a, &mut b]);
    send(&log, 0, 3);
    let mut c = member(&log, cooperative());
    c.poll(NOW).unwrap();

    assert_eq!(a.poll(NOW).unwrap().len(), 3);
    assert_eq!(state(&log), GroupState::PreparingRebalance, "b has not polled");
    a.commit().unwrap();
    b.poll(NOW).unwrap();
    assert_ne!(state(&log), GroupState::Stable, "there is a new generation, and a has not picked it up");
    send(&log, 0, 2);
    a.commit_offsets([(tp(0), Offset::new(4))]).unwrap();

    assert_eq!(committed(&b, 0), Some(4), "it owns the partition all the time");
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(assignments(&[&a, &b, &c]).concat().len(), 4);
}

#[test]
fn who_does_not_poll_is_put_out_and_what_it_commits_is_refused() {
    // max-poll-interval, lost
    let (machine, log) = log(1);
    send(&log, 0, 10);
    let story = Story::default();
    let mut a = recorded(&log, config().max_poll_interval(secs(1)), "a", &story);
    assert_eq!(a.poll(NOW).unwrap().len(), 10);
    a.commit_offsets([(tp(0), Offset::new(3))]).unwrap();
    assert_eq!(told(&story), ["a+[topic-0]"]);
    let mut b = member(&log, config());
    machine.advance(secs(1));

    b.poll(NOW).unwrap();
    assert_eq!(b.assignment(), tps(&[0]), "without a worker, whoever polls finds out");
    let refused = a.commit().unwrap_err();
    assert!(matches!(&refused, Error::CommitFailed { .. }), "{refused}");
    assert!(refused.to_string().contains("max.poll.interval.ms"), "{refused}");
    assert_eq!(committed(&b, 0), Some(3), "what is committed is as it was");

    b.close().unwrap();
    assert_eq!(a.poll(NOW).unwrap().iter().next().unwrap().offset(), Offset::new(3), "it joins again");
    assert_eq!(told(&story), ["a![topic-0]", "a+[topic-0]"]);
}

#[test]
fn what_others_do_does_not_put_off_when_a_member_is_late() {
    let (machine, log) = log(2);
    let late = || config().max_poll_interval(secs(5));
    let (mut a, mut b) = (member(&log, late()), member(&log, late()));
    a.poll(NOW).unwrap();
    machine.advance(secs(4));
    b.poll(NOW).unwrap();

    machine.advance(secs(1));

    assert!(matches!(a.commit_offsets([(tp(0), Offset::ZERO)]), Err(Error::CommitFailed { .. })));
}

#[test]
fn the_worker_and_maintain_find_out_who_does_not_poll() {
    let (machine, log) = log(1);
    let mut a = member(&log, config());
    a.poll(NOW).unwrap();
    let last_poll = machine.now();
    while log.maintain().unwrap() < secs(1) {
        machine.advance(Duration::from_millis(20));
    }
    let due = log.maintain().unwrap();
    assert_eq!(machine.now().as_millis() - last_poll.as_millis() + due.as_millis() as i64, 300_000);

    machine.advance(due);
    log.maintain();

    assert!(matches!(a.commit_offsets([(tp(0), Offset::ZERO)]), Err(Error::CommitFailed { .. })));
    drop((a, log));
    let log = machine.open(LogConfig::new()).unwrap();
    let mut a = member(&log, config().max_poll_interval(secs(2)));
    a.poll(NOW).unwrap();
    machine.sleep(secs(3));
    assert!(log.describe_group("group").is_err(), "it had one member, and nothing is committed");
}

#[test]
fn time_within_a_poll_does_not_count() {
    // slow-assign-callback
    struct Slow(Arc<Machine>, u32);
    impl RebalanceListener for Slow {
        fn assigned(&mut self, _: &mut Consumer, _: &[TopicPartition]) -> Result<()> {
            self.0.advance(secs(3));
            self.1 += 1;
            assert_eq!(self.1, 1, "no other rebalance");
            Ok(())
        }
    }
    let (machine, log) = log(1);
    let machine = Arc::new(machine);
    let mut a = member(&log, config().max_poll_interval(secs(1)));
    a.set_rebalance_listener(Slow(Arc::clone(&machine), 0));
    let mut b = member(&log, config());

    a.poll(secs(10)).unwrap();
    b.poll(NOW).unwrap();
    assert_eq!(a.assignment(), tps(&[0]));

    a.commit_offsets([(tp(0), Offset::ZERO)]).unwrap();
}

#[test]
fn a_static_member_that_returns_in_time_gets_its_partitions_back_and_nobody_notices() {
    let (machine, log) = log(2);
    let story = Story::default();
    let fixed = |name: &str| config().group_instance_id(name);
    let (mut a, mut b) = (recorded(&log, fixed("a"), "a", &story), recorded(&log, fixed("b"), "b", &story));
    settle(&mut [&mut a, &mut b]);
    let before = log.describe_group("group").unwrap();
    told(&story);

    a.close().unwrap();
    machine.advance(secs(44));
    settle(&mut [&mut b]);
    assert_eq!(log.describe_group("group").unwrap().members.len(), 2, "its place is kept");
    let mut a = recorded(&log, fixed("a"), "a", &story);
    settle(&mut [&mut a, &mut b]);

    assert_eq!(assignments(&[&a, &b]), [tps(&[0]), tps(&[1])]);
    assert_eq!(log.describe_group("group").unwrap().generation, before.generation);
    assert_eq!(told(&story), ["a-[topic-0]", "a+[topic-0]"]);
    drop(a);
    machine.advance(secs(45));
    settle(&mut [&mut b]);
    assert_eq!(b.assignment(), tps(&[0, 1]), "after its session its partitions are the others'");
}

#[test]
fn a_new_member_with_the_same_instance_id_takes_the_place_of_the_old_one() {
    let (_machine, log) = log(2);
    send(&log, 0, 4);
    let story = Story::default();
    let fixed = || config().group_instance_id("till-1");
    let mut old = recorded(&log, fixed(), "old", &story);
    assert_eq!(old.poll(NOW).unwrap().len(), 4);
    let generation = log.describe_group("group").unwrap().generation;

    let mut new = recorded(&log, fixed(), "new", &story);
    assert_eq!(new.poll(NOW).unwrap().len(), 4);

    assert_eq!(log.describe_group("group").unwrap().generation, generation, "without a rebalance");
    assert!(matches!(old.commit(), Err(Error::FencedInstanceId { instance_id, .. }) if instance_id == "till-1"));
    assert_eq!(committed(&new, 0), None);
    for _ in 0..2 {
        assert!(matches!(old.poll(NOW), Err(Error::FencedInstanceId { .. })));
    }
    new.commit().unwrap();
    old.close().unwrap();
    assert_eq!(new.assignment(), tps(&[0, 1]));
    new.poll(NOW).unwrap();
    assert_eq!(told(&story), ["old+[topic-0, topic-1]", "new+[topic-0, topic-1]", "old![topic-0, topic-1]"]);
}

#[test]
fn a_pattern_takes_in_what_matches_now_and_what_will() {
    // subscribe-pattern
    let (_machine, log) = log(1);
    for name in ["tblablac", "tblablak", "tblab1"] {
        topic(&log, name, 1);
    }
    let mut a = log.consumer(config()).unwrap();
    a.subscribe_matching(|topic| topic.starts_with('t') && topic.ends_with('c')).unwrap();
    a.poll(NOW).unwrap();
    assert_eq!(a.assignment(), [("tblablac", 0).into(), tp(0)]);

    topic(&log, "tlac", 2);
    topic(&log, "other", 1);
    a.poll(NOW).unwrap();
    assert_eq!(a.assignment(), [("tblablac", 0).into(), ("tlac", 0).into(), ("tlac", 1).into(), tp(0)]);
    log.delete_topic("tlac").unwrap();
    a.poll(NOW).unwrap();
    assert_eq!(a.assignment(), [("tblablac", 0).into(), tp(0)]);
}

#[test]
fn added_partitions_are_shared_too() {
    let (_machine, log) = log(2);
    let (mut a, mut b) = (member(&log, config()), member(&log, config()));
    settle(&mut [&mut a, &mut b]);

    log.add_partitions("topic", 5).unwrap();
    settle(&mut [&mut a, &mut b]);

    assert_eq!(assignments(&[&a, &b]), [tps(&[0, 1, 2]), tps(&[3, 4])]);
}

#[test]
fn members_with_different_subscriptions_get_what_they_want_only() {
    // subscribe-shrink-expand
    let (_machine, log) = log(2);
    topic(&log, "other", 2);
    let (mut a, mut b) = (member(&log, config()), member(&log, config()));
    settle(&mut [&mut a, &mut b]);

    b.subscribe(["other"]).unwrap();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(assignments(&[&a, &b]), [tps(&[0, 1]), vec![("other", 0).into(), ("other", 1).into()]]);
    b.subscribe(["topic", "other"]).unwrap();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(a.assignment(), tps(&[0]));
    b.unsubscribe().unwrap();
    settle(&mut [&mut a]);
    assert_eq!(a.assignment(), tps(&[0, 1]));
}

#[test]
fn a_member_that_shares_no_assignor_with_the_others_is_refused_and_they_go_on() {
    let (_machine, log) = log(2);
    let mut a = member(&log, config());
    settle(&mut [&mut a]);
    let mut b = member(&log, config().assignor(RoundRobinAssignor));

    let refused = b.poll(NOW).unwrap_err();

    assert!(matches!(&refused, Error::InconsistentGroupProtocol { .. }), "{refused}");
    assert!(refused.to_string().contains("roundrobin") && refused.to_string().contains("range"), "{refused}");
    settle(&mut [&mut a]);
    assert_eq!(a.assignment(), tps(&[0, 1]));
    let both: [Arc<dyn Assignor>; 2] = [Arc::new(RoundRobinAssignor), Arc::new(RangeAssignor)];
    let mut c = member(&log, config().assignors(both));
    settle(&mut [&mut a, &mut c]);
    assert_eq!(log.describe_group("group").unwrap().assignor.as_deref(), Some("range"));
}

#[test]
fn a_listener_can_ask_and_move_but_not_poll() {
    // callback-position, callback-seek-pause, subscribe-then-assign
    struct Mover;
    impl RebalanceListener for Mover {
        fn assigned(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
            for partition in partitions {
                assert_eq!(consumer.position(partition)?, Offset::ZERO);
                consumer.seek(partition, 100)?;
            }
            consumer.pause(partitions)?;
            assert!(matches!(consumer.poll(NOW), Err(Error::InvalidState { .. })));
            assert!(matches!(consumer.assign([tp(0)]), Err(Error::InvalidState { .. })));
            assert!(matches!(consumer.subscribe(["topic"]), Err(Error::InvalidState { .. })));
            assert!(matches!(consumer.unsubscribe(), Err(Error::InvalidState { .. })));
            Ok(())
        }
    }
    let (_machine, log) = log(1);
    send(&log, 0, 110);
    let mut a = member(&log, config());
    a.set_rebalance_listener(Mover);

    assert!(a.poll(NOW).unwrap().is_empty());
    a.resume(&[tp(0)]).unwrap();

    assert_eq!(a.poll(NOW).unwrap().iter().next().unwrap().offset(), Offset::new(100));
}

#[test]
fn a_listener_that_fails_or_panics_keeps_nobody_from_going_on() {
    struct Clumsy(&'static str);
    impl Clumsy {
        fn stumble(&self, at: &str) -> Result<()> {
            assert!(self.0 != format!("panic in {at}"), "on purpose");
            if self.0 == format!("error in {at}") { Err(Error::Wakeup) } else { Ok(()) }
        }
    }
    impl RebalanceListener for Clumsy {
        fn assigned(&mut self, _: &mut Consumer, _: &[TopicPartition]) -> Result<()> {
            self.stumble("assigned")
        }
        fn revoked(&mut self, _: &mut Consumer, _: &[TopicPartition]) -> Result<()> {
            self.stumble("revoked")
        }
    }
    for config in [config(), cooperative()] {
        for how in ["panic in assigned", "error in assigned", "panic in revoked", "error in revoked"] {
            let (_machine, log) = log(2);
            let mut a = member(&log, config.clone());
            a.set_rebalance_listener(Clumsy(how));
            let mut b = member(&log, config.clone());

            let mut stumbles = 0;
            for _ in 0..10 {
                match catch_unwind(AssertUnwindSafe(|| a.poll(NOW))) {
                    Ok(Ok(_)) => {}
                    Ok(Err(Error::Wakeup)) | Err(_) => stumbles += 1,
                    Ok(Err(error)) => panic!("{how}: {error}"),
                }
                b.poll(NOW).unwrap();
            }

            assert!(stumbles > 0, "{how}");
            assert_eq!(assignments(&[&a, &b]).concat().len(), 2, "{how}: {:?}", assignments(&[&a, &b]));
            assert_eq!((a.assignment().len(), state(&log)), (1, GroupState::Stable), "{how}");
        }
    }
}

#[test]
fn nobody_commits_what_another_owns() {
    let (_machine, log) = log(2);
    send(&log, 0, 3);
    send(&log, 1, 3);
    let (mut a, mut b) = (member(&log, config()), member(&log, config()));
    a.poll(NOW).unwrap();
    b.poll(NOW).unwrap();
    a.poll(NOW).unwrap();
    // The rebalance is complete, and b has not noticed.
    assert!(matches!(b.commit_offsets([(tp(1), Offset::new(1))]), Err(Error::RebalanceInProgress { .. })));
    settle(&mut [&mut a, &mut b]);

    assert!(matches!(a.commit_offsets([(tp(1), Offset::new(2))]), Err(Error::CommitFailed { .. })));
    a.commit_offsets([(tp(0), Offset::new(2))]).unwrap();
    let mut stranger = log.consumer(config()).unwrap();
    stranger.assign([tp(0)]).unwrap();
    assert!(matches!(stranger.commit_offsets([(tp(0), Offset::ZERO)]), Err(Error::CommitFailed { .. })));

    assert_eq!((committed(&a, 0), committed(&a, 1)), (Some(2), None));
    drop((a, b));
    stranger.commit_offsets([(tp(0), Offset::ZERO)]).unwrap();
}

#[test]
fn commits_without_waiting_hold_at_once_and_call_back_in_order() {
    // commit-async-order
    let (_machine, log) = log(1);
    send(&log, 0, 5);
    let mut a = member(&log, config());
    a.poll(NOW).unwrap();
    let called = Arc::new(Mutex::new(Vec::new()));
    let note = |n: u64| {
        let called = Arc::clone(&called);
        move |result: Result<Vec<(TopicPartition, tidelog::OffsetAndMetadata)>>| {
            assert_eq!(result.unwrap()[0].1.offset, Offset::new(n));
            called.lock().unwrap().push(n);
            assert!(n != 2, "on purpose: a callback may panic");
        }
    };

    for n in 1..=4 {
        a.commit_offsets_async([(tp(0), Offset::new(n))], note(n)).unwrap();
    }
    assert_eq!((committed(&a, 0), called.lock().unwrap().len()), (Some(4), 0));
    a.commit_offsets([(tp(0), Offset::new(3))]).unwrap();
    assert_eq!(*called.lock().unwrap(), [1, 2, 3, 4], "a commit that waits returns after them");

    a.commit_async(note(5)).unwrap();
    a.close().unwrap();
    assert_eq!(*called.lock().unwrap(), [1, 2, 3, 4, 5]);
}

#[test]
fn what_is_stored_is_what_is_committed() {
    let (machine, log) = log(2);
    send(&log, 0, 5);
    let stored = || config().auto_commit(true).auto_offset_store(false);
    let mut a = member(&log, stored());
    assert_eq!(a.poll(NOW).unwrap().len(), 5);

    a.commit().unwrap();
    assert_eq!(committed(&a, 0), None, "polled is not processed");
    a.store_offsets([(tp(0), Offset::new(2))]).unwrap();
    machine.advance(secs(5));
    a.poll(NOW).unwrap();
    assert_eq!(committed(&a, 0), Some(2));
    a.store_offsets([(tp(0), Offset::new(4))]).unwrap();
    assert!(matches!(a.store_offsets([(tp(7), Offset::new(4))]), Err(Error::NotAssigned { .. })));
    a.close().unwrap();

    let mut b = member(&log, config());
    assert_eq!(committed(&b, 0), Some(4));
    assert_eq!(b.poll(NOW).unwrap().len(), 1);
    assert!(matches!(b.store_offsets([(tp(0), Offset::new(1))]), Err(Error::InvalidState { .. })));
}

/// Does something while a consumer is told of partitions: as if its thread were kept from running just there.
struct Held<F> {
    /// In which call: `+` assigned, `-` revoked.
    at: char,
    meanwhile: Option<F>,
    story: Story,
}

impl<F: FnOnce() + Send> Held<F> {
    fn tell(&mut self, what: char, partitions: &[TopicPartition]) {
        if self.at == what
            && let Some(meanwhile) = self.meanwhile.take()
        {
            meanwhile();
        }
        self.story.lock().unwrap().push(format!("a{what}{partitions:?}"));
    }
}

impl<F: FnOnce() + Send> RebalanceListener for Held<F> {
    fn assigned(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.tell('+', partitions);
        for partition in partitions {
            if let Err(Error::CommitFailed { .. }) = consumer.commit_offsets([(partition.clone(), Offset::new(1))]) {
                self.story.lock().unwrap().push(format!("a refused {partition}"));
            }
        }
        Ok(())
    }

    fn revoked(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.tell('-', partitions);
        Ok(())
    }

    fn lost(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.tell('!', partitions);
        Ok(())
    }
}

/// A member `a` that is held up in its first `assigned`, or first `revoked`, until it is put out and `b` has everything.
fn held_up(at: char, protocol: fn() -> ConsumerConfig) -> Vec<String> {
    let (machine, log) = log(2);
    let machine = Arc::new(machine);
    send(&log, 0, 3);
    send(&log, 1, 3);
    let story = Story::default();
    let b = Arc::new(Mutex::new(recorded(&log, protocol(), "b", &story)));
    let mut a = member(&log, protocol());
    let meanwhile = {
        let (machine, b) = (Arc::clone(&machine), Arc::clone(&b));
        move || {
            let mut b = b.lock().unwrap();
            // It joins, if it has not, and nobody waits for `a` for longer than this.
            b.poll(NOW).unwrap();
            b.enforce_rebalance().unwrap();
            machine.advance(secs(300));
            b.poll(NOW).unwrap();
            assert_eq!(b.assignment(), tps(&[0, 1]), "{at}");
            b.commit().unwrap();
        }
    };
    a.set_rebalance_listener(Held { at, meanwhile: Some(meanwhile), story: Arc::clone(&story) });
    if at == '-' {
        // In the cooperative protocol it keeps what it has until it picks up an assignment with less.
        a.poll(NOW).unwrap();
        b.lock().unwrap().poll(NOW).unwrap();
    }
    let read = a.poll(NOW).unwrap();

    assert!(read.is_empty(), "it has lost them before it reads anything");
    assert_eq!(a.assignment(), []);
    let committed = committed(&a, 0).unwrap();
    assert_eq!(committed, 3, "{at}: as `b` left it");
    a.close().unwrap();
    told(&story)
}

#[test]
fn who_is_put_out_on_the_way_to_its_listener_is_refused_and_loses_what_it_is_told_of() {
    for protocol in [config, cooperative] {
        let told = held_up('+', protocol);

        // It goes on in the middle of `assigned` when `b` has been assigned the same: the group knows who is right.
        let all = "[topic-0, topic-1]";
        let refused = [0, 1].map(|number| format!("a refused topic-{number}"));
        let [first, second] = refused;
        assert_eq!(told, [format!("b+{all}"), format!("a+{all}"), first, second, format!("a!{all}")]);
    }
}

#[test]
fn who_is_put_out_before_it_picks_up_is_not_told_of_an_assignment() {
    let told = held_up('-', cooperative);

    assert_eq!(told.iter().filter(|line| line.starts_with("a+")).count(), 1, "only of its first: {told:?}");
    let last: Vec<_> = told.iter().rev().take(3).rev().map(String::as_str).collect();
    assert_eq!(last[0], "b+[topic-0, topic-1]", "{told:?}");
    assert!(last[1].starts_with("a-[") && last[2].starts_with("a!["), "{told:?}");
}

/// Answers whatever it is to answer.
struct Says<F>(F);

impl<F> Assignor for Says<F>
where
    F: Fn(&BTreeMap<String, u32>, Vec<&String>) -> BTreeMap<String, Vec<TopicPartition>> + Send + Sync,
{
    fn name(&self) -> &str {
        "mine"
    }

    fn assign(
        &self,
        topics: &BTreeMap<String, u32>,
        members: &BTreeMap<String, Subscription>,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        (self.0)(topics, members.keys().collect())
    }
}

/// What two members are told by their polls, and what they read then, if the assignor answers so.
fn flaws_of<F>(answer: F) -> (Vec<String>, Vec<Vec<TopicPartition>>)
where
    F: Fn(&BTreeMap<String, u32>, Vec<&String>) -> BTreeMap<String, Vec<TopicPartition>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let (_machine, log) = log(2);
    topic(&log, "other", 1);
    let mut members = [(); 2].map(|()| member(&log, config().assignor(Says(answer.clone()))));
    let mut flaws = Vec::new();
    for _ in 0..6 {
        for member in &mut members {
            match member.poll(NOW) {
                Ok(_) => {}
                Err(Error::InvalidAssignment { group, assignor, reason }) => {
                    assert_eq!((group.as_str(), assignor.as_str()), ("group", "mine"));
                    flaws.push(reason);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert_eq!(state(&log), GroupState::Stable);
    // That of the first generation, of one member, is not asked for.
    let flaws = flaws.split_off(flaws.len().saturating_sub(2));
    (flaws, members.iter().map(Consumer::assignment).collect())
}

#[test]
fn whatever_an_assignor_answers_nothing_has_two_owners_and_the_members_are_told_what_was_wrong() {
    type Given = BTreeMap<String, Vec<TopicPartition>>;
    let each = |members: Vec<&String>, given: &[&[TopicPartition]]| -> Given {
        members.into_iter().cloned().zip(given.iter().map(|given| given.to_vec())).collect()
    };
    let cases: [(&str, Vec<Vec<TopicPartition>>); 4] = [
        ("gave topic-0 to consumer-2, and it was given away before", vec![tps(&[0, 1]), vec![]]),
        ("gave topic-7 to consumer-1, and there is no such partition", vec![tps(&[0]), tps(&[1])]),
        ("gave other-0 to consumer-2, who does not subscribe to its topic", vec![tps(&[0]), tps(&[1])]),
        ("gave topic-1 to nobody, and 1 partitions in all", vec![vec![], tps(&[0])]),
    ];
    let given: [Vec<Vec<TopicPartition>>; 4] = [
        vec![tps(&[0, 1]), tps(&[0])],
        vec![tps(&[0, 7]), tps(&[1])],
        vec![tps(&[0]), vec![tp(1), ("other", 0).into()]],
        vec![vec![], tps(&[0])],
    ];
    for ((flaw, read), given) in cases.into_iter().zip(given) {
        let found = flaws_of(move |_, members| each(members, &given.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        assert_eq!(found, (vec![flaw.to_owned(); 2], read));
    }

    let forgets = flaws_of(|_, members| BTreeMap::from([(members[0].clone(), tps(&[0, 1]))]));
    assert_eq!(forgets, (vec!["left out member consumer-2".to_owned(); 2], vec![tps(&[0, 1]), vec![]]));
    let invents = flaws_of(|_, members| {
        let last = (*members[members.len() - 1]).clone();
        let others = members.into_iter().map(|id| (id.clone(), if *id == last { tps(&[0, 1]) } else { vec![] }));
        others.chain([("nobody".to_owned(), tps(&[0]))]).collect()
    });
    let flaw = "gave partitions to nobody, who is no member".to_owned();
    assert_eq!(invents, (vec![flaw; 2], vec![vec![], tps(&[0, 1])]));
}

#[test]
fn an_assignor_that_panics_leaves_everybody_what_he_had_until_the_next_rebalance() {
    let (_machine, log) = log(2);
    let panics = Arc::new(Mutex::new(false));
    let assignor = || {
        let panics = Arc::clone(&panics);
        Says(move |topics: &BTreeMap<String, u32>, members: Vec<&String>| {
            assert!(!*panics.lock().unwrap(), "out of ideas");
            let wants = members.iter().map(|id| ((*id).clone(), Subscription::new(["topic"]))).collect();
            RangeAssignor.assign(topics, &wants)
        })
    };
    let mut a = member(&log, config().assignor(assignor()));
    a.poll(NOW).unwrap();
    let mut b = member(&log, config().assignor(assignor()));
    *panics.lock().unwrap() = true;
    b.poll(NOW).unwrap();
    for (member, expected) in [(&mut a, tps(&[0, 1])), (&mut b, vec![])] {
        let told = member.poll(NOW).unwrap_err();
        let text = told.to_string();
        assert!(matches!(told, Error::InvalidAssignment { .. }) && text.contains("out of ideas"), "{text}");
        assert_eq!(member.assignment(), expected);
        member.poll(NOW).unwrap();
    }
    assert_eq!(state(&log), GroupState::Stable);

    *panics.lock().unwrap() = false;
    b.enforce_rebalance().unwrap();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(assignments(&[&a, &b]), [tps(&[0]), tps(&[1])]);
}

#[test]
fn an_assignor_or_a_pattern_that_uses_the_locked_group_is_stopped_and_does_not_hang() {
    let (_machine, log) = log(2);
    let log = Arc::new(log);
    let uses: [fn(&EventLog); 4] = [
        |log| drop(log.describe_group("group")),
        |log| drop(log.list_groups()),
        |log| drop(log.consumer(ConsumerConfig::group("other"))),
        |log| drop(log.delete_group("group")),
    ];
    for using in uses {
        let inside = Arc::clone(&log);
        let assignor = Says(move |_: &BTreeMap<String, u32>, _: Vec<&String>| {
            using(&inside);
            unreachable!("it was not stopped");
        });
        let mut a = member(&log, config().assignor(assignor));
        let told = a.poll(NOW).unwrap_err().to_string();
        assert!(told.contains("must not use consumers or ask for groups"), "{told}");
        a.poll(NOW).unwrap();
        a.close().unwrap();

        let inside = Arc::clone(&log);
        let mut a = log.consumer(config()).unwrap();
        a.subscribe_matching(move |_| {
            using(&inside);
            true
        })
        .unwrap();
        a.poll(NOW).unwrap();
        assert_eq!(a.assignment(), [], "a pattern that panics matches nothing");
        a.close().unwrap();
    }
    let mut a = member(&log, config());
    a.poll(NOW).unwrap();
    assert_eq!(a.assignment(), tps(&[0, 1]), "the group goes on");
}

#[test]
fn opening_the_log_again_finds_no_members_the_commits_and_later_generations() {
    let (machine, log) = log(2);
    send(&log, 0, 5);
    let mut a = member(&log, config());
    a.poll(NOW).unwrap();
    a.commit().unwrap();
    let before = log.describe_group("group").unwrap();
    assert_eq!((before.members.len(), before.state), (1, GroupState::Stable));

    let machine = machine.kill();
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    let after = log.describe_group("group").unwrap();
    assert_eq!((after.members.len(), after.state), (0, GroupState::Empty));
    assert!(after.generation > before.generation);

    let mut b = member(&log, config());
    assert!(b.poll(NOW).unwrap().is_empty());
    assert_eq!(b.assignment(), tps(&[0, 1]));
    drop(a);
}

#[test]
fn a_group_shows_who_reads_what_and_how_far_behind() {
    let (_machine, log) = log(2);
    send(&log, 0, 5);
    let mut a = member(&log, config().client_id("till").group_instance_id("till-1"));
    let mut b = member(&log, config());
    settle(&mut [&mut a, &mut b]);
    a.commit_offsets([(tp(0), Offset::new(2))]).unwrap();

    let group = log.describe_group("group").unwrap();

    assert_eq!((group.state, group.assignor.as_deref()), (GroupState::Stable, Some("range")));
    let till = &group.members[0];
    assert_eq!((till.client_id.as_str(), till.group_instance_id.as_deref()), ("till", Some("till-1")));
    assert!(till.member_id.starts_with("till-") && till.assignment == tps(&[0]), "{till:?}");
    let first = &group.offsets[0];
    assert_eq!(
        (first.committed, first.lag, first.member_id.as_ref()),
        (Some(Offset::new(2)), 3, Some(&till.member_id))
    );
    assert_eq!(group.offsets[1].member_id, Some(group.members[1].member_id.clone()));
}

#[test]
fn offsets_are_reset_once_the_group_is_empty_and_a_dry_run_changes_nothing() {
    let (_machine, log) = log(2);
    send(&log, 0, 10);
    send(&log, 1, 4);
    let mut a = member(&log, config());
    a.poll(NOW).unwrap();
    a.commit().unwrap();
    let refused = log.reset_group_offsets("group", &[], ResetTo::Earliest, true);
    assert!(matches!(refused, Err(Error::GroupNotEmpty { members, .. }) if members.len() == 1));
    a.close().unwrap();
    let look = log.consumer(config()).unwrap();
    let moves = |to, execute| {
        let changes = log.reset_group_offsets("group", &[], to, execute).unwrap();
        changes.iter().map(|change| (change.from.map(Offset::get), change.to.get())).collect::<Vec<_>>()
    };

    assert_eq!(moves(ResetTo::Earliest, false), [(Some(10), 0), (Some(4), 0)]);
    assert_eq!((committed(&look, 0), committed(&look, 1)), (Some(10), Some(4)));
    assert_eq!(moves(ResetTo::ShiftBy(-6), true), [(Some(10), 4), (Some(4), 0)]);
    assert_eq!(moves(ResetTo::ShiftBy(i64::MAX), false), [(Some(4), 10), (Some(0), 4)]);
    assert_eq!(moves(ResetTo::Current, false), [(Some(4), 4), (Some(0), 0)]);
    assert_eq!(moves(ResetTo::Offset(Offset::new(7)), true), [(Some(4), 7), (Some(0), 4)]);
    assert_eq!((committed(&look, 0), committed(&look, 1)), (Some(7), Some(4)));
    assert_eq!(moves(ResetTo::Since(Timestamp::from_millis(0)), false), [(Some(7), 0), (Some(4), 0)]);
    assert_eq!(moves(ResetTo::Since(Timestamp::from_millis(i64::MAX)), false), [(Some(7), 10), (Some(4), 4)]);
    let mut b = member(&log, config());
    assert_eq!(b.poll(NOW).unwrap().iter().next().unwrap().offset(), Offset::new(7));
    drop(b);

    let fresh = log.reset_group_offsets("fresh", &[tp(0)], ResetTo::Latest, true).unwrap();
    assert_eq!((fresh[0].from, fresh[0].to), (None, Offset::new(10)));
    let shifted = log.reset_group_offsets("none", &[tp(0)], ResetTo::ShiftBy(1), true);
    assert!(matches!(shifted, Err(Error::NoOffsetForPartition { .. })));
    assert_eq!(log.list_groups(), ["fresh", "group"]);
}

#[test]
fn offsets_and_groups_are_deleted_for_good() {
    let (machine, log) = log(2);
    topic(&log, "other", 1);
    send(&log, 0, 3);
    let mut a = member(&log, config());
    a.poll(NOW).unwrap();
    a.commit().unwrap();
    a.commit_offsets([(("other", 0).into(), Offset::ZERO)]).unwrap();

    let refused = log.delete_group_offsets("group", &[tp(0)]);
    assert!(matches!(refused, Err(Error::GroupSubscribedToTopic { topic, .. }) if topic == "topic"));
    log.delete_group_offsets("group", &[("other", 0).into()]).unwrap();
    assert_eq!(a.committed(&("other", 0).into()).unwrap(), None);
    assert!(matches!(log.delete_group("group"), Err(Error::GroupNotEmpty { .. })));
    a.close().unwrap();
    log.delete_group("group").unwrap();

    assert!(matches!(log.describe_group("group"), Err(Error::UnknownGroup { .. })));
    assert!(matches!(log.delete_group("group"), Err(Error::UnknownGroup { .. })));
    let files = |machine: &Machine| machine.files().iter().any(|file| file.starts_with("groups"));
    assert!(!files(&machine), "{:?}", machine.files());
    log.close().unwrap();
    let machine = machine.kill();
    let log = machine.open(LogConfig::new().background(false)).unwrap();
    assert!(log.recovery_report().is_clean(), "{:?}", log.recovery_report());
    assert!(log.list_groups().is_empty() && !files(&machine));
    let mut b = member(&log, config());
    assert_eq!(b.poll(NOW).unwrap().len(), 3);
    b.commit().unwrap();
    assert_eq!(log.list_groups(), ["group"]);
}
