//! What a copy of a partition consists of, as of one moment.
//!
//! Bytes below the end of a segment never change, so a copy needs no more than the names of the segments and their ends. A
//! segment that is sealed and synced is never written to again, by nobody, for the marker that ends it was synced with it:
//! so two logs may share the file. What recovery stores to is the segment that is appended to, or one that nothing proves to
//! be synced; it stores nothing new to a file that has another name, too. So the last segment is never shared.

use std::path::PathBuf;
use std::sync::Arc;

use crate::partition::Partition;

/// A partition as of one moment.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Where it lies, relative to the root of the log.
    pub(crate) dir: PathBuf,
    /// In the order of their offsets.
    pub(crate) segments: Vec<CapturedSegment>,
}

/// A segment as of one moment.
#[derive(Debug)]
pub(crate) struct CapturedSegment {
    pub(crate) path: PathBuf,
    /// How far it was written.
    pub(crate) bytes: u64,
    /// Whether nobody ever writes to it again.
    pub(crate) settled: bool,
}

/// All of these partitions as of one moment, between two appends to any of them.
pub(crate) fn capture_all(partitions: &[Arc<Partition>]) -> Vec<Capture> {
    let writers: Vec<_> = partitions.iter().map(|partition| partition.writer.lock()).collect();
    let captures = partitions.iter().map(|partition| partition.capture()).collect();
    drop(writers);
    captures
}

/// The files of a partition stay as long as this lives.
#[derive(Debug)]
pub(crate) struct Pin(Arc<Partition>);

impl Drop for Pin {
    fn drop(&mut self) {
        let left = {
            let mut pins = self.0.pins.lock();
            *pins -= 1;
            *pins
        };
        if left == 0 {
            // What was to be removed meanwhile. If that fails, the next removal or opening does it.
            drop(self.0.remove_below(self.0.log_start()));
        }
    }
}

impl Partition {
    /// Keeps the files of the partition where they are.
    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        *self.pins.lock() += 1;
        Pin(Arc::clone(self))
    }

    /// Whether somebody copies the files.
    pub(crate) fn is_pinned(&self) -> bool {
        *self.pins.lock() > 0
    }

    fn capture(&self) -> Capture {
        let (log_end, durable_end) = (self.log_end(), self.durable_end());
        let slots = self.slots.read();
        let newest = slots.len().saturating_sub(1);
        let segments = slots.iter().enumerate().map(|(at, slot)| CapturedSegment {
            path: slot.path.clone(),
            bytes: slot.extent(log_end).bytes,
            settled: at < newest && slot.next().is_some_and(|next| next <= durable_end),
        });
        Capture { dir: self.home.dir.clone(), segments: segments.collect() }
    }
}
