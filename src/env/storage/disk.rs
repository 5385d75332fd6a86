//! Storage on a real disk. The only file that names files of the operating system.
//!
//! Everything is opened relative to a descriptor of the root, a component at a time and never through a link, so that
//! nobody who can write to the directory can lead the log out of it, and renaming the directory does not lose it.
//! Files are born 0600 and directories 0700.
//!
//! | what the system does                      | what is done about it                                                  |
//! |-------------------------------------------|------------------------------------------------------------------------|
//! | `fallocate` is not supported              | zeros are written instead                                              |
//! | `fallocate` fails halfway                 | the file is cut back to its old length                                 |
//! | growing past `RLIMIT_FSIZE` kills         | the limit is asked for first: [`io::ErrorKind::FileTooLarge`]          |
//! | btrfs, xfs copy a page before rewriting it | new files get the attribute that forbids it; pages are asked for before they are touched |
//! | a sync is interrupted                     | it is repeated; a sync that failed is not                              |
//! | `LOCK` is replaced while it is taken      | the name is compared with what was locked, and locked again            |

#[cfg(not(all(unix, target_pointer_width = "64")))]
compile_error!(
    "tidelog needs a 64-bit Unix: it maps whole segments, and opens files relative to the descriptor of a directory"
);

use std::any::Any;
use std::ffi::OsStr;
use std::fs::TryLockError;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::Resource;

use crate::env::storage::region::Memory;
use crate::env::storage::{Access, Entry, File, Kind, Lock, LockError, Storage};
use crate::error::{Error, Result};

/// The file that the one writing process holds locked.
const LOCK: &str = "LOCK";

/// How often the lock is taken anew because the file was replaced meanwhile. Whoever replaces it so often does nothing
/// else.
const LOCK_ATTEMPTS: u32 = 100;

/// How much is written at once where space cannot be allocated.
const ZEROS: &[u8] = &[0; 64 * 1024];

/// For the owner alone: what is in a log is nobody else's business.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIRECTORY_MODE: u16 = 0o700;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Without `NONBLOCK` opening a pipe that stands in a file's place would wait for its other end.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A directory of the operating system.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    directory: OwnedFd,
    copies_on_write: bool,
    open_files: Arc<AtomicUsize>,
}

impl Disk {
    /// The files below `root`, which is made, with its parents, if it is missing and `create` says so.
    ///
    /// # Errors
    ///
    /// [`Error::NotALog`] if `root` is missing and is not to be made; [`Error::Io`] if it is not a directory that can be
    /// read, or cannot be made.
    pub(crate) fn open(root: &Path, create: bool) -> Result<Disk> {
        let root = std::path::absolute(root).map_err(Error::io("find", || root))?;
        if create {
            make_root(&root)?;
        }
        // The root itself may be a link: it is the user's choice, and only what lies below is ours.
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let directory = match retry_on_intr(|| rustix::fs::open(&root, flags, Mode::empty())) {
            Err(Errno::NOENT) => return Err(Error::NotALog { path: root }),
            opened => opened.map_err(io::Error::from).map_err(Error::io("open", || &root))?,
        };
        let copies_on_write = copies_on_write(&directory);
        Ok(Disk { root, directory, copies_on_write, open_files: Arc::default() })
    }

