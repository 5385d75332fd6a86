//! Looking at all files of a log without opening it: what each segment holds, and where it does not hold what it should.
//!
//! Recovery looks at what may be torn and believes the rest until somebody reads it. A survey reads everything.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::Env;
use crate::env::storage::region::{Pen, Region};
use crate::env::storage::{Access, File, Kind};
use crate::error::{Error, Flaw, Result};
use crate::format::batch::{self, Marker, Walk};
use crate::format::catalog::Cut;
use crate::format::segment::{self, CATALOG_ID, Compacted, HEADER_BYTES, Header, Identity, group_id};
use crate::partition::{Hole, Met};
use crate::types::Offset;

/// A directory that holds, or should hold, the segments of a partition.
#[derive(Debug)]
pub(super) struct Place {
    /// Relative to the root of the log.
    pub(super) dir: PathBuf,
    /// What people call it: `orders-0`, `catalog`, `group billing`.
    pub(super) name: String,
    pub(super) kind: PlaceKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlaceKind {
    Catalog,
    Group(String),
    Partition { topic: String, number: u32 },
}

/// What a segment file holds.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) base: Offset,
    pub(super) path: PathBuf,
    pub(super) length: u64,
    pub(super) header: Result<Header, Flaw>,
    /// Where the bytes were no batch, with whole batches behind; and the epoch of the batch before.
    pub(super) holes: Vec<(Hole, u32)>,
    /// Behind the last whole batch.
    pub(super) end: u64,
    pub(super) next: Offset,
    pub(super) epoch: u32,
    /// What stands there, if not zeros.
    pub(super) tail: Option<Flaw>,
    /// The highest durable end offset that the segment says.
    pub(super) witness: Offset,
    pub(super) records: u64,
    /// Whether a rolled marker ends it: all of it was synced, and its successor had its name.
    pub(super) rolled: bool,
    /// Where what it holds was cut off on purpose, whether it reaches there or not.
    pub(super) cut: Option<Cut>,
}

/// All directories that may hold segments, in the order of their names.
pub(super) fn places(env: &Env) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for (name, path) in directories(env, Path::new(""))? {
        match name.as_str() {
            "catalog" => places.push(Place { dir: path, name: "catalog".into(), kind: PlaceKind::Catalog }),
            "groups" => {
                for (name, dir) in directories(env, &path)? {
                    let group = crate::format::committed::group_of_directory(&name).unwrap_or(name);
                    places.push(Place { dir, name: format!("group {group}"), kind: PlaceKind::Group(group) });
                }
            }
            "topics" => {
                for (topic, dir) in directories(env, &path)? {
                    places.extend(partitions_of(env, &topic, &dir)?);
                }
            }
            _ => {}
        }
    }
    Ok(places)
}

/// The directories of the topics, by their names.
pub(super) fn topics(env: &Env) -> Result<Vec<(String, PathBuf)>> {
    let top = directories(env, Path::new(""))?.into_iter().find(|(name, _)| name == "topics");
    top.map_or(Ok(Vec::new()), |(_, dir)| directories(env, &dir))
}

fn partitions_of(env: &Env, topic: &str, dir: &Path) -> Result<Vec<Place>> {
    let mut places: Vec<Place> = directories(env, dir)?
        .into_iter()
        .filter_map(|(name, dir)| {
            let number = name.parse().ok()?;
            let kind = PlaceKind::Partition { topic: topic.to_owned(), number };
            Some(Place { dir, name: format!("{topic}-{number}"), kind })
        })
        .collect();
    places.sort_by_key(|place| match place.kind {
        PlaceKind::Partition { number, .. } => number,
        _ => 0,
    });
    Ok(places)
}

fn directories(env: &Env, dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = env.storage.list(dir).map_err(Error::io("list", || env.storage.root().join(dir)))?;
    let directories = entries.into_iter().filter(|entry| entry.kind == Kind::Directory);
    Ok(directories.map(|entry| (entry.name.clone(), dir.join(entry.name))).collect())
}

/// The segment files in a directory, in the order of their offsets.
pub(super) fn segment_files(env: &Env, dir: &Path) -> Result<Vec<(Offset, PathBuf)>> {
    let entries = env.storage.list(dir).map_err(Error::io("list", || env.storage.root().join(dir)))?;
    let named = |name: &str| segment::base_of_file_name(name).map(|base| (base, dir.join(name)));
    Ok(entries.iter().filter(|entry| entry.kind == Kind::File).filter_map(|entry| named(&entry.name)).collect())
}

/// The bytes of a file, mapped. `None` if it is empty.
pub(super) fn map(env: &Env, path: &Path, access: Access) -> Result<Option<(Arc<dyn File>, Pen)>> {
    let full = || env.storage.root().join(path);
    let file = env.storage.open(path, access).map_err(Error::io("open", full))?;
    let length = file.len().map_err(Error::io("measure", full))?;
    if length == 0 {
        return Ok(None);
    }
    let memory = file.map(length).map_err(Error::io("map", full))?;
    let (_, pen) = Region::new(memory, length);
    Ok(Some((file, pen)))
}

