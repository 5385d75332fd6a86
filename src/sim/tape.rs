//! The tape: every choice that a run makes is a number drawn from here, and nothing else decides.
//!
//! 0 is always the dull choice: no fault, the same member goes on, the first of what there is. So a tape is as long as
//! what is interesting in it: behind its end come zeros. Random numbers, all tapes in order, bytes of a fuzzer, a saved
//! failure and each shorter one that is tried while shrinking: they differ in where the numbers come from.

use crate::env::random::Random;

/// A number, how many there were to choose from, and whether each was as likely as the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) value: u32,
    pub(crate) limit: u32,
    pub(crate) evenly: bool,
}

/// Where the numbers come from.
#[derive(Debug)]
enum Source {
    /// Interesting one time in so many.
    Random {
        random: Random,
        one_in: u64,
    },
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
}

/// So many choices are a short run.
const FEW: usize = 64;

#[derive(Debug)]
pub(crate) struct Tape {
    source: Source,
    drawn: Vec<Choice>,
    /// How likely it was that these numbers are drawn, where they are drawn at random.
    odds: f64,
}

impl Tape {
    /// Numbers that depend on the seed alone.
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Some runs have their faults early and close together, others late and far apart.
        let one_in = 4 << random.below(6);
        Tape::of(Source::Random { random, one_in })
    }

    /// The same, with something interesting one time in so many, which are at least 2.
    pub(crate) fn random_with(seed: u64, one_in: u64) -> Self {
        Tape::of(Source::Random { random: Random::new(seed), one_in })
    }

    /// These numbers, and zeros behind them.
    pub(crate) fn replay(numbers: &[u32]) -> Self {
        Tape::of(Source::Numbers(numbers.to_vec()))
    }

    /// Numbers made of what a fuzzer gives.
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Tape::of(Source::Bytes(bytes.to_vec()))
    }

    fn of(source: Source) -> Self {
        Tape { source, drawn: Vec::new(), odds: 1.0 }
    }

    /// A number below `limit`, mostly 0: whether something happens that seldom does.
    pub(crate) fn seldom(&mut self, limit: u32) -> u32 {
        self.draw(limit, false, |random, one_in| {
            let interesting = 1.0 / one_in as f64;
            if random.below(one_in) == 0 {
                let others = limit - 1;
                (1 + random.below(u64::from(others)) as u32, interesting / f64::from(others))
            } else {
                (0, 1.0 - interesting)
            }
        })
    }

    /// A number below `limit`, each as likely as the other: how something happens.
    pub(crate) fn evenly(&mut self, limit: u32) -> u32 {
        self.draw(limit, true, |random, _| (random.below(u64::from(limit)) as u32, 1.0 / f64::from(limit)))
    }

    /// `chance`: a number, and how likely it was.
    fn draw(&mut self, limit: u32, evenly: bool, chance: impl FnOnce(&mut Random, u64) -> (u32, f64)) -> u32 {
        if limit <= 1 {
            return 0;
        }
        let at = self.drawn.len();
        if at == 0 {
            self.drawn.reserve(FEW);
        }
        let value = match &mut self.source {
            Source::Random { random, one_in } => {
                let (value, odds) = chance(random, *one_in);
                self.odds *= odds;
                value
            }
            // Who shortens a tape may leave a number where there is less to choose from now.
            Source::Numbers(numbers) => numbers.get(at).map_or(0, |number| (*number).min(limit - 1)),
            Source::Bytes(bytes) => bytes.get(at).map_or(0, |byte| u32::from(*byte) % limit),
        };
        self.drawn.push(Choice { value, limit, evenly });
        value
    }

    /// How likely this run was among all that could have been drawn. So the mean of `1 / odds` over many runs at random
    /// comes to how many there are, whatever the chances are.
    pub(crate) fn odds(&self) -> f64 {
        self.odds
    }

    #[cfg(test)]
    pub(crate) fn drawn(&self) -> &[Choice] {
        &self.drawn
    }

    /// What was drawn.
    pub(crate) fn into_drawn(self) -> Vec<Choice> {
        self.drawn
    }
}

/// What was drawn, up to the last number that is not dull.
pub(crate) fn numbers_of(drawn: &[Choice]) -> Vec<u32> {
    let mut numbers: Vec<u32> = drawn.iter().map(|choice| choice.value).collect();
    trim(&mut numbers);
    numbers
}

/// Takes the zeros from the end.
pub(crate) fn trim(numbers: &mut Vec<u32>) {
    let length = numbers.iter().rposition(|number| *number != 0).map_or(0, |last| last + 1);
    numbers.truncate(length);
}

/// The tape that follows in the order of all tapes, given what a run of the one before has drawn: the last number that can
/// be one greater is. `None`: that was the last.
pub(crate) fn next_in_order(drawn: &[Choice]) -> Option<Vec<u32>> {
    let last = drawn.iter().rposition(|choice| choice.value + 1 < choice.limit)?;
    let mut numbers: Vec<u32> = drawn[..=last].iter().map(|choice| choice.value).collect();
    numbers[last] += 1;
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of three choices, of which the third is only there if the first is 1.
    fn run(tape: &mut Tape) -> Vec<u32> {
        let mut chosen = vec![tape.seldom(2), tape.evenly(3)];
        if chosen[0] == 1 {
            chosen.push(tape.seldom(2));
        }
        chosen
    }

    #[test]
    fn all_tapes_in_order_are_every_run_once() {
        let mut numbers = Some(Vec::new());
        let mut seen = Vec::new();
        while let Some(next) = numbers {
            let mut tape = Tape::replay(&next);
            seen.push(run(&mut tape));
            numbers = next_in_order(tape.drawn());
        }

        assert_eq!(seen.len(), 3 + 3 * 2, "{seen:?}");
        let mut unlike = seen.clone();
        unlike.sort();
        unlike.dedup();
        assert_eq!(unlike.len(), seen.len());
    }

    #[test]
    fn the_odds_of_runs_at_random_say_how_many_there_are() {
        for one_in in [2, 3, 8] {
            let odds = (0..4_000).map(|seed| {
                let mut tape = Tape::random_with(seed, one_in);
                run(&mut tape);
                1.0 / tape.odds()
            });
            let mean = odds.sum::<f64>() / 4_000.0;

            assert!((8.5..9.5).contains(&mean), "{mean} of 9, one in {one_in}");
        }
    }

    #[test]
    fn what_a_run_has_drawn_gives_the_same_run_again() {
        for seed in 0..50 {
            let mut tape = Tape::random(seed);
            let first = run(&mut tape);

            assert_eq!(run(&mut Tape::replay(&numbers_of(tape.drawn()))), first);
            assert_eq!(run(&mut Tape::random(seed)), first);
        }
    }

    #[test]
    fn a_tape_that_ends_goes_on_with_the_dull_choice() {
        let mut tape = Tape::bytes(&[5]);

        assert_eq!((tape.seldom(3), tape.seldom(3), tape.evenly(9)), (2, 0, 0));
        assert_eq!(numbers_of(tape.drawn()), [2]);
        assert_eq!(Tape::replay(&[7]).evenly(4), 3, "as much as there is to choose from");
    }
}
