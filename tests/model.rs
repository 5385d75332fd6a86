//! The log against a plain model: random steps, killed and cut at random, on a disk that fails, at every level of
//! durability. The steps and the model are those of the fuzz target `operations`.
//!
//! `PROPTEST_CASES=20000 cargo test --release --all-features --test model` runs as many cases as one likes.
#![cfg(feature = "sim")]

use proptest::prelude::*;
use tidelog::sim::PowerCut;

use crate::operations::{DURABILITIES, Step, World};

#[allow(unreachable_pub, dead_code, reason = "for the fuzz targets it is part of a crate of its own")]
#[path = "../fuzz/src/operations.rs"]
mod operations;

fn step() -> impl Strategy<Value = Step> {
    let partition = || 0..2u32;
    prop_oneof![
        // Mostly of one size, so that a batch of the past can line up with one of today.
        12 => partition().prop_map(|partition| Step::Send { partition, bytes: 460 }),
        4 => (partition(), 0..1500usize).prop_map(|(partition, bytes)| Step::Send { partition, bytes }),
        3 => (partition(), 1..6usize).prop_map(|(partition, count)| Step::SendBatch { partition, count }),
        2 => Just(Step::Wait),
        2 => Just(Step::Flush),
        3 => Just(Step::Poll),
        2 => Just(Step::Commit),
        1 => (partition(), 0..9u64).prop_map(|(partition, back)| Step::CommitAt { partition, back }),
        2 => (0..200u64).prop_map(|millis| Step::Maintain { millis }),
        1 => Just(Step::NewConsumer),
        1 => Just(Step::AddPartition),
        1 => Just(Step::Reopen),
        2 => Just(Step::Kill),
        3 => (0..PowerCut::ALL.len()).prop_map(Step::PowerCut),
        1 => (0..32u8, 0..6u64).prop_map(|(kind, at)| Step::Fail { kind, at }),
        1 => (0..40u64, 0..=PowerCut::ALL.len()).prop_map(|(at, how)| Step::Die { at, how }),
        1 => partition().prop_map(|partition| Step::LosePage { partition }),
        2 => (partition(), 0..24u64).prop_map(|(partition, back)| Step::Truncate { partition, back }),
        1 => any::<bool>().prop_map(|fork| Step::Copy { fork }),
        2 => partition().prop_map(|partition| Step::Compact { partition }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_log_behaves_like_vectors_that_may_lose_their_unsynced_tails(
        seed in any::<u64>(),
        durability in prop::sample::select(&DURABILITIES[..]),
        segment_bytes in prop_oneof![Just(4096u32), Just(8192), Just(65536)],
        compacts in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(seed, durability, segment_bytes, compacts);
        for step in &steps {
            world.take(step);
        }
        world.finish();
    }
}
