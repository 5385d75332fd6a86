//! How far a group has come: a table of committed offsets, in a directory of its own.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::catalog::{Catalog, GROUPS, PulledBack, RecoveryReport, check_not_copied};
use crate::env::scheduling::Bell;
use crate::error::{Error, Result};
use crate::format::batch::Draft;
use crate::format::committed::{self, Committed};
use crate::format::segment::group_id;
use crate::partition::{Listener, Partition};
use crate::table::{self, Change, Table};
use crate::types::{Offset, OffsetAndMetadata, Timestamp, TopicPartition};

/// The longest metadata of a committed offset, in bytes. Kafka: `offset.metadata.max.bytes`.
const MAX_METADATA_BYTES: usize = 4096;
/// The longest name of a directory on every file system that matters, in bytes.
const MAX_DIRECTORY_BYTES: usize = 255;

/// The names of all groups that there is something of.
pub(super) fn group_names(catalog: &Catalog) -> Result<BTreeSet<String>> {
    let env = catalog.env();
    let dir = Path::new(GROUPS);
    let entries = match env.storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(Error::io("list", || env.storage.root().join(dir)))?,
    };
    let mut names: BTreeSet<String> = catalog.group_names().into_iter().collect();
    names.extend(entries.iter().filter_map(|entry| committed::group_of_directory(&entry.name)));
    Ok(names)
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let invalid = |reason: &str| Err(Error::InvalidGroup { reason: format!("{name:?}: {reason}") });
    if name.is_empty() {
        return invalid("a group's name is not empty");
    }
    if committed::directory_name(name).len() > MAX_DIRECTORY_BYTES {
        return invalid("its directory's name would be longer than 255 bytes");
    }
    Ok(())
}

/// Offsets to commit as the table keeps them, keys and values one behind the other. It is kept from one commit to the
/// next, for the room that it has taken.
#[derive(Default)]
pub(super) struct Encoded {
    bytes: Vec<u8>,
    /// Where each key ends, and its value.
    ends: Vec<(usize, usize)>,
}

impl Encoded {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, partition: &TopicPartition, topic_id: u128, offset: &OffsetAndMetadata) {
        committed::put_key(&mut self.bytes, partition);
        let key_end = self.bytes.len();
        committed::put_value(&mut self.bytes, topic_id, offset);
        self.ends.push((key_end, self.bytes.len()));
    }

    fn drafts(&self, now: Timestamp) -> Vec<Draft<'_>> {
        let mut start = 0;
        let draft = |(key_end, end): &(usize, usize)| {
            let key = &self.bytes[start..*key_end];
            start = *end;
            table::draft(key, Some(&self.bytes[*key_end..*end]), now)
        };
        self.ends.iter().map(draft).collect()
    }
}

/// What a group has committed.
pub(super) struct Offsets {
    catalog: Arc<Catalog>,
    group: String,
    /// `None` until the group commits for the first time.
    table: Mutex<Option<Arc<Table>>>,
}

impl Offsets {
    /// Those of a group that was there when the log was opened; what lies behind the end of its partition is pulled back.
    pub(super) fn open(catalog: Arc<Catalog>, group: String, report: &mut RecoveryReport) -> Result<Self> {
        let offsets = Offsets { catalog, group, table: Mutex::new(None) };
        offsets.open_table(false, Some(report))?;
        if !offsets.catalog.is_read_only() {
            offsets.pull_back(report)?;
        }
        Ok(offsets)
    }

