//! Looking at groups and moving them, from outside of their consumers; and cutting a log that they may have read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::catalog::{Catalog, PulledBack};
use crate::error::{Error, Result};
use crate::group::{Group, GroupState, Groups, MemberView};
use crate::partition::{Partition, Removal};
use crate::types::{Offset, OffsetAndMetadata, Timestamp, TopicPartition};

/// What there is to know of a group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// Where it is between two generations.
    pub state: GroupState,
    /// How often its partitions were assigned anew. Numbers of a later opening of the log are higher than all of an
    /// earlier one. Kafka: the generation id.
    pub generation: u64,
    /// The name of the assignor that its members have agreed on. Kafka: `partition.assignment.strategy`.
    pub assignor: Option<String>,
    /// Its members, of this process; another process cannot see them.
    pub members: Vec<MemberDescription>,
    /// How far it has come, in each partition that it has committed or is assigned.
    pub offsets: Vec<GroupOffset>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// What no other member is called: the client id and a number.
    pub member_id: String,
    /// Kafka: `client.id`.
    pub client_id: String,
    /// The name of a static member. Kafka: `group.instance.id`.
    pub group_instance_id: Option<String>,
    /// The partitions that are its own in this generation.
    pub assignment: Vec<TopicPartition>,
}

/// How far a group has come in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset to read, if one was committed.
    pub committed: Option<Offset>,
    /// The note that was committed with it.
    pub metadata: String,
    /// The high watermark of the partition.
    pub end: Offset,
    /// How many offsets there are from what is committed, or else from the beginning, to the end.
    pub lag: u64,
    /// How many of them were removed before the group got to them: by retention, by dropping the oldest, or by
    /// [`delete_records`](crate::EventLog::delete_records).
    pub lost: u64,
    /// The id of the member that reads it.
    pub member_id: Option<String>,
}

/// Where to set the committed offsets of a group. Kafka: the scenarios of `kafka-consumer-groups --reset-offsets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// The first record that there is. Kafka: `--to-earliest`.
    Earliest,
    /// Behind the last record that there is. Kafka: `--to-latest`.
    Latest,
    /// What is committed; where nothing is, behind the last record. Kafka: `--to-current`.
    Current,
    /// This offset; where that is outside of what there is, the nearest that is not. Kafka: `--to-offset`.
    Offset(Offset),
    /// The first record that is from then or later; where there is none, behind the last record. Kafka: `--to-datetime`,
    /// `--by-duration`.
    Since(Timestamp),
    /// So many offsets on from what is committed, or back, within what there is. Kafka: `--shift-by`.
    ShiftBy(i64),
}

/// A committed offset that is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetChange {
    /// The partition.
    pub partition: TopicPartition,
    /// What was committed, if anything was.
    pub from: Option<Offset>,
    /// What is committed then.
    pub to: Offset,
}

/// What becomes of groups that have committed more of a partition than a truncation leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupsBeyond {
    /// Nothing is cut while there are such groups.
    #[default]
    Refuse,
    /// What they have committed is set back to the new end.
    PullBack,
}

/// What was cut off a partition, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Truncated {
    /// The partition.
    pub partition: TopicPartition,
    /// The offsets, which are given again.
    pub offsets: Range<Offset>,
    /// How many segments went with them.
    pub segments: usize,
    /// The bytes of these segments, and those that the last one that is left holds no more.
    pub bytes: u64,
    /// The groups that had committed more than is left, and were pulled back; of a plan: that would have to be.
    pub groups: Vec<PulledBack>,
}

/// What [`truncate`] would cut off, and which groups are beyond.
pub(crate) fn plan_truncation(
    catalog: &Catalog,
    groups: &Groups,
    name: &TopicPartition,
    end: Offset,
) -> Result<Truncated> {
    let partition = catalog.partition(name)?;
    let removal = partition.plan_truncation(end)?;
    let beyond = groups.list().into_iter().filter_map(|group| {
        let from = group.committed_beyond(&partition, end)?;
        Some(PulledBack { group: group.name().to_owned(), partition: name.clone(), from, to: end })
    });
    let groups = beyond.collect();
    let Removal { offsets, segments, bytes } = removal;
    Ok(Truncated { partition: name.clone(), offsets, segments, bytes, groups })
}

