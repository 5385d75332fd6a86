//! A moment, as it can be said on the command line.

use std::str::FromStr;

use jiff::{SpanRelativeTo, Timestamp as Date};
use tidelog::Timestamp;

/// What is said where a moment is asked for, for messages.
pub(crate) const MOMENTS: &str = "2026-01-31T12:00:00Z, 2h ago, or milliseconds since 1970";

/// A moment: a date as RFC 3339 writes it, a time ago, or milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    At(Timestamp),
    /// So many milliseconds before now.
    Ago(i64),
}

impl Moment {
    pub(crate) fn timestamp(self) -> Timestamp {
        match self {
            Moment::At(timestamp) => timestamp,
            Moment::Ago(millis) => Timestamp::from_millis((Date::now().as_millisecond() - millis).max(0)),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(millis) = text.parse::<i64>() {
            return Ok(Moment::At(Timestamp::from_millis(millis)));
        }
        if let Ok(date) = text.parse::<Date>() {
            return Ok(Moment::At(Timestamp::from_millis(date.as_millisecond())));
        }
        let ago = text.strip_suffix(" ago").and_then(|span| span.parse().ok());
        ago.map(|Age(moment)| moment).ok_or_else(|| format!("neither a date nor a time ago: {MOMENTS}"))
    }
}

/// The moment that is so long ago: `2h 30m`, or `PT2H30M` as Kafka's tools have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age(pub(crate) Moment);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = text.parse::<jiff::Span>().ok();
        let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        match duration.and_then(|duration| i64::try_from(duration.as_millis()).ok()) {
            Some(millis) if millis >= 0 => Ok(Age(Moment::Ago(millis))),
            _ => Err("not a length of time: 2h, 7d 12h, or PT2H".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_times_ago_and_milliseconds() {
        let at = |millis| Ok(Moment::At(Timestamp::from_millis(millis)));
        for (text, moment) in [
            ("1700000000123", at(1_700_000_000_123)),
            ("2023-11-14T22:13:20.123Z", at(1_700_000_000_123)),
            ("2023-11-15T00:13:20+02:00", at(1_700_000_000_000)),
            ("2h 30m ago", Ok(Moment::Ago(9_000_000))),
            ("7d ago", Ok(Moment::Ago(7 * 24 * 3_600_000))),
        ] {
            assert_eq!(text.parse::<Moment>(), moment, "{text}");
        }
        assert_eq!("PT2H30M".parse(), Ok(Age(Moment::Ago(9_000_000))));
        for text in ["2h ago", "-2h", "P1M", ""] {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
        for text in ["yesterday", "", "2h", "-2h ago", "2023-11-14", "5 months ago"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
