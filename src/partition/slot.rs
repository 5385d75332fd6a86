//! A sealed segment in its place among the others: mapped, or copied, when somebody reads from it, and for as long as
//! somebody does.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::env::Env;
use crate::env::storage::Access;
use crate::env::storage::region::{Pen, Region};
use crate::error::{Error, Flaw, Result};
use crate::format::batch::Walk;
use crate::format::segment::{self, HEADER_BYTES, Header};
use crate::partition::retention::Extent;
use crate::partition::segment::Segment;
use crate::types::{Offset, Timestamp};

/// What a file takes of the disk at least.
const PAGE_BYTES: u64 = 4096;

/// Where a segment lies, and what it should hold.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    /// Of a compacted segment: it holds no record of whose key there is a later one below this offset.
    pub(crate) clean_end: Option<Offset>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The offset behind the last, and the byte behind it; `None` while the segment is the active one.
    end: Option<(Offset, u64)>,
    content: Content,
    /// The latest timestamp of a sealed segment that was let go of, if all of it had been looked at.
    latest: Option<Option<Timestamp>>,
    /// Whether nobody writes to the file any more, not even a marker.
    finished: bool,
}

#[derive(Debug)]
enum Content {
    Mapped(Arc<Segment>),
    /// Not mapped, or copied for as long as somebody reads it; where its batches begin.
    OnDisk(Walk, Weak<Segment>),
    /// Its header is gone, or is that of another file.
    Broken(Flaw),
}

/// What reading from a slot can meet.
#[derive(Debug)]
pub(crate) enum Found {
    Segment(Arc<Segment>),
    Broken(Flaw),
    /// Another segment has its name by now: one that was compacted.
    Replaced,
}

impl Slot {
    pub(crate) fn mapped(segment: &Arc<Segment>, path: PathBuf) -> Self {
        let state = State { end: None, content: Content::Mapped(Arc::clone(segment)), latest: None, finished: false };
        Slot { base: segment.base(), path, clean_end: None, state: Mutex::new(state) }
    }

    pub(crate) fn on_disk(path: PathBuf, begin: Walk, end: (Offset, u64)) -> Self {
        let content = Content::OnDisk(begin, Weak::new());
        let state = State { end: Some(end), content, latest: None, finished: true };
        Slot { base: begin.due, path, clean_end: None, state: Mutex::new(state) }
    }

    pub(crate) fn broken(base: Offset, path: PathBuf, flaw: Flaw, end: (Offset, u64)) -> Self {
        let state = State { end: Some(end), content: Content::Broken(flaw), latest: None, finished: true };
        Slot { base, path, clean_end: None, state: Mutex::new(state) }
    }

    /// That of a compacted segment, if its header says so.
    pub(crate) fn compacted(self, clean_end: Option<Offset>) -> Self {
        Slot { clean_end, ..self }
    }

    /// Says how late its records are.
    pub(crate) fn with_latest(self, latest: Option<Timestamp>) -> Self {
        self.state.lock().latest = Some(latest);
        self
    }

