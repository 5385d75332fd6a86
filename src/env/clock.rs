//! Clocks: one that stamps records, one that measures waiting. The only file that asks the system for the time.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::types::Timestamp;

/// What time it is.
pub(crate) trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock, for timestamps only: it may step, and nothing but timestamps depends on it.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never steps back. Deadlines and intervals are told in it.
    fn monotonic(&self) -> Duration;
}

/// The system's clocks.
#[derive(Debug)]
pub(crate) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    pub(crate) fn new() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    /// From the coarse clock where there is one: a record needs the millisecond, and the fine clock costs a
    /// third of an append. It is at most a tick of the kernel, 1 to 10 ms, behind.
    #[inline]
    fn now(&self) -> Timestamp {
        #[cfg(target_os = "linux")]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
            Timestamp::from_millis(time.tv_sec * 1000 + time.tv_nsec / 1_000_000)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_millis(match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(after) => millis(after),
                Err(before) => -millis(before.duration()),
            })
        }
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A number that differs from process to process and from call to call. The standard library seeds its hash maps
/// from the system's randomness; this takes that and the time, and needs no crate.
pub(crate) fn random_seed() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(since_epoch.as_nanos());
    hasher.write_u32(std::process::id());
    hasher.finish()
}
