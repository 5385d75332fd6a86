//! Assignors: who of a group reads which partition. Pure, and the same answer for the same question, always.
//!
//! | assignor             | what it gives                                                     | what moves when somebody joins or leaves |
//! |----------------------|-------------------------------------------------------------------|------------------------------------------|
//! | `range`              | of each topic a range; those of one number of different topics together | what the new ranges say            |
//! | `roundrobin`         | one partition after the other, in a circle                        | almost everything                        |
//! | `sticky`             | as equal in number as can be                                      | only what must, all of it is revoked     |
//! | `cooperative-sticky` | the same                                                          | only what must, only that is revoked     |
//!
//! They stand below the configuration, as the partitioners do, because a consumer's configuration names one.

mod range;
mod round_robin;
mod sticky;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::types::TopicPartition;

pub use crate::assignor::range::RangeAssignor;
pub use crate::assignor::round_robin::RoundRobinAssignor;
pub use crate::assignor::sticky::{CooperativeStickyAssignor, StickyAssignor};

/// Decides who reads what. Kafka: `ConsumerPartitionAssignor`, named by `partition.assignment.strategy`.
///
/// The coordinator asks for the whole of an assignment whenever a generation begins. It must answer the same whenever it
/// is asked the same, because a group that is opened again is asked again.
pub trait Assignor: Send + Sync {
    /// The name: all members of a group use the same one. Kafka's are `range`, `roundrobin`, `sticky` and
    /// `cooperative-sticky`.
    fn name(&self) -> &str;

    /// How members go from one assignment to the next.
    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Eager
    }

    /// The partitions of each member: every member is a key, if only with nothing; every partition of a topic that
    /// somebody subscribes to is given to exactly one, who subscribes to it; nothing else is given to anybody.
    ///
    /// What is wrong with the answer is not done, and every member is told of it with
    /// [`InvalidAssignment`](crate::Error::InvalidAssignment); if it panics, everybody keeps what he had.
    ///
    /// It is asked while the group is locked, so it must not use consumers nor ask for groups: it panics if it does, and
    /// hangs if it waits for another thread that does.
    ///
    /// `topics`: how many partitions each topic has, of those that there are; `members`: what each wants, by member id. An
    /// assignor of the cooperative protocol, too, says what the end is to be: what has to move is held back by the
    /// coordinator until its owner has revoked it.
    fn assign(
        &self,
        topics: &BTreeMap<String, u32>,
        members: &BTreeMap<String, Subscription>,
    ) -> BTreeMap<String, Vec<TopicPartition>>;
}

impl fmt::Debug for dyn Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How members go from one assignment to the next. Kafka: `ConsumerPartitionAssignor.RebalanceProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RebalanceProtocol {
    /// Everybody revokes everything, then everybody is given the new assignment.
    #[default]
    Eager,
    /// Everybody keeps what stays, and only what moves is revoked: it is given to its new owner when its old one has
    /// let it go.
    Cooperative,
}

/// What a member of a group wants, and what it has. Kafka: `ConsumerPartitionAssignor.Subscription`.
///
/// ```
/// use tidelog::Subscription;
///
/// let member = Subscription::new(["orders"]).owning([("orders", 0), ("orders", 2)], 7).instance("till-1");
/// assert!(member.subscribes_to("orders"));
/// assert_eq!(member.owned_partitions().len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    topics: BTreeSet<String>,
    owned_partitions: Vec<TopicPartition>,
    generation: Option<u64>,
    group_instance_id: Option<String>,
}

impl Subscription {
    /// A member that wants these topics, and has nothing yet.
    pub fn new<I, S>(topics: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Subscription { topics: topics.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Says what the member has been given, and in which generation of the group. Where two members believe to have the
    /// same partition, the later generation is right; where the generations are equal, neither is.
    #[must_use]
    pub fn owning<I, P>(mut self, partitions: I, generation: u64) -> Self
    where
        I: IntoIterator<Item = P>,
        P: Into<TopicPartition>,
    {
        self.owned_partitions = partitions.into_iter().map(Into::into).collect();
        self.generation = Some(generation);
        self
    }

    /// Makes the member a static one, of this name. Kafka: `group.instance.id`.
    #[must_use]
    pub fn instance(mut self, id: impl Into<String>) -> Self {
        self.group_instance_id = Some(id.into());
        self
    }

    /// The topics that the member subscribes to, whether they exist or not.
    pub fn topics(&self) -> &BTreeSet<String> {
        &self.topics
    }

    /// Whether this is one of them.
    pub fn subscribes_to(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    /// The partitions that the member has.
    pub fn owned_partitions(&self) -> &[TopicPartition] {
        &self.owned_partitions
    }

    /// The generation in which the member was given what it has; `None` if it has never been given anything.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// The name of a static member. Kafka: `group.instance.id`.
    pub fn group_instance_id(&self) -> Option<&str> {
        self.group_instance_id.as_deref()
    }
}

/// The members in the order in which partitions are given to them, as Kafka has it: static ones first, by instance id,
/// because that stays when the member is started again; then the others by member id.
fn in_order(members: &BTreeMap<String, Subscription>) -> Vec<(&str, &Subscription)> {
    let mut ordered: Vec<_> = members.iter().map(|(id, subscription)| (id.as_str(), subscription)).collect();
    ordered.sort_by_key(|(id, subscription)| {
        let instance = subscription.group_instance_id();
        (instance.is_none(), instance, *id)
    });
    ordered
}

/// The assignment in which the member at each place of `ordered` has the partitions at that place of `given`.
fn assignment(
    ordered: &[(&str, &Subscription)],
    given: Vec<Vec<TopicPartition>>,
) -> BTreeMap<String, Vec<TopicPartition>> {
    ordered.iter().map(|(id, _)| (*id).to_owned()).zip(given).collect()
}
