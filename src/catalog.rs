//! What the log knows of itself: its topics, their configuration, how often it was opened. And the lock.
//!
//! All of it is a [`Table`], in the directory `catalog`. A change counts from the moment at which its record is
//! durable: the files of a new topic are there and durable before, those of a deleted one are removed after.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::config::{Durability, LogConfig, TopicConfig};
use crate::env::Env;
use crate::env::storage::{Access, Kind, Lock, LockError};
use crate::error::{Damage, Error, Result};
use crate::format::catalog::{Fact, TopicFact};
use crate::format::segment::{CATALOG_ID, Identity};
use crate::partition::{Home, Partition, PartitionReport, Upkeep, log_id};
use crate::table::Table;
use crate::topic::Topic;
use crate::types::{Offset, TopicPartition, topic_name_fault, topic_names_collide};

const CATALOG: &str = "catalog";
const TOPICS: &str = "topics";
/// Where the groups keep their committed offsets.
pub(crate) const GROUPS: &str = "groups";

/// The size of a segment of a table.
const TABLE_SEGMENT_BYTES: u32 = 1 << 20;

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
    /// Directories of topics that the catalog does not know. Nothing of them was touched.
    pub unknown: Vec<PathBuf>,
}

impl RecoveryReport {
    /// Whether there is nothing that somebody should look at.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.pulled_back.is_empty() && self.unknown.is_empty()
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
    table: Table,
    topics: RwLock<BTreeMap<Arc<str>, Arc<Topic>>>,
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
            LockError::Io(source) => Error::Io { action: "lock", path: root.clone(), source },
        })?;
        let mut report = RecoveryReport::default();
        let (log_id, table) = open_or_create_table(&env, &config, &upkeep, &mut report)?;
        let (known, deleting, last_epoch) = facts(&table)?;
        let epoch = last_epoch + 1;
        table.partition().begin_epoch(epoch);
        let end = table.change(&[Fact::Epoch(epoch).encode()], env.clock.now())?;
        table.deliver(end, None)?;
        let catalog = Catalog {
            drawn: AtomicU64::new(env.seed),
            log_id,
            epoch,
            table,
            topics: RwLock::default(),
            change: Mutex::new(()),
            upkeep,
            lock: Mutex::new(Some(lock)),
            closed: AtomicBool::new(false),
            access: Access::Write,
            config,
            env,
        };
        catalog.finish_deletions(&known, deleting)?;
        for (name, fact) in known {
            catalog.open_topic(&name, &fact, &mut report)?;
        }
        catalog.find_strangers(&mut report)?;
        Ok((catalog, report))
    }

    /// Opens the log for reading, beside a process that writes it perhaps. Changes nothing.
    pub(crate) fn open_read_only(env: Env, upkeep: Arc<dyn Upkeep>) -> Result<(Self, RecoveryReport)> {
        let not_a_log = || Error::NotALog { path: env.storage.root().to_path_buf() };
        if !is_log(&env)? {
            return Err(not_a_log());
        }
        let log_id = log_id(&env, Path::new(CATALOG))?.ok_or_else(not_a_log)?;
        let mut report = RecoveryReport::default();
        let home = table_home(&env, log_id, CATALOG_ID, PathBuf::from(CATALOG), CATALOG);
        let (table, found) = Table::open_read_only(home, &table_config(Durability::Os))?;
        report.add(found);
        let (known, _, epoch) = facts(&table)?;
        let catalog = Catalog {
            drawn: AtomicU64::new(0),
            config: LogConfig::new(),
            access: Access::Read,
            log_id,
            epoch,
            table,
            topics: RwLock::default(),
            change: Mutex::new(()),
            upkeep,
            lock: Mutex::new(None),
            closed: AtomicBool::new(false),
            env,
        };
        for (name, fact) in known {
            match catalog.open_topic(&name, &fact, &mut report) {
                // Deleted since the catalog was read.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                opened => drop(opened?),
            }
        }
        Ok((catalog, report))
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.access == Access::Read
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.is_read_only() {
            return Err(Error::ReadOnly { path: self.env.storage.root().to_path_buf() });
        }
        self.check_open()
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// The topic of this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().get(name).cloned()
    }

    /// The topic of this name.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>> {
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
        self.check_clash(name)?;
        let id = self.draw_id();
        let dir = topic_dir(name);
        let storage = &self.env.storage;
        storage.create_dir(&dir).map_err(self.io("create", &dir))?;
        let made = self.create_partitions(name, id, &config, 0).and_then(|partitions| {
            storage.sync_dir(Path::new(TOPICS)).map_err(self.io("sync", Path::new(TOPICS)))?;
            self.record(&[Fact::Topic(name.to_owned(), topic_fact(id, &config))])?;
            Ok(partitions)
        });
        let partitions = match made {
            Ok(partitions) => partitions,
            Err(error) => {
                // As far as it goes: what is left is empty, and the next opening removes it.
                drop(remove_topic_files(&self.env, &dir));
                return Err(error);
            }
        };
        let name: Arc<str> = name.into();
        let topic = Arc::new(Topic::new(Arc::clone(&name), id, config, partitions));
        self.topics.write().insert(name, topic);
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
        for number in topic.count()..total {
            // Left by an attempt that did not get to the end; nobody was told of it.
            let dir = topic_dir(name).join(number.to_string());
            remove_partition_files(&self.env, &dir)?;
        }
        let more = self.create_partitions(name, topic.id(), &config, topic.count())?;
        self.record(&[Fact::Topic(name.to_owned(), topic_fact(topic.id(), &config))])?;
        topic.grow(more);
        topic.reconfigure(config);
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
        self.record(&[Fact::NoTopic(name.to_owned()), Fact::Deleting(topic.id(), name.to_owned())])?;
        topic.set_deleted();
        self.topics.write().remove(name);
        for partition in topic.partitions() {
            partition.abandon();
        }
        remove_topic_files(&self.env, &topic_dir(name))?;
        self.record(&[Fact::Deleted(topic.id())])
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

    fn open_topic(&self, name: &str, fact: &TopicFact, report: &mut RecoveryReport) -> Result<Arc<Topic>> {
        let mut config = TopicConfig::new().partitions(fact.partitions);
        for (setting, value) in &fact.settings {
            // A setting of a newer library is kept in the catalog and means nothing here.
            config = config.clone().set(setting, value).unwrap_or(config);
        }
        let mut partitions = Vec::new();
        for number in 0..fact.partitions {
            let home = self.partition_home(name, fact.id, number, &config);
            self.make_missing(&home.dir)?;
            let (partition, found) = match self.access {
                Access::Read => Partition::open_read_only(home, &config)?,
                Access::Write => {
                    Partition::open(home, self.epoch, &config, Some(Offset::ZERO), Some(Arc::clone(&self.upkeep)))?
                }
            };
            report.add(found);
            partitions.push(Arc::new(partition));
        }
        let name: Arc<str> = name.into();
        let topic = Arc::new(Topic::new(Arc::clone(&name), fact.id, config, partitions));
        self.topics.write().insert(name, Arc::clone(&topic));
        Ok(topic)
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
        let _change = self.change.lock();
        let changed = !self.table.follow()?.is_empty();
        if changed {
            let (known, _, _) = facts(&self.table)?;
            self.topics.write().retain(|name, topic| known.get(&**name).is_some_and(|fact| fact.id == topic.id()));
            for (name, fact) in known {
                match self.find(&name) {
                    Some(topic) if topic.count() >= fact.partitions => {}
                    // Its files may not all be there yet, or not any more: the next look finds out.
                    _ => drop(self.open_topic(&name, &fact, &mut RecoveryReport::default())),
                }
            }
        }
        for topic in self.topics() {
            for partition in topic.partitions() {
                // Only an opening begins a segment behind damage, and an opening changes the catalog.
                partition.follow(changed)?;
            }
        }
        Ok(())
    }

    /// Removes the files of topics whose deletion was interrupted.
    fn finish_deletions(&self, known: &BTreeMap<String, TopicFact>, deleting: Vec<(u128, String)>) -> Result<()> {
        for (id, name) in deleting {
            let dir = topic_dir(&name);
            // The name may belong to a new topic by now, whose files are not those that were to go.
            if !known.contains_key(&name) {
                remove_topic_files(&self.env, &dir)?;
            }
            self.record(&[Fact::Deleted(id)])?;
        }
        Ok(())
    }

    /// Looks at directories that the catalog does not mention: an unfinished creation leaves empty ones, which go;
    /// whatever holds records stays, and is reported.
    fn find_strangers(&self, report: &mut RecoveryReport) -> Result<()> {
        for entry in self.env.storage.list(Path::new(TOPICS)).map_err(self.io("list", Path::new(TOPICS)))? {
            if entry.kind != Kind::Directory || self.topics.read().contains_key(entry.name.as_str()) {
                continue;
            }
            let dir = topic_dir(&entry.name);
            if holds_records(&self.env, &dir)? {
                report.unknown.push(self.env.storage.root().join(&dir));
            } else {
                remove_topic_files(&self.env, &dir)?;
            }
        }
        Ok(())
    }

    fn partition_home(&self, name: &str, id: u128, number: u32, config: &TopicConfig) -> Home {
        Home {
            env: self.env.clone(),
            dir: topic_dir(name).join(number.to_string()),
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
        let path = Path::new(GROUPS).join(dir);
        let home = table_home(&self.env, self.log_id, id, path.clone(), name);
        let config = table_config(self.config.commit_durability);
        if exists(&self.env, Path::new(GROUPS), dir)? {
            return match self.access {
                // What was committed is shown before it is proven to be durable: it is where the group is.
                Access::Read => Table::open_read_only(home, &table_config(Durability::Os)).map(Some),
                Access::Write => Table::open(home, self.epoch, &config, Some(Arc::clone(&self.upkeep))).map(Some),
            };
        }
        if !create {
            return Ok(None);
        }
        let table = Table::create(home, self.epoch, &config, Some(Arc::clone(&self.upkeep)))?;
        self.env.storage.sync_dir(Path::new(GROUPS)).map_err(self.io("sync", Path::new(GROUPS)))?;
        Ok(Some((table, PartitionReport::default())))
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
        let mut result = Ok(());
        for partition in partitions.chain(groups.iter().cloned()).chain([Arc::clone(self.table.partition())]) {
            result = result.and(partition.close());
        }
        drop(self.lock.lock().take());
        result
    }
}

