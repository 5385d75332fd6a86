//! Finding records by their timestamps, and rolling a segment whose records have come to span too much time.
//!
//! A lookup goes over the segments in the order of their offsets, because timestamps may come in any order. What a
//! segment that is indexed answers costs a look at numbers in memory and at one or two stretches of 4 KiB. A segment that
//! nobody has read since the log was opened is read for that, as far as needed; one that was let go of has left its latest
//! timestamp behind, so that it is read again only if the record may be in it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::partition::slot::{Found, Slot};
use crate::partition::{Partition, Segment, Writer};
use crate::types::{Offset, Timestamp};

/// No record is older.
const BEFORE_ALL: Timestamp = Timestamp::from_millis(i64::MIN);
/// No record is younger.
const BEHIND_ALL: Timestamp = Timestamp::from_millis(i64::MAX);

/// How the age of its records rolls the active segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    /// By how much the records of a segment may differ from its first; `None`: by any time.
    most: Option<Duration>,
    /// When the active segment's first records are from, once somebody has looked.
    began: Option<Timestamp>,
    /// A batch later than this needs a look.
    look_after: Timestamp,
}

impl Age {
    pub(super) fn new(most: Option<Duration>) -> Self {
        let look_after = if most.is_some() { BEFORE_ALL } else { BEHIND_ALL };
        Age { most, began: None, look_after }
    }

    /// A segment was begun.
    pub(super) fn begin(&mut self) {
        *self = Self::new(self.most);
    }

    /// Whether a batch with a record of `latest` may come too late for the active segment.
    #[inline]
    pub(super) fn may_be_over(&self, latest: Timestamp) -> bool {
        latest > self.look_after
    }
}

/// What is done about a segment that is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Refuse,
    PassOver,
}

impl Partition {
    /// The first visible record that is from `since` or later.
    pub(crate) fn first_since(&self, since: Timestamp) -> Result<Option<(Offset, Timestamp)>> {
        self.steadily(|missing| self.find_first_since(since, missing))
    }

    /// The visible record with the latest timestamp; the first of them, if there are several.
    pub(crate) fn latest(&self) -> Result<Option<(Offset, Timestamp)>> {
        self.steadily(|missing| self.find_latest(missing))
    }

    /// Looks again if a segment is not there any more: it may have been compacted into another. What retention has removed,
    /// or somebody else, is passed over in the end.
    fn steadily<T>(&self, mut look: impl FnMut(Missing) -> Result<T>) -> Result<T> {
        const MOST_LOOKS: usize = 8;
        for _ in 0..MOST_LOOKS {
            match look(Missing::Refuse) {
                Err(error) if error.is_not_found() => self.look_again()?,
                found => return found,
            }
        }
        look(Missing::PassOver)
    }

    fn find_first_since(&self, since: Timestamp, missing: Missing) -> Result<Option<(Offset, Timestamp)>> {
        let offsets = self.log_start()..self.high_watermark();
        for slot in self.slots_of(&offsets) {
            if slot.latest().is_some_and(|latest| latest < Some(since)) {
                continue;
            }
            let Some(segment) = self.segment_of(&slot, missing)? else { continue };
            let found = segment.first_since(since, &offsets).map_err(Error::io("read", || segment.path()))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_latest(&self, missing: Missing) -> Result<Option<(Offset, Timestamp)>> {
        let offsets = self.log_start()..self.high_watermark();
        let mut latest: Option<(Timestamp, Arc<Slot>)> = None;
        for slot in self.slots_of(&offsets) {
            let found = self.latest_of(&slot, &offsets, missing)?;
            if let Some(found) = found
                && latest.as_ref().is_none_or(|(latest, _)| found > *latest)
            {
                latest = Some((found, slot));
            }
        }
        let Some((latest, slot)) = latest else { return Ok(None) };
        let Some(segment) = self.segment_of(&slot, missing)? else { return Ok(None) };
        segment.first_since(latest, &offsets).map_err(Error::io("read", || segment.path()))
    }

    /// The latest timestamp of the records of a segment that have these offsets.
    fn latest_of(&self, slot: &Slot, offsets: &Range<Offset>, missing: Missing) -> Result<Option<Timestamp>> {
        let is_within = slot.base >= offsets.start && slot.next().is_some_and(|next| next <= offsets.end);
        if is_within && let Some(latest) = slot.latest() {
            return Ok(latest);
        }
        let Some(segment) = self.segment_of(slot, missing)? else { return Ok(None) };
        segment.latest(offsets).map_err(Error::io("read", || segment.path()))
    }

    /// The places of the segments that hold these offsets, in order.
    fn slots_of(&self, offsets: &Range<Offset>) -> Vec<Arc<Slot>> {
        let holds = |slot: &&Arc<Slot>| slot.base < offsets.end && slot.next().is_none_or(|next| next > offsets.start);
        self.slots.read().iter().filter(holds).cloned().collect()
    }

    /// The segment there; `None` if its header is damaged, or if it is not there and that is to be passed over.
    pub(super) fn segment_of(&self, slot: &Slot, missing: Missing) -> Result<Option<Arc<Segment>>> {
        let found = match slot.get(&self.home.env) {
            Ok(Found::Segment(segment)) => return Ok(Some(segment)),
            Ok(Found::Broken(_)) => return Ok(None),
            Ok(Found::Replaced) => {
                Err(Error::io("open", || self.home.full(&slot.path))(io::ErrorKind::NotFound.into()))
            }
            Err(error) => Err(error),
        };
        match found {
            Err(error) if error.is_not_found() && missing == Missing::PassOver => Ok(None),
            found => found,
        }
    }

    /// Whether no record of the segment there is from `limit` or later; `None` if nothing in it can be read.
    pub(super) fn is_older_than(&self, slot: &Slot, limit: Timestamp) -> Result<Option<bool>> {
        if let Some(latest) = slot.latest() {
            return Ok(latest.map(|latest| latest < limit));
        }
        let Some(segment) = self.segment_of(slot, Missing::PassOver)? else { return Ok(None) };
        segment.is_older_than(limit).map_err(Error::io("read", || segment.path()))
    }

    /// Rolls the active segment if a batch with a record of `latest` is too late for it. If there is no room for another
    /// segment, this one goes on: that is no reason to refuse the batch.
    #[cold]
    pub(super) fn roll_by_age(&self, writer: &mut Writer, latest: Timestamp) -> Result<()> {
        let (Some(most), Some(active)) = (writer.age.most, &writer.active) else { return Ok(()) };
        let is_empty = active.segment.base() == writer.next;
        let began = if is_empty { Some(latest) } else { writer.age.began.or_else(|| active.segment.began()) };
        let began = began.unwrap_or(latest);
        writer.age.began = Some(began);
        writer.age.look_after = began.saturating_add(most);
        if !writer.age.may_be_over(latest) {
            return Ok(());
        }
        match self.roll(writer) {
            Err(Error::NoSpace { .. }) => Ok(()),
            rolled => rolled,
        }
    }
}
