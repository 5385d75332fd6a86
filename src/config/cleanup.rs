//! What becomes of records that are no longer needed: they are removed with age, or once their key has a newer one.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};

/// What becomes of the old records of a topic. Kafka: `cleanup.policy`.
///
/// | policy             | which records go                                                                            |
/// |--------------------|---------------------------------------------------------------------------------------------|
/// | `Delete`           | what [`Retention`](crate::Retention) no longer keeps; by default nothing                    |
/// | `Compact`          | those of whose key there is a newer one; retention means nothing                            |
/// | `CompactAndDelete` | both                                                                                        |
///
/// Compaction keeps at least the last record of every key. Offsets stay what they are, so there are gaps between them: a
/// consumer that is in a gap goes on at the next record. A record without a value is a *tombstone*: it deletes its key,
/// and goes itself when readers have had the time to see it ([`TopicConfig::delete_retention`]). Every record needs a key.
/// The segment that is appended to is never compacted, nor what is not durable or not visible yet.
///
/// A background worker compacts a partition when enough of it is new
/// ([`TopicConfig::min_cleanable_dirty_ratio`]), or [`EventLog::compact`](crate::EventLog::compact) does when it is
/// called. Readers and senders go on meanwhile.
///
/// [`TopicConfig::delete_retention`]: crate::TopicConfig::delete_retention
/// [`TopicConfig::min_cleanable_dirty_ratio`]: crate::TopicConfig::min_cleanable_dirty_ratio
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// They go by age and size.
    #[default]
    Delete,
    /// They go when their key has a newer one.
    Compact,
    /// They go when their key has a newer one, and by age and size.
    CompactAndDelete,
}

impl CleanupPolicy {
    /// Whether records go when their key has a newer one.
    pub fn compacts(self) -> bool {
        self != CleanupPolicy::Delete
    }

    /// Whether records go by age and size.
    pub fn deletes(self) -> bool {
        self != CleanupPolicy::Compact
    }
}

impl fmt::Display for CleanupPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CleanupPolicy::Delete => "delete",
            CleanupPolicy::Compact => "compact",
            CleanupPolicy::CompactAndDelete => "compact,delete",
        })
    }
}

impl std::str::FromStr for CleanupPolicy {
    type Err = Error;

    /// `delete`, `compact`, or both with a comma between.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "delete" => Ok(CleanupPolicy::Delete),
            "compact" => Ok(CleanupPolicy::Compact),
            "compact,delete" | "delete,compact" => Ok(CleanupPolicy::CompactAndDelete),
            _ => Err(Error::InvalidConfig {
                setting: "cleanup.policy",
                reason: format!("{text:?} is none of `delete`, `compact` and `compact,delete`"),
            }),
        }
    }
}

/// How a topic is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compacting {
    pub(crate) dirty_ratio: Ratio,
    pub(crate) delete_retention: Duration,
    pub(crate) lag_min: Duration,
    pub(crate) lag_max: Option<Duration>,
}

impl Default for Compacting {
    fn default() -> Self {
        Compacting {
            dirty_ratio: Ratio::HALF,
            delete_retention: Duration::from_secs(24 * 60 * 60),
            lag_min: Duration::ZERO,
            lag_max: None,
        }
    }
}

impl Compacting {
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |setting, reason: &str| Err(Error::InvalidConfig { setting, reason: reason.to_owned() });
        if !self.dirty_ratio.is_valid() {
            return invalid("min.cleanable.dirty.ratio", "it is 0 to 1");
        }
        if self.lag_max.is_some_and(|most| most < self.lag_min.max(Duration::from_millis(1))) {
            return invalid("max.compaction.lag.ms", "it is at least 1, and not below min.compaction.lag.ms");
        }
        Ok(())
    }
}

/// A part of a whole, in millionths: settings can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ratio(u32);

impl Ratio {
    const WHOLE: u32 = 1_000_000;
    const HALF: Ratio = Ratio(Ratio::WHOLE / 2);

    /// One that is out of range, or no number, is not valid.
    pub(crate) fn new(ratio: f64) -> Self {
        // A cast of what is out of range ends at the range, one of no number at 0.
        Ratio(if ratio.is_nan() || ratio < 0.0 { u32::MAX } else { (ratio * f64::from(Ratio::WHOLE)).round() as u32 })
    }

    fn is_valid(self) -> bool {
        self.0 <= Ratio::WHOLE
    }

    /// Whether `part` is more of `whole` than this.
    pub(crate) fn is_exceeded_by(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(Ratio::WHOLE) > u128::from(whole) * u128::from(self.0)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(Ratio::WHOLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_says_what_it_was_given_and_refuses_what_is_none() {
        for (given, said) in [(0.5, "0.5"), (0.0, "0"), (1.0, "1"), (0.123_456, "0.123456"), (0.01, "0.01")] {
            assert_eq!(Ratio::new(given).to_string(), said);
            assert!(Ratio::new(given).is_valid());
        }
        for none in [-0.1, 1.000_001, f64::NAN, f64::INFINITY] {
            assert!(!Ratio::new(none).is_valid(), "{none}");
        }
    }

    #[test]
    fn half_is_not_more_than_half() {
        assert!(!Ratio::HALF.is_exceeded_by(5, 10));
        assert!(Ratio::HALF.is_exceeded_by(6, 10));
        assert!(!Ratio::HALF.is_exceeded_by(0, 0));
        assert!(!Ratio::new(1.0).is_exceeded_by(u64::MAX, u64::MAX));
        assert!(Ratio::new(0.0).is_exceeded_by(1, u64::MAX));
    }
}
