//! Membership: joining a group, letting go of partitions and taking others over, each in the consumer's own polls.

use std::any::Any;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::{Consumer, Mode};
use crate::env::clock::Clock;
use crate::env::point::{self, What};
use crate::error::{Error, Result};
use crate::group::{Duty, Group, Member, Profile, Wanted};
use crate::partition::Partition;
use crate::topic::Topic;
use crate::types::TopicPartition;

/// Is told when partitions come to a consumer and go from it. Kafka: `ConsumerRebalanceListener`.
///
/// All of it is called by the consumer's own [`poll`](Consumer::poll) (and [`close`](Consumer::close) and
/// [`unsubscribe`](Consumer::unsubscribe)), in the thread that called that. The consumer is there to commit, seek, pause
/// and ask; to poll, or to change what is read, is refused. The `revoked` of the old owner of a partition has ended before
/// the `assigned` of the new one begins, which starts from what was committed by then.
///
/// An error is returned by the call that the listener was called from, and a panic goes on through it; neither keeps the
/// rebalance from going its way.
///
/// ```
/// # fn main() -> tidelog::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let log = tidelog::EventLog::open(directory.path())?;
/// # log.create_topic("orders", tidelog::TopicConfig::new())?;
/// use tidelog::{Consumer, ConsumerConfig, RebalanceListener, Result, TopicPartition};
///
/// struct CommitFirst;
///
/// impl RebalanceListener for CommitFirst {
///     fn revoked(&mut self, consumer: &mut Consumer, _: &[TopicPartition]) -> Result<()> {
///         consumer.commit() // the new owner starts from here
///     }
/// }
///
/// let mut consumer = log.consumer(ConsumerConfig::group("billing").auto_commit(false))?;
/// consumer.set_rebalance_listener(CommitFirst);
/// consumer.subscribe(["orders"])?;
/// # Ok(())
/// # }
/// ```
pub trait RebalanceListener: Send {
    /// These partitions came, and polls return their records from now on. Called once for each rebalance, with no
    /// partitions if none came.
    ///
    /// # Errors
    ///
    /// Whatever it returns is returned by the poll.
    fn assigned(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        let _ = (consumer, partitions);
        Ok(())
    }

    /// These partitions are about to go: the last moment to commit them. In the eager protocol all of them, at the
    /// beginning of each rebalance; in the cooperative one those that go, if any do.
    ///
    /// # Errors
    ///
    /// Whatever it returns is returned by the poll.
    fn revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        let _ = (consumer, partitions);
        Ok(())
    }

    /// These partitions are gone, and may be another's already: the consumer was put out of the group. What it commits for
    /// them is refused. Without this method, `revoked` is called.
    ///
    /// # Errors
    ///
    /// Whatever it returns is returned by the poll.
    fn lost(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) -> Result<()> {
        self.revoked(consumer, partitions)
    }
}

impl fmt::Debug for dyn RebalanceListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RebalanceListener")
    }
}

/// A consumer that subscribes.
#[derive(Debug)]
pub(super) struct Subscribed {
    /// What the group is told when the consumer joins.
    profile: Arc<Profile>,
    standing: Standing,
    /// Whether it subscribes to something else since it joined.
    resubscribed: bool,
    /// As of which version of the group, or without one of the catalog, there is nothing to do.
    seen: Option<u64>,
    /// As of which version of the catalog its partitions are those that there are.
    topics: u64,
}

/// Where the consumer stands in its group, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Is to join.
    Out,
    /// Has joined, and reads at most what it kept.
    Joined,
    /// Reads what it was assigned.
    Reads,
    /// Another has taken its place.
    Fenced,
}

/// What came of calling the listener.
struct Told(std::result::Result<Result<()>, Box<dyn Any + Send>>);

impl Told {
    /// There was nothing to tell, or nobody.
    const NOTHING: Told = Told(Ok(Ok(())));