/// Whose segments these are: what most of the headers say that could be. `log`: the one that they must belong to, if that
/// is known.
pub(super) fn identity_of(
    env: &Env,
    place: &Place,
    files: &[(Offset, PathBuf)],
    log: Option<u128>,
) -> Result<Option<Identity>> {
    let (number, topic) = match &place.kind {
        PlaceKind::Partition { number, .. } => (*number, None),
        PlaceKind::Catalog => (0, Some(CATALOG_ID)),
        PlaceKind::Group(group) => (0, Some(group_id(group))),
    };
    let mut possible = identities(env, files)?;
    possible.retain(|identity| identity.partition == number && topic.is_none_or(|topic| identity.topic == topic));
    possible.retain(|identity| log.is_none_or(|log| identity.log == log));
    let votes = |identity: &Identity| possible.iter().filter(|other| *other == identity).count();
    Ok(possible.iter().copied().max_by_key(votes))
}

/// The log that most headers name.
pub(super) fn log_of(env: &Env, places: &[Place]) -> Result<Option<u128>> {
    let mut votes: BTreeMap<u128, usize> = BTreeMap::new();
    for place in places {
        for identity in identities(env, &segment_files(env, &place.dir)?)? {
            *votes.entry(identity.log).or_default() += 1;
        }
    }
    Ok(votes.into_iter().max_by_key(|(_, count)| *count).map(|(log, _)| log))
}

/// What the headers say that are whole.
fn identities(env: &Env, files: &[(Offset, PathBuf)]) -> Result<Vec<Identity>> {
    let mut identities = Vec::new();
    for (_, path) in files {
        let Some((_, pen)) = map(env, path, Access::Read)? else { continue };
        let header = Header::decode(pen.unread(0..pen.region().valid().min(HEADER_BYTES)));
        identities.extend(header.map(|header| header.identity));
    }
    Ok(identities)
}

/// Leaves out the segments that a compacted one before them stands for: their removal was interrupted, and the next opening
/// removes them. Those of a later epoch came behind a cut; and if there was one since, so may those whose header says none.
pub(super) fn drop_replaced(
    env: &Env,
    identity: Option<Identity>,
    files: Vec<(Offset, PathBuf)>,
    cut: Option<Cut>,
) -> Result<Vec<(Offset, PathBuf)>> {
    let (mut kept, mut compacted): (Vec<_>, Vec<(Offset, u32)>) = (Vec::new(), Vec::new());
    for (base, path) in files {
        let bytes = map(env, &path, Access::Read)?;
        let decode = |pen: &Pen| Header::decode(pen.unread(0..pen.region().valid().min(HEADER_BYTES))).ok();
        let whole = bytes.and_then(|(_, pen)| decode(&pen));
        let header = whole.filter(|header| Some(header.identity) == identity && header.base == base);
        let is_foreign = whole.is_some() && header.is_none();
        let replaces = |(end, epoch): &(Offset, u32)| {
            let cut = cut.filter(|cut| *epoch < cut.epoch);
            let replaced = match &header {
                Some(header) => header.epoch <= *epoch && cut.is_none_or(|cut| base < cut.end),
                None => !is_foreign && cut.is_none(),
            };
            base < *end && replaced
        };
        if compacted.iter().any(replaces) {
            continue;
        }
        compacted.extend(header.and_then(|header| Some((header.compacted?.end, header.epoch))));
        kept.push((base, path));
    }
    Ok(kept)
}

/// Reads a segment from end to end, as far as its successor says that it goes. A header that is not of this identity, or
/// of another base, says nothing that counts here. `cut`: where the partition was cut last.
pub(super) fn survey(
    env: &Env,
    identity: Option<Identity>,
    (base, path): (Offset, PathBuf),
    successor: Option<&Surveyed>,
    cut: Option<Cut>,
) -> Result<Surveyed> {
    let mut surveyed = Surveyed {
        base,
        length: 0,
        header: Err(Flaw::Missing),
        holes: Vec::new(),
        end: 0,
        next: base,
        epoch: 0,
        tail: None,
        witness: Offset::ZERO,
        records: 0,
        rolled: false,
        cut: None,
        path,
    };
    let Some((_, pen)) = map(env, &surveyed.path, Access::Read)? else { return Ok(surveyed) };
    surveyed.length = pen.region().valid();
    let bytes = pen.unread(0..surveyed.length);
    surveyed.header = Header::decode(bytes).and_then(|header| {
        let ours = Some(header.identity) == identity && header.base == base;
        if ours { Ok(header) } else { Err(Flaw::Foreign) }
    });
    if let Ok(header) = &surveyed.header {
        surveyed.witness = header.durable_end;
        surveyed.cut = cut.filter(|cut| header.epoch < cut.epoch);
        let walk = Walk::begin(header, segment::salt(bytes)).until(surveyed.until(successor));
        let end = successor.and_then(|successor| Some((surveyed.end_position(Some(successor))?, successor.base)));
        let limit = end.map_or(surveyed.length, |(end, _)| end.min(surveyed.length)) as usize;
        surveyed.walk(walk, &bytes[..limit]);
        if let Some((_, next)) = end
            && batch::begins_with_rolled(&bytes[limit..], walk.salt, next)
        {
            (surveyed.rolled, surveyed.witness) = (true, surveyed.witness.max(next));
        }
        // All of it was synced, and the next segment had its name.
        surveyed.rolled |= surveyed.compacted().is_some();
        if surveyed.cut.is_some_and(|cut| cut.end == surveyed.next) {
            // What stands there was cut off.
            surveyed.tail = None;
        }
    }
    Ok(surveyed)
}

