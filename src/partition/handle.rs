//! The descriptor of a segment that is written: kept while there are plenty, opened anew for each use when there are not,
//! so that there may be more partitions than a process may have files open.
//!
//! A mapping needs no descriptor. A kernel tells a write-back that failed once to each descriptor that was open then,
//! and if there was none, to the next one: as long as the file is mapped, nothing of that is forgotten (Linux 4.17;
//! elsewhere a storage is never crowded).

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::storage::region::Memory;
use crate::env::storage::{Access, File, Storage};

/// A file that is open when it is used.
#[derive(Debug)]
pub(crate) struct Handle {
    storage: Arc<dyn Storage>,
    /// Relative to the root of the log.
    path: PathBuf,
    access: Access,
    open: Mutex<Option<Arc<dyn File>>>,
}

impl Handle {
    pub(crate) fn new(storage: &Arc<dyn Storage>, path: PathBuf, access: Access, file: Arc<dyn File>) -> Arc<Self> {
        let handle = Handle { storage: Arc::clone(storage), path, access, open: Mutex::new(Some(file)) };
        handle.rest_if_crowded();
        Arc::new(handle)
    }

    fn with<T>(&self, work: impl FnOnce(&dyn File) -> io::Result<T>) -> io::Result<T> {
        let open = self.open.lock().clone();
        let file = match open {
            Some(file) => file,
            None => {
                let file = self.storage.open(&self.path, self.access)?;
                *self.open.lock() = Some(Arc::clone(&file));
                file
            }
        };
        let done = work(&*file);
        drop(file);
        self.rest_if_crowded();
        done
    }

    fn rest_if_crowded(&self) {
        if self.storage.is_crowded() {
            self.open.lock().take();
        }
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.len())
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.with(|file| file.allocate(from, to))
    }

    fn release(&self, from: u64) -> io::Result<()> {
        self.with(|file| file.release(from))
    }

    fn reclaim(&self, range: Range<u64>) -> io::Result<()> {
        self.with(|file| file.reclaim(range))
    }

    fn is_shared(&self) -> io::Result<bool> {
        self.with(|file| file.is_shared())
    }

    fn room(&self) -> io::Result<u64> {
        self.with(|file| file.room())
    }

    fn data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.with(|file| file.data(from))
    }

    fn map(&self, capacity: u64) -> io::Result<Memory> {
        self.with(|file| file.map(capacity))
    }

    fn copy(&self, length: u64) -> io::Result<Memory> {
        self.with(|file| file.copy(length))
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.with(|file| file.read(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|file| file.sync())
    }

    fn sync_start(&self, bytes: &[u8]) -> io::Result<()> {
        self.with(|file| file.sync_start(bytes))
    }
}
