//! The assignors: the results that Kafka's own tests and kafka-python have for them, and what must hold for any group.
//!
//! `tests/vectors/assignor_*.json` has the cases with the test that each is from. Those with racks are not among them:
//! there are none in one process. An assignor of the cooperative protocol says here what the end is to be, where Kafka's
//! leaves out what still has to be revoked, so its cases are compared in both: who is missing what, and why.
//!
//! | file                          | cases | compared                                                                |
//! |-------------------------------|------:|-------------------------------------------------------------------------|
//! | `assignor_range.json`         |    17 | all, exactly                                                            |
//! | `assignor_roundrobin.json`    |    11 | all, exactly                                                            |
//! | `assignor_sticky.json`        |    18 | those of `sticky` exactly; the 2 of `cooperative-sticky` as said above  |
//! | `assignor_uniform_kip848.json` |    4 | sizes always; 3 exactly, `uniform-first-2x2` not: `uniform` goes by topic ids |

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;
use tidelog::{
    Assignor, CooperativeStickyAssignor, RangeAssignor, RebalanceProtocol, RoundRobinAssignor, StickyAssignor,
    Subscription, TopicPartition,
};

type Topics = BTreeMap<String, u32>;
type Members = BTreeMap<String, Subscription>;
type Assignment = BTreeMap<String, BTreeSet<TopicPartition>>;

const ALL: [&dyn Assignor; 4] = [&RangeAssignor, &RoundRobinAssignor, &StickyAssignor, &CooperativeStickyAssignor];
const STICKY: [&dyn Assignor; 2] = [&StickyAssignor, &CooperativeStickyAssignor];

fn assign(assignor: &dyn Assignor, topics: &Topics, members: &Members) -> Assignment {
    let assigned = assignor.assign(topics, members);
    let count: usize = assigned.values().map(Vec::len).sum();
    let sets: Assignment =
        assigned.into_iter().map(|(id, partitions)| (id, partitions.into_iter().collect())).collect();
    assert_eq!(count, sets.values().map(BTreeSet::len).sum::<usize>(), "somebody was given something twice");
    sets
}

mod kafkas_own {
    use super::*;

    /// One question of a case, and the answer to it.
    struct Step {
        topics: Topics,
        members: Members,
        expected: Assignment,
        transferred: Option<BTreeMap<String, String>>,
    }

    fn cases(json: &str) -> Vec<(String, Value)> {
        let vectors: Value = serde_json::from_str(json).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        cases.iter().map(|case| (case["id"].as_str().unwrap().to_owned(), case.clone())).collect()
    }

    fn partitions(list: &Value) -> Vec<TopicPartition> {
        let pair = |pair: &Value| (pair[0].as_str().unwrap(), u32::try_from(pair[1].as_u64().unwrap()).unwrap()).into();
        list.as_array().unwrap().iter().map(pair).collect()
    }

