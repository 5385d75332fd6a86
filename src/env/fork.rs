//! Noticing a fork: the child has the memory and the descriptors of its parent, but not its threads, and must touch
//! neither log nor lock.
//!
//! A page that the kernel gives to the child empty says so without a system call (`MADV_WIPEONFORK`). Where there is no
//! such page the number of the process is asked for.

use std::fmt;
use std::process;

#[cfg(target_os = "linux")]
use crate::env::storage::region::WipedOnFork;

/// Tells whether this process is the one that made it.
pub(crate) enum ForkGuard {
    #[cfg(target_os = "linux")]
    Page(WipedOnFork),
    Process(u32),
    /// Nobody forks in a simulation.
    #[cfg(any(test, feature = "sim"))]
    Never,
}

impl ForkGuard {
    /// A guard of this process.
    pub(crate) fn new() -> Self {
        #[cfg(target_os = "linux")]
        if let Ok(page) = WipedOnFork::new() {
            return ForkGuard::Page(page);
        }
        ForkGuard::Process(process::id())
    }

    /// Whether this is a child of the process that made the guard.
    #[inline]
    pub(crate) fn is_child(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            ForkGuard::Page(page) => page.is_wiped(),
            ForkGuard::Process(number) => *number != process::id(),
            #[cfg(any(test, feature = "sim"))]
            ForkGuard::Never => false,
        }
    }
}

impl fmt::Debug for ForkGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForkGuard({})", if self.is_child() { "child" } else { "not forked" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_made_a_guard_is_not_its_child() {
        assert!(!ForkGuard::new().is_child());
        assert!(!ForkGuard::Process(process::id()).is_child());
        assert!(ForkGuard::Process(0).is_child());
        assert!(!ForkGuard::Never.is_child());
    }
}
