//! Calls that a test wants to be refused: for those who test what they do then.

#[cfg(any(test, feature = "sim"))]
use std::sync::Arc;

#[cfg(any(test, feature = "sim"))]
use parking_lot::Mutex;

#[cfg(any(test, feature = "sim"))]
use crate::error::Error;
use crate::error::Result;

/// A call that can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Poll,
    Commit,
    Send,
}

/// The calls to be refused, each once. Without the feature `sim` it is nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    #[cfg(any(test, feature = "sim"))]
    waiting: Arc<Mutex<Vec<(Call, Error)>>>,
}

impl Refusals {
    /// The next such call fails with this.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn add(&self, call: Call, error: Error) {
        self.waiting.lock().push((call, error));
    }

    /// Whether this call is to be refused.
    #[inline(always)]
    #[cfg_attr(not(any(test, feature = "sim")), expect(clippy::unused_self, reason = "there is nothing to ask"))]
    pub(crate) fn check(&self, call: Call) -> Result<()> {
        #[cfg(any(test, feature = "sim"))]
        {
            let mut waiting = self.waiting.lock();
            if let Some(at) = waiting.iter().position(|(refused, _)| *refused == call) {
                return Err(waiting.remove(at).1);
            }
        }
        let _ = call;
        Ok(())
    }
}