impl Surveyed {
    /// Whether its header is right, and of another place.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self.header, Err(Flaw::Foreign))
    }

    fn walk(&mut self, mut walk: Walk, bytes: &[u8]) {
        self.tail = loop {
            let epoch = walk.epoch;
            match Met::next(&mut walk, bytes, self.holes.len()) {
                Met::Batch(batch) => {
                    self.records += u64::from(batch.count());
                    self.witness = self.witness.max(batch.durable_end());
                    self.rolled = batch.marker() == Some(Marker::Rolled);
                }
                Met::Hole(hole) => {
                    self.rolled = false;
                    self.holes.push((hole, epoch));
                }
                Met::End(flaw) => break flaw,
            }
        };
        (self.end, self.next, self.epoch) = (walk.position, walk.due, walk.epoch);
    }

    /// Whether what is missing at `offset` was never promised to anybody. `witness`: of the partition.
    pub(super) fn is_torn_at(&self, offset: Offset, witness: Offset) -> bool {
        offset >= witness && !self.rolled
    }

    /// Up to where its offsets were promised, if the next segment that is known of begins at `next`.
    pub(super) fn promised(&self, next: Option<Offset>, witness: Offset) -> Offset {
        match next {
            Some(next) if self.rolled => next,
            Some(next) => next.min(witness),
            None => witness,
        }
    }

    /// What the header of a compacted segment says.
    pub(super) fn compacted(&self) -> Option<Compacted> {
        self.header.as_ref().ok()?.compacted
    }

    /// Where it ends, if it says so itself, or the next segment or a cut does.
    pub(super) fn until(&self, successor: Option<&Surveyed>) -> Option<Offset> {
        let follows = |successor: &Surveyed| successor.follows(self.base);
        let said = match (&self.header, self.compacted()) {
            (Ok(header), Some(compacted)) => {
                // If it was cut since, it ends where its successor begins; that may have no whole header.
                let is_older = |other: &Surveyed| other.header.as_ref().is_ok_and(|other| other.epoch <= header.epoch);
                successor.filter(|other| !is_older(other)).map(follows).into_iter().chain([compacted.end]).min()
            }
            _ => successor.map(follows),
        };
        said.into_iter().chain(self.cut.map(|cut| cut.end)).min()
    }

    /// Whether what came behind it is not there: it was compacted, so something always did, and it was not cut off.
    pub(super) fn misses_successor(&self, successor: Option<&Surveyed>) -> bool {
        let ends = self.compacted().map(|compacted| compacted.end);
        successor.is_none() && ends.is_some_and(|end| self.cut.is_none_or(|cut| cut.end > end))
    }

    /// The position at which it ended, if its successor names it: one that was compacted since ends elsewhere.
    pub(super) fn end_position(&self, successor: Option<&Surveyed>) -> Option<u64> {
        successor.filter(|_| self.compacted().is_none())?.names(self.base)
    }

    /// What came behind the cut with which it ends, and is not there, as far as is known.
    pub(super) fn lost_behind_cut(
        &self,
        successor: Option<&Surveyed>,
        witness: Offset,
    ) -> Option<(Cut, Range<Offset>)> {
        let cut = self.cut.filter(|cut| successor.is_none() && cut.end < witness)?;
        Some((cut, cut.end..witness))
    }

    /// Where the segment with this base ended, if this one's header says so.
    fn names(&self, base: Offset) -> Option<u64> {
        let predecessor = self.header.as_ref().ok()?.predecessor?;
        (predecessor.base == base).then_some(predecessor.end_position)
    }

    /// The offset at which the segment with this base ended: this one's base, or that of the one between them which this
    /// one names and which is gone.
    pub(super) fn follows(&self, base: Offset) -> Offset {
        let named = self.header.as_ref().ok().and_then(|header| header.predecessor);
        named
            .map(|named| named.base)
            .filter(|named| (base..self.base).contains(named) && *named > base)
            .unwrap_or(self.base)
    }
}
