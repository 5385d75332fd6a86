//! Storage on a simulated disk, which is no kinder than a real one.
//!
//! A [`SimDisk`] is one life of a machine: what its processes see, and what a power cut would leave. The next life
//! comes from [`kill`](SimDisk::kill) or [`power_cut`](SimDisk::power_cut) and has its own memory, so that what is left of
//! the dead one cannot disturb it. The same seed and the same calls give the same lives.
//!
//! | what the log did                        | what a power cut leaves of it                                            |
//! |-----------------------------------------|--------------------------------------------------------------------------|
//! | stored bytes, synced the file           | the bytes                                                                |
//! | stored bytes                            | of every sector the old bytes or the new ones, or what [`PowerCut`] says |
//! | grew the file, synced it                | the length                                                               |
//! | grew the file                           | a length that it has had since it was last synced                        |
//! | made, removed a name, synced the directory | the change                                                            |
//! | made, removed a name                    | the change or not, each by itself; below a lost directory nothing        |
//! | renamed within a directory              | the old name or the new one                                              |
//! | renamed into another directory          | the old name, the new one, or both                                       |
//! | stored bytes, sync failed, pages lost   | the old bytes, even if later syncs say that all is well                  |
//! | stored bytes, lost by a write-back      | the same; the next sync fails once                                       |
//!
//! Nobody has to ask for a write-back: any call may store any dirty sector, unless that is switched off.
//!
//! What is kinder after all: a sector that holds synced bytes is never garbled by a write to bytes beside them (powersafe
//! overwrite), and an aligned word is never torn.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use parking_lot::Mutex;

#[cfg(test)]
use crate::env::point::{Mistake, is_planted};
use crate::env::random::Random;
use crate::env::storage::region::{Heap, Memory, PAGE};
use crate::env::storage::{Access, Entry, File, Kind, Lock, LockError, Storage};

/// What a disk writes as one, if it writes it at all.
const SECTOR: usize = 512;

/// How many bytes are compared at once: whole sectors.
const COMPARED: usize = 8 * SECTOR;

/// What even a torn sector keeps whole.
const WORD: usize = 8;

/// How many bytes a file can be mapped for without moving: a mapping cannot move while somebody uses it, and who
/// maps a short file first may be followed by somebody who maps all that it will become.
const MAPPED_AT_LEAST: u64 = 64 * 1024;

/// One call in so many lets the kernel write back what nobody has asked for.
const WRITE_BACK_ONE_IN: u64 = 4;

/// The node of the root directory.
const ROOT: u64 = 0;

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing, but for what was written back without being asked for.
    LoseUnsynced,
    /// Everything, as if the kernel had just written it.
    KeepAll,
    /// Any of the sectors and names.
    Sectors,
    /// Any of the pages and names.
    Pages,
    /// Any of the sectors and names; a sector may be a mix of old and new words.
    Torn,
    /// As `Torn`; and a sector without synced bytes may hold anything.
    Garbled,
}

impl PowerCut {
    /// All that there is, for loops.
    pub const ALL: [PowerCut; 6] = [
        PowerCut::LoseUnsynced,
        PowerCut::KeepAll,
        PowerCut::Sectors,
        PowerCut::Pages,
        PowerCut::Torn,
        PowerCut::Garbled,
    ];
}

/// A call that can fail, or be the last one before a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Taking the lock of the directory.
    Lock,
    /// Listing a directory.
    List,
    /// Making a directory.
    CreateDir,
    /// Making a file.
    Create,
    /// Opening a file.
    Open,
    /// Giving a file another name.
    Rename,
    /// Removing a file.
    Remove,
    /// Removing a directory.
    RemoveDir,
    /// Syncing a directory.
    SyncDir,
    /// Taking room for a file.
    Allocate,
    /// Giving back the room of a file's end.
    Release,
    /// Mapping a file.
    Map,
    /// Syncing a file.
    Sync,
}

/// What a call answers that is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error of this kind.
    Kind(io::ErrorKind),
    /// A number of the operating system.
    Errno(i32),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Kind(kind) => kind.into(),
            Failure::Errno(number) => io::Error::from_raw_os_error(number),
        }
    }
}

/// A call that shall fail. What fails changes nothing, except for a sync.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which of the matching calls, counted from 0 and from the moment at which the fault is set.
    pub at: u64,
    /// What kind of calls match; `None` for all.
    pub operation: Option<Operation>,
    /// What the call answers.
    pub failure: Failure,
    /// Whether all the matching calls after it fail too.
    pub forever: bool,
    /// What a sync that fails does to the pages: see [`SyncFailure`].
    pub pages: SyncFailure,
}

/// What a sync that fails does to the pages that it should have written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncFailure {
    /// Some are written, the others stay dirty: a later sync writes them.
    #[default]
    StayDirty,
    /// Some are written, and at least one is not but is taken for clean: reads still show its new bytes, and later syncs
    /// succeed and write it only if it was stored to again. This is what Linux does.
    Lost,
}

impl Fault {
    /// The call number `at` of this kind fails, once, with `EIO`.
    pub fn new(operation: impl Into<Option<Operation>>, at: u64) -> Self {
        Fault {
            at,
            operation: operation.into(),
            failure: Failure::Errno(rustix::io::Errno::IO.raw_os_error()),
            forever: false,
            pages: SyncFailure::StayDirty,
        }
    }

    /// Fails with this instead of `EIO`.
    #[must_use]
    pub fn failure(mut self, failure: Failure) -> Self {
        self.failure = failure;
        self
    }

    /// Goes on failing.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.forever = true;
        self
    }

    /// A sync that fails loses pages.
    #[must_use]
    pub fn losing_pages(mut self) -> Self {
        self.pages = SyncFailure::Lost;
        self
    }
}

/// What becomes of a call to the disk.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Done,
    /// It does not happen any more, nor does any after it.
    Dies,
    /// It fails with this; a sync does that to its pages.
    Fails(Failure, SyncFailure),
}

/// Decides of every call to a disk what becomes of it.
pub(crate) trait Director: Send + Sync + fmt::Debug {
    fn decide(&self, operation: Operation, path: &Path) -> Verdict;
}

