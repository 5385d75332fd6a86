//! What the log knows of itself: its topics, their configuration, how often it was opened. And the lock.
//!
//! All of it is a [`Table`], in the directory `catalog`. A change counts from the moment at which its record is
//! durable: the files of a new topic are there and durable before, those of a deleted one are removed after.
//!
//! | the catalog                               | what is found in the directories       | what is done                            |
//! |-------------------------------------------|-----------------------------------------|-----------------------------------------|
//! | is gone, or its files are not readable    | headers of this log                     | a new catalog of the same log           |
//! | has lost something                        | a topic that it does not mention        | taken in, with the usual settings       |
//! | has lost something                        | more partitions than it mentions        | taken in                                |
//! | is whole                                  | a topic with records, of this log       | taken in: it can only have been lost    |
//! | is whole                                  | a topic without records                 | removed: its creation was interrupted   |
//! | either                                    | a topic with the id of another, a copy  | left alone and reported                 |
//! | either                                    | anything else                           | left alone and reported                 |
//!
//! Whatever is found out so is in the [`RecoveryReport`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::config::{Durability, LogConfig, MAX_PARTITIONS, TopicConfig};
use crate::env::Env;
use crate::env::scheduling::Bell;
use crate::env::storage::{Access, Entry, Kind, Lock, LockError, path_in};
use crate::error::{Damage, Error, Flaw, Result};
use crate::format::catalog::{Cut, Fact, TopicFact, group_of_key};
use crate::format::segment::{CATALOG_ID, Header, Identity};
use crate::partition::{Home, Known, Partition, PartitionReport, Removal, Upkeep, headers, holds_batches};
use crate::table::{Reserve, Table};
use crate::topic::Topic;
use crate::types::{Offset, TopicPartition, topic_name_fault, topic_names_collide};

const CATALOG: &str = "catalog";
const TOPICS: &str = "topics";
const LOCK: &str = "LOCK";
/// Where the groups keep their committed offsets.
pub(crate) const GROUPS: &str = "groups";

/// The size of a segment of the catalog.
const CATALOG_SEGMENT_BYTES: u32 = 1 << 20;

/// So many ends are recorded in one batch.
const ENDS_AT_ONCE: usize = 1000;

/// What opening a log found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Segment files, of topics, groups and catalog.
    pub segments: usize,
    /// Bytes of batches that were read and checked; the rest was proven to be durable, and is checked when it is read.
    pub bytes_read: u64,
    /// Bytes of torn tails that were cut: written, but never promised to anybody.
    pub bytes_cut: u64,
    /// Promised bytes that are damaged or missing. Nothing of them was touched; reading them is an error.
    pub damage: Vec<Damage>,
    /// Groups whose committed offset lay behind the end of a partition, because a power cut took its tail.
    pub pulled_back: Vec<PulledBack>,
    /// Topics that the catalog did not know, or not with all their partitions, and that were taken in as they were
    /// found. Their settings are the usual ones.
    pub rebuilt: Vec<String>,
    /// Directories in the place of topics that are of no topic of this log, or copies of one under another name: what
    /// the log knows of a topic it knows by its id, and a copy has the same. Of two that the catalog does not tell apart
    /// the one whose name comes first is the topic. Nothing of the others was touched.
    pub unknown: Vec<PathBuf>,
}

impl RecoveryReport {
    /// Whether there is nothing that somebody should look at.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.pulled_back.is_empty() && self.rebuilt.is_empty() && self.unknown.is_empty()
    }

    pub(crate) fn add(&mut self, report: PartitionReport) {
        self.segments += report.segments;
        self.bytes_read += report.bytes_read;
        self.bytes_cut += report.bytes_cut;
        self.damage.extend(report.damage);
    }
}

/// A group that had committed more than a partition now holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PulledBack {
    /// The group.
    pub group: String,
    /// The partition.
    pub partition: TopicPartition,
    /// What was committed.
    pub from: Offset,
    /// What is committed now: the end of the partition.
    pub to: Offset,
}

/// The topics of an open log.
pub(crate) struct Catalog {
    env: Env,
    config: LogConfig,
    access: Access,
    log_id: u128,
    epoch: u32,
    /// Whether the log was closed cleanly and nothing was appended before this opening.
    was_closed: bool,
    /// Whether the catalog has lost something that the directories may know.
    doubtful: bool,
    table: Table,
    /// `None` in a log that is only read.
    reserve: Option<Arc<Reserve>>,
    topics: RwLock<BTreeMap<Arc<str>, Arc<Topic>>>,
    /// How often topics came, went or grew; and who waits for it.
    version: AtomicU64,
    listeners: Mutex<Vec<Arc<Bell>>>,
    /// Taken by whoever creates, deletes or alters a topic.
    change: Mutex<()>,
    /// Drawn from for the ids of topics.
    drawn: AtomicU64,
    upkeep: Arc<dyn Upkeep>,
    lock: Mutex<Option<Box<dyn Lock>>>,
    closed: AtomicBool,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalog({})", self.env.storage.root().display())
    }
}

