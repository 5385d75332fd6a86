//! Copies of a log: *forks*, which share with it what is sealed, and *backups*, which share nothing with it.
//!
//! A copy is consistent: of topics and groups it holds what they were at one moment, at which no group had committed beyond
//! the end of a partition. Nobody waits for it longer than it takes to note names and ends: a log only ever grows behind what
//! was captured, and what retention would remove stays until it is copied. It keeps the identity of the log, for that stands
//! in every segment. So two logs with one identity must not exchange files: nothing would tell them apart.
//!
//! | step                                                          | if the machine stops behind it              |
//! |-----------------------------------------------------------------|-----------------------------------------------|
//! | a directory is made, with another name than the copy will have | it is no copy; the next attempt removes it    |
//! | segments of topics, then of groups, then of the catalog        | the same                                      |
//! | all of it is synced                                            | the same                                      |
//! | the directory gets its name, and that is synced                | the copy is there or it is not                |
//!
//! Where another process writes the log, nobody can hold it: the catalog is captured first, then the groups, then the
//! partitions, each at its own moment, so that no group is beyond a partition. If the catalog has changed meanwhile, or a
//! file is gone, the copy is begun anew.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::env::storage::region::{PAGE, Pen, Region};
use crate::env::storage::{Access, File, Kind, Lock, LockError, Storage};
use crate::error::{Error, Result};
use crate::format::batch::MARKER_BYTES;
use crate::format::catalog::Cut;
use crate::group::Groups;
use crate::inspect::Progress;
use crate::partition::{Capture, CapturedSegment, Partition, Pin, capture_all};

/// So much is copied between two looks at the disk and two words about progress.
const PART_BYTES: u64 = 1 << 20;

/// What the directory of a copy is called while it is made, behind its name.
const UNFINISHED: &str = ".unfinished";

/// A copy of a log that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Its directory.
    pub path: PathBuf,
    /// How many of its segments are files that another directory has, too: the log, of a fork; the previous one, of a backup.
    pub shared: usize,
    /// How many are files of its own.
    pub copied: usize,
    /// The bytes of these.
    pub copied_bytes: u64,
}

/// What a copy is to be.
pub(crate) enum Kin<'a> {
    /// Shares what is sealed with the log.
    Fork,
    /// Shares with the backup in this directory what is the same there.
    Backup(Option<&'a Path>),
}

/// Copies a log. `None`: another process has changed it meanwhile so that the copy is worth nothing, and was not finished.
pub(crate) fn copy(
    catalog: &Catalog,
    groups: &Groups,
    to: &Path,
    kin: &Kin<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Copied>> {
    let path = std::path::absolute(to).map_err(Error::io("find", || to))?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(taken(&path));
    };
    let from = &catalog.env().storage;
    let above = from.elsewhere(parent, true)?;
    let is_there = above.list(Path::new("")).map_err(Error::io("list", || parent))?;
    if is_there.iter().any(|entry| Some(entry.name.as_str()) == name.to_str()) {
        return Err(taken(&path));
    }
    let mut unfinished: OsString = name.to_owned();
    unfinished.push(UNFINISHED);
    let place = from.elsewhere(&parent.join(&unfinished), true)?;
    let _lock = lock(&*place)?;
    clear(&*place, Path::new(""))?;
    let previous = match kin {
        Kin::Backup(Some(previous)) => Some(from.elsewhere(previous, false)?),
        _ => None,
    };
    let Some(captured) = capture(catalog, groups)? else { return Ok(None) };
    let total_bytes = captured.bytes();
    let progress = Told { done: Progress { done_bytes: 0, total_bytes }, tell: progress };
    let report = Copied { path: path.clone(), shared: 0, copied: 0, copied_bytes: 0 };
    let fork = matches!(kin, Kin::Fork);
    let mut copier = Copier { from: &**from, to: &*place, fork, previous, progress, report };
    match copier.copy_all(&captured.places) {
        // Whoever writes the log has removed it since.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && catalog.is_read_only() => {
            return Ok(None);
        }
        copied => copied?,
    }
    if captured.has_changed(catalog)? {
        return Ok(None);
    }
    above.rename(Path::new(&unfinished), Path::new(name)).map_err(Error::making("name", || path.clone()))?;
    above.sync_dir(Path::new("")).map_err(Error::io("sync", || parent))?;
    Ok(Some(copier.report))
}

