//! Tools for the day it happens: read everything and say what is wrong, explain a file, mend a log.
//!
//! None of them opens the log, so they also work on a directory that does not open. [`verify`](fn@verify) and
//! [`dump`](fn@dump) change nothing and take no lock: they may run beside a process that writes. [`repair`](fn@repair)
//! takes the lock, and changes nothing unless told to.

mod dump;
mod repair;
mod survey;
mod verify;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::types::Offset;

#[cfg(feature = "arbitrary")]
pub(crate) use crate::inspect::dump::dump_bytes;
pub use crate::inspect::dump::{DumpItem, dump};
pub use crate::inspect::repair::{Mend, RepairReport, repair};
pub use crate::inspect::verify::{VerifyReport, verify};
#[cfg(feature = "sim")]
pub(crate) use crate::inspect::{repair::repair_in, verify::verify_in};

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingClass {
    /// Bytes behind the last whole batch of a newest segment that were never promised: what a killed process or a
    /// power cut leaves, or what a living one is writing. Opening the log for writing cuts them.
    TornTail,
    /// Bytes that were promised and are no batch.
    Damaged,
    /// A segment, or the end of one, that was promised and is not there.
    Missing,
    /// A file that belongs to another log, topic, partition or place.
    Foreign,
    /// An entry of the catalog that makes no sense, or a partition that it does not know.
    Catalog,
    /// A committed offset that makes no sense, or lies behind the end of its partition. Opening pulls the latter back.
    Committed,
}

impl FindingClass {
    /// Whether nothing that was promised is lost by it.
    pub fn is_harmless(self) -> bool {
        self == FindingClass::TornTail
    }

    /// The name that the tool prints.
    pub fn name(self) -> &'static str {
        match self {
            FindingClass::TornTail => "torn-tail",
            FindingClass::Damaged => "damaged",
            FindingClass::Missing => "missing",
            FindingClass::Foreign => "foreign",
            FindingClass::Catalog => "catalog",
            FindingClass::Committed => "committed",
        }
    }
}

/// Something that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing it is.
    pub class: FindingClass,
    /// Where: `orders-0` for a partition, `catalog`, `group billing`.
    pub place: String,
    /// The offsets that cannot be read for it; empty if there are none.
    pub offsets: Range<Offset>,
    /// The file.
    pub path: PathBuf,
    /// The byte in the file.
    pub position: u64,
    /// What is wrong, for people.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {} byte {}", self.place, self.class.name(), self.path.display(), self.position)?;
        if self.offsets.start < self.offsets.end {
            write!(f, ", offsets {}..{}", self.offsets.start, self.offsets.end)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// How far a long reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of segment files that were read.
    pub done_bytes: u64,
    /// Bytes of segment files that there are.
    pub total_bytes: u64,
}
