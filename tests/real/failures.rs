//! Checkpoints that fail. Whatever the reason, it is the same sentence each time: the program runs on, the
//! older checkpoints are whole, and status.json, the log and the caller's error all name cause and remedy
//! ([`asker`]); once the cause is gone the next checkpoint is made, and the program comes back from it.
//!
//! The reasons are real ones (a service that is stopped, a disk that is full, a worker that is killed); a
//! scripted service ([`fake`]) stands in only for what the real one can't be made to say.

pub mod asker;
pub mod criu;
mod disk;
pub mod fake;
mod leftovers;
mod process;
mod service;
pub mod small_disk;
mod worker;

pub use criu::Service;
