//! Round robin: all partitions of all topics, dealt in a circle.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::assignor::{Assignor, Subscription, assignment, in_order};
use crate::types::TopicPartition;

/// Deals all partitions, by topic and number, to the members in a circle; who does not subscribe to a topic is passed
/// over. Kafka: `RoundRobinAssignor`.
///
/// The numbers of partitions are as equal as can be if all members subscribe to the same topics, and may be far from it
/// if they do not. Whenever a member joins or leaves, most partitions change hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundRobinAssignor;

impl Assignor for RoundRobinAssignor {
    fn name(&self) -> &str {
        "roundrobin"
    }

    fn assign(
        &self,
        topics: &BTreeMap<String, u32>,
        members: &BTreeMap<String, Subscription>,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        let ordered = in_order(members);
        let mut given = vec![Vec::new(); ordered.len()];
        let mut next = 0;
        for (topic, count) in topics {
            let name: Arc<str> = topic.as_str().into();
            let readers: Vec<usize> = (0..ordered.len()).filter(|at| ordered[*at].1.subscribes_to(topic)).collect();
            if readers.is_empty() {
                continue;
            }
            // The circle goes on from topic to topic.
            let mut reader = readers.partition_point(|at| *at < next) % readers.len();
            for number in 0..*count {
                given[readers[reader]].push(TopicPartition::new(Arc::clone(&name), number));
                next = (readers[reader] + 1) % ordered.len();
                reader = (reader + 1) % readers.len();
            }
        }
        assignment(&ordered, given)
    }
}
