//! Consumer groups: who reads which partition, and how far the group has come.
//!
//! A [`Group`] is a coordinator behind a mutex, and the committed offsets. Everything about who is in the group and who owns
//! what is decided under that mutex, in steps that neither wait nor call back; a commit is checked and appended under it, so
//! that nobody can lose a partition between the one and the other.
//!
//! A consumer learns what it has to do in its own polls: nobody calls into another thread's consumer. It is told that
//! there is something by two means:
//!
//! - the group's *version*, which every step moves before it does anything else, under the mutex. A poll compares it, without
//!   the mutex, with the one that it saw when it last looked; if it has moved, the poll takes the mutex to look, and so
//!   sees the whole of the step. It reads the version before it looks: so it looks once too often rather than once too
//!   seldom. And a rebalance counts a member's time from a moment at which the member could have seen it.
//! - the bell of the consumer, which ends the waiting of a poll that blocks, and is rung when the mutex is given back. A
//!   poll reads the bell's number before it reads the version, so a ring in between is not lost.
//!
//! The other way round, a member says in its *pulse* when it last polled: one store, without the mutex. The coordinator is
//! told before the time is looked at, which whoever polls does when something is due, and the background worker too. The
//! moment at which something is due is a lower bound, because polls only put deadlines off.
//!
//! Order of the locks: what keeps topics and groups from coming and going ([`Catalog::while_unchanged`]), what keeps the
//! files of a partition that is being cut, the group's mutex, then the table's, then the partition's. No bell is rung and no
//! callback run under any of them. Assignors and patterns are asked under the group's, and must not ask back (see [`asking`]).

mod asking;
mod coordinator;
mod offsets;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::catalog::{Catalog, PulledBack, RecoveryReport};
use crate::env::point::{self, What};
#[cfg(test)]
use crate::env::point::{Mistake, is_planted};
use crate::env::scheduling::Bell;
use crate::error::{Error, Result};
use crate::group::asking::check_not_asked;
use crate::group::coordinator::{Coordinator, Input, Output, Topics, Verdict};
use crate::partition::Partition;
use crate::types::{Offset, OffsetAndMetadata, TopicPartition};
use crate::upkeep::{Keeper, Ward};

pub use crate::group::coordinator::GroupState;
pub(crate) use crate::group::coordinator::{Duty, MemberId, MemberView, Profile, Wanted};
use crate::group::offsets::{Encoded, Offsets};

/// The groups of an open log.
pub(crate) struct Groups {
    catalog: Arc<Catalog>,
    groups: Mutex<BTreeMap<String, Arc<Group>>>,
    members: AtomicU64,
    keeper: Arc<Keeper>,
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Groups({:?})", self.groups.lock().keys())
    }
}

impl Groups {
    /// Opens all groups that there are. Those that committed beyond the end of a partition, because a power cut took
    /// its tail, are pulled back to that end: otherwise they would skip what is written there from now on.
    pub(crate) fn open(catalog: Arc<Catalog>, keeper: Arc<Keeper>, report: &mut RecoveryReport) -> Result<Arc<Self>> {
        let mut groups = BTreeMap::new();
        for name in offsets::group_names(&catalog)? {
            let offsets = Offsets::open(Arc::clone(&catalog), name.clone(), report)?;
            groups.insert(name, Arc::new(Group::new(Arc::clone(&catalog), offsets)));
        }
        let groups = Groups { catalog, groups: Mutex::new(groups), members: AtomicU64::new(1), keeper };
        let groups = Arc::new(groups);
        let ward: std::sync::Weak<dyn Ward> = Arc::downgrade(&groups) as _;
        groups.keeper.adopt(ward);
        Ok(groups)
    }

    /// The group of this name, whether it was ever heard of or not: it is kept once it commits.
    pub(crate) fn group(&self, name: &str) -> Result<Arc<Group>> {
        offsets::check_name(name)?;
        let mut groups = self.groups();
        if let Some(group) = groups.get(name) {
            return Ok(Arc::clone(group));
        }
        let offsets = Offsets::find(Arc::clone(&self.catalog), name.to_owned())?;
        let group = Arc::new(Group::new(Arc::clone(&self.catalog), offsets));
        groups.insert(name.to_owned(), Arc::clone(&group));
        Ok(group)
    }

