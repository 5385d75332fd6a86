//! Sweeps: the machine stops at every operation of a life of a log, or every operation fails, and another life follows.
//! A test file says what is done in such a life, and what must hold in the next.
//!
//! With `TIDELOG_SWEEP=full` every case is run; without it, one in so many.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fmt::Debug;
use std::io::ErrorKind;
use std::ops::Range;

use tidelog::sim::{Failure, Fault, Machine, Operation, PowerCut};
use tidelog::{Error, EventLog, LogConfig};

/// A disk that is broken, and one that is full.
const FAILURES: [Failure; 2] = [Failure::Errno(5), Failure::Kind(ErrorKind::StorageFull)];

/// What the users of a log were told in its lives, of which each may end anywhere.
pub(crate) trait Life: Default {
    /// What lives differ in.
    type Kind: Copy + Debug;

    /// Of so many cases one is run, unless all are.
    const ONE_IN: u64;

    /// Lives, and notes what is told. Ends with the first error, or with the log closed.
    fn live(&mut self, kind: Self::Kind, machine: &Machine) -> Result<(), Error>;

    /// Looks at what the last life left, before anybody has opened it.
    fn look(&self, _machine: &Machine, _case: &str) {}

    /// Holds a new life against what was told in the last.
    fn check(&mut self, log: &EventLog, case: &str);
}

/// Stops the machine at every operation of a life of each kind, with each way to lose the power.
pub(crate) fn stop_everywhere<L: Life>(kinds: &[L::Kind]) {
    let (mut stopped, mut stopped_again) = (0, 0);
    for kind in kinds.iter().copied() {
        let undisturbed = Machine::new(1);
        L::default().live(kind, &undisturbed).unwrap();
        let all = undisturbed.operations();
        for (at, nth) in stops(0..all, L::ONE_IN) {
            let case = format!("{kind:?}: stopped at operation {at} of {all}, {:?}", PowerCut::ALL[nth]);
            stopped += 1;
            stopped_again += u64::from(stop::<L>(kind, at, nth, &case));
        }
    }
    println!("the machine was stopped {stopped} times, and {stopped_again} times in the next opening too");
    assert!(stopped > 100 && stopped_again > stopped / 3, "{stopped}, {stopped_again}");
}

/// Stops the machine once. Returns whether the next opening was long enough to be interrupted, too.
fn stop<L: Life>(kind: L::Kind, at: u64, nth: usize, case: &str) -> bool {
    let (machine, mut told) = (Machine::new(1 + at), L::default());
    machine.crash_at(at);
    let ended = told.live(kind, &machine);
    assert!(machine.has_crashed() || ended.is_ok(), "{case}: {ended:?}");

    let machine = machine.power_cut(PowerCut::ALL[nth]);
    told.look(&machine, case);
    machine.crash_at(machine.operations() + at % 67);
    drop(machine.open(log_config()));
    let stopped_again = machine.has_crashed();

    let machine = machine.power_cut(PowerCut::ALL[(nth + 1) % PowerCut::ALL.len()]);
    told.check(&open(&machine, case), case);
    go_on(told, kind, &machine, case);
    stopped_again
}

/// Lets each of the first `operations` of a life of this kind fail, once or from then on.
pub(crate) fn fail_everywhere<L: Life>(kind: L::Kind, operations: u64) {
    let mut failed = 0;
    for fault in faults(&FAILURES, operations, L::ONE_IN) {
        let (case, at) = (format!("{fault:?}"), fault.at);
        let (machine, mut told) = (Machine::new(at), L::default());
        machine.fail(fault);
        failed += u64::from(told.live(kind, &machine).is_err());
        machine.heal();
        let machine = machine.power_cut(PowerCut::ALL[at as usize % PowerCut::ALL.len()]);
        told.check(&open(&machine, &case), &case);
        go_on(told, kind, &machine, &case);
    }
    println!("{failed} lives ended with an error");
    assert!(failed > 20, "{failed}");
}

/// Another life, in which nothing happens to the machine, and what it leaves.
fn go_on<L: Life>(mut told: L, kind: L::Kind, machine: &Machine, case: &str) {
    told.live(kind, machine).unwrap_or_else(|error| panic!("{case}: {error}"));
    let machine = machine.kill();
    let report = machine.verify().unwrap();
    assert!(report.is_sound(), "{case}: {report:?}");
    told.check(&open(&machine, case), case);
}

fn log_config() -> LogConfig {
    LogConfig::new().background(false)
}

/// A new life, in which nothing is damaged.
fn open(machine: &Machine, case: &str) -> EventLog {
    let log = machine.open(log_config()).unwrap_or_else(|error| panic!("{case}: {error}"));
    let damage = &log.recovery_report().damage;
    assert!(damage.is_empty(), "{case}: {damage:?}");
    log
}

/// Where to stop, and which of [`PowerCut::ALL`] comes then.
pub(crate) fn stops(operations: Range<u64>, one_in: u64) -> impl Iterator<Item = (u64, usize)> {
    let ways = |at| (0..PowerCut::ALL.len()).map(move |nth| (at, nth));
    operations.flat_map(ways).filter(move |(at, nth)| is_run(at + *nth as u64, one_in))
}

/// Each of these failures at each of the first `operations`, once and from then on.
pub(crate) fn faults(failures: &[Failure], operations: u64, one_in: u64) -> impl Iterator<Item = Fault> {
    let at = move |at| failures.iter().map(move |failure| Fault::new(None::<Operation>, at).failure(*failure));
    let cases = (0..operations).filter(move |at| is_run(*at, one_in)).flat_map(at);
    cases.flat_map(|fault| [fault.clone(), fault.forever()])
}

fn is_run(case: u64, one_in: u64) -> bool {
    case.is_multiple_of(one_in) || std::env::var("TIDELOG_SWEEP").is_ok_and(|value| value == "full")
}
