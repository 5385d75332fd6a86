//! Random numbers that depend on a seed and on nothing else: what a simulation draws, and what is secret for a while.

/// A sequence of random numbers: splitmix64, by Sebastiano Vigna.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is at least 1. The bias is too small for a simulation to care.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True `numerator` times of `denominator`.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_sequence() {
        let mut random = Random::new(1_234_567);

        let numbers = [random.next(), random.next(), random.next()];

        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_chance_comes_true_about_as_often_as_it_says() {
        let mut random = Random::new(7);

        let hits = (0..10_000).filter(|_| random.chance(1, 4)).count();

        assert!((2_300..2_700).contains(&hits), "{hits} of 10000");
        assert!((0..100).all(|_| !random.chance(0, 4) && random.chance(4, 4) && random.below(1) == 0));
    }
}