    /// The groups that have committed something or have a member, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Group>> {
        let groups = self.groups();
        groups.values().filter(|group| group.is_known()).cloned().collect()
    }

    /// The group of this name, if it has committed something or has a member.
    pub(crate) fn known(&self, name: &str) -> Result<Arc<Group>> {
        let group = self.groups().get(name).filter(|group| group.is_known()).cloned();
        group.ok_or_else(|| Error::UnknownGroup { group: name.to_owned() })
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Group>>> {
        check_not_asked();
        self.groups.lock()
    }

    /// A member that no other is.
    pub(crate) fn next_member(&self, bell: Arc<Bell>) -> Arc<Member> {
        let id = self.members.fetch_add(1, Ordering::Relaxed);
        Arc::new(Member { id, bell, pulse: AtomicU64::new(IN_POLL), keeper: Arc::clone(&self.keeper) })
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.groups().values().filter_map(|group| group.offsets.partition()).collect()
    }
}

impl Ward for Groups {
    fn look(&self) -> Option<Duration> {
        let now = self.catalog.env().clock.monotonic();
        let late: Vec<Arc<Group>> = self.groups().values().filter(|group| group.due() <= now).cloned().collect();
        late.iter().for_each(|group| group.step(Input::Tick));
        let due = self.groups().values().map(|group| group.due()).min();
        due.filter(|due| *due < NEVER)
    }
}

/// Somebody who can join a group, as the group knows him.
#[derive(Debug)]
pub(crate) struct Member {
    id: MemberId,
    bell: Arc<Bell>,
    /// When its last poll ended, in nanoseconds of the monotonic clock.
    pulse: AtomicU64,
    keeper: Arc<Keeper>,
}

/// The pulse of a member that is in a poll.
const IN_POLL: u64 = u64::MAX;

/// When something is due that will not be.
const NEVER: Duration = Duration::from_nanos(u64::MAX);

impl Member {
    /// A poll begins.
    pub(crate) fn enter_poll(&self) {
        self.pulse.store(IN_POLL, Ordering::Release);
    }

    /// A poll ends at this time.
    pub(crate) fn leave_poll(&self, now: Duration) {
        self.pulse.store(nanos(now), Ordering::Release);
    }

    /// Rings the member's bell at this moment, once.
    pub(crate) fn set_alarm(&self, moment: Duration) {
        self.keeper.set_alarm(moment, self.id, &self.bell);
    }

    pub(crate) fn cancel_alarm(&self, moment: Duration) {
        self.keeper.cancel_alarm(moment, self.id);
    }

    /// When the last poll ended; `None`: it has not.
    pub(crate) fn polled(&self) -> Option<Duration> {
        match self.pulse.load(Ordering::Acquire) {
            IN_POLL => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(IN_POLL - 1).min(IN_POLL - 1)
}

/// One group: its coordinator and its committed offsets.
pub(crate) struct Group {
    catalog: Arc<Catalog>,
    offsets: Offsets,
    desk: Mutex<Desk>,
    version: AtomicU64,
    /// Before this time, in nanoseconds, nothing happens by itself.
    due: AtomicU64,
    /// As of which version of the catalog the coordinator knows the topics.
    topics: AtomicU64,
}

/// What the mutex guards.
struct Desk {
    coordinator: Coordinator,
    members: BTreeMap<MemberId, Arc<Member>>,
    /// What is being committed.
    encoded: Encoded,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({})", self.name())
    }
}

/// Membership.
impl Group {
    fn new(catalog: Arc<Catalog>, offsets: Offsets) -> Self {
        // A later opening has later generations, so that one can be told from another for ever.
        let coordinator = Coordinator::new(u64::from(catalog.epoch()) << 32);
        let desk = Mutex::new(Desk { coordinator, members: BTreeMap::new(), encoded: Encoded::default() });
        let (version, due) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Group { catalog, offsets, desk, version, due, topics: AtomicU64::new(u64::MAX) }
    }

    pub(crate) fn name(&self) -> &str {
        self.offsets.group()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        check_not_asked();
        self.desk.lock()
    }

    fn is_known(&self) -> bool {
        // In this order: whoever is just committing for the first time has the desk.
        !self.desk().coordinator.is_empty() || self.offsets.are_there()
    }

    /// Moves whenever there may be news for a member. Notices what has become of the topics, and of the time.
    #[inline]
    pub(crate) fn version(&self, now: Duration) -> u64 {
        if self.topics.load(Ordering::Acquire) != self.catalog.version()
            || nanos(now) >= self.due.load(Ordering::Acquire)
        {
            // Puts out who has not been heard from.
            self.step(Input::Tick);
        }
        self.version.load(Ordering::SeqCst)
    }

