//! A table kept as a log: the last record of a key counts. The catalog and the groups are tables.
//!
//! Changing it is an append, so it needs no rename and no file of its own kind. When the log has grown to a few times
//! what it says, it is said again in a new segment, and the old ones are removed: at any moment a replay of what
//! is there gives the table. What was not said again is gone, also where a power cut brings some of the old segments back
//! and not all. A table that has lost something to damage is not said again: what is left of the old segments is all that
//! there is to find out what it was.
//!
//! On a full disk a table is given the room of the [`Reserve`], says itself again in it, and gives back the room of its
//! old segments: so commits go on.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::TopicConfig;
use crate::env::Env;
use crate::env::storage::Access;
use crate::error::{Damage, Error, Result};
use crate::format::batch::Draft;
use crate::partition::{Home, Known, Partition, PartitionReport, Upkeep};
use crate::types::{Offset, Timestamp};

/// A change: a key, and its new value or none.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// The log is rewritten when it has this part of a segment more than four times what it says.
const REWRITE_SLACK: usize = 4;
/// A rewrite is appended in batches of about this size.
const REWRITE_BATCH_BYTES: usize = 32 << 10;

/// The key of the record that ends a rewrite. Its value is the offset at which that began.
const AGAIN: &[u8] = b"";

/// What the reserve holds: the first room of a segment, twice; or once, if there is no more.
const RESERVE_BYTES: [u64; 2] = [128 << 10, 64 << 10];
/// The file that takes it.
pub(crate) const RESERVE: &str = "RESERVE";

/// Room on the disk that is given up when there is no other, for those who must go on all the same.
#[derive(Debug)]
pub(crate) struct Reserve {
    env: Env,
    /// Whether there is something to give up.
    kept: Mutex<bool>,
}

impl Reserve {
    /// The reserve of a log, if there is room for it now.
    pub(crate) fn new(env: Env) -> Arc<Self> {
        let reserve = Reserve { env, kept: Mutex::new(false) };
        reserve.keep();
        Arc::new(reserve)
    }

    /// Takes the room, if it is not taken and there is some. If not, nobody needs to know: it is tried again later.
    fn keep(&self) {
        let mut kept = self.kept.lock();
        if !*kept {
            *kept = self.take().is_ok();
        }
    }

    fn take(&self) -> io::Result<()> {
        let (storage, path) = (&self.env.storage, Path::new(RESERVE));
        let file = match storage.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => storage.open(path, Access::Write)?,
            made => made?,
        };
        let length = file.len()?;
        let grow = |to: u64| if length < to { file.allocate(length, to) } else { Ok(()) };
        RESERVE_BYTES
            .into_iter()
            .map(grow)
            .find(Result::is_ok)
            .unwrap_or_else(|| Err(io::ErrorKind::StorageFull.into()))
    }

    /// Calls `work`, and once more with the room of the reserve if there was none.
    pub(crate) fn help<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            Err(Error::NoSpace { .. }) if self.give_up() => {
                let done = work();
                self.keep();
                done
            }
            done => done,
        }
    }

    /// Gives the room up; whether there was any.
    fn give_up(&self) -> bool {
        let mut kept = self.kept.lock();
        mem::replace(&mut *kept, false) && self.env.storage.remove(Path::new(RESERVE)).is_ok()
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    partition: Arc<Partition>,
    /// So many bytes more than four times what the table says make it worth to say it again.
    rewrite_slack: usize,
    state: Mutex<State>,
    /// `None` in a table that is only read.
    reserve: Option<Arc<Reserve>>,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    timestamp: Timestamp,
    /// Where the log says so.
    offset: Offset,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<Vec<u8>, Entry>,
    /// Bytes of keys and values: what the table says, and what the log holds to say it.
    live_bytes: usize,
    log_bytes: usize,
    /// How far a follower has read.
    read: Offset,
    /// From where on the log says all of the table.
    whole_from: Offset,
    /// What was lost and may have said something else.
    damage: Vec<Damage>,
}

impl State {
    fn apply(&mut self, offset: Offset, key: &[u8], value: Option<&[u8]>, timestamp: Timestamp) {
        if key == AGAIN {
            let from = value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes);
            self.whole_from = Offset::new(from);
            // A power cut may have brought an old segment back, and not the one behind it that took some keys away.
            let (whole_from, live_bytes) = (self.whole_from, &mut self.live_bytes);
            self.values.retain(|key, entry| {
                let stays = entry.offset >= whole_from;
                *live_bytes -= if stays { 0 } else { key.len() + entry.value.len() };
                stays
            });
            return;
        }
        self.log_bytes += key.len() + value.map_or(0, <[u8]>::len);
        let Some(value) = value else {
            let old = self.values.remove(key);
            self.live_bytes -= old.map_or(0, |old| key.len() + old.value.len());
            return;
        };
        if let Some(entry) = self.values.get_mut(key) {
            // As a rule it is no longer than before, and finds room.
            self.live_bytes = self.live_bytes - entry.value.len() + value.len();
            entry.value.clear();
            entry.value.extend_from_slice(value);
            (entry.timestamp, entry.offset) = (timestamp, offset);
        } else {
            self.live_bytes += key.len() + value.len();
            self.values.insert(key.to_vec(), Entry { value: value.to_vec(), timestamp, offset });
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
        reserve: &Arc<Reserve>,
    ) -> Result<Self> {
        let partition = Partition::create(home, epoch, config, upkeep)?;
        Ok(Table::of(partition, State::default(), config, Some(Arc::clone(reserve))))
    }