fn open_or_create_table(
    env: &Env,
    config: &LogConfig,
    upkeep: &Arc<dyn Upkeep>,
    report: &mut RecoveryReport,
) -> Result<(u128, Table)> {
    let table_config = table_config(Durability::Sync);
    let dir = PathBuf::from(CATALOG);
    for dir in [TOPICS, GROUPS] {
        create_dir_if_missing(env, Path::new(dir))?;
    }
    let upkeep = Some(Arc::clone(upkeep));
    if exists(env, Path::new(""), CATALOG)?
        && let Some(log_id) = log_id(env, &dir)?
    {
        let home = table_home(env, log_id, CATALOG_ID, dir, CATALOG);
        let (table, found) = Table::open(home, 0, &table_config, upkeep)?;
        report.add(found);
        return Ok((log_id, table));
    }
    debug_assert!(config.create || exists(env, Path::new(""), CATALOG)?, "a log was found, so it has a catalog");
    // Without a whole segment no log was ever opened here: the process died while it made the first one.
    remove_partition_files(env, &dir)?;
    let log_id = u128::from(mix(env.seed)) << 64 | u128::from(mix(!env.seed));
    let home = table_home(env, log_id, CATALOG_ID, dir, CATALOG);
    let table = Table::create(home, 1, &table_config, upkeep)?;
    env.storage.sync_dir(Path::new("")).map_err(Error::io("sync", env.storage.root()))?;
    Ok((log_id, table))
}