    /// When to look again if nothing happens.
    pub(crate) fn due(&self) -> Duration {
        Duration::from_nanos(self.due.load(Ordering::Acquire))
    }

    /// Takes a step, after telling the coordinator what it must know; then tells who must know.
    fn step(&self, input: Input) {
        drop(self.step_of(None, input));
    }

    /// A step after which the group may know one member more. Returns what was answered, if not all went well.
    fn step_of(&self, joining: Option<&Arc<Member>>, input: Input) -> Option<Output> {
        let mut desk = self.desk();
        desk.members.extend(joining.map(|member| (member.id, Arc::clone(member))));
        // In this order: whoever read the version before is given his time from a moment behind that.
        self.version.fetch_add(1, Ordering::SeqCst);
        let now = self.catalog.env().clock.monotonic();
        let Desk { coordinator, members, .. } = &mut *desk;
        // What is due, and when, follows from when they polled last.
        for member in members.values() {
            drop(coordinator.step(now, Input::Heard { member: member.id, polled: member.polled() }));
        }
        let mut outputs = Vec::new();
        let version = self.catalog.version();
        if self.topics.load(Ordering::Acquire) != version {
            let topics = self.catalog.topics();
            let topics: Topics = topics.iter().map(|topic| (topic.name().to_string(), topic.count())).collect();
            outputs = coordinator.step(now, Input::Topics(topics));
            self.topics.store(version, Ordering::Release);
        }
        outputs.extend(coordinator.step(now, input));
        let due = coordinator.due(now).map_or(u64::MAX, nanos);
        self.due.store(due, Ordering::Release);
        let (mut woken, mut refused) = (Vec::new(), None);
        for output in outputs {
            match output {
                Output::Wake(member) => woken.extend(members.get(&member).map(|member| Arc::clone(&member.bell))),
                answer => refused = Some(answer),
            }
        }
        members.retain(|id, _| coordinator.knows(*id));
        drop(desk);
        woken.iter().for_each(|bell| bell.ring());
        refused
    }

    /// Joins; or joins again, keeping only some of what it has. False if it was put out meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::InconsistentGroupProtocol`] if it shares no assignor with the others.
    pub(crate) fn join(
        &self,
        member: &Arc<Member>,
        profile: Arc<Profile>,
        keeps: Option<Vec<TopicPartition>>,
    ) -> Result<bool> {
        let before = self.due();
        match self.step_of(Some(member), Input::Join { member: member.id, profile, keeps }) {
            None => {}
            Some(Output::Refused { reason }) => {
                return Err(Error::InconsistentGroupProtocol { group: self.name().to_owned(), reason });
            }
            Some(_) => return Ok(false),
        }
        if self.due() < before {
            // The worker believes to have more time, or nothing to wait for.
            member.keeper.hurry();
        }
        Ok(true)
    }

    /// What a member is to do now.
    pub(crate) fn duty(&self, member: &Member, profile: &Profile) -> Duty {
        self.desk().coordinator.duty(member.id, profile.instance_id.as_deref())
    }

    /// The member reads what it was assigned; false if that is out of date.
    pub(crate) fn pick_up(&self, member: &Member, generation: u64) -> bool {
        self.step(Input::PickUp { member: member.id, generation });
        // Nobody but the member itself makes it read, or not read any more but by putting it out.
        self.desk().coordinator.reads(member.id)
    }

    /// What a member is told of an assignment that was not all right.
    pub(crate) fn invalid_assignment(&self, flaw: &str) -> Error {
        let assignor = self.desk().coordinator.assignor().unwrap_or_default().to_owned();
        Error::InvalidAssignment { group: self.name().to_owned(), assignor, reason: flaw.to_owned() }
    }

    /// The member has let go of everything.
    pub(crate) fn leave(&self, member: &Member) {
        self.step(Input::Leave { member: member.id });
    }