impl Catalog {
    /// Opens the log for writing: takes the lock, makes the log if there is none, recovers all of it.
    pub(crate) fn open(env: Env, config: LogConfig, upkeep: Arc<dyn Upkeep>) -> Result<(Self, RecoveryReport)> {
        config.check()?;
        let root = env.storage.root().to_path_buf();
        if !config.create && !is_log(&env)? {
            return Err(Error::NotALog { path: root });
        }
        let lock = env.storage.lock().map_err(|error| match error {
            LockError::Held(holder) => Error::Locked { path: root.clone(), holder },
            LockError::Io(source) => Error::making("lock", || root.join(LOCK))(source),
        })?;
        let mut report = RecoveryReport::default();
        let reserve = Reserve::new(env.clone());
        let Opened { log_id, table, doubtful } = open_or_create_table(&env, &upkeep, &reserve, &mut report)?;
        let facts = Facts::of(&table)?;
        let lost_epoch = if doubtful { highest_epoch(&env)? } else { 0 };
        let epoch = facts.epoch.max(lost_epoch).saturating_add(1).max(table.partition().epoch());
        table.partition().begin_epoch(epoch);
        let end = table.change(&[Fact::Epoch(epoch).encode()], env.clock.now())?;
        table.deliver(end, None)?;
        let catalog = Catalog {
            drawn: AtomicU64::new(env.seed),
            log_id,
            epoch,
            was_closed: !doubtful && facts.closed == facts.epoch,
            doubtful,
            table,
            reserve: Some(reserve),
            topics: RwLock::default(),
            version: AtomicU64::new(0),
            listeners: Mutex::default(),
            change: Mutex::new(()),
            upkeep,
            lock: Mutex::new(Some(lock)),
            closed: AtomicBool::new(false),
            access: Access::Write,
            config,
            env,
        };
        catalog.finish_deletions(&facts)?;
        for name in facts.topics.keys() {
            catalog.open_known(name, &facts, &mut report)?;
        }
        catalog.find_strangers(&facts, &mut report)?;
        Ok((catalog, report))
    }

    /// Opens the log for reading, beside a process that writes it perhaps. Changes nothing. What the catalog has lost is
    /// taken from the directories, as an opening for writing would; only that it is not written down.
    pub(crate) fn open_read_only(env: Env, upkeep: Arc<dyn Upkeep>) -> Result<(Self, RecoveryReport)> {
        if !is_log(&env)? {
            return Err(Error::NotALog { path: env.storage.root().to_path_buf() });
        }
        let (Some(log_id), true) = (log_id_of(&env)?, exists(&env, Path::new(""), CATALOG)?) else {
            return Err(Error::Corrupt(Box::new(lost_catalog(&env))));
        };
        let mut report = RecoveryReport::default();
        let home = table_home(&env, log_id, CATALOG_ID, PathBuf::from(CATALOG), CATALOG, CATALOG_SEGMENT_BYTES);
        let known = Known { made: true, ..Known::default() };
        let (table, found) = Table::open_read_only(home, known, &table_config(Durability::Os, CATALOG_SEGMENT_BYTES))?;
        let doubtful = !found.damage.is_empty();
        report.add(found);
        let facts = Facts::of(&table)?;
        let catalog = Catalog {
            drawn: AtomicU64::new(0),
            config: LogConfig::new(),
            access: Access::Read,
            log_id,
            epoch: facts.epoch,
            was_closed: !doubtful && facts.closed == facts.epoch,
            doubtful,
            table,
            reserve: None,
            topics: RwLock::default(),
            version: AtomicU64::new(0),
            listeners: Mutex::default(),
            change: Mutex::new(()),
            upkeep,
            lock: Mutex::new(None),
            closed: AtomicBool::new(false),
            env,
        };
        for name in facts.topics.keys() {
            match catalog.open_known(name, &facts, &mut report) {
                // Deleted since the catalog was read.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                opened => opened?,
            }
        }
        catalog.find_strangers(&facts, &mut report)?;
        Ok((catalog, report))
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Where the log keeps what it knows of itself.
    pub(crate) fn table(&self) -> &Arc<Partition> {
        self.table.partition()
    }

    pub(crate) fn config(&self) -> &LogConfig {
        &self.config
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.access == Access::Read
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        self.env.check_not_forked()?;
        if self.is_read_only() {
            return Err(Error::ReadOnly { path: self.env.storage.root().to_path_buf() });
        }
        self.check_open()
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        self.env.check_not_forked()?;
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// The topic of this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().get(name).cloned()
    }

    /// The topic of this name.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.env.check_not_forked()?;
        self.find(name).ok_or_else(|| match topic_name_fault(name) {
            Some(reason) => Error::InvalidTopic { topic: name.to_owned(), reason: reason.to_owned() },
            None => Error::UnknownTopic { topic: name.to_owned() },
        })
    }

    /// The topic of this name, created now if there is none and the log is configured to.
    pub(crate) fn topic_or_create(&self, name: &str) -> Result<Arc<Topic>> {
        match (self.topic(name), &self.config.auto_create_topics) {
            (Err(Error::UnknownTopic { .. }), Some(config)) if !self.is_read_only() => {
                match self.create(name, config.clone()) {
                    Ok(()) | Err(Error::TopicExists { .. }) => self.topic(name),
                    Err(error) => Err(error),
                }
            }
            (found, _) => found,
        }
    }

