//! What a runner tells of its program: plain data, for people and for JSON lines.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::policy::{Life, Reason};
use crate::frozen::Bytes;
use crate::restore::FilePlan;
use crate::store::status::Failure;

/// What has happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The command was started.
    Started {
        /// Its process.
        pid: i32,
        /// Whether it was to go on, and there is nothing to go on from.
        anew: bool,
    },
    /// The library that has a program make checkpoints can't be put into this one.
    NotPreloaded {
        /// Why.
        error: Failure,
    },
    /// A program that ran without a runner has one again.
    TakenOver {
        /// Its process.
        pid: i32,
    },
    /// The program came back.
    Restored {
        /// Its process.
        pid: i32,
        /// The checkpoint that it came from.
        checkpoint: String,
        /// What was done with its files.
        files: Vec<FilePlan>,
        /// Where what was cut off them is kept.
        cut: Option<PathBuf>,
    },
    /// The program did not come back from this checkpoint.
    NotRestored {
        /// The checkpoint.
        checkpoint: String,
        /// Why.
        error: Failure,
    },
    /// A checkpoint was made.
    Saved {
        /// The process.
        pid: i32,
        /// The checkpoint.
        checkpoint: String,
        /// Its size.
        size_bytes: Option<Bytes>,
        /// How long the program stood still for it, in microseconds.
        frozen_us: Option<u64>,
    },
    /// A checkpoint was to be made, and was not.
    NotSaved {
        /// The process.
        pid: i32,
        /// Why.
        error: Failure,
    },
    /// Nothing in the process makes checkpoints.
    NotCheckpointed {
        /// The process.
        pid: i32,
    },
    /// The program has its checkpoints where another runner will not look.
    Elsewhere {
        /// The folder of its instance.
        folder: PathBuf,
    },
    /// The program was asked to leave.
    AskedToLeave {
        /// The process.
        pid: i32,
        /// Whether it is to make a checkpoint. One that can't be asked for that gets the SIGTERM itself.
        with_checkpoint: bool,
        /// The name of the signal that asked it.
        signal: String,
        /// How long it may take.
        grace_seconds: f64,
    },
    /// The program took longer to leave than it may, or could only be ended so.
    Killed {
        /// The process.
        pid: i32,
    },
    /// The program has ended.
    Ended {
        /// The process.
        pid: i32,
        /// How.
        life: Life,
        /// Whether it is to come back.
        crashed: bool,
    },
    /// It is brought back after this time.
    Waiting {
        /// How long that is.
        seconds: f64,
        /// How many crashes there were in a row.
        crashes_in_a_row: usize,
    },
    /// It left with a checkpoint, to go on from there another time.
    Left {
        /// The checkpoint.
        checkpoint: String,
    },
    /// It is not brought back any more.
    GaveUp {
        /// Why.
        reason: Reason,
        /// All its lives, the first one first.
        lives: Vec<Life>,
    },
    /// A look at a program that runs, for who shows how it is doing. It is no news.
    #[serde(skip)]
    Looked(Look),
}

/// How a program is doing.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Look {
    /// Its process.
    pub pid: i32,
    /// When this life began.
    pub since: Instant,
    /// How many lives there were before.
    pub restarts: usize,
    /// When its last checkpoint was made.
    pub saved: Option<SystemTime>,
}

pub(super) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