/// Cuts a partition. Groups are pulled back once it is decided and before anything can be sent behind the cut: should the
/// machine stop in between, opening the log does that.
pub(crate) fn truncate(
    catalog: &Catalog,
    groups: &Groups,
    name: &TopicPartition,
    end: Offset,
    beyond: GroupsBeyond,
) -> Result<Truncated> {
    let plan = plan_truncation(catalog, groups, name, end)?;
    if beyond == GroupsBeyond::Refuse && !plan.groups.is_empty() {
        let groups = plan.groups.into_iter().map(|beyond| (beyond.group, beyond.from)).collect();
        return Err(Error::CommittedBeyond { partition: plan.partition, end, groups });
    }
    let partition = catalog.partition(name)?;
    let mut pulled_back = Vec::new();
    let pull_back = || {
        // All of them, also those that have committed since they were asked.
        for group in groups.list() {
            pulled_back.extend(group.pull_back(&partition, end)?);
        }
        Ok(())
    };
    let Removal { offsets, segments, bytes } = catalog.truncate(&partition, end, pull_back)?;
    Ok(Truncated { partition: name.clone(), offsets, segments, bytes, groups: pulled_back })
}

pub(crate) fn describe(catalog: &Catalog, group: &Group, now: Duration) -> GroupDescription {
    let view = group.look(now);
    let committed: BTreeMap<TopicPartition, OffsetAndMetadata> = group.all_committed().into_iter().collect();
    let mut readers: BTreeMap<&TopicPartition, &MemberView> = BTreeMap::new();
    for member in &view.members {
        readers.extend(member.assignment.iter().map(|name| (name, member)));
    }
    let mut names: Vec<&TopicPartition> = committed.keys().chain(readers.keys().copied()).collect();
    names.sort();
    names.dedup();
    let offset_of = |name: &TopicPartition| {
        let partition = catalog.partition(name).ok()?;
        let end = partition.high_watermark();
        let entry = committed.get(name);
        let from = entry.map_or(partition.log_start(), |entry| entry.offset);
        Some(GroupOffset {
            partition: name.clone(),
            committed: entry.map(|entry| entry.offset),
            metadata: entry.map(|entry| entry.metadata.clone()).unwrap_or_default(),
            end,
            lag: end.since(from),
            lost: partition.log_start().since(from),
            member_id: readers.get(name).map(|member| member.id.clone()),
        })
    };
    let offsets = names.into_iter().filter_map(offset_of).collect();
    let describe = |member: MemberView| MemberDescription {
        member_id: member.id,
        client_id: member.client_id,
        group_instance_id: member.instance_id,
        assignment: member.assignment,
    };
    GroupDescription {
        name: group.name().to_owned(),
        state: view.state,
        generation: view.generation,
        assignor: view.assignor,
        members: view.members.into_iter().map(describe).collect(),
        offsets,
    }
}

/// What a reset changes; with `execute`, changes it. No partitions: all that the group has committed.
pub(crate) fn reset(
    catalog: &Catalog,
    group: &Group,
    now: Duration,
    partitions: &[TopicPartition],
    to: ResetTo,
    execute: bool,
) -> Result<Vec<OffsetChange>> {
    group.check_alterable(now)?;
    let committed: BTreeMap<TopicPartition, OffsetAndMetadata> = group.all_committed().into_iter().collect();
    let mut names = if partitions.is_empty() { committed.keys().cloned().collect() } else { partitions.to_vec() };
    names.sort();
    names.dedup();
    let mut changes = Vec::new();
    for name in names {
        let partition = catalog.partition(&name)?;
        let from = committed.get(&name).map(|entry| entry.offset);
        changes.push(OffsetChange { to: target(&partition, from, to)?, partition: name, from });
    }
    if execute {
        let moved = changes.iter().map(|change| (change.partition.clone(), OffsetAndMetadata::from(change.to)));
        group.alter(now, &moved.collect::<Vec<_>>())?;
    }
    Ok(changes)
}

/// Where to go in a partition.
fn target(partition: &Partition, from: Option<Offset>, to: ResetTo) -> Result<Offset> {
    let (start, end) = (partition.log_start(), partition.high_watermark());
    Ok(match to {
        ResetTo::Earliest => start,
        ResetTo::Latest => end,
        ResetTo::Current => from.unwrap_or(end),
        ResetTo::Offset(offset) => offset.clamp(start, end.max(start)),
        ResetTo::Since(since) => partition.first_since(since)?.map_or(end, |(offset, _)| offset),
        ResetTo::ShiftBy(by) => {
            let from = from.ok_or_else(|| Error::NoOffsetForPartition { partition: partition.name().clone() })?;
            Offset::new(from.get().saturating_add_signed(by)).clamp(start, end.max(start))
        }
    })
}
