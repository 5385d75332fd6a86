//! What a call to the simulated disk is, and how it can be made to fail.

use std::fmt;
use std::io;
use std::path::Path;

/// A call that can fail, or be the last one before a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Taking the lock of the directory.
    Lock,
    /// Listing a directory.
    List,
    /// Making a directory.
    CreateDir,
    /// Making a file.
    Create,
    /// Opening a file.
    Open,
    /// Giving a file another name.
    Rename,
    /// Giving a file a second name.
    Link,
    /// Removing a file.
    Remove,
    /// Removing a directory.
    RemoveDir,
    /// Syncing a directory.
    SyncDir,
    /// Taking room for a file.
    Allocate,
    /// Giving back the room of a file's end.
    Release,
    /// Mapping a file.
    Map,
    /// Syncing a file.
    Sync,
}

/// What a call answers that is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error of this kind.
    Kind(io::ErrorKind),
    /// A number of the operating system.
    Errno(i32),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Kind(kind) => kind.into(),
            Failure::Errno(number) => io::Error::from_raw_os_error(number),
        }
    }
}

/// A call that shall fail. What fails changes nothing, except for a sync.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which of the matching calls, counted from 0 and from the moment at which the fault is set.
    pub at: u64,
    /// What kind of calls match; `None` for all.
    pub operation: Option<Operation>,
    /// What the call answers.
    pub failure: Failure,
    /// Whether all the matching calls after it fail too.
    pub forever: bool,
    /// What a sync that fails does to the pages: see [`SyncFailure`].
    pub pages: SyncFailure,
}

/// What a sync that fails does to the pages that it should have written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncFailure {
    /// Some are written, the others stay dirty: a later sync writes them.
    #[default]
    StayDirty,
    /// Some are written, and at least one is not but is taken for clean: reads still show its new bytes, and later syncs
    /// succeed and write it only if it was stored to again. This is what Linux does.
    Lost,
}

impl Fault {
    /// The call number `at` of this kind fails, once, with `EIO`.
    pub fn new(operation: impl Into<Option<Operation>>, at: u64) -> Self {
        Fault {
            at,
            operation: operation.into(),
            failure: Failure::Errno(rustix::io::Errno::IO.raw_os_error()),
            forever: false,
            pages: SyncFailure::StayDirty,
        }
    }

    /// Fails with this instead of `EIO`.
    #[must_use]
    pub fn failure(mut self, failure: Failure) -> Self {
        self.failure = failure;
        self
    }

    /// Goes on failing.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.forever = true;
        self
    }

    /// A sync that fails loses pages.
    #[must_use]
    pub fn losing_pages(mut self) -> Self {
        self.pages = SyncFailure::Lost;
        self
    }
}

/// What becomes of a call to the disk.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Done,
    /// It does not happen any more, nor does any after it.
    Dies,
    /// It fails with this; a sync does that to its pages.
    Fails(Failure, SyncFailure),
}

/// Decides of every call to a disk what becomes of it.
pub(crate) trait Director: Send + Sync + fmt::Debug {
    fn decide(&self, operation: Operation, path: &Path) -> Verdict;
}