    /// The directory below the root with this path.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        if let Some(found) = self.open_at_once(path, DIRECTORY) {
            return Ok(found);
        }
        let mut directory = open_at(&self.directory, OsStr::new("."), DIRECTORY)?;
        for component in path.components() {
            let Component::Normal(name) = component else {
                return Err(outside());
            };
            directory = open_at(&directory, name, DIRECTORY)?;
        }
        Ok(directory)
    }

    /// What is at `path`, below the root and behind no link, opened in one call. `None`: somebody must open it a component
    /// at a time, as without Linux 5.6, and finds out what is wrong with it.
    fn open_at_once(&self, path: &Path, flags: OFlags) -> Option<OwnedFd> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{ResolveFlags, openat2};
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            openat2(&self.directory, path, flags, Mode::empty(), resolve).ok()
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (path, flags);
            None
        }
    }

    /// The directory that holds `path`, and the name of `path` in it.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(outside());
        };
        Ok((self.directory(parent)?, name))
    }

    fn file(&self, file: std::fs::File, writable: bool) -> Arc<dyn File> {
        self.open_files.fetch_add(1, Ordering::Relaxed);
        let copies_on_write = self.copies_on_write;
        Arc::new(DiskFile { file, writable, copies_on_write, open_files: Arc::clone(&self.open_files) })
    }

    /// The lock file, open, made if it is missing.
    fn lock_file(&self) -> io::Result<std::fs::File> {
        let flags = FILE | OFlags::RDWR | OFlags::CREATE;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.directory, LOCK, flags, FILE_MODE))?;
        regular(fd)
    }

    /// Whether `file` is still what the name of the lock stands for.
    fn is_lock_file(&self, file: &std::fs::File) -> io::Result<bool> {
        let held = rustix::fs::fstat(file)?;
        match rustix::fs::statat(&self.directory, LOCK, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Storage for Disk {
    fn root(&self) -> &Path {
        &self.root
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        for _ in 0..LOCK_ATTEMPTS {
            let file = self.lock_file().map_err(LockError::Io)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Held(holder(&file))),
                Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
            }
            if self.is_lock_file(&file).map_err(LockError::Io)? {
                sign(&file);
                return Ok(Box::new(DiskLock { file, holder: std::process::id() }));
            }
        }
        Err(LockError::Io(io::Error::other("the file LOCK is replaced again and again")))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let directory = self.directory(dir)?;
        let mut entries = Vec::new();
        let mut names = Dir::new(directory)?;
        while let Some(found) = names.read() {
            let found = found?;
            let Ok(name) = found.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match found.file_type() {
                // Some file systems do not say it in the listing.
                FileType::Unknown => match rustix::fs::statat(names.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => kind(FileType::from_raw_mode(stat.st_mode)),
                    // Removed since it was listed.
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
                known => kind(known),
            };
            entries.push(Entry { name: name.to_owned(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(dir)?;
        Ok(rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(DIRECTORY_MODE.into()))?)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (parent, name) = self.parent(path)?;
        let flags = FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = retry_on_intr(|| rustix::fs::openat(&parent, name, flags, FILE_MODE))?;
        if self.copies_on_write {
            forbid_copy_on_write(&fd);
        }
        Ok(self.file(fd.into(), true))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let writable = access == Access::Write;
        let flags = FILE | if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let fd = match self.open_at_once(path, flags) {
            Some(fd) => fd,
            None => {
                let (parent, name) = self.parent(path)?;
                open_at(&parent, name, flags)?
            }
        };
        Ok(self.file(regular(fd)?, writable))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&from_parent, from_name, &to_parent, to_name, flags) {
                // Not every file system knows the flag.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                done => return Ok(done?),
            }
        }
        // Somebody could take the name between the look and the rename; the lock of the log says that nobody does.
        match rustix::fs::statat(&to_parent, to_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(Errno::NOENT) => Ok(rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name)?),
            Err(error) => Err(error.into()),
        }
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((parent, from_name), (_, to_name)) = (self.parent(from)?, self.parent(to)?);
        Ok(rustix::fs::renameat(&parent, from_name, &parent, to_name)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(&parent, name, AtFlags::empty())?)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(dir)?;
        Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
    }

    /// Half of what the process may have open is for others than segments.
    fn is_crowded(&self) -> bool {
        let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        cfg!(target_os = "linux") && self.open_files.load(Ordering::Relaxed) as u64 > limit / 2
    }

    fn elsewhere(&self, root: &Path, create: bool) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(Disk::open(root, create)?))
    }

    fn link(&self, path: &Path, other: &dyn Storage, to: &Path) -> io::Result<()> {
        let other: &dyn Any = other;
        let other: &Disk = other.downcast_ref().ok_or(io::ErrorKind::CrossesDevices)?;
        let (from_parent, from_name) = self.parent(path)?;
        let (to_parent, to_name) = other.parent(to)?;
        Ok(rustix::fs::linkat(&from_parent, from_name, &to_parent, to_name, AtFlags::empty())?)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::File::from(self.directory(dir)?).sync_all()
    }
}

/// The lock file, locked until this is dropped or the process dies.
#[derive(Debug)]
struct DiskLock {
    file: std::fs::File,
    /// The process that took it.
    holder: u32,
}

impl Lock for DiskLock {}

impl Drop for DiskLock {
    /// Closing the file would not do: when another thread starts a process just now, that has the file too until it
    /// executes its program, and the lock belongs to all who have it.
    fn drop(&mut self) {
        // In a forked child it is the parent's lock.
        if self.holder == std::process::id() {
            // If it fails, closing frees the lock nearly as soon.
            drop(self.file.unlock());
        }
    }
}

