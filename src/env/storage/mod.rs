//! Storage: named files below one directory, and the promises a power cut leaves of them.
//!
//! Paths are relative to the root of the log; the empty path is the root itself. An implementation
//! promises no more than a real disk does:
//!
//! | call                | after it returned                                                                 |
//! |---------------------|-----------------------------------------------------------------------------------|
//! | `File::sync`        | the bytes and the length of the file survive a power cut, its name perhaps not    |
//! | `Storage::sync_dir` | the names in the directory survive, the bytes of the files perhaps not            |
//! | anything else       | visible to every process at once; a power cut may take it, whole or in part       |

#[cfg(test)]
mod conformance;
pub(crate) mod disk;
pub(crate) mod region;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod sim;

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::storage::region::Memory;
use crate::error::Result;

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    /// A link, a device, a socket: nothing that the log made.
    Other,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Why the lock of the directory was not given.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody holds it: the number of the process, if it left one.
    Held(Option<u32>),
    Io(io::Error),
}

/// Held for as long as it lives; the kernel frees it when the process dies.
pub(crate) trait Lock: Send + Sync + fmt::Debug {}

/// The path of a name in a directory: `Path::join` for who makes many, with the room for both from the beginning.
pub(crate) fn path_in(dir: &Path, name: impl AsRef<Path>) -> PathBuf {
    let name = name.as_ref();
    let mut path = PathBuf::with_capacity(dir.as_os_str().len() + "/".len() + name.as_os_str().len());
    path.push(dir);
    path.push(name);
    path
}

/// A directory tree that holds one log.
pub(crate) trait Storage: Any + Send + Sync + fmt::Debug {
    /// Where the log lies, for messages: an absolute path on a real disk.
    fn root(&self) -> &Path;

    /// Takes the lock for writing: the file `LOCK` in the root, exclusively, without waiting. It is created if
    /// it is missing, and holds the number of the process that has it.
    fn lock(&self) -> Result<Box<dyn Lock>, LockError>;

    /// The names in `dir`, sorted; names that are not UTF-8 are none of ours and left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Makes a directory. `AlreadyExists` if the name is taken.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes an empty file for reading and writing. `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file; never follows a link, refuses what is not a regular file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Gives a file or directory another name within the tree. `AlreadyExists` if `to` is taken.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file the name of another file in its directory, which loses it: there is one or the other under that name at
    /// every moment, also after a power cut. Whoever has the other mapped keeps reading it.
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Whoever has it mapped keeps reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether so many files are open that those that can be opened again should not stay open.
    fn is_crowded(&self) -> bool;

    /// Another directory tree, where a copy of the log lies or shall lie: the one below `root`, which is made if it is
    /// missing and `create` says so.
    fn elsewhere(&self, root: &Path, create: bool) -> Result<Arc<dyn Storage>>;

    /// Gives a file a second name, `to`, in a tree that comes from [`elsewhere`](Self::elsewhere). From then on the file is
    /// both: what is stored to the one is stored to the other. `AlreadyExists` if the name is taken, `CrossesDevices` and
    /// others where that cannot be.
    fn link(&self, path: &Path, other: &dyn Storage, to: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file of a log.
pub(crate) trait File: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Makes the file `to` bytes long, of which those from `from`, its present length, are zero and really
    /// allocated, so that storing to them cannot fail. On error the file is as it was.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;

    /// Gives back the room of the bytes from `from` on, which are zero and read as zero ever after; the length stays as it
    /// is, so that nobody who has mapped the file is the worse for it. Nothing may be stored there before it is
    /// [`reclaim`](Self::reclaim)ed. Where a file system cannot do that, nothing happens.
    fn release(&self, from: u64) -> io::Result<()>;

    /// Really allocates bytes below the length, whether they were or not, so that storing to them cannot fail. They stay
    /// what they are.
    fn reclaim(&self, range: Range<u64>) -> io::Result<()>;

    /// Whether it has more names than one: then another log reads it, too.
    fn is_shared(&self) -> io::Result<bool>;

    /// How many bytes of the disk the file takes.
    fn room(&self) -> io::Result<u64>;

    /// The next bytes from `from` on that may be other than zero; `None`: there are none up to the end of the file.
    fn data(&self, from: u64) -> io::Result<Option<Range<u64>>>;

    /// Maps the address range of `capacity` bytes from the start of the file, of which those below the
    /// file's length may be touched. Writable if the file was opened for writing.
    fn map(&self, capacity: u64) -> io::Result<Memory>;

    /// A copy of the first `length` bytes, of which those that the file does not have are zero. What the disk does not
    /// give is an error here, whereas it ends the process of whoever touches it in a mapping.
    fn copy(&self, length: u64) -> io::Result<Memory>;

    /// Fills `bytes` from the start of the file; those that it does not have stay as they are. For a few: it costs less than
    /// to map them.
    fn read(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// Makes the bytes, stored ones through a mapping too, and the length durable.
    ///
    /// A failed sync is final: the kernel forgets what it could not write, and the next sync returns success.
    fn sync(&self) -> io::Result<()>;

    /// Makes `bytes` durable, which stand at the start of the file already, and what it takes to find them again. What else
    /// was stored to the file need not be written to the disk for that.
    fn sync_start(&self, bytes: &[u8]) -> io::Result<()>;
}

/// Whether there is nothing but zeros. A piece at a time, which the compiler turns into wide loads: what recovery looks at
/// is mostly room that nothing was written to yet.
pub(crate) fn are_zero(bytes: &[u8]) -> bool {
    const PIECE: usize = 256;
    bytes.chunks(PIECE).all(|piece| piece.iter().fold(0, |seen, byte| seen | byte) == 0)
}
