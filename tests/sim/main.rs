//! The kit for testing consumers, tested.
#![cfg(feature = "sim")]

mod conformance;
mod groups;
mod kit;
mod loops;
mod planted;