    /// Goes on with the panic, or returns the error. Not before everything is in order.
    fn surface(self) -> Result<()> {
        self.0.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

/// Being in a group.
impl Consumer {
    /// Has this listener told of partitions that come and go, from now on. Kafka: the second argument of `subscribe`.
    pub fn set_rebalance_listener(&mut self, listener: impl RebalanceListener + 'static) {
        self.listener = Some(Box::new(listener));
    }

    /// Joins the group, if need be, and waits until this consumer has its assignment, which can be empty if there are
    /// more members than partitions. Reads nothing. Returns the assignment.
    ///
    /// # Errors
    ///
    /// [`Timeout`](Error::Timeout) if other members do not poll in time; otherwise as [`poll`](Self::poll).
    pub fn wait_for_assignment(&mut self, timeout: Duration) -> Result<Vec<TopicPartition>> {
        self.check_free()?;
        if matches!(self.mode, Mode::None) {
            let reason = "the consumer reads nothing yet; subscribe to topics or assign partitions first";
            return Err(Error::InvalidState { reason: reason.into() });
        }
        let _polling = self.polling();
        let start = self.now();
        loop {
            let seen = self.bell.rung();
            self.take_wakeup()?;
            self.check_usable()?;
            self.keep_up()?;
            if self.is_settled() {
                return Ok(self.assignment());
            }
            let waited = self.now().saturating_sub(start);
            if waited >= timeout {
                return Err(Error::Timeout { waited });
            }
            if !self.listen_for_topics() {
                self.bell.wait(seen, Some(self.longest_wait(timeout - waited)));
            }
        }
    }

    /// Asks for a new generation of the group, in which partitions are assigned anew, though nobody came or went. Kafka:
    /// `enforceRebalance`.
    ///
    /// # Errors
    ///
    /// [`InvalidState`](Error::InvalidState) if the consumer does not subscribe with a group.
    pub fn enforce_rebalance(&mut self) -> Result<()> {
        self.check_usable()?;
        match (&self.mode, &self.group) {
            (Mode::Subscribed(_), Some(group)) => {
                group.rebalance(&self.member);
                Ok(())
            }
            _ => {
                Err(Error::InvalidState { reason: "only a consumer that subscribes with a group can rebalance".into() })
            }
        }
    }

    pub(super) fn subscribe_to(&mut self, wanted: Wanted) -> Result<()> {
        let profile = Arc::new(Profile {
            client_id: self.config.client_id.clone(),
            instance_id: self.config.group_instance_id.clone(),
            wanted,
            assignors: self.config.assignors.clone(),
            max_poll_interval: self.config.max_poll_interval,
            session_timeout: self.config.session_timeout,
        });
        let standing = match &self.mode {
            // What it has is given up, or kept, when it joins again.
            Mode::Subscribed(before) if before.standing != Standing::Fenced => before.standing,
            _ => Standing::Out,
        };
        let resubscribed = standing != Standing::Out;
        self.mode = Mode::Subscribed(Subscribed { profile, standing, resubscribed, seen: None, topics: u64::MAX });
        Ok(())
    }

    /// Whether there is nothing to wait for before reading.
    fn is_settled(&self) -> bool {
        match &self.mode {
            Mode::Subscribed(subscribed) => subscribed.standing == Standing::Reads,
            _ => true,
        }
    }

    fn subscribed(&mut self) -> &mut Subscribed {
        match &mut self.mode {
            Mode::Subscribed(subscribed) => subscribed,
            _ => unreachable!("only a consumer that subscribes is asked"),
        }
    }

    /// Does everything that the group wants of this consumer, and notices what has become of the topics.
    pub(super) fn keep_up(&mut self) -> Result<()> {
        let Mode::Subscribed(subscribed) = &self.mode else { return Ok(()) };
        let Some(group) = &self.group else { return self.keep_up_alone() };
        let now = self.now();
        let version = group.version(now);
        if subscribed.seen == Some(version) && subscribed.topics == self.catalog.version() {
            return Ok(());
        }
        let group = Arc::clone(group);
        self.keep_up_with(&group)
    }

    fn keep_up_with(&mut self, group: &Arc<Group>) -> Result<()> {
        loop {
            let version = group.version(self.now());
            let member = Arc::clone(&self.member);
            let subscribed = self.subscribed();
            let duty = match subscribed.standing {
                Standing::Fenced => return Err(self.fenced(group)),
                Standing::Out => Duty::Rejoin,
                _ => match group.duty(&member, &subscribed.profile) {
                    Duty::Wait | Duty::Read if subscribed.resubscribed => Duty::Rejoin,
                    duty => duty,
                },
            };
            match duty {
                Duty::Rejoin => self.join(group)?,
                Duty::PickUp { generation, partitions, flaw } => {
                    self.pick_up(group, generation, partitions)?;
                    flaw.map_or(Ok(()), |flaw| Err(group.invalid_assignment(&flaw)))?;
                }
                Duty::Out { fenced } => {
                    self.subscribed().standing = if fenced { Standing::Fenced } else { Standing::Out };
                    self.lose().surface()?;
                }
                Duty::Wait | Duty::Read => {
                    self.subscribed().seen = Some(version);
                    self.reopen();
                    return Ok(());
                }
            }
        }
    }

    fn fenced(&self, group: &Group) -> Error {
        let instance_id = self.config.group_instance_id.clone().unwrap_or_default();
        Error::FencedInstanceId { group: group.name().to_owned(), instance_id }
    }

    /// Lets go of what must go, then joins.
    fn join(&mut self, group: &Arc<Group>) -> Result<()> {
        let cooperative = self.config.is_cooperative();
        let profile = Arc::clone(&self.subscribed().profile);
        let keeps = |name: &TopicPartition| cooperative && profile.wanted.wants(name.topic());
        let (keeps, goes): (Vec<_>, Vec<_>) = self.assignment().into_iter().partition(keeps);
        let standing = self.subscribed().standing;
        let read = standing == Standing::Reads;
        let revoked = match goes.as_slice() {
            [] if cooperative || !read => Told::NOTHING,
            goes => self.revoke(goes),
        };
        let keeps = (standing != Standing::Out).then_some(keeps);
        let joined = group.join(&self.member, profile, keeps);
        let subscribed = self.subscribed();
        subscribed.resubscribed = false;
        // Who was put out meanwhile goes on as if it had joined, and is told so when it asks what to do.
        subscribed.standing = if joined.is_ok() { Standing::Joined } else { Standing::Out };
        joined.map(drop).and(revoked.surface())
    }

    /// Lets go of what is another's from now on, then reads what it was assigned.
    fn pick_up(&mut self, group: &Arc<Group>, generation: u64, partitions: Vec<TopicPartition>) -> Result<()> {
        let goes: Vec<_> = self.assignment().into_iter().filter(|name| !partitions.contains(name)).collect();
        let revoked = if goes.is_empty() { Told::NOTHING } else { self.revoke(&goes) };
        let topics = self.catalog.version();
        let (found, came) = self.find_all(&partitions);
        // The last thing before it reads: who was put out meanwhile, by a rebalance that could not wait, is not told of what
        // is another's by now. From here to the listener's own first step nothing is done that takes time.
        if !group.pick_up(&self.member, generation) {
            return revoked.surface();
        }
        self.subscribed().standing = Standing::Reads;
        point::note(|| What::Assigned { generation, partitions });
        let assigned = self.read_all(topics, found, &came);
        revoked.surface()?;
        assigned.surface()
    }

    /// The partitions of these names, and the names of those that are not read yet.
    fn find_all(&self, names: &[TopicPartition]) -> (Vec<(TopicPartition, Arc<Partition>)>, Vec<TopicPartition>) {
        // Of a topic that was deleted since it was counted nothing is left to read.
        let found = names.iter().filter_map(|name| Some((name.clone(), self.catalog.partition(name).ok()?)));
        let found: Vec<(TopicPartition, Arc<Partition>)> = found.collect();
        let came = found.iter().map(|(name, _)| name).filter(|name| !self.partitions.contains_key(name)).cloned();
        let came = came.collect();
        (found, came)
    }

    /// Makes these the partitions that are read, as of this version of the catalog, and tells the listener which came.
    fn read_all(&mut self, topics: u64, found: Vec<(TopicPartition, Arc<Partition>)>, came: &[TopicPartition]) -> Told {
        self.subscribed().topics = topics;
        self.take_over(found);
        self.restart_auto_commit();
        self.tell(|listener, consumer| listener.assigned(consumer, came))
    }

    /// Begins anew in partitions of topics that were deleted and created again.
    fn reopen(&mut self) {
        let version = self.catalog.version();
        if std::mem::replace(&mut self.subscribed().topics, version) != version {
            let names = self.assignment().into_iter();
            self.take_over(
                names.filter_map(|name| Some((name.clone(), self.catalog.partition(&name).ok()?))).collect(),
            );
        }
    }

    /// Commits, if that is automatic, tells the listener, and lets go.
    fn revoke(&mut self, goes: &[TopicPartition]) -> Told {
        let committed = self.auto_commit_now();
        let told = self.tell(|listener, consumer| listener.revoked(consumer, goes));
        goes.iter().for_each(|name| drop(self.partitions.remove(name)));
        Told(told.0.map(|told| committed.and(told)))
    }

    /// Everything is gone.
    fn lose(&mut self) -> Told {
        let lost = self.assignment();
        let told = match lost.as_slice() {
            [] => Told::NOTHING,
            lost => self.tell(|listener, consumer| listener.lost(consumer, lost)),
        };
        self.partitions.clear();
        told
    }

    /// Calls the listener, if there is one.
    fn tell(&mut self, call: impl FnOnce(&mut dyn RebalanceListener, &mut Consumer) -> Result<()>) -> Told {
        let Some(mut listener) = self.listener.take() else { return Told::NOTHING };
        self.in_listener = true;
        let told = panic::catch_unwind(AssertUnwindSafe(|| call(&mut *listener, self)));
        self.in_listener = false;
        self.listener.get_or_insert(listener);
        Told(told)
    }

    /// A consumer without a group has everything that it wants.
    fn keep_up_alone(&mut self) -> Result<()> {
        let version = self.catalog.version();
        let subscribed = self.subscribed();
        if subscribed.seen == Some(version) {
            return Ok(());
        }
        subscribed.seen = Some(version);
        subscribed.standing = Standing::Reads;
        let profile = Arc::clone(&subscribed.profile);
        let topics = self.catalog.topics().into_iter().filter(|topic| profile.wanted.wants(topic.name()));
        let of_topic = |topic: Arc<Topic>| {
            (0..topic.count()).map(move |number| TopicPartition::new(Arc::clone(topic.name()), number))
        };
        let partitions: Vec<TopicPartition> = topics.flat_map(of_topic).collect();
        let goes: Vec<_> = self.assignment().into_iter().filter(|name| !partitions.contains(name)).collect();
        let revoked = if goes.is_empty() { Told::NOTHING } else { self.revoke(&goes) };
        let (found, came) = self.find_all(&partitions);
        let assigned = self.read_all(version, found, &came);
        revoked.surface()?;
        assigned.surface()
    }

    /// Lets go of everything and is a member no more.
    pub(super) fn leave(&mut self) -> Result<()> {
        let group = self.group.clone();
        let member = Arc::clone(&self.member);
        let subscribed = self.subscribed();
        let standing = std::mem::replace(&mut subscribed.standing, Standing::Out);
        subscribed.seen = None;
        let is_out = match &group {
            Some(_) if matches!(standing, Standing::Out | Standing::Fenced) => return Ok(()),
            Some(group) => matches!(group.duty(&member, &subscribed.profile), Duty::Out { .. }),
            None => false,
        };
        let told = match self.assignment().as_slice() {
            [] => Told::NOTHING,
            _ if is_out => self.lose(),
            goes => self.revoke(goes),
        };
        if let Some(group) = group {
            group.leave(&member);
        }
        told.surface()
    }

    /// Is a member no more, and lets whoever comes find out how far it has come.
    pub(super) fn vanish(&mut self) {
        if let (Some(group), Mode::Subscribed(_)) = (&self.group, &self.mode) {
            group.leave(&self.member);
        }
    }

    /// As whom a commit is made.
    pub(super) fn membership(&self) -> Option<(&Member, &Profile)> {
        match &self.mode {
            Mode::Subscribed(subscribed) => Some((&*self.member, &*subscribed.profile)),
            _ => None,
        }
    }

    /// Asks to be told when topics change. Returns whether they have.
    pub(super) fn listen_for_topics(&self) -> bool {
        match &self.mode {
            // Before the first assignment there is nothing that could have changed.
            Mode::Subscribed(subscribed) => {
                let version = if subscribed.topics == u64::MAX { self.catalog.version() } else { subscribed.topics };
                self.catalog.listen(version, &self.bell)
            }
            _ => false,
        }
    }

    /// From now on, and until what is returned is dropped, this consumer is in a poll; `None` if nobody minds, because it
    /// is no member.
    pub(super) fn polling(&self) -> Option<Polling> {
        self.max_poll_interval()?;
        self.member.enter_poll();
        Some(Polling { member: Arc::clone(&self.member), clock: Arc::clone(&self.catalog.env().clock) })
    }
}

/// A poll that goes on.
pub(super) struct Polling {
    member: Arc<Member>,
    clock: Arc<dyn Clock>,
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.member.leave_poll(self.clock.monotonic());
    }
}
