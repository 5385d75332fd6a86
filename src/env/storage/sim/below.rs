//! A directory of a simulated disk that is a tree of its own: there a copy of the log lies.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::storage::sim::SimDisk;
use crate::env::storage::{Access, Entry, File, Lock, LockError, Storage};
use crate::error::Error;

/// A directory of a simulated disk, in which a copy of its log lies.
#[derive(Debug)]
pub(super) struct Below {
    pub(super) disk: SimDisk,
    pub(super) below: PathBuf,
    pub(super) root: PathBuf,
}

impl Below {
    fn full(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.below.clone() } else { self.below.join(path) }
    }
}

/// Of a copy, which nobody else opens.
#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

impl Storage for Below {
    fn root(&self) -> &Path {
        &self.root
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        Ok(Box::new(NoLock))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(&self.full(dir))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(&self.full(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.create(&self.full(path))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        self.disk.open(&self.full(path), access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(&self.full(from), &self.full(to))
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.replace(&self.below.join(from), &self.below.join(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(&self.full(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(&self.full(dir))
    }

    fn elsewhere(&self, root: &Path, create: bool) -> Result<Arc<dyn Storage>, Error> {
        self.disk.elsewhere(root, create)
    }

    fn link(&self, path: &Path, other: &dyn Storage, to: &Path) -> io::Result<()> {
        self.disk.link(&self.full(path), other, to)
    }

    fn is_crowded(&self) -> bool {
        self.disk.is_crowded()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(&self.full(dir))
    }
}
