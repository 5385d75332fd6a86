//! Recovery: what a partition holds after whatever happened to it.
//!
//! | what stands where a batch was due                              | what it means               | what is done                        |
//! |-----------------------------------------------------------------|-----------------------------|-------------------------------------|
//! | zeros up to the end of the newest segment                      | the end                     | go on there                         |
//! | no batch, or no segment, its offset at or above the witness     | a torn tail, never promised | zero it, and all that follows       |
//! | no batch, and its offset is below the witness                  | damage to promised data     | keep it, report it, go on behind it |
//! | a segment ends before its successor begins, below the witness  | damage                      | the same                            |
//! | no batch, where the successor begins                            | a marker was there          | go on in the successor              |
//! | a segment that its neighbours name is not there                | damage                      | the same                            |
//! | no batch, and a rolled marker ends the segment                  | damage, at any offset       | keep it, report it, go on behind it |
//! | no segment, where a rolled marker says that one begins          | its successor is gone       | report it, go on in a later one, or far behind it |
//! | a header that is not whole, or of another partition            | damage, or a foreign file   | never touch it, report it           |
//! | the latter, with the name of an offset in the segment before    | a stray file                | set it aside, report it             |
//! | no segment at all, in a partition that the catalog knows        | all are gone                | report it, go on far behind it      |
//! | segments below the log start offset that the catalog knows      | deleted on purpose          | remove them                         |
//! | segments that a compacted one before them stands for            | compaction was interrupted  | remove them, if that one is whole   |
//! | segments of an earlier epoch beyond the cut that it knows       | cut off on purpose          | remove them                         |
//! | batches at or above the cut, in the last segment, of an earlier epoch | the same              | pass them over, go on in a new one  |
//!
//! The *witness* is the highest durable end offset that any whole batch or header says, or the catalog, which was told
//! when the log was last closed. A damaged newest segment is never appended to: a new one begins behind everything that
//! can have been given to anybody. If the log was closed and not opened since, that is where it was closed. Otherwise
//! nobody knows: a segment cannot hold more than [`MOST_OFFSETS`], and no opening appends more than [`FAR`], so that
//! the partition goes on behind the one or the other.
//!
//! What is offered afterwards is durable, and what was cut is durably gone: the cut part is zeroed, every page kept
//! above the witness is made dirty again (after a lost write-back the page cache shows what the disk does not
//! have), files and directory are synced. All of it may be interrupted anywhere and repeated, and needs no new space.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::MAX_SEGMENT_BYTES;
use crate::env::Env;
use crate::env::storage::region::{PAGE, Pen, Region};
use crate::env::storage::{Access, File, Kind, are_zero, path_in};
use crate::error::{Damage, Error, Flaw, Result};
use crate::format::batch::{self, ALIGNMENT, Batch, MARKER_BYTES, Marker, Walk};
use crate::format::catalog::Cut;
use crate::format::segment::{self, Compacted, HEADER_BYTES, Header, Predecessor};
use crate::partition::Home;
use crate::partition::handle::Handle;
use crate::partition::segment::{Hole, Met, Segment};
use crate::partition::slot::Slot;
use crate::types::Offset;

/// A record takes at least eight bytes, so no more offsets than this can have been given in one segment.
const MOST_OFFSETS: u64 = MAX_SEGMENT_BYTES as u64 / 8;

/// More records than one opening of the log appends to a partition: a trillion.
const FAR: u64 = 1 << 40;

/// Openings are counted no further than this when a partition goes on behind all that they can have appended: the
/// offset would leave the range of a signed number, which is Kafka's.
const MOST_OPENINGS: u64 = 1 << 22;

/// What is known of a partition before anybody looks at its files.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// Whether it was ever made: then it has a segment, or has lost it.
    pub(crate) made: bool,
    /// Where it begins; `None`: wherever its first segment does.
    pub(crate) start: Option<Offset>,
    /// Where it was cut last.
    pub(crate) cut: Option<Cut>,
    /// Everything below was durable when the log was last closed.
    pub(crate) durable_end: Offset,
    /// Whether nothing was appended since.
    pub(crate) closed: bool,
    /// Of this opening.
    pub(crate) epoch: u32,
}

/// What opening a partition found and did.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionReport {
    pub(crate) segments: usize,
    /// Bytes of batches that were read and checked.
    pub(crate) bytes_read: u64,
    /// Bytes that were zeroed or removed as a torn tail.
    pub(crate) bytes_cut: u64,
    pub(crate) damage: Vec<Damage>,
}

/// The segment that is appended to, or followed.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) pen: Pen,
    pub(crate) file: Arc<dyn File>,
    /// Up to here there is room for what is to come; behind it nobody knows.
    pub(crate) roomy: u64,
    /// Behind its last whole batch.
    pub(crate) walk: Walk,
}

/// What a partition holds.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// All segments, the active one too, in the order of their offsets.
    pub(crate) slots: Vec<Arc<Slot>>,
    /// `None`: the next append begins a new segment at `next`.
    pub(crate) active: Option<Active>,
    /// Named by the header of that new segment.
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) start: Offset,
    pub(crate) next: Offset,
    /// What some batch or header proves to be durable.
    pub(crate) witness: Offset,
    /// The highest that any header or walked batch says.
    pub(crate) epoch: u32,
    pub(crate) report: PartitionReport,
}