/// A disk in memory, during one life of the machine. See the head of this file.
pub(crate) struct SimDisk {
    life: Arc<Life>,
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> Arc<SimDisk> {
        let nodes = BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]);
        SimDisk::start(World {
            random: Random::new(seed),
            nodes,
            next_node: ROOT + 1,
            next_move: 0,
            locked: false,
            write_back: true,
            crowded: seed % 2 == 1,
            capacity: None,
            trace: Vec::new(),
            faults: Vec::new(),
            crash_at: None,
            dead: false,
            crashed: None,
            director: None,
            operations: 0,
        })
    }

    fn start(world: World) -> Arc<SimDisk> {
        Arc::new(SimDisk { life: Arc::new(Life { world: Mutex::new(world) }) })
    }

    /// Whether the kernel writes back what nobody has asked for; it does, until it is told not to.
    pub(crate) fn write_back(&self, write_back: bool) {
        self.life.world.lock().write_back = write_back;
    }

    /// How many bytes all files together may have; `None` for any number.
    pub(crate) fn capacity(&self, bytes: Option<u64>) {
        self.life.world.lock().capacity = bytes;
    }

    /// How many operations there have been in this life.
    pub(crate) fn operations(&self) -> u64 {
        self.life.world.lock().operations
    }

    /// What the operations of this life were.
    pub(crate) fn trace(&self) -> Vec<(Operation, PathBuf)> {
        self.life.world.lock().trace.clone()
    }

    /// Makes a call fail.
    pub(crate) fn fail(&self, fault: Fault) {
        self.life.world.lock().faults.push((fault, 0));
    }

    /// Takes all faults back.
    pub(crate) fn heal(&self) {
        self.life.world.lock().faults.clear();
    }

    /// Lets the machine die at operation number `number` of this life, counted from 0: this one does not happen, and
    /// all calls fail from there on. The next life starts from that moment, whatever is done to mapped memory later.
    pub(crate) fn crash_at(&self, number: u64) {
        self.life.world.lock().crash_at = Some(number);
    }

    /// Whether the machine has died.
    pub(crate) fn has_crashed(&self) -> bool {
        self.life.world.lock().dead
    }

    /// Whoever decides from now on what becomes of the calls. There is no trace then.
    pub(crate) fn direct(&self, director: Arc<dyn Director>) {
        self.life.world.lock().director = Some(director);
    }

    /// The machine dies now, if it has not yet.
    pub(crate) fn die(&self) {
        self.life.world.lock().die();
    }

    /// Nothing happens on this disk any more, and there is no next life.
    pub(crate) fn end(&self) {
        let mut world = self.life.world.lock();
        world.dead = true;
        let director = world.director.take();
        drop(world);
        // Who may be the last to know of this disk.
        drop(director);
    }

    /// The life after this one, which has ended and is not asked for another: after the death of the process, or what a
    /// power cut leaves.
    pub(crate) fn next_life(&self, how: Option<PowerCut>, seed: u64) -> Arc<SimDisk> {
        let mut world = self.life.world.lock();
        world.die();
        let mut next = world.crashed.take().expect("a life has one next life");
        drop(world);
        next.random = Random::new(seed);
        if let Some(how) = how {
            next.cut(how);
        }
        SimDisk::start(*next)
    }

    /// The process dies, the machine goes on: nothing is lost.
    pub(crate) fn kill(&self) -> Arc<SimDisk> {
        SimDisk::start(self.life.world.lock().last_moment())
    }

    /// The machine dies.
    pub(crate) fn power_cut(&self, how: PowerCut) -> Arc<SimDisk> {
        let mut world = self.life.world.lock().last_moment();
        world.cut(how);
        SimDisk::start(world)
    }

    /// The kernel writes a dirty page of the file back, unasked, and fails: the page passes for clean from now on, and
    /// the next sync of the file says that something was lost, once. Returns whether there was a dirty page.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file.
    pub(crate) fn lose_in_background(&self, path: impl AsRef<Path>) -> bool {
        let mut world = self.life.world.lock();
        let node = world.find(path.as_ref()).expect("the file is there");
        let World { nodes, random, .. } = &mut *world;
        let Some(Node::File(contents)) = nodes.get_mut(&node) else { panic!("it is a file") };
        contents.lose_in_background(random)
    }

    /// All files, sorted.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let world = self.life.world.lock();
        let mut files = Vec::new();
        world.collect_files(ROOT, &mut PathBuf::new(), &mut files);
        files.sort();
        files
    }

    /// What a process would read.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file.
    pub(crate) fn read_file(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let world = self.life.world.lock();
        let node = world.find(path.as_ref()).expect("the file is there");
        let contents = world.contents(node).expect("it is a file");
        let mut bytes = contents.cached();
        bytes.resize(contents.len as usize, 0);
        bytes
    }

    /// Puts a file onto the disk, durably, in the place of what is there.
    ///
    /// # Panics
    ///
    /// Panics if a log is open on this disk.
    pub(crate) fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let mut world = self.life.world.lock();
        world.assert_closed();
        let file = world.add(Node::File(Contents::durable(bytes.to_vec(), bytes.len() as u64)));
        let mut directory = ROOT;
        let names: io::Result<Vec<&str>> = names(path.as_ref()).collect();
        let names = names.expect("a path below the root");
        let (name, above) = names.split_last().expect("a file has a name");
        for name in above {
            directory = match world.directory(directory).expect("it is a directory").names.get(*name) {
                Some(&node) => node,
                None => {
                    let node = world.add(Node::Directory(Directory::default()));
                    world.directory_mut(directory).expect("it is a directory").put(name, Some(node));
                    node
                }
            };
        }
        world.directory_mut(directory).expect("it is a directory").put(name, Some(file));
    }

    /// Takes a file from the disk, durably.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file, or a log is open on this disk.
    pub(crate) fn remove_file(&self, path: impl AsRef<Path>) {
        let mut world = self.life.world.lock();
        world.assert_closed();
        let (directory, name) = world.parent(path.as_ref()).expect("the directory is there");
        let directory = world.directory_mut(directory).expect("it is a directory");
        assert!(directory.names.contains_key(&name), "the file is there");
        directory.put(&name, None);
    }

    /// Turns one bit of a file over, durably.
    ///
    /// # Panics
    ///
    /// Panics if there is no such bit, or a log is open on this disk.
    pub(crate) fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) {
        let mut bytes = self.read_file(&path);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        self.write_file(path, &bytes);
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

impl Storage for SimDisk {
    fn root(&self) -> &Path {
        Path::new("/simulated")
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Lock, Path::new("LOCK")).map_err(LockError::Io)?;
        if world.locked {
            return Err(LockError::Held(Some(process::id())));
        }
        if world.find(Path::new("LOCK")).is_err() {
            world.link(Path::new("LOCK"), Node::File(Contents::default())).map_err(LockError::Io)?;
        }
        world.locked = true;
        Ok(Box::new(SimLock { life: Arc::clone(&self.life) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut world = self.life.world.lock();
        world.begin(Operation::List, dir)?;
        let node = world.find(dir)?;
        let entry = |(name, node): (&Arc<str>, &u64)| {
            let kind = match &world.nodes[node] {
                Node::File(_) => Kind::File,
                Node::Directory(_) => Kind::Directory,
            };
            Entry { name: name.as_ref().to_owned(), kind }
        };
        Ok(world.directory(node)?.names.iter().map(entry).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::CreateDir, dir)?;
        world.link(dir, Node::Directory(Directory::default()))?;
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Create, path)?;
        let node = world.link(path, Node::File(Contents::default()))?;
        Ok(self.life.file(node, path, Access::Write))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Open, path)?;
        let node = world.find(path)?;
        world.contents(node)?;
        Ok(self.life.file(node, path, access))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Rename, from)?;
        let node = world.find(from)?;
        let (from_directory, from_name) = world.parent(from)?;
        let (to_directory, to_name) = world.parent(to)?;
        if world.directory(to_directory)?.names.contains_key(&to_name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if from_directory == to_directory {
            let change = Change::Rename { from: from_name, to: to_name, node };
            world.directory_mut(from_directory)?.change(change);
        } else {
            let id = world.next_move;
            world.next_move += 1;
            world.directory_mut(to_directory)?.change(Change::MoveIn { id, name: to_name, node });
            world.directory_mut(from_directory)?.change(Change::MoveOut { id, name: from_name, node });
        }
        Ok(())
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Rename, from)?;
        let node = world.find(from)?;
        let other = world.find(to)?;
        world.contents(other)?;
        let (directory, from_name) = world.parent(from)?;
        let (_, to_name) = world.parent(to)?;
        world.directory_mut(directory)?.change(Change::Rename { from: from_name, to: to_name, node });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Remove, path)?;
        let node = world.find(path)?;
        world.contents(node)?;
        world.unlink(path, node)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::RemoveDir, dir)?;
        let node = world.find(dir)?;
        if !world.directory(node)?.names.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        world.unlink(dir, node)
    }

    /// In every other life, so that both ways are walked.
    fn is_crowded(&self) -> bool {
        self.life.world.lock().crowded
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::SyncDir, dir)?;
        let node = world.find(dir)?;
        let directory = world.directory_mut(node)?;
        #[cfg(test)]
        if is_planted(Mistake::DirectorySyncForgotten) {
            return Ok(());
        }
        directory.durable = Arc::clone(&directory.names);
        directory.pending.clear();
        Ok(())
    }
}

/// What the storage, its files and its lock share.
struct Life {
    world: Mutex<World>,
}

impl Life {
    fn file(self: &Arc<Self>, node: u64, path: &Path, access: Access) -> Box<dyn File> {
        Box::new(SimFile { life: Arc::clone(self), node, path: path.to_owned(), writable: access == Access::Write })
    }
}

