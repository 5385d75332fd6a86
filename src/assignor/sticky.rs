//! Sticky: as equal as can be, and within that, everybody keeps what they have.
//!
//! Three steps, the last again and again:
//!
//! 1. *Keep*: every partition stays with the member that had it last, if that is still there and still wants it.
//! 2. *Deal*: what has no owner goes to whoever has least of those who may have it; topics that few may have first,
//!    because there the choice is smallest.
//! 3. *Level*: as long as somebody has at least two partitions more than somebody else who may have one of them, one of
//!    them moves. Then *bring home*: a partition goes back to who had it, if its owner has more than that member, or may
//!    have something else of that member's, which that member did not have before.
//!
//! Levelling makes the sum of the squares of the loads smaller; bringing home makes it no greater, and what stayed where
//! it was more. So this ends.
//!
//! Kafka has one algorithm for members that subscribe to the same topics and another for those that do not. This one is
//! for both, and gives what Kafka's own tests expect of either.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::assignor::{Assignor, RebalanceProtocol, Subscription, assignment, in_order};
use crate::types::TopicPartition;

/// Makes the numbers of partitions as equal as can be, and leaves every partition where it is as far as that allows.
/// Kafka: `StickyAssignor`.
///
/// Members revoke everything in a rebalance and are given most of it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StickyAssignor;

impl Assignor for StickyAssignor {
    fn name(&self) -> &str {
        "sticky"
    }

    fn assign(
        &self,
        topics: &BTreeMap<String, u32>,
        members: &BTreeMap<String, Subscription>,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        let ordered = in_order(members);
        let mut plan = Plan::keep(topics, &ordered);
        plan.deal();
        // Whoever has other partitions than before may be able to help others.
        while plan.level() && plan.bring_home() {}
        assignment(&ordered, plan.partitions())
    }
}

/// The same assignment as [`StickyAssignor`]'s, in the cooperative protocol: members go on with what they keep while the
/// rest moves. Kafka: `CooperativeStickyAssignor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CooperativeStickyAssignor;

impl Assignor for CooperativeStickyAssignor {
    fn name(&self) -> &str {
        "cooperative-sticky"
    }

    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Cooperative
    }

    fn assign(
        &self,
        topics: &BTreeMap<String, u32>,
        members: &BTreeMap<String, Subscription>,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        StickyAssignor.assign(topics, members)
    }
}

/// A member, by its place in the order of members.
type Member = usize;

/// A partition: the place of its topic in the plan, and its number.
type Place = (usize, usize);

/// An assignment that is being made.
struct Plan<'a> {
    /// Those that somebody subscribes to, by name.
    topics: Vec<Topic<'a>>,
    /// How many partitions each member has.
    loads: Vec<usize>,
}

struct Topic<'a> {
    name: &'a str,
    /// Who may have its partitions.
    readers: Vec<Member>,
    /// By number: who had the partition and may keep it.
    former: Vec<Option<Member>>,
    /// By number: who has it.
    owners: Vec<Option<Member>>,
}

impl<'a> Plan<'a> {
    /// Everybody has what they had.
    fn keep(topics: &'a BTreeMap<String, u32>, ordered: &[(&str, &Subscription)]) -> Self {
        let claims = claims(topics, ordered);
        let mut plan = Plan { topics: Vec::new(), loads: vec![0; ordered.len()] };
        for (name, former) in claims {
            let readers: Vec<Member> = (0..ordered.len()).filter(|at| ordered[*at].1.subscribes_to(name)).collect();
            for member in former.iter().flatten() {
                plan.loads[*member] += 1;
            }
            if !readers.is_empty() {
                plan.topics.push(Topic { name, readers, owners: former.clone(), former });
            }
        }
        plan
    }

    /// Everything has an owner.
    fn deal(&mut self) {
        let mut narrowest_first: Vec<&mut Topic<'_>> = self.topics.iter_mut().collect();
        narrowest_first.sort_by_key(|topic| topic.readers.len());
        for topic in narrowest_first {
            let mut least: BinaryHeap<_> =
                topic.readers.iter().map(|member| Reverse((self.loads[*member], *member))).collect();
            for owner in topic.owners.iter_mut().filter(|owner| owner.is_none()) {
                let mut first = least.peek_mut().expect("a topic in the plan has readers");
                let Reverse((load, member)) = &mut *first;
                *load += 1;
                self.loads[*member] += 1;
                *owner = Some(*member);
            }
        }
    }

    /// Nobody has two more than somebody else who could have one of them. Returns whether anything moved.
    fn level(&mut self) -> bool {
        let (mut moved, mut before) = (true, false);
        while moved {
            moved = false;
            // As in Kafka, what is last in the order of partitions moves first.
            for topic in self.topics.iter_mut().rev() {
                moved |= topic.level(&mut self.loads);
            }
            before |= moved;
        }
        before
    }