    /// Opens a table and replays it. The damage that is met is in the report, and stepped over.
    pub(crate) fn open(
        home: Home,
        known: Known,
        config: &TopicConfig,
        upkeep: Option<Arc<dyn Upkeep>>,
        reserve: &Arc<Reserve>,
    ) -> Result<(Self, PartitionReport)> {
        let (partition, report) = Partition::open(home, known, config, upkeep)?;
        Self::replayed(partition, report, config, Some(Arc::clone(reserve)))
    }

    /// Opens a table that another process may be changing. See [`follow`](Self::follow).
    pub(crate) fn open_read_only(home: Home, known: Known, config: &TopicConfig) -> Result<(Self, PartitionReport)> {
        let (partition, report) = Partition::open_read_only(home, known, config)?;
        Self::replayed(partition, report, config, None)
    }

    fn of(partition: Partition, state: State, config: &TopicConfig, reserve: Option<Arc<Reserve>>) -> Self {
        let rewrite_slack = config.segment_bytes as usize / REWRITE_SLACK;
        Table { partition: Arc::new(partition), rewrite_slack, state: Mutex::new(state), reserve }
    }

    fn replayed(
        partition: Partition,
        mut report: PartitionReport,
        config: &TopicConfig,
        reserve: Option<Arc<Reserve>>,
    ) -> Result<(Self, PartitionReport)> {
        let state = State { read: partition.log_start(), ..State::default() };
        let table = Table::of(partition, state, config, reserve);
        table.replay(&mut report.damage, |_| ())?;
        let (start, mut state) = (table.partition.log_start(), table.state.lock());
        if state.whole_from < start {
            report.damage.push(table.partition.missing(Offset::ZERO..start));
        }
        // What was lost of what is said again is no loss.
        report.damage.retain(|damage| damage.offsets.end > state.whole_from);
        for damage in &mut report.damage {
            damage.partition = None;
        }
        state.damage.clone_from(&report.damage);
        drop(state);
        Ok((table, report))
    }

