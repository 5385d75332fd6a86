//! Searching for a run in which a guarantee does not hold, and for the shortest one of its kind.

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::sim::faults::Scope;
use crate::sim::outcome::{Broken, Outcome};
use crate::sim::players::{be_quiet, silence_panics_on_stage};
use crate::sim::report;
use crate::sim::saved::{self, Saved};
use crate::sim::scenario::Sim;
use crate::sim::shrink::{Shortest, shrink};
use crate::sim::stage::message_of;
use crate::sim::tape::{Choice, Tape, next_in_order, numbers_of};
use crate::sim::tried::Tried;

/// So many seeds are tried if nothing else is said.
const SEEDS: u64 = 1_000;

/// A thread of its own is worth it for so many seeds.
const SEEDS_PER_THREAD: u64 = 16;

/// So many runs at random say how many schedules there are in a scope that has more than were tried.
const PROBES: u64 = 400;

/// The guarantee of a test that has assertions of its own.
pub(crate) const ASSERTION: &str = "the assertions of the test";

/// One run, as it went.
pub(crate) struct Trial {
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) drawn: Vec<Choice>,
    /// How likely it was, if it was drawn at random.
    odds: f64,
    pub(crate) broken: Option<Broken>,
}

impl Trial {
    /// What makes the same run again.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        numbers_of(&self.drawn)
    }
}

/// What a run is made from.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) numbers: Vec<u32>,
    pub(crate) scope: Option<Scope>,
    pub(crate) most_records: usize,
}

/// Runs a scenario once.
pub(crate) fn try_once(scenario: &(dyn Fn(&mut Sim) + Sync), tape: Tape, scope: Option<Scope>, most: usize) -> Trial {
    silence_panics_on_stage();
    let mut sim = Sim::new(tape, scope, most);
    let loud = be_quiet(true);
    let done = catch_unwind(AssertUnwindSafe(|| scenario(&mut sim)));
    be_quiet(loud);
    let Some(ran) = sim.ran else {
        match done {
            Ok(()) => panic!("the scenario was set up and never run; call `run_until_idle`"),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    };
    let asserted = done.err().map(|payload| Broken { guarantee: ASSERTION, says: message_of(&*payload) });
    let broken = ran.outcome.broken().or(asserted);
    Trial { odds: ran.tape.odds(), drawn: ran.tape.into_drawn(), outcome: ran.outcome, broken }
}

/// A search over the runs of a scenario: see [`check`](crate::sim::check).
pub struct Check<F> {
    scenario: F,
    name: String,
    first_seed: u64,
    seeds: u64,
    scope: Option<Scope>,
    folder: Option<PathBuf>,
    page: Option<PathBuf>,
}

impl<F> fmt::Debug for Check<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({}, {} seeds)", self.name, self.seeds)
    }
}

impl<F: Fn(&mut Sim) + Sync> Check<F> {
    #[track_caller]
    pub(crate) fn new(scenario: F) -> Self {
        let place = Location::caller();
        let name = match thread::current().name() {
            Some(name) if name != "main" => name.replace("::", "-"),
            _ => format!("{}-{}", place.file().replace(['/', '\\', '.'], "-"), place.line()),
        };
        let folder =
            std::env::var_os("CARGO_MANIFEST_DIR").map(|root| PathBuf::from(root).join("tests/sim-regressions"));
        let page = std::env::var_os("TIDELOG_SIM_HTML").map(PathBuf::from);
        Check { scenario, name, first_seed: 0, seeds: SEEDS, scope: None, folder, page }
    }

