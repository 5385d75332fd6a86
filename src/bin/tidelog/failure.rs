//! What went wrong: one line that says what to do next, and an exit code for scripts.

use std::io;
use std::path::Path;

use tidelog::Error;

/// The exit codes, as `--help` shows them. 2 is also what the parser of the command line uses.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done; also if whoever reads the output closes it early
  1  failed; the message on standard error says at what
  2  the command line makes no sense
  3  another process has the log open for writing
  4  promised data is damaged
  5  there is no such log, topic, partition or group
  6, 7, 8, 9  what `verify` found; see `tidelog help verify`";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const LOCKED: u8 = 3;
const DAMAGED: u8 = 4;
const NOT_FOUND: u8 = 5;

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads standard output any more, which is no error.
    ClosedPipe,
    /// One line for standard error.
    Told {
        /// What went wrong, and what to do next.
        message: String,
        code: u8,
    },
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Told { message: message.into(), code: USAGE }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure::Told { message: message.into(), code: FAILED }
    }

    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Failure::Told { message: message.into(), code: DAMAGED }
    }

    /// What a verification found.
    pub(crate) fn found(code: u8, message: impl Into<String>) -> Self {
        Failure::Told { message: message.into(), code }
    }

    /// An input or output error on `what`.
    pub(crate) fn io(action: &str, what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Failure::failed(format!("cannot {action} {what}: {error}"))
    }

    /// What writing to standard output met.
    pub(crate) fn of_stdout(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::ClosedPipe;
        }
        Failure::io("write to", "standard output")(error)
    }

    /// The same with `words` in front of it, if it is told.
    pub(crate) fn at(self, words: &str) -> Self {
        match self {
            Failure::Told { message, code } => Failure::Told { message: format!("{words}: {message}"), code },
            Failure::ClosedPipe => Failure::ClosedPipe,
        }
    }

    /// The same with `words` behind it, if it is told.
    pub(crate) fn add(self, words: &str) -> Self {
        match self {
            Failure::Told { message, code } => Failure::Told { message: format!("{message}{words}"), code },
            Failure::ClosedPipe => Failure::ClosedPipe,
        }
    }

    /// The same with commands that name `dir`, so that they can be copied.
    pub(crate) fn in_directory(self, dir: &Path) -> Self {
        match self {
            Failure::Told { message, code } => {
                let named = std::env::var_os("TIDELOG_DIR").is_some_and(|given| *given == *dir.as_os_str());
                let usual = named || *dir == *crate::args::DEFAULT_DIR;
                let tool = if usual { "tidelog".to_owned() } else { format!("tidelog --dir {}", dir.display()) };
                Failure::Told { message: message.replace(TOOL, &tool), code }
            }
            Failure::ClosedPipe => Failure::ClosedPipe,
        }
    }
}

/// Stands in a message for the name of the tool and, if one must be given, the directory.
pub(crate) const TOOL: &str = "\u{1}";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, message) = match &error {
            Error::Locked { path, holder } => {
                let holder = holder.map_or("another process".to_owned(), |pid| format!("process {pid}"));
                let path = path.display();
                let beside =
                    "`topics list`, `topics describe`, `groups`, `fork`, `backup`, and `consume` without --group";
                (
                    LOCKED,
                    format!(
                        "{path} is open for writing by {holder}; stop it first (what only reads works beside it: {beside})"
                    ),
                )
            }
            Error::NotALog { path } => {
                let path = path.display();
                (
                    NOT_FOUND,
                    format!(
                        "there is no event log in {path}; begin one with `{TOOL} topics create NAME`, or name another directory with --dir"
                    ),
                )
            }
            Error::UnknownTopic { topic } => (
                NOT_FOUND,
                format!(
                    "there is no topic {topic:?}; `{TOOL} topics list` shows what there is, `{TOOL} topics create {topic}` creates it"
                ),
            ),
            Error::UnknownPartition { .. } => (NOT_FOUND, error.to_string()),
            Error::UnknownGroup { group } => (
                NOT_FOUND,
                format!("no group {group:?} has committed anything; `{TOOL} groups list` shows those that have"),
            ),
            Error::Corrupt(damage) => {
                let next = match &damage.partition {
                    Some(name) => format!(
                        "`{TOOL} consume {} --partition {} --offset {}` reads on behind it",
                        name.topic(),
                        name.partition(),
                        damage.offsets.end
                    ),
                    None => "restore the file from a backup".to_owned(),
                };
                (DAMAGED, format!("{damage}; {next}"))
            }
            Error::TopicExists { topic } => (
                FAILED,
                format!(
                    "topic {topic:?} exists already; `{TOOL} topics describe {topic}` shows it, --if-not-exists makes this no error"
                ),
            ),
            Error::InvalidTopic { .. }
            | Error::InvalidGroup { .. }
            | Error::InvalidConfig { .. }
            | Error::InvalidPartitions { .. } => (USAGE, error.to_string()),
            Error::RecordTooLarge { topic, bytes, limit } => (
                FAILED,
                format!(
                    "a record of {bytes} bytes is over the limit of topic {topic:?}, {limit} bytes; split it, or create the topic with a larger --config max.message.bytes=N"
                ),
            ),
            _ => (FAILED, error.to_string()),
        };
        Failure::Told { message, code }
    }
}