    /// The number of this opening: later ones have higher ones.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How often topics have come, gone or grown.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    fn topics_changed(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        // Not under the lock: a task that is woken may do what it likes.
        let bells = mem::take(&mut *self.listeners.lock());
        bells.iter().for_each(|bell| bell.ring());
    }

    /// Whether topics have changed since `version`; if not, `bell` rings when they do.
    pub(crate) fn listen(&self, version: u64, bell: &Arc<Bell>) -> bool {
        let mut listeners = self.listeners.lock();
        // Under the lock: who changes them afterwards finds the bell.
        if self.version() != version {
            return true;
        }
        if !listeners.iter().any(|known| Arc::ptr_eq(known, bell)) {
            listeners.push(Arc::clone(bell));
        }
        false
    }

    /// Forgets a bell: nobody waits for it any more.
    pub(crate) fn unlisten(&self, bell: &Arc<Bell>) {
        self.listeners.lock().retain(|known| !Arc::ptr_eq(known, bell));
    }

    /// Calls `work` while no topic or group comes, goes or grows.
    pub(crate) fn while_unchanged<T>(&self, work: impl FnOnce() -> T) -> T {
        let _change = self.change.lock();
        work()
    }

    /// All topics, in the order of their names.
    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().values().cloned().collect()
    }

    /// The partition, if there is one.
    pub(crate) fn partition(&self, name: &TopicPartition) -> Result<Arc<Partition>> {
        self.topic(name.topic())?.partition(name.partition())
    }

    /// Creates a topic. When it returns, the topic survives a power cut.
    pub(crate) fn create(&self, name: &str, config: TopicConfig) -> Result<()> {
        self.check_writable()?;
        check_name(name)?;
        config.check(name)?;
        let _change = self.change.lock();
        self.table.partition().check_open()?;
        self.check_clash(name)?;
        let id = self.draw_id();
        let dir = topic_dir(name);
        let storage = &self.env.storage;
        storage.create_dir(&dir).map_err(Error::making("create", || storage.root().join(&dir)))?;
        let made = self.create_partitions(name, id, &config, 0).and_then(|partitions| {
            storage.sync_dir(Path::new(TOPICS)).map_err(self.io("sync", Path::new(TOPICS)))?;
            let fact = Fact::Topic(name.to_owned(), topic_fact(id, &config));
            Ok((partitions, self.table.change(&[fact.encode()], self.env.clock.now())?))
        });
        let (partitions, end) = match made {
            Ok(made) => made,
            Err(error) => {
                // As far as it goes: what is left is empty, and the next opening removes it.
                drop(remove_topic_files(&self.env, &dir));
                return Err(error);
            }
        };
        // If this fails, the next opening may find the topic or not, and so its files stay.
        self.table.deliver(end, None)?;
        let name: Arc<str> = name.into();
        let topic = Arc::new(Topic::new(Arc::clone(&name), id, config, partitions));
        self.topics.write().insert(name, topic);
        self.topics_changed();
        Ok(())
    }

    fn check_clash(&self, name: &str) -> Result<()> {
        let topics = self.topics.read();
        if topics.contains_key(name) {
            return Err(Error::TopicExists { topic: name.to_owned() });
        }
        match topics.keys().find(|other| topic_names_collide(other, name)) {
            Some(other) => Err(Error::InvalidTopic {
                topic: name.to_owned(),
                reason: format!("it differs from the existing topic {other:?} only in '.', '_' or case"),
            }),
            None => Ok(()),
        }
    }

    /// Makes the partitions from number `first` on, durably but for the name of the topic's directory.
    fn create_partitions(&self, name: &str, id: u128, config: &TopicConfig, first: u32) -> Result<Vec<Arc<Partition>>> {
        let mut partitions = Vec::new();
        for number in first..config.partitions {
            let home = self.partition_home(name, id, number, config);
            let partition = Partition::create(home, self.epoch, config, Some(Arc::clone(&self.upkeep)))?;
            partitions.push(Arc::new(partition));
        }
        let dir = topic_dir(name);
        self.env.storage.sync_dir(&dir).map_err(self.io("sync", &dir))?;
        Ok(partitions)
    }

    /// Gives a topic more partitions, `total` of them.
    pub(crate) fn add_partitions(&self, name: &str, total: u32) -> Result<()> {
        self.check_writable()?;
        let _change = self.change.lock();
        let topic = self.topic(name)?;
        let config = topic.config().partitions(total);
        config.check(name)?;
        if total <= topic.count() {
            return Err(Error::InvalidPartitions {
                topic: name.to_owned(),
                requested: total,
                reason: format!("it has {} already, and partitions are only added", topic.count()),
            });
        }
        self.table.partition().check_open()?;
        for number in topic.count()..total {
            // Left by an attempt that did not get to the end; nobody was told of it.
            let dir = topic_dir(name).join(number.to_string());
            remove_partition_files(&self.env, &dir)?;
        }
        let more = self.create_partitions(name, topic.id(), &config, topic.count())?;
        self.record(&[Fact::Topic(name.to_owned(), topic_fact(topic.id(), &config))])?;
        topic.grow(more);
        topic.reconfigure(config);
        self.topics_changed();
        Ok(())
    }

    /// Changes the configuration of a topic, but not its partitions.
    pub(crate) fn alter(&self, name: &str, config: TopicConfig) -> Result<()> {
        self.check_writable()?;
        let _change = self.change.lock();
        let topic = self.topic(name)?;
        config.check(name)?;
        if config.partitions != topic.count() {
            return Err(Error::InvalidPartitions {
                topic: name.to_owned(),
                requested: config.partitions,
                reason: format!("it has {}; altering a topic does not change that, add_partitions does", topic.count()),
            });
        }
        self.record(&[Fact::Topic(name.to_owned(), topic_fact(topic.id(), &config))])?;
        topic.reconfigure(config);
        Ok(())
    }

    /// Deletes a topic and its records. What consumers hold of them stays readable.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        self.check_writable()?;
        let _change = self.change.lock();
        let topic = self.topic(name)?;
        check_not_copied(&topic.partitions())?;
        self.record(&[Fact::NoTopic(name.to_owned()), Fact::Deleting(topic.id(), name.to_owned())])?;
        topic.set_deleted();
        self.topics.write().remove(name);
        self.topics_changed();
        for partition in topic.partitions() {
            partition.abandon();
            partition.wait_for_removals();
        }
        remove_topic_files(&self.env, &topic_dir(name))?;
        let mut facts: Vec<_> = (0..topic.count()).map(|number| Fact::NoEnd(topic.id(), number)).collect();
        let began = (0..topic.count()).filter(|number| self.recorded_start(topic.id(), *number) > Offset::ZERO);
        facts.extend(began.map(|number| Fact::NoStart(topic.id(), number)));
        let cut = (0..topic.count()).filter(|number| self.recorded_cut(topic.id(), *number).is_some());
        facts.extend(cut.map(|number| Fact::NoCut(topic.id(), number)));
        facts.push(Fact::Deleted(topic.id()));
        self.record(&facts)
    }

    /// Writes facts down, durably.
    fn record(&self, facts: &[Fact]) -> Result<()> {
        let changes: Vec<_> = facts.iter().map(Fact::encode).collect();
        let end = self.table.change(&changes, self.env.clock.now())?;
        self.table.deliver(end, None)
    }

    /// A number that no other topic of this log has: the seed differs from opening to opening.
    fn draw_id(&self) -> u128 {
        let half = || {
            let state = self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            u128::from(mix(state.wrapping_add(u64::from(self.epoch) << 32)))
        };
        (half() << 64 | half()).max(CATALOG_ID + 1)
    }

    /// Opens a topic that the catalog mentions; if that has lost something, as the directory says it is.
    fn open_known(&self, name: &str, facts: &Facts, report: &mut RecoveryReport) -> Result<()> {
        let fact = &facts.topics[name];
        let found = if self.doubtful { self.survey(name)? } else { None };
        let news = |(id, partitions): &(u128, u32)| {
            let others = || facts.topics.values().any(|other| other.id == *id) || self.has(*id);
            if *id == fact.id { *partitions != fact.partitions } else { !others() }
        };
        if let Some((id, partitions)) = found.filter(news) {
            let partitions = if id == fact.id { partitions.max(fact.partitions) } else { partitions };
            return self.take_in(name, &TopicFact { id, partitions, ..fact.clone() }, report);
        }
        self.open_topic(name, fact, report).map(drop)
    }

    /// Takes in a topic that the catalog does not know so.
    fn take_in(&self, name: &str, fact: &TopicFact, report: &mut RecoveryReport) -> Result<()> {
        if self.access == Access::Write {
            self.record(&[Fact::Topic(name.to_owned(), fact.clone())])?;
        }
        report.rebuilt.push(name.to_owned());
        self.open_topic(name, fact, report).map(drop)
    }

    /// The id and the number of partitions of the topic of this log whose files are in the directory of that name, as
    /// their headers say; `None` if they contradict one another, or there are none.
    fn survey(&self, name: &str) -> Result<Option<(u128, u32)>> {
        let (mut id, mut partitions) = (None, 0);
        for (path, kind) in list_if_there(&self.env, &topic_dir(name))? {
            let number = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
            let (Kind::Directory, Some(number)) = (kind, number.filter(|number| *number < MAX_PARTITIONS)) else {
                continue;
            };
            for Header { identity, .. } in headers(&self.env, &path)? {
                let ours = identity.log == self.log_id && identity.partition == number;
                if !ours || id.is_some_and(|id| id != identity.topic) {
                    return Ok(None);
                }
                id = Some(identity.topic);
                partitions = partitions.max(number + 1);
            }
        }
        Ok(id.map(|id| (id, partitions)))
    }

    /// Whether an open topic has this id.
    fn has(&self, id: u128) -> bool {
        self.topics.read().values().any(|topic| topic.id() == id)
    }

    /// What is known of a partition of the topic or group with this id before its files are looked at.
    fn known(&self, id: u128, number: u32, made: bool, start: Option<Offset>) -> Known {
        let durable_end = self.recorded_end(id, number).unwrap_or(Offset::ZERO);
        let cut = self.recorded_cut(id, number);
        Known { made, start, cut, durable_end, closed: self.was_closed, epoch: self.epoch }
    }

    /// Where the partition of the topic with this id begins.
    fn recorded_start(&self, id: u128, number: u32) -> Offset {
        let (key, _) = Fact::NoStart(id, number).encode();
        let start = self.table.get(&key, |value, _| Fact::decode(&key, Some(value)).ok()).flatten();
        if let Some(Fact::Start(_, _, start)) = start { start } else { Offset::ZERO }
    }

    /// Removes everything below `start` from a partition. When it returns, it does not come back.
    pub(crate) fn delete_before(&self, partition: &Partition, start: Offset) -> Result<Removal> {
        self.check_writable()?;
        let fact = Fact::Start(partition.topic_id(), partition.name().partition(), start);
        partition.delete_before(start, || self.record(&[fact]))
    }

    /// Where the partition of the topic with this id was cut last.
    fn recorded_cut(&self, id: u128, number: u32) -> Option<Cut> {
        let (key, _) = Fact::NoCut(id, number).encode();
        let cut = self.table.get(&key, |value, _| Fact::decode(&key, Some(value)).ok())?;
        if let Some(Fact::Cut(_, _, cut)) = cut { Some(cut) } else { None }
    }

    /// Where each partition of the topic with this id was cut last.
    pub(crate) fn recorded_cuts(&self, id: u128, count: u32) -> Vec<Option<Cut>> {
        (0..count).map(|number| self.recorded_cut(id, number)).collect()
    }

    /// Removes everything at or above `end` from a partition. When it returns, it does not come back.
    ///
    /// `pull_back` sets back groups that have committed more.
    pub(crate) fn truncate(
        &self,
        partition: &Partition,
        end: Offset,
        pull_back: impl FnOnce() -> Result<()>,
    ) -> Result<Removal> {
        self.check_writable()?;
        let (id, number) = (partition.topic_id(), partition.name().partition());
        // What was recorded at the last closing may be more than is left.
        let record = |cut| self.record(&[Fact::Cut(id, number, cut), Fact::End(id, number, end)]);
        partition.truncate(end, record, pull_back)
    }

    fn recorded_end(&self, id: u128, number: u32) -> Option<Offset> {
        let (key, _) = Fact::NoEnd(id, number).encode();
        let end = self.table.get(&key, |value, _| Fact::decode(&key, Some(value)).ok())?;
        if let Some(Fact::End(_, _, end)) = end { Some(end) } else { None }
    }

    fn open_topic(&self, name: &str, fact: &TopicFact, report: &mut RecoveryReport) -> Result<Arc<Topic>> {
        let mut config = TopicConfig::new().partitions(fact.partitions);
        for (setting, value) in &fact.settings {
            // A setting of a newer library is kept in the catalog and means nothing here.
            config = config.clone().set(setting, value).unwrap_or(config);
        }
        let mut partitions = Vec::new();
        for number in 0..fact.partitions {
            let home = self.partition_home(name, fact.id, number, &config);
            let known = self.known(fact.id, number, true, Some(self.recorded_start(fact.id, number)));
            let open = || match self.access {
                Access::Read => self.open_partition_read_only(&home, known, &config),
                Access::Write => Partition::open(home.clone(), known, &config, Some(Arc::clone(&self.upkeep))),
            };
            let (partition, found) = match open() {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    self.make_missing(&home.dir)?;
                    open()?
                }
                opened => opened?,
            };
            report.add(found);
            partitions.push(Arc::new(partition));
        }
        let name: Arc<str> = name.into();
        let topic = Arc::new(Topic::new(Arc::clone(&name), fact.id, config, partitions));
        self.topics.write().insert(name, Arc::clone(&topic));
        Ok(topic)
    }

    /// What is missing may have been deleted or cut off since the catalog was read.
    fn open_partition_read_only(
        &self,
        home: &Home,
        mut known: Known,
        config: &TopicConfig,
    ) -> Result<(Partition, PartitionReport)> {
        loop {
            let (partition, report) = Partition::open_read_only(home.clone(), known, config)?;
            if report.damage.is_empty() || self.table.follow().is_err() {
                return Ok((partition, report));
            }
            let (id, number) = (home.identity.topic, home.identity.partition);
            let (start, cut) = (Some(self.recorded_start(id, number)), self.recorded_cut(id, number));
            if (start, cut) == (known.start, known.cut) {
                return Ok((partition, report));
            }
            (known.start, known.cut) = (start, cut);
        }
    }

    /// Makes a directory that should be there and is not, so that the partition can say what is missing, and go on.
    fn make_missing(&self, dir: &Path) -> Result<()> {
        if self.access == Access::Read {
            return Ok(());
        }
        for dir in [dir.parent().unwrap_or(dir), dir] {
            create_dir_if_missing(&self.env, dir)?;
        }
        Ok(())
    }

    /// Looks what another process has changed. Only for a log that was opened read-only.
    pub(crate) fn follow(&self) -> Result<()> {
        self.env.check_not_forked()?;
        let _change = self.change.lock();
        let changed = !self.table.follow()?.is_empty();
        if changed {
            let known = Facts::of(&self.table)?.topics;
            self.topics.write().retain(|name, topic| known.get(&**name).is_some_and(|fact| fact.id == topic.id()));
            for (name, fact) in known {
                match self.find(&name) {
                    Some(topic) if topic.count() >= fact.partitions => {}
                    // Its files may not all be there yet, or not any more: the next look finds out.
                    _ => drop(self.open_topic(&name, &fact, &mut RecoveryReport::default())),
                }
            }
            self.topics_changed();
        }
        for topic in self.topics() {
            for partition in topic.partitions() {
                let recorded = || {
                    // If it cannot be read now, the next look finds out.
                    drop(self.table.follow());
                    self.recorded_cut(topic.id(), partition.name().partition())
                };
                // Only an opening begins a segment behind damage, and an opening changes the catalog.
                partition.follow(changed, recorded)?;
                if changed {
                    partition.follow_start(self.recorded_start(topic.id(), partition.name().partition()));
                }
            }
        }
        Ok(())
    }

    /// Removes the files of topics whose deletion was interrupted.
    fn finish_deletions(&self, facts: &Facts) -> Result<()> {
        for (id, name) in &facts.deleting {
            // The name may belong to a new topic by now, whose files are not those that were to go.
            let another = self.doubtful && self.survey(name)?.is_some_and(|(found, _)| found != *id);
            let known = facts.topics.contains_key(name) || facts.doubles.contains(name);
            if !known && !another {
                remove_topic_files(&self.env, &topic_dir(name))?;
            }
            self.record(&[Fact::Deleted(*id)])?;
        }
        Ok(())
    }

    /// Looks at directories that the catalog does not mention. See the head of this file.
    fn find_strangers(&self, facts: &Facts, report: &mut RecoveryReport) -> Result<()> {
        let root = self.env.storage.root();
        report.unknown.extend(facts.doubles.iter().map(|name| root.join(topic_dir(name))));
        for (dir, kind) in list_if_there(&self.env, Path::new(TOPICS))? {
            let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { continue };
            if kind != Kind::Directory || self.find(name).is_some() || facts.doubles.iter().any(|double| double == name)
            {
                continue;
            }
            if !self.doubtful {
                if self.access == Access::Read {
                    // Another process may just be making it.
                    continue;
                }
                if !holds_records(&self.env, &dir)? {
                    remove_topic_files(&self.env, &dir)?;
                    continue;
                }
            }
            let fits =
                |(id, _): &(u128, u32)| !self.has(*id) && check_name(name).is_ok() && self.check_clash(name).is_ok();
            match self.survey(name)?.filter(fits) {
                Some((id, partitions)) => {
                    self.take_in(name, &topic_fact(id, &TopicConfig::new().partitions(partitions)), report)?;
                }
                None => report.unknown.push(root.join(&dir)),
            }
        }
        Ok(())
    }

    fn partition_home(&self, name: &str, id: u128, number: u32, config: &TopicConfig) -> Home {
        Home {
            env: self.env.clone(),
            dir: path_in(&topic_dir(name), number.to_string()),
            identity: Identity { log: self.log_id, topic: id, partition: number },
            partition: TopicPartition::new(name, number),
            segment_bytes: config.segment_bytes,
        }
    }

    /// The table of a group, in its own directory; made if it is missing and `create`.
    pub(crate) fn group_table(
        &self,
        name: &str,
        id: u128,
        dir: &str,
        create: bool,
    ) -> Result<Option<(Table, PartitionReport)>> {
        let path = path_in(Path::new(GROUPS), dir);
        let segment_bytes = self.config.offsets_segment_bytes;
        let home = table_home(&self.env, self.log_id, id, path.clone(), name, segment_bytes);
        let config = table_config(self.config.commit_durability, segment_bytes);
        let (fact_key, _) = Fact::Group(name.to_owned()).encode();
        let mentioned = self.table.get(&fact_key, |_, _| ()).is_some();
        // A directory without a segment is what is left of a creation that was interrupted.
        let there = has_segments(&self.env, &path)?;
        let known = || self.known(id, 0, mentioned, None);
        let Some(reserve) = &self.reserve else {
            // What was committed is shown before it is proven to be durable: it is where the group is.
            let open = || Table::open_read_only(home, known(), &table_config(Durability::Os, segment_bytes));
            return if there { open().map(Some) } else { Ok(None) };
        };
        let upkeep = Some(Arc::clone(&self.upkeep));
        let made = if there || mentioned {
            create_dir_if_missing(&self.env, &path)?;
            Table::open(home, known(), &config, upkeep, reserve)?
        } else if create {
            let table = reserve.help(|| {
                remove_partition_files(&self.env, &path)?;
                Table::create(home.clone(), self.epoch, &config, upkeep.clone(), reserve)
            })?;
            (table, PartitionReport::default())
        } else {
            return Ok(None);
        };
        if !mentioned {
            // By now a segment is there, and its name is durable.
            self.env.storage.sync_dir(Path::new(GROUPS)).map_err(self.io("sync", Path::new(GROUPS)))?;
            self.record(&[Fact::Group(name.to_owned())])?;
        }
        Ok(Some(made))
    }

    /// Removes the files of a group that has nothing committed any more; [while nothing else changes](Self::while_unchanged).
    pub(crate) fn delete_group(&self, name: &str, dir: &str, partition: &Arc<Partition>) -> Result<()> {
        check_not_copied(std::slice::from_ref(partition))?;
        self.record(&[Fact::NoGroup(name.to_owned()), Fact::NoEnd(partition.topic_id(), 0)])?;
        partition.abandon();
        let path = Path::new(GROUPS).join(dir);
        remove_partition_files(&self.env, &path)
    }

    /// The groups that the catalog mentions.
    pub(crate) fn group_names(&self) -> Vec<String> {
        self.table.filter_map(|key, _| group_of_key(key).map(str::to_owned))
    }

    fn io<'a>(&'a self, action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| Error::Io { action, path: self.env.storage.root().join(path), source }
    }

    /// Syncs and closes every partition, then lets go of the lock. The first error is returned, after all were tried.
    pub(crate) fn close(&self, groups: &[Arc<Partition>]) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) || self.is_read_only() {
            return Ok(());
        }
        let topics = self.topics();
        let partitions = topics.iter().flat_map(|topic| topic.partitions());
        let (mut result, mut ends) = (Ok(()), Vec::new());
        for partition in partitions.chain(groups.iter().cloned()) {
            let closed = partition.close();
            let (id, number, end) = (partition.topic_id(), partition.name().partition(), partition.durable_end());
            if closed.is_ok() && self.recorded_end(id, number) != Some(end) {
                ends.push(Fact::End(id, number, end));
            }
            result = result.and(closed);
        }
        if result.is_ok() {
            ends.push(Fact::Closed(self.epoch));
        }
        result = result.and(self.record_ends(&ends)).and(self.table.partition().close());
        drop(self.lock.lock().take());
        result
    }

    /// The process is dead: what it had open stays as it is.
    #[cfg(feature = "sim")]
    pub(crate) fn abandon(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Leaves the witnesses of last resort. Without room for them, damage that comes later may be told as less than it
    /// is, and that is no reason not to close.
    fn record_ends(&self, ends: &[Fact]) -> Result<()> {
        let changes: Vec<_> = ends.iter().map(Fact::encode).collect();
        for part in changes.chunks(ENDS_AT_ONCE) {
            match self.table.change(part, self.env.clock.now()) {
                Err(Error::NoSpace { .. }) => return Ok(()),
                done => drop(done?),
            }
        }
        Ok(())
    }
}