struct SimLock {
    life: Arc<Life>,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.life.world.lock().locked = false;
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimLock")
    }
}

struct SimFile {
    life: Arc<Life>,
    node: u64,
    /// What it was called when it was opened, for the trace.
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let world = self.life.world.lock();
        world.check_alive()?;
        Ok(world.contents(self.node)?.len)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Allocate, &self.path)?;
        self.check_writable()?;
        let len = world.contents(self.node)?.len;
        if len != from || to < from {
            let reason = format!("a file of {len} bytes cannot grow from {from} to {to}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        if world.capacity.is_some_and(|capacity| world.used().saturating_add(to - from) > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        world.contents_mut(self.node)?.grow(to)
    }

    fn release(&self, from: u64) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Release, &self.path)?;
        self.check_writable()?;
        world.contents_mut(self.node)?.release(from);
        Ok(())
    }

    fn reclaim(&self, range: Range<u64>) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Allocate, &self.path)?;
        self.check_writable()?;
        let contents = world.contents(self.node)?;
        assert!(range.end <= contents.len, "bytes {range:?} of a file of {}", contents.len);
        let more = range.end.saturating_sub(contents.held);
        if world.capacity.is_some_and(|capacity| more > 0 && world.used().saturating_add(more) > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let contents = world.contents_mut(self.node)?;
        contents.held = contents.held.max(range.end);
        Ok(())
    }

    fn room(&self) -> io::Result<u64> {
        let world = self.life.world.lock();
        world.check_alive()?;
        Ok(world.contents(self.node)?.held)
    }

    fn data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let world = self.life.world.lock();
        world.check_alive()?;
        let contents = world.contents(self.node)?;
        let stored = contents.cache.as_ref().map_or(0, |cache| cache.extent()).max(contents.platter.len() as u64);
        Ok(Some(from..stored.min(contents.len)).filter(|data| data.start < data.end))
    }

    fn map(&self, capacity: u64) -> io::Result<Memory> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Map, &self.path)?;
        let contents = world.contents_mut(self.node)?;
        contents.reserve(capacity)?;
        let cache = contents.cache.as_ref().expect("just reserved");
        Ok(Memory::heap_part(Arc::clone(cache), capacity, self.writable))
    }

    fn copy(&self, length: u64) -> io::Result<Memory> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Map, &self.path)?;
        let contents = world.contents_mut(self.node)?;
        let cached = contents.cached();
        Memory::filled(length, |bytes| {
            let there = cached.len().min(bytes.len());
            bytes[..there].copy_from_slice(&cached[..there]);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.number(Operation::Sync, &self.path)?;
        let refusal = world.refusal(Operation::Sync);
        let world = &mut *world;
        let Some(Node::File(contents)) = world.nodes.get_mut(&self.node) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match refusal {
            #[cfg(test)]
            None if is_planted(Mistake::SyncForgotten) => {}
            None => {
                contents.sync();
                if mem::take(&mut contents.unreported) {
                    return Err(rustix::io::Errno::IO.into());
                }
            }
            Some(fault) => {
                contents.fail_to_sync(fault.pages, &mut world.random);
                return Err(fault.failure.into());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).field("writable", &self.writable).finish_non_exhaustive()
    }
}

/// What a call answers that comes after the end.
#[derive(Debug)]
struct Died;

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated machine has died")
    }
}

impl std::error::Error for Died {}

/// Everything that there is in one life.
struct World {
    random: Random,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    next_move: u64,
    locked: bool,
    write_back: bool,
    crowded: bool,
    capacity: Option<u64>,
    trace: Vec<(Operation, PathBuf)>,
    /// With how many matching calls each has seen.
    faults: Vec<(Fault, u64)>,
    crash_at: Option<u64>,
    dead: bool,
    /// The world as it was when the machine died.
    crashed: Option<Box<World>>,
    director: Option<Arc<dyn Director>>,
    operations: u64,
}

enum Node {
    File(Contents),
    Directory(Directory),
}

