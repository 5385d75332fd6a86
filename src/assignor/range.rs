//! Range: each topic on its own, cut into one range for each of its members.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::assignor::{Assignor, Subscription, assignment, in_order};
use crate::types::TopicPartition;

/// Cuts each topic into ranges, one for each member that subscribes to it. If that does not come out even, the first
/// members have one partition more. Kafka: `RangeAssignor`, the default.
///
/// Partitions of one number are read by one member, whatever their topic, if the topics have as many partitions and the
/// same members: what has the same key in both is in the same hands. With many topics the first members have more to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeAssignor;

impl Assignor for RangeAssignor {
    fn name(&self) -> &str {
        "range"
    }

    fn assign(
        &self,
        topics: &BTreeMap<String, u32>,
        members: &BTreeMap<String, Subscription>,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        let ordered = in_order(members);
        let mut given = vec![Vec::new(); ordered.len()];
        for (topic, count) in topics {
            let name: Arc<str> = topic.as_str().into();
            let readers: Vec<usize> = (0..ordered.len()).filter(|at| ordered[*at].1.subscribes_to(topic)).collect();
            for (reader, range) in readers.iter().zip(ranges(*count, readers.len())) {
                given[*reader].extend(range.map(|number| TopicPartition::new(Arc::clone(&name), number)));
            }
        }
        assignment(&ordered, given)
    }
}

/// `0..count` in `parts` ranges, of which the first are longer by one if it must be.
fn ranges(count: u32, parts: usize) -> impl Iterator<Item = std::ops::Range<u32>> {
    let bound = move |part: usize| {
        let (each, extra) = (count as usize / parts, count as usize % parts);
        u32::try_from(part * each + part.min(extra)).expect("it is not above `count`")
    };
    (0..parts).map(move |part| bound(part)..bound(part + 1))
}
