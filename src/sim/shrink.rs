//! Making a failing run shorter: fewer records, fewer and smaller numbers on the tape, the same guarantee broken.

use crate::sim::check::{ASSERTION, Plan, Trial, try_once};
use crate::sim::report;
use crate::sim::scenario::Sim;
use crate::sim::tape::{Tape, trim};

/// After so many tries the shortest so far is short enough.
const MOST_TRIES: usize = 3_000;

/// So many zeros before the first interesting number are left out, one after the other.
const MOST_ZEROS: usize = 60;

/// The shortest run that was found.
pub(crate) struct Shortest {
    pub(crate) plan: Plan,
    pub(crate) trial: Trial,
    pub(crate) tries: usize,
}

/// Smaller is shorter: what happens that is not dull, how much a reader has to read, how much there is of everything.
type Length = (usize, usize, u64, usize, usize);

fn length(plan: &Plan, trial: &Trial) -> Length {
    let interesting = plan.numbers.iter().filter(|number| **number != 0).count();
    let sum = plan.numbers.iter().map(|number| u64::from(*number)).sum();
    let rows = report::rows(&trial.outcome).len();
    (interesting, rows, sum, plan.numbers.len(), trial.outcome.sent().len())
}

pub(crate) fn shrink(scenario: &(dyn Fn(&mut Sim) + Sync), plan: Plan, trial: Trial) -> Shortest {
    let guarantee = trial.broken.as_ref().map(|broken| broken.guarantee);
    let length_of = length(&plan, &trial);
    let mut search = Shrinking { scenario, guarantee, best: Shortest { plan, trial, tries: 0 }, length: length_of };
    loop {
        let before = search.length;
        // What a test asserts may be about all of its records.
        if guarantee != Some(ASSERTION) {
            search.fewer_records();
        }
        search.without_pieces();
        search.smaller_numbers();
        if search.length >= before || search.best.tries >= MOST_TRIES {
            return search.best;
        }
    }
}

struct Shrinking<'a> {
    scenario: &'a (dyn Fn(&mut Sim) + Sync),
    guarantee: Option<&'static str>,
    best: Shortest,
    length: Length,
}

impl Shrinking<'_> {
    /// Takes the plan if it fails in the same way and is shorter.
    fn attempt(&mut self, mut numbers: Vec<u32>, most_records: usize) -> bool {
        if self.best.tries >= MOST_TRIES {
            return false;
        }
        self.best.tries += 1;
        trim(&mut numbers);
        let scope = self.best.plan.scope.clone();
        let trial = try_once(self.scenario, Tape::replay(&numbers), scope.clone(), most_records);
        if trial.broken.as_ref().map(|broken| broken.guarantee) != self.guarantee {
            return false;
        }
        let plan = Plan { numbers: trial.numbers(), scope, most_records };
        let length = length(&plan, &trial);
        if length >= self.length {
            return false;
        }
        self.length = length;
        self.best.plan = plan;
        self.best.trial = trial;
        true
    }

    fn fewer_records(&mut self) {
        let now = self.best.trial.outcome.sent().len().min(self.best.plan.most_records);
        for most in 1..now {
            // What happens at a record that is there no more happens earlier now: the same numbers, behind fewer zeros.
            let numbers = self.best.plan.numbers.clone();
            let zeros = numbers.iter().take_while(|number| **number == 0).count();
            for skipped in 0..=zeros.min(MOST_ZEROS) {
                if self.attempt(numbers[skipped..].to_vec(), most) {
                    return;
                }
            }
        }
    }

    /// Leaves out pieces, large ones first.
    fn without_pieces(&mut self) {
        let mut size = self.best.plan.numbers.len().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            while start < self.best.plan.numbers.len() {
                let mut numbers = self.best.plan.numbers.clone();
                numbers.drain(start..(start + size).min(numbers.len()));
                if !self.attempt(numbers, self.best.plan.most_records) {
                    start += size;
                }
            }
            size /= 2;
        }
    }

    fn smaller_numbers(&mut self) {
        let mut at = 0;
        while at < self.best.plan.numbers.len() {
            let number = self.best.plan.numbers[at];
            for smaller in [0, 1, number / 2, number.saturating_sub(1)] {
                let now = self.best.plan.numbers.get(at).copied().unwrap_or(0);
                if smaller < now {
                    let mut numbers = self.best.plan.numbers.clone();
                    numbers[at] = smaller;
                    self.attempt(numbers, self.best.plan.most_records);
                }
            }
            at += 1;
        }
    }
}
