//! How far the groups have come: a table of committed offsets for each, in a directory of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::catalog::{Catalog, GROUPS, PulledBack, RecoveryReport};
use crate::error::{Error, Result};
use crate::format::committed::{self, Committed};
use crate::format::segment::group_id;
use crate::group::coordinator::{Coordinator, Input, MemberId, Output, Topics};
use crate::partition::Partition;
use crate::table::Table;
use crate::types::{Offset, OffsetAndMetadata, TopicPartition};

/// The longest metadata of a committed offset, in bytes. Kafka: `offset.metadata.max.bytes`.
const MAX_METADATA_BYTES: usize = 4096;
/// The longest name of a directory on every file system that matters, in bytes.
const MAX_DIRECTORY_BYTES: usize = 255;

/// The groups of an open log.
#[derive(Debug)]
pub(crate) struct Groups {
    catalog: Arc<Catalog>,
    groups: Mutex<BTreeMap<String, Arc<Group>>>,
    members: AtomicU64,
}

impl Groups {
    /// Opens all groups that there are. Those that committed beyond the end of a partition, because a power cut took
    /// its tail, are pulled back to that end: otherwise they would skip what is written there from now on.
    pub(crate) fn open(catalog: Arc<Catalog>, report: &mut RecoveryReport) -> Result<Self> {
        let env = catalog.env();
        let dir = Path::new(GROUPS);
        let entries = match env.storage.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(Error::io("list", env.storage.root().join(dir)))?,
        };
        let mut names: BTreeSet<String> = catalog.group_names()?.into_iter().collect();
        names.extend(entries.iter().filter_map(|entry| committed::group_of_directory(&entry.name)));
        let mut groups = BTreeMap::new();
        for name in names {
            let group = Group::new(Arc::clone(&catalog), name.clone());
            group.open_table(false, Some(report))?;
            if !catalog.is_read_only() {
                group.pull_back(report)?;
            }
            groups.insert(name, Arc::new(group));
        }
        Ok(Groups { catalog, groups: Mutex::new(groups), members: AtomicU64::new(1) })
    }

    /// The group of this name, whether it was ever heard of or not: it is kept once it commits.
    pub(crate) fn group(&self, name: &str) -> Result<Arc<Group>> {
        check_name(name)?;
        let mut groups = self.groups.lock();
        if let Some(group) = groups.get(name) {
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(Group::new(Arc::clone(&self.catalog), name.to_owned()));
        group.open_table(false, None)?;
        groups.insert(name.to_owned(), Arc::clone(&group));
        Ok(group)
    }

    /// The groups that have committed something or have a member, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Group>> {
        let groups = self.groups.lock();
        groups.values().filter(|group| group.is_known()).cloned().collect()
    }

    pub(crate) fn next_member(&self) -> MemberId {
        self.members.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        let groups = self.groups.lock();
        groups
            .values()
            .filter_map(|group| group.table.lock().as_ref().map(|table| Arc::clone(table.partition())))
            .collect()
    }
}

fn check_name(name: &str) -> Result<()> {
    let invalid = |reason: &str| Err(Error::InvalidGroup { reason: format!("{name:?}: {reason}") });
    if name.is_empty() {
        return invalid("a group's name is not empty");
    }
    if committed::directory_name(name).len() > MAX_DIRECTORY_BYTES {
        return invalid("its directory's name would be longer than 255 bytes");
    }
    Ok(())
}

/// One group: its coordinator and its committed offsets.
pub(crate) struct Group {
    catalog: Arc<Catalog>,
    name: String,
    coordinator: Mutex<Coordinator>,
    /// `None` until the group commits for the first time.
    table: Mutex<Option<Arc<Table>>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({})", self.name)
    }
}

