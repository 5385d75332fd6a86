//! Syncing: one sync for all who wait, and what the background worker does when nobody does.
//!
//! Whoever needs a sync first leads it, without the partition's mutex, so that appends go on; the others wait for its end,
//! look whether it covered them, and one of them leads the next. A sync that fails is final.

use std::cell::Cell;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::config::Durability;
use crate::env::Env;
use crate::env::scheduling::Bell;
use crate::env::storage::File;
use crate::env::storage::region::{PAGE, Pen};
use crate::error::{Error, Result};
use crate::format::batch::{self, MARKER_BYTES, Marker, Stamp};
use crate::partition::segment::Segment;
use crate::partition::slot::Slot;
use crate::partition::{CLOSED, FAILED, Listener, MARKER_ROOM, OPEN, Partition, Sealed, Writer};
use crate::types::{Offset, TimestampType};

/// How long a record of a `Sync` topic waits for somebody to need its sync before the background worker does it.
const SYNC_DELAY: Duration = Duration::from_millis(1);
/// How long nothing must have been appended before a marker is worth its 48 bytes.
const IDLE_DELAY: Duration = Duration::from_millis(20);
/// How long nothing must have been appended before rolled segments are synced that nobody asked to sync; and how many
/// of them do not wait for that.
const ROLLED_DELAY: Duration = Duration::from_millis(100);
const MOST_ROLLED: usize = 16;
/// So many segments stay mapped behind their sync, for those who read not far behind the end: what is mapped can be read
/// whatever limit the process has reached.
const MOST_MAPPED: usize = 16;

/// The longest that a sync is put off for others to join it.
const GATHER_AT_MOST: Duration = Duration::from_micros(500);

/// If so many are about, there is no idle processor from the end of a sync to the beginning of the next.
const MANY: u32 = 32;

/// How often those of them give way who wait for the next: more of it only keeps the processors from those who come.
const LOOKS: u32 = 4;

/// How often that time is halved, if it is put off for nobody.
const MOST_HALVINGS: u32 = 10;

/// Whose turn it is to sync, for all who wait.
///
/// Threads that append and wait, again and again, come in one after the other when a sync has woken them. If the first of
/// them began the next sync at once, it would sync its own record alone, and all the others the one after that. So it
/// gives way to them, for as long as a sync takes, until as many wait as the last sync served and found waiting when it
/// ended: all who are about. If nobody came in that time, it is halved for the next one who gives way.
///
/// Where many are about, those who come meanwhile give way a few times before they go to sleep: to go to sleep takes its
/// time, too, and that can be while the disk is at work.
#[derive(Debug, Default)]
pub(super) struct Turn {
    syncing: bool,
    /// Whether somebody gives way to others, to sync then; and how often in a row nobody came.
    gathering: bool,
    in_vain: u32,
    /// How many syncs have begun, and how many have come to wait since the last of them did.
    begun: u64,
    arrived: u32,
    /// How many the last sync served, how many were about when it ended, and how long it took.
    served: u32,
    about: u32,
    took: Duration,
}

/// What somebody has to do who waits for a sync.
enum Part {
    Lead,
    Gather {
        here: u32,
        at_most: Duration,
    },
    /// Wait for somebody else's sync; and give way first, if many are still to come.
    Wait {
        gives_way: bool,
    },
}

impl Turn {
    /// Counts somebody who has appended and comes to wait; how many syncs had begun before.
    fn arrive(&mut self) -> u64 {
        self.arrived += 1;
        self.begun
    }

    /// Somebody goes who came when so many syncs had begun: if there was none since, there is one less to wait for.
    fn leave(&mut self, begun: u64) {
        if self.begun == begun {
            self.arrived -= 1;
        }
    }

    /// Whether nobody need give way to others any more.
    fn is_gathered(&self) -> bool {
        self.syncing || self.arrived >= self.about
    }

    /// The part of one of those who have arrived; who is not `patient` has given way to the others already.
    fn part(&mut self, patient: bool) -> Part {
        if self.syncing {
            return Part::Wait { gives_way: false };
        }
        if !patient || self.is_gathered() {
            if self.about > 1 && self.arrived >= self.about {
                self.in_vain = 0;
            }
            // Whoever has arrived has appended before, so this sync serves them.
            self.served = mem::take(&mut self.arrived);
            self.begun += 1;
            self.syncing = true;
            return Part::Lead;
        }
        if mem::replace(&mut self.gathering, true) {
            return Part::Wait { gives_way: self.about >= MANY };
        }
        Part::Gather { here: self.arrived, at_most: self.took.min(GATHER_AT_MOST) / (1 << self.in_vain) }
    }

