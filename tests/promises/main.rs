//! The promises of `tidelog::promises`, each broken on purpose. The table there names the tests of each row.
//!
//! The sweeps are bounded so that the whole takes a minute; `TIDELOG_SWEEP=full cargo test --release --all-features
//! --test promises` runs every case. What is drawn is drawn from seeds, which stand in the messages.

mod clocks;
mod crashes;
mod files;
mod groups;
mod lost_catalog;
mod panics;
mod processes;
mod rot;
mod shared;
mod space;
mod sweeps;
mod syncs;
