//! The coordinator of a group: a state machine that is given the time, and touches nothing.
//!
//! | state  | input                  | outputs                                             | next state |
//! |--------|------------------------|------------------------------------------------------|------------|
//! | empty  | join                   | assigned, in a new generation                        | stable     |
//! | stable | join of another member | refused                                              | stable     |
//! | stable | join of the same one   | assigned, in a new generation                        | stable     |
//! | stable | topics have changed    | assigned, in a new generation, if it makes a difference | stable  |
//! | stable | leave                  | none; a new generation, so that late commits are refused | empty   |
//!
//! A group has one member at a time for now, so the assignment is everything that the member subscribes to.

use std::collections::BTreeMap;

use crate::types::TopicPartition;

/// Who a member is: unlike any other member that the log ever had open.
pub(crate) type MemberId = u64;

/// How many partitions each topic has.
pub(crate) type Topics = BTreeMap<String, u32>;

/// What happens to a group.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Join {
        member: MemberId,
        topics: Vec<String>,
    },
    Leave {
        member: MemberId,
    },
    /// Partitions were added, or topics deleted.
    Changed,
}

/// What the group makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// These partitions are the member's, all of them.
    Assigned { member: MemberId, generation: u32, partitions: Vec<TopicPartition> },
    /// The group has its member already.
    Refused { member: MemberId, holder: MemberId },
}

#[derive(Debug, Default)]
pub(crate) struct Coordinator {
    generation: u32,
    member: Option<Member>,
}

#[derive(Debug)]
struct Member {
    id: MemberId,
    topics: Vec<String>,
    assignment: Vec<TopicPartition>,
}

impl Coordinator {
    /// Takes one step. `topics`: those that there are.
    pub(crate) fn step(&mut self, topics: &Topics, input: Input) -> Option<Output> {
        match input {
            Input::Join { member, topics: wanted } => match &self.member {
                Some(holder) if holder.id != member => Some(Output::Refused { member, holder: holder.id }),
                _ => {
                    self.member = Some(Member { id: member, topics: wanted, assignment: Vec::new() });
                    self.assign(topics)
                }
            },
            Input::Leave { member } => {
                if self.member.as_ref().is_some_and(|holder| holder.id == member) {
                    self.member = None;
                    self.generation += 1;
                }
                None
            }
            Input::Changed => {
                let member = self.member.as_ref()?;
                if all_partitions(&member.topics, topics) == member.assignment { None } else { self.assign(topics) }
            }
        }
    }

    fn assign(&mut self, topics: &Topics) -> Option<Output> {
        let member = self.member.as_mut()?;
        self.generation += 1;
        member.assignment = all_partitions(&member.topics, topics);
        let (member, partitions) = (member.id, member.assignment.clone());
        Some(Output::Assigned { member, generation: self.generation, partitions })
    }

    /// Whether a commit of this member, as of this generation, counts.
    pub(crate) fn admits(&self, member: MemberId, generation: u32) -> bool {
        self.generation == generation && self.member() == Some(member)
    }

    pub(crate) fn member(&self) -> Option<MemberId> {
        self.member.as_ref().map(|member| member.id)
    }

    /// The partitions of its member.
    pub(crate) fn assignment(&self) -> &[TopicPartition] {
        self.member.as_ref().map_or(&[], |member| &member.assignment)
    }
}

fn all_partitions(wanted: &[String], topics: &Topics) -> Vec<TopicPartition> {
    let mut partitions = Vec::new();
    for name in wanted {
        let count = topics.get(name).copied().unwrap_or(0);
        partitions.extend((0..count).map(|number| TopicPartition::new(name.as_str(), number)));
    }
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(counts: &[(&str, u32)]) -> Topics {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn join(member: MemberId, wanted: &[&str]) -> Input {
        Input::Join { member, topics: wanted.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn the_member_gets_every_partition_of_what_it_subscribes_to() {
        let mut group = Coordinator::default();

        let output = group.step(&topics(&[("a", 2), ("b", 1), ("c", 9)]), join(1, &["a", "b"]));

        let partitions = vec![("a", 0).into(), ("a", 1).into(), ("b", 0).into()];
        assert_eq!(output, Some(Output::Assigned { member: 1, generation: 1, partitions }));
        assert!(group.admits(1, 1) && !group.admits(2, 1) && !group.admits(1, 0));
    }

    #[test]
    fn a_second_member_is_refused_until_the_first_has_left() {
        let mut group = Coordinator::default();
        group.step(&topics(&[("a", 1)]), join(1, &["a"]));

        assert_eq!(group.step(&topics(&[("a", 1)]), join(2, &["a"])), Some(Output::Refused { member: 2, holder: 1 }));

        group.step(&topics(&[("a", 1)]), Input::Leave { member: 1 });
        assert!(!group.admits(1, 1), "a member that left commits nothing");
        assert!(matches!(
            group.step(&topics(&[("a", 1)]), join(2, &["a"])),
            Some(Output::Assigned { member: 2, generation: 3, .. })
        ));
    }

    #[test]
    fn added_partitions_begin_a_generation_and_no_change_begins_none() {
        let mut group = Coordinator::default();
        group.step(&topics(&[("a", 1)]), join(1, &["a"]));

        assert_eq!(group.step(&topics(&[("a", 1)]), Input::Changed), None);
        let partitions = vec![("a", 0).into(), ("a", 1).into()];
        assert_eq!(
            group.step(&topics(&[("a", 2)]), Input::Changed),
            Some(Output::Assigned { member: 1, generation: 2, partitions })
        );
    }
}
