//! What may go wrong in a run, and how often.

/// How many faults of each kind a run may have; when and where, is tried out. Default: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub(crate) crashes: u32,
    pub(crate) power_cuts: u32,
    pub(crate) panics: u32,
    pub(crate) stalls: u32,
    pub(crate) disk_errors: u32,
    pub(crate) disk_full: u32,
    pub(crate) bit_flips: u32,
    pub(crate) visitors: u32,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// The process dies, as by kill -9: at any call into the library, any operation of the disk, any
    /// [`point!`](crate::point). What it had written is there when it is started again, a second later.
    #[must_use]
    pub fn crashes(mut self, most: u32) -> Self {
        self.crashes = most;
        self
    }

    /// The machine loses its power, at any of the same places: what was not synced is gone, or there in part, torn and
    /// out of order.
    #[must_use]
    pub fn power_cuts(mut self, most: u32) -> Self {
        self.power_cuts = most;
        self
    }

    /// The thread of one member panics; the other members go on, and it is started again a second later.
    #[must_use]
    pub fn panics(mut self, most: u32) -> Self {
        self.panics = most;
        self
    }

    /// A member does nothing for so long that its group gives it up: longer than
    /// `max_poll_interval` (Kafka: `max.poll.interval.ms`).
    #[must_use]
    pub fn stalls(mut self, most: u32) -> Self {
        self.stalls = most;
        self
    }

    /// A call to the disk fails with an I/O error; a sync may lose pages then, as on Linux.
    #[must_use]
    pub fn disk_errors(mut self, most: u32) -> Self {
        self.disk_errors = most;
        self
    }

    /// The disk has no room, once.
    #[must_use]
    pub fn disk_full(mut self, most: u32) -> Self {
        self.disk_full = most;
        self
    }

    /// So many more members join each group at some moment, take no record, and leave again: two rebalances each.
    #[must_use]
    pub fn visitors(mut self, most: u32) -> Self {
        self.visitors = most;
        self
    }

    /// A bit of a sealed segment is turned over while the process is down. There must be crashes too, and segments
    /// that are sealed: records enough, and a small [`segment_bytes`](crate::TopicConfig::segment_bytes).
    #[must_use]
    pub fn bit_flips(mut self, most: u32) -> Self {
        self.bit_flips = most;
        self
    }
}

/// How far [`Check::exhaustive`](crate::sim::Check::exhaustive) goes: small scopes find most mistakes, and large ones never
/// end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// How many faults a run has at most, of all kinds together. Default: 1.
    pub faults: u32,
    /// How often another member goes on although the one before could have. Default: 1.
    pub preemptions: u32,
    /// How many runs are made at most; what is left then is said. Default: 100,000.
    pub runs: u64,
}

impl Default for Scope {
    fn default() -> Self {
        Scope { faults: 1, preemptions: 1, runs: 100_000 }
    }
}

/// What may still happen in a run.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub(crate) faults: Faults,
    /// Of all kinds together.
    pub(crate) in_all: u32,
    pub(crate) preemptions: u32,
    /// Whether what a power cut leaves is one of a few outcomes, so that all of them can be tried.
    pub(crate) few_outcomes: bool,
}

impl Budget {
    /// For runs that are drawn.
    pub(crate) fn drawn(faults: &Faults) -> Self {
        Budget { faults: faults.clone(), in_all: u32::MAX, preemptions: u32::MAX, few_outcomes: false }
    }

    /// For all runs in a scope.
    pub(crate) fn bounded(faults: &Faults, scope: &Scope) -> Self {
        Budget { faults: faults.clone(), in_all: scope.faults, preemptions: scope.preemptions, few_outcomes: true }
    }
}