/// An open file.
#[derive(Debug)]
struct DiskFile {
    file: std::fs::File,
    writable: bool,
    copies_on_write: bool,
    /// How many there are of this log.
    open_files: Arc<AtomicUsize>,
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        self.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let len = self.len()?;
        if len != from || to < from {
            let reason = format!("a file of {len} bytes cannot grow from {from} to {to}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        if from == to {
            return Ok(());
        }
        within_limit(to, rustix::process::getrlimit(Resource::Fsize).current)?;
        let done = match reserve(&self.file, from, to) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => write_zeros(&self.file, from, to),
            done => done,
        };
        if done.is_err() {
            // Some file systems keep the part that they could allocate. If cutting it off fails too, the caller learns
            // the first error, and the bytes left behind are zeros.
            self.file.set_len(from).ok();
        }
        done
    }

    fn release(&self, from: u64) -> io::Result<()> {
        let len = self.len()?;
        if from < len { punch(&self.file, from..len) } else { Ok(()) }
    }

    fn reclaim(&self, range: Range<u64>) -> io::Result<()> {
        if range.end > self.len()? {
            let reason = format!("bytes {range:?} do not lie in the file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        if range.is_empty() {
            return Ok(());
        }
        match reserve(&self.file, range.start, range.end) {
            // Who cannot allocate cannot release either, so what was written is there.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            done => done,
        }
    }

    fn is_shared(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 1)
    }

    fn room(&self) -> io::Result<u64> {
        /// What a block is to `stat`, whatever it is to the file system.
        const BLOCK_BYTES: u64 = 512;
        Ok(self.file.metadata()?.blocks() * BLOCK_BYTES)
    }

    fn data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use rustix::fs::{SeekFrom, seek};
            match seek(&self.file, SeekFrom::Data(from)) {
                Err(Errno::NXIO) => return Ok(None),
                // A file system that does not know its holes has none.
                Err(Errno::INVAL) => {}
                // The end of the file counts as one.
                found => {
                    let start = found?;
                    return Ok(Some(start..seek(&self.file, SeekFrom::Hole(start))?));
                }
            }
        }
        let len = self.len()?;
        Ok(Some(from..len).filter(|data| data.start < data.end))
    }

    fn map(&self, capacity: u64) -> io::Result<Memory> {
        Ok(Memory::map(&self.file, capacity, self.writable)?.copied_on_write(self.writable && self.copies_on_write))
    }

    fn copy(&self, length: u64) -> io::Result<Memory> {
        Memory::filled(length, |bytes| self.read(bytes))
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            match retry_on_intr(|| rustix::io::pread(&self.file, &mut bytes[at..], at as u64))? {
                0 => break,
                count => at += count,
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Linux syncs a part of a file for who writes it, so it is written once more.
    fn sync_start(&self, bytes: &[u8]) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use rustix::io::{ReadWriteFlags, pwritev2};
            let parts = [io::IoSlice::new(bytes)];
            match retry_on_intr(|| pwritev2(&self.file, &parts, 0, ReadWriteFlags::DSYNC)) {
                Ok(count) if count == bytes.len() => return Ok(()),
                // Not every file system knows the flag, and a sync of the whole file is one of its start.
                Ok(_) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let _ = bytes;
        self.sync()
    }
}

/// Makes `root` and what is missing above it, and makes the names of all that was made durable.
fn make_root(root: &Path) -> Result<()> {
    let mut missing = Vec::new();
    let mut path = root;
    while !path.exists() {
        missing.push(path);
        match path.parent() {
            Some(parent) => path = parent,
            None => break,
        }
    }
    for directory in missing.into_iter().rev() {
        let mut builder = std::fs::DirBuilder::new();
        if directory == root {
            builder.mode(DIRECTORY_MODE.into());
        }
        match builder.create(directory) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => done.map_err(Error::io("create", || directory))?,
        }
        if let Some(parent) = directory.parent() {
            std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(Error::io("sync", || parent))?;
        }
    }
    Ok(())
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a path below the root of the log")
}

fn open_at(directory: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(retry_on_intr(|| rustix::fs::openat(directory, name, flags, Mode::empty()))?)
}