fn taken(path: &Path) -> Error {
    let source = io::Error::new(io::ErrorKind::AlreadyExists, "there is something already; a copy is a new directory");
    Error::Io { action: "create", path: path.to_path_buf(), source }
}

fn lock(place: &dyn Storage) -> Result<Box<dyn Lock>> {
    place.lock().map_err(|error| match error {
        LockError::Held(holder) => Error::Locked { path: place.root().to_path_buf(), holder },
        LockError::Io(source) => Error::Io { action: "lock", path: place.root().to_path_buf(), source },
    })
}

/// Removes what an earlier attempt left, but for its lock.
fn clear(place: &dyn Storage, dir: &Path) -> Result<()> {
    let full = |path: &Path| place.root().join(path);
    for entry in place.list(dir).map_err(Error::io("list", || full(dir)))? {
        let path = dir.join(&entry.name);
        if entry.kind == Kind::Directory {
            clear(place, &path)?;
            place.remove_dir(&path).map_err(Error::io("remove", || full(&path)))?;
        } else if path != Path::new("LOCK") {
            place.remove(&path).map_err(Error::io("remove", || full(&path)))?;
        }
    }
    Ok(())
}

/// A log as of one moment.
struct Captured {
    /// In the order in which they are copied: the catalog last.
    places: Vec<Capture>,
    /// The topics, and where their partitions were cut last.
    topics: Vec<(u128, Vec<Option<Cut>>)>,
    /// Keeps the files.
    _pins: Vec<Pin>,
}

impl Captured {
    fn bytes(&self) -> u64 {
        self.places.iter().flat_map(|place| &place.segments).map(|segment| segment.bytes).sum()
    }

    /// Whether another process has cut or deleted what was captured.
    fn has_changed(&self, catalog: &Catalog) -> Result<bool> {
        if catalog.is_read_only() {
            catalog.follow()?;
        }
        let now = topics_of(catalog);
        Ok(self.topics.iter().any(|topic| !now.contains(topic)))
    }
}

fn topics_of(catalog: &Catalog) -> Vec<(u128, Vec<Option<Cut>>)> {
    let topics = catalog.topics();
    topics.iter().map(|topic| (topic.id(), catalog.recorded_cuts(topic.id(), topic.count()))).collect()
}

fn partitions_of(catalog: &Catalog) -> Vec<Arc<Partition>> {
    catalog.topics().iter().flat_map(|topic| topic.partitions()).collect()
}

fn capture(catalog: &Catalog, groups: &Groups) -> Result<Option<Captured>> {
    if catalog.is_read_only() { capture_beside(catalog, groups) } else { capture_own(catalog, groups).map(Some) }
}

/// All of a log that this process writes as of one moment, and the catalog as of one just before.
fn capture_own(catalog: &Catalog, groups: &Groups) -> Result<Captured> {
    // What is sealed can be shared once it is synced.
    for partition in partitions_of(catalog).iter().chain(&groups.partitions()).chain([catalog.table()]) {
        partition.sync_to(partition.log_end(), None)?;
    }
    loop {
        let tables = groups.partitions();
        let captured = catalog.while_unchanged(|| {
            let mut all = tables.clone();
            all.extend(partitions_of(catalog));
            let pins = all.iter().chain([catalog.table()]).map(Partition::pin).collect();
            let of_catalog = capture_all(&[Arc::clone(catalog.table())]);
            let mut places = capture_all(&all);
            places.extend(of_catalog);
            Captured { places, topics: topics_of(catalog), _pins: pins }
        });
        // A group that has come since may be known to the catalog as it was captured.
        if groups.partitions().len() == tables.len() {
            return Ok(captured);
        }
    }
}

