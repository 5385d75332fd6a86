//! The kit for testing consumers, tested.
#![cfg(feature = "sim")]

mod groups;
mod loops;
mod planted;