/// The catalog's table as it was found.
struct Opened {
    log_id: u128,
    table: Table,
    /// Whether it has lost something.
    doubtful: bool,
}

fn open_or_create_table(
    env: &Env,
    upkeep: &Arc<dyn Upkeep>,
    reserve: &Arc<Reserve>,
    report: &mut RecoveryReport,
) -> Result<Opened> {
    let config = table_config(Durability::Sync, CATALOG_SEGMENT_BYTES);
    let dir = PathBuf::from(CATALOG);
    for dir in [TOPICS, GROUPS] {
        reserve.help(|| create_dir_if_missing(env, Path::new(dir)))?;
    }
    let there = has_segments(env, &dir)?;
    let log_id = log_id_of(env)?;
    let lost = !there && log_id.is_some();
    let log_id = log_id.unwrap_or(u128::from(mix(env.seed)) << 64 | u128::from(mix(!env.seed)));
    let home = table_home(env, log_id, CATALOG_ID, dir.clone(), CATALOG, CATALOG_SEGMENT_BYTES);
    let upkeep = Some(Arc::clone(upkeep));
    if there {
        let known = Known { made: true, ..Known::default() };
        let (table, found) = Table::open(home, known, &config, upkeep, reserve)?;
        let doubtful = !found.damage.is_empty();
        report.add(found);
        return Ok(Opened { log_id, table, doubtful });
    }
    if lost {
        report.damage.push(lost_catalog(env));
    }
    // Without a segment there is nothing in it, but what the process left that died while it made the first one.
    let table = reserve.help(|| {
        remove_partition_files(env, &dir)?;
        Table::create(home.clone(), 1, &config, upkeep.clone(), reserve)
    })?;
    env.storage.sync_dir(Path::new("")).map_err(Error::io("sync", || env.storage.root()))?;
    Ok(Opened { log_id, table, doubtful: lost })
}

