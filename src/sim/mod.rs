//! Testing what uses the library: your own consumer, unmodified, against the real log on a simulated machine.
//!
//! You hand over an ordinary consumer loop. The kit runs it with the real consumer, coordinator, formats and recovery, on a
//! disk in memory and a clock that nobody winds. It makes every choice that could be made one way or the other: which
//! member runs, where the process dies, what a power cut leaves of the disk. It writes down what happens, checks
//! what a consumer must guarantee, and prints the shortest run that breaks it.
//!
//! # The first test
//!
//! ```toml
//! [dev-dependencies]
//! tidelog = { version = "0.1", features = ["sim"] }
//! ```
//!
//! ```
//! use std::time::Duration;
//! use tidelog::sim::{Faults, check};
//! use tidelog::{Consumer, Result};
//!
//! // As in production.
//! fn charge_cards(mut consumer: Consumer, charge: impl Fn(&[u8])) -> Result<()> {
//!     loop {
//!         for record in &consumer.poll(Duration::from_millis(100))? {
//!             charge(record.value().unwrap_or_default());
//!         }
//!         consumer.commit()?;
//!     }
//! }
//!
//! // #[test]
//! fn no_order_is_forgotten() {
//!     check(|sim| {
//!         sim.topic("orders").partitions(2).keyed((0..8).map(|n| (format!("user-{}", n % 3), format!("order {n}"))));
//!         let charged = sim.outside::<Vec<Vec<u8>>>();
//!         sim.group("billing").members(2).run(move |consumer| {
//!             charge_cards(consumer, |order| charged.with(|charged| charged.push(order.to_vec())))
//!         });
//!         sim.faults(Faults::none().crashes(1));
//!         sim.run_until_idle().at_least_once();
//!     })
//!     .seeds(200)
//!     .run();
//! }
//! # no_order_is_forgotten();
//! ```
//!
//! Now commit before you charge, and run it again:
//!
//! ```text
//! let records = consumer.poll(Duration::from_millis(100))?;
//! consumer.commit()?;
//! for record in &records {
//!     charge(record.value().unwrap_or_default());
//! }
//! ```
//!
//! ```text
//! a guarantee does not hold: no offset skipped
//!   group billing has committed behind what nobody had taken yet, and would lose it if it died now: 0@orders-1
//!
//!        time | billing-1                                 | billing-2
//!        0 ms | assigned (generation 1) orders-0 orders-1 |
//!             | commit orders-0=0 orders-1=1              |
//!
//!   2 steps; found by seed 0, in run 1; the shortest of 3 tries
//!   saved as tests/sim-regressions/no_order_is_forgotten.cf0ea937.tape, which is run first from now on
//!   to see the whole run: TIDELOG_SIM_SEED=0 cargo test no_order_is_forgotten
//! ```
//!
//! Read from above: the first member gets both partitions, and commits that order 0 of the second is done before it has
//! looked at it. `0@orders-1` is offset 0 of partition 1 of `orders`. It takes no crash to see that, but ask for
//! [`no_record_lost`](Outcome::no_record_lost) alone, and you are shown the crash after which nobody charges the order.
//!
//! # What runs
//!
//! | you have                                         | you call                                                      |
//! |--------------------------------------------------|---------------------------------------------------------------|
//! | a loop around `poll`, one thread per member      | [`Group::run`], [`Group::run_with_log`]                       |
//! | an async function                                | [`Group::run_async`]: no runtime; a crash drops the future    |
//! | a function of one record                         | [`Group::run_handler`]: the kit polls and commits, on one thread |
//! | a producer, or anything else that uses the log   | [`Sim::run`]                                                  |
//!
//! Handlers are the fastest: a group of them needs no threads, so that one which waits for another by other means than the
//! log, by a lock or a channel, waits for ever, and no thread is left to say so. Give such code to [`Group::run`], which
//! says after a minute that a member does not go on.
//!
//! Your code must depend on nothing that the kit does not decide: for the time call [`now`] and [`sleep`], have random
//! numbers of your own come from a fixed seed, and no threads but the members'. A failing run is made twice; if the two
//! differ, the report says at which event they part. What lives outside of the log and survives a crash, a database or a mail that
//! went out, is an [`Outside`]. [`point!`](crate::point) names a place in your code at which it may die and that the report
//! shows.
//!
//! # What goes wrong
//!
//! What [`Faults`] allows, at any call of the library, at every operation of the disk, inside of a commit, a roll or a
//! recovery, and at every `point!`.
//!
//! Only one member runs at a time. Another goes on where yours waits, and may go on before it polls, takes a record, commits,
//! sends, waits for a delivery, changes an [`Outside`], and at every `point!`; also within a commit, before it takes the lock of
//! the group. Under a lock no other goes on: whoever has one cannot be made to stand still without all others standing
//! still behind it. So what is tried is every order of calls, with a crash anywhere inside of them; what is not tried is
//! another member between the other steps of one call, as between the rebalance and the reading of one poll. Each of those
//! is taken under one lock, of the group or of the partition. That they may come in any order is what the library's
//! own tests on real threads are for.
//!
//! # What must hold
//!
//! | guarantee                                                                       | method of [`Outcome`]                         |
//! |----------------------------------------------------------------------------------|-----------------------------------------------|
//! | all of the next seven: what delivery at least once means                         | [`at_least_once`](Outcome::at_least_once)     |
//! | every record is processed                                                        | [`no_record_lost`](Outcome::no_record_lost)   |
//! | nothing is committed behind what was not taken                                   | [`no_offset_skipped`](Outcome::no_offset_skipped) |
//! | records of a key are taken in their order                                        | [`key_order`](Outcome::key_order)             |
//! | a partition has one owner in a generation                                        | [`single_owner`](Outcome::single_owner)       |
//! | commits do not move back, and what was committed is there after a restart        | [`commits_never_move_back`](Outcome::commits_never_move_back) |
//! | what is read is what was sent                                                    | [`true_records`](Outcome::true_records)       |
//! | once nothing goes wrong, everything gets done                                    | [`drained`](Outcome::drained), [`drained_within`](Outcome::drained_within) |
//! | a member that lost its partition does nothing more in its name                   | [`no_zombie_effects`](Outcome::no_zombie_effects) |
//! | no more than so many records are taken twice                                     | [`at_most_duplicates`](Outcome::at_most_duplicates) |
//! | a store outside has everything once                                              | [`exactly_once`](Outcome::exactly_once)       |
//! | what you say                                                                     | [`holds`](Outcome::holds), or assertions after `run_until_idle` |
//!
//! # How it is searched
//!
//! Every choice is a number drawn from one tape, and 0 is the dull one. The same tape gives the same run, on every machine.
//! [`seeds`](Check::seeds) draws the numbers at random, and makes no run twice; [`exhaustive`](Check::exhaustive) makes every run in a
//! [`Scope`] and says if it could not make all; [`fuzz_one`] takes them from a fuzzer; a failure is saved with its tape, and
//! shorter tapes are tried until none fails. Saved failures lie in `tests/sim-regressions`; commit them.
//!
//! | variable           | what it does                                                       |
//! |--------------------|--------------------------------------------------------------------|
//! | `TIDELOG_SIM_SEED` | one run only, with this seed; if it fails, it is shown as it was, and not made shorter |
//! | `TIDELOG_SIM_RUNS` | so many seeds, whatever the test says: few at the desk, many at night |
//! | `TIDELOG_SIM_HTML` | the file to which the timeline of a failure is written: open it in a browser |
//!
//! # With a fuzzer
//!
//! A fuzzer sees which branches of your code and of the library a tape has reached, and goes on from there: it finds what
//! needs three unlikely things in a row. With `cargo fuzz init`, a scenario that the tests have too is all that a target needs:
//!
//! ```
//! use std::time::Duration;
//! use tidelog::sim::{Faults, Sim, fuzz_one};
//!
//! fn no_order_is_forgotten(sim: &mut Sim) {
//!     sim.topic("orders").records(["first", "second"]);
//!     sim.group("billing").run(|mut consumer| {
//!         loop {
//!             consumer.poll(Duration::from_millis(100))?.iter().for_each(drop);
//!             consumer.commit()?;
//!         }
//!     });
//!     sim.faults(Faults::none().crashes(2).power_cuts(1));
//!     sim.run_until_idle().no_offset_skipped().drained();
//! }
//!
//! // libfuzzer_sys::fuzz_target!(|tape: &[u8]| fuzz_one(tape, no_order_is_forgotten));
//! # for tape in [&[][..], &[0, 0, 1], &[0, 2, 0, 1, 3]] { fuzz_one(tape, no_order_is_forgotten) }
//! ```
//!
//! Each byte is a choice, 0 is the dull one, and behind the end come zeros: so the fuzzer begins with the run in which nothing
//! goes wrong. A panic shows the same report as a test does, of the shortest run that breaks the guarantee. The repository has
//! such targets, of a loop, of two members, of a handler and of an async function: `fuzz/src/consumers.rs`.
//!
//! # Less than that
//!
//! [`EventLog::in_memory`](crate::EventLog::in_memory) is a log for an ordinary unit test, with a clock that you move and calls
//! that you let fail. [`Machine`] is the simulated machine by itself: open a log on it, cut the power, open it again.

mod check;
mod executor;
mod faults;
mod machine;
mod memory;
mod outcome;
#[cfg(test)]
mod planted;
mod players;
mod report;
mod saved;
mod scenario;
mod shrink;
mod stage;
mod story;
mod tape;
mod tried;

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
