//! The coordinator of a group: a state machine that is given the time, and touches nothing.
//!
//! Who reads what is settled anew, in a new *generation*, whenever somebody comes, goes, is lost or subscribes to something
//! else, and whenever the topics change. Kafka's names for the states of the group:
//!
//! | state                 | what it means                                                                           |
//! |-----------------------|-----------------------------------------------------------------------------------------|
//! | `Empty`               | nobody is in the group                                                                  |
//! | `PreparingRebalance`  | members let go of what they must and join again; those that have done so wait           |
//! | `CompletingRebalance` | everybody has an assignment, and somebody has not picked his up yet                     |
//! | `Stable`              | everybody reads what he was assigned                                                    |
//!
//! | state      | input                                       | what follows                                            | next       |
//! |------------|---------------------------------------------|---------------------------------------------------------|------------|
//! | any        | join, without an assignor that all can use  | refused                                                 | as it was  |
//! | any        | join of an instance that is known           | the new member takes the place of the old one, which is fenced; in a settled group it gets the same partitions in the same generation | as it was, or preparing |
//! | any        | any other join                              | all others are woken, to join again                     | preparing  |
//! | preparing  | the last one has joined                     | a new generation; all are woken, to pick it up          | completing |
//! | preparing  | the longest `max.poll.interval.ms` is over  | who has not joined is out, and it goes on without him   | completing |
//! | completing | a member picks up its assignment            | it owns it; if it is the last to let go of what others wait for, all are woken | completing, stable or preparing |
//! | any        | leave of a member without an instance id    | it is out; all others are woken                         | preparing or empty |
//! | any        | leave of a static member                    | its partitions are kept for it, for `session.timeout.ms` | as it was |
//! | any        | no poll for longer than `max.poll.interval.ms` | as if it had left                                    | as above   |
//! | any        | a static member's time is over              | it is out; all others are woken                         | preparing or empty |
//! | any        | topics that matter have changed             | all are woken                                           | preparing  |
//!
//! A member *owns* a partition from the moment at which it picks it up to the moment at which it says that it has let go
//! (it joins again, or picks up an assignment without it), or is out. A partition with an owner is assigned to nobody else:
//! what an assignor gives away too early is held back until the owner has let go, and then there is one more generation.
//! So a partition has one owner at most, whatever assignors do. A member of the eager protocol lets go of everything
//! when it joins again, one of the cooperative protocol of nothing that it still wants.
//!
//! There is nobody to tell the assignment to the coordinator, because it asks the assignor itself, and no delay before
//! the first rebalance of a group, because there is no network that members could be late from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::assignor::{Assignor, Subscription};
#[cfg(test)]
use crate::env::point::{Mistake, is_planted};
use crate::group::asking::ask;
use crate::types::TopicPartition;

/// Who a member is: unlike any other member that the log ever had open.
pub(crate) type MemberId = u64;

/// How many partitions each topic has.
pub(crate) type Topics = BTreeMap<String, u32>;

/// What a consumer subscribes to.
#[derive(Clone)]
pub(crate) enum Wanted {
    Names(BTreeSet<String>),
    /// Every topic of whose name this is true.
    Matching(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Names(names) => write!(f, "{names:?}"),
            Wanted::Matching(_) => f.write_str("a pattern"),
        }
    }
}

impl Wanted {
    pub(crate) fn wants(&self, topic: &str) -> bool {
        match self {
            Wanted::Names(names) => names.contains(topic),
            // Of one that panics no topic is wanted, and nobody else suffers from it.
            Wanted::Matching(matches) => ask(|| matches(topic)).unwrap_or(false),
        }
    }

    /// The topics that are meant, of those that there are.
    fn among<'a>(&'a self, topics: &'a Topics) -> impl Iterator<Item = (&'a String, u32)> {
        topics.iter().filter(|(topic, _)| self.wants(topic)).map(|(topic, count)| (topic, *count))
    }
}

/// What a member says of itself when it joins.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) client_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) wanted: Wanted,
    /// What it can be assigned partitions by, the best first.
    pub(crate) assignors: Vec<Arc<dyn Assignor>>,
    pub(crate) max_poll_interval: Duration,
    pub(crate) session_timeout: Duration,
}

/// What happens to a group.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The member wants to be part of the next generation. It comes; or it has been in the group all the time, as far as it
    /// knows, and has let go of everything but what it keeps.
    Join { member: MemberId, profile: Arc<Profile>, keeps: Option<Vec<TopicPartition>> },
    /// The member reads what it was assigned in this generation, and nothing else any more.
    PickUp { member: MemberId, generation: u64 },
    /// The member has let go of everything and reads no more.
    Leave { member: MemberId },
    /// When the last poll of the member ended; `None`: it is in one.
    Heard { member: MemberId, polled: Option<Duration> },
    /// Time has gone by.
    Tick,
    /// The topics that there are.
    Topics(Topics),
    /// A member asks for a new generation. Kafka: `enforceRebalance`.
    Rebalance { member: MemberId },
}