fn has_segments(env: &Env, dir: &Path) -> Result<bool> {
    Ok(names_if_there(env, dir)?.iter().any(|entry| entry.name.ends_with(".log")))
}

fn lost_catalog(env: &Env) -> Damage {
    let path = env.storage.root().join(CATALOG);
    Damage { partition: None, offsets: Offset::ZERO..Offset::ZERO, path, position: 0, flaw: Flaw::Missing }
}

/// What the catalog says that this log is called; or, if that has no whole header left, what any other file says.
fn log_id_of(env: &Env) -> Result<Option<u128>> {
    let header = match headers(env, Path::new(CATALOG))?.first() {
        Some(header) => Some(*header),
        None => headers_of_others(env)?.first().copied(),
    };
    Ok(header.map(|header| header.identity.log))
}

/// All headers of topics and groups that are whole.
fn headers_of_others(env: &Env) -> Result<Vec<Header>> {
    let mut found = Vec::new();
    let mut dirs = list_if_there(env, Path::new(GROUPS))?;
    for (topic, kind) in list_if_there(env, Path::new(TOPICS))? {
        if kind == Kind::Directory {
            dirs.extend(list_if_there(env, &topic)?);
        }
    }
    for (dir, kind) in dirs {
        if kind == Kind::Directory {
            found.extend(headers(env, &dir)?);
        }
    }
    Ok(found)
}