    fn step(json: &Value) -> Step {
        let object = |name: &str| json[name].as_object().unwrap().iter();
        let member = |member: &Value| {
            let topics = member["topics"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            let mut subscription = Subscription::new(topics);
            if member["owned"].is_array() {
                let generation = member["generation"].as_u64().unwrap_or(1);
                subscription = subscription.owning(partitions(&member["owned"]), generation);
            }
            if let Some(instance) = member["instance"].as_str() {
                subscription = subscription.instance(instance);
            }
            (member["id"].as_str().unwrap().to_owned(), subscription)
        };
        let transferred = json["partitions_transferring_ownership"]
            .as_object()
            .map(|map| map.iter().map(|(name, to)| (name.clone(), to.as_str().unwrap().to_owned())).collect());
        Step {
            topics: object("topics").map(|(name, n)| (name.clone(), n.as_u64().unwrap().try_into().unwrap())).collect(),
            members: json["members"].as_array().unwrap().iter().map(member).collect(),
            expected: object("expect").map(|(id, list)| (id.clone(), partitions(list).into_iter().collect())).collect(),
            transferred,
        }
    }

    #[test]
    fn range_gives_what_kafkas_range_gives() {
        for (id, case) in cases(include_str!("vectors/assignor_range.json")) {
            let step = step(&case);
            assert_eq!(assign(&RangeAssignor, &step.topics, &step.members), step.expected, "{id}");
        }
    }

    #[test]
    fn round_robin_gives_what_kafkas_round_robin_gives() {
        for (id, case) in cases(include_str!("vectors/assignor_roundrobin.json")) {
            let step = step(&case);
            assert_eq!(assign(&RoundRobinAssignor, &step.topics, &step.members), step.expected, "{id}");
        }
    }

    #[test]
    fn sticky_gives_what_kafkas_sticky_gives() {
        for (id, case) in cases(include_str!("vectors/assignor_sticky.json")) {
            if case["assignor"] != "sticky" {
                continue;
            }
            for (number, json) in case["steps"].as_array().unwrap().iter().enumerate() {
                let step = step(json);
                for assignor in STICKY {
                    let found = assign(assignor, &step.topics, &step.members);
                    assert_eq!(found, step.expected, "{id}, step {number}");
                    if let Some(transferred) = &step.transferred {
                        assert_eq!(&transfers(&step.members, &found), transferred, "{id}, step {number}");
                    }
                }
            }
        }
    }

    /// What goes to somebody else than who says to have had it.
    fn transfers(members: &Members, found: &Assignment) -> BTreeMap<String, String> {
        let owned = |id: &String, partition: &TopicPartition| members[id].owned_partitions().contains(partition);
        let given = found.iter().flat_map(|(id, partitions)| partitions.iter().map(move |partition| (id, partition)));
        let changes = given.filter(|(id, partition)| !owned(id, partition) && transferable(members, found, partition));
        changes.map(|(id, partition)| (partition.to_string(), id.clone())).collect()
    }

    /// Whether somebody was right, or not the only one to be wrong, in believing to have it.
    fn transferable(members: &Members, found: &Assignment, partition: &TopicPartition) -> bool {
        let mut owners = found.keys().filter(|id| members[*id].owned_partitions().contains(partition));
        owners.next().is_some()
    }

    #[test]
    fn cooperative_sticky_lacks_in_kafka_what_somebody_still_owns() {
        let mut compared = 0;
        for (id, case) in cases(include_str!("vectors/assignor_sticky.json")) {
            if case["assignor"] != "cooperative-sticky" {
                continue;
            }
            for json in case["steps"].as_array().unwrap() {
                let step = step(json);
                let found = assign(&CooperativeStickyAssignor, &step.topics, &step.members);
                for (member, partitions) in &found {
                    let expected = &step.expected[member];
                    assert!(expected.is_subset(partitions), "{id}: {member} has {partitions:?}");
                    for held_back in partitions.difference(expected) {
                        assert!(!step.members[member].owned_partitions().contains(held_back), "{id}");
                        assert!(transferable(&step.members, &found, held_back), "{id}: nobody has {held_back}");
                    }
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 6, "there are two cases of three members");
        assert_eq!(CooperativeStickyAssignor.protocol(), RebalanceProtocol::Cooperative);
    }

    /// Kafka's coordinator has an assignor `uniform` in the newer protocol. Sticky gives what that gives: the same numbers
    /// always, and the same partitions where the order of topics is that of their names and not that of their ids.
    #[test]
    fn sticky_gives_as_many_as_kafkas_uniform() {
        for (id, case) in cases(include_str!("vectors/assignor_uniform_kip848.json")) {
            let step = step(&case);
            let found = assign(&StickyAssignor, &step.topics, &step.members);
            let sizes: BTreeMap<_, _> = found.iter().map(|(id, partitions)| (id.as_str(), partitions.len())).collect();
            let expected = case["sizes"].as_object().unwrap().iter();
            let expected = expected.map(|(id, size)| (id.as_str(), size.as_u64().unwrap().try_into().unwrap()));
            assert_eq!(sizes, expected.collect(), "{id}");
            assert_valid(&step.topics, &step.members, &found);
            if id != "uniform-first-2x2" {
                assert_eq!(found, step.expected, "{id}");
            }
        }
    }

    /// Kafka: `testStaticMemberRangeAssignmentPersistentAfterMemberIdChanges`, and round robin's of the kind.
    #[test]
    fn static_members_have_the_same_partitions_under_another_member_id() {
        let topics: Topics = [("topic1".to_owned(), 5), ("topic2".to_owned(), 5)].into();
        for assignor in [&RangeAssignor as &dyn Assignor, &RoundRobinAssignor] {
            let by_instance = |ids: [&str; 3]| {
                let named = |(id, instance): (&str, &str)| {
                    (id.to_owned(), Subscription::new(["topic1", "topic2"]).instance(instance))
                };
                let mut members: Members =
                    ids.into_iter().zip(["instance1", "instance2", "instance3"]).map(named).collect();
                members.insert("a-dynamic-one".into(), Subscription::new(["topic1", "topic2"]));
                let found = assign(assignor, &topics, &members);
                ids.map(|id| found[id].clone())
            };
            let first = by_instance(["x", "y", "z"]);
            assert_eq!(first, by_instance(["z", "x", "y"]), "{}", assignor.name());
            assert!(first[0].contains(&("topic1", 0).into()), "static members come before the others");
        }
    }

    #[test]
    fn the_names_are_kafkas() {
        assert_eq!(ALL.map(Assignor::name), ["range", "roundrobin", "sticky", "cooperative-sticky"]);
    }
}

/// Every partition that somebody subscribes to has one owner, who does; nothing else has any; everybody is there.
fn assert_valid(topics: &Topics, members: &Members, found: &Assignment) {
    assert!(found.keys().eq(members.keys()), "{:?} instead of {:?}", found.keys(), members.keys());
    let wanted = |name: &str| members.values().any(|member| member.subscribes_to(name));
    let of_topic = |(name, count): (&String, &u32)| {
        let name = name.clone();
        (0..*count).map(move |number| TopicPartition::new(name.as_str(), number)).collect::<Vec<_>>()
    };
    let expected: BTreeSet<TopicPartition> =
        topics.iter().filter(|(name, _)| wanted(name)).flat_map(of_topic).collect();
    let mut given = BTreeSet::new();
    for (id, partitions) in found {
        for partition in partitions {
            assert!(members[id].subscribes_to(partition.topic()), "{id} does not subscribe to {partition}");
            assert!(given.insert(partition.clone()), "{partition} was given twice");
        }
    }
    assert_eq!(given, expected);
}

/// Nobody has two more than somebody else who could have one of them. Kafka: `verifyValidityAndBalance`.
fn assert_balanced(members: &Members, found: &Assignment) {
    for (rich, partitions) in found {
        for (poor, others) in found {
            if partitions.len() >= others.len() + 2 {
                let movable = partitions.iter().find(|partition| members[poor].subscribes_to(partition.topic()));
                assert_eq!(movable, None, "could move from {rich} ({}) to {poor} ({})", partitions.len(), others.len());
            }
        }
    }
}

/// No partition of a topic went from one member to another while one of the same topic went the other way, directly or
/// around: then both could have stayed. Kafka: `isSticky`.
fn assert_sticky(before: &Assignment, members: &Members, found: &Assignment) {
    let owner_before: BTreeMap<&TopicPartition, &String> =
        before.iter().flat_map(|(id, partitions)| partitions.iter().map(move |partition| (partition, id))).collect();
    let mut moves: BTreeMap<&str, BTreeSet<(&String, &String)>> = BTreeMap::new();
    for (to, partition) in found.iter().flat_map(|(id, list)| list.iter().map(move |partition| (id, partition))) {
        let stayed = |from: &String| members.get(from).is_some_and(|member| member.subscribes_to(partition.topic()));
        if let Some(from) = owner_before.get(partition).filter(|from| **from != to && stayed(from)) {
            moves.entry(partition.topic()).or_default().insert((from, to));
        }
    }
    for (topic, edges) in moves {
        let mut left = edges.clone();
        // What nobody moves away from, or nobody moves to, is in no circle.
        loop {
            let kept: BTreeSet<_> = left
                .iter()
                .filter(|(from, to)| left.iter().any(|(_, into)| into == from) && left.iter().any(|(out, _)| out == to))
                .copied()
                .collect();
            if kept.len() == left.len() {
                break;
            }
            left = kept;
        }
        assert!(left.is_empty(), "partitions of {topic} went in a circle: {left:?}");
    }
}

/// Whoever had a partition and wants it has it still, unless its owner has no more than they have, and can have none of
/// what is new to them instead.
fn assert_nothing_moved_in_vain(before: &Assignment, members: &Members, found: &Assignment) {
    for (owner, partitions) in found {
        for partition in partitions {
            let wants = |id: &&String| members.get(*id).is_some_and(|member| member.subscribes_to(partition.topic()));
            let Some(former) = before.keys().filter(|id| before[*id].contains(partition)).find(wants) else { continue };
            if former == owner {
                continue;
            }
            let (has, owner_has) = (found[former].len(), partitions.len());
            assert!(owner_has <= has, "{partition} could be with {former} ({has}) and is with {owner} ({owner_has})");
            let instead = |other: &&TopicPartition| {
                !before[former].contains(*other) && members[owner].subscribes_to(other.topic())
            };
            let instead = found[former].iter().find(instead);
            assert_eq!(instead, None, "{partition} could be with {former} instead, and that with {owner}");
        }
    }
}

/// The members with what they were given, as they say it when they join again.
fn owning(members: &Members, given: &Assignment, generation: u64) -> Members {
    let with = |(id, member): (&String, &Subscription)| {
        let owned = given.get(id).into_iter().flatten().cloned();
        (id.clone(), member.clone().owning(owned.collect::<Vec<_>>(), generation))
    };
    members.iter().map(with).collect()
}

/// How many partitions are still with whom they were.
fn kept(before: &Assignment, after: &Assignment) -> usize {
    after.iter().map(|(id, list)| before.get(id).map_or(0, |old| list.intersection(old).count())).sum()
}

fn topics() -> impl Strategy<Value = Topics> {
    prop::collection::vec(1..12u32, 1..8)
        .prop_map(|counts| counts.into_iter().enumerate().map(|(at, count)| (format!("topic-{at}"), count)).collect())
}

/// One member as it is before and after a change: each with the topics it subscribes to, of 16 bits one for each topic.
#[derive(Clone, Debug)]
struct Life {
    before: Option<u16>,
    after: Option<u16>,
    instance: bool,
}

fn life() -> impl Strategy<Value = Life> {
    // Mostly there before and after, and mostly with the same wish; now and then all topics, as most groups have.
    let wish = || prop_oneof![2 => any::<u16>(), 1 => Just(u16::MAX)];
    let both = prop_oneof![
        5 => wish().prop_map(|wish| (Some(wish), Some(wish))),
        2 => (wish(), wish()).prop_map(|(before, after)| (Some(before), Some(after))),
        1 => wish().prop_map(|wish| (Some(wish), None)),
        1 => wish().prop_map(|wish| (None, Some(wish))),
    ];
    (both, prop::bool::weighted(0.2)).prop_map(|((before, after), instance)| Life { before, after, instance })
}

fn members_of(lives: &[Life], wish: impl Fn(&Life) -> Option<u16>) -> Members {
    let member = |(at, life): (usize, &Life)| {
        let wish = wish(life)?;
        // One name more than there are topics: what does not exist may be wished for.
        let topics = (0..9).filter(|bit| wish & (1 << bit) != 0).map(|bit| format!("topic-{bit}"));
        let subscription = Subscription::new(topics);
        let subscription =
            if life.instance { subscription.instance(format!("till-{}", 99 - at)) } else { subscription };
        Some((format!("member-{at:02}"), subscription))
    };
    lives.iter().enumerate().filter_map(member).collect()
}

/// What a member says of itself: topics as in [`Life`], numbers of topics and partitions that it owns, a generation.
type Claim = (u16, Vec<(u32, u32)>, u64);

proptest! {
    #[test]
    fn whatever_the_group_every_partition_has_one_owner_who_wants_it(
        topics in topics(),
        lives in prop::collection::vec(life(), 0..12),
    ) {
        let members = members_of(&lives, |life| life.after);
        for assignor in ALL {
            let found = assign(assignor, &topics, &members);
            assert_valid(&topics, &members, &found);
            prop_assert_eq!(&found, &assign(assignor, &topics, &members), "{} asked twice", assignor.name());
        }
    }

    #[test]
    fn equal_wishes_are_met_with_equal_numbers(topics in topics(), count in 1..12usize) {
        let every: Vec<Life> = vec![Life { before: None, after: Some(u16::MAX), instance: false }; count];
        let members = members_of(&every, |life| life.after);
        for assignor in ALL {
            let found = assign(assignor, &topics, &members);
            let sizes = |found: &Assignment| (found.values().map(BTreeSet::len).min(), found.values().map(BTreeSet::len).max());
            let (least, most) = sizes(&found);
            if assignor.name() == "range" {
                // Topic by topic.
                for topic in topics.keys() {
                    let of_topic = |list: &BTreeSet<TopicPartition>| list.iter().filter(|partition| partition.topic() == topic).count();
                    let counts: Vec<usize> = found.values().map(of_topic).collect();
                    prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
                }
            } else {
                prop_assert!(most.unwrap() - least.unwrap() <= 1, "{}: {least:?} to {most:?}", assignor.name());
            }
        }
    }

    #[test]
    fn sticky_is_balanced_and_moves_nothing_that_it_moves_back(
        topics in topics(),
        lives in prop::collection::vec(life(), 1..14),
    ) {
        let before = members_of(&lives, |life| life.before);
        let after = members_of(&lives, |life| life.after);
        let first = assign(&StickyAssignor, &topics, &before);
        assert_balanced(&before, &first);

        let joined = owning(&after, &first, 1);
        let second = assign(&StickyAssignor, &topics, &joined);

        assert_valid(&topics, &joined, &second);
        assert_balanced(&joined, &second);
        assert_sticky(&first, &joined, &second);
        assert_nothing_moved_in_vain(&first, &joined, &second);
        let again = owning(&after, &second, 2);
        prop_assert_eq!(&second, &assign(&StickyAssignor, &topics, &again), "nothing changed, so nothing moves");
    }

    /// As the cooperative protocol has it: in each rebalance members keep what is theirs in the end, and get of the rest
    /// what nobody else has; then they join again with that. Kafka's tests allow four rebalances more.
    #[test]
    fn what_sticky_wants_is_reached_by_letting_go_first(
        topics in topics(),
        lives in prop::collection::vec(life(), 1..14),
    ) {
        let first = assign(&CooperativeStickyAssignor, &topics, &members_of(&lives, |life| life.before));
        let after = members_of(&lives, |life| life.after);
        let still_there = |(id, _): &(&String, &BTreeSet<TopicPartition>)| after.contains_key(*id);
        let mut owned: Assignment = first.iter().filter(still_there).map(|(id, list)| (id.clone(), list.clone())).collect();
        let mut rebalances = 0;
        loop {
            rebalances += 1;
            let target = assign(&CooperativeStickyAssignor, &topics, &owning(&after, &owned, rebalances));
            if target == owned {
                break;
            }
            let of_others = |id: &String, partition: &TopicPartition| owned.iter().any(|(other, list)| other != id && list.contains(partition));
            let given = target.iter().map(|(id, list)| {
                (id.clone(), list.iter().filter(|partition| !of_others(id, partition)).cloned().collect())
            });
            owned = given.collect();
        }
        // The last of them finds that there is nothing more to do.
        prop_assert!(rebalances <= 5, "{rebalances} rebalances");
    }

    /// Of those who want the same, each keeps as much as anybody may have; and no more of them than there are partitions
    /// left over keep the one more.
    #[test]
    fn among_equal_wishes_sticky_moves_as_little_as_can_be(
        topics in topics(),
        stay in 1..10usize,
        leave in 0..6usize,
        join in 0..6usize,
    ) {
        let all = |there: bool| there.then_some(u16::MAX);
        let life = |at: usize| Life { before: all(at < stay + leave), after: all(!(stay..stay + leave).contains(&at)), instance: false };
        let lives: Vec<Life> = (0..stay + leave + join).map(life).collect();
        let first = assign(&StickyAssignor, &topics, &members_of(&lives, |life| life.before));
        let joined = owning(&members_of(&lives, |life| life.after), &first, 1);
        let second = assign(&StickyAssignor, &topics, &joined);

        let total: usize = topics.values().map(|count| *count as usize).sum();
        let (least, extra) = (total / joined.len(), total % joined.len());
        let owned: Vec<usize> = joined.values().map(|member| member.owned_partitions().len()).collect();
        let above = owned.iter().filter(|owned| **owned > least).count();
        let most: usize = owned.iter().map(|owned| (*owned).min(least)).sum::<usize>() + above.min(extra);
        prop_assert_eq!(kept(&first, &second), most);
    }

    /// Whatever members say to have, also if it is impossible: of other topics, twice, of any generation.
    #[test]
    fn sticky_believes_nobody_too_much(
        topics in topics(),
        claims in prop::collection::vec((any::<u16>(), prop::collection::vec((0..9u32, 0..14u32), 0..20), 0..4u64), 1..8),
    ) {
        let member = |(at, claim): (usize, &Claim)| {
            let (wish, owned, generation) = claim;
            let life = Life { before: None, after: Some(*wish), instance: false };
            let mut wanted = members_of(&[life], |life| life.after).into_values();
            let owned: Vec<TopicPartition> = owned.iter().map(|(topic, number)| (format!("topic-{topic}"), *number).into()).collect();
            (format!("member-{at}"), wanted.next().unwrap().owning(owned, *generation))
        };
        let members: Members = claims.iter().enumerate().map(member).collect();
        let found = assign(&StickyAssignor, &topics, &members);
        assert_valid(&topics, &members, &found);
        assert_balanced(&members, &found);
    }
}

/// Numbers from a seed, for groups as large as those of Kafka's own tests.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }

    /// A few of `names`, at least one.
    fn some_of(&mut self, names: &[String], most: usize) -> BTreeSet<String> {
        (0..=self.below(most)).map(|_| names[self.below(names.len())].clone()).collect()
    }
}

fn reassigned(topics: &Topics, before: &Assignment, after: &Members, what: &str) {
    let joined = owning(after, before, 1);
    let found = assign(&StickyAssignor, topics, &joined);
    assert_valid(topics, &joined, &found);
    assert_balanced(&joined, &found);
    assert_sticky(before, &joined, &found);
    assert_nothing_moved_in_vain(before, &joined, &found);
    let again = assign(&StickyAssignor, topics, &owning(after, &found, 2));
    assert_eq!(found, again, "{what}: nothing changed, so nothing moves");
}

/// Kafka: `testReassignmentWithRandomSubscriptionsAndChanges`.
#[test]
fn sticky_holds_when_everybody_changes_what_they_subscribe_to() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let topics: Topics =
            (0..10 + random.below(10)).map(|at| (format!("t{at:02}"), u32::try_from(at + 1).unwrap())).collect();
        let names: Vec<String> = topics.keys().cloned().collect();
        let count = 20 + random.below(20);
        let mut members = || -> Members {
            let wish = |at: usize| (format!("c{at:02}"), Subscription::new(random.some_of(&names, names.len())));
            (0..count).map(wish).collect()
        };
        let (before, after) = (members(), members());
        let first = assign(&StickyAssignor, &topics, &before);
        assert_valid(&topics, &before, &first);
        assert_balanced(&before, &first);
        reassigned(&topics, &first, &after, &format!("seed {seed}"));
    }
}

