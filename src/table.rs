//! A table kept as a log: the last record of a key counts. The catalog and the groups are tables.
//!
//! Changing it is an append, so it needs no rename and no file of its own kind. When the log has grown to a few times
//! what it says, it is said again in a new segment, and the old ones are removed: at any moment a replay of what
//! is there gives the table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::TopicConfig;
use crate::error::{Damage, Error, Result};
use crate::format::batch::Draft;
use crate::partition::{Home, Partition, PartitionReport, Upkeep};
use crate::types::{Offset, Timestamp};

/// A change: a key, and its new value or none.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// The log is rewritten when it has this many bytes more than four times what it says.
const REWRITE_SLACK_BYTES: usize = 256 << 10;
/// A rewrite is appended in batches of about this size.
const REWRITE_BATCH_BYTES: usize = 32 << 10;

#[derive(Debug)]
pub(crate) struct Table {
    partition: Arc<Partition>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<Vec<u8>, (Vec<u8>, Timestamp)>,
    /// Bytes of keys and values: what the table says, and what the log holds to say it.
    live_bytes: usize,
    log_bytes: usize,
    /// How far a follower has read.
    read: Offset,
}

impl State {
    fn apply(&mut self, key: &[u8], value: Option<&[u8]>, timestamp: Timestamp) {
        self.log_bytes += key.len() + value.map_or(0, <[u8]>::len);
        let old = match value {
            Some(value) => {
                self.live_bytes += key.len() + value.len();
                self.values.insert(key.to_vec(), (value.to_vec(), timestamp))
            }
            None => self.values.remove(key),
        };
        if let Some((old, _)) = old {
            self.live_bytes -= key.len() + old.len();
        }
    }
}

impl Table {
    /// Makes the directory and the first segment of a new table.
    pub(crate) fn create(
        home: Home,
        epoch: u32,
        config: &TopicConfig,
        upkeep: Option<Arc<dyn Upkeep>>,
    ) -> Result<Self> {
        let partition = Arc::new(Partition::create(home, epoch, config, upkeep)?);
        Ok(Table { partition, state: Mutex::default() })
    }

    /// Opens a table and replays it. The damage that is met is in the report, and stepped over.
    pub(crate) fn open(
        home: Home,
        epoch: u32,
        config: &TopicConfig,
        upkeep: Option<Arc<dyn Upkeep>>,
    ) -> Result<(Self, PartitionReport)> {
        let (partition, report) = Partition::open(home, epoch, config, None, upkeep)?;
        Self::replayed(partition, report)
    }

    /// Opens a table that another process may be changing. See [`follow`](Self::follow).
    pub(crate) fn open_read_only(home: Home, config: &TopicConfig) -> Result<(Self, PartitionReport)> {
        let (partition, report) = Partition::open_read_only(home, config)?;
        Self::replayed(partition, report)
    }

    fn replayed(partition: Partition, mut report: PartitionReport) -> Result<(Self, PartitionReport)> {
        let state = Mutex::new(State { read: partition.log_start(), ..State::default() });
        let table = Table { partition: Arc::new(partition), state };
        table.replay(&mut report.damage)?;
        Ok((table, report))
    }

    /// Applies what was appended since the last replay; returns the keys that changed.
    fn replay(&self, damage: &mut Vec<Damage>) -> Result<Vec<Vec<u8>>> {
        let mut state = self.state.lock();
        let (mut cursor, mut changed) = (None, Vec::new());
        loop {
            match self.partition.read(&mut cursor, state.read, usize::MAX) {
                Ok(None) => return Ok(changed),
                Ok(Some(chunk)) => {
                    for record in chunk.records() {
                        let key = record.key.unwrap_or_default();
                        state.apply(key, record.value, record.timestamp);
                        changed.push(key.to_vec());
                    }
                    state.read = chunk.offsets.end;
                }
                Err(Error::Corrupt(found)) => {
                    state.read = found.offsets.end.max(state.read.advance(1)).min(self.partition.high_watermark());
                    if !damage.iter().any(|known| known.offsets == found.offsets) {
                        damage.push(*found);
                    }
                }
                Err(Error::OffsetOutOfRange { start, .. }) if state.read < start => state.read = start,
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks what another process has changed; returns the keys. Only for a table that was opened read-only.
    pub(crate) fn follow(&self) -> Result<Vec<Vec<u8>>> {
        self.partition.follow(true)?;
        self.replay(&mut Vec::new())
    }

    pub(crate) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The value of a key, and when it was set.
    pub(crate) fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8], Timestamp) -> T) -> Option<T> {
        self.state.lock().values.get(key).map(|(value, timestamp)| read(value, *timestamp))
    }