/// A log that another process writes: catalog, groups, partitions, in this order. `None`: the catalog has changed meanwhile.
fn capture_beside(catalog: &Catalog, groups: &Groups) -> Result<Option<Captured>> {
    let known = catalog.table().log_end();
    let of_catalog = capture_all(&[Arc::clone(catalog.table())]);
    let mut places = capture_all(&groups.partitions());
    catalog.follow()?;
    places.extend(capture_all(&partitions_of(catalog)));
    let topics = topics_of(catalog);
    catalog.follow()?;
    if catalog.table().log_end() != known {
        return Ok(None);
    }
    places.extend(of_catalog);
    Ok(Some(Captured { places, topics, _pins: Vec::new() }))
}

/// How far it is, and who is told.
struct Told<'a> {
    done: Progress,
    tell: &'a mut dyn FnMut(Progress),
}

impl Told<'_> {
    fn add(&mut self, bytes: u64) {
        self.done.done_bytes = (self.done.done_bytes + bytes).min(self.done.total_bytes);
        (self.tell)(self.done);
    }
}

struct Copier<'a> {
    from: &'a dyn Storage,
    to: &'a dyn Storage,
    fork: bool,
    previous: Option<Arc<dyn Storage>>,
    progress: Told<'a>,
    report: Copied,
}

