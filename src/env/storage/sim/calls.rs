//! What the log asks of its disk, on the simulated one.

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
use crate::env::storage::region::Memory;
use crate::env::storage::sim::SimDisk;
use crate::env::storage::sim::below::Below;
use crate::env::storage::sim::contents::Contents;
use crate::env::storage::sim::directory::{Change, Directory, text};
use crate::env::storage::sim::faults::Operation;
use crate::env::storage::sim::world::{Node, World};
use crate::env::storage::{Access, Entry, File, Kind, Lock, LockError, Storage};
use crate::error::Error;

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
        let entry = |(name, node): (&Arc<str>, u64)| {
            let kind = if world.directory(node).is_ok() { Kind::Directory } else { Kind::File };
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

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Create, path)?;
        let node = world.link(path, Node::File(Contents::default()))?;
        Ok(self.life.file(&world, node, path, Access::Write))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Open, path)?;
        let node = world.find(path)?;
        if access == Access::Read && world.directory(node).is_ok() {
            // A directory can be opened for reading, and then it is found to be none of the files that were looked for.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file but a directory"));
        }
        world.contents(node)?;
        Ok(self.life.file(&world, node, path, access))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Rename, from)?;
        let (from_directory, from_name) = world.parent(from)?;
        let (to_directory, to_name) = world.parent(to)?;
        let node = world.directory(from_directory)?.names.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        if world.directory(to_directory)?.names.get(to_name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (from_name, to_name) = (text(from_name)?, text(to_name)?);
        if world.directory(node).is_ok() {
            world.known.clear();
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
        let (directory, from_name) = world.parent(from)?;
        let (_, to_name) = world.parent(to)?;
        let names = &world.directory(directory)?.names;
        let node = names.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        let other = names.get(to_name).ok_or(io::ErrorKind::NotFound)?;
        world.contents(other)?;
        let change = Change::Rename { from: text(from_name)?, to: text(to_name)?, node };
        world.directory_mut(directory)?.change(change);
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
        world.known.clear();
        world.unlink(dir, node)
    }

    fn elsewhere(&self, root: &Path, create: bool) -> Result<Arc<dyn Storage>, Error> {
        let below = match root.strip_prefix(self.root()) {
            Ok(below) => below.to_path_buf(),
            Err(_) => return Err(Error::NotALog { path: root.to_path_buf() }),
        };
        let disk = SimDisk { life: Arc::clone(&self.life) };
        let mut made = PathBuf::new();
        for name in &below {
            made.push(name);
            if disk.life.world.lock().find(&made).is_ok() {
                continue;
            }
            if !create {
                return Err(Error::NotALog { path: root.to_path_buf() });
            }
            disk.create_dir(&made).map_err(Error::io("create", || root))?;
            let parent = made.parent().unwrap_or(Path::new(""));
            disk.sync_dir(parent).map_err(Error::io("sync", || root))?;
        }
        Ok(if below.as_os_str().is_empty() {
            Arc::new(disk)
        } else {
            Arc::new(Below { disk, below, root: root.into() })
        })
    }

    fn link(&self, path: &Path, other: &dyn Storage, to: &Path) -> io::Result<()> {
        let to = match other.root().strip_prefix(self.root()) {
            Ok(below) => below.join(to),
            Err(_) => return Err(io::ErrorKind::CrossesDevices.into()),
        };
        let mut world = self.life.world.lock();
        world.begin(Operation::Link, path)?;
        // In the order in which a real system finds out what is wrong.
        let (from_directory, from_name) = world.parent(path)?;
        let (directory, name) = world.parent(&to)?;
        let node = world.directory(from_directory)?.names.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        let is_directory = world.directory(node).is_ok();
        let directory = world.directory_mut(directory)?;
        if directory.names.get(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if is_directory {
            return Err(rustix::io::Errno::PERM.into());
        }
        directory.change(Change::Link { name: text(name)?, node });
        Ok(())
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
        directory.sync();
        Ok(())
    }
}

/// What the storage, its files and its lock share.
pub(super) struct Life {
    pub(super) world: Mutex<World>,
}

impl Life {
    fn file(self: &Arc<Self>, world: &World, node: u64, path: &Path, access: Access) -> Arc<dyn File> {
        let path = if world.director.is_none() { path.to_owned() } else { PathBuf::new() };
        Arc::new(SimFile { life: Arc::clone(self), node, path, writable: access == Access::Write })
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
    /// What it was called when it was opened, for the trace, if there is one.
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(rustix::io::Errno::BADF.into()) }
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

    fn is_shared(&self) -> io::Result<bool> {
        let world = self.life.world.lock();
        world.check_alive()?;
        let directories = world.nodes.iter().flatten().filter_map(|node| match node {
            Node::Directory(directory) => Some(directory),
            Node::File(_) => None,
        });
        let names = directories.flat_map(|directory| directory.names.nodes()).filter(|node| *node == self.node);
        Ok(names.count() > 1)
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
        let stored = contents.extent().max(contents.platter.len() as u64);
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
        let contents = world.contents(self.node)?;
        Memory::filled(length, |bytes| {
            contents.read(bytes);
            Ok(())
        })
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.begin(Operation::Map, &self.path)?;
        world.contents(self.node)?.read(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.life.world.lock();
        world.number(Operation::Sync, &self.path)?;
        let refusal = world.refusal(Operation::Sync);
        let world = &mut *world;
        let Some(Node::File(contents)) = &mut world.nodes[self.node as usize] else {
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

    /// With all the rest: what a sync may leave out, it may write as well.
    fn sync_start(&self, _bytes: &[u8]) -> io::Result<()> {
        self.sync()
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).field("writable", &self.writable).finish_non_exhaustive()
    }
}
