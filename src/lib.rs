//! Checkpoint a running program, by `kill -USR2`, by a timer or by a call, and bring it back.

pub mod error;
pub mod frozen;
mod sys;
pub use error::{CriuFailure, Error, ErrorKind};
pub use frozen::Bytes;
