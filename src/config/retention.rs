//! What a topic keeps of its records, and what it does when it has no more room for them.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};

/// What a topic keeps. Without a limit, which is the default, that is everything, for ever.
///
/// | what is said                       | when the oldest segment of a partition goes                                  |
/// |------------------------------------|--------------------------------------------------------------------------------|
/// | one or more of `time`, `bytes`, `records` | as soon as one of them no longer keeps it                               |
/// | `until_committed_by` and limits    | as soon as a limit no longer keeps it *and* all of these groups have committed it |
/// | `until_committed_by` alone         | as soon as all of these groups have committed it                              |
///
/// Limits are of each partition by itself, and lower ones: a segment goes as a whole, so that at least what they say is
/// kept. The oldest segment goes first, never one behind a segment that stays, and never what is not delivered yet. The
/// segment that is appended to goes too once it is over by `time`; another one is begun first.
///
/// It is looked after now and then ([`LogConfig::retention_interval`](crate::LogConfig::retention_interval)), and by
/// [`EventLog::apply_retention`](crate::EventLog::apply_retention). A step of the wall clock does not empty a log: a round
/// in which it disagrees with the clock that never steps is left out for `time`.
///
/// Kafka keeps records for 7 days unless it is told otherwise. A directory that forgets after a week what nobody told it
/// to forget would surprise; whoever wants Kafka's default says [`Retention::kafka`].
///
/// ```
/// use std::time::Duration;
/// use tidelog::{Retention, TopicConfig};
///
/// let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
/// let config = TopicConfig::new().retention(Retention::new().time(days(30)).bytes(10 << 30));
/// let queue = TopicConfig::new().retention(Retention::new().until_committed_by(["billing"]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub(crate) time: Option<Duration>,
    pub(crate) bytes: Option<u64>,
    pub(crate) records: Option<u64>,
    /// Sorted, each once.
    pub(crate) groups: Vec<String>,
}

impl Retention {
    /// Everything, for ever.
    pub fn new() -> Self {
        Self::default()
    }

    /// What Kafka keeps by default: 7 days.
    pub fn kafka() -> Self {
        Self::new().time(Duration::from_secs(7 * 24 * 60 * 60))
    }

    /// How long a record is kept: until the latest timestamp of its segment is older than that. In milliseconds, the rest
    /// is cut off; 0 keeps nothing that is delivered. Kafka: `retention.ms`.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// How many bytes of segments are kept in a partition. Kafka: `retention.bytes`. For a limit that is never exceeded see
    /// [`TopicConfig::max_bytes`](crate::TopicConfig::max_bytes).
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// How many records are kept in a partition, counted by their offsets.
    #[must_use]
    pub fn records(mut self, records: u64) -> Self {
        self.records = Some(records);
        self
    }

    /// Keeps what one of these groups has not committed, whatever the limits say; a group that has committed nothing, or
    /// does not exist, keeps everything. What was committed counts once it is durable.
    #[must_use]
    pub fn until_committed_by<I, S>(mut self, groups: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.groups = groups.into_iter().map(Into::into).collect();
        self.groups.sort_unstable();
        self.groups.dedup();
        self
    }

    /// Whether everything is kept for ever.
    pub fn keeps_everything(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.groups.iter().find(|group| group.is_empty() || group.contains(',')) {
            Some(group) => Err(Error::InvalidConfig {
                setting: "retention.groups",
                reason: format!("{group:?} cannot be named here: a group's name is not empty, and has no comma"),
            }),
            None => Ok(()),
        }
    }
}

/// What happens to a `send` when its partition has as many bytes as it may. See
/// [`TopicConfig::max_bytes`](crate::TopicConfig::max_bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It fails with [`Error::PartitionFull`]; sending again later may succeed.
    #[default]
    Refuse,
    /// It waits for room, at most for so long, and then fails with [`Error::PartitionFull`]. Room comes from retention (what
    /// groups commit, what grows old), from [`EventLog::delete_records`](crate::EventLog::delete_records), and from a
    /// higher limit. Kafka, for another buffer: `max.block.ms`.
    Wait(Duration),
    /// The oldest segments are removed, whoever has not read them. Not for a topic that keeps records
    /// [until they are committed](Retention::until_committed_by).
    DropOldest,
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhenFull::Refuse => f.write_str("refuse"),
            WhenFull::Wait(longest) => write!(f, "wait:{}ms", longest.as_millis()),
            WhenFull::DropOldest => f.write_str("drop-oldest"),
        }
    }
}

impl std::str::FromStr for WhenFull {
    type Err = Error;

    /// `refuse`, `drop-oldest`, or `wait:<milliseconds>ms`; `wait` alone is Kafka's minute.
    fn from_str(text: &str) -> Result<Self> {
        let waited = |rest: &str| rest.strip_suffix("ms")?.parse().ok().map(Duration::from_millis);
        match text {
            "refuse" => Ok(WhenFull::Refuse),
            "drop-oldest" => Ok(WhenFull::DropOldest),
            "wait" => Ok(WhenFull::Wait(Duration::from_secs(60))),
            _ => text.strip_prefix("wait:").and_then(waited).map(WhenFull::Wait).ok_or_else(|| Error::InvalidConfig {
                setting: "when.full",
                reason: format!("{text:?} is none of `refuse`, `drop-oldest`, `wait` and `wait:60000ms`"),
            }),
        }
    }
}
