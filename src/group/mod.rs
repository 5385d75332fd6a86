//! Consumer groups: who reads which partition, and how far the group has come.

mod coordinator;
mod offsets;

pub(crate) use crate::group::coordinator::{Input, MemberId, Output};
pub(crate) use crate::group::offsets::{Group, Groups};