    /// All keys with their values, in the order of the keys.
    pub(crate) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>, Timestamp)> {
        let state = self.state.lock();
        state.values.iter().map(|(key, (value, timestamp))| (key.clone(), value.clone(), *timestamp)).collect()
    }

    /// Makes the changes, all or none of them; returns the offset that must become durable for them to be.
    pub(crate) fn change(&self, changes: &[Change], now: Timestamp) -> Result<Offset> {
        let drafts: Vec<Draft<'_>> = changes.iter().map(|(key, value)| draft(key, value.as_deref(), now)).collect();
        let mut state = self.state.lock();
        let base = self.partition.append(&drafts)?;
        for (key, value) in changes {
            state.apply(key, value.as_deref(), now);
        }
        let end = base.advance(changes.len() as u64);
        if state.log_bytes > 4 * state.live_bytes + REWRITE_SLACK_BYTES {
            // The change is made, whatever becomes of this. Without room for it, it is tried again when as much has come.
            drop(self.rewrite(&state));
            state.log_bytes = state.live_bytes;
        }
        Ok(end)
    }

    /// Waits until what was appended below `end` is as durable as the table promises.
    pub(crate) fn deliver(&self, end: Offset, timeout: Option<Duration>) -> Result<()> {
        self.partition.deliver(end, timeout)
    }

    /// Says the whole table in a new segment and, once that is durable, removes the old ones.
    fn rewrite(&self, state: &State) -> Result<()> {
        let base = self.partition.begin_segment()?;
        let mut drafts = Vec::new();
        let mut bytes = 0;
        for (key, (value, timestamp)) in &state.values {
            drafts.push(draft(key, Some(value), *timestamp));
            bytes += key.len() + value.len();
            if bytes > REWRITE_BATCH_BYTES {
                self.partition.append(&drafts)?;
                drafts.clear();
                bytes = 0;
            }
        }
        if !drafts.is_empty() {
            self.partition.append(&drafts)?;
        }
        self.partition.sync_to(self.partition.log_end(), None)?;
        self.partition.remove_before(base)
    }
}

fn draft<'a>(key: &'a [u8], value: Option<&'a [u8]>, timestamp: Timestamp) -> Draft<'a> {
    Draft { key: Some(key), value, headers: &[], timestamp }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Durability;
    use crate::env::Env;
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::Storage;
    use crate::env::storage::sim::{PowerCut, SimDisk};
    use crate::format::segment::Identity;
    use crate::types::TopicPartition;

    fn home(disk: &Arc<SimDisk>) -> Home {
        let clock = SimClock::new(Timestamp::from_millis(0));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 0);
        Home {
            env: Env::simulated(Arc::clone(disk), clock, scheduler, 0),
            dir: PathBuf::from("table"),
            identity: Identity { log: 1, topic: 2, partition: 0 },
            partition: TopicPartition::new("table", 0),
            segment_bytes: 65536,
        }
    }

    fn config() -> TopicConfig {
        TopicConfig::new().durability(Durability::Sync).segment_bytes(65536)
    }

    fn change(n: u32) -> Change {
        let key = format!("key-{}", n % 50).into_bytes();
        (key, (!n.is_multiple_of(7)).then(|| vec![n as u8; 200]))
    }

    fn expected(until: u32) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut expected = BTreeMap::new();
        for (key, value) in (0..until).map(change) {
            match value {
                Some(value) => drop(expected.insert(key, value)),
                None => drop(expected.remove(&key)),
            }
        }
        expected
    }

    fn entries(table: &Table) -> BTreeMap<Vec<u8>, Vec<u8>> {
        table.entries().into_iter().map(|(key, value, _)| (key, value)).collect()
    }

    #[test]
    fn a_table_that_changes_for_long_stays_small_and_says_the_same_after_a_power_cut() {
        let disk = SimDisk::new(3);
        let table = Table::create(home(&disk), 1, &config(), None).unwrap();
        disk.sync_dir(&PathBuf::new()).unwrap();
        for n in 0..6000 {
            table.change(&[change(n)], Timestamp::from_millis(0)).unwrap();
        }
        assert!(disk.files().len() < 12, "{} segments", disk.files().len());
        table.deliver(table.partition.log_end(), None).unwrap();

        for how in PowerCut::ALL {
            let (again, report) = Table::open(home(&disk.power_cut(how)), 2, &config(), None).unwrap();
            assert!(report.damage.is_empty(), "{how:?}: {report:?}");
            assert_eq!(entries(&again), expected(6000), "{how:?}");
        }
    }

    #[test]
    fn a_crash_at_any_operation_of_a_rewrite_leaves_the_table_as_it_was_or_one_change_further() {
        let rewrite_begins = |disk: &Arc<SimDisk>, table: &Table| {
            let mut n = 0;
            loop {
                let before = disk.operations();
                table.change(&[change(n)], Timestamp::from_millis(0)).unwrap();
                n += 1;
                if disk.trace()[before as usize..].iter().any(|(operation, _)| format!("{operation:?}") == "Remove") {
                    return (n, before, disk.operations());
                }
            }
        };
        let disk = SimDisk::new(5);
        let table = Table::create(home(&disk), 1, &config(), None).unwrap();
        let (changes, from, to) = rewrite_begins(&disk, &table);

        for (crash, how) in (from..to).flat_map(|crash| PowerCut::ALL.map(|how| (crash, how))) {
            let disk = SimDisk::new(5);
            let table = Table::create(home(&disk), 1, &config(), None).unwrap();
            disk.sync_dir(&PathBuf::new()).unwrap();
            for n in 0..changes - 1 {
                table.change(&[change(n)], Timestamp::from_millis(0)).unwrap();
            }
            table.deliver(table.partition.log_end(), None).unwrap();
            let crash = disk.operations() + (crash - from);
            disk.crash_at(crash);
            drop(table.change(&[change(changes - 1)], Timestamp::from_millis(0)));

            let (again, report) = Table::open(home(&disk.power_cut(how)), 2, &config(), None).unwrap();

            let found = entries(&again);
            let whole = found == expected(changes) || found == expected(changes - 1);
            assert!(whole && report.damage.is_empty(), "crash at {crash}, {how:?}: {report:?}");
        }
    }
}
