//! What those above need to know of a consumer between two polls, and waiting there, in the log's time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::consumer::{Consumer, Mode};
use crate::error::{Error, Result};

impl Consumer {
    /// The longest time that the consumer may take between two polls; `None` if nobody minds, because it is no member.
    pub(crate) fn max_poll_interval(&self) -> Option<Duration> {
        let member = self.group.is_some() && matches!(self.mode, Mode::Subscribed(_));
        member.then_some(self.config.max_poll_interval)
    }

    /// Until when the consumer has to poll again, by the log's clock; `None` if nobody minds.
    pub(crate) fn poll_deadline(&self) -> Option<Duration> {
        Some(self.member.polled()?.saturating_add(self.max_poll_interval()?))
    }

    /// Whether what was polled is what is committed; otherwise it is what was stored.
    pub(crate) fn polling_stores(&self) -> bool {
        self.config.auto_offset_store
    }

    /// The group that the consumer is of.
    pub(crate) fn group_name(&self) -> Option<&str> {
        self.config.group.as_deref()
    }

    /// What the log's clock shows that never steps.
    pub(crate) fn monotonic(&self) -> Duration {
        self.catalog.env().clock.monotonic()
    }

    /// Waits for so long, by the log's clock.
    ///
    /// # Errors
    ///
    /// [`Wakeup`](Error::Wakeup) if [`ConsumerWaker::wake`](crate::consumer::ConsumerWaker::wake) was called;
    /// [`Closed`](Error::Closed) if the log is.
    pub(crate) fn wait_for(&self, time: Duration) -> Result<()> {
        let end = self.monotonic().saturating_add(time);
        loop {
            let seen = self.bell.rung();
            if self.woken.swap(false, Ordering::AcqRel) {
                return Err(Error::Wakeup);
            }
            self.check_usable()?;
            let left = end.saturating_sub(self.monotonic());
            if left.is_zero() {
                return Ok(());
            }
            self.bell.wait(seen, Some(left));
        }
    }
}