    /// Applies what was appended since the last replay; `changed` is told the keys.
    fn replay(&self, damage: &mut Vec<Damage>, mut changed: impl FnMut(&[u8])) -> Result<()> {
        let mut state = self.state.lock();
        let mut cursor = self.partition.cursor();
        loop {
            match self.partition.read(&mut cursor, state.read, usize::MAX) {
                Ok(None) => return Ok(()),
                Ok(Some(chunk)) => {
                    for record in chunk.records() {
                        let key = record.key.unwrap_or_default();
                        state.apply(record.offset, key, record.value, record.timestamp);
                        changed(key);
                    }
                    state.read = chunk.offsets.end;
                }
                Err(Error::Corrupt(found)) => {
                    state.read =
                        found.offsets.end.max(state.read.saturating_advance(1)).min(self.partition.high_watermark());
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
        self.partition.follow(true, || None)?;
        let mut changed = Vec::new();
        self.replay(&mut Vec::new(), |key| changed.push(key.to_vec()))?;
        Ok(changed)
    }

    pub(crate) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The value of a key, and when it was set.
    pub(crate) fn get<T>(&self, key: &[u8], read: impl FnOnce(&[u8], Timestamp) -> T) -> Option<T> {
        self.state.lock().values.get(key).map(|entry| read(&entry.value, entry.timestamp))
    }

    /// The damage that may have taken a later value of the key than the one that is there, if there is such damage.
    pub(crate) fn doubt(&self, key: &[u8]) -> Option<Damage> {
        let state = self.state.lock();
        let said = state.values.get(key).map(|entry| entry.offset);
        state.damage.iter().find(|damage| said.is_none_or(|said| said < damage.offsets.end)).cloned()
    }

    /// Whether it says nothing, and never lost anything.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.values.is_empty() && state.damage.is_empty()
    }

    /// What `read` makes of keys and values, in the order of the keys.
    pub(crate) fn filter_map<T>(&self, read: impl Fn(&[u8], &[u8]) -> Option<T>) -> Vec<T> {
        self.state.lock().values.iter().filter_map(|(key, entry)| read(key, &entry.value)).collect()
    }

    /// All keys with their values, in the order of the keys.
    pub(crate) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>, Timestamp)> {
        let state = self.state.lock();
        state.values.iter().map(|(key, entry)| (key.clone(), entry.value.clone(), entry.timestamp)).collect()
    }

    /// Makes the changes, all or none of them; returns the offset that must become durable for them to be.
    pub(crate) fn change(&self, changes: &[Change], now: Timestamp) -> Result<Offset> {
        let drafts: Vec<Draft<'_>> = changes.iter().map(|(key, value)| draft(key, value.as_deref(), now)).collect();
        self.append(&drafts)
    }

    /// [`change`](Self::change), by records that are already [`draft`]ed.
    pub(crate) fn append(&self, drafts: &[Draft<'_>]) -> Result<Offset> {
        let mut state = self.state.lock();
        let base = match (self.partition.append(drafts), &self.reserve) {
            (Err(Error::NoSpace { .. }), Some(reserve)) if reserve.give_up() => {
                let done = self.make_room(&mut state).and_then(|()| self.partition.append(drafts));
                reserve.keep();
                done?
            }
            (done, reserve) => {
                reserve.iter().for_each(|reserve| reserve.keep());
                done?
            }
        };
        for (draft, offset) in drafts.iter().zip(base.get()..) {
            state.apply(Offset::new(offset), draft.key.unwrap_or_default(), draft.value, draft.timestamp);
        }
        let end = base.advance(drafts.len() as u64);
        if state.damage.is_empty() && state.log_bytes > 4 * state.live_bytes + self.rewrite_slack {
            // The change is made, whatever becomes of this. Without room for it, it is tried again when as much has come.
            drop(self.rewrite(&state));
            state.log_bytes = state.live_bytes;
        }
        Ok(end)
    }

    /// Goes on in a new segment, which takes less room than growing the old one.
    fn make_room(&self, state: &mut State) -> Result<()> {
        if state.damage.is_empty() { self.rewrite(state) } else { self.partition.begin_segment().map(drop) }
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
        for (key, entry) in &state.values {
            drafts.push(draft(key, Some(&entry.value), entry.timestamp));
            bytes += key.len() + entry.value.len();
            if bytes > REWRITE_BATCH_BYTES {
                self.partition.append(&drafts)?;
                drafts.clear();
                bytes = 0;
            }
        }
        let began = base.get().to_le_bytes();
        drafts.push(draft(AGAIN, Some(&began), self.partition.now()));
        self.partition.append(&drafts)?;
        self.partition.sync_to(self.partition.log_end(), None)?;
        self.partition.remove_below(base).map(drop)
    }
}

/// The record that sets a key of a table, or takes it away.
pub(crate) fn draft<'a>(key: &'a [u8], value: Option<&'a [u8]>, timestamp: Timestamp) -> Draft<'a> {
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

    fn create(disk: &Arc<SimDisk>) -> Table {
        let home = home(disk);
        let reserve = Reserve::new(home.env.clone());
        Table::create(home, 1, &config(), None, &reserve).unwrap()
    }

    fn open(disk: &Arc<SimDisk>) -> (Table, PartitionReport) {
        let home = home(disk);
        let reserve = Reserve::new(home.env.clone());
        let known = Known { made: true, epoch: 2, ..Known::default() };
        Table::open(home, known, &config(), None, &reserve).unwrap()
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
        let table = create(&disk);
        disk.sync_dir(&PathBuf::new()).unwrap();
        for n in 0..6_000 {
            table.change(&[change(n)], Timestamp::from_millis(0)).unwrap();
        }
        assert!(disk.files().len() < 12, "{} segments", disk.files().len());
        table.deliver(table.partition.log_end(), None).unwrap();

        for how in PowerCut::ALL {
            let (again, report) = open(&disk.power_cut(how));
            assert!(report.damage.is_empty(), "{how:?}: {report:?}");
            assert_eq!(entries(&again), expected(6_000), "{how:?}");
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
        let table = create(&disk);
        let (changes, from, to) = rewrite_begins(&disk, &table);

        for (crash, how) in (from..to).flat_map(|crash| PowerCut::ALL.map(|how| (crash, how))) {
            let disk = SimDisk::new(5);
            let table = create(&disk);
            disk.sync_dir(&PathBuf::new()).unwrap();
            for n in 0..changes - 1 {
                table.change(&[change(n)], Timestamp::from_millis(0)).unwrap();
            }
            table.deliver(table.partition.log_end(), None).unwrap();
            let crash = disk.operations() + (crash - from);
            disk.crash_at(crash);
            drop(table.change(&[change(changes - 1)], Timestamp::from_millis(0)));

            let (again, report) = open(&disk.power_cut(how));

            let found = entries(&again);
            let whole = found == expected(changes) || found == expected(changes - 1);
            assert!(whole && report.damage.is_empty(), "crash at {crash}, {how:?}: {report:?}");
        }
    }
}
