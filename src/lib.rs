//! Checkpoint a running program, by `kill -USR2`, by a timer or by a call, and bring it back.

pub mod error;
pub mod frozen;
mod sys;
mod config;
mod report;
pub mod criu;
mod image;
mod store;
mod trigger;
mod checkpoint;
pub mod restore;
mod agent;
mod install;
pub mod status;
pub use config::{Config, Schedule};
pub use error::{CriuFailure, Error, ErrorKind};
pub use frozen::Bytes;
pub use install::{Handle, install};
pub use report::{Cause, Checkpoint, Outcome, Report, Restored};
pub use store::catalogue::Entry;
pub use store::manifest::{Criu, FileEntry, Manifest, Program};