    /// Nobody gives way any more; `here` had arrived when somebody began to.
    fn end_gathering(&mut self, here: u32) {
        self.gathering = false;
        let in_vain = !self.syncing && self.arrived <= here;
        self.in_vain = if in_vain { (self.in_vain + 1).min(MOST_HALVINGS) } else { 0 };
    }

    /// Takes the turn, whoever waits, if nobody has it.
    pub(super) fn take(&mut self) -> bool {
        !mem::replace(&mut self.syncing, true)
    }

    fn end(&mut self, took: Duration) {
        (self.syncing, self.took) = (false, took);
        self.about = self.served + self.arrived;
    }

    /// Gives back a turn in which nothing was synced.
    pub(super) fn release(&mut self) {
        self.syncing = false;
    }
}

/// What one look at a partition says of when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing to do until something is appended.
    Done,
    /// Look again at this time.
    At(Duration),
}

/// Syncing.
impl Partition {
    /// Waits until everything below `target` is durable, syncing if nobody else does, or was cut off. `timeout`: `None`
    /// is for ever.
    pub(crate) fn sync_to(&self, target: Offset, timeout: Option<Duration>) -> Result<()> {
        if self.is_synced(target) {
            return Ok(());
        }
        let begun = self.turn.lock().arrive();
        let synced = self.wait_for_sync(target, timeout, true);
        self.turn.lock().leave(begun);
        synced
    }

    /// Whether everything below `target` is durable, or was cut off.
    fn is_synced(&self, target: Offset) -> bool {
        self.durable_end() >= target || self.log_end() < target
    }

    /// The same for who has been counted, or need not be; who is not `patient` gives way to nobody.
    fn wait_for_sync(&self, target: Offset, timeout: Option<Duration>, mut patient: bool) -> Result<()> {
        let clock = &self.home.env.clock;
        let start = timeout.map(|_| clock.monotonic());
        loop {
            let seen = self.synced.rung();
            if self.is_synced(target) {
                return Ok(());
            }
            self.check_open()?;
            let part = self.turn.lock().part(patient);
            match part {
                Part::Lead => self.lead_sync(true),
                Part::Gather { here, at_most } => {
                    self.home.env.scheduler.give_way(&|| self.turn.lock().is_gathered(), at_most);
                    self.turn.lock().end_gathering(here);
                    patient = false;
                    if self.is_synced(target) {
                        // Somebody else has led meanwhile. Whoever has left the next sync to this thread looks again.
                        self.synced.ring();
                    }
                }
                Part::Wait { gives_way } => {
                    let waited = start.map_or(Duration::ZERO, |start| clock.monotonic().saturating_sub(start));
                    let left = timeout.map(|timeout| timeout.saturating_sub(waited));
                    if left == Some(Duration::ZERO) {
                        return Err(Error::Timeout { waited });
                    }
                    if gives_way {
                        let looks = Cell::new(0);
                        let has_looked = || looks.replace(looks.get() + 1) == LOOKS || self.synced.rung() != seen;
                        let at_most = left.map_or(GATHER_AT_MOST, |left| left.min(GATHER_AT_MOST));
                        self.home.env.scheduler.give_way(&has_looked, at_most);
                    }
                    self.synced.wait(seen, left);
                }
            }
        }
    }

    /// Waits until all sealed segments are durable, and nobody writes to them any more, not even a marker.
    pub(crate) fn finish_sealed(&self) -> Result<()> {
        loop {
            let seen = self.synced.rung();
            self.check_open()?;
            if self.slots.read().iter().all(|slot| slot.next().is_none() || slot.is_finished()) {
                return Ok(());
            }
            let leads = self.turn.lock().take();
            if leads {
                self.lead_sync(true);
                if self.writer.lock().sealed.is_empty() {
                    return self.check_open();
                }
            } else {
                self.synced.wait(seen, None);
            }
        }
    }