/// What the group makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// There is news for this member, in the group or no longer in it.
    Wake(MemberId),
    /// The member shares no assignor with the group.
    Refused { reason: String },
    /// The member believed to be in the group, and was put out: it owns nothing any more.
    Unknown,
}

/// What a member is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// It is out of the group. If it is to go on it joins again, unless another has its instance id.
    Out { fenced: bool },
    /// Let go, and join again.
    Rejoin,
    /// Wait for the others.
    Wait,
    /// Pick up this assignment. `flaw`: what was wrong with the answer of the assignor that it was made of.
    PickUp { generation: u64, partitions: Vec<TopicPartition>, flaw: Option<Arc<str>> },
    /// Read what it has.
    Read,
}

/// Whether a commit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Counts,
    /// Somebody commits who is not a member, while there are members.
    NoMember,
    /// The member was put out.
    Out,
    /// Another member has its instance id.
    Fenced,
    /// There is a newer generation that the member has not picked up.
    Rebalancing,
    /// The partition at this place is another member's.
    NotOwned(usize),
}

/// Where a group is between two generations. Kafka: `GroupState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// It has no members.
    Empty,
    /// Its members are joining again.
    PreparingRebalance,
    /// Its members are about to read what they were assigned.
    CompletingRebalance,
    /// Its members read what they were assigned.
    Stable,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
        })
    }
}

/// A member, for those who look at the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberView {
    pub(crate) id: String,
    pub(crate) client_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) assignment: Vec<TopicPartition>,
}

pub(crate) struct Coordinator {
    generation: u64,
    /// While a rebalance is prepared: until when members may join.
    preparing: Option<Duration>,
    /// By which the present assignment was made.
    assignor: Option<Arc<dyn Assignor>>,
    /// What was wrong with what it answered.
    flaw: Option<Arc<str>>,
    members: BTreeMap<MemberId, Member>,
    topics: Topics,
    /// Those that members wanted when the present assignment was made.
    assigned_topics: Topics,
    /// What is held back of the present assignment until its owner has let go.
    held_back: Vec<(MemberId, TopicPartition)>,
}

struct Member {
    name: String,
    profile: Arc<Profile>,
    place: Place,
    assignment: Vec<TopicPartition>,
    owned: BTreeSet<TopicPartition>,
    /// When its last poll ended; `None`: it is in one.
    polled: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Waits for the next generation.
    Joined,
    /// Has an assignment that it has not picked up.
    Assigned,
    /// Has picked it up.
    Reads,
    /// A static member that went, and may come back.
    Away { since: Duration },
}

impl Member {
    fn is_away(&self) -> bool {
        matches!(self.place, Place::Away { .. })
    }

    fn is_waiting(&self) -> bool {
        self.place == Place::Joined || self.is_away()
    }

    fn go_away(&mut self, since: Duration) {
        self.place = Place::Away { since };
        self.owned.clear();
    }

    /// When it will be out if nothing is heard from it any more.
    fn due(&self, now: Duration) -> Duration {
        match self.place {
            Place::Away { since } => since.saturating_add(self.profile.session_timeout),
            _ => self.polled.unwrap_or(now).saturating_add(self.profile.max_poll_interval),
        }
    }
}

impl Coordinator {
    /// A group without members. Its generations are all later than `generation`.
    pub(crate) fn new(generation: u64) -> Self {
        Coordinator {
            generation,
            preparing: None,
            assignor: None,
            flaw: None,
            members: BTreeMap::new(),
            topics: Topics::new(),
            assigned_topics: Topics::new(),
            held_back: Vec::new(),
        }
    }

