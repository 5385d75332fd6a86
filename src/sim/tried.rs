//! Which runs a search has made already: the same choices give the same run, so it need not be made again.
//!
//! Seeds come to the same run more often than one would think, because mostly nothing happens: of 30,000 of the bench
//! nearly half. Whether a seed does is found out by drawing its numbers as the run would, along the runs that are known,
//! which costs a hundredth of making it.
//!
//! Runs are kept as a tree of *stretches*: what is asked for from some choice on, for as long as every answer is the dull
//! one. Any other answer leads to a stretch of its own. So a run adds what is new in it, and most of that is its end.

use std::collections::BTreeMap;
use std::mem;

use crate::sim::tape::{Choice, Tape};

/// More stretches than this are not remembered: they take about a hundred megabytes.
const MOST: usize = 1 << 18;

#[derive(Debug)]
pub(crate) struct Tried {
    /// The first is that of the dullest run.
    stretches: Vec<Stretch>,
}

#[derive(Debug, Default)]
struct Stretch {
    /// What is asked for.
    asked: Vec<Asked>,
    /// Whether the run is over behind the last of them, or nobody has been there.
    is_whole: bool,
    /// Where an answer that is not 0 leads to, by its place in `asked`.
    branches: BTreeMap<(usize, u32), usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    limit: u32,
    evenly: bool,
}

impl Tried {
    pub(crate) fn new() -> Self {
        Tried { stretches: vec![Stretch::default()] }
    }

    /// Whether the run that draws from `tape` is known.
    pub(crate) fn knows(&self, mut tape: Tape) -> bool {
        let (mut stretch, mut at) = (&self.stretches[0], 0);
        while let Some(asked) = stretch.asked.get(at) {
            let answer = if asked.evenly { tape.evenly(asked.limit) } else { tape.seldom(asked.limit) };
            if answer == 0 {
                at += 1;
            } else {
                let Some(next) = stretch.branches.get(&(at, answer)) else { return false };
                (stretch, at) = (&self.stretches[*next], 0);
            }
        }
        stretch.is_whole
    }

    /// Remembers a run. Returns whether it is new; it is not either if after the same answers something else was asked
    /// before, so that what runs depends on more than them.
    pub(crate) fn add(&mut self, drawn: &[Choice]) -> bool {
        let (mut stretch, mut at) = (0, 0);
        for choice in drawn {
            let (new, here) = (self.stretches.len(), &mut self.stretches[stretch]);
            let asked = Asked { limit: choice.limit, evenly: choice.evenly };
            match here.asked.get(at) {
                None if !here.is_whole => here.asked.push(asked),
                known if known != Some(&asked) => return false,
                _ => {}
            }
            if choice.value == 0 {
                at += 1;
            } else {
                (stretch, at) = (*here.branches.entry((at, choice.value)).or_insert(new), 0);
                if stretch == new {
                    self.stretches.push(Stretch::default());
                }
            }
        }
        let here = &mut self.stretches[stretch];
        here.asked.len() == at && !mem::replace(&mut here.is_whole, true)
    }

    /// Whether there is room for more.
    pub(crate) fn has_room(&self) -> bool {
        self.stretches.len() < MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults, each with a number that says how, until a run of six choices is over.
    fn run(mut tape: Tape) -> Tape {
        while tape.drawn().len() < 6 {
            if tape.seldom(3) == 2 {
                tape.evenly(5);
            }
        }
        tape
    }

    #[test]
    fn a_run_is_known_once_it_was_made_and_not_before() {
        let mut tried = Tried::new();
        let mut made = std::collections::BTreeSet::new();
        for seed in 0..3_000 {
            let ran = run(Tape::random(seed));
            let numbers: Vec<u32> = ran.drawn().iter().map(|choice| choice.value).collect();

            let known = made.contains(&numbers);
            assert_eq!(tried.knows(Tape::random(seed)), known, "seed {seed}: {numbers:?}");
            assert_eq!(tried.add(ran.drawn()), !known, "seed {seed}: {numbers:?}");
            assert!(tried.knows(Tape::random(seed)), "seed {seed}");
            made.insert(numbers);
        }
        assert!((200..2_500).contains(&made.len()), "{}", made.len());
    }

    #[test]
    fn a_run_that_does_not_follow_from_its_choices_is_not_remembered() {
        let mut tried = Tried::new();
        let mut tape = Tape::random_with(1, u64::MAX);
        let ran = |tape: &mut Tape, limits: &[u32]| limits.iter().map(|limit| tape.seldom(*limit)).sum::<u32>();
        assert_eq!(ran(&mut tape, &[2, 3]), 0);
        assert!(tried.add(tape.drawn()));

        for limits in [&[2, 4][..], &[2], &[2, 3, 3]] {
            let mut tape = Tape::random_with(1, u64::MAX);
            assert_eq!(ran(&mut tape, limits), 0);
            assert!(!tried.add(tape.drawn()), "{limits:?}");
        }
        assert!(tried.knows(Tape::random_with(1, u64::MAX)));
    }
}