/// Kafka: `testLargeAssignmentWithMultipleConsumersLeavingAndRandomSubscription`.
#[test]
fn sticky_holds_when_a_quarter_of_a_large_group_leaves() {
    let mut random = Random(1);
    let topics: Topics =
        (0..40).map(|at| (format!("t{at:02}"), u32::try_from(1 + random.below(10)).unwrap())).collect();
    let names: Vec<String> = topics.keys().cloned().collect();
    let before: Members =
        (0..200).map(|at| (format!("c{at:03}"), Subscription::new(random.some_of(&names, 20)))).collect();
    let first = assign(&StickyAssignor, &topics, &before);
    assert_balanced(&before, &first);
    let mut after = before;
    for _ in 0..50 {
        let leaving = after.keys().nth(random.below(after.len())).unwrap().clone();
        after.remove(&leaving);
    }
    reassigned(&topics, &first, &after, "50 left");
}

/// Kafka: `testReassignmentAfterOneConsumerLeaves`.
#[test]
fn sticky_holds_when_one_leaves_of_a_group_of_steps() {
    let topics: Topics = (1..20).map(|at| (format!("t{at:02}"), at)).collect();
    let steps = |at: u32| (format!("c{at:02}"), Subscription::new((1..=at).map(|topic| format!("t{topic:02}"))));
    let before: Members = (1..20).map(steps).collect();
    let first = assign(&StickyAssignor, &topics, &before);
    assert_balanced(&before, &first);
    let mut after = before;
    after.remove("c10");
    reassigned(&topics, &first, &after, "one left");
}

