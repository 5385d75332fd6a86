//! The bodies of the fuzz targets, as plain functions: cargo-fuzz runs them for as long as one likes, and `cargo test`
//! runs them over all seeds, all past regressions and some generated inputs, on stable Rust.
//!
//! | target           | input                                    | what must hold                                              |
//! |------------------|------------------------------------------|-------------------------------------------------------------|
//! | `decode`         | salt, bytes of a batch                   | both decoders say the same                                  |
//! | `forged`         | the same, and the checksum is made right | both decoders say the same                                  |
//! | `structured`     | an arbitrary `Segment`                   | both decoders say the same, where batches go on too         |
//! | `differential`   | bytes of a segment file                  | the same; and `dump` explains every byte once               |
//! | `round_trip`     | arbitrary records                        | what is written is read back, and written again the same    |
//! | `entries`        | key and value of a table                 | both decoders say the same; what is written again is read the same |
//! | `codecs`         | bytes for the typed codecs               | no more memory than the limit; what decodes, encodes back   |
//! | `active_segment` | the newest segment of a partition        | recovery offers what the reference reads, and goes on behind it |
//! | `sealed_segment` | an older one                             | the same, read lazily                                       |
//! | `group`          | a file of committed offsets              | what is committed is what was written, and not past the end |
//! | `catalog`        | the file of the catalog                  | it opens or says why; nobody's records go                   |
//! | `directory`      | any files at all                         | it opens or says why; nothing appears that is in no file, no topic is hidden |
//! | `inspect`        | the same                                 | `verify` agrees with recovery; what `repair` mended verifies |
//! | `operations`     | steps, truncations, compactions, copies, kills, power cuts | what a plain model says                   |
//! | `consumer`       | a scenario, and the tape of its choices  | what delivery at least once means                           |
//!
//! For all of them: no panic; memory within a small multiple of the input (where the counting allocator is installed), and
//! no more bytes checked than a fixed multiple of those that there are.
//!
//! There is no file of an index: an index is made from checked batches, in memory. `sealed_segment` finds what a wrong one
//! would do, because it reads from the middle too.

mod codecs;
mod consumers;
mod decoders;
mod directories;
mod files;
pub mod memory;
mod operations;
mod reference;
pub mod seeds;

/// A fuzz target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 15] = [
    ("decode", decoders::decode),
    ("forged", decoders::forged),
    ("structured", decoders::structured),
    ("differential", decoders::differential),
    ("round_trip", decoders::round_trip),
    ("entries", decoders::entries),
    ("codecs", codecs::codecs),
    ("active_segment", directories::active_segment),
    ("sealed_segment", directories::sealed_segment),
    ("group", directories::group),
    ("catalog", directories::catalog),
    ("directory", directories::directory),
    ("inspect", directories::inspect),
    ("operations", operations::operations),
    ("consumer", consumers::consumer),
];

/// Runs the body of the target of this name.
///
/// # Panics
///
/// Panics if there is none, and if something is found.
pub fn run(target: &str, input: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target is in the table");
    body(input);
}