    /// The member wants a new generation.
    pub(crate) fn rebalance(&self, member: &Member) {
        self.step(Input::Rebalance { member: member.id });
    }
}

/// Committed offsets.
impl Group {
    /// Commits; returns the offset in the group's log that must be durable for it to count after a power cut, if it is
    /// not yet as durable as configured.
    ///
    /// `by`: the member that commits; `None`: somebody who was assigned partitions by hand.
    pub(crate) fn commit(
        &self,
        now: Duration,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        by: Option<(&Member, &Profile)>,
    ) -> Result<Option<Offset>> {
        // Whoever is late is out, also if nobody has looked.
        self.version(now);
        let who = by.map(|(member, profile)| (member.id, profile.instance_id.as_deref()));
        let admits = |desk: &Desk| desk.coordinator.admits(who, offsets.iter().map(|(partition, _)| partition));
        #[cfg(test)]
        let too_early = is_planted(Mistake::GenerationLookedAtTooEarly).then(|| admits(&self.desk()));
        point::reach(|| What::Step);
        // Held while the change is made: nobody else can become the owner in between.
        let mut desk = self.desk();
        self.offsets.encode(offsets, &mut desk.encoded)?;
        if offsets.is_empty() {
            return Ok(None);
        }
        let verdict = admits(&desk);
        #[cfg(test)]
        let verdict = too_early.unwrap_or(verdict);
        if verdict != Verdict::Counts {
            drop(desk);
            return Err(self.refusal(verdict, offsets, by));
        }
        let end = self.offsets.commit(&desk.encoded)?;
        point::note(|| What::Committed { group: self.name(), offsets });
        Ok(end)
    }

    fn refusal(
        &self,
        verdict: Verdict,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        by: Option<(&Member, &Profile)>,
    ) -> Error {
        let group = self.name().to_owned();
        let failed = |reason: String| Error::CommitFailed { group: group.clone(), reason };
        match verdict {
            Verdict::Fenced => {
                let instance_id = by.and_then(|(_, profile)| profile.instance_id.clone()).unwrap_or_default();
                Error::FencedInstanceId { group, instance_id }
            }
            Verdict::Rebalancing => Error::RebalanceInProgress { group },
            Verdict::NotOwned(at) => failed(format!("{} is assigned to another member by now", offsets[at].0)),
            Verdict::NoMember => failed(
                "the group has members, and this consumer is none: it was assigned partitions by hand; subscribe, or use \
                 a group of its own"
                    .to_owned(),
            ),
            Verdict::Out | Verdict::Counts => failed(match by {
                Some((_, profile)) => format!(
                    "this consumer is no member any more, so its partitions may be another's: it did not poll for longer \
                     than max.poll.interval.ms, {:?}, or has not polled since it subscribed; poll to join again, and \
                     process less between polls",
                    profile.max_poll_interval
                ),
                None => "this consumer is no member".to_owned(),
            }),
        }
    }

    /// What is committed for a partition of the topic with this id.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the group's files have lost something since it was committed, for it may have been more:
    /// until it is committed anew.
    pub(crate) fn committed(&self, name: &TopicPartition, topic_id: u128) -> Result<Option<OffsetAndMetadata>> {
        self.offsets.committed(name, topic_id)
    }

    /// All that is committed, of topics that there are.
    pub(crate) fn all_committed(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        self.offsets.all_committed()
    }

    /// Waits until what was committed below `end` is as durable as configured.
    pub(crate) fn deliver(&self, end: Offset) -> Result<()> {
        #[cfg(test)]
        if is_planted(Mistake::SyncNotWaitedFor) {
            return Ok(());
        }
        self.offsets.deliver(end)
    }

    /// Makes durable what was committed, at whatever level.
    pub(crate) fn sync(&self) -> Result<()> {
        self.offsets.sync()
    }

    /// Whether what was committed below `end` is as durable as configured; `None`: not yet, and then `bell` rings.
    pub(crate) fn delivered(&self, end: Offset, bell: &Arc<Bell>) -> Option<Result<()>> {
        self.offsets.delivered(end, bell)
    }
}

/// Administration.
impl Group {
    pub(crate) fn look(&self, now: Duration) -> GroupView {
        // Whoever looks sees the group as of now, also if nobody has polled for long.
        self.version(now);
        let desk = self.desk();
        GroupView {
            state: desk.coordinator.state(),
            generation: desk.coordinator.generation(),
            assignor: desk.coordinator.assignor().map(str::to_owned),
            members: desk.coordinator.members(),
        }
    }

    /// Sets committed offsets from outside. Only while the group is empty.
    pub(crate) fn alter(&self, now: Duration, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.version(now);
        let mut desk = self.desk();
        self.offsets.encode(offsets, &mut desk.encoded)?;
        self.check_empty(&desk)?;
        if offsets.is_empty() {
            return Ok(());
        }
        let end = self.offsets.commit(&desk.encoded)?;
        drop(desk);
        end.map_or(Ok(()), |end| self.deliver(end))
    }