/// A segment file and its header.
struct Head {
    base: Offset,
    path: PathBuf,
    length: u64,
    header: Result<Header, Flaw>,
    salt: u32,
}

/// A segment whose batches were walked over.
struct Scan {
    active: Active,
    holes: Vec<Hole>,
    /// What stands behind the last whole batch, if not zeros.
    tail: Option<Flaw>,
    witness: Offset,
    /// Whether a rolled marker ends it: all of it was synced, and the next segment had its name.
    rolled: bool,
}

/// Finds out what the partition holds; with [`Access::Write`] makes it so on the disk.
pub(crate) fn recover(home: &Home, access: Access, known: Known) -> Result<Recovered> {
    // What was deleted on purpose was durable, and so was what a cut left.
    let (witness, epoch) =
        (known.durable_end.max(known.start.unwrap_or(Offset::ZERO)), known.cut.map_or(0, |cut| cut.epoch));
    let mut recovery = Recovery { home, access, known, report: PartitionReport::default(), witness, epoch };
    let heads = recovery.drop_strays(drop_replaced(home, access, read_heads(home, access)?, known.cut)?)?;
    let heads = drop_deleted(home, access, heads, known.start)?;
    let heads = drop_cut(home, access, heads, known.cut)?;
    recovery.report.segments = heads.len();
    let scans = recovery.scan_unproven(&heads)?;
    recovery.judge(&heads, scans)
}

/// The base offset of the newest segment, going by the names alone.
pub(crate) fn newest(home: &Home) -> Result<Option<Offset>> {
    let entries = home.env.storage.list(&home.dir).map_err(Error::io("list", || home.full(&home.dir)))?;
    Ok(entries.iter().filter_map(|entry| segment::base_of_file_name(&entry.name)).max())
}

/// Whether there is a segment with this base.
pub(crate) fn is_there(home: &Home, base: Offset) -> bool {
    home.env.storage.open(&home.dir.join(segment::file_name(base)), Access::Read).is_ok()
}

/// The salt of the segment that has the name of this base, if there is one.
pub(crate) fn salt_of(home: &Home, base: Offset) -> Option<u32> {
    let head = read_head(home, base, home.dir.join(segment::file_name(base))).ok()?;
    head.header.is_ok().then_some(head.salt)
}

/// The headers of the segments in `dir`, those that are whole; none if there is no such directory.
pub(crate) fn headers(env: &Env, dir: &Path) -> Result<Vec<Header>> {
    let full = |path: &Path| env.storage.root().join(path);
    let entries = match env.storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(Error::io("list", || full(dir)))?,
    };
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| segment::base_of_file_name(&entry.name).is_some()) {
        let path = path_in(dir, &entry.name);
        let file = env.storage.open(&path, Access::Read).map_err(Error::io("open", || full(&path)))?;
        if file.len().map_err(Error::io("measure", || full(&path)))? < HEADER_BYTES {
            continue;
        }
        let mut bytes = [0; HEADER_BYTES as usize];
        file.read(&mut bytes).map_err(Error::io("read", || full(&path)))?;
        found.extend(Header::decode(&bytes));
    }
    Ok(found)
}

