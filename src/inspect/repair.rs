//! Mends a damaged log, so that it verifies: what is lost stays lost, and is said to be.
//!
//! | finding                          | mend                                                                          |
//! |----------------------------------|-------------------------------------------------------------------------------|
//! | bytes that are no batch          | a gap of as many offsets in their place                                       |
//! | the end of a segment is missing  | a gap up to where the next segment begins, or to what is known to be promised |
//! | a segment is missing             | a segment that is one gap                                                     |
//! | a header is damaged, or foreign  | the same in its place; the file is moved aside                                |
//! | a foreign file behind the end, or with the name of an offset inside of a segment | none: opening sets it aside   |
//! | a torn tail, catalog, committed  | none: opening the log sees to these                                           |
//! | a table has lost its beginning   | none: nobody knows what it said                                               |
//!
//! Whole batches are not touched. Every file that changes is copied aside first, and the copy is synced.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::env::storage::{Access, Lock, LockError};
use crate::error::{Error, Result};
use crate::format::batch::{self, MARKER_BYTES, Marker, Stamp};
use crate::format::segment::{self, HEADER_BYTES, Header, Identity, Predecessor};
use crate::inspect::survey::{self, Place, PlaceKind, Surveyed};
use crate::inspect::verify::{PlaceSurvey, lost_front, recorded, survey_place};
use crate::types::{Offset, TimestampType};

/// The length of a file that holds nothing but a gap: a page.
const GAP_FILE_BYTES: u64 = 4096;
/// Where the gap in it ends.
const GAP_SEGMENT_END: u64 = HEADER_BYTES + MARKER_BYTES as u64;

/// What a repair did, or would do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was mended, or would be.
    pub mends: Vec<Mend>,
    /// What cannot be mended, and why.
    pub beyond: Vec<String>,
    /// Where the files were copied to that were changed; `None` if none was.
    pub backup: Option<PathBuf>,
}

/// One thing that is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mend {
    /// Where: `orders-0` for a partition, `catalog`, `group billing`.
    pub place: String,
    /// The file.
    pub path: PathBuf,
    /// What is done, for people.
    pub action: String,
    /// The offsets that are lost for good. Readers step over them.
    pub lost: Range<Offset>,
}

/// Mends what [`verify`](fn@crate::inspect::verify) finds damaged, missing or foreign; unless `execute`, only says what it
/// would do. The result verifies, except for what is said to be beyond it.
///
/// # Errors
///
/// [`Locked`](Error::Locked) if a process has the log open for writing and this is not a dry run; [`Io`](Error::Io),
/// [`NoSpace`](Error::NoSpace): repeating the repair goes on where it stopped.
pub fn repair(path: impl AsRef<Path>, execute: bool) -> Result<RepairReport> {
    repair_in(&Env::real(path.as_ref(), false)?, execute)
}

pub(crate) fn repair_in(env: &Env, execute: bool) -> Result<RepairReport> {
    let _lock = if execute { Some(lock(env)?) } else { None };
    let mut repair = Repair { env, execute, report: RepairReport::default() };
    let places = survey::places(env)?;
    let recorded = recorded(env, &places)?;
    for place in places {
        let survey = survey_place(env, &place, recorded.get(&place.name).copied(), |_| {})?;
        repair.mend_place(&place, &survey)?;
    }
    Ok(repair.report)
}

fn lock(env: &Env) -> Result<Box<dyn Lock>> {
    let path = env.storage.root().to_path_buf();
    env.storage.lock().map_err(|error| match error {
        LockError::Held(holder) => Error::Locked { path, holder },
        LockError::Io(source) => Error::Io { action: "lock", path, source },
    })
}

/// The epoch for a segment in the place of the one with this number, which says none: where nothing behind it says one, it
/// may have come behind the cut. If a compacted segment should go on beyond it, a later one, or it would be taken for a part
/// of that.
fn epoch_of_gap(survey: &PlaceSurvey, at: usize) -> u32 {
    let says_one = |segment: &&Surveyed| segment.header.is_ok();
    let (before, behind) = (survey.segments[..at].iter().rfind(says_one), survey.segments.get(at + 1).filter(says_one));
    let least = before.map_or(1, |before| before.epoch).max(survey.cut.map_or(1, |cut| cut.epoch));
    let goes_on =
        |before: &&Surveyed| before.compacted().is_some_and(|compacted| compacted.end > survey.segments[at].base);
    let beyond = before.filter(goes_on).map_or(0, |before| before.epoch.saturating_add(1));
    behind.map_or(least, |behind| behind.epoch).max(beyond)
}

struct Repair<'a> {
    env: &'a Env,
    execute: bool,
    report: RepairReport,
}