    /// How many runs are drawn at random. Default: 1,000. The variable `TIDELOG_SIM_RUNS` overrides it.
    ///
    /// A seed that draws what an earlier one has drawn stands for the same run, which is not made again.
    /// [`Search::different`] says how many were.
    #[must_use]
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// Also makes every run that there is within a scope. If there are more than [`Scope::runs`], the report says that
    /// the search is incomplete.
    #[must_use]
    pub fn exhaustive(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Where failures are saved, and replayed from before anything else. Default: `tests/sim-regressions` of the
    /// crate that is tested; `None`: nowhere.
    #[must_use]
    pub fn regressions(mut self, folder: Option<PathBuf>) -> Self {
        self.folder = folder;
        self
    }

    /// Writes a failure also as a page with its timeline, one file that needs no network. Default: the
    /// file that the variable `TIDELOG_SIM_HTML` names, if it is set.
    #[must_use]
    pub fn html(mut self, file: impl Into<PathBuf>) -> Self {
        self.page = Some(file.into());
        self
    }

    /// Searches, and says what was found.
    ///
    /// # Panics
    ///
    /// Panics with the [report](Counterexample::report) if a guarantee does not hold in some run.
    #[track_caller]
    pub fn run(self) {
        let found = self.search();
        if let Some(failure) = &found.failure {
            panic!("{}", failure.report);
        }
        println!("{} runs, {} of them different", found.runs, found.different);
        if let Some(schedules) = &found.schedules {
            println!("{schedules}");
        }
    }

    /// Searches, and returns what was found.
    pub fn search(self) -> Search {
        let mut search = Search { runs: 0, different: 0, schedules: None, failure: None };
        if let Some(seed) = seed_of_environment() {
            let found = self.try_seeds(seed, 1, &mut search);
            search.failure = found.map(|found| self.explain(found, &search, false));
            return search;
        }
        let found = self.replay_saved(&mut search);
        let seeds = runs_of_environment().unwrap_or(self.seeds);
        let found = found.or_else(|| self.try_seeds(self.first_seed, seeds, &mut search));
        let found = found.or_else(|| self.try_all(&mut search));
        search.failure = found.map(|found| self.explain(found, &search, true));
        search
    }

    fn once(&self, tape: Tape, scope: Option<Scope>) -> Trial {
        try_once(&self.scenario, tape, scope, usize::MAX)
    }

    fn replay_saved(&self, search: &mut Search) -> Option<Found> {
        for saved in self.folder.iter().flat_map(|folder| saved::load(folder, &self.name)) {
            search.runs += 1;
            search.different += 1;
            let plan = saved.plan;
            let trial = try_once(&self.scenario, Tape::replay(&plan.numbers), plan.scope.clone(), plan.most_records);
            if trial.broken.is_some() {
                return Some(Found { origin: Origin::Saved(saved.file), plan, trial });
            }
        }
        None
    }

    /// Tries so many seeds, on as many threads as there are processors; of several failures the one with the first seed.
    fn try_seeds(&self, first: u64, count: u64, search: &mut Search) -> Option<Found> {
        let (next, different) = (AtomicU64::new(0), AtomicU64::new(0));
        let tried = Mutex::new(Tried::new());
        let failed: Mutex<Option<(u64, Trial)>> = Mutex::new(None);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let beaten = || failed.lock().as_ref().is_some_and(|(other, _)| *other < number);
                if number >= count || beaten() {
                    return;
                }
                let tape = || Tape::random(first.wrapping_add(number));
                if tried.lock().knows(tape()) {
                    continue;
                }
                let trial = self.once(tape(), None);
                if trial.broken.is_none() {
                    // Only what holds is known: of equal seeds that fail the first is the one to be told of.
                    let mut tried = tried.lock();
                    let is_new = !tried.has_room() || tried.add(&trial.drawn);
                    different.fetch_add(u64::from(is_new), Ordering::Relaxed);
                } else {
                    different.fetch_add(1, Ordering::Relaxed);
                    if !beaten() {
                        *failed.lock() = Some((number, trial));
                    }
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let threads = threads.min(count.div_ceil(SEEDS_PER_THREAD)).max(1);
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let failed = failed.into_inner();
        // Beside the first that fails some behind it were tried, as many as there happened to be threads: they do not count.
        search.runs += failed.as_ref().map_or(count, |(number, _)| number + 1);
        search.different += different.into_inner();
        let (number, trial) = failed?;
        let plan = Plan { numbers: trial.numbers(), scope: None, most_records: usize::MAX };
        Some(Found { origin: Origin::Seed(first.wrapping_add(number)), plan, trial })
    }

    fn try_all(&self, search: &mut Search) -> Option<Found> {
        let scope = self.scope.as_ref()?;
        let mut numbers = Vec::new();
        let mut schedules = Schedules { tried: 0, complete: false, estimated: None };
        let mut dull = 0;
        let found = loop {
            if schedules.tried >= scope.runs {
                break self.probe(scope, dull, &mut schedules);
            }
            let trial = self.once(Tape::replay(&numbers), Some(scope.clone()));
            if schedules.tried == 0 {
                dull = trial.drawn.len() as u64;
            }
            schedules.tried += 1;
            if trial.broken.is_some() {
                break Some(Found::in_scope(scope, schedules.tried, trial));
            }
            match next_in_order(&trial.drawn) {
                Some(next) => numbers = next,
                None => {
                    schedules.complete = true;
                    break None;
                }
            }
        };
        search.runs += schedules.tried;
        search.different += schedules.tried;
        search.schedules = Some(schedules);
        found
    }

    /// Estimates how many schedules there are in a scope, of which the dullest has so many choices, by runs at random in
    /// which about as much goes wrong as may. They may fail like all others.
    fn probe(&self, scope: &Scope, dull: u64, schedules: &mut Schedules) -> Option<Found> {
        let interesting = u64::from(scope.faults) + u64::from(scope.preemptions);
        let one_in = (dull / interesting.max(1)).max(2);
        let mut sum = 0.0;
        for seed in 0..PROBES {
            let trial = self.once(Tape::random_with(seed, one_in), Some(scope.clone()));
            if trial.broken.is_some() {
                return Some(Found::in_scope(scope, schedules.tried + seed + 1, trial));
            }
            sum += 1.0 / trial.odds;
        }
        schedules.estimated = Some(((sum / PROBES as f64) as u64).max(schedules.tried));
        None
    }

    /// Says the failure in words; `shorten`: makes it as short as it can be first, and saves it.
    fn explain(&self, found: Found, search: &Search, shorten: bool) -> Counterexample {
        let Found { origin, plan, trial } = found;
        let first = trial.broken.clone().expect("it was found because something is broken");
        let again = try_once(&self.scenario, Tape::replay(&plan.numbers), plan.scope.clone(), plan.most_records);
        if let Some(parting) = report::parting(&trial.outcome, &again.outcome) {
            let report = report::not_reproducible(&first, &origin, &parting);
            return Counterexample::new(first, origin, search.runs, 0, plan.numbers, trial.outcome, report);
        }
        let shortest = if shorten { shrink(&self.scenario, plan, trial) } else { Shortest { plan, trial, tries: 0 } };
        let broken = shortest.trial.broken.clone().unwrap_or(first);
        let steps = report::rows(&shortest.trial.outcome).len();
        let file = match (&origin, &self.folder) {
            (Origin::Saved(file), _) => Some(file.clone()),
            (_, Some(folder)) if shorten => {
                saved::save(folder, &self.name, &Saved::text(&shortest.plan, &broken, &origin))
            }
            _ => None,
        };
        let mut report = report::text(&shortest.trial.outcome, &broken, &origin, search.runs, shortest.tries);
        let replay = if shorten { report::how_to_replay(&self.name, &origin, file.as_deref()) } else { String::new() };
        report.push_str(&replay);
        if let Some(page) = &self.page {
            let html = report::page(&shortest.trial.outcome, &broken, &self.name, &replay);
            report.push_str(&saved::write_page(page, &html));
        }
        let outcome = Arc::clone(&shortest.trial.outcome);
        Counterexample::new(broken, origin, search.runs, steps, shortest.plan.numbers, outcome, report)
    }
}

fn seed_of_environment() -> Option<u64> {
    number_of_environment("TIDELOG_SIM_SEED")
}

fn runs_of_environment() -> Option<u64> {
    number_of_environment("TIDELOG_SIM_RUNS")
}

fn number_of_environment(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is not a number")))
}

struct Found {
    origin: Origin,
    plan: Plan,
    trial: Trial,
}

impl Found {
    fn in_scope(scope: &Scope, number: u64, trial: Trial) -> Self {
        let plan = Plan { numbers: trial.numbers(), scope: Some(scope.clone()), most_records: usize::MAX };
        Found { origin: Origin::Schedule(number), plan, trial }
    }
}

/// How a failure was found.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Seed(u64),
    /// The how many-th of all schedules.
    Schedule(u64),
    Saved(PathBuf),
    Bytes,
}

/// What a search has found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Search {
    /// How many runs were tried, before any was made shorter.
    pub runs: u64,
    /// How many of them were different. The others were not made: that would have been the same again. If there is a
    /// failure, a few that came behind it may be among them.
    pub different: u64,
    /// How many schedules there are in the scope, if all were asked for and nothing was found before.
    pub schedules: Option<Schedules>,
    /// The failure, if there is one.
    pub failure: Option<Counterexample>,
}