/// Whether any segment in `dir` holds a byte behind its header.
pub(crate) fn holds_batches(env: &Env, dir: &Path) -> Result<bool> {
    let full = |path: &Path| env.storage.root().join(path);
    let entries = env.storage.list(dir).map_err(Error::io("list", || full(dir)))?;
    for entry in entries.iter().filter(|entry| segment::base_of_file_name(&entry.name).is_some()) {
        let path = path_in(dir, &entry.name);
        let file = env.storage.open(&path, Access::Read).map_err(Error::io("open", || full(&path)))?;
        let length = file.len().map_err(Error::io("measure", || full(&path)))?;
        if length > HEADER_BYTES {
            let memory = file.map(length).map_err(Error::io("map", || full(&path)))?;
            let (_, pen) = Region::new(memory, length);
            if !are_zero(pen.unread(HEADER_BYTES..length)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn read_heads(home: &Home, access: Access) -> Result<Vec<Head>> {
    const MOST_LOOKS: usize = 64;
    for _ in 0..MOST_LOOKS {
        if let Some(heads) = try_read_heads(home, access)? {
            return Ok(heads);
        }
    }
    let source = io::Error::new(io::ErrorKind::ResourceBusy, "its segments come and go too fast");
    Err(Error::Io { action: "list", path: home.full(&home.dir), source })
}

/// `None` if whoever writes the log has removed a segment since the directory was listed: others may have come in its
/// place.
fn try_read_heads(home: &Home, access: Access) -> Result<Option<Vec<Head>>> {
    let storage = &home.env.storage;
    let entries = storage.list(&home.dir).map_err(Error::io("list", || home.full(&home.dir)))?;
    let mut heads = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = path_in(&home.dir, &entry.name);
        if let Some(base) = segment::base_of_file_name(&entry.name) {
            if entry.kind != Kind::File {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file, but has the name of one");
                return Err(Error::Io { action: "open", path: home.full(&path), source });
            }
            match read_head(home, base, path) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && access == Access::Read => {
                    return Ok(None);
                }
                head => heads.push(head?),
            }
        } else if access == Access::Write && entry.name.ends_with(".log.new") && entry.kind == Kind::File {
            // It never got its name, so nobody was ever told of it.
            storage.remove(&path).map_err(Error::io("remove", || home.full(&path)))?;
        }
    }
    Ok(Some(heads))
}

/// Leaves out the segments that hold nothing but what was deleted on purpose, and removes them: their removal was
/// interrupted, or a power cut undid it. What is not of this partition is left alone.
fn drop_deleted(home: &Home, access: Access, mut heads: Vec<Head>, start: Option<Offset>) -> Result<Vec<Head>> {
    let Some(start) = start else { return Ok(heads) };
    let deleted = heads.partition_point(|head| head.base <= start).saturating_sub(1);
    let storage = &home.env.storage;
    for head in heads.drain(..deleted) {
        if access == Access::Write && !matches!(head.header, Err(Flaw::Foreign)) {
            storage.remove(&head.path).map_err(Error::io("remove", || home.full(&head.path)))?;
        }
    }
    if access == Access::Write && deleted > 0 {
        sync_names(home)?;
    }
    Ok(heads)
}

/// Leaves out the segments that a compacted one before them stands for, and removes them: their removal was interrupted,
/// or a power cut undid it. They stay if that one is not whole, for whoever wants to look at them, and so does what has no
/// whole header. Those of a later epoch came behind a cut.
fn drop_replaced(home: &Home, access: Access, heads: Vec<Head>, cut: Option<Cut>) -> Result<Vec<Head>> {
    if heads.iter().all(|head| head.compacted().is_none()) {
        return Ok(heads);
    }
    let (mut kept, mut removable): (Vec<Head>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for head in heads {
        match kept.iter().find(|before| before.stands_for(&head, cut)) {
            None => kept.push(head),
            Some(before) if head.header.is_ok() && access == Access::Write && is_whole(home, before)? => {
                removable.push(head.path);
            }
            Some(_) => {}
        }
    }
    if !removable.is_empty() {
        // First the name of the one that stands for them.
        sync_names(home)?;
        for path in removable {
            home.env.storage.remove(&path).map_err(Error::io("remove", || home.full(&path)))?;
        }
        sync_names(home)?;
    }
    Ok(kept)
}

/// Whether all batches of a compacted segment are.
fn is_whole(home: &Home, head: &Head) -> Result<bool> {
    let (Ok(header), Some(compacted)) = (&head.header, head.compacted()) else { return Ok(false) };
    let file = home.env.storage.open(&head.path, Access::Read).map_err(Error::io("open", || home.full(&head.path)))?;
    let memory = file.map(head.length).map_err(Error::io("map", || home.full(&head.path)))?;
    let (_, pen) = Region::new(memory, head.length);
    if pen.check_readable(0..head.length).is_err() {
        return Ok(false);
    }
    let (mut walk, bytes) = (Walk::begin(header, head.salt), pen.unread(0..head.length));
    while matches!(walk.step(bytes), Ok(Some(_))) {}
    Ok(walk.due == compacted.end)
}

/// Removes the segments that hold nothing but what was cut off, also those of which the running process knows nothing: a later
/// cut could not tell how old they are.
pub(super) fn remove_cut(home: &Home, cut: Cut) -> Result<()> {
    drop_cut(home, Access::Write, read_heads(home, Access::Write)?, Some(cut)).map(drop)
}

/// Leaves out the segments that hold nothing but what was cut off on purpose, and removes them, the newest first. Those
/// whose header does not say that they are older than the cut are left alone.
fn drop_cut(home: &Home, access: Access, heads: Vec<Head>, cut: Option<Cut>) -> Result<Vec<Head>> {
    let Some(cut) = cut else { return Ok(heads) };
    let (gone, left): (Vec<_>, Vec<_>) = heads.into_iter().partition(|head| is_cut(head, cut));
    if access == Access::Write && !gone.is_empty() {
        for head in gone.iter().rev() {
            remove_segment(home, &head.path, false, cut.epoch)?;
        }
        sync_names(home)?;
    }
    Ok(left)
}

/// Whether nothing in this segment counts any more.
fn is_cut(head: &Head, cut: Cut) -> bool {
    head.base >= cut.end && head.header.as_ref().is_ok_and(|header| header.epoch < cut.epoch)
}

fn sync_names(home: &Home) -> Result<()> {
    home.env.storage.sync_dir(&home.dir).map_err(Error::io("sync", || home.full(&home.dir)))
}

/// Removes the file of a segment. One that is somebody else's is only set aside: whoever put it there may want it.
pub(crate) fn remove_segment(home: &Home, path: &Path, foreign: bool, epoch: u32) -> Result<Option<PathBuf>> {
    let storage = &home.env.storage;
    if foreign {
        let aside = path.with_extension(format!("foreign-{epoch}"));
        storage.rename(path, &aside).map_err(Error::io("rename", || home.full(path)))?;
        return Ok(Some(aside));
    }
    match storage.remove(path) {
        // Whoever removed it did what was to be done.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        removed => removed.map(|()| None).map_err(Error::io("remove", || home.full(path))),
    }
}

fn read_head(home: &Home, base: Offset, path: PathBuf) -> Result<Head> {
    let file = home.env.storage.open(&path, Access::Read).map_err(Error::io("open", || home.full(&path)))?;
    let length = file.len().map_err(Error::io("measure", || home.full(&path)))?;
    if length < HEADER_BYTES {
        return Ok(Head { base, path, length, header: Err(Flaw::Missing), salt: 0 });
    }
    if length > u64::from(MAX_SEGMENT_BYTES) {
        return Ok(Head { base, path, length, header: Err(Flaw::Length(length)), salt: 0 });
    }
    let mut bytes = [0; HEADER_BYTES as usize];
    file.read(&mut bytes).map_err(Error::io("read", || home.full(&path)))?;
    let header = Header::decode(&bytes).and_then(|header| {
        let ours = header.identity == home.identity && header.base == base;
        if ours { Ok(header) } else { Err(Flaw::Foreign) }
    });
    let salt = segment::salt(&bytes);
    Ok(Head { base, path, length, header, salt })
}

struct Recovery<'a> {
    home: &'a Home,
    access: Access,
    known: Known,
    report: PartitionReport,
    witness: Offset,
    epoch: u32,
}

impl Recovery<'_> {
    /// Walks over the newest segment, and over those before it of which nothing proves that all was synced, or whose
    /// end is missing; in ascending order. Raises the witness to all that they say.
    fn scan_unproven(&mut self, heads: &[Head]) -> Result<Vec<(usize, Scan)>> {
        for header in heads.iter().filter_map(|head| head.header.as_ref().ok()) {
            self.witness = self.witness.max(header.durable_end);
            self.epoch = self.epoch.max(header.epoch);
        }
        // Mostly it is the newest alone.
        let mut scans = Vec::with_capacity(1);
        for (at, head) in heads.iter().enumerate().rev() {
            let successor = heads.get(at + 1);
            let end = head.end_position(successor);
            let whole = |successor: &Head| match head.compacted() {
                // Compaction makes no other than proven ones.
                Some(compacted) => self.end_of(head, Some(successor)) == Some(compacted.end),
                None => {
                    let follows = successor.follows(head.base);
                    successor.base <= self.witness && self.end_of(head, Some(successor)) == Some(follows)
                }
            };
            let proven = successor.is_some_and(whole);
            let short = end.is_some_and(|end| end > head.length);
            let Ok(header) = &head.header else { continue };
            if proven && !short {
                continue;
            }
            let newest = successor.is_none() && self.cut_end(head).is_none();
            let scan = match self.closed(head, header, newest)? {
                Some(scan) => scan,
                None => self.scan(head, header, successor)?,
            };
            self.witness = self.witness.max(scan.witness);
            scans.push((at, scan));
        }
        scans.reverse();
        Ok(scans)
    }

    /// Where what a segment holds was cut off, whether it reaches there or not.
    fn cut_end(&self, head: &Head) -> Option<Offset> {
        let cut = self.known.cut?;
        head.header.as_ref().is_ok_and(|header| header.epoch < cut.epoch).then_some(cut.end)
    }

    /// Where a segment ends, if something behind it says so.
    fn end_of(&self, head: &Head, successor: Option<&Head>) -> Option<Offset> {
        let begins = match head.compacted() {
            Some(_) => head.compacted_end(successor),
            None => successor.map(|successor| successor.follows(head.base)),
        };
        begins.into_iter().chain(self.cut_end(head)).min()
    }

    /// The newest segment, if the log was closed and the segment ends in the marker that says so: then it is all there,
    /// and looked at when it is read.
    fn closed(&mut self, head: &Head, header: &Header, newest: bool) -> Result<Option<Scan>> {
        if !newest || !self.known.closed || self.access == Access::Read || head.compacted().is_some() {
            return Ok(None);
        }
        let (file, region, pen) = self.open(head)?;
        let Some((position, epoch)) = self.closing_marker(head, &*file, &pen) else { return Ok(None) };
        let (begin, due) = (Walk::begin(header, head.salt), self.known.durable_end);
        let walk = Walk { position, due, epoch, ..begin };
        let segment = Segment::reopened(self.home.full(&head.path), begin, region, (position, due));
        self.epoch = self.epoch.max(epoch);
        let active = self.active(head, Arc::new(segment), pen, file, walk);
        Ok(Some(Scan { active, holes: Vec::new(), tail: None, witness: due, rolled: false }))
    }

    /// The position behind the marker of the closing with which the segment ends, and the epoch of that.
    fn closing_marker(&self, head: &Head, file: &dyn File, pen: &Pen) -> Option<(u64, u32)> {
        let mut data = 0..0;
        while let Some(next) = file.data(data.end).ok()?.filter(|next| next.start < head.length) {
            data = next.start..next.end.min(head.length);
        }
        // From the end backwards, a little at a time: most of it is zeros that the file system knows of.
        let mut end = data.end;
        let (asked, last) = loop {
            let start = end.saturating_sub(PAGE).max(data.start);
            pen.check_readable(start..end).ok()?;
            match pen.unread(start..end).iter().rposition(|byte| *byte != 0) {
                Some(last) => break (start, start + last as u64),
                None if start == data.start => return None,
                None => end = start,
            }
        };
        let position = (last + 1).next_multiple_of(ALIGNMENT as u64).min(head.length);
        let start = position.checked_sub(MARKER_BYTES as u64).filter(|start| *start >= HEADER_BYTES)?;
        if start < asked {
            pen.check_readable(start..asked).ok()?;
        }
        let marker = Batch::at(pen.unread(start..position)).ok()??;
        let closes = marker.verify(head.salt).is_ok() && marker.marker() == Some(Marker::Closed);
        (closes && marker.base() == self.known.durable_end).then_some((position, marker.epoch()))
    }

    fn open(&self, head: &Head) -> Result<(Arc<dyn File>, Arc<Region>, Pen)> {
        let home = self.home;
        let file =
            home.env.storage.open(&head.path, self.access).map_err(Error::io("open", || home.full(&head.path)))?;
        let capacity = home.capacity().max(head.length);
        let memory = file.map(capacity).map_err(Error::io("map", || home.full(&head.path)))?;
        let (region, pen) = Region::new(memory, head.length);
        Ok((file, region, pen))
    }

    fn active(&self, head: &Head, segment: Arc<Segment>, pen: Pen, file: Arc<dyn File>, walk: Walk) -> Active {
        let slot = Arc::new(Slot::mapped(&segment, head.path.clone()));
        let file = Handle::new(&self.home.env.storage, head.path.clone(), self.access, file);
        Active { segment, slot, pen, file, roomy: 0, walk }
    }

    /// Whoever writes the log maps what nobody else shortens; but it may not be readable.
    fn check_readable(&self, head: &Head, file: &dyn File, pen: &Pen) -> Result<()> {
        match self.access {
            Access::Write => {
                check_readable(file, pen, head.length).map_err(Error::io("read", || self.home.full(&head.path)))
            }
            Access::Read => Ok(()),
        }
    }

    /// A reader beside a writer walks over a copy: the file may end earlier by now than it was told.
    fn copy(&self, head: &Head, file: &dyn File) -> Result<Option<Pen>> {
        if self.access == Access::Write {
            return Ok(None);
        }
        let memory = file.copy(head.length).map_err(Error::io("read", || self.home.full(&head.path)))?;
        Ok(Some(Region::new(memory, head.length).1))
    }

    /// Leaves out the foreign files whose names are offsets that the segment before them holds: somebody has put them
    /// there, and by their names that segment would end in the middle of what it holds.
    fn drop_strays(&mut self, mut heads: Vec<Head>) -> Result<Vec<Head>> {
        let is_foreign = |head: &Head| matches!(head.header, Err(Flaw::Foreign));
        let (cut, mut at, before) = (self.known.cut, 1, heads.len());
        while at < heads.len() {
            if is_foreign(&heads[at]) && !is_foreign(&heads[at - 1]) {
                let counts = |head: &&Head| !is_foreign(head) && !cut.is_some_and(|cut| is_cut(head, cut));
                let successor = heads[at..].iter().find(counts);
                let reach = self.reach(&heads[at - 1], successor)?;
                while at < heads.len() && is_foreign(&heads[at]) && heads[at].base < reach {
                    let stray = heads.remove(at);
                    self.set_aside(&stray)?;
                }
            }
            at += 1;
        }
        if self.access == Access::Write && heads.len() < before {
            sync_names(self.home)?;
        }
        Ok(heads)
    }

    /// Up to which offset a segment goes, if these two follow one another.
    fn reach(&self, head: &Head, successor: Option<&Head>) -> Result<Offset> {
        let Ok(header) = &head.header else { return Ok(head.base) };
        let (file, _, pen) = self.open(head)?;
        self.check_readable(head, &*file, &pen)?;
        let copy = self.copy(head, &*file)?;
        let end = head.end_position(successor).unwrap_or(head.length).min(head.length);
        let bytes = &copy.as_ref().unwrap_or(&pen).unread(0..head.length)[..end as usize];
        let mut walk = Walk::begin(header, head.salt).until(self.end_of(head, successor));
        let mut holes = 0;
        loop {
            match Met::next_if(&mut walk, bytes, holes, |position| is_zero(&*file, bytes, position)) {
                Met::Batch(_) => {}
                Met::Hole(_) => holes += 1,
                Met::End(_) => return Ok(walk.due),
            }
        }
    }

    /// Moves a foreign file out of the way, and says so.
    fn set_aside(&mut self, head: &Head) -> Result<()> {
        let aside = match self.access {
            Access::Write => remove_segment(self.home, &head.path, true, self.known.epoch)?,
            Access::Read => None,
        };
        let path = aside.unwrap_or_else(|| head.path.clone());
        let aside = Head { path, base: head.base, length: head.length, header: Err(Flaw::Foreign), salt: 0 };
        self.report(&aside, 0, head.base..head.base, Flaw::Foreign);
        Ok(())
    }

    /// Walks over one segment, as far as its successor says that it goes.
    fn scan(&mut self, head: &Head, header: &Header, successor: Option<&Head>) -> Result<Scan> {
        let home = self.home;
        let (file, region, pen) = self.open(head)?;
        self.check_readable(head, &*file, &pen)?;
        let end = successor.and_then(|successor| Some((head.end_position(Some(successor))?, successor.base)));
        let until = self.end_of(head, successor);
        let mut walk = Walk::begin(header, head.salt).until(until);
        let segment = Arc::new(Segment::active(home.full(&head.path), walk, region));
        let (mut holes, mut rolled, mut witness) = (Vec::new(), false, header.durable_end);
        // The bytes up to the end of the file, but a walk within a slice that begins at the header's end would have
        // other positions: so the slice begins at zero.
        let copy = self.copy(head, &*file)?;
        let file_bytes = copy.as_ref().unwrap_or(&pen).unread(0..head.length);
        let bytes = &file_bytes[..end.map_or(head.length, |(end, _)| end.min(head.length)) as usize];
        let tail = loop {
            let position = walk.position;
            match Met::next_if(&mut walk, bytes, holes.len(), |position| is_zero(&*file, bytes, position)) {
                Met::Batch(batch) => {
                    segment.note_batch(&batch, position);
                    witness = witness.max(batch.durable_end());
                    rolled = batch.marker() == Some(Marker::Rolled);
                }
                Met::Hole(hole) => {
                    rolled = false;
                    holes.push(hole);
                }
                Met::End(flaw) => break flaw,
            }
        };
        if let Some((_, next)) = end
            && batch::begins_with_rolled(&file_bytes[bytes.len()..], head.salt, next)
        {
            (rolled, witness) = (true, witness.max(next));
        }
        // All of it was synced, and the next segment had its name.
        rolled |= header.compacted.is_some();
        // What stands behind a cut was cut off; the successor of a compacted segment says where, of the cuts before the last.
        let ends_early = |due| until == Some(due) && head.compacted().is_some_and(|compacted| due < compacted.end);
        let tail = tail.filter(|_| self.cut_end(head) != Some(walk.due) && !ends_early(walk.due));
        self.report.bytes_read += walk.position - HEADER_BYTES;
        self.epoch = self.epoch.max(walk.epoch);
        let active = self.active(head, segment, pen, file, walk);
        Ok(Scan { active, holes, tail, witness, rolled })
    }

    /// Tells torn from damaged, cuts the one and reports the other.
    fn judge(mut self, heads: &[Head], scans: Vec<(usize, Scan)>) -> Result<Recovered> {
        let mut slots: Vec<Arc<Slot>> = Vec::new();
        let mut scans = scans.into_iter().peekable();
        let first = heads.first().map_or(self.known.start.unwrap_or(Offset::ZERO), |head| head.base);
        let (mut next, mut predecessor, mut active) = (first, None, None);
        for (at, head) in heads.iter().enumerate() {
            let scan = scans.next_if(|(scanned, _)| *scanned == at).map(|(_, scan)| scan);
            let rolled = scan.as_ref().is_some_and(|scan| scan.rolled);
            // Behind a name that a power cut took, unpromised, nothing counts that came later.
            let unpromised = |successor: &&Head| {
                let gap = self.end_of(head, Some(successor)).unwrap_or(successor.base);
                gap < successor.base && gap >= self.witness && !rolled && head.compacted().is_none()
            };
            let torn_off = heads.get(at + 1).filter(unpromised).is_some();
            let successor = heads.get(at + 1).filter(|_| !torn_off);
            if at > 0 && next < head.base {
                self.report_missing(next..head.base);
            }
            let judged = match scan {
                Some(scan) => self.judge_scan(scan, head, successor)?,
                // It loses all up to where it ended, and a successor says that even if it does not count itself.
                None => self.unscanned(head, heads.get(at + 1)),
            };
            slots.push(judged.slot);
            (next, active) = (judged.next, judged.active);
            predecessor = Some(Predecessor { base: head.base, end_position: judged.end_position });
            if judged.cut || torn_off {
                let (kept, behind) = heads.split_at(at + 1);
                if self.access == Access::Write && !behind.is_empty() {
                    self.drop_segments(kept)?;
                }
                break;
            }
        }
        self.prove_name(active.as_ref())?;
        let cut = heads.last().map_or(self.known.cut.map(|cut| cut.end), |last| self.cut_end(last));
        let all_cut = heads.is_empty() && cut.is_some_and(|cut| cut <= first);
        if (heads.is_empty() && self.known.made && !all_cut) || (cut.is_some() && next < self.witness) {
            let behind = self.behind_all(next);
            self.report_missing(next..behind);
            next = behind;
        }
        let start = self.known.start.unwrap_or(first);
        if start < first {
            self.report_missing(start..first);
        }
        let Recovery { witness, epoch, report, .. } = self;
        Ok(Recovered { slots, active, predecessor, start, next, witness, epoch, report })
    }

    /// Where the partition goes on whose newest segment has lost its end, at `due`.
    fn behind(&self, due: Offset) -> Offset {
        if self.known.closed { due.max(self.witness) } else { due.saturating_advance(MOST_OFFSETS).max(self.witness) }
    }

    /// Where the partition goes on that has lost its newest segments, from `due` on, and nobody knows how many.
    fn behind_all(&self, due: Offset) -> Offset {
        let openings = u64::from(self.known.epoch.max(self.epoch)).clamp(1, MOST_OPENINGS);
        if self.known.closed { due.max(self.witness) } else { self.behind(due).max(Offset::new(openings * FAR)) }
    }

    /// A segment that is proven to have been synced, so that nobody looks into it before it is read; or one that
    /// nobody can look into.
    fn unscanned(&mut self, head: &Head, successor: Option<&Head>) -> Judged {
        let path = head.path.clone();
        let (slot, next) = match &head.header {
            Ok(header) => {
                let next = self.end_of(head, successor).unwrap_or(head.base);
                let end = head.end_position(successor).unwrap_or(head.length);
                let slot = Slot::on_disk(path, Walk::begin(header, head.salt), (next, end));
                (slot.compacted(header.compacted.map(|compacted| compacted.clean_end)), next)
            }
            Err(flaw) => {
                // One further than the base at least: the next segment needs a name of its own.
                let behind = self.behind(head.base.saturating_advance(1));
                let next = successor.map_or(behind, |successor| successor.follows(head.base));
                self.report(head, 0, head.base..next, *flaw);
                (Slot::broken(head.base, path, *flaw, (next, head.length)), next)
            }
        };
        Judged { slot: Arc::new(slot), next, end_position: head.length, active: None, cut: false }
    }

    /// Offsets of which not even the file is left.
    fn report_missing(&mut self, offsets: Range<Offset>) {
        let path = self.home.dir.join(segment::file_name(offsets.start));
        let gone = Head { base: offsets.start, path, length: 0, header: Err(Flaw::Missing), salt: 0 };
        self.report(&gone, 0, offsets, Flaw::Missing);
    }

    fn report(&mut self, head: &Head, position: u64, offsets: Range<Offset>, flaw: Flaw) {
        self.report.damage.push(Damage {
            partition: Some(self.home.partition.clone()),
            offsets,
            path: self.home.full(&head.path),
            position,
            flaw,
        });
    }

    fn judge_scan(&mut self, scan: Scan, head: &Head, successor: Option<&Head>) -> Result<Judged> {
        let Scan { active, holes, tail, rolled, .. } = scan;
        // The offsets that no batch of this segment holds, and those of them that were promised.
        let next = self.end_of(head, successor);
        let mut damaged = false;
        for hole in holes {
            let at_successor = next.is_some_and(|next| hole.first >= next);
            if hole.first >= self.witness && !at_successor && !rolled {
                return self.cut(active, hole.before(), damaged);
            }
            if hole.first < self.witness || rolled {
                self.report(head, hole.start, hole.first..hole.next, hole.flaw);
            }
            active.segment.add_hole(hole);
            damaged = true;
        }
        let walk = active.walk;
        // Behind what was compacted there always was another segment, unless it was cut off.
        let compacted_end = head.compacted().map(|compacted| compacted.end).filter(|_| successor.is_none());
        let misses = compacted_end.is_some_and(|end| self.cut_end(head).is_none_or(|cut| cut > end));
        if rolled && (next.is_none() || misses) {
            // The successor had its name, so records in it may have been promised; how many, only it knew.
            let behind = self.behind_all(compacted_end.unwrap_or(walk.due));
            self.report_missing(walk.due..behind);
            return self.keep(active, Some(walk.due)).map(|judged| Judged { next: behind, ..judged });
        }
        let promised = match next {
            Some(next) if rolled => next,
            Some(next) => next.min(self.witness),
            None => self.witness,
        };
        if walk.due < promised {
            let flaw = tail.unwrap_or(Flaw::Missing);
            let next = next.unwrap_or_else(|| self.behind(walk.due));
            self.report(head, walk.position, walk.due..next, flaw);
            let end = active.pen.region().valid().max(walk.position + 1);
            active.segment.add_hole(Hole { start: walk.position, end, first: walk.due, next, flaw });
            return self.keep(active, Some(next));
        }
        let short = next.is_some_and(|next| walk.due < next);
        if short || (tail.is_some() && next.is_none()) {
            return self.cut(active, (walk.position, walk.due), damaged);
        }
        if let Some(flaw) = tail.filter(|_| walk.due < self.witness || rolled) {
            // A marker: every record up to the successor is there, and so the successor counts.
            self.report(head, walk.position, walk.due..walk.due, flaw);
        }
        match next {
            Some(next) => self.keep(active, Some(next)),
            // One further than the base at least: the next segment needs a name of its own.
            None if damaged => self.keep(active, Some(walk.due.max(head.base.saturating_advance(1)))),
            None => self.keep(active, None),
        }
    }

    /// Keeps all that the walk passed. `sealed`: nothing is appended to the segment, whose offsets end there.
    fn keep(&mut self, mut active: Active, sealed: Option<Offset>) -> Result<Judged> {
        self.make_durable(&mut active, false)?;
        let Walk { position, due, .. } = active.walk;
        active.pen.adopt(position);
        let slot = Arc::clone(&active.slot);
        if let Some(next) = sealed {
            slot.seal(next, position);
            slot.finish();
        }
        let next = sealed.unwrap_or(due);
        Ok(Judged { slot, next, end_position: position, active: sealed.is_none().then_some(active), cut: false })
    }

    /// Cuts the torn tail: everything from this position and offset on.
    fn cut(&mut self, mut active: Active, (position, due): (u64, Offset), damaged: bool) -> Result<Judged> {
        let walk = Walk { position, due, until: Offset::new(u64::MAX), ..active.walk };
        active.walk = walk;
        if damaged || self.is_shared(&*active.file)? {
            // It is never written to again, not even zeros: its successor will say that it ended here.
            let (segment, next) = (Arc::clone(&active.segment), due.max(active.segment.base().saturating_advance(1)));
            let judged = self.keep(active, Some(next))?;
            segment.cut(position);
            return Ok(Judged { cut: true, ..judged });
        }
        if self.access == Access::Write {
            let behind = active.pen.unread(walk.position..active.pen.region().valid());
            let torn = behind.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            active.pen.spare(walk.position..walk.position + torn as u64).fill(0);
            self.report.bytes_cut += torn as u64;
            self.make_durable(&mut active, true)?;
        }
        active.pen.adopt(walk.position);
        active.segment.cut(position);
        let slot = Arc::clone(&active.slot);
        Ok(Judged { slot, next: walk.due, end_position: walk.position, active: Some(active), cut: true })
    }

    /// Whether the file is another log's, too.
    fn is_shared(&self, file: &dyn File) -> Result<bool> {
        file.is_shared().map_err(Error::io("measure", || self.home.full(&self.home.dir)))
    }

    /// Makes every page above the witness dirty again and syncs the file.
    fn make_durable(&self, active: &mut Active, changed: bool) -> Result<()> {
        let unproven = active.walk.due > self.witness;
        if self.access == Access::Read || !(unproven || changed) {
            return Ok(());
        }
        if unproven {
            let from = active.segment.position_before(self.witness).min(active.walk.position);
            active.pen.redirty(from..active.walk.position);
        }
        active.file.sync().map_err(Error::io("sync", || active.segment.path()))
    }

    /// Removes the segments behind a torn tail, the newest first, so that what is left is always a log, and with them those
    /// that were left out because one of them stands for them. What is somebody else's is not removed, but set aside.
    fn drop_segments(&mut self, kept: &[Head]) -> Result<()> {
        let counted_from = kept.last().map_or(Offset::ZERO, |last| last.base.saturating_advance(1));
        let stays = |head: &Head| kept.iter().any(|before| before.stands_for(head, self.known.cut));
        let mut behind = read_heads(self.home, self.access)?;
        behind.retain(|head| head.base >= counted_from && !stays(head));
        for head in behind.iter().rev() {
            if matches!(head.header, Err(Flaw::Foreign)) {
                self.set_aside(head)?;
            } else {
                remove_segment(self.home, &head.path, false, self.known.epoch)?;
                self.report.bytes_cut += head.length.saturating_sub(HEADER_BYTES);
            }
            sync_names(self.home)?;
        }
        Ok(())
    }

    /// Makes the name of the active segment durable, if nothing proves that it is.
    fn prove_name(&self, active: Option<&Active>) -> Result<()> {
        let unproven = active.is_some_and(|active| active.segment.base() >= self.witness);
        if self.access == Access::Write && unproven { sync_names(self.home) } else { Ok(()) }
    }
}

/// A segment after judgement.
struct Judged {
    slot: Arc<Slot>,
    next: Offset,
    end_position: u64,
    active: Option<Active>,
    cut: bool,
}

impl Head {
    /// What the header of a compacted segment says.
    fn compacted(&self) -> Option<Compacted> {
        self.header.as_ref().ok()?.compacted
    }

    /// Whether this is a compacted segment in whose place the other one was, which has a higher name. If the log was cut
    /// since, what begins there was not; nor what no header says the age of: it may have come behind an earlier cut.
    fn stands_for(&self, other: &Head, cut: Option<Cut>) -> bool {
        let (Some(compacted), Ok(header)) = (self.compacted(), &self.header) else { return false };
        let cut = cut.filter(|cut| header.epoch < cut.epoch);
        let replaced = match &other.header {
            Ok(other) => other.epoch <= header.epoch && cut.is_none_or(|cut| other.base < cut.end),
            Err(flaw) => *flaw != Flaw::Foreign && cut.is_none(),
        };
        other.base < compacted.end && replaced
    }

    /// The offset at which a compacted segment ended: where it says, or, if it was cut since, where its successor begins.
    /// One without a whole header that it does not stand for came behind a cut, too.
    fn compacted_end(&self, successor: Option<&Head>) -> Option<Offset> {
        let (compacted, header) = (self.compacted()?, self.header.as_ref().ok()?);
        let is_older = |other: &Head| other.header.as_ref().is_ok_and(|other| other.epoch <= header.epoch);
        let begins = successor.filter(|other| !is_older(other)).map(|successor| successor.follows(self.base));
        begins.into_iter().chain([compacted.end]).min()
    }

    /// The position at which the segment ended, if its successor names it: one that was compacted since ends elsewhere.
    fn end_position(&self, successor: Option<&Head>) -> Option<u64> {
        successor.filter(|_| self.compacted().is_none())?.names(self.base)
    }

    /// The position at which the segment with this base ended, if this is the header of its successor.
    fn names(&self, base: Offset) -> Option<u64> {
        let predecessor = self.header.as_ref().ok()?.predecessor?;
        (predecessor.base == base).then_some(predecessor.end_position)
    }

    /// The offset at which the segment with this base ended: this one's base if they are neighbours, otherwise the base
    /// of the one between them that this one names and that is gone.
    fn follows(&self, base: Offset) -> Offset {
        let named = self.header.as_ref().ok().and_then(|header| header.predecessor);
        match named {
            Some(predecessor) if predecessor.base > base && predecessor.base < self.base => predecessor.base,
            _ => self.base,
        }
    }
}

/// Whether the disk gives all bytes of the file. What it holds no bytes of it need not be asked for.
fn check_readable(file: &dyn File, pen: &Pen, length: u64) -> io::Result<()> {
    let mut from = 0;
    while let Some(data) = file.data(from)?.filter(|data| data.start < length) {
        pen.check_readable(data.start..data.end.min(length))?;
        from = data.end;
    }
    Ok(())
}

/// Whether all of `bytes`, which are those of the file from its start, are zero from `position` on.
fn is_zero(file: &dyn File, bytes: &[u8], position: u64) -> bool {
    let mut from = position;
    loop {
        let data = match file.data(from) {
            Ok(None) => return true,
            Ok(Some(data)) => data,
            // Who cannot tell where there are none looks at all of them.
            Err(_) => from..bytes.len() as u64,
        };
        let (start, end) = (bytes.len().min(data.start as usize), bytes.len().min(data.end as usize));
        if !are_zero(&bytes[start..end]) {
            return false;
        }
        if end == bytes.len() {
            return true;
        }
        from = data.end;
    }
}