/// The highest epoch that the files say, for a catalog that has forgotten its own.
fn highest_epoch(env: &Env) -> Result<u32> {
    Ok(headers_of_others(env)?.iter().map(|header| header.epoch).max().unwrap_or(0))
}

fn table_home(env: &Env, log: u128, topic: u128, dir: PathBuf, name: &str, segment_bytes: u32) -> Home {
    let identity = Identity { log, topic, partition: 0 };
    let partition = TopicPartition::new(name, 0);
    Home { env: env.clone(), dir, identity, partition, segment_bytes }
}

fn table_config(durability: Durability, segment_bytes: u32) -> TopicConfig {
    TopicConfig::new().durability(durability).segment_bytes(segment_bytes)
}

fn topic_fact(id: u128, config: &TopicConfig) -> TopicFact {
    let settings = config.stored_entries().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    TopicFact { id, partitions: config.partitions, settings }
}

/// What the table says.
#[derive(Debug, Default)]
struct Facts {
    topics: BTreeMap<String, TopicFact>,
    /// Topics that have the id of another one, and are not opened.
    doubles: Vec<String>,
    /// Topics whose files are being removed.
    deleting: Vec<(u128, String)>,
    /// The latest opening, and the latest that was closed cleanly.
    epoch: u32,
    closed: u32,
}

