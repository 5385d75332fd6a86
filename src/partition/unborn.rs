//! Segments that have no name yet: how each is made, and the one that is made ahead.
//!
//! | file                | what it is                                                                                |
//! |---------------------|-------------------------------------------------------------------------------------------|
//! | `<base>.log.new`    | being made by somebody who appends and waits for it                                       |
//! | `spare.log.new`     | made ahead by the background worker, all zeros, for whoever fills the active segment next  |
//! | `<base>.log`        | a segment: its header was durable before it got this name                                 |
//!
//! What has no name yet holds no record, so whoever opens the log removes it, and whoever only reads passes it over.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::storage::region::{Pen, Region};
use crate::env::storage::{Access, File, path_in};
use crate::error::{Error, Result};
use crate::format::batch::Walk;
use crate::format::segment::{self, HEADER_BYTES, Header};
use crate::partition::Home;
use crate::partition::handle::Handle;
use crate::partition::recovery::Active;
use crate::partition::segment::Segment;
use crate::partition::slot::Slot;

/// The name of the segment that is made ahead.
const SPARE: &str = "spare.log.new";

/// A segment without a name.
pub(super) struct Unborn {
    path: PathBuf,
    file: Arc<dyn File>,
    pen: Pen,
    /// Up to here its pages are prepared.
    pub(super) prepared: u64,
}

impl fmt::Debug for Unborn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unborn").field("path", &self.path).field("prepared", &self.prepared).finish_non_exhaustive()
    }
}

/// Makes a new segment of at least so many bytes, or with less if there is no more room: header, sync, name. The name is
/// durable once the directory is synced.
pub(crate) fn create(home: &Home, header: &Header, room: u64) -> Result<Active> {
    let path = path_in(&home.dir, segment::file_name(header.base));
    let mut unborn = Unborn::make(home, path.with_extension("log.new"), home.first_room())?;
    // In this order, here and below: the first store to a large file has the kernel prepare much more than a header.
    let made = unborn.begin(home, header, |file, _| file.sync()).and_then(|()| unborn.take_room(home, room));
    match made {
        Ok(()) => unborn.name(home, header),
        Err(error) => {
            unborn.discard(home);
            Err(error)
        }
    }
}

impl Unborn {
    /// The next segment, made ahead with so much room, or with less if there is no more.
    pub(super) fn spare(home: &Home, room: u64) -> Result<Self> {
        let mut unborn = Unborn::make(home, home.dir.join(SPARE), home.first_room())?;
        // So that whoever begins it has nothing to sync but one page: neither its block nor the length are news by then.
        unborn.pen.redirty(0..HEADER_BYTES);
        let made = unborn.sync(home).and_then(|()| unborn.take_room(home, room)).and_then(|()| unborn.sync(home));
        match made {
            Ok(()) => Ok(unborn),
            Err(error) => {
                unborn.discard(home);
                Err(error)
            }
        }
    }

    /// Begins the segment that was made ahead, and gives it its name.
    pub(super) fn begin_spare(mut self, home: &Home, header: &Header) -> Result<Active> {
        match self.begin(home, header, |file, bytes| file.sync_start(bytes)) {
            Ok(()) => self.name(home, header),
            Err(error) => {
                self.discard(home);
                Err(error)
            }
        }
    }

    fn make(home: &Home, path: PathBuf, room: u64) -> Result<Self> {
        let storage = &home.env.storage;
        let file = match storage.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // An attempt before this one did not get to the end.
                storage.remove(&path).map_err(Error::io("remove", || home.full(&path)))?;
                storage.create(&path)
            }
            made => made,
        };
        let file = file.map_err(Error::making("create", || home.full(&path)))?;
        match map(home, &*file, &path, room) {
            Ok(pen) => Ok(Unborn { path, file, pen, prepared: 0 }),
            Err(error) => {
                remove(home, &path);
                Err(error)
            }
        }
    }

    pub(super) fn region(&self) -> &Arc<Region> {
        self.pen.region()
    }

    /// Takes room for it, unless there is none.
    fn take_room(&mut self, home: &Home, room: u64) -> Result<()> {
        let from = self.region().valid();
        if room <= from {
            return Ok(());
        }
        match home.allocate(&*self.file, &self.path, from, room) {
            Err(Error::NoSpace { .. }) => Ok(()),
            done => {
                done?;
                self.pen.extend(room);
                home.prepare(&mut self.pen, &self.path, from..room)
            }
        }
    }

    fn sync(&self, home: &Home) -> Result<()> {
        self.file.sync().map_err(Error::io("sync", || home.full(&self.path)))
    }

    /// Gives it its header, and makes that durable.
    fn begin(
        &mut self,
        home: &Home,
        header: &Header,
        sync: impl FnOnce(&dyn File, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        let bytes = header.encode();
        self.pen.spare(0..HEADER_BYTES).copy_from_slice(&bytes);
        self.pen.adopt(HEADER_BYTES);
        sync(&*self.file, &bytes).map_err(Error::io("sync", || home.full(&self.path)))
    }

    /// Gives it the name that its header says.
    fn name(self, home: &Home, header: &Header) -> Result<Active> {
        let storage = &home.env.storage;
        let path = path_in(&home.dir, segment::file_name(header.base));
        if let Err(error) = storage.rename(&self.path, &path) {
            self.discard(home);
            return Err(Error::making("name", || home.full(&path))(error));
        }
        let Unborn { file, pen, .. } = self;
        let region = Arc::clone(pen.region());
        let walk = Walk::begin(header, segment::salt(&header.encode()));
        let segment = Arc::new(Segment::active(home.full(&path), walk, region));
        let file = Handle::new(storage, path.clone(), Access::Write, file);
        let slot = Arc::new(Slot::mapped(&segment, path));
        let roomy = segment.region().valid();
        Ok(Active { segment, slot, pen, file, roomy, walk })
    }

    /// Removes it.
    pub(super) fn discard(self, home: &Home) {
        remove(home, &self.path);
    }
}

/// Best effort: the next attempt, or the next opening, removes it too.
fn remove(home: &Home, path: &Path) {
    drop(home.env.storage.remove(path));
}

/// Takes the first room of a new file, and maps all that it may become.
fn map(home: &Home, file: &dyn File, path: &Path, room: u64) -> Result<Pen> {
    home.allocate(file, path, 0, room)?;
    let memory = file.map(home.capacity()).map_err(Error::io("map", || home.full(path)))?;
    let (_, mut pen) = Region::new(memory, room);
    home.prepare(&mut pen, path, 0..room)?;
    Ok(pen)
}