    /// What is committed for a partition beyond `end`.
    pub(crate) fn committed_beyond(&self, partition: &Partition, end: Offset) -> Option<Offset> {
        let committed = self.offsets.all_committed().into_iter().find(|(name, _)| name == partition.name());
        committed.map(|(_, committed)| committed.offset).filter(|offset| *offset > end)
    }

    /// Sets what is committed beyond `end` of a partition, at which it is being cut, back to that, durably, whoever is in the
    /// group.
    pub(crate) fn pull_back(&self, partition: &Partition, end: Offset) -> Result<Option<PulledBack>> {
        // Whoever has just looked how much can be committed has committed before this gets the desk.
        let desk = self.desk();
        let pulled_back = self.offsets.pull_back_to(partition, end)?;
        drop(desk);
        if pulled_back.is_some() {
            // Whatever the level: records are going to be written where the group believed to have been.
            self.sync()?;
        }
        Ok(pulled_back)
    }

    /// Takes away what is committed for these partitions. Not of topics that a member subscribes to.
    pub(crate) fn delete_offsets(&self, now: Duration, partitions: &[TopicPartition]) -> Result<()> {
        self.version(now);
        let desk = self.desk();
        if let Some(name) = partitions.iter().find(|name| desk.coordinator.is_wanted(name.topic())) {
            let (group, topic) = (self.name().to_owned(), name.topic().to_owned());
            return Err(Error::GroupSubscribedToTopic { group, topic });
        }
        let removed = self.offsets.remove(partitions)?;
        drop(desk);
        removed.map_or(Ok(()), |end| self.deliver(end))
    }

    /// Takes away everything that is committed, and the files. Only while the group is empty.
    pub(crate) fn delete(&self, now: Duration) -> Result<()> {
        self.version(now);
        // Before the desk: whoever cuts a partition wants the desk while he keeps others from copying or deleting it, and
        // those let no topic and no group come or go meanwhile.
        self.catalog.while_unchanged(|| {
            let desk = self.desk();
            self.check_empty(&desk)?;
            self.offsets.delete()
        })
    }

    /// Whether offsets may be altered now.
    pub(crate) fn check_alterable(&self, now: Duration) -> Result<()> {
        self.version(now);
        self.check_empty(&self.desk())
    }

    fn check_empty(&self, desk: &Desk) -> Result<()> {
        if desk.coordinator.is_empty() {
            return Ok(());
        }
        let members = desk.coordinator.members().into_iter().map(|member| member.id).collect();
        Err(Error::GroupNotEmpty { group: self.name().to_owned(), members })
    }
}

/// A group as it is at a moment.
#[derive(Clone, Debug)]
pub(crate) struct GroupView {
    pub(crate) state: GroupState,
    pub(crate) generation: u64,
    pub(crate) assignor: Option<String>,
    pub(crate) members: Vec<MemberView>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogConfig, TopicConfig};
    use crate::env::Env;
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::sim::SimDisk;
    use crate::partition::Upkeep;
    use crate::types::Timestamp;

    #[test]
    fn whoever_deletes_a_group_keeps_nobody_from_it_while_he_waits_for_what_comes_and_goes() {
        const LOOKS: u32 = 10_000;
        const FOR_EVER: Duration = Duration::from_secs(10);
        let clock = SimClock::new(Timestamp::from_millis(0));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
        let env = Env::simulated(SimDisk::new(1), clock, scheduler, 1);
        let keeper = Arc::new(Keeper::new(env.clone()));
        let upkeep: Arc<dyn Upkeep> = Arc::clone(&keeper) as _;
        let (catalog, mut report) = Catalog::open(env, LogConfig::new(), upkeep).unwrap();
        let catalog = Arc::new(catalog);
        catalog.create("orders", TopicConfig::new()).unwrap();
        let groups = Groups::open(Arc::clone(&catalog), keeper, &mut report).unwrap();
        let group = groups.group("billing").unwrap();
        group.alter(Duration::ZERO, &[(("orders", 0).into(), OffsetAndMetadata::from(Offset::ZERO))]).unwrap();

        std::thread::scope(|threads| {
            let deleted = catalog.while_unchanged(|| {
                let deleted = threads.spawn(|| group.delete(Duration::ZERO));
                for _ in 0..LOOKS {
                    assert!(group.desk.try_lock_for(FOR_EVER).is_some());
                    std::thread::yield_now();
                }
                assert!(group.offsets.are_there());
                deleted
            });
            deleted.join().unwrap().unwrap();
        });

        assert!(!group.is_known());
    }
}