impl Facts {
    fn of(table: &Table) -> Result<Facts> {
        let mut facts = Facts::default();
        let decode = |key: &[u8], value: &[u8]| {
            let fact = Fact::decode(key, Some(value)).and_then(plausible);
            Some(fact.map_err(|flaw| (flaw, String::from_utf8_lossy(key).into_owned())))
        };
        for fact in table.filter_map(decode) {
            match fact {
                Ok(Fact::Topic(name, fact)) => drop(facts.topics.insert(name, fact)),
                Ok(Fact::Deleting(id, name)) => facts.deleting.push((id, name)),
                Ok(Fact::Epoch(epoch)) => facts.epoch = epoch,
                Ok(Fact::Closed(epoch)) => facts.closed = epoch,
                // Without a value there is no entry; what a newer library wrote is not for us.
                Ok(_) => {}
                Err((flaw, key)) => {
                    let source = io::Error::new(io::ErrorKind::InvalidData, flaw.to_string());
                    let path = PathBuf::from(CATALOG).join(key);
                    return Err(Error::Io { action: "understand the catalog's entry", path, source });
                }
            }
        }
        facts.doubles = drop_doubles(&mut facts.topics);
        Ok(facts)
    }
}

/// Leaves out the topics that have the id of another one, whose name comes first: what is said of the id is said of that.
pub(crate) fn drop_doubles(topics: &mut BTreeMap<String, TopicFact>) -> Vec<String> {
    let mut ids = BTreeSet::new();
    let is_double = |(name, fact): (&String, &TopicFact)| (!ids.insert(fact.id)).then(|| name.clone());
    let doubles: Vec<_> = topics.iter().filter_map(is_double).collect();
    topics.retain(|name, _| !doubles.contains(name));
    doubles
}

