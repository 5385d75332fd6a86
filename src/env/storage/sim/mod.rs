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
//! | gave a file a second name               | as made a name; the bytes of both are the same                           |
//! | renamed within a directory              | the old name or the new one                                              |
//! | renamed into another directory          | the old name, the new one, or both                                       |
//! | stored bytes, sync failed, pages lost   | the old bytes, even if later syncs say that all is well                  |
//! | stored bytes, lost by a write-back      | the same; the next sync fails once                                       |
//!
//! Nobody has to ask for a write-back: any call may store any dirty sector, unless that is switched off.
//!
//! What is kinder after all: a sector that holds synced bytes is never garbled by a write to bytes beside them (powersafe
//! overwrite), and an aligned word is never torn.

mod below;
mod calls;
mod contents;
mod directory;
mod faults;
mod power_cut;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::random::Random;
use crate::env::storage::sim::calls::Life;
use crate::env::storage::sim::contents::Contents;
use crate::env::storage::sim::directory::{Directory, split, text};
pub(crate) use crate::env::storage::sim::faults::{Director, Verdict};
pub use crate::env::storage::sim::faults::{Failure, Fault, Operation, SyncFailure};
pub use crate::env::storage::sim::power_cut::PowerCut;
use crate::env::storage::sim::world::{MANY_NODES, Node, ROOT, World};

/// A disk in memory, during one life of the machine. See the head of this file.
pub(crate) struct SimDisk {
    life: Arc<Life>,
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> Arc<SimDisk> {
        let mut nodes = Vec::with_capacity(MANY_NODES);
        nodes.push(Some(Node::Directory(Directory::default())));
        SimDisk::start(World { crowded: seed % 2 == 1, ..World::of(nodes, Random::new(seed)) })
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
        let Some(Node::File(contents)) = &mut nodes[node as usize] else { panic!("it is a file") };
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
        let mut world = self.life.world.lock();
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
        let (above, name) = split(path.as_ref()).expect("a path below the root").expect("a file has a name");
        let as_text = |name: &[u8]| text(name).expect("a path that is text");
        let mut directory = ROOT;
        for name in above.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            directory = match world.directory(directory).expect("it is a directory").names.get(name) {
                Some(node) => node,
                None => {
                    let node = world.add(Node::Directory(Directory::default()));
                    world.directory_mut(directory).expect("it is a directory").put(&as_text(name), Some(node));
                    node
                }
            };
        }
        world.directory_mut(directory).expect("it is a directory").put(&as_text(name), Some(file));
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
        assert!(directory.names.get(name).is_some(), "the file is there");
        directory.put(&text(name).expect("a path that is text"), None);
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