    fn check_not_failed(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == FAILED {
            return Err(Error::SyncFailed { partition: self.home.partition.clone() });
        }
        Ok(())
    }

    /// Syncs everything that was appended, or all but the active segment, as the one who does it for all; tells
    /// everybody.
    fn lead_sync(&self, active_too: bool) {
        let mut writer = self.writer.lock();
        if self.check_open().is_err() {
            // The files are gone, so nothing can be said of them.
            drop(writer);
            self.turn.lock().release();
            self.synced.ring();
            return;
        }
        let start = self.home.env.clock.monotonic();
        let sealed = mem::take(&mut writer.sealed);
        let unnamed = mem::take(&mut writer.unnamed);
        let active = writer.active.as_ref().filter(|_| active_too);
        let end = if active_too { writer.next } else { sealed.last().map_or(self.durable_end(), |old| old.next) };
        let active = active.map(|active| (Arc::clone(&active.file), Arc::clone(&active.segment), end));
        writer.unsynced_bytes = 0;
        writer.dirty_since = None;
        drop(writer);

        let rolled: Vec<Arc<Slot>> = sealed.iter().map(|old| Arc::clone(&old.slot)).collect();
        let synced = self.sync_files(sealed, unnamed, active);

        let mut writer = self.writer.lock();
        match &synced {
            Ok(()) => {
                rolled.iter().for_each(|slot| slot.finish());
                self.durable_end.fetch_max(end.get(), Ordering::AcqRel);
                if writer.durability == Durability::Sync {
                    self.high_watermark.fetch_max(end.get(), Ordering::AcqRel);
                }
                // What came meanwhile waits for the next sync.
                if writer.next > end && writer.durability != Durability::Os && writer.dirty_since.is_none() {
                    writer.dirty_since = Some(self.home.env.clock.monotonic());
                }
            }
            Err(_) => self.state.store(FAILED, Ordering::Release),
        }
        let listeners = mem::take(&mut writer.listeners);
        drop(writer);
        self.let_go_of_rolled(&rolled);
        let took = self.home.env.clock.monotonic().saturating_sub(start);
        self.turn.lock().end(took);
        self.synced.ring();
        notify(listeners);
        self.run_callbacks();
    }

    /// Lets go of the pages of segments that were rolled and synced, and of the whole of those that are behind the last few.
    fn let_go_of_rolled(&self, rolled: &[Arc<Slot>]) {
        rolled.iter().for_each(|slot| slot.let_go());
        let slots = self.slots.read();
        let old = slots.len().saturating_sub(MOST_MAPPED);
        slots[old.saturating_sub(rolled.len())..old].iter().for_each(|slot| slot.rest());
    }

    /// A sync has failed that nobody waits for, and that is final: for those, too, who wait for another.
    pub(super) fn fail(&self) {
        self.state.store(FAILED, Ordering::Release);
        let listeners = mem::take(&mut self.writer.lock().listeners);
        self.synced.ring();
        notify(listeners);
        self.run_callbacks();
    }

    /// Old segments first, then the name of the new one, then the new one: a prefix is durable at every moment.
    fn sync_files(
        &self,
        mut sealed: Vec<Sealed>,
        unnamed: bool,
        active: Option<(Arc<dyn File>, Arc<Segment>, Offset)>,
    ) -> Result<()> {
        for old in &sealed {
            self.sync_file(&*old.file, old.next).map_err(Error::io("sync", || self.home.full(&old.slot.path)))?;
        }
        if unnamed {
            let dir = &self.home.dir;
            self.home.env.storage.sync_dir(dir).map_err(Error::io("sync", || self.home.full(dir)))?;
            for old in &mut sealed {
                self.mark_rolled(old);
                self.sync_file(&*old.file, old.next).map_err(Error::io("sync", || self.home.full(&old.slot.path)))?;
            }
        }
        for old in &sealed {
            release(&*old.file, old.pen.region().written());
        }
        match active {
            Some((file, segment, next)) => self.sync_file(&*file, next).map_err(Error::io("sync", || segment.path())),
            None => Ok(()),
        }
    }