fn table_home(env: &Env, log: u128, topic: u128, dir: PathBuf, name: &str) -> Home {
    let identity = Identity { log, topic, partition: 0 };
    let partition = TopicPartition::new(name, 0);
    Home { env: env.clone(), dir, identity, partition, segment_bytes: TABLE_SEGMENT_BYTES }
}

fn table_config(durability: Durability) -> TopicConfig {
    TopicConfig::new().durability(durability).segment_bytes(TABLE_SEGMENT_BYTES)
}

fn topic_fact(id: u128, config: &TopicConfig) -> TopicFact {
    let settings = config.entries().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    TopicFact { id, partitions: config.partitions, settings }
}

type Facts = (BTreeMap<String, TopicFact>, Vec<(u128, String)>, u32);

/// The topics that the table knows, those whose files are being removed, and the last epoch.
fn facts(table: &Table) -> Result<Facts> {
    let (mut topics, mut deleting, mut epoch) = (BTreeMap::new(), Vec::new(), 0);
    for (key, value, _) in table.entries() {
        match Fact::decode(&key, Some(&value)) {
            Ok(Fact::Topic(name, fact)) => drop(topics.insert(name, fact)),
            Ok(Fact::Deleting(id, name)) => deleting.push((id, name)),
            Ok(Fact::Epoch(last)) => epoch = last,
            // Without a value there is no entry; what a newer library wrote is not for us.
            Ok(_) => {}
            Err(flaw) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, flaw.to_string());
                let path = PathBuf::from(CATALOG).join(String::from_utf8_lossy(&key).as_ref());
                return Err(Error::Io { action: "understand the catalog's entry", path, source });
            }
        }
    }
    Ok((topics, deleting, epoch))
}

fn topic_dir(name: &str) -> PathBuf {
    Path::new(TOPICS).join(name)
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

/// Whether there is a log, or the beginning of one.
fn is_log(env: &Env) -> Result<bool> {
    exists(env, Path::new(""), CATALOG)
}

fn exists(env: &Env, dir: &Path, name: &str) -> Result<bool> {
    let entries = env.storage.list(dir).map_err(Error::io("list", env.storage.root().join(dir)))?;
    Ok(entries.iter().any(|entry| entry.name == name && entry.kind == Kind::Directory))
}

fn create_dir_if_missing(env: &Env, dir: &Path) -> Result<()> {
    match env.storage.create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Io { action: "create", path: env.storage.root().join(dir), source: error })
        }
        _ => Ok(()),
    }
}

/// What is in a directory; nothing if there is none.
fn list_if_there(env: &Env, dir: &Path) -> Result<Vec<(PathBuf, Kind)>> {
    match env.storage.list(dir) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| (dir.join(entry.name), entry.kind)).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::Io { action: "list", path: env.storage.root().join(dir), source: error }),
    }
}

/// Whether a segment below a topic's directory is longer than a first segment that was never written to is full.
fn holds_records(env: &Env, topic: &Path) -> Result<bool> {
    for (partition, kind) in list_if_there(env, topic)? {
        if kind == Kind::Directory && crate::partition::holds_batches(env, &partition)? {
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
            env.storage.remove(&path).map_err(Error::io("remove", env.storage.root().join(&path)))?;
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
    env.storage.sync_dir(parent).map_err(Error::io("sync", env.storage.root().join(parent)))
}