    /// Takes one step.
    pub(crate) fn step(&mut self, now: Duration, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Join { member, profile, keeps } => self.join(now, member, profile, keeps, &mut outputs),
            Input::PickUp { member, generation } => self.pick_up(member, generation),
            Input::Leave { member } => self.leave(now, member, &mut outputs),
            Input::Heard { member, polled } => {
                if let Some(member) = self.members.get_mut(&member) {
                    member.polled = polled;
                }
                return outputs;
            }
            Input::Tick => self.tick(now, &mut outputs),
            Input::Topics(topics) => {
                self.topics = topics;
                if !self.members.is_empty() && self.wanted_topics() != self.assigned_topics {
                    self.prepare(now, &mut outputs);
                }
            }
            Input::Rebalance { member } => {
                if self.members.contains_key(&member) {
                    self.prepare(now, &mut outputs);
                }
            }
        }
        self.hand_over(now, &mut outputs);
        self.complete_if_all_wait(&mut outputs);
        outputs
    }

    fn join(
        &mut self,
        now: Duration,
        id: MemberId,
        profile: Arc<Profile>,
        keeps: Option<Vec<TopicPartition>>,
        outputs: &mut Vec<Output>,
    ) {
        if keeps.is_some() && self.members.get(&id).is_none_or(Member::is_away) {
            // What it kept may be another's by now, and its instance id too.
            outputs.push(Output::Unknown);
            return;
        }
        let keeps = keeps.unwrap_or_default();
        let before = self.holder_of_instance(&profile).unwrap_or(id);
        if let Some(reason) = self.disagreement(before, &profile) {
            outputs.push(Output::Refused { reason });
            return;
        }
        let old = self.members.remove(&before);
        let mut member = Member {
            name: format!("{}-{id}", profile.client_id),
            profile,
            place: Place::Joined,
            assignment: Vec::new(),
            owned: BTreeSet::new(),
            polled: None,
        };
        if let Some(old) = old {
            let wants_the_same = old.profile.wanted.among(&self.topics).eq(member.profile.wanted.among(&self.topics));
            let returns = before != id || old.is_away();
            member.assignment = old.assignment;
            if before != id {
                outputs.push(Output::Wake(before));
            } else {
                member.owned = old.owned;
                member.owned.retain(|partition| keeps.contains(partition));
            }
            let can_go_on = member.profile.assignors.iter().any(|assignor| self.is_used(&**assignor));
            if returns && wants_the_same && can_go_on && self.preparing.is_none() {
                member.place = Place::Assigned;
                self.members.insert(id, member);
                return;
            }
        }
        self.members.insert(id, member);
        self.prepare(now, outputs);
    }

    fn is_used(&self, assignor: &dyn Assignor) -> bool {
        self.assignor.as_ref().is_some_and(|used| used.name() == assignor.name())
    }

    /// The member that has the instance id of this profile.
    fn holder_of_instance(&self, profile: &Profile) -> Option<MemberId> {
        let instance = profile.instance_id.as_ref()?;
        self.members.iter().find(|(_, member)| member.profile.instance_id.as_ref() == Some(instance)).map(|(id, _)| *id)
    }

    /// Why somebody with this profile, in the place of the member `id`, cannot be in the group with the others.
    fn disagreement(&self, id: MemberId, profile: &Profile) -> Option<String> {
        let others = || self.members.iter().filter(|(other, _)| **other != id).map(|(_, member)| &*member.profile);
        if common_assignors(profile, others()).next().is_some() {
            return None;
        }
        let names = |profile: &Profile| {
            profile.assignors.iter().map(|assignor| assignor.name().to_owned()).collect::<Vec<_>>().join(", ")
        };
        let theirs: BTreeSet<String> = others().map(names).collect();
        let theirs: Vec<String> = theirs.into_iter().collect();
        Some(format!("this member can use {}, the others {}", names(profile), theirs.join(" and ")))
    }

    fn pick_up(&mut self, id: MemberId, generation: u64) {
        let current = generation == self.generation;
        let Some(member) = self.members.get_mut(&id) else { return };
        if !current || member.place != Place::Assigned {
            return;
        }
        let assigned: BTreeSet<TopicPartition> = member.assignment.iter().cloned().collect();
        if self.preparing.is_some() {
            // Too late for this generation: it keeps what it has, less what it has let go, and joins the next.
            member.owned.retain(|partition| assigned.contains(partition));
            return;
        }
        member.owned = assigned;
        member.place = Place::Reads;
    }

    /// Begins one more generation if something was held back and all of it is free.
    fn hand_over(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        let is_owned = |(id, partition): &(MemberId, TopicPartition)| {
            self.members.get(id).is_some_and(|owner| owner.owned.contains(partition))
        };
        if !self.held_back.is_empty() && !self.held_back.iter().any(is_owned) {
            self.prepare(now, outputs);
        }
    }

    fn leave(&mut self, now: Duration, id: MemberId, outputs: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.is_away() {
            return;
        }
        if member.profile.instance_id.is_some() {
            member.go_away(now);
        } else {
            self.members.remove(&id);
            self.prepare(now, outputs);
        }
    }

    fn tick(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        let late: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| member.due(now) <= now).map(|(id, _)| *id).collect();
        for id in late {
            self.put_out(now, id, outputs);
        }
        if self.preparing.is_some_and(|until| until <= now) {
            let missing: Vec<MemberId> =
                self.members.iter().filter(|(_, member)| !member.is_waiting()).map(|(id, _)| *id).collect();
            for id in missing {
                self.put_out(now, id, outputs);
            }
        }
    }

    /// A member whose time is over is out; a static one that is still there goes away first.
    fn put_out(&mut self, now: Duration, id: MemberId, outputs: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        outputs.push(Output::Wake(id));
        if member.profile.instance_id.is_some() && !member.is_away() {
            let since = member.due(now).min(now);
            member.go_away(since);
            if since.saturating_add(member.profile.session_timeout) > now {
                return;
            }
        }
        self.members.remove(&id);
        self.prepare(now, outputs);
    }

    /// Begins a rebalance, if none has begun.
    fn prepare(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        if self.preparing.is_some() {
            return;
        }
        let longest = self.members.values().map(|member| member.profile.max_poll_interval).max().unwrap_or_default();
        self.preparing = Some(now.saturating_add(longest));
        let called = self.members.iter().filter(|(_, member)| !member.is_waiting());
        outputs.extend(called.map(|(id, _)| Output::Wake(*id)));
    }

    /// Ends the rebalance that is prepared, if nobody is missing any more.
    fn complete_if_all_wait(&mut self, outputs: &mut Vec<Output>) {
        if self.preparing.is_none() || !self.members.values().all(Member::is_waiting) {
            return;
        }
        self.preparing = None;
        self.assignor = self.elected();
        self.assigned_topics = self.wanted_topics();
        let answer = self.assignor.as_ref().map_or_else(|| Ok(BTreeMap::new()), |assignor| self.answer(&**assignor));
        self.generation += 1;
        self.flaw = match answer {
            Ok(given) => self.hand_out(given),
            Err(panic) => {
                // Everybody keeps what he had, as far as that is there and wanted.
                let kept = self.members.values().map(|member| (member.name.clone(), member.assignment.clone()));
                drop(self.hand_out(kept.collect()));
                Some(format!("panicked, and everybody keeps what he had: {panic}"))
            }
        }
        .map(Into::into);
        for (id, member) in &mut self.members {
            if member.place == Place::Joined {
                member.place = Place::Assigned;
                outputs.push(Output::Wake(*id));
            }
        }
    }

    /// The assignor that most members like best, of those that all can use.
    fn elected(&self) -> Option<Arc<dyn Assignor>> {
        let first = self.members.values().next()?;
        let others = || self.members.values().skip(1).map(|member| &*member.profile);
        let candidates: Vec<&Arc<dyn Assignor>> = common_assignors(&first.profile, others()).collect();
        let mut votes = vec![0_usize; candidates.len()];
        for member in self.members.values() {
            let mut liked = member.profile.assignors.iter();
            let vote = liked.find_map(|liked| candidates.iter().position(|known| known.name() == liked.name()));
            votes[vote.expect("a candidate is known to every member")] += 1;
        }
        // Of equals the first: what the oldest member likes better.
        let best = (0..candidates.len()).rev().max_by_key(|at| votes[*at])?;
        Some(Arc::clone(candidates[best]))
    }

    /// What the assignor says, or why it panicked.
    fn answer(&self, assignor: &dyn Assignor) -> Result<BTreeMap<String, Vec<TopicPartition>>, String> {
        let describe = |member: &Member| {
            let topics = member.profile.wanted.among(&self.topics).map(|(topic, _)| topic.clone());
            let mut subscription = Subscription::new(topics);
            if !member.assignment.is_empty() {
                subscription = subscription.owning(member.assignment.iter().cloned(), self.generation);
            }
            match &member.profile.instance_id {
                Some(instance) => subscription.instance(instance.clone()),
                None => subscription,
            }
        };
        let members = self.members.values().map(|member| (member.name.clone(), describe(member))).collect();
        ask(|| assignor.assign(&self.assigned_topics, &members))
    }

    /// Gives every member what the assignor gave it; not twice, not what there is not or is not wanted, and not yet what
    /// another one still owns. Returns the first thing that was wrong, if something was.
    fn hand_out(&mut self, mut given: BTreeMap<String, Vec<TopicPartition>>) -> Option<String> {
        let mut flaw = None;
        let owners: BTreeMap<TopicPartition, MemberId> = self
            .members
            .iter()
            .flat_map(|(id, member)| member.owned.iter().map(|partition| (partition.clone(), *id)))
            .collect();
        let mut taken = BTreeSet::new();
        self.held_back.clear();
        for (id, member) in &mut self.members {
            let name = &member.name;
            let mut assignment = given.remove(name).unwrap_or_else(|| {
                flaw.get_or_insert_with(|| format!("left out member {name}"));
                Vec::new()
            });
            assignment.retain(|partition| {
                let fault = match self.assigned_topics.get(partition.topic()) {
                    _ if !member.profile.wanted.wants(partition.topic()) => "who does not subscribe to its topic",
                    Some(count) if partition.partition() < *count => {
                        if taken.insert(partition.clone()) {
                            return true;
                        }
                        "and it was given away before"
                    }
                    _ => "and there is no such partition",
                };
                flaw.get_or_insert_with(|| format!("gave {partition} to {name}, {fault}"));
                false
            });
            assignment.retain(|partition| match owners.get(partition) {
                Some(owner) if owner != id => {
                    self.held_back.push((*owner, partition.clone()));
                    false
                }
                _ => true,
            });
            assignment.sort();
            member.assignment = assignment;
        }
        let nobody = given.into_keys().next().map(|name| format!("gave partitions to {name}, who is no member"));
        flaw.or(nobody).or_else(|| self.given_to_nobody(&taken))
    }

    /// What is wanted and was not given away.
    fn given_to_nobody(&self, taken: &BTreeSet<TopicPartition>) -> Option<String> {
        let all: usize = self.assigned_topics.values().map(|count| *count as usize).sum();
        if taken.len() == all {
            return None;
        }
        let of_topic = |(topic, count): (&String, &u32)| {
            let name: Arc<str> = topic.as_str().into();
            (0..*count).map(move |number| TopicPartition::new(Arc::clone(&name), number))
        };
        let first = self.assigned_topics.iter().flat_map(of_topic).find(|partition| !taken.contains(partition))?;
        Some(format!("gave {first} to nobody, and {} partitions in all", all - taken.len()))
    }

    /// The topics that somebody wants, of those that there are.
    fn wanted_topics(&self) -> Topics {
        let wanted = |topic: &str| self.members.values().any(|member| member.profile.wanted.wants(topic));
        self.topics.iter().filter(|(topic, _)| wanted(topic)).map(|(topic, count)| (topic.clone(), *count)).collect()
    }
}

