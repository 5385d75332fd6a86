//! The kit for testing consumers, tested.
#![cfg(feature = "sim")]

mod loops;
mod planted;
mod groups;
