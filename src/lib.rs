//! Checkpoint a running program, by `kill -USR2`, by a timer or by a call, and bring it back.

pub mod error;
pub mod frozen;
mod sys;
mod config;
mod report;
pub mod criu;
mod image;
pub use config::{Config, Schedule};
pub use error::{CriuFailure, Error, ErrorKind};
pub use frozen::Bytes;
pub use report::{Cause, Checkpoint, Outcome, Report, Restored};
