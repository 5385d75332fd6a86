//! A sealed segment in its place among the others: mapped, or copied, when somebody reads from it, and for as long as
//! somebody does.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::env::Env;
use crate::env::storage::Access;
use crate::env::storage::region::Region;
use crate::error::{Error, Flaw, Result};
use crate::format::batch::Walk;
use crate::partition::segment::Segment;
use crate::types::Offset;

/// Where a segment lies, and what it should hold.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The offset behind the last, and the byte behind it; `None` while the segment is the active one.
    end: Option<(Offset, u64)>,
    content: Content,
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
}

impl Slot {
    pub(crate) fn mapped(segment: &Arc<Segment>, path: PathBuf) -> Self {
        let state = State { end: None, content: Content::Mapped(Arc::clone(segment)) };
        Slot { base: segment.base(), path, state: Mutex::new(state) }
    }

    pub(crate) fn on_disk(path: PathBuf, begin: Walk, end: (Offset, u64)) -> Self {
        let content = Content::OnDisk(begin, Weak::new());
        Slot { base: begin.due, path, state: Mutex::new(State { end: Some(end), content }) }
    }

    pub(crate) fn broken(base: Offset, path: PathBuf, flaw: Flaw, next: Offset) -> Self {
        Slot { base, path, state: Mutex::new(State { end: Some((next, 0)), content: Content::Broken(flaw) }) }
    }

    /// Says where the segment ends: nothing will be appended to it.
    pub(crate) fn seal(&self, next: Offset, end_position: u64) {
        self.state.lock().end = Some((next, end_position));
    }

    /// The offset behind its last, if it is sealed.
    pub(crate) fn next(&self) -> Option<Offset> {
        self.state.lock().end.map(|(next, _)| next)
    }

    /// Lets go of the pages of a sealed segment: whoever reads on gets them back from the file.
    pub(crate) fn let_go(&self) {
        if let State { content: Content::Mapped(segment), end: Some(_) } = &*self.state.lock() {
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
            state.content = Content::OnDisk(segment.begin(), Weak::new());
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
        let file = storage.open(&self.path, Access::Read).map_err(Error::io("open", full_path()))?;
        let length = file.len().map_err(Error::io("measure", full_path()))?;
        if length == 0 {
            return Ok(Found::Broken(Flaw::Missing));
        }
        let memory = if env.copy_reads {
            file.copy(length).map_err(Error::io("read", full_path()))?
        } else {
            file.map(length).map_err(Error::io("map", full_path()))?
        };
        let (region, mut pen) = Region::new(memory, length);
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
