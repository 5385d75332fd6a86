//! The kit for testing consumers, tested.
#![cfg(feature = "sim")]

mod groups;
mod kit;
mod loops;
mod planted;