/// Refuses names that lead out of the log, and numbers that would take all of the disk.
pub(crate) fn plausible(fact: Fact) -> Result<Fact, Flaw> {
    match &fact {
        Fact::Topic(name, _) | Fact::Deleting(_, name) if topic_name_fault(name).is_some() => Err(Flaw::Field("topic")),
        Fact::Topic(_, topic) if !(1..=MAX_PARTITIONS).contains(&topic.partitions) => Err(Flaw::Field("partitions")),
        _ => Ok(fact),
    }
}

fn topic_dir(name: &str) -> PathBuf {
    path_in(Path::new(TOPICS), name)
}

pub(crate) fn check_not_copied(partitions: &[Arc<Partition>]) -> Result<()> {
    match partitions.iter().find(|partition| partition.is_pinned()) {
        Some(partition) => {
            let reason = format!("{} is being copied; delete it once that is done", partition.name());
            Err(Error::InvalidState { reason })
        }
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<()> {
    match topic_name_fault(name) {
        Some(reason) => Err(Error::InvalidTopic { topic: name.to_owned(), reason: reason.to_owned() }),
        None => Ok(()),
    }
}

/// Spreads the bits of a number over all of it (splitmix64), so that neighbouring seeds give unlike ids.
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Whether there is a log, or the beginning of one, or what is left of one.
fn is_log(env: &Env) -> Result<bool> {
    Ok(exists(env, Path::new(""), CATALOG)? || !headers_of_others(env)?.is_empty())
}

fn exists(env: &Env, dir: &Path, name: &str) -> Result<bool> {
    let entries = env.storage.list(dir).map_err(Error::io("list", || env.storage.root().join(dir)))?;
    Ok(entries.iter().any(|entry| entry.name == name && entry.kind == Kind::Directory))
}

fn create_dir_if_missing(env: &Env, dir: &Path) -> Result<()> {
    match env.storage.create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::making("create", || env.storage.root().join(dir))(error))
        }
        _ => Ok(()),
    }
}

/// What is in a directory; nothing if there is none.
fn list_if_there(env: &Env, dir: &Path) -> Result<Vec<(PathBuf, Kind)>> {
    Ok(names_if_there(env, dir)?.into_iter().map(|entry| (dir.join(entry.name), entry.kind)).collect())
}

fn names_if_there(env: &Env, dir: &Path) -> Result<Vec<Entry>> {
    match env.storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(Error::io("list", || env.storage.root().join(dir))),
    }
}

/// Whether a segment below a topic's directory is longer than a first segment that was never written to is full.
pub(crate) fn holds_records(env: &Env, topic: &Path) -> Result<bool> {
    for (partition, kind) in list_if_there(env, topic)? {
        if kind == Kind::Directory && holds_batches(env, &partition)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes a topic's directory and what the log put into it; what others put there stays, and so does its directory.
fn remove_topic_files(env: &Env, topic: &Path) -> Result<()> {
    for (partition, kind) in list_if_there(env, topic)? {
        if kind == Kind::Directory {
            remove_partition_files(env, &partition)?;
        }
    }
    remove_dir_if_empty(env, topic)
}

/// Removes a partition's directory and its segments, the newest first, so that what is left is always a log.
fn remove_partition_files(env: &Env, dir: &Path) -> Result<()> {
    for (path, kind) in list_if_there(env, dir)?.into_iter().rev() {
        let ours = path.extension().is_some_and(|extension| extension == "log" || extension == "new");
        if kind == Kind::File && ours {
            env.storage.remove(&path).map_err(Error::io("remove", || env.storage.root().join(&path)))?;
        }
    }
    remove_dir_if_empty(env, dir)
}

fn remove_dir_if_empty(env: &Env, dir: &Path) -> Result<()> {
    match env.storage.remove_dir(dir) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            return Ok(());
        }
        Err(error) => {
            return Err(Error::Io { action: "remove", path: env.storage.root().join(dir), source: error });
        }
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    env.storage.sync_dir(parent).map_err(Error::io("sync", || env.storage.root().join(parent)))
}
