//! What happened in a run, in order: what the guarantees are checked against, and what is printed when one is broken.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::env::storage::sim::{Operation, PowerCut};
use crate::types::{Offset, TopicPartition};

/// A record's place. The offset comes first: it tells most places apart, sooner than the name of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) partition: TopicPartition,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}-{}", self.offset, self.partition.topic(), self.partition.partition())
    }
}

/// Who did something: a member by its number, or the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Member(usize),
    Machine,
}

/// Something that happened, by the clock of the simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) who: Who,
    pub(crate) what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A member begins, for the first time or again.
    Starts,
    /// A poll begins; a poll ends, with so many records.
    Polls,
    Polled(usize),
    /// The group gave the member these partitions.
    Assigned {
        generation: u64,
        partitions: Vec<TopicPartition>,
    },
    /// The member takes a record into its hands. `print` stands for key and value.
    Takes {
        place: Place,
        print: u64,
    },
    /// It asks for the next record of a poll, and there is none.
    TakesNoMore,
    /// It changes something outside, in the store of this number.
    Effect {
        store: usize,
    },
    /// It comes by a point that the user has named.
    Passes(&'static str),
    /// It sends a record.
    Sends {
        place: Place,
        print: u64,
    },
    /// A commit is asked for, is in the log, has returned.
    Commits,
    Committed {
        group: Arc<str>,
        offsets: Vec<(TopicPartition, Offset)>,
    },
    CommitReturned,
    /// The member ends well, or with an error or a panic of its own.
    Ends,
    Fails(String),
    Panics(String),
    /// Faults.
    Panic,
    Stall(Duration),
    Crash,
    PowerCut(PowerCut),
    DiskFails(Operation),
    DiskFull,
    BitFlip(String),
    /// The process is started again. What groups had committed then.
    Restart {
        committed: Vec<(Arc<str>, TopicPartition, Offset)>,
    },
    /// The process could not be started again; it is tried later.
    StartFails(String),
    /// The run was over: everything was done, or nothing went on.
    Idle {
        drained: bool,
    },
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, names: &[TopicPartition]| {
            let names: Vec<String> =
                names.iter().map(|name| format!("{}-{}", name.topic(), name.partition())).collect();
            f.write_str(&names.join(" "))
        };
        match self {
            Happening::Starts => f.write_str("start"),
            Happening::Polls => f.write_str("poll"),
            Happening::Polled(count) => write!(f, "polled {count}"),
            Happening::Assigned { generation, partitions } => {
                // The number within the life of the process.
                write!(f, "assigned (generation {}) ", generation & u64::from(u32::MAX))?;
                list(f, partitions)
            }
            Happening::Takes { place, .. } => write!(f, "take {place}"),
            Happening::TakesNoMore => f.write_str("no more"),
            Happening::Effect { .. } => f.write_str("effect"),
            Happening::Passes(name) => f.write_str(name),
            Happening::Sends { place, .. } => write!(f, "send {place}"),
            Happening::Commits => f.write_str("commit.."),
            Happening::Committed { offsets, .. } => {
                f.write_str("commit")?;
                offsets
                    .iter()
                    .try_for_each(|(name, offset)| write!(f, " {}-{}={}", name.topic(), name.partition(), offset.get()))
            }
            Happening::CommitReturned => f.write_str("..committed"),
            Happening::Ends => f.write_str("end"),
            Happening::Fails(error) => write!(f, "error: {error}"),
            Happening::Panics(message) => write!(f, "PANIC: {message}"),
            Happening::Panic => f.write_str("PANIC"),
            Happening::Stall(time) => write!(f, "STALL for {time:?}"),
            Happening::Crash => f.write_str("CRASH"),
            Happening::PowerCut(how) => write!(f, "POWER CUT ({how:?})"),
            Happening::DiskFails(operation) => write!(f, "DISK ERROR ({operation:?})"),
            Happening::DiskFull => f.write_str("DISK FULL"),
            Happening::BitFlip(file) => write!(f, "BIT FLIP in {file}"),
            Happening::Restart { .. } => f.write_str("restart"),
            Happening::StartFails(error) => write!(f, "restart fails: {error}"),
            Happening::Idle { drained: true } => f.write_str("all done"),
            Happening::Idle { drained: false } => f.write_str("nothing goes on"),
        }
    }
}

/// A number that stands for the bytes of a record (FNV-1a).
pub(crate) fn print_of(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let mut print = 0xcbf2_9ce4_8422_2325_u64;
    for part in [key, value] {
        let marked = [u8::from(part.is_some())];
        for byte in marked.iter().chain(part.unwrap_or_default()) {
            print = (print ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    print
}