/// Refuses what is no regular file: nothing is read from a device, nor written to a pipe.
fn regular(fd: OwnedFd) -> io::Result<std::fs::File> {
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::RegularFile => Ok(fd.into()),
        other => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a regular file but {other:?}"))),
    }
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    }
}

/// The process that has left its number in the lock file.
fn holder(file: &std::fs::File) -> Option<u32> {
    // The longest number, and a line end.
    let mut text = [0; 11];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim_end().parse().ok()
}

/// Leaves the number of this process in the lock file, which is a courtesy to whoever is refused: on a full disk it does
/// without.
fn sign(file: &std::fs::File) {
    let text = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0)).ok();
}

/// Refuses a length past the limit of the process, before the system answers it with a signal that kills.
fn within_limit(to: u64, limit: Option<u64>) -> io::Result<()> {
    match limit {
        Some(limit) if to > limit => {
            let reason = format!("{to} bytes are over the file size limit of the process, {limit} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, reason))
        }
        _ => Ok(()),
    }
}

/// Allocates the bytes from `from` to `to`, or says that this cannot be done here.
fn reserve(file: &std::fs::File, from: u64, to: u64) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mode = rustix::fs::FallocateFlags::empty();
        match retry_on_intr(|| rustix::fs::fallocate(file, mode, from, to - from)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            done => Ok(done?),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (file, from, to);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Gives back the blocks that lie in `range` as a whole, if the file system can.
fn punch(file: &std::fs::File, range: Range<u64>) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::FallocateFlags;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| rustix::fs::fallocate(file, mode, range.start, range.end - range.start)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (file, range);
        Ok(())
    }
}

fn write_zeros(file: &std::fs::File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let part = (to - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..part as usize], at)?;
        at += part;
    }
    Ok(())
}

/// Whether rewriting an allocated page takes new space here, which a full disk does not have.
#[cfg(target_os = "linux")]
fn copies_on_write(directory: impl AsFd) -> bool {
    const BTRFS: u64 = 0x9123_683e;
    // Only what was copied with `cp --reflink` or its like, which nobody can see from here.
    const XFS: u64 = 0x5846_5342;
    rustix::fs::fstatfs(directory).is_ok_and(|system| matches!(system.f_type as u64, BTRFS | XFS))
}

#[cfg(not(target_os = "linux"))]
fn copies_on_write(_directory: impl AsFd) -> bool {
    false
}

/// Asks for pages to be rewritten in place. Takes effect only while the file is empty; where it is refused, the log is
/// as safe as the file system, and no reason not to work.
#[cfg(target_os = "linux")]
fn forbid_copy_on_write(file: impl AsFd) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | IFlags::NOCOW)).ok();
}