impl Copier<'_> {
    /// Makes all directories and files, and makes them durable.
    fn copy_all(&mut self, places: &[Capture]) -> Result<()> {
        let mut made: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::new()]);
        for place in places {
            for dir in place.dir.ancestors().collect::<Vec<_>>().into_iter().rev() {
                if made.insert(dir.to_path_buf()) {
                    self.to.create_dir(dir).map_err(Error::making("create", || self.to.root().join(dir)))?;
                }
            }
            for segment in &place.segments {
                let before = self.progress.done.done_bytes;
                if !self.share(segment)? {
                    self.report.copied_bytes += self.copy_file(segment)?;
                    self.report.copied += 1;
                }
                let told = self.progress.done.done_bytes - before;
                self.progress.add(segment.bytes.saturating_sub(told));
            }
        }
        // The names below a directory before its own.
        for dir in made.iter().rev() {
            self.to.sync_dir(dir).map_err(Error::io("sync", || self.to.root().join(dir)))?;
        }
        Ok(())
    }

    /// Gives a file that is settled its second name, if that is wanted; whether it has one.
    fn share(&mut self, segment: &CapturedSegment) -> Result<bool> {
        if !segment.settled {
            return Ok(false);
        }
        if self.fork {
            self.from
                .link(&segment.path, self.to, &segment.path)
                .map_err(|error| self.cannot_share(segment, &error))?;
            self.report.shared += 1;
            return Ok(true);
        }
        let Some(previous) = self.previous.clone() else { return Ok(false) };
        if !self.is_same(segment, &*previous)? || previous.link(&segment.path, self.to, &segment.path).is_err() {
            return Ok(false);
        }
        self.report.shared += 1;
        Ok(true)
    }

    fn cannot_share(&self, segment: &CapturedSegment, error: &io::Error) -> Error {
        let path = self.from.root().join(&segment.path);
        if error.kind() == io::ErrorKind::NotFound {
            return Error::Io { action: "link", path, source: io::ErrorKind::NotFound.into() };
        }
        let reason = format!(
            "{error}; a fork shares files with its log, so {} must lie on the same file system, and that must know hard \
             links; a backup can lie anywhere",
            self.report.path.display()
        );
        Error::Io { action: "link", path, source: io::Error::new(error.kind(), reason) }
    }

    /// Whether the previous backup has the same bytes. Names, lengths and times would not do: a log that went on from that
    /// backup has other records in files of the same name.
    fn is_same(&self, segment: &CapturedSegment, previous: &dyn Storage) -> Result<bool> {
        let Ok(other) = previous.open(&segment.path, Access::Read) else { return Ok(false) };
        let source = self.open(segment)?;
        let (length, other_length) = (self.length(segment, &*source)?, other.len().unwrap_or(0));
        if length == 0 || other_length < length {
            return Ok(false);
        }
        let (ours, theirs) = (self.map(segment, &*source, length)?, other.map(other_length));
        let Ok((_, theirs)) = theirs.map(|memory| Region::new(memory, other_length)) else { return Ok(false) };
        let mut at = 0;
        while at < other_length {
            let part = at..(at + PART_BYTES).min(other_length);
            self.check_readable(segment, &ours, part.start..part.end.min(length))?;
            if theirs.check_readable(part.clone()).is_err() {
                return Ok(false);
            }
            let ours = if part.start < length { ours.unread(part.start..part.end.min(length)) } else { &[] };
            let (same, rest) = theirs.unread(part.clone()).split_at(ours.len());
            if same != ours || rest.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at = part.end;
        }
        Ok(true)
    }

    fn open(&self, segment: &CapturedSegment) -> Result<Arc<dyn File>> {
        self.from.open(&segment.path, Access::Read).map_err(Error::io("open", || self.from.root().join(&segment.path)))
    }

    /// How many bytes are copied: a marker behind the end of what is sealed belongs to it.
    fn length(&self, segment: &CapturedSegment, source: &dyn File) -> Result<u64> {
        let there = source.len().map_err(Error::io("measure", || self.from.root().join(&segment.path)))?;
        let marker = if segment.settled { MARKER_BYTES as u64 } else { 0 };
        Ok((segment.bytes + marker).min(there))
    }

    fn map(&self, segment: &CapturedSegment, file: &dyn File, length: u64) -> Result<Pen> {
        let memory = file.map(length).map_err(Error::io("map", || self.from.root().join(&segment.path)))?;
        Ok(Region::new(memory, length).1)
    }

    fn check_readable(&self, segment: &CapturedSegment, pen: &Pen, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        pen.check_readable(range).map_err(Error::io("read", || self.from.root().join(&segment.path)))
    }

    /// Copies a file, as far as it was written; returns how many bytes that were.
    fn copy_file(&mut self, segment: &CapturedSegment) -> Result<u64> {
        let full = || self.to.root().join(&segment.path);
        let source = self.open(segment)?;
        let length = self.length(segment, &*source)?;
        let target = self.to.create(&segment.path).map_err(Error::making("create", full))?;
        if length == 0 {
            return target.sync().map(|()| 0).map_err(Error::io("sync", full));
        }
        let room = length.next_multiple_of(PAGE);
        let no_room = |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::NoSpace { path: full(), bytes: room, source }
            }
            _ => Error::Io { action: "allocate", path: full(), source },
        };
        target.allocate(0, room).map_err(no_room)?;
        let old = self.map(segment, &*source, length)?;
        let memory = target.map(room).map_err(Error::io("map", full))?;
        let (_, mut new) = Region::new(memory, room);
        new.prepare(0..room).map_err(no_room)?;
        let mut at = 0;
        // What the file system holds no bytes of is zero here as there.
        while let Some(data) = source.data(at).map_err(Error::io("read", full))?.filter(|data| data.start < length) {
            at = data.start;
            let end = data.end.min(length);
            while at < end {
                let part = at..(at + PART_BYTES).min(end);
                self.check_readable(segment, &old, part.clone())?;
                new.spare(part.clone()).copy_from_slice(old.unread(part.clone()));
                self.progress.add(part.end - part.start);
                at = part.end;
            }
        }
        target.sync().map_err(Error::io("sync", full))?;
        Ok(length)
    }
}