    /// Nobody has what was another's, if that leaves them with more than that other, or if that other has something new
    /// that they could have instead. Returns whether anything moved.
    fn bring_home(&mut self) -> bool {
        let mut new: Vec<Vec<Place>> = vec![Vec::new(); self.loads.len()];
        let mut away: Vec<(Place, Member)> = Vec::new();
        for (at, topic) in self.topics.iter().enumerate() {
            for number in (0..topic.owners.len()).filter(|number| topic.owners[*number] != topic.former[*number]) {
                new[topic.owner(number)].push((at, number));
                away.extend(topic.former[number].map(|former| ((at, number), former)));
            }
        }
        let mut moved = false;
        loop {
            let before = away.len();
            away.retain(|(place, former)| !self.comes_home(*place, *former, &mut new));
            if away.len() == before {
                return moved;
            }
            moved = true;
        }
    }

    /// Gives a partition back to who had it, if that can be. `new`: what each member did not have before.
    fn comes_home(&mut self, place: Place, former: Member, new: &mut [Vec<Place>]) -> bool {
        let owner = self.topics[place.0].owner(place.1);
        if owner == former {
            return true;
        }
        if self.loads[owner] <= self.loads[former] {
            let suits = |other: &&Place| self.topics[other.0].readers.binary_search(&owner).is_ok();
            let Some(instead) = new[former].iter().find(suits).copied() else { return false };
            self.give(instead, owner, new);
        }
        self.give(place, former, new);
        true
    }

    fn give(&mut self, place: Place, to: Member, new: &mut [Vec<Place>]) {
        let topic = &mut self.topics[place.0];
        let from = topic.owner(place.1);
        topic.owners[place.1] = Some(to);
        self.loads[from] -= 1;
        self.loads[to] += 1;
        new[from].retain(|other| *other != place);
        if topic.former[place.1] != Some(to) {
            new[to].push(place);
        }
    }

    /// What each member has, by topic and number.
    fn partitions(&self) -> Vec<Vec<TopicPartition>> {
        let mut given: Vec<Vec<TopicPartition>> = self.loads.iter().map(|load| Vec::with_capacity(*load)).collect();
        for topic in &self.topics {
            let name: Arc<str> = topic.name.into();
            for (number, owner) in (0..).zip(&topic.owners) {
                given[owner.expect("everything was dealt")].push(TopicPartition::new(Arc::clone(&name), number));
            }
        }
        given
    }
}

/// For each topic and number the member that had the partition, if it wants it still. Of several, the one of the latest
/// generation is right; of several of that generation none is: they could not both have been given it.
fn claims<'a>(
    topics: &'a BTreeMap<String, u32>,
    ordered: &[(&str, &Subscription)],
) -> BTreeMap<&'a str, Vec<Option<Member>>> {
    /// A generation, and who says to have had the partition in it; `None`: more than one.
    type Claim = (Option<u64>, Option<Member>);
    let empty = |count: u32| vec![None::<Claim>; count as usize];
    let mut latest: BTreeMap<&str, Vec<Option<Claim>>> =
        topics.iter().map(|(name, count)| (name.as_str(), empty(*count))).collect();
    for (member, (_, subscription)) in ordered.iter().enumerate() {
        let generation = subscription.generation();
        for partition in subscription.owned_partitions() {
            let known = latest.get_mut(partition.topic()).filter(|_| subscription.subscribes_to(partition.topic()));
            let Some(claim) = known.and_then(|claims| claims.get_mut(partition.partition() as usize)) else { continue };
            match claim {
                Some((other, _)) if *other > generation => {}
                Some((other, first)) if *other == generation && *first != Some(member) => *first = None,
                _ => *claim = Some((generation, Some(member))),
            }
        }
    }
    let owners = |claims: Vec<Option<Claim>>| claims.into_iter().map(|claim| claim.and_then(|(_, member)| member));
    latest.into_iter().map(|(name, claims)| (name, owners(claims).collect())).collect()
}

impl Topic<'_> {
    fn owner(&self, number: usize) -> Member {
        self.owners[number].expect("everything was dealt")
    }

    /// Moves partitions of this topic until no two of its readers are two apart, or there is nothing to move. Returns
    /// whether any was.
    fn level(&mut self, loads: &mut [usize]) -> bool {
        let load = |member: &Member| loads[*member];
        let (least, most) = (self.readers.iter().map(load).min(), self.readers.iter().map(load).max());
        if most < least.map(|least| least + 2) {
            return false;
        }
        let mut held = vec![Vec::new(); loads.len()];
        for number in 0..self.owners.len() {
            held[self.owner(number)].push(number);
        }
        let mut moved = false;
        loop {
            let givers = self.readers.iter().copied().filter(|member| !held[*member].is_empty());
            // Of equals the first takes and the last gives, as in Kafka.
            let giver = givers.max_by_key(|member| loads[*member]);
            let taker = self.readers.iter().copied().min_by_key(|member| loads[*member]);
            let (Some(giver), Some(taker)) = (giver, taker) else { return moved };
            if loads[giver] < loads[taker] + 2 {
                return moved;
            }
            let number = held[giver].pop().expect("it holds some");
            held[taker].push(number);
            self.owners[number] = Some(taker);
            loads[giver] -= 1;
            loads[taker] += 1;
            moved = true;
        }
    }
}