#[cfg(not(target_os = "linux"))]
fn forbid_copy_on_write(_file: impl AsFd) {}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::env::storage::region::Region;

    fn disk() -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(&dir.path().join("log"), true).unwrap();
        (dir, disk)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_root_is_made_with_its_parents_and_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b/log");

        let disk = Disk::open(&root, true).unwrap();

        assert_eq!(disk.root(), root);
        assert_eq!(mode(&root), 0o700);
        assert_ne!(mode(&dir.path().join("a")), 0o700);
        Disk::open(&root, true).unwrap();
    }

    #[test]
    fn a_root_that_is_missing_or_a_file_is_refused_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();

        let missing = Disk::open(&dir.path().join("log"), false).unwrap_err();
        let file = Disk::open(&dir.path().join("file"), true).unwrap_err();
        let below = Disk::open(&dir.path().join("file/log"), true).unwrap_err();

        assert!(matches!(missing, Error::NotALog { path } if path == dir.path().join("log")));
        assert!(matches!(file, Error::Io { .. }) && matches!(below, Error::Io { .. }));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_relative_root_is_told_in_full() {
        let disk = Disk::open(Path::new("."), false).unwrap();

        assert!(disk.root().is_absolute());
    }

    #[test]
    fn files_and_directories_are_for_the_owner_alone_and_taken_names_are_refused() {
        let (_dir, disk) = disk();

        disk.create_dir(Path::new("topics")).unwrap();
        disk.create(Path::new("topics/log")).unwrap();

        assert_eq!(mode(&disk.root().join("topics")), 0o700);
        assert_eq!(mode(&disk.root().join("topics/log")), 0o600);
        for error in [
            disk.create_dir(Path::new("topics")).unwrap_err(),
            disk.create_dir(Path::new("topics/log")).unwrap_err(),
            disk.create(Path::new("topics/log")).unwrap_err(),
            disk.create(Path::new("topics")).unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
    }

    #[test]
    fn a_file_grows_and_what_is_stored_through_a_map_is_in_it() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("log")).unwrap();
        file.allocate(0, 4096).unwrap();
        let (region, mut pen) = Region::new(file.map(1 << 20).unwrap(), file.len().unwrap());

        pen.spare(0..4096).fill(1);
        file.allocate(4096, 10_000).unwrap();
        pen.extend(10_000);
        pen.spare(9_000..10_000).fill(2);
        pen.adopt(10_000);
        file.sync().unwrap();
        disk.sync_dir(Path::new("")).unwrap();

        let bytes = fs::read(disk.root().join("log")).unwrap();
        assert_eq!(bytes, region.bytes());
        assert_eq!((bytes[4095], bytes[4096], bytes[8_999], bytes[9_000]), (1, 0, 0, 2));
        assert!(fs::metadata(disk.root().join("log")).unwrap().blocks() * 512 >= 10_000);
    }

    #[test]
    fn room_that_is_given_back_reads_as_zeros_and_can_be_had_again() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("log")).unwrap();
        file.allocate(0, 1 << 20).unwrap();
        let (region, mut pen) = Region::new(file.map(1 << 20).unwrap(), 1 << 20);
        pen.spare(0..5000).fill(7);
        pen.adopt(5000);
        let before = file.room().unwrap();

        file.release(8192).unwrap();

        assert_eq!((file.len().unwrap(), region.bytes()), (1 << 20, &[7; 5000][..]));
        assert!(before >= 1 << 20 && file.room().unwrap() < 64 << 10, "{before}, then {}", file.room().unwrap());
        assert_eq!(file.data(0).unwrap(), Some(0..8192));
        assert_eq!(file.data(8192).unwrap(), None);
        assert!(pen.unread(8192..1 << 20).iter().all(|byte| *byte == 0));

        file.reclaim(8192..1 << 20).unwrap();
        pen.spare(8192..9000).fill(8);
        assert!(file.room().unwrap() >= 1 << 20);
        assert_eq!(file.reclaim(0..(1 << 20) + 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(fs::read(disk.root().join("log")).unwrap()[8190..8194], [0, 0, 8, 8]);
    }

    #[test]
    fn growing_from_a_length_that_the_file_has_not_is_refused() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("log")).unwrap();
        file.allocate(0, 100).unwrap();

        assert_eq!(file.allocate(0, 200).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(file.allocate(100, 99).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(file.allocate(101, 200).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        file.allocate(100, 100).unwrap();

        assert_eq!(file.len().unwrap(), 100);
    }

    #[test]
    fn a_length_that_no_file_can_have_is_an_error_and_leaves_the_file_as_it_was() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("log")).unwrap();
        file.allocate(0, 100).unwrap();

        file.allocate(100, i64::MAX as u64).unwrap_err();

        assert_eq!(file.len().unwrap(), 100);
    }

    #[test]
    fn a_file_size_limit_is_an_error_before_it_is_a_signal() {
        assert_eq!(within_limit(101, Some(100)).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        within_limit(100, Some(100)).unwrap();
        within_limit(u64::MAX, None).unwrap();
    }

    #[test]
    fn zeros_are_written_where_space_cannot_be_allocated() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10], 0).unwrap();

        write_zeros(&file, 10, 200_001).unwrap();

        assert_eq!(file.metadata().unwrap().len(), 200_001);
        assert!(file.metadata().unwrap().blocks() * 512 >= 200_001);
        let mut bytes = [0; 11];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
    }

    #[test]
    fn a_file_that_was_opened_for_reading_is_mapped_for_reading() {
        let (_dir, disk) = disk();
        disk.create(Path::new("log")).unwrap().allocate(0, 4096).unwrap();
        fs::set_permissions(disk.root().join("log"), fs::Permissions::from_mode(0o400)).unwrap();

        let file = disk.open(Path::new("log"), Access::Read).unwrap();
        let (region, pen) = Region::new(file.map(8192).unwrap(), file.len().unwrap());

        assert_eq!(pen.unread(0..4096), [0; 4096]);
        assert_eq!(region.capacity(), 8192);
        assert!(file.allocate(4096, 8192).is_err());
        assert_eq!(file.len().unwrap(), 4096);
    }

    #[test]
    fn nothing_is_opened_through_a_link() {
        let (dir, disk) = disk();
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        fs::write(dir.path().join("elsewhere/file"), b"secret").unwrap();
        symlink("../elsewhere", disk.root().join("directory")).unwrap();
        symlink("../elsewhere/file", disk.root().join("file")).unwrap();
        symlink("../elsewhere/new", disk.root().join("LOCK")).unwrap();

        for access in [Access::Read, Access::Write] {
            assert!(disk.open(Path::new("directory/file"), access).is_err());
            assert!(disk.open(Path::new("file"), access).is_err());
        }
        assert!(disk.create(Path::new("directory/new")).is_err());
        assert!(disk.create_dir(Path::new("directory/new")).is_err());
        assert!(disk.list(Path::new("directory")).is_err());
        assert!(disk.remove(Path::new("directory/file")).is_err());
        assert!(disk.rename(Path::new("directory/file"), Path::new("mine")).is_err());
        assert!(disk.sync_dir(Path::new("directory")).is_err());
        assert!(matches!(disk.lock().unwrap_err(), LockError::Io(_)));

        assert_eq!(fs::read(dir.path().join("elsewhere/file")).unwrap(), b"secret");
        assert_eq!(fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 1);
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        let (_dir, disk) = disk();

        for path in ["..", "../x", "/etc/passwd", "a/../../x", ".", ""] {
            let error = disk.open(Path::new(path), Access::Read).unwrap_err();
            assert!(
                matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound),
                "{path:?}: {error:?}"
            );
        }
        assert_eq!(disk.list(Path::new("..")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(disk.list(Path::new("/")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
        let (_dir, disk) = disk();
        disk.create_dir(Path::new("directory")).unwrap();
        rustix::fs::mknodat(&disk.directory, "pipe", FileType::Fifo, FILE_MODE, 0).unwrap();
        rustix::fs::mknodat(&disk.directory, LOCK, FileType::Fifo, FILE_MODE, 0).unwrap();

        for access in [Access::Read, Access::Write] {
            assert!(disk.open(Path::new("directory"), access).is_err());
            assert!(disk.open(Path::new("pipe"), access).is_err());
        }
        assert!(matches!(disk.lock().unwrap_err(), LockError::Io(_)));
    }

    #[test]
    fn a_listing_is_sorted_and_says_what_everything_is() {
        let (_dir, disk) = disk();
        disk.create(Path::new("b")).unwrap();
        disk.create_dir(Path::new("c")).unwrap();
        symlink("b", disk.root().join("a")).unwrap();
        fs::write(disk.root().join(OsStr::from_bytes(b"\xff")), b"").unwrap();

        let entries = disk.list(Path::new("")).unwrap();

        let expected = [("a", Kind::Other), ("b", Kind::File), ("c", Kind::Directory)];
        assert_eq!(entries, expected.map(|(name, kind)| Entry { name: name.to_owned(), kind }));
        assert_eq!(disk.list(Path::new("c")).unwrap(), []);
        assert_eq!(disk.list(Path::new("d")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_rename_replaces_nothing() {
        let (_dir, disk) = disk();
        disk.create_dir(Path::new("dir")).unwrap();
        disk.create(Path::new("a")).unwrap().allocate(0, 1).unwrap();
        disk.create(Path::new("b")).unwrap();

        assert_eq!(disk.rename(Path::new("a"), Path::new("b")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.rename(Path::new("c"), Path::new("d")).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.rename(Path::new("a"), Path::new("dir/a")).unwrap();
        disk.rename(Path::new("dir"), Path::new("other")).unwrap();

        assert_eq!(disk.open(Path::new("other/a"), Access::Read).unwrap().len().unwrap(), 1);
        assert_eq!(disk.open(Path::new("b"), Access::Read).unwrap().len().unwrap(), 0);
    }

    #[test]
    fn a_file_with_two_names_is_one_file_and_goes_with_the_last_of_them() {
        let (dir, disk) = disk();
        let copy = disk.elsewhere(&dir.path().join("copy"), true).unwrap();
        let file = disk.create(Path::new("log")).unwrap();
        file.allocate(0, 4096).unwrap();
        assert!(!file.is_shared().unwrap());

        disk.link(Path::new("log"), &*copy, Path::new("log")).unwrap();

        let (_, mut pen) = Region::new(file.map(4096).unwrap(), 4096);
        pen.publish(0, 42, 8);
        let (_, other) = Region::new(copy.open(Path::new("log"), Access::Read).unwrap().map(4096).unwrap(), 4096);
        assert_eq!((other.word(0), file.is_shared().unwrap()), (42, true));
        let again = disk.link(Path::new("log"), &*copy, Path::new("log")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        disk.remove(Path::new("log")).unwrap();
        assert!(!copy.open(Path::new("log"), Access::Read).unwrap().is_shared().unwrap());
        assert_eq!(disk.link(Path::new("log"), &*copy, Path::new("x")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn who_has_a_removed_file_mapped_keeps_reading_it() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("log")).unwrap();
        file.allocate(0, 4096).unwrap();
        let (region, mut pen) = Region::new(file.map(4096).unwrap(), 4096);
        pen.publish(0, 42, 8);
        drop((file, pen));

        disk.remove(Path::new("log")).unwrap();

        assert_eq!(region.word(0), 42);
        assert_eq!(disk.remove(Path::new("log")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_an_empty_directory_is_removed() {
        let (_dir, disk) = disk();
        disk.create_dir(Path::new("dir")).unwrap();
        disk.create(Path::new("dir/file")).unwrap();

        disk.remove_dir(Path::new("dir")).unwrap_err();
        disk.remove_dir(Path::new("dir/file")).unwrap_err();
        disk.remove(Path::new("dir")).unwrap_err();
        disk.remove(Path::new("dir/file")).unwrap();
        disk.remove_dir(Path::new("dir")).unwrap();

        assert_eq!(disk.list(Path::new("")).unwrap(), []);
    }

    #[test]
    fn the_lock_is_held_once_and_names_who_holds_it() {
        let (_dir, disk) = disk();
        fs::write(disk.root().join(LOCK), b"4294967295\n and more").unwrap();

        let lock = disk.lock().unwrap();
        let again = disk.lock().unwrap_err();
        let other = Disk::open(disk.root(), false).unwrap().lock().unwrap_err();

        assert!(matches!(again, LockError::Held(Some(pid)) if pid == std::process::id()));
        assert!(matches!(other, LockError::Held(Some(pid)) if pid == std::process::id()));
        assert_eq!(fs::read_to_string(disk.root().join(LOCK)).unwrap(), format!("{}\n", std::process::id()));
        drop(lock);
        disk.lock().unwrap();
    }

    #[test]
    fn the_lock_ends_although_a_process_that_is_being_started_still_has_its_file() {
        let (_dir, disk) = disk();
        let file = disk.lock_file().unwrap();
        file.try_lock().unwrap();
        let inherited = file.try_clone().unwrap();

        drop(DiskLock { file, holder: std::process::id() });

        disk.lock().unwrap();
        drop(inherited);
    }

    #[test]
    fn a_holder_that_left_no_number_is_nobody_in_particular() {
        let (_dir, disk) = disk();
        let file = disk.lock_file().unwrap();
        file.lock().unwrap();

        for text in [&b""[..], b"no number", b"99999999999999999999", b"\xff\xff"] {
            file.set_len(0).unwrap();
            file.write_all_at(text, 0).unwrap();
            assert!(matches!(disk.lock().unwrap_err(), LockError::Held(None)));
        }
    }

    #[test]
    fn a_lock_file_that_was_replaced_locks_nothing() {
        let (_dir, disk) = disk();
        let file = disk.lock_file().unwrap();
        assert_eq!(mode(&disk.root().join(LOCK)), 0o600);
        assert!(disk.is_lock_file(&file).unwrap());

        fs::remove_file(disk.root().join(LOCK)).unwrap();
        assert!(!disk.is_lock_file(&file).unwrap());
        file.lock().unwrap();
        let lock = disk.lock().unwrap();

        assert!(!disk.is_lock_file(&file).unwrap());
        drop(lock);
    }

    #[test]
    fn a_root_that_is_moved_is_not_lost() {
        let (dir, disk) = disk();
        disk.create(Path::new("a")).unwrap();

        fs::rename(disk.root(), dir.path().join("moved")).unwrap();
        disk.create(Path::new("b")).unwrap();

        assert_eq!(disk.list(Path::new("")).unwrap().len(), 2);
        assert!(dir.path().join("moved/b").exists());
    }
}