/// Kafka: `testSubscriptionNotEqualAndAssignSamePartitionWith3Generation`.
#[test]
fn of_three_who_believe_to_have_the_same_the_latest_generation_is_right() {
    for generations in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let topics: Topics = [("topic".to_owned(), 6), ("topic1".to_owned(), 1)].into();
        let owned = [
            vec![("topic", 0), ("topic", 2)],
            vec![("topic", 1), ("topic", 2), ("topic", 3)],
            vec![("topic", 2), ("topic", 4), ("topic", 5)],
        ];
        let mut members: Members = (1..)
            .zip(owned.into_iter().zip(generations))
            .map(|(at, (owned, generation))| (format!("c{at}"), Subscription::new(["topic"]).owning(owned, generation)))
            .collect();
        members.insert("c4".into(), Subscription::new(["topic1"]));

        let found = assign(&StickyAssignor, &topics, &members);

        assert_valid(&topics, &members, &found);
        assert!(found.values().all(|partitions| (1..=2).contains(&partitions.len())), "{generations:?}: {found:?}");
        let right = generations.iter().position(|generation| *generation == 3).unwrap() + 1;
        let claimants = [1, 2, 3].map(|at| found[&format!("c{at}")].contains(&("topic", 2).into()));
        // It keeps the partition, or gives it away for balance; nobody else keeps it as their own before it does.
        assert!(claimants[right - 1] || found[&format!("c{right}")].len() == 2, "{generations:?}: {found:?}");
    }
}
