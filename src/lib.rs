//! tidelog
pub mod codec;
pub mod partitioner;
mod types;
mod error;
mod record;
mod env;
mod config;
mod format;
mod partition;
mod topic;
mod table;
mod catalog;
pub use error::*; pub use types::*; pub use record::*; pub use config::*; pub use catalog::*;