impl Group {
    fn new(catalog: Arc<Catalog>, name: String) -> Self {
        Group { catalog, name, coordinator: Mutex::default(), table: Mutex::new(None) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn is_known(&self) -> bool {
        self.table.lock().is_some() || self.coordinator.lock().member().is_some()
    }

    fn open_table(&self, create: bool, report: Option<&mut RecoveryReport>) -> Result<Option<Arc<Table>>> {
        let mut table = self.table.lock();
        if table.is_none() {
            let dir = committed::directory_name(&self.name);
            if let Some((opened, found)) = self.catalog.group_table(&self.name, group_id(&self.name), &dir, create)? {
                if let Some(report) = report {
                    report.add(found);
                }
                *table = Some(Arc::new(opened));
            }
        }
        Ok(table.clone())
    }

    fn pull_back(&self, report: &mut RecoveryReport) -> Result<()> {
        let Some(table) = self.table.lock().clone() else { return Ok(()) };
        let mut changes = Vec::new();
        for (name, mut entry) in self.entries() {
            let Ok(partition) = self.catalog.partition(&name) else { continue };
            let (from, to) = (entry.offset.offset, partition.log_end());
            if partition.topic_id() == entry.topic_id && from > to {
                entry.offset.offset = to;
                changes.push((committed::encode_key(&name), Some(committed::encode_value(&entry))));
                report.pulled_back.push(PulledBack { group: self.name.clone(), partition: name, from, to });
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let end = table.change(&changes, self.catalog.env().clock.now())?;
        // Whatever the level: records are going to be written where the group believed to have been.
        table.partition().sync_to(end, None)
    }

    /// What is committed, with the identity of the topics. What does not decode is damaged beyond its checksum.
    fn entries(&self) -> Vec<(TopicPartition, Committed)> {
        let Some(table) = self.table.lock().clone() else { return Vec::new() };
        let decode = |(key, value, _): (Vec<u8>, Vec<u8>, _)| {
            Some((committed::decode_key(&key).ok()?, committed::decode_value(&value).ok()?))
        };
        table.entries().into_iter().filter_map(decode).collect()
    }

    /// All that is committed, of topics that there are.
    pub(crate) fn all_committed(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let of_this_topic = |(name, entry): (TopicPartition, Committed)| {
            let partition = self.catalog.partition(&name).ok()?;
            (partition.topic_id() == entry.topic_id).then_some((name, entry.offset))
        };
        self.entries().into_iter().filter_map(of_this_topic).collect()
    }

    /// What is committed for a partition of the topic with this id.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the group's files have lost something since it was committed, for it may have been more:
    /// until it is committed anew.
    pub(crate) fn committed(&self, name: &TopicPartition, topic_id: u128) -> Result<Option<OffsetAndMetadata>> {
        let Some(table) = self.table.lock().clone() else { return Ok(None) };
        if self.catalog.is_read_only() {
            // What another process committed since; if it cannot be read now, what was read before still holds.
            drop(table.follow());
        }
        let key = committed::encode_key(name);
        if let Some(damage) = table.doubt(&key) {
            return Err(Error::Corrupt(Box::new(damage)));
        }
        let entry = table.get(&key, |value, _| committed::decode_value(value).ok()).flatten();
        Ok(entry.filter(|entry| entry.topic_id == topic_id).map(|entry| entry.offset))
    }

    /// Commits; returns the offset in the group's log that must be durable for it to count after a power cut.
    ///
    /// `as_member`: who commits and as of which generation; `None`: somebody who is no member, and is not fenced.
    pub(crate) fn commit(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        as_member: Option<(MemberId, u32)>,
    ) -> Result<Option<Offset>> {
        self.catalog.check_writable()?;
        let mut changes = Vec::with_capacity(offsets.len());
        for (name, offset) in offsets {
            let partition = self.catalog.partition(name)?;
            check_offset(&partition, offset)?;
            let entry = Committed { topic_id: partition.topic_id(), offset: offset.clone() };
            changes.push((committed::encode_key(name), Some(committed::encode_value(&entry))));
        }
        if changes.is_empty() {
            return Ok(None);
        }
        // Held while the change is made: nobody else can become the owner in between.
        let coordinator = self.coordinator.lock();
        if let Some((member, generation)) = as_member
            && !coordinator.admits(member, generation)
        {
            return Err(Error::CommitFailed { group: self.name.clone() });
        }
        let table = self.open_table(true, None)?.expect("it was created if it was missing");
        table.change(&changes, self.catalog.env().clock.now()).map(Some)
    }

    /// Waits until what was committed below `end` is as durable as configured.
    pub(crate) fn deliver(&self, end: Offset) -> Result<()> {
        match self.table.lock().clone() {
            Some(table) => table.deliver(end, None),
            None => Ok(()),
        }
    }

    /// Makes durable what was committed, at whatever level.
    pub(crate) fn sync(&self) -> Result<()> {
        match self.table.lock().clone() {
            Some(table) => table.partition().sync_to(table.partition().log_end(), None),
            None => Ok(()),
        }
    }

    pub(crate) fn step(&self, topics: &Topics, input: Input) -> Option<Output> {
        self.coordinator.lock().step(topics, input)
    }

    /// The member that the group has, and its partitions.
    pub(crate) fn member(&self) -> Option<(MemberId, Vec<TopicPartition>)> {
        let coordinator = self.coordinator.lock();
        coordinator.member().map(|member| (member, coordinator.assignment().to_vec()))
    }
}

fn check_offset(partition: &Partition, offset: &OffsetAndMetadata) -> Result<()> {
    let bytes = offset.metadata.len();
    if bytes > MAX_METADATA_BYTES {
        return Err(Error::OffsetMetadataTooLarge { bytes, limit: MAX_METADATA_BYTES });
    }
    let end = partition.log_end();
    if offset.offset > end {
        // Kafka stores it; here a committed position never lies past the end, so that nothing can be skipped.
        return Err(Error::OffsetOutOfRange {
            partition: partition.name().clone(),
            requested: offset.offset,
            start: partition.log_start(),
            end,
        });
    }
    Ok(())
}