/// The assignors of this profile that all others have too, in its order.
fn common_assignors<'a>(
    profile: &'a Profile,
    others: impl Iterator<Item = &'a Profile> + Clone,
) -> impl Iterator<Item = &'a Arc<dyn Assignor>> {
    profile.assignors.iter().filter(move |assignor| {
        others.clone().all(|other| other.assignors.iter().any(|known| known.name() == assignor.name()))
    })
}

/// Looking.
impl Coordinator {
    pub(crate) fn duty(&self, id: MemberId, instance_id: Option<&str>) -> Duty {
        let Some(member) = self.members.get(&id).filter(|member| !member.is_away()) else {
            let has_it =
                |member: &Member| instance_id.is_some() && member.profile.instance_id.as_deref() == instance_id;
            let fenced = self.members.iter().any(|(other, member)| *other != id && has_it(member));
            return Duty::Out { fenced };
        };
        match member.place {
            Place::Joined => Duty::Wait,
            _ if self.preparing.is_some() => Duty::Rejoin,
            Place::Assigned => Duty::PickUp {
                generation: self.generation,
                partitions: member.assignment.clone(),
                flaw: self.flaw.clone(),
            },
            Place::Reads | Place::Away { .. } => Duty::Read,
        }
    }

    /// Whether a commit for these partitions counts; `None`: of somebody who is no member.
    pub(crate) fn admits<'a>(
        &self,
        by: Option<(MemberId, Option<&str>)>,
        mut partitions: impl Iterator<Item = &'a TopicPartition> + Clone,
    ) -> Verdict {
        #[cfg(test)]
        if is_planted(Mistake::StaleGenerationCounts) {
            return Verdict::Counts;
        }
        let Some((id, instance_id)) = by else {
            return if self.members.is_empty() { Verdict::Counts } else { Verdict::NoMember };
        };
        let member = match self.duty(id, instance_id) {
            Duty::Out { fenced: true } => return Verdict::Fenced,
            Duty::Out { fenced: false } => return Verdict::Out,
            _ => &self.members[&id],
        };
        if partitions.clone().all(|partition| member.owned.contains(partition)) {
            return Verdict::Counts;
        }
        if member.place == Place::Assigned {
            return Verdict::Rebalancing;
        }
        let others = || self.members.iter().filter(|(other, _)| **other != id).map(|(_, member)| member);
        let foreign = |partition: &TopicPartition| {
            others().any(|other| other.owned.contains(partition) || other.assignment.contains(partition))
        };
        partitions.position(foreign).map_or(Verdict::Counts, Verdict::NotOwned)
    }

    /// Before this moment nothing happens by itself.
    pub(crate) fn due(&self, now: Duration) -> Option<Duration> {
        self.members.values().map(|member| member.due(now)).chain(self.preparing).min()
    }

    /// Whether the member has picked up its assignment.
    pub(crate) fn reads(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.place == Place::Reads)
    }

    pub(crate) fn knows(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn state(&self) -> GroupState {
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.preparing.is_some() {
            GroupState::PreparingRebalance
        } else if self.members.values().any(|member| member.place == Place::Assigned) {
            GroupState::CompletingRebalance
        } else {
            GroupState::Stable
        }
    }

    /// The name of the assignor by which the present assignment was made.
    pub(crate) fn assignor(&self) -> Option<&str> {
        self.assignor.as_ref().map(|assignor| assignor.name())
    }

    pub(crate) fn members(&self) -> Vec<MemberView> {
        let view = |member: &Member| MemberView {
            id: member.name.clone(),
            client_id: member.profile.client_id.clone(),
            instance_id: member.profile.instance_id.clone(),
            assignment: member.assignment.clone(),
        };
        self.members.values().map(view).collect()
    }

    /// Whether a member wants the topic.
    pub(crate) fn is_wanted(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.profile.wanted.wants(topic))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::assignor::{CooperativeStickyAssignor, RangeAssignor, RebalanceProtocol, RoundRobinAssignor};

    const INTERVAL: Duration = Duration::from_secs(300);
    const SESSION: Duration = Duration::from_secs(45);

    fn topics(counts: &[(&str, u32)]) -> Topics {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn profile(instance: Option<&str>, wanted: &[&str], assignors: &[Arc<dyn Assignor>]) -> Arc<Profile> {
        Arc::new(Profile {
            client_id: "member".to_owned(),
            instance_id: instance.map(str::to_owned),
            wanted: Wanted::Names(wanted.iter().map(|name| (*name).to_owned()).collect()),
            assignors: assignors.to_vec(),
            max_poll_interval: INTERVAL,
            session_timeout: SESSION,
        })
    }

    fn range() -> Arc<dyn Assignor> {
        Arc::new(RangeAssignor)
    }

    /// A group whose topics are known, and what the members believe.
    struct World {
        group: Coordinator,
        now: Duration,
        /// What each member that is alive reads, as a consumer would: `None` if it is not in the group, as far as it knows.
        reads: BTreeMap<MemberId, Option<BTreeSet<TopicPartition>>>,
        profiles: BTreeMap<MemberId, Arc<Profile>>,
        /// Who was told that there is news, and has not looked since.
        woken: BTreeSet<MemberId>,
        /// Whose place another has taken, and who knows it.
        fenced: BTreeSet<MemberId>,
        generation: u64,
    }

    impl World {
        fn new(counts: &[(&str, u32)]) -> Self {
            let mut world = World {
                group: Coordinator::new(0),
                now: Duration::ZERO,
                reads: BTreeMap::new(),
                profiles: BTreeMap::new(),
                woken: BTreeSet::new(),
                fenced: BTreeSet::new(),
                generation: 0,
            };
            world.step(Input::Topics(topics(counts)));
            world
        }

        fn step(&mut self, input: Input) -> Vec<Output> {
            let outputs = self.group.step(self.now, input);
            for output in &outputs {
                if let Output::Wake(member) = output {
                    self.woken.insert(*member);
                }
            }
            assert!(self.group.generation >= self.generation, "the generation went back");
            assert!(self.group.generation <= self.generation + 2, "one step is two generations at most");
            self.generation = self.group.generation;
            self.check();
            outputs
        }

        /// What holds at every moment, whoever does what.
        fn check(&self) {
            let mut owners = BTreeMap::new();
            for (id, member) in &self.group.members {
                for partition in &member.owned {
                    let other = owners.insert(partition, id);
                    assert_eq!(other, None, "{partition} is owned by two");
                }
                assert!(!member.is_away() || member.owned.is_empty(), "who is away owns nothing");
            }
            let mut assigned = BTreeSet::new();
            let all = self.group.members.values().flat_map(|member| &member.assignment);
            if self.group.preparing.is_none() {
                assert!(all.into_iter().all(|partition| assigned.insert(partition)), "a partition is assigned to two");
            }
            let everybody_waits = self.group.members.values().all(Member::is_waiting);
            assert!(self.group.preparing.is_none() || !everybody_waits, "a rebalance waits for nobody");
            assert!(self.group.members.is_empty() || self.group.due(self.now).is_some_and(|due| due > Duration::ZERO));
            for (id, duty) in self.duties() {
                // Whoever has something to do was told so, or does not know that he is out.
                let idle = matches!(duty, Duty::Read | Duty::Wait);
                assert!(idle || self.woken.contains(&id), "{id} sleeps over {duty:?}");
            }
        }

        fn duties(&self) -> Vec<(MemberId, Duty)> {
            let joined = self.reads.iter().filter(|(_, reads)| reads.is_some()).map(|(id, _)| *id);
            joined.map(|id| (id, self.duty(id))).collect()
        }

        fn duty(&self, id: MemberId) -> Duty {
            self.group.duty(id, self.profiles[&id].instance_id.as_deref())
        }

        fn start(&mut self, id: MemberId, profile: Arc<Profile>) {
            self.profiles.insert(id, profile);
            self.reads.insert(id, None);
        }

        /// What a consumer does in one poll.
        fn poll(&mut self, id: MemberId) {
            self.step(Input::Heard { member: id, polled: None });
            loop {
                self.woken.remove(&id);
                let duty = if self.reads[&id].is_none() { Duty::Rejoin } else { self.duty(id) };
                match duty {
                    Duty::Rejoin => self.join(id),
                    Duty::PickUp { generation, partitions, .. } => {
                        let partitions: BTreeSet<_> = partitions.into_iter().collect();
                        self.woken.insert(id);
                        self.step(Input::PickUp { member: id, generation });
                        if self.group.reads(id) {
                            self.reads.insert(id, Some(partitions));
                        }
                    }
                    Duty::Out { fenced } => {
                        self.reads.insert(id, None);
                        if fenced {
                            self.fenced.insert(id);
                            return;
                        }
                    }
                    Duty::Wait | Duty::Read => break,
                }
            }
            self.step(Input::Heard { member: id, polled: Some(self.now) });
        }

        fn join(&mut self, id: MemberId) {
            let profile = Arc::clone(&self.profiles[&id]);
            let cooperative =
                profile.assignors.iter().all(|assignor| assignor.protocol() == RebalanceProtocol::Cooperative);
            let keeps = self.reads.get_mut(&id).and_then(Option::take).map(|mut reads| {
                reads.retain(|partition| cooperative && profile.wanted.wants(partition.topic()));
                reads.into_iter().collect::<Vec<_>>()
            });
            self.reads.insert(id, Some(keeps.iter().flatten().cloned().collect()));
            self.woken.insert(id);
            let outputs = self.step(Input::Join { member: id, profile, keeps });
            assert!(outputs.iter().all(|output| matches!(output, Output::Wake(_))), "{outputs:?}");
        }

        fn leave(&mut self, id: MemberId) {
            self.reads.remove(&id);
            self.step(Input::Leave { member: id });
        }

        /// Lets everybody poll until nothing changes any more, which must not take long.
        fn settle(&mut self) {
            for _ in 0..6 {
                for id in self.reads.keys().copied().collect::<Vec<_>>() {
                    if !self.fenced.contains(&id) {
                        self.poll(id);
                    }
                }
            }
        }

        /// What each member reads, once it is settled.
        fn shares(&self) -> Vec<usize> {
            self.reads.values().map(|reads| reads.as_ref().map_or(0, BTreeSet::len)).collect()
        }
    }

    #[test]
    fn every_state_is_reached_on_the_way_from_empty_to_empty() {
        let mut world = World::new(&[("a", 2)]);
        let member = || profile(None, &["a"], &[range()]);
        world.start(1, member());
        world.start(2, member());
        assert_eq!(world.group.state(), GroupState::Empty);

        world.poll(1);
        assert_eq!((world.group.state(), world.group.generation()), (GroupState::Stable, 1));
        world.poll(2);
        assert_eq!(world.group.state(), GroupState::PreparingRebalance);
        world.poll(1);
        assert_eq!((world.group.state(), world.group.generation()), (GroupState::CompletingRebalance, 2));
        world.poll(2);
        assert_eq!((world.group.state(), world.shares()), (GroupState::Stable, vec![1, 1]));

        world.leave(1);
        assert_eq!(world.group.state(), GroupState::PreparingRebalance);
        world.leave(2);
        assert_eq!((world.group.state(), world.group.generation()), (GroupState::Empty, 3), "late commits are refused");
        assert_eq!(world.group.due(world.now), None);
    }

    #[test]
    fn whoever_keeps_a_rebalance_waiting_is_out_when_its_time_is_over() {
        let mut world = World::new(&[("a", 2)]);
        for id in 1..=3 {
            world.start(id, profile(None, &["a"], &[range()]));
        }
        world.poll(1);
        world.poll(2);
        world.poll(1);
        // It is in a poll, in a listener that does not end.
        world.step(Input::Heard { member: 2, polled: None });
        world.poll(3);
        world.poll(1);
        let due = world.group.due(world.now).unwrap();
        assert_eq!(due, INTERVAL);

        world.now = due;
        world.step(Input::Heard { member: 1, polled: None });
        world.step(Input::Heard { member: 3, polled: None });
        world.step(Input::Tick);

        assert_eq!(world.duty(2), Duty::Out { fenced: false });
        world.poll(1);
        world.poll(3);
        assert_eq!(world.group.state(), GroupState::Stable);
    }

    #[test]
    fn who_was_put_out_between_two_looks_keeps_nothing() {
        let mut world = World::new(&[("a", 2)]);
        for instance in [None, Some("till")] {
            world.start(1, profile(instance, &["a"], &[Arc::new(CooperativeStickyAssignor)]));
            world.settle();
            world.now += INTERVAL;
            world.step(Input::Tick);
            let keeps = Some(vec![("a", 0).into(), ("a", 1).into()]);

            let join = Input::Join { member: 1, profile: Arc::clone(&world.profiles[&1]), keeps };
            let outputs = world.group.step(world.now, join);

            assert_eq!(outputs, [Output::Unknown], "{instance:?}");
            assert_eq!(world.duty(1), Duty::Out { fenced: false });
            world.reads.remove(&1);
        }
    }

    #[test]
    fn the_assignor_that_most_members_like_best_is_used_of_those_that_all_have() {
        let (range, robin): (Arc<dyn Assignor>, Arc<dyn Assignor>) = (range(), Arc::new(RoundRobinAssignor));
        let mut world = World::new(&[("a", 2)]);
        world.start(1, profile(None, &["a"], &[Arc::clone(&range), Arc::clone(&robin)]));
        world.settle();
        assert_eq!(world.group.assignor(), Some("range"));
        world.start(2, profile(None, &["a"], &[Arc::clone(&robin), Arc::clone(&range)]));
        world.settle();
        assert_eq!(world.group.assignor(), Some("range"), "of equals the oldest member decides");
        world.start(3, profile(None, &["a"], &[Arc::clone(&robin), Arc::clone(&range)]));
        world.settle();
        assert_eq!(world.group.assignor(), Some("roundrobin"));

        let outputs = world.group.step(
            world.now,
            Input::Join {
                member: 4,
                profile: profile(None, &["a"], &[Arc::new(CooperativeStickyAssignor)]),
                keeps: None,
            },
        );
        assert!(matches!(&outputs[..], [Output::Refused { .. }]), "{outputs:?}");
    }

    #[test]
    fn what_an_assignor_gives_away_too_early_or_twice_or_out_of_nothing_is_not_given() {
        #[derive(Debug)]
        struct Greedy;
        impl Assignor for Greedy {
            fn name(&self) -> &str {
                "greedy"
            }
            fn protocol(&self) -> RebalanceProtocol {
                RebalanceProtocol::Cooperative
            }
            fn assign(
                &self,
                _: &BTreeMap<String, u32>,
                members: &BTreeMap<String, Subscription>,
            ) -> BTreeMap<String, Vec<TopicPartition>> {
                let everything = || vec![("a", 0).into(), ("a", 1).into(), ("a", 9).into(), ("b", 0).into()];
                // The newest member first, and everybody else the same.
                members.keys().map(|id| (id.clone(), everything())).collect()
            }
        }
        let mut world = World::new(&[("a", 2), ("b", 1)]);
        for id in 1..=2 {
            world.start(id, profile(None, &["a"], &[Arc::new(Greedy)]));
            world.settle();
        }

        assert_eq!(world.shares(), [2, 0]);
        assert_eq!(world.group.state(), GroupState::Stable);
    }

    #[test]
    fn a_member_that_comes_to_a_cooperative_group_costs_two_generations_however_many_let_go() {
        let mut world = World::new(&[("a", 64)]);
        for id in 1..=8 {
            world.start(id, profile(None, &["a"], &[Arc::new(CooperativeStickyAssignor)]));
        }
        world.settle();
        let before = world.group.generation();
        world.start(9, profile(None, &["a"], &[Arc::new(CooperativeStickyAssignor)]));

        world.settle();

        assert_eq!(world.shares(), [8, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(world.group.generation(), before + 2);
    }

    /// Something that happens to a group.
    #[derive(Clone, Debug)]
    enum Happens {
        Starts {
            kind: u8,
        },
        Polls(u8),
        Leaves(u8),
        /// It is gone without a word, as far as the group knows.
        Dies(u8),
        TimeGoesBy(u16),
        Topics(u8),
        Rebalances(u8),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            3 => (0..8_u8).prop_map(|kind| Happens::Starts { kind }),
            12 => any::<u8>().prop_map(Happens::Polls),
            2 => any::<u8>().prop_map(Happens::Leaves),
            1 => any::<u8>().prop_map(Happens::Dies),
            3 => (0..400_u16).prop_map(Happens::TimeGoesBy),
            1 => (0..6_u8).prop_map(Happens::Topics),
            1 => any::<u8>().prop_map(Happens::Rebalances),
        ]
    }

    impl World {
        fn any(&self, choice: u8) -> Option<MemberId> {
            let alive: Vec<_> = self.reads.keys().copied().collect();
            (!alive.is_empty()).then(|| alive[usize::from(choice) % alive.len()])
        }

        fn take(&mut self, number: MemberId, what: &Happens, cooperative: bool) {
            let assignor: Arc<dyn Assignor> =
                if cooperative { Arc::new(CooperativeStickyAssignor) } else { Arc::new(RangeAssignor) };
            match what {
                Happens::Starts { kind } => {
                    let instance = [None, None, Some("one"), Some("two")][usize::from(*kind) % 4];
                    let wanted = [&["a"][..], &["a", "b"]][usize::from(*kind) / 4];
                    if self.reads.len() < 9 {
                        self.start(number, profile(instance, wanted, &[assignor]));
                    }
                }
                Happens::Polls(choice) => {
                    if let Some(id) = self.any(*choice).filter(|id| !self.fenced.contains(id)) {
                        self.poll(id);
                    }
                }
                Happens::Leaves(choice) => {
                    if let Some(id) = self.any(*choice) {
                        self.leave(id);
                    }
                }
                Happens::Dies(choice) => {
                    if let Some(id) = self.any(*choice) {
                        self.reads.remove(&id);
                    }
                }
                Happens::TimeGoesBy(secs) => {
                    self.now += Duration::from_secs(u64::from(*secs));
                    self.step(Input::Tick);
                }
                Happens::Topics(count) => {
                    self.step(Input::Topics(topics(&[("a", u32::from(*count)), ("b", 3)])));
                }
                Happens::Rebalances(choice) => {
                    if let Some(id) = self.any(*choice) {
                        self.step(Input::Rebalance { member: id });
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// `check` holds after every step; and when the dead are out and everybody else polls, the group comes to rest, all
        /// partitions that somebody wants are read by exactly one.
        #[test]
        fn whatever_happens_a_partition_has_one_owner_and_the_group_comes_to_rest(
            story in prop::collection::vec(happens(), 1..80),
            cooperative in any::<bool>(),
        ) {
            let mut world = World::new(&[("a", 5), ("b", 3)]);
            for (number, what) in (1..).zip(&story) {
                world.take(number, what, cooperative);
            }
            world.settle();
            // Who is dead is out now, and who is away too.
            for _ in 0..2 {
                world.now += INTERVAL + SESSION;
                for id in world.reads.keys().copied().collect::<Vec<_>>() {
                    world.step(Input::Heard { member: id, polled: None });
                }
                world.step(Input::Tick);
                world.settle();
            }

            let alive: Vec<_> = world.reads.keys().filter(|id| !world.fenced.contains(id)).collect();
            let expected = if alive.is_empty() { GroupState::Empty } else { GroupState::Stable };
            prop_assert_eq!(world.group.state(), expected);
            let read: Vec<_> = alive.iter().filter_map(|id| world.reads[id].clone()).flatten().collect();
            let distinct: BTreeSet<_> = read.iter().collect();
            prop_assert_eq!(distinct.len(), read.len(), "read by two");
            let wanted: u32 = world.group.wanted_topics().values().sum();
            prop_assert_eq!(read.len(), wanted as usize, "read by nobody");
        }
    }
}
