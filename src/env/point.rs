//! Points that a simulation looks at: calls into the library, and what came of them.
//!
//! | call            | what a simulation may do there                                        |
//! |-----------------|-----------------------------------------------------------------------|
//! | [`reach`]       | write it down, let somebody else go on first, end the caller's life   |
//! | [`note`]        | write it down; the caller may hold locks                              |
//! | [`pass`]        | end the caller's life, if that has been decided meanwhile             |
//! | [`is_dead`]     | say whether the caller's life is over: then it tells nobody           |
//!
//! Without the feature `sim` they do nothing and what they are given is never made: the library pays nothing. With
//! it, a thread on which no simulation looks pays one look at a variable of its own.

use crate::types::{Offset, OffsetAndMetadata, TopicPartition};

/// What happens at a point.
#[derive(Debug)]
#[cfg_attr(not(any(test, feature = "sim")), expect(dead_code, reason = "only a simulation asks what it is"))]
pub(crate) enum What<'a> {
    /// A consumer is asked for records, and has found so many.
    Poll,
    Polled(usize),
    /// A record goes into the hands of who iterates.
    Take {
        partition: &'a TopicPartition,
        offset: Offset,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    },
    /// Who iterates asks for the next record, and there is none.
    TookAll,
    /// A commit is asked for, and is in the log of its group.
    Commit,
    Committed {
        group: &'a str,
        offsets: &'a [(TopicPartition, OffsetAndMetadata)],
    },
    /// The commit is as durable as configured.
    CommitReturned,
    /// The group has given a consumer these partitions, and no others.
    Assigned {
        generation: u64,
        partitions: Vec<TopicPartition>,
    },
    /// A producer is asked to send, and has appended.
    Send,
    Sent {
        partition: &'a TopicPartition,
        offset: Offset,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    },
    /// Somebody asks for what was sent to be delivered, and waits for it.
    Wait,
    /// A call goes on with its next step, and holds no lock: others may take theirs in between.
    Step,
    /// A point that the user has named.
    Named(&'static str),
}

#[cfg(any(test, feature = "sim"))]
pub(crate) use looked_at::{Onlooker, is_looked_at, look_on, onlooker};

#[cfg(any(test, feature = "sim"))]
mod looked_at {
    use std::cell::{Cell, RefCell};
    use std::sync::Arc;
    use std::time::Duration;

    use super::What;

    /// A simulation.
    pub(crate) trait Onlooker {
        fn note(&self, what: What<'_>);
        fn reach(&self, what: What<'_>);
        fn pass(&self);
        fn is_dead(&self) -> bool;
        /// Something outside of the log is about to be changed; false: the caller's life is over, and it is to be unwound.
        fn before_effect(&self) -> bool;
        /// It was changed.
        fn after_effect(&self, store: usize);
        /// The time of the simulation, and letting some of it go by.
        fn now(&self) -> Duration;
        fn sleep(&self, time: Duration);
    }

    thread_local! {
        static ONLOOKER: RefCell<Option<Arc<dyn Onlooker>>> = const { RefCell::new(None) };
        /// Whether there is one: a variable that is never dropped is one load, and this is asked for each record.
        static IS_LOOKED_AT: Cell<bool> = const { Cell::new(false) };
    }

    /// From now on the simulation looks at what this thread does; `None`: no more. Returns who did so far.
    pub(crate) fn look_on(onlooker: Option<Arc<dyn Onlooker>>) -> Option<Arc<dyn Onlooker>> {
        IS_LOOKED_AT.set(onlooker.is_some());
        ONLOOKER.with(|current| current.replace(onlooker))
    }

    /// Who looks at this thread. A thread that is ending has no variables any more, and no simulation.
    pub(crate) fn onlooker() -> Option<Arc<dyn Onlooker>> {
        ONLOOKER.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    #[inline]
    pub(crate) fn is_looked_at() -> bool {
        IS_LOOKED_AT.get()
    }

    /// Calls `tell` with the simulation that looks at this thread, if one does.
    #[inline]
    pub(super) fn on_stage(tell: impl FnOnce(&dyn Onlooker)) {
        if is_looked_at() {
            call(tell);
        }
    }

    #[cold]
    fn call(tell: impl FnOnce(&dyn Onlooker)) {
        if let Some(onlooker) = onlooker() {
            tell(&*onlooker);
        }
    }
}

/// Mistakes that can be planted in the library, to see that a simulation finds them.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    SyncForgotten,
    DirectorySyncForgotten,
    WakeUpLost,
    StaleGenerationCounts,
    GenerationLookedAtTooEarly,
    CommitIsOneFurther,
    ChecksumNotLookedAt,
    SyncNotWaitedFor,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread makes the mistake.
#[cfg(test)]
pub(crate) fn plant(mistake: Option<Mistake>) {
    PLANTED.set(mistake);
}

/// Whether this thread makes the mistake.
#[cfg(test)]
pub(crate) fn is_planted(mistake: Mistake) -> bool {
    PLANTED.try_with(std::cell::Cell::get).ok().flatten() == Some(mistake)
}

/// The caller is at a point where everything may happen: it holds no lock.
#[inline(always)]
pub(crate) fn reach<'a>(what: impl FnOnce() -> What<'a>) {
    #[cfg(any(test, feature = "sim"))]
    looked_at::on_stage(|onlooker| onlooker.reach(what()));
    #[cfg(not(any(test, feature = "sim")))]
    drop(what);
}

/// Something has happened.
#[inline(always)]
pub(crate) fn note<'a>(what: impl FnOnce() -> What<'a>) {
    #[cfg(any(test, feature = "sim"))]
    looked_at::on_stage(|onlooker| onlooker.note(what()));
    #[cfg(not(any(test, feature = "sim")))]
    drop(what);
}

/// The library is about to return to its caller, who must not see what came after the end of its life.
#[inline(always)]
pub(crate) fn pass() {
    #[cfg(any(test, feature = "sim"))]
    looked_at::on_stage(|onlooker| onlooker.pass());
}

/// Whether the caller's life is over, and only its memory is left to be given back.
#[inline(always)]
pub(crate) fn is_dead() -> bool {
    #[cfg(any(test, feature = "sim"))]
    if is_looked_at() {
        return onlooker().is_some_and(|onlooker| onlooker.is_dead());
    }
    false
}