    /// Those of any group, which may have committed nothing.
    pub(super) fn find(catalog: Arc<Catalog>, group: String) -> Result<Self> {
        let offsets = Offsets { catalog, group, table: Mutex::new(None) };
        // Whoever writes the log has opened all that there are, and this is none of them.
        if offsets.catalog.is_read_only() {
            offsets.open_table(false, None)?;
        }
        Ok(offsets)
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// Whether the group has committed something, or may have.
    pub(super) fn are_there(&self) -> bool {
        self.table.lock().as_ref().is_some_and(|table| !table.is_empty())
    }

    pub(super) fn partition(&self) -> Option<Arc<Partition>> {
        self.table.lock().as_ref().map(|table| Arc::clone(table.partition()))
    }

    fn open_table(&self, create: bool, report: Option<&mut RecoveryReport>) -> Result<Option<Arc<Table>>> {
        let mut table = self.table.lock();
        if table.is_none() {
            let dir = committed::directory_name(&self.group);
            if let Some((opened, found)) = self.catalog.group_table(&self.group, group_id(&self.group), &dir, create)? {
                if let Some(report) = report {
                    report.add(found);
                }
                *table = Some(Arc::new(opened));
            }
        }
        Ok(table.clone())
    }

    fn pull_back(&self, report: &mut RecoveryReport) -> Result<()> {
        let pulled_back = self.pull_back_where(|_| true, None)?;
        if pulled_back.is_empty() {
            return Ok(());
        }
        report.pulled_back.extend(pulled_back);
        // Whatever the level: records are going to be written where the group believed to have been.
        self.sync()
    }

    /// Sets what is committed beyond `end` of this partition back to that.
    pub(super) fn pull_back_to(&self, partition: &Partition, end: Offset) -> Result<Option<PulledBack>> {
        Ok(self.pull_back_where(|name| name == partition.name(), Some(end))?.pop())
    }

    /// Sets back what is committed beyond `end`, or else beyond the end of its partition.
    fn pull_back_where(
        &self,
        concerns: impl Fn(&TopicPartition) -> bool,
        end: Option<Offset>,
    ) -> Result<Vec<PulledBack>> {
        let (mut changes, mut pulled_back) = (Vec::new(), Vec::new());
        let Some(table) = self.table.lock().clone() else { return Ok(pulled_back) };
        for (name, mut entry) in self.entries().into_iter().filter(|(name, _)| concerns(name)) {
            let Ok(partition) = self.catalog.partition(&name) else { continue };
            let (from, to) = (entry.offset.offset, end.unwrap_or_else(|| partition.log_end()));
            if partition.topic_id() == entry.topic_id && from > to {
                entry.offset.offset = to;
                changes.push((committed::encode_key(&name), Some(committed::encode_value(&entry))));
                pulled_back.push(PulledBack { group: self.group.clone(), partition: name, from, to });
            }
        }
        if !changes.is_empty() {
            table.change(&changes, self.catalog.env().clock.now())?;
        }
        Ok(pulled_back)
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
    pub(super) fn all_committed(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
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
    pub(super) fn committed(&self, name: &TopicPartition, topic_id: u128) -> Result<Option<OffsetAndMetadata>> {
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

    /// Writes into `encoded` what commits these offsets, if all of them can be.
    pub(super) fn encode(&self, offsets: &[(TopicPartition, OffsetAndMetadata)], encoded: &mut Encoded) -> Result<()> {
        self.catalog.check_writable()?;
        encoded.clear();
        for (name, offset) in offsets {
            let partition = self.catalog.partition(name)?;
            check_offset(&partition, offset)?;
            encoded.push(name, partition.topic_id(), offset);
        }
        Ok(())
    }

    /// Commits; returns the offset in the group's log that must be durable for it to count after a power cut, if it is
    /// not yet as durable as configured.
    pub(super) fn commit(&self, encoded: &Encoded) -> Result<Option<Offset>> {
        let table = self.open_table(true, None)?.expect("it was created if it was missing");
        let end = table.append(&encoded.drafts(self.catalog.env().clock.now()))?;
        Ok((table.partition().high_watermark() < end).then_some(end))
    }

    /// Takes away what is committed for these partitions; returns the offset that must be durable for it to stay away, if
    /// there was something.
    pub(super) fn remove(&self, partitions: &[TopicPartition]) -> Result<Option<Offset>> {
        self.catalog.check_writable()?;
        let Some(table) = self.table.lock().clone() else { return Ok(None) };
        let keys = partitions.iter().map(committed::encode_key);
        let there = keys.filter(|key| table.get(key, |_, _| ()).is_some());
        let changes: Vec<Change> = there.map(|key| (key, None)).collect();
        if changes.is_empty() {
            return Ok(None);
        }
        table.change(&changes, self.catalog.env().clock.now()).map(Some)
    }

    /// Waits until what was changed below `end` is as durable as configured.
    pub(super) fn deliver(&self, end: Offset) -> Result<()> {
        match self.table.lock().clone() {
            Some(table) => table.deliver(end, None),
            None => Ok(()),
        }
    }

    /// Makes durable what was committed, at whatever level.
    pub(super) fn sync(&self) -> Result<()> {
        self.partition().map_or(Ok(()), |partition| partition.sync_to(partition.log_end(), None))
    }

    /// Whether what was changed below `end` is as durable as configured; `None`: not yet, and then `bell` rings.
    pub(super) fn delivered(&self, end: Offset, bell: &Arc<Bell>) -> Option<Result<()>> {
        match self.partition() {
            Some(partition) => partition.poll_delivered(end, Listener::Bell(Arc::clone(bell))),
            None => Some(Ok(())),
        }
    }

    /// Takes away everything: first what is committed, durably, then the files, so that nothing comes back whenever the
    /// machine stops.
    pub(super) fn delete(&self) -> Result<()> {
        self.catalog.check_writable()?;
        let mut table = self.table.lock();
        let Some(found) = table.clone() else { return Ok(()) };
        check_not_copied(std::slice::from_ref(found.partition()))?;
        let gone: Vec<Change> = found.entries().into_iter().map(|(key, _, _)| (key, None)).collect();
        if !gone.is_empty() {
            let end = found.change(&gone, self.catalog.env().clock.now())?;
            found.partition().sync_to(end, None)?;
        }
        *table = None;
        self.catalog.delete_group(&self.group, &committed::directory_name(&self.group), found.partition())
    }
}

fn check_offset(partition: &Partition, offset: &OffsetAndMetadata) -> Result<()> {
    let bytes = offset.metadata.len();
    if bytes > MAX_METADATA_BYTES {
        return Err(Error::OffsetMetadataTooLarge { bytes, limit: MAX_METADATA_BYTES });
    }
    let end = partition.committable_end();
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