    /// Syncs a segment that held nothing at or behind `next`. One that was removed or cut off meanwhile, or compacted into
    /// another, need not be made durable, and may not be there to be opened.
    pub(super) fn sync_file(&self, file: &dyn File, next: Offset) -> io::Result<()> {
        match file.sync() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_needless = next <= self.log_start().max(self.durable_end()) || self.cut_count() > 0;
                if is_needless { Ok(()) } else { Err(error) }
            }
            synced => synced,
        }
    }

    /// Says at the end of a rolled segment that its successor has its name.
    fn mark_rolled(&self, old: &mut Sealed) {
        let stamp = Stamp {
            base: old.next,
            durable_end: old.next,
            epoch: self.epoch.load(Ordering::Relaxed),
            salt: old.salt,
            timestamp_type: TimestampType::Create,
        };
        let position = old.pen.region().written();
        put_marker(&mut old.pen, position, &stamp, &self.home.env, Marker::Rolled);
    }

    /// Writes a marker that says that all is durable, if all is and nothing says so, and syncs it.
    fn mark(&self, marker: Marker) -> Result<()> {
        let mut writer = self.writer.lock();
        if writer.witnessed || self.durable_end() < writer.next || writer.active.is_none() {
            return Ok(());
        }
        let (position, needed) = (writer.position, writer.position + MARKER_ROOM);
        let capacity = writer.active.as_ref().map_or(0, |active| active.pen.region().capacity());
        if needed > writer.valid && (needed > capacity || self.grow(&mut writer, needed).is_err()) {
            // Only where a marker was written before and cut since, and the room that is left is for the roll; or where
            // nothing was appended since the room was given back, and now there is none.
            return Ok(());
        }
        let stamp = self.stamp(&writer, writer.next);
        let active = writer.active.as_mut().expect("looked at above");
        put_marker(&mut active.pen, position, &stamp, &self.home.env, marker);
        let (file, path) = (Arc::clone(&active.file), active.segment.path().to_path_buf());
        writer.position += MARKER_BYTES as u64;
        writer.witnessed = true;
        let next = writer.next;
        drop(writer);
        self.sync_file(&*file, next).map_err(|source| {
            self.fail();
            Error::Io { action: "sync", path, source }
        })
    }

    /// Does what the time has come for: the sync that nobody waits for, the marker of an idle partition.
    pub(crate) fn look(&self) -> Look {
        self.prepare_ahead();
        let now = self.home.env.clock.monotonic();
        let mut writer = self.writer.lock();
        if self.state.load(Ordering::Acquire) != OPEN {
            writer.looked_after = false;
            return Look::Done;
        }
        if writer.durability == Durability::Os {
            return self.look_at_rolled(writer, now);
        }
        if let Some(since) = writer.dirty_since {
            let delay = match writer.durability {
                Durability::Interval { every, .. } => every,
                _ => SYNC_DELAY,
            };
            if since.saturating_add(delay) > now {
                return Look::At(since.saturating_add(delay));
            }
            let target = writer.next;
            drop(writer);
            // A failure is remembered by the partition, and told to all who wait or send. Nobody need give way to the worker
            // next time, for it comes back only if nobody else does.
            drop(self.wait_for_sync(target, None, false));
            return Look::At(now.saturating_add(SYNC_DELAY));
        }
        if writer.witnessed {
            writer.looked_after = false;
            return Look::Done;
        }
        let (end, since) = writer.quiet;
        if end != writer.next {
            writer.quiet = (writer.next, now);
            return Look::At(now.saturating_add(IDLE_DELAY));
        }
        if since.saturating_add(IDLE_DELAY) > now {
            return Look::At(since.saturating_add(IDLE_DELAY));
        }
        if self.durable_end() < writer.next {
            // Whoever syncs now takes longer than that; or nobody does, because the level was another before.
            if !self.turn.lock().syncing {
                writer.dirty_since = Some(now);
            }
            return Look::At(now.saturating_add(IDLE_DELAY));
        }
        writer.looked_after = false;
        drop(writer);
        drop(self.mark(Marker::Synced));
        Look::Done
    }

    /// Syncs the segments that were rolled in a topic that nobody syncs, so that their files need not be kept open, and
    /// removes the next segment, if it was made ahead. Kafka flushes a segment after its roll, too. Not while more is
    /// appended, unless there are many: the disk is slower than a burst, and the worker has better things to do then.
    fn look_at_rolled(&self, mut writer: MutexGuard<'_, Writer>, now: Duration) -> Look {
        if writer.sealed.is_empty() && !self.has_spare() {
            writer.looked_after = false;
            return Look::Done;
        }
        let due = match writer.quiet {
            (end, _) if end != writer.next => {
                writer.quiet = (writer.next, now);
                now.saturating_add(ROLLED_DELAY)
            }
            (_, since) => since.saturating_add(ROLLED_DELAY),
        };
        let (is_quiet, are_many) = (due <= now, writer.sealed.len() >= MOST_ROLLED);
        let rolled: Vec<_> = writer.sealed.iter_mut().filter_map(Sealed::pages_to_let_go).collect();
        writer.looked_after = !is_quiet && !are_many;
        drop(writer);
        // It takes a while to let go of many pages, and nobody who appends is to wait for that.
        rolled.into_iter().for_each(|(region, pages)| region.let_go(pages));
        if is_quiet {
            self.discard_spare();
        }
        if !(is_quiet || are_many) {
            return Look::At(due);
        }
        if self.turn.lock().take() {
            self.lead_sync(false);
        }
        Look::Done
    }

    /// Syncs everything, says so at the end of the log, takes no more appends, and lets go of the files.
    pub(crate) fn close(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == CLOSED {
            return Ok(());
        }
        // Whoever appends between the sync and the marker finds the log not closed cleanly, and loses nothing.
        let result = self.check_not_failed();
        let result = result.and_then(|()| self.sync_to(self.log_end(), None)).and_then(|()| self.mark(Marker::Closed));
        self.abandon();
        result
    }

    /// Takes no more appends, syncs nothing, lets go of the files.
    pub(crate) fn abandon(&self) {
        let mut writer = self.writer.lock();
        if let Some(active) = &writer.active
            && self.durable_end() == writer.next
        {
            // But for the marker that the roll writes.
            release(&*active.file, writer.position + MARKER_ROOM);
        }
        // A failure stays one: whoever waits for a delivery is told that it is in doubt.
        let state = self.state.compare_exchange(OPEN, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        debug_assert!(state != Err(CLOSED) || writer.active.is_none(), "a closed partition has let go of its files");
        writer.active = None;
        writer.sealed.clear();
        let listeners = mem::take(&mut writer.listeners);
        drop(writer);
        notify(listeners);
        self.discard_spare();
        self.synced.ring();
        self.run_callbacks();
    }

    /// Whether everything below `next`, which was appended, is delivered, or has been cut off since: that is done with, too.
    fn is_delivered(&self, next: Offset) -> bool {
        self.high_watermark() >= next || self.log_end() < next
    }

    /// Whether everything below `next` is delivered; waits for it up to `timeout`.
    pub(crate) fn deliver(&self, next: Offset, timeout: Option<Duration>) -> Result<()> {
        self.home.env.check_not_forked()?;
        if self.is_delivered(next) { Ok(()) } else { self.sync_to(next, timeout) }
    }

    /// Whether everything below `next` is delivered: `None` if not yet, and then `listener` is told of the next change.
    pub(crate) fn poll_delivered(&self, next: Offset, listener: Listener) -> Option<Result<()>> {
        if let Err(error) = self.home.env.check_not_forked() {
            return Some(Err(error));
        }
        let mut writer = self.writer.lock();
        if self.is_delivered(next) {
            return Some(Ok(()));
        }
        if let Err(error) = self.check_open() {
            return Some(Err(error));
        }
        writer.listeners.push(listener);
        None
    }

    /// Whether there is something to read at `position`; if not, `bell` rings when that changes.
    pub(crate) fn listen(&self, position: Offset, bell: &Arc<Bell>) -> bool {
        let mut writer = self.writer.lock();
        if self.high_watermark() > position {
            return true;
        }
        let known =
            writer.listeners.iter().any(|other| matches!(other, Listener::Bell(other) if Arc::ptr_eq(other, bell)));
        if !known {
            writer.listeners.push(Listener::Bell(Arc::clone(bell)));
        }
        false
    }

    /// Forgets a bell: nobody waits for it any more.
    pub(crate) fn unlisten(&self, bell: &Arc<Bell>) {
        let mut writer = self.writer.lock();
        writer.listeners.retain(|other| !matches!(other, Listener::Bell(other) if Arc::ptr_eq(other, bell)));
    }
}