    /// Says that nobody will write to the file any more.
    pub(crate) fn finish(&self) {
        self.state.lock().finished = true;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state.lock().finished
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.state.lock().content, Content::Broken(_))
    }

    /// Whether both are of the same file, and it ends at the same offset.
    pub(crate) fn is_like(&self, other: &Slot) -> bool {
        let outline = |slot: &Slot| {
            let state = slot.state.lock();
            let salt = match &state.content {
                Content::Mapped(segment) => Some(segment.begin().salt),
                Content::OnDisk(begin, _) => Some(begin.salt),
                Content::Broken(_) => None,
            };
            (slot.base, state.end.map(|(next, _)| next), salt)
        };
        outline(self) == outline(other)
    }

    /// Says where the segment ends: nothing will be appended to it.
    pub(crate) fn seal(&self, next: Offset, end_position: u64) {
        self.state.lock().end = Some((next, end_position));
    }

    /// Says that it ends there, although it holds more. Who holds it goes on seeing all of it; whoever comes has it mapped
    /// up to there.
    pub(crate) fn cut(&self, next: Offset, end_position: u64) {
        let mut state = self.state.lock();
        (state.end, state.latest) = (Some((next, end_position)), None);
        state.content = match &state.content {
            Content::Mapped(segment) => Content::OnDisk(segment.begin(), Weak::new()),
            Content::OnDisk(begin, _) => Content::OnDisk(*begin, Weak::new()),
            Content::Broken(flaw) => Content::Broken(*flaw),
        };
    }

    /// Whether its file is somebody else's.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.state.lock().content, Content::Broken(Flaw::Foreign))
    }

    /// The byte behind its last batch, if it is sealed.
    pub(crate) fn end_position(&self) -> Option<u64> {
        self.state.lock().end.map(|(_, position)| position)
    }

    /// The offset behind its last, if it is sealed.
    pub(crate) fn next(&self) -> Option<Offset> {
        self.state.lock().end.map(|(next, _)| next)
    }

    /// Its offsets and its bytes, with the header; `log_end`: where it ends while it is appended to.
    pub(crate) fn extent(&self, log_end: Offset) -> Extent {
        let state = self.state.lock();
        let (next, bytes) = match (&state.end, &state.content) {
            (Some(end), _) => *end,
            (None, Content::Mapped(segment)) => (log_end, segment.region().written()),
            (None, _) => (log_end, 0),
        };
        Extent { offsets: self.base..next.max(self.base), bytes }
    }

    /// The latest timestamp of its records, if that is known: the segment is sealed, and all of it was looked at.
    pub(crate) fn latest(&self) -> Option<Option<Timestamp>> {
        let state = self.state.lock();
        match &state.content {
            Content::Mapped(segment) if state.end.is_some() => segment.known_latest(),
            _ => state.latest,
        }
    }

    /// How many bytes of the disk it takes.
    pub(crate) fn taken_bytes(&self) -> u64 {
        let state = self.state.lock();
        match (&state.content, state.end) {
            (Content::Mapped(segment), _) => segment.region().valid(),
            (_, end) => end.map_or(0, |(_, position)| position.next_multiple_of(PAGE_BYTES)),
        }
    }

    /// Lets go of the pages of a sealed segment: whoever reads on gets them back from the file.
    pub(crate) fn let_go(&self) {
        if let State { content: Content::Mapped(segment), end: Some(_), .. } = &*self.state.lock() {
            segment.region().let_go(0..segment.region().written());
        }
    }

    /// Lets go of a sealed segment, mapping and index, if nobody holds it; otherwise of its pages. Whoever reads it next
    /// has it mapped and checked again.
    pub(crate) fn rest(&self) {
        let mut state = self.state.lock();
        let (Content::Mapped(segment), Some(_)) = (&state.content, &state.end) else { return };
        if !segment.is_forgettable() {
            return;
        }
        if Arc::strong_count(segment) == 1 {
            let (latest, begin) = (segment.known_latest(), segment.begin());
            state.latest = latest;
            state.content = Content::OnDisk(begin, Weak::new());
        } else {
            segment.region().let_go(0..segment.region().written());
        }
    }

    /// The segment, mapped now if it was not.
    pub(crate) fn get(&self, env: &Env) -> Result<Found> {
        let mut state = self.state.lock();
        let begin = match &state.content {
            Content::Mapped(segment) => return Ok(Found::Segment(Arc::clone(segment))),
            Content::Broken(flaw) => return Ok(Found::Broken(*flaw)),
            Content::OnDisk(begin, copy) => match copy.upgrade() {
                Some(segment) => return Ok(Found::Segment(segment)),
                None => *begin,
            },
        };
        let (next, end_position) = state.end.expect("what is not mapped is sealed");
        let storage = &env.storage;
        let full_path = || storage.root().join(&self.path);
        let file = storage.open(&self.path, Access::Read).map_err(Error::io("open", full_path))?;
        let length = file.len().map_err(Error::io("measure", full_path))?;
        if length == 0 {
            return Ok(Found::Broken(Flaw::Missing));
        }
        let memory = if env.copy_reads {
            file.copy(length).map_err(Error::io("read", full_path))?
        } else {
            file.map(length).map_err(Error::io("map", full_path))?
        };
        let (region, mut pen) = Region::new(memory, length);
        if is_another(&pen, length, &begin) {
            return Ok(Found::Replaced);
        }
        pen.adopt(end_position.min(length));
        let segment = Arc::new(Segment::sealed(full_path(), begin, region, next));
        state.content = if env.copy_reads {
            Content::OnDisk(begin, Arc::downgrade(&segment))
        } else {
            Content::Mapped(Arc::clone(&segment))
        };
        Ok(Found::Segment(segment))
    }
}

/// Whether these are the bytes of another segment than the one that begins there: with a whole header, but not its own.
fn is_another(pen: &Pen, length: u64, begin: &Walk) -> bool {
    if length < HEADER_BYTES || pen.check_readable(0..HEADER_BYTES).is_err() {
        return false;
    }
    let bytes = pen.unread(0..HEADER_BYTES);
    segment::salt(bytes) != begin.salt && Header::decode(bytes).is_ok_and(|header| header.base == begin.due)
}