impl Repair<'_> {
    fn mend_place(&mut self, place: &Place, survey: &PlaceSurvey) -> Result<()> {
        let Some(identity) = survey.identity else {
            if !survey.segments.is_empty() {
                let reason = "no header says whose segments these are";
                self.report.beyond.push(format!("{}: {reason}", place.name));
            }
            return Ok(());
        };
        if !matches!(place.kind, PlaceKind::Partition { .. })
            && let Some(lost) = lost_front(self.env, survey)?
        {
            let reason = format!("what the table said at offsets {}..{} is missing", lost.start, lost.end);
            self.report.beyond.push(format!("{}: {reason}", place.name));
        }
        // As it is once it is mended.
        let mut before: Option<Predecessor> = None;
        for (at, segment) in survey.segments.iter().enumerate().take(survey.counted()) {
            let successor = survey.segments.get(at + 1);
            let epoch = if segment.header.is_ok() { segment.epoch } else { epoch_of_gap(survey, at) };
            if before.is_none() {
                before = self.mend_first(place, identity, survey.start, segment, epoch)?;
            }
            let end_before = match at.checked_sub(1) {
                Some(before) => survey.segments[before].until(Some(segment)),
                None => Some(segment.follows(survey.start)),
            };
            self.mend_gap_before(place, identity, (before, end_before), segment, epoch)?;
            let end_position = if segment.header.is_ok() {
                self.mend_holes(place, survey, segment)?;
                self.mend_end(place, identity, survey.witness, segment, successor)?
            } else {
                let most = segment.base.saturating_advance(segment.length / 8 + 1).max(survey.witness);
                let lost = segment.base..successor.map_or(most, |successor| successor.follows(segment.base));
                self.replace(place, identity, before, segment, lost, epoch)?;
                GAP_SEGMENT_END
            };
            before = Some(Predecessor { base: segment.base, end_position });
        }
        for segment in survey.set_aside() {
            let path = self.env.storage.root().join(&segment.path);
            let reason = "the file belongs elsewhere, and opening the log sets it aside";
            self.report.beyond.push(format!("{}: {}: {reason}", place.name, path.display()));
        }
        Ok(())
    }

    /// The first segment of a topic, if it is not there: up to the one behind it that is known of.
    fn mend_first(
        &mut self,
        place: &Place,
        identity: Identity,
        start: Offset,
        segment: &Surveyed,
        epoch: u32,
    ) -> Result<Option<Predecessor>> {
        let topic = matches!(place.kind, PlaceKind::Partition { .. });
        if !topic || segment.base <= start {
            return Ok(None);
        }
        self.make_gap_segment(place, identity, None, start..segment.follows(start), epoch)?;
        Ok(Some(Predecessor { base: start, end_position: GAP_SEGMENT_END }))
    }

    /// What is missing between the segment before, which ends at `end`, and this one: the segment that its header names as
    /// its predecessor, and what came in front of that.
    fn mend_gap_before(
        &mut self,
        place: &Place,
        identity: Identity,
        (before, end): (Option<Predecessor>, Option<Offset>),
        segment: &Surveyed,
        epoch: u32,
    ) -> Result<()> {
        let Some(end) = end.filter(|end| before.is_some() && *end < segment.base) else { return Ok(()) };
        let named = segment.header.as_ref().ok().and_then(|header| header.predecessor);
        let named = named.filter(|named| named.base >= end && named.base < segment.base);
        if let Some(named) = named.filter(|named| named.base > end) {
            self.make_gap_segment(place, identity, before, end..named.base, epoch)?;
        }
        let lost = named.map_or(end, |named| named.base)..segment.base;
        if let Some(named) = named.filter(|named| named.end_position < GAP_SEGMENT_END) {
            let reason = format!("the next one says that it ended at byte {}, where no gap fits", named.end_position);
            self.report.beyond.push(format!(
                "{}: the segment of offsets {}..{} is missing; {reason}",
                place.name, lost.start, lost.end
            ));
            return Ok(());
        }
        self.make_gap_segment(place, identity, before, lost, epoch)
    }

    fn mend_holes(&mut self, place: &Place, survey: &PlaceSurvey, segment: &Surveyed) -> Result<()> {
        for (hole, epoch) in segment.holes.iter().filter(|(hole, _)| !segment.is_torn_at(hole.first, survey.witness)) {
            let lost = hole.first..hole.next;
            if hole.end - hole.start < MARKER_BYTES as u64 {
                let (start, end) = (hole.start, hole.end);
                let reason =
                    format!("bytes {start}..{end} of {} are no batch, and no gap fits", segment.path.display());
                self.report.beyond.push(format!("{}: {reason}", place.name));
                continue;
            }
            let action = format!("put a gap in the place of bytes {}..{}", hole.start, hole.end);
            self.note(place, &segment.path, action, lost.clone());
            self.patch(segment, hole.start..hole.end, hole.end - hole.start, *epoch, &lost)?;
        }
        Ok(())
    }

    /// The end of the segment, if less is there than was promised, and what came behind it; returns its position then.
    fn mend_end(
        &mut self,
        place: &Place,
        identity: Identity,
        witness: Offset,
        segment: &Surveyed,
        successor: Option<&Surveyed>,
    ) -> Result<u64> {
        let named = segment.until(successor);
        let promised = segment.promised(named, witness);
        let (mut end, mut next) = (segment.end, segment.next);
        if next < promised {
            next = named.unwrap_or(promised);
            if !self.put_gap_at_end(place, segment, successor, next)? {
                return Ok(end);
            }
            end += MARKER_BYTES as u64;
        }
        let before = Some(Predecessor { base: segment.base, end_position: end });
        if let Some((cut, lost)) = segment.lost_behind_cut(successor, witness) {
            self.make_gap_segment(place, identity, before, lost, cut.epoch)?;
        } else if segment.misses_successor(successor) || (segment.rolled && named.is_none()) {
            // As many as a segment of this length can have held.
            let lost = next..next.saturating_advance(segment.length / 8);
            self.make_gap_segment(place, identity, before, lost, segment.epoch)?;
        }
        Ok(end)
    }

    /// Puts a gap behind the last batch, up to this offset; whether it could.
    fn put_gap_at_end(
        &mut self,
        place: &Place,
        segment: &Surveyed,
        successor: Option<&Surveyed>,
        next: Offset,
    ) -> Result<bool> {
        let lost = segment.next..next;
        let room = segment.end_position(successor).unwrap_or(u64::MAX);
        if room < segment.end + MARKER_BYTES as u64 {
            let reason = format!("the next segment says that this one ended at byte {room}, where no gap fits");
            self.report
                .beyond
                .push(format!("{}: offsets {}..{} are missing; {reason}", place.name, lost.start, lost.end));
            return Ok(false);
        }
        if self.is_too_wide(place, &lost) {
            return Ok(false);
        }
        let action = format!("put a gap in the place of what is missing from byte {} on", segment.end);
        self.note(place, &segment.path, action, lost.clone());
        let end = segment.length.max((segment.end + MARKER_BYTES as u64).next_multiple_of(GAP_FILE_BYTES));
        // A short one: the successor says where this segment ended, and that is where its batches must.
        self.patch(segment, segment.end..end, MARKER_BYTES as u64, segment.epoch, &lost)?;
        Ok(true)
    }

    /// Moves a file aside whose header is damaged or foreign, and puts a segment that is one gap in its place.
    fn replace(
        &mut self,
        place: &Place,
        identity: Identity,
        before: Option<Predecessor>,
        segment: &Surveyed,
        lost: Range<Offset>,
        epoch: u32,
    ) -> Result<()> {
        if self.execute {
            self.copy_aside(&segment.path)?;
            self.env.storage.remove(&segment.path).map_err(self.io("remove", &segment.path))?;
        }
        self.make_gap_segment(place, identity, before, lost, epoch)
    }

    /// Makes a segment that is one gap. Its name is taken last.
    fn make_gap_segment(
        &mut self,
        place: &Place,
        identity: Identity,
        predecessor: Option<Predecessor>,
        lost: Range<Offset>,
        epoch: u32,
    ) -> Result<()> {
        let path = place.dir.join(segment::file_name(lost.start));
        if self.is_too_wide(place, &lost) {
            return Ok(());
        }
        self.note(place, &path, "make a segment that is one gap".to_owned(), lost.clone());
        if !self.execute {
            return Ok(());
        }
        let header =
            Header { identity, epoch, base: lost.start, predecessor, durable_end: lost.start, compacted: None };
        let bytes = header.encode();
        let unborn = path.with_extension("log.new");
        let storage = &self.env.storage;
        let file = storage.create(&unborn).map_err(self.io("create", &unborn))?;
        file.allocate(0, GAP_FILE_BYTES).map_err(self.io("allocate", &unborn))?;
        drop(file);
        let (file, mut pen) = survey::map(self.env, &unborn, Access::Write)?.expect("it is a page long");
        let place_of_gap = HEADER_BYTES..GAP_SEGMENT_END;
        let word = self.encode_gap(pen.spare(place_of_gap.clone()), segment::salt(&bytes), epoch, &lost);
        pen.spare(HEADER_BYTES..HEADER_BYTES + 8).copy_from_slice(&word.to_le_bytes());
        pen.spare(0..HEADER_BYTES).copy_from_slice(&bytes);
        pen.adopt(place_of_gap.end);
        file.sync().map_err(self.io("sync", &unborn))?;
        storage.rename(&unborn, &path).map_err(self.io("name", &path))?;
        storage.sync_dir(&place.dir).map_err(self.io("sync", &place.dir))
    }

    /// Whether no gap is so wide, as when all segments were lost and the log went on far behind them; says so.
    fn is_too_wide(&mut self, place: &Place, lost: &Range<Offset>) -> bool {
        let too_wide = u32::try_from(lost.end.since(lost.start)).is_err();
        if too_wide {
            let reason = format!("offsets {}..{} are missing, more than a gap can span", lost.start, lost.end);
            self.report.beyond.push(format!("{}: {reason}", place.name));
        }
        too_wide
    }

    /// Overwrites bytes of a segment with a gap of this length and zeros, after copying the file aside.
    fn patch(
        &mut self,
        segment: &Surveyed,
        bytes: Range<u64>,
        gap_bytes: u64,
        epoch: u32,
        lost: &Range<Offset>,
    ) -> Result<()> {
        if !self.execute {
            return Ok(());
        }
        self.copy_aside(&segment.path)?;
        if bytes.end > segment.length {
            let file = self.env.storage.open(&segment.path, Access::Write).map_err(self.io("open", &segment.path))?;
            file.allocate(segment.length, bytes.end).map_err(self.io("allocate", &segment.path))?;
        }
        let (file, mut pen) = survey::map(self.env, &segment.path, Access::Write)?.expect("it has a header");
        // The room behind the last batch may have been given back.
        file.reclaim(bytes.clone()).map_err(self.io("allocate", &segment.path))?;
        let salt = segment::salt(pen.unread(0..HEADER_BYTES));
        pen.spare(bytes.clone()).fill(0);
        let word = self.encode_gap(pen.spare(bytes.start..bytes.start + gap_bytes), salt, epoch, lost);
        pen.spare(bytes.start..bytes.start + 8).copy_from_slice(&word.to_le_bytes());
        file.sync().map_err(self.io("sync", &segment.path))
    }

    /// A gap that fills `place`; where no offsets are lost, a marker stood there, and takes none either.
    fn encode_gap(&self, place: &mut [u8], salt: u32, epoch: u32, lost: &Range<Offset>) -> u64 {
        let (base, durable_end) = (lost.start, lost.start);
        let stamp = Stamp { base, durable_end, epoch, salt, timestamp_type: TimestampType::Create };
        let now = self.env.clock.now();
        match u32::try_from(lost.end.since(lost.start)).unwrap_or(u32::MAX) {
            0 => batch::encode_marker(place, &stamp, now, Marker::Synced),
            span => batch::encode_gap(place, &stamp, now, span),
        }
    }

    fn note(&mut self, place: &Place, path: &Path, action: String, lost: Range<Offset>) {
        let path = self.env.storage.root().join(path);
        self.report.mends.push(Mend { place: place.name.clone(), path, action, lost });
    }

    /// Copies a file below a directory of this repair's own, once, durably.
    fn copy_aside(&mut self, path: &Path) -> Result<()> {
        let backup = self.backup_dir()?;
        let copy = backup.join(path);
        let storage = &self.env.storage;
        let mut dir = PathBuf::new();
        for part in copy.parent().into_iter().flat_map(Path::components) {
            let parent = dir.clone();
            dir.push(part);
            match storage.create_dir(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(self.io("create", &dir)(error));
                }
                _ => storage.sync_dir(&parent).map_err(self.io("sync", &parent))?,
            }
        }
        let file = match storage.create(&copy) {
            // Copied before another part of it was mended.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            file => file.map_err(self.io("create", &copy))?,
        };
        let Some((_, original)) = survey::map(self.env, path, Access::Read)? else { return Ok(()) };
        let length = original.region().valid();
        file.allocate(0, length).map_err(self.io("allocate", &copy))?;
        drop(file);
        let (file, mut pen) = survey::map(self.env, &copy, Access::Write)?.expect("it is as long as the original");
        pen.spare(0..length).copy_from_slice(original.unread(0..length));
        pen.adopt(length);
        file.sync().map_err(self.io("sync", &copy))?;
        storage.sync_dir(&dir).map_err(self.io("sync", &dir))
    }

    /// The directory for this repair's copies: the first number that is free.
    fn backup_dir(&mut self) -> Result<PathBuf> {
        let root = self.env.storage.root().to_path_buf();
        if let Some(backup) = &self.report.backup {
            return Ok(backup.strip_prefix(&root).unwrap_or(backup).to_path_buf());
        }
        for number in 1.. {
            let dir = PathBuf::from(format!("repair-backup-{number}"));
            match self.env.storage.create_dir(&dir) {
                Ok(()) => {
                    self.report.backup = Some(root.join(&dir));
                    return Ok(dir);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.io("create", &dir)(error)),
            }
        }
        unreachable!("some number is free")
    }

    fn io<'b>(&'b self, action: &'static str, path: &'b Path) -> impl FnOnce(std::io::Error) -> Error + 'b {
        move |source| Error::Io { action, path: self.env.storage.root().join(path), source }
    }
}