/// Gives back the room of a file behind the page in which `end` lies. If that fails, the room is not lost, only not used.
fn release(file: &dyn File, end: u64) {
    file.release(end.next_multiple_of(PAGE)).ok();
}

fn put_marker(pen: &mut Pen, position: u64, stamp: &Stamp, env: &Env, marker: Marker) {
    let end = position + MARKER_BYTES as u64;
    let word = batch::encode_marker(pen.spare(position..end), stamp, env.clock.now(), marker);
    pen.publish(position, word, end);
}

pub(super) fn notify(listeners: Vec<Listener>) {
    for listener in listeners {
        match listener {
            Listener::Bell(bell) => bell.ring(),
            Listener::Waker(waker) => waker.wake(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::config::TopicConfig;
    use crate::env::Env;
    use crate::env::scheduling::{Scheduler, Worker};
    use crate::env::sim::{SimClock, SimScheduler};
    use crate::env::storage::sim::SimDisk;
    use crate::format::batch::Draft;
    use crate::format::segment::Identity;
    use crate::partition::Home;
    use crate::types::{Timestamp, TopicPartition};

    /// Does something while somebody gives way.
    #[derive(Debug)]
    struct Meanwhile {
        scheduler: Arc<dyn Scheduler>,
        partition: OnceLock<Arc<Partition>>,
        act: fn(&Meanwhile, &dyn Fn() -> bool),
        seen: AtomicU64,
    }

    impl Meanwhile {
        /// A partition in which so many are about, two of them still to come, and who does something while one gives way.
        fn of(about: u32, act: fn(&Meanwhile, &dyn Fn() -> bool)) -> (Arc<Meanwhile>, Arc<Partition>) {
            let clock = SimClock::new(Timestamp::from_millis(0));
            let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
            let meanwhile = Meanwhile { scheduler, partition: OnceLock::new(), act, seen: AtomicU64::new(0) };
            let meanwhile = Arc::new(meanwhile);
            let partition = partition(Env::simulated(SimDisk::new(1), clock, Arc::clone(&meanwhile) as _, 1));
            meanwhile.partition.set(Arc::clone(&partition)).unwrap();
            let mut turn = partition.turn.lock();
            (turn.about, turn.arrived) = (about, about - 2);
            drop(turn);
            (meanwhile, partition)
        }

        /// The other comes and leads; what has rung is seen.
        fn lead(&self, ready: &dyn Fn() -> bool) {
            assert!(!ready(), "there is nobody to give way to");
            let partition = self.partition.get().unwrap();
            partition.sync_to(partition.log_end(), None).unwrap();
            self.seen.store(partition.synced.rung(), Ordering::Relaxed);
        }

        /// The other does not come; each look is seen.
        fn look(&self, ready: &dyn Fn() -> bool) {
            while !ready() {
                self.seen.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn seen(&self) -> u64 {
            self.seen.load(Ordering::Relaxed)
        }
    }

    impl Scheduler for Meanwhile {
        fn bell(&self) -> Bell {
            self.scheduler.bell()
        }

        fn give_way(&self, ready: &dyn Fn() -> bool, _at_most: Duration) {
            (self.act)(self, ready);
        }

        fn spin(&self, _ready: &dyn Fn() -> bool, _at_most: Duration) {}

        fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Worker>> {
            self.scheduler.spawn(name, work)
        }
    }

    #[test]
    fn who_gave_way_and_need_not_lead_leaves_nobody_waiting() {
        let (meanwhile, partition) = Meanwhile::of(2, Meanwhile::lead);

        partition.sync_to(partition.log_end(), None).unwrap();

        assert!(meanwhile.seen() > 0, "the other has led");
        assert!(
            partition.synced.rung() > meanwhile.seen(),
            "who came since then has left the next sync to this thread"
        );
        let turn = partition.turn.lock();
        assert!(!turn.gathering && !turn.syncing && turn.arrived == 0, "{turn:?}");
    }

    #[test]
    fn who_gives_way_beside_another_does_not_sleep_through_the_sync() {
        let (meanwhile, partition) = Meanwhile::of(MANY, Meanwhile::lead);
        partition.turn.lock().gathering = true;

        partition.sync_to(partition.log_end(), None).unwrap();

        assert!(meanwhile.seen() > 0, "the other has led");
        assert_eq!(partition.turn.lock().arrived, 0);
    }

    #[test]
    fn who_gives_way_beside_another_goes_to_sleep_after_a_few_looks() {
        let (meanwhile, partition) = Meanwhile::of(MANY, Meanwhile::look);
        partition.turn.lock().gathering = true;

        let waited = partition.sync_to(partition.log_end(), Some(Duration::from_millis(1)));

        assert!(matches!(waited, Err(Error::Timeout { .. })), "{waited:?}");
        assert_eq!(meanwhile.seen(), u64::from(LOOKS));
        assert_eq!(partition.turn.lock().arrived, MANY - 2, "who has gone is not waited for");
    }

    #[test]
    fn who_gives_way_to_nobody_does_so_for_a_shorter_time() {
        let mut turn = Turn::default();
        let mut times = Vec::new();
        for _ in 0..3 {
            (turn.about, turn.took) = (2, Duration::from_micros(80));
            let begun = turn.arrive();
            let Part::Gather { here, at_most } = turn.part(true) else { panic!("one of two is here") };
            times.push(at_most.as_micros());
            assert!(matches!(turn.part(true), Part::Wait { gives_way: false }), "somebody gives way already");
            turn.end_gathering(here);
            assert!(matches!(turn.part(false), Part::Lead));
            turn.end(turn.took);
            turn.leave(begun);
        }
        assert_eq!(times, [80, 40, 20]);

        turn.about = 2;
        let (first, second) = (turn.arrive(), turn.arrive());
        assert!(matches!(turn.part(true), Part::Lead), "both are here");
        assert_eq!((turn.served, turn.arrived, turn.in_vain), (2, 0, 0));
        turn.end(turn.took);
        turn.leave(first);
        turn.leave(second);
        assert_eq!(turn.about, 2, "who was served comes back");
    }

    #[test]
    fn who_goes_before_a_sync_began_is_not_waited_for() {
        let mut turn = Turn::default();
        let early = turn.arrive();
        assert!(matches!(turn.part(true), Part::Lead));
        let late = turn.arrive();
        turn.end(Duration::from_micros(80));
        assert_eq!(turn.about, 2);

        turn.leave(early);
        assert_eq!(turn.arrived, 1);
        turn.leave(late);
        assert_eq!(turn.arrived, 0);
    }

    #[test]
    fn nobody_gives_way_to_the_worker() {
        let clock = SimClock::new(Timestamp::from_millis(0));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
        let partition = partition(Env::simulated(SimDisk::new(1), Arc::clone(&clock), scheduler, 1));
        clock.advance(SYNC_DELAY);

        assert!(matches!(partition.look(), Look::At(_)));

        assert_eq!(partition.durable_end(), partition.log_end());
        let turn = partition.turn.lock();
        assert_eq!((turn.begun, turn.about), (1, 0), "{turn:?}");
    }

    fn partition(env: Env) -> Arc<Partition> {
        let home = Home {
            env,
            dir: PathBuf::from("0"),
            identity: Identity { log: 1, topic: 2, partition: 0 },
            partition: TopicPartition::new("orders", 0),
            segment_bytes: 1 << 20,
        };
        let partition = Arc::new(Partition::create(home, 1, &TopicConfig::new(), None).unwrap());
        let record = Draft { key: None, value: Some(b"1"), headers: &[], timestamp: Timestamp::from_millis(0) };
        partition.append(&[record]).unwrap();
        partition
    }

    #[test]
    fn a_partition_is_looked_after_for_as_long_as_a_sync_takes_and_marked_then() {
        let clock = SimClock::new(Timestamp::from_millis(0));
        let scheduler = SimScheduler::new(Arc::clone(&clock), 1);
        let partition = partition(Env::simulated(SimDisk::new(1), Arc::clone(&clock), scheduler, 1));
        // Somebody syncs, as `lead_sync` begins it, on a slow disk.
        assert!(partition.turn.lock().take());
        partition.writer.lock().dirty_since = None;
        for _ in 0..5 {
            assert!(matches!(partition.look(), Look::At(_)), "nobody else would come to mark it");
            clock.advance(IDLE_DELAY);
        }
        partition.lead_sync(true);

        while let Look::At(_) = partition.look() {
            clock.advance(IDLE_DELAY);
        }

        assert!(partition.writer.lock().witnessed);
    }
}