/// The schedules of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schedules {
    /// How many were tried.
    pub tried: u64,
    /// Whether those are all.
    pub complete: bool,
    /// If they are not: about how many there are, by some hundred runs at random. The right order of magnitude, and seldom
    /// more than that: where much may go wrong it is rather too low than too high.
    pub estimated: Option<u64>,
}

impl fmt::Display for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.complete, self.estimated) {
            (true, _) => write!(f, "all {} schedules of the scope were tried", self.tried),
            (false, Some(all)) => {
                write!(f, "INCOMPLETE: {} schedules of the scope were tried, of about {all}", self.tried)
            }
            (false, None) => {
                write!(f, "INCOMPLETE: {} schedules of the scope were tried, and there are more", self.tried)
            }
        }
    }
}

/// A run in which a guarantee does not hold.
#[derive(Debug)]
#[non_exhaustive]
pub struct Counterexample {
    /// The guarantee.
    pub guarantee: &'static str,
    /// What is wrong, with the records concerned.
    pub says: String,
    /// How many runs it took to find it.
    pub runs: u64,
    /// How many steps the shortest failing run has, as the report shows them.
    pub steps: usize,
    /// The choices of that run.
    pub tape: Vec<u32>,
    /// The run.
    pub outcome: Arc<Outcome>,
    /// All of it, for people.
    pub report: String,
}

impl Counterexample {
    fn new(
        broken: Broken,
        _origin: Origin,
        runs: u64,
        steps: usize,
        tape: Vec<u32>,
        outcome: Arc<Outcome>,
        report: String,
    ) -> Self {
        Counterexample { guarantee: broken.guarantee, says: broken.says, runs, steps, tape, outcome, report }
    }
}

/// One run whose choices are made of bytes: the body of a fuzz target.
pub(crate) fn fuzz(scenario: &(dyn Fn(&mut Sim) + Sync), bytes: &[u8]) {
    let trial = try_once(scenario, Tape::bytes(bytes), None, usize::MAX);
    if let Some(broken) = trial.broken.clone() {
        let plan = Plan { numbers: trial.numbers(), scope: None, most_records: usize::MAX };
        let shortest = shrink(scenario, plan, trial);
        panic!("{}", report::text(&shortest.trial.outcome, &broken, &Origin::Bytes, 1, shortest.tries));
    }
}