impl World {
    fn check_alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other(Died)) } else { Ok(()) }
    }

    fn assert_closed(&self) {
        assert!(!self.locked, "a log is open on this disk; close it, or take the disk of the next life");
    }

    /// Counts an operation, which may be the one that does not happen any more, and fails it if a fault says so.
    fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        self.number(operation, path)?;
        match self.refusal(operation) {
            Some(fault) => Err(fault.failure.into()),
            None => Ok(()),
        }
    }

    fn number(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.crash_at == Some(self.operations) {
            self.die();
        }
        self.check_alive()?;
        self.operations += 1;
        let verdict = match &self.director {
            Some(director) => director.decide(operation, path),
            None => {
                self.trace.push((operation, path.to_owned()));
                Verdict::Done
            }
        };
        match verdict {
            Verdict::Done => {}
            Verdict::Dies => self.die(),
            Verdict::Fails(failure, pages) => {
                let fault = Fault { at: 0, operation: Some(operation), failure, forever: false, pages };
                self.faults.push((fault, 0));
            }
        }
        self.check_alive()?;
        if self.write_back && self.random.chance(1, WRITE_BACK_ONE_IN) {
            self.write_something_back();
        }
        Ok(())
    }

    fn die(&mut self) {
        if !self.dead {
            self.crashed = Some(Box::new(self.copy()));
            self.dead = true;
        }
    }

    /// The fault that hits this operation, if one does.
    fn refusal(&mut self, operation: Operation) -> Option<Fault> {
        let mut hit = None;
        for (fault, seen) in &mut self.faults {
            if fault.operation.is_some_and(|wanted| wanted != operation) {
                continue;
            }
            let number = *seen;
            *seen += 1;
            if hit.is_none() && (number == fault.at || fault.forever && number > fault.at) {
                hit = Some(fault.clone());
            }
        }
        hit
    }

    /// What a kernel does when it is bored.
    fn write_something_back(&mut self) {
        let files = self.nodes.values().filter(|node| matches!(node, Node::File(_))).count() as u64;
        if files == 0 {
            return;
        }
        let chosen = self.random.below(files) as usize;
        let mut files = self.nodes.values_mut().filter_map(|node| match node {
            Node::File(contents) => Some(contents),
            Node::Directory(_) => None,
        });
        if let Some(contents) = files.nth(chosen) {
            contents.write_back(&mut self.random);
        }
    }

    /// How many bytes the files take: those that have a name, and those that somebody still uses.
    fn used(&self) -> u64 {
        let mut named = Vec::new();
        for node in self.nodes.values() {
            if let Node::Directory(directory) = node {
                named.extend(directory.names.values().copied());
            }
        }
        let taken = |(number, node): (&u64, &Node)| match node {
            Node::File(contents) if named.contains(number) || contents.is_mapped() => contents.held,
            _ => 0,
        };
        self.nodes.iter().map(taken).sum()
    }

    fn add(&mut self, node: Node) -> u64 {
        let number = self.next_node;
        self.next_node += 1;
        self.nodes.insert(number, node);
        number
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut node = ROOT;
        for name in names(path) {
            node = *self.directory(node)?.names.get(name?).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    /// The directory that `path` lies in, and its name there.
    fn parent(&self, path: &Path) -> io::Result<(u64, Arc<str>)> {
        let mut names = names(path).peekable();
        let mut directory = ROOT;
        while let Some(name) = names.next() {
            let there = self.directory(directory)?;
            let name = name?;
            if names.peek().is_none() {
                return Ok((directory, name.into()));
            }
            directory = *there.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn directory(&self, node: u64) -> io::Result<&Directory> {
        match &self.nodes[&node] {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn directory_mut(&mut self, node: u64) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn contents(&self, node: u64) -> io::Result<&Contents> {
        match &self.nodes[&node] {
            Node::File(contents) => Ok(contents),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn contents_mut(&mut self, node: u64) -> io::Result<&mut Contents> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(contents)) => Ok(contents),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn link(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if path.as_os_str().is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (directory, name) = self.parent(path)?;
        if self.directory(directory)?.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.add(node);
        self.directory_mut(directory)?.change(Change::Link { name, node });
        Ok(node)
    }

    fn unlink(&mut self, path: &Path, node: u64) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        self.directory_mut(directory)?.change(Change::Unlink { name, node });
        Ok(())
    }

    fn collect_files(&self, node: u64, path: &mut PathBuf, files: &mut Vec<PathBuf>) {
        match &self.nodes[&node] {
            Node::File(_) => files.push(path.clone()),
            Node::Directory(directory) => {
                for (name, node) in directory.names.iter() {
                    path.push(&**name);
                    self.collect_files(*node, path, files);
                    path.pop();
                }
            }
        }
    }

    /// The world from which the next life starts: that of the crash, if there was one.
    fn last_moment(&mut self) -> World {
        match &mut self.crashed {
            Some(crashed) => crashed.copy(),
            None => self.copy(),
        }
    }

    /// The same files in memory of their own, and a life in which nothing has happened yet. Two copies go different ways.
    fn copy(&mut self) -> World {
        let nodes = self.nodes.iter_mut().map(|(number, node)| {
            let node = match node {
                Node::File(contents) => Node::File(contents.copy()),
                Node::Directory(directory) => Node::Directory(directory.clone()),
            };
            (*number, node)
        });
        World {
            nodes: nodes.collect(),
            random: Random::new(self.random.next()),
            next_node: self.next_node,
            next_move: self.next_move,
            locked: false,
            write_back: self.write_back,
            crowded: !self.crowded,
            capacity: self.capacity,
            trace: Vec::new(),
            faults: Vec::new(),
            crash_at: None,
            dead: false,
            crashed: None,
            director: None,
            operations: 0,
        }
    }

    /// Leaves of everything what the power cut leaves.
    fn cut(&mut self, how: PowerCut) {
        let World { nodes, random, .. } = self;
        let mut moved = BTreeMap::new();
        for node in nodes.values_mut() {
            if let Node::Directory(directory) = node {
                directory.choose(how, random, &mut moved);
            }
        }
        for node in nodes.values_mut() {
            match node {
                Node::Directory(directory) => directory.cut(&moved),
                Node::File(contents) => *contents = contents.cut(how, random),
            }
        }
        let mut reached = BTreeMap::new();
        let mut ahead = vec![ROOT];
        while let Some(number) = ahead.pop() {
            if let Some(node) = nodes.remove(&number) {
                if let Node::Directory(directory) = &node {
                    ahead.extend(directory.names.values());
                }
                reached.insert(number, node);
            }
        }
        *nodes = reached;
    }
}

/// The names that lead to `path` from the root.
fn names(path: &Path) -> impl Iterator<Item = io::Result<&str>> {
    let not_below = || Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path below the root of the log"));
    // Taken apart by hand: `components` looks at every byte several times, and every call to the disk comes by here.
    let path = path.to_str().filter(|path| !path.starts_with('/')).unwrap_or("..");
    let names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
    names.map(move |name| if name == ".." { not_below() } else { Ok(name) })
}

/// Names and the nodes that they stand for. Lives and syncs share a map until somebody changes it.
type Names = Arc<BTreeMap<Arc<str>, u64>>;

/// The names in a directory: those that everybody sees, and those that a power cut leaves.
#[derive(Clone, Default)]
struct Directory {
    names: Names,
    durable: Names,
    /// What has changed since the last sync, in order.
    pending: Vec<Pending>,
}

#[derive(Clone)]
struct Pending {
    change: Change,
    /// Whether it outlives the power cut that is coming.
    kept: bool,
}

#[derive(Clone)]
enum Change {
    Link {
        name: Arc<str>,
        node: u64,
    },
    Unlink {
        name: Arc<str>,
        node: u64,
    },
    Rename {
        from: Arc<str>,
        to: Arc<str>,
        node: u64,
    },
    /// The two halves of a rename from one directory to another have one number.
    MoveIn {
        id: u64,
        name: Arc<str>,
        node: u64,
    },
    MoveOut {
        id: u64,
        name: Arc<str>,
        node: u64,
    },
}

impl Change {
    fn apply(&self, names: &mut Names) {
        let names = Arc::make_mut(names);
        match self {
            Change::Link { name, node } | Change::MoveIn { name, node, .. } => {
                names.insert(Arc::clone(name), *node);
            }
            Change::Unlink { name, node } | Change::MoveOut { name, node, .. } => {
                // The name may stand for something else, if what came between is lost.
                if names.get(name) == Some(node) {
                    names.remove(name);
                }
            }
            Change::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(Arc::clone(to), *node);
            }
        }
    }

    fn names(&self) -> [&str; 2] {
        match self {
            Change::Link { name, .. }
            | Change::Unlink { name, .. }
            | Change::MoveIn { name, .. }
            | Change::MoveOut { name, .. } => [name, name],
            Change::Rename { from, to, .. } => [from, to],
        }
    }
}

impl Directory {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(Pending { change, kept: false });
    }

    /// Sets a name durably, or takes it away.
    fn put(&mut self, name: &str, node: Option<u64>) {
        self.pending.retain(|pending| !pending.change.names().contains(&name));
        for names in [&mut self.names, &mut self.durable] {
            let names = Arc::make_mut(names);
            match node {
                Some(node) => names.insert(name.into(), node),
                None => names.remove(name),
            };
        }
    }

    /// Decides which of the pending changes are kept, and notes in `moved` whether what came from elsewhere has arrived.
    fn choose(&mut self, how: PowerCut, random: &mut Random, moved: &mut BTreeMap<u64, bool>) {
        let bias = Bias::new(how, random);
        for pending in &mut self.pending {
            pending.kept = bias.keeps(random);
            if let Change::MoveIn { id, .. } = &pending.change {
                moved.insert(*id, pending.kept);
            }
        }
    }

    /// Applies what was chosen. What has not arrived elsewhere has not left here.
    fn cut(&mut self, moved: &BTreeMap<u64, bool>) {
        for Pending { change, kept } in self.pending.drain(..) {
            let stays = matches!(&change, Change::MoveOut { id, .. } if moved.get(id) == Some(&false));
            if kept && !stays {
                change.apply(&mut self.durable);
            }
        }
        self.names = Arc::clone(&self.durable);
    }
}

/// How much of a file or directory a power cut keeps. A fair coin for every sector would hardly ever keep all of a batch, or
/// nothing.
struct Bias(u64);

impl Bias {
    const ALL: u64 = 4;

    fn new(how: PowerCut, random: &mut Random) -> Self {
        match how {
            PowerCut::LoseUnsynced => Bias(0),
            PowerCut::KeepAll => Bias(Bias::ALL),
            _ => Bias(random.below(Bias::ALL + 1)),
        }
    }

    fn keeps(&self, random: &mut Random) -> bool {
        random.chance(self.0, Bias::ALL)
    }
}

/// A file: what everybody sees, and what is on the platter.
struct Contents {
    /// The page cache, zero from `len` on; none until somebody maps the file: what everybody sees is on the platter.
    cache: Option<Arc<Heap>>,
    len: u64,
    /// Up to here there is room on the disk: nobody may store behind it.
    held: u64,
    /// Zeros follow.
    platter: Vec<u8>,
    platter_len: u64,
    /// The lengths since the last sync, any of which a power cut may leave.
    lengths: Vec<u64>,
    /// By sector, whether a sync has stored more than zeros in it.
    synced: Vec<bool>,
    /// The pages that a failed sync has lost, which pass for clean for as long as they look like this.
    lost: BTreeMap<u64, Vec<u8>>,
    /// Whether that happened in the background: the next sync says so, once.
    unreported: bool,
}

impl Default for Contents {
    fn default() -> Self {
        Contents::durable(Vec::new(), 0)
    }
}

impl Contents {
    /// A file of this length that a power cut leaves as it is: these bytes, and zeros.
    fn durable(bytes: Vec<u8>, len: u64) -> Self {
        let mut contents = Contents {
            cache: None,
            len,
            held: len,
            platter: bytes,
            platter_len: len,
            lengths: Vec::new(),
            synced: Vec::new(),
            lost: BTreeMap::new(),
            unreported: false,
        };
        contents.mark_synced();
        contents
    }

    fn is_mapped(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.is_mapped())
    }

    /// The same in memory of its own.
    fn copy(&mut self) -> Self {
        let cache = self.cache.as_ref().map(|cache| cache.capacity()).map(|capacity| {
            let cached = self.cached();
            self.find_again(&cached);
            let cache = Heap::new(capacity);
            cache.write(0, &cached);
            cache
        });
        Contents {
            cache,
            len: self.len,
            held: self.held,
            platter: self.platter.clone(),
            platter_len: self.platter_len,
            lengths: self.lengths.clone(),
            synced: self.synced.clone(),
            lost: self.lost.clone(),
            unreported: self.unreported,
        }
    }

    /// What everybody sees, up to the last byte that was ever stored; where another thread is storing at this moment,
    /// what is on the platter.
    fn cached(&self) -> Vec<u8> {
        let mut bytes = self.platter.clone();
        if let Some(cache) = &self.cache {
            bytes.resize(self.len.min(cache.extent()) as usize, 0);
            cache.read(0, &mut bytes);
        }
        let behind = bytes.get(self.held as usize..).unwrap_or_default();
        assert!(
            behind.iter().all(|byte| *byte == 0),
            "bytes are stored where there is no room: a real disk may be full"
        );
        bytes
    }

    /// Takes care that `capacity` bytes can be mapped.
    fn reserve(&mut self, capacity: u64) -> io::Result<()> {
        self.check_reach(capacity)?;
        if self.cache.as_ref().is_some_and(|cache| capacity <= cache.capacity()) {
            return Ok(());
        }
        let cached = self.cached();
        self.find_again(&cached);
        let cache = Heap::new(capacity.max(self.len).max(MAPPED_AT_LEAST));
        cache.write(0, &cached);
        self.cache = Some(cache);
        Ok(())
    }

    /// A mapping cannot move while somebody uses it.
    fn check_reach(&self, capacity: u64) -> io::Result<()> {
        match &self.cache {
            Some(cache) if capacity > cache.capacity() && cache.is_mapped() => {
                let reason = format!(
                    "a simulated file that was mapped for {} bytes cannot reach {capacity} before it is unmapped",
                    cache.capacity()
                );
                Err(io::Error::new(io::ErrorKind::Unsupported, reason))
            }
            _ => Ok(()),
        }
    }

    fn grow(&mut self, to: u64) -> io::Result<()> {
        self.check_reach(to)?;
        self.len = to;
        self.held = to;
        self.lengths.push(to);
        Ok(())
    }

    fn release(&mut self, from: u64) {
        let bytes = self.cached();
        let zeros = bytes.get(from as usize..).unwrap_or_default();
        assert!(zeros.iter().all(|byte| *byte == 0), "room is given back that holds something");
        self.held = self.held.min(from);
    }

    /// Forgets of the lost pages those that were stored to since: they are dirty again.
    fn find_again(&mut self, cached: &[u8]) {
        let Some(cache) = &self.cache else { return };
        for page in cache.take_touched() {
            self.lost.remove(&page);
        }
        self.lost.retain(|number, bytes| page(cached, *number) == *bytes);
    }

    /// The sectors that are not on the platter as everybody sees them, and not taken for clean.
    fn dirty(&mut self, cached: &[u8]) -> Vec<usize> {
        self.find_again(cached);
        let end = cached.len().max(self.platter.len()).div_ceil(SECTOR);
        let is_lost = |number: &usize| self.lost.contains_key(&page_of(*number));
        let differs = |number: &usize| sector(cached, *number) != sector(&self.platter, *number);
        // Most of a file is as it was, and comparing it in one piece is much faster.
        let whole = cached.len().min(self.platter.len()) / SECTOR;
        let same =
            cached.chunks(COMPARED).zip(self.platter.chunks(COMPARED)).take_while(|(new, old)| new == old).count();
        let from = (same * COMPARED / SECTOR).min(whole);
        (from..end).filter(|number| differs(number) && !is_lost(number)).collect()
    }

    /// Stores a sector.
    fn store(&mut self, number: usize, bytes: [u8; SECTOR]) {
        let (start, end) = (number * SECTOR, (number + 1) * SECTOR);
        if self.platter.len() < end {
            self.platter.resize(end, 0);
        }
        self.platter[start..end].copy_from_slice(&bytes);
    }

    fn sync(&mut self) {
        let cached = self.cached();
        for number in self.dirty(&cached) {
            self.store(number, sector(&cached, number));
        }
        self.store_length();
        self.mark_synced();
    }

    fn store_length(&mut self) {
        self.platter_len = self.len;
        self.lengths.clear();
    }

    fn mark_synced(&mut self) {
        let sectors = self.platter.len().div_ceil(SECTOR);
        self.synced = (0..sectors).map(|number| sector(&self.platter, number) != [0; SECTOR]).collect();
    }

    /// Stores any of the dirty sectors, and perhaps the length.
    fn write_back(&mut self, random: &mut Random) {
        let cached = self.cached();
        let bias = Bias::new(PowerCut::Sectors, random);
        for number in self.dirty(&cached) {
            if bias.keeps(random) {
                self.store(number, sector(&cached, number));
            }
        }
        if bias.keeps(random) {
            self.store_length();
        }
    }

    /// Takes one of the dirty pages for clean without having stored it. Returns whether there was one.
    fn lose_in_background(&mut self, random: &mut Random) -> bool {
        let cached = self.cached();
        let dirty = self.dirty(&cached);
        if dirty.is_empty() {
            return false;
        }
        let victim = page_of(dirty[random.below(dirty.len() as u64) as usize]);
        self.lost.insert(victim, page(&cached, victim));
        self.unreported = true;
        true
    }

    /// Stores some of the dirty sectors, but not all; what becomes of the others, `pages` says.
    fn fail_to_sync(&mut self, pages: SyncFailure, random: &mut Random) {
        let cached = self.cached();
        let dirty = self.dirty(&cached);
        if dirty.is_empty() {
            return;
        }
        let bias = Bias::new(PowerCut::Sectors, random);
        let victim = page_of(dirty[random.below(dirty.len() as u64) as usize]);
        for number in dirty {
            if page_of(number) != victim && bias.keeps(random) {
                self.store(number, sector(&cached, number));
            } else if pages == SyncFailure::Lost {
                self.lost.insert(page_of(number), page(&cached, page_of(number)));
            }
        }
    }

    /// What a power cut leaves.
    fn cut(&mut self, how: PowerCut, random: &mut Random) -> Contents {
        let cached = self.cached();
        let bias = Bias::new(how, random);
        let len = match how {
            PowerCut::LoseUnsynced => self.platter_len,
            PowerCut::KeepAll => self.len,
            _ => match random.below(self.lengths.len() as u64 + 1) as usize {
                0 => self.platter_len,
                chosen => self.lengths[chosen - 1],
            },
        };
        let mut pages = BTreeMap::new();
        for number in self.dirty(&cached) {
            let (old, new) = (sector(&self.platter, number), sector(&cached, number));
            let holds_synced_bytes = self.synced.get(number).is_some_and(|synced| *synced);
            let kept = match how {
                PowerCut::Pages => *pages.entry(page_of(number)).or_insert_with(|| bias.keeps(random)),
                _ => bias.keeps(random),
            };
            let left = match how {
                PowerCut::Garbled if !holds_synced_bytes && random.chance(1, 3) => garbled(&old, &new, random),
                PowerCut::Torn | PowerCut::Garbled if random.chance(1, 2) => torn(&old, &new, random),
                _ if kept => new,
                _ => old,
            };
            self.store(number, left);
        }
        let mut bytes = mem::take(&mut self.platter);
        bytes.truncate(len as usize);
        Contents::durable(bytes, len)
    }
}

/// The page in which a sector lies.
fn page_of(sector: usize) -> u64 {
    (sector * SECTOR) as u64 / PAGE
}

/// A sector of `bytes`, which zeros follow.
fn sector(bytes: &[u8], number: usize) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let rest = bytes.get(number * SECTOR..).unwrap_or_default();
    let len = rest.len().min(SECTOR);
    sector[..len].copy_from_slice(&rest[..len]);
    sector
}

/// A page of `bytes`, which zeros follow.
fn page(bytes: &[u8], number: u64) -> Vec<u8> {
    let rest = bytes.get((number * PAGE) as usize..).unwrap_or_default();
    let mut page = rest[..rest.len().min(PAGE as usize)].to_vec();
    page.resize(PAGE as usize, 0);
    page
}

/// A mix of old and new words: up to some word the one and then the other, or any.
fn torn(old: &[u8; SECTOR], new: &[u8; SECTOR], random: &mut Random) -> [u8; SECTOR] {
    let (mut first, second) = if random.chance(1, 2) { (*old, new) } else { (*new, old) };
    if random.chance(1, 2) {
        let at = random.below((SECTOR / WORD) as u64) as usize * WORD;
        first[at..].copy_from_slice(&second[at..]);
    } else {
        for at in (0..SECTOR).step_by(WORD) {
            if random.chance(1, 2) {
                first[at..at + WORD].copy_from_slice(&second[at..at + WORD]);
            }
        }
    }
    first
}

/// Noise from the first word on that was stored to. What lies before it may be synced zeros, which look like nothing.
fn garbled(old: &[u8; SECTOR], new: &[u8; SECTOR], random: &mut Random) -> [u8; SECTOR] {
    let mut left = *old;
    let same = old.chunks_exact(WORD).zip(new.chunks_exact(WORD)).take_while(|(old, new)| old == new).count();
    for word in left.chunks_exact_mut(WORD).skip(same) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    left
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::env::storage::region::{Pen, Region};

    const LOG: &str = "log";

    /// A disk that writes back only what it is asked to.
    fn lazy(seed: u64) -> Arc<SimDisk> {
        let disk = SimDisk::new(seed);
        disk.write_back(false);
        disk
    }

    /// A file of this length whose name is durable.
    fn create(disk: &SimDisk, path: &str, len: u64) -> (Box<dyn File>, Pen) {
        let file = disk.create(Path::new(path)).unwrap();
        file.allocate(0, len).unwrap();
        disk.sync_dir(Path::new(path).parent().unwrap()).unwrap();
        let (_, pen) = Region::new(file.map(len).unwrap(), len);
        (file, pen)
    }

    fn kind<T: fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn what_was_synced_survives_every_power_cut() {
        for (seed, how) in (0..50).flat_map(|seed| PowerCut::ALL.map(|how| (seed, how))) {
            let disk = SimDisk::new(seed);
            let (file, mut pen) = create(&disk, LOG, 10_000);
            pen.spare(0..1_001).fill(1);
            file.sync().unwrap();
            pen.spare(1_001..3_000).fill(2);

            let next = disk.power_cut(how);

            let bytes = next.read_file(LOG);
            assert_eq!(bytes.len(), 10_000, "seed {seed}, {how:?}");
            assert!(bytes[..1_001].iter().all(|byte| *byte == 1), "seed {seed}, {how:?}");
            assert!(bytes[3_072..].iter().all(|byte| *byte == 0), "seed {seed}, {how:?}");
            assert_eq!(next.power_cut(PowerCut::Garbled).read_file(LOG), bytes, "seed {seed}, {how:?}");
        }
    }

    #[test]
    fn what_was_not_synced_is_lost_or_kept_as_the_power_cut_says() {
        let disk = lazy(1);
        let (file, mut pen) = create(&disk, LOG, 512);
        file.sync().unwrap();
        pen.spare(0..512).fill(1);
        file.allocate(512, 1024).unwrap();

        assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [0; 512]);
        assert_eq!(disk.power_cut(PowerCut::KeepAll).read_file(LOG), [[1; 512], [0; 512]].concat());
        assert_eq!(disk.kill().read_file(LOG), [[1; 512], [0; 512]].concat());
    }

    /// What the power cuts of many seeds leave of eight sectors of ones over zeros, in all their forms.
    fn outcomes(how: PowerCut, synced: u8) -> BTreeSet<Vec<u8>> {
        let outcome = |seed| {
            let disk = lazy(seed);
            let (file, mut pen) = create(&disk, LOG, 2 * PAGE);
            pen.spare(0..2 * PAGE).fill(synced);
            file.sync().unwrap();
            pen.spare(0..2 * PAGE).fill(1);
            disk.power_cut(how).read_file(LOG)
        };
        (0..200).map(outcome).collect()
    }

    #[test]
    fn sectors_are_old_or_new_each_by_itself() {
        let outcomes = outcomes(PowerCut::Sectors, 7);

        assert!(outcomes.len() > 50);
        for bytes in &outcomes {
            assert!(bytes.chunks(SECTOR).all(|sector| sector == [7; SECTOR] || sector == [1; SECTOR]));
        }
        assert!(outcomes.contains(&vec![7; 8192]) && outcomes.contains(&vec![1; 8192]));
    }

    #[test]
    fn pages_are_old_or_new_each_by_itself() {
        let outcomes = outcomes(PowerCut::Pages, 7);

        let page = |byte| vec![byte; PAGE as usize];
        let all = [(7, 7), (7, 1), (1, 7), (1, 1)].map(|(a, b)| [page(a), page(b)].concat());
        assert_eq!(outcomes, BTreeSet::from(all));
    }

    #[test]
    fn torn_sectors_mix_whole_words() {
        let outcomes = outcomes(PowerCut::Torn, 7);

        for bytes in &outcomes {
            assert!(bytes.chunks(WORD).all(|word| word == [7; WORD] || word == [1; WORD]));
        }
        assert!(outcomes.iter().any(|bytes| bytes[..SECTOR] != [7; SECTOR] && bytes[..SECTOR] != [1; SECTOR]));
    }

    #[test]
    fn only_sectors_without_synced_bytes_are_garbled() {
        let beside_synced = outcomes(PowerCut::Garbled, 7);
        let fresh = outcomes(PowerCut::Garbled, 0);

        assert!(beside_synced.iter().flatten().all(|byte| *byte == 7 || *byte == 1));
        assert!(fresh.iter().flatten().any(|byte| *byte > 1));
    }

    #[test]
    fn what_nobody_asked_for_may_be_written_back() {
        let written_back = |seed| {
            let disk = SimDisk::new(seed);
            let (_file, mut pen) = create(&disk, LOG, 4096);
            pen.spare(0..4096).fill(1);
            (0..8).for_each(|_| drop(disk.list(Path::new("")).unwrap()));
            disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG)
        };

        let outcomes: BTreeSet<Vec<u8>> = (0..50).map(written_back).collect();

        assert!(outcomes.contains(&Vec::new()));
        assert!(outcomes.iter().any(|bytes| bytes.contains(&1) && bytes.contains(&0)));
    }

    #[test]
    fn the_same_seed_and_calls_give_the_same_lives() {
        let lives = |seed| {
            let mut disk = SimDisk::new(seed);
            let mut found = Vec::new();
            for n in 0..10u8 {
                let path = format!("{n}");
                let (_file, mut pen) = create(&disk, &path, 5_000);
                pen.spare(0..5_000).fill(n + 1);
                disk = disk.power_cut(PowerCut::Garbled);
                found.push(disk.files().into_iter().map(|path| (disk.read_file(&path), path)).collect::<Vec<_>>());
            }
            found
        };

        assert_eq!(lives(3), lives(3));
        assert_ne!(lives(3), lives(4));
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost_with_all_that_lies_below() {
        let disk = lazy(1);
        disk.create_dir(Path::new("a")).unwrap();
        disk.create_dir(Path::new("a/b")).unwrap();
        let (file, _) = create(&disk, "a/b/log", 100);
        file.sync().unwrap();
        disk.sync_dir(Path::new("a/b")).unwrap();
        disk.sync_dir(Path::new("a")).unwrap();

        assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).files(), Vec::<PathBuf>::new());
        assert_eq!(disk.power_cut(PowerCut::KeepAll).files(), [Path::new("a/b/log")]);
        disk.sync_dir(Path::new("")).unwrap();
        assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file("a/b/log"), [0; 100]);
    }

    #[test]
    fn a_file_that_was_never_synced_has_a_durable_name_and_nothing_else() {
        let left = |seed, how| {
            let disk = lazy(seed);
            let (file, mut pen) = create(&disk, LOG, 1024);
            pen.spare(0..1024).fill(1);
            file.allocate(1024, 2048).unwrap();
            disk.power_cut(how).read_file(LOG)
        };

        assert!(left(1, PowerCut::LoseUnsynced).is_empty());
        let lengths: BTreeSet<usize> = (0..50).map(|seed| left(seed, PowerCut::Sectors).len()).collect();
        assert_eq!(lengths, BTreeSet::from([0, 1024, 2048]));
        assert!((0..50).any(|seed| left(seed, PowerCut::Sectors) == [0; 1024]));
    }

    #[test]
    fn changes_of_names_are_kept_or_lost_each_by_itself() {
        let left = |seed| {
            let disk = lazy(seed);
            create(&disk, "old", 0);
            disk.remove(Path::new("old")).unwrap();
            disk.create(Path::new("new")).unwrap();
            disk.power_cut(PowerCut::Sectors).files()
        };

        let outcomes: BTreeSet<Vec<PathBuf>> = (0..100).map(left).collect();

        let all: [&[&str]; 4] = [&[], &["old"], &["new"], &["new", "old"]];
        assert_eq!(outcomes, all.map(|names| names.iter().map(PathBuf::from).collect()).into());
    }

    #[test]
    fn a_rename_within_a_directory_leaves_the_old_name_or_the_new_one() {
        let left = |seed| {
            let disk = lazy(seed);
            create(&disk, "old", 0);
            disk.rename(Path::new("old"), Path::new("new")).unwrap();
            disk.power_cut(PowerCut::Sectors).files()
        };

        let outcomes: BTreeSet<Vec<PathBuf>> = (0..100).map(left).collect();

        assert_eq!(outcomes, ["old", "new"].map(|name| vec![PathBuf::from(name)]).into());
    }

    #[test]
    fn a_rename_into_another_directory_never_leaves_neither_name() {
        let left = |seed| {
            let disk = lazy(seed);
            disk.create_dir(Path::new("a")).unwrap();
            disk.create_dir(Path::new("b")).unwrap();
            disk.sync_dir(Path::new("")).unwrap();
            create(&disk, "a/log", 0);
            disk.rename(Path::new("a/log"), Path::new("b/log")).unwrap();
            disk.power_cut(PowerCut::Sectors).files()
        };

        let outcomes: BTreeSet<Vec<PathBuf>> = (0..200).map(left).collect();

        let all: [&[&str]; 3] = [&["a/log"], &["b/log"], &["a/log", "b/log"]];
        assert_eq!(outcomes, all.map(|names| names.iter().map(PathBuf::from).collect()).into());
    }

    #[test]
    fn a_removed_file_comes_back_unless_its_directory_is_synced() {
        let disk = lazy(1);
        let (file, mut pen) = create(&disk, LOG, 100);
        pen.spare(0..100).fill(1);
        file.sync().unwrap();
        disk.remove(Path::new(LOG)).unwrap();

        assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [1; 100]);
        disk.create(Path::new("other")).unwrap();
        disk.remove(Path::new("other")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        for how in (0..20).flat_map(|_| PowerCut::ALL) {
            assert_eq!(disk.power_cut(how).files(), Vec::<PathBuf>::new(), "{how:?}");
        }
    }

    #[test]
    fn a_dead_life_does_not_disturb_the_next() {
        let disk = lazy(1);
        let (file, mut pen) = create(&disk, LOG, 100);
        let lock = disk.lock().unwrap();
        let next = disk.kill();

        pen.spare(0..100).fill(9);
        file.sync().unwrap();
        disk.remove(Path::new(LOG)).unwrap();

        assert_eq!(next.read_file(LOG), [0; 100]);
        let next_lock = next.lock().unwrap();
        drop(lock);
        assert!(matches!(next.lock().unwrap_err(), LockError::Held(_)));
        drop(next_lock);
    }

    #[test]
    fn the_lock_is_held_once_in_a_life_and_free_in_the_next() {
        let disk = SimDisk::new(1);

        let lock = disk.lock().unwrap();

        assert!(matches!(disk.lock().unwrap_err(), LockError::Held(Some(_))));
        disk.kill().lock().unwrap();
        disk.power_cut(PowerCut::LoseUnsynced).lock().unwrap();
        drop(lock);
        disk.lock().unwrap();
        assert_eq!(disk.files(), [Path::new("LOCK")]);
    }

    #[test]
    fn a_crash_freezes_the_moment_at_which_it_happened() {
        let disk = lazy(1);
        let (file, mut pen) = create(&disk, LOG, 100);
        file.sync().unwrap();
        pen.spare(0..50).fill(1);
        disk.crash_at(disk.operations() + 1);
        disk.list(Path::new("")).unwrap();
        assert!(!disk.has_crashed());

        assert_eq!(kind(file.sync()), io::ErrorKind::Other);
        pen.spare(50..100).fill(2);
        assert_eq!(kind(disk.remove(Path::new(LOG))), io::ErrorKind::Other);
        assert_eq!(kind(file.len()), io::ErrorKind::Other);
        assert!(disk.has_crashed());

        assert_eq!(disk.kill().read_file(LOG), [[1; 50], [0; 50]].concat());
        assert_eq!(disk.power_cut(PowerCut::KeepAll).read_file(LOG), [[1; 50], [0; 50]].concat());
        assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [0; 100]);
        assert_eq!(disk.kill().operations(), 0);
    }

    #[test]
    fn the_chosen_call_fails_and_changes_nothing() {
        let disk = lazy(1);
        disk.fail(Fault::new(Operation::Create, 1).failure(Failure::Kind(io::ErrorKind::StorageFull)));
        disk.fail(Fault::new(Operation::SyncDir, 1).forever());

        disk.create(Path::new("a")).unwrap();
        assert_eq!(kind(disk.create(Path::new("b"))), io::ErrorKind::StorageFull);
        disk.create(Path::new("c")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        disk.create(Path::new("d")).unwrap();
        for _ in 0..3 {
            let error = disk.sync_dir(Path::new("")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        }

        assert_eq!(disk.files(), ["a", "c", "d"].map(PathBuf::from));
        assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).files(), ["a", "c"].map(PathBuf::from));
        disk.heal();
        disk.sync_dir(Path::new("")).unwrap();
        disk.fail(Fault::new(None, 2));
        assert!(disk.list(Path::new("")).is_ok() && disk.open(Path::new("a"), Access::Read).is_ok());
        assert!(disk.lock().is_err());
        assert_eq!(disk.trace().last(), Some(&(Operation::Lock, PathBuf::from("LOCK"))));
    }

    #[test]
    fn a_sync_that_fails_and_keeps_its_pages_can_be_repeated() {
        let disk = lazy(1);
        let (file, mut pen) = create(&disk, LOG, 100);
        file.sync().unwrap();
        pen.spare(0..100).fill(1);
        disk.fail(Fault::new(Operation::Sync, 0));

        file.sync().unwrap_err();
        assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [0; 100]);
        file.sync().unwrap();

        assert_eq!(disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG), [1; 100]);
    }

    /// A file of a page whose first hundred bytes were lost by a failed sync.
    fn lost_page(seed: u64) -> (Arc<SimDisk>, Box<dyn File>, Pen) {
        let disk = lazy(seed);
        let (file, mut pen) = create(&disk, LOG, PAGE);
        file.sync().unwrap();
        pen.spare(0..100).fill(1);
        disk.fail(Fault::new(Operation::Sync, 0).losing_pages());
        file.sync().unwrap_err();
        (disk, file, pen)
    }

    #[test]
    fn a_lost_page_reads_well_and_is_never_stored_however_often_it_is_synced() {
        let (disk, file, pen) = lost_page(1);

        file.sync().unwrap();
        file.sync().unwrap();

        assert_eq!(pen.unread(0..100), [1; 100]);
        assert_eq!(disk.kill().read_file(LOG)[..100], [1; 100]);
        for how in PowerCut::ALL {
            assert_eq!(disk.power_cut(how).read_file(LOG), vec![0; PAGE as usize], "{how:?}");
        }
        let next = disk.kill();
        next.open(Path::new(LOG), Access::Write).unwrap().sync().unwrap();
        assert_eq!(next.power_cut(PowerCut::KeepAll).read_file(LOG), vec![0; PAGE as usize]);
    }

    #[test]
    fn a_lost_page_is_stored_once_it_was_made_dirty_again() {
        let (disk, _, pen) = lost_page(1);
        drop(pen);
        let next = disk.kill();
        let file = next.open(Path::new(LOG), Access::Write).unwrap();
        let (_, mut pen) = Region::new(file.map(PAGE).unwrap(), PAGE);

        pen.redirty(0..100);
        file.sync().unwrap();

        assert_eq!(next.power_cut(PowerCut::LoseUnsynced).read_file(LOG)[..101], [&[1; 100][..], &[0]].concat());
    }

    #[test]
    fn a_lost_page_is_stored_once_other_bytes_of_it_were_stored_to() {
        let (disk, file, mut pen) = lost_page(1);

        pen.publish(2048, 5, 2056);
        file.sync().unwrap();

        let bytes = disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG);
        assert_eq!((bytes[0], bytes[2048]), (1, 5));
    }

    #[test]
    fn a_sync_that_loses_pages_may_store_others() {
        let left = |seed| {
            let disk = lazy(seed);
            let (file, mut pen) = create(&disk, LOG, 4 * PAGE);
            file.sync().unwrap();
            pen.spare(0..4 * PAGE).fill(1);
            disk.fail(Fault::new(Operation::Sync, 0).losing_pages());
            file.sync().unwrap_err();
            file.sync().unwrap();
            disk.power_cut(PowerCut::KeepAll).read_file(LOG)
        };

        let outcomes: BTreeSet<Vec<u8>> = (0..50).map(left).collect();

        assert!(outcomes.len() > 5);
        assert!(outcomes.iter().all(|bytes| bytes.contains(&0)));
    }

    #[test]
    fn a_full_disk_refuses_to_grow_a_file_until_there_is_room() {
        let disk = lazy(1);
        disk.capacity(Some(1000));
        let (a, pen) = create(&disk, "a", 600);
        let b = disk.create(Path::new("b")).unwrap();

        assert_eq!(kind(b.allocate(0, 401)), io::ErrorKind::StorageFull);
        assert_eq!(b.len().unwrap(), 0);
        b.allocate(0, 400).unwrap();
        disk.remove(Path::new("a")).unwrap();
        assert_eq!(kind(b.allocate(400, 401)), io::ErrorKind::StorageFull);
        drop((a, pen));

        b.allocate(400, 1000).unwrap();
        disk.capacity(None);
        b.allocate(1000, 2000).unwrap();
    }

    #[test]
    fn errors_are_those_of_a_real_disk() {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("dir")).unwrap();
        create(&disk, "dir/file", 10);

        assert_eq!(kind(disk.create(Path::new("dir/file"))), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create_dir(Path::new("dir"))), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create(Path::new("no/file"))), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.open(Path::new("no"), Access::Read)), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.open(Path::new("dir"), Access::Read)), io::ErrorKind::IsADirectory);
        assert_eq!(kind(disk.open(Path::new("../x"), Access::Read)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(disk.list(Path::new("dir/file"))), io::ErrorKind::NotADirectory);
        assert_eq!(kind(disk.remove_dir(Path::new("dir"))), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(kind(disk.remove(Path::new("dir"))), io::ErrorKind::IsADirectory);
        assert_eq!(kind(disk.rename(Path::new("dir/file"), Path::new("dir"))), io::ErrorKind::AlreadyExists);
        let file = disk.open(Path::new("dir/file"), Access::Read).unwrap();
        assert_eq!(kind(file.allocate(10, 20)), io::ErrorKind::PermissionDenied);
        let file = disk.open(Path::new("dir/file"), Access::Write).unwrap();
        assert_eq!(kind(file.allocate(5, 20)), io::ErrorKind::InvalidInput);
        let entries = disk.list(Path::new("")).unwrap();
        assert_eq!(entries, [Entry { name: "dir".to_owned(), kind: Kind::Directory }]);
    }

    #[test]
    fn a_file_is_mapped_for_more_than_it_is_long_and_by_several_at_once() {
        let disk = SimDisk::new(1);
        let (file, mut pen) = create(&disk, LOG, 100);
        let reader = disk.open(Path::new(LOG), Access::Read).unwrap();
        let (following, _) = Region::new(reader.map(1000).unwrap(), 100);
        let (_, read_only) = Region::new(reader.map(100).unwrap(), 100);

        pen.publish(0, 3, 8);

        assert_eq!(read_only.word(0), 3);
        assert_eq!(following.capacity(), 1000);
        assert_eq!(kind(file.map(MAPPED_AT_LEAST + 1)), io::ErrorKind::Unsupported);
        drop((pen, following, read_only));
        assert_eq!(file.map(MAPPED_AT_LEAST + 1).unwrap().capacity(), MAPPED_AT_LEAST + 1);
        assert_eq!(disk.read_file(LOG)[0], 3);
    }

    #[test]
    fn tests_change_what_lies_on_the_disk_for_good() {
        let disk = lazy(1);
        disk.write_file("a/b", &[1, 2, 3]);
        disk.write_file("a/c", &[4]);

        disk.flip_bit("a/b", 9);
        disk.remove_file("a/c");
        disk.write_file("d", &[]);

        for disk in [disk.power_cut(PowerCut::LoseUnsynced), disk] {
            assert_eq!(disk.files(), ["a/b", "d"].map(PathBuf::from));
            assert_eq!(disk.read_file("a/b"), [1, 0, 3]);
        }
    }

    #[test]
    #[should_panic(expected = "a log is open on this disk")]
    fn a_disk_in_use_is_not_tampered_with() {
        let disk = SimDisk::new(1);
        let _lock = disk.lock().unwrap();

        disk.write_file("a", &[]);
    }

    #[test]
    fn a_sync_beside_an_append_stores_what_was_published() {
        let disk = SimDisk::new(1);
        let batches = if cfg!(miri) { 20 } else { 2_000 };
        let (file, mut pen) = create(&disk, LOG, batches * 16);
        let region = Arc::clone(pen.region());

        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..batches {
                    pen.spare(n * 16 + 8..n * 16 + 16).fill(n as u8);
                    pen.publish(n * 16, 16, n * 16 + 16);
                }
            });
            let mut seen = 0;
            while seen < batches * 16 {
                seen = region.written();
                file.sync().unwrap();
                let left = disk.power_cut(PowerCut::LoseUnsynced).read_file(LOG);
                assert_eq!(left[..seen as usize], region.bytes()[..seen as usize]);
            }
        });
    }
}
