//! Testing what uses the library: the real log, the real consumers and groups, on a simulated machine.

mod check;
mod executor;
mod faults;
mod machine;
mod memory;
mod outcome;
mod players;
mod report;
mod saved;
mod scenario;
mod shrink;
mod stage;
mod story;
mod tape;

use std::time::Duration;

use crate::env::point::{What, onlooker, reach};
use crate::types::Timestamp;

pub use crate::env::storage::sim::{Failure, Fault, Operation, PowerCut, SyncFailure};
pub use crate::sim::check::{Check, Counterexample, Schedules, Search};
pub use crate::sim::executor::Sleep;
pub use crate::sim::faults::{Faults, Scope};
pub use crate::sim::machine::Machine;
pub use crate::sim::memory::Controls;
pub use crate::sim::outcome::{Outcome, Sent};
pub use crate::sim::scenario::{Group, Outside, Sim, Topic};

/// The moment at which every simulation begins: the first of January 2020, UTC.
const EPOCH: Timestamp = Timestamp::from_millis(1_577_836_800_000);

/// Searches for a run of a scenario in which a guarantee does not hold. See the head of this module.
#[track_caller]
pub fn check<F: Fn(&mut Sim) + Sync>(scenario: F) -> Check<F> {
    Check::new(scenario)
}

/// Runs a scenario once, with its choices made of `bytes`: the body of a fuzz target for your own consumer.
///
/// # Panics
///
/// Panics with the report if a guarantee does not hold.
pub fn fuzz_one<F: Fn(&mut Sim) + Sync>(bytes: &[u8], scenario: F) {
    check::fuzz(&scenario, bytes);
}

/// How much of the simulation's time has gone by. For code under test, which must not ask the system's clock.
///
/// # Panics
///
/// Panics outside of a simulation.
pub fn now() -> Duration {
    onlooker().expect("`now` is the time of a simulation, and there is none on this thread").now()
}

/// Lets some of the simulation's time go by; other members go on meanwhile.
///
/// # Panics
///
/// Panics outside of a simulation.
pub fn sleep(time: Duration) {
    onlooker().expect("`sleep` waits for the time of a simulation, and there is none on this thread").sleep(time);
}

/// [`sleep`] for async code: waits for some of the simulation's time.
///
/// # Panics
///
/// Panics outside of a simulation.
pub fn sleep_async(time: Duration) -> Sleep {
    Sleep::new(time)
}

/// What [`point!`](crate::point) does.
#[doc(hidden)]
pub fn come_by(name: &'static str) {
    reach(|| What::Named(name));
}
