//! What comes after a life of the program, as a pure function of the lives that there were.
//!
//! A crash brings the program back from its newest checkpoint. If that doesn't help, there are two cases. Where it is
//! killed from outside, or fails by chance, the next try may go better, and the only question is how often to try.
//! Where the memory that it comes back with is what makes it fail, it fails again *at the same place*, and only an
//! older checkpoint can help.
//!
//! A place is told by the program's own time: the time that it has run, however often it was brought back. A life that
//! begins with a checkpoint begins at the place of that, so two crashes at one place are at one place whichever
//! checkpoints they came from.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::sys::signal;

/// How often a program is brought back in a row where nothing else is said.
pub const DEFAULT_RESTARTS: u32 = 10;

/// A life that was this long ends a row: what happened before it has nothing to do with what comes.
const SETTLED: Duration = Duration::from_secs(600);

/// How often the newest checkpoint is tried against a crash at one place, before older ones are.
const TRIES_OF_THE_NEWEST: usize = 2;

/// How often in a row a restore is tried that others stand in the way of.
const TRIES_OF_A_RESTORE: usize = 5;

/// When a program is brought back, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// How often in a row; none is without end.
    pub restarts: Option<u32>,
    /// Whether an exit status other than 0 is a crash as well. Otherwise it is the program's own end.
    pub on_failure: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { restarts: Some(DEFAULT_RESTARTS), on_failure: false }
    }
}

/// What a life began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Start {
    /// The command was started.
    Command,
    /// It came back from this checkpoint.
    Checkpoint(String),
    /// It ran already, without a runner.
    TakenOver,
}

/// What a life ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal.
    Signaled(i32),
    /// It ended, and somebody else was its parent.
    Unknown,
    /// It didn't come back. `lasting` where that is the checkpoint's fault, and will be so the next time.
    NotRestored {
        /// Whether the checkpoint is to be left alone from now on.
        lasting: bool,
    },
}

/// A life of the program, from its start or restore to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Life {
    /// What it began with.
    pub start: Start,
    /// What it ended with.
    pub end: End,
    /// Whether somebody had told it, through the runner, to end by the signal that it died of.
    pub asked: bool,
    /// How long it was.
    #[serde(rename = "ran_seconds", serialize_with = "seconds")]
    pub ran: Duration,
    /// The program's own time at its end; none where that can't be known.
    #[serde(skip)]
    pub(crate) place: Option<Duration>,
}

fn seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

/// A checkpoint that the program may go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) id: String,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The program is done, or was told to end.
    Done,
    /// It goes on from this checkpoint.
    Restore(String),
    /// There is no checkpoint: the command is started once more.
    Start,
    GiveUp(Reason),
}

/// Why a program isn't brought back any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// It was brought back as often in a row as it may be.
    Restarts,
    /// It crashes at the same place, whichever checkpoint it comes from.
    SamePlace,
    /// None of its checkpoints can be restored.
    NoneRestorable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Restarts => "it was brought back as often in a row as it may be",
            Reason::SamePlace => "it crashes at the same place, whichever checkpoint it comes from",
            Reason::NoneRestorable => "none of its checkpoints can be restored",
        })
    }
}

impl Life {
    pub(super) fn is_restore_that_failed(&self) -> bool {
        matches!(self.end, End::NotRestored { .. })
    }

    /// What a crash has to have in common with another to be the same.
    fn failure(&self) -> Option<(End, Duration)> {
        let is_own = match self.end {
            End::Signaled(signal) => signal::is_own_failure(signal),
            End::Exited(status) => status != 0,
            _ => false,
        };
        self.place.filter(|_| is_own).map(|place| (self.end, place))
    }

    /// Whether both failed in the same way at the same place. Two runs over one piece of work take different times
    /// on a busy machine.
    fn failed_like(&self, other: &Life) -> bool {
        let (Some((one, here)), Some((two, there))) = (self.failure(), other.failure()) else { return false };
        let tolerance = Duration::from_secs(5) + self.ran.max(other.ran) / 4;
        one == two && here.abs_diff(there) <= tolerance
    }
}

impl Policy {
    /// Whether the program has ended as it wanted to, or was told to.
    pub(crate) fn is_done(&self, life: &Life) -> bool {
        match life.end {
            End::Exited(status) => status == 0 || !self.on_failure,
            End::Signaled(_) => life.asked,
            End::Unknown | End::NotRestored { .. } => false,
        }
    }

    /// What comes after these lives, of which there is one at least; the checkpoints are those that there are now,
    /// the newest first.
    pub(crate) fn decide(&self, lives: &[Life], checkpoints: &[Candidate]) -> Decision {
        let Some(last) = lives.last() else { return Decision::Start };
        if self.is_done(last) {
            return Decision::Done;
        }
        if self.restarts.is_some_and(|most| row(lives) > most as usize) {
            return Decision::GiveUp(Reason::Restarts);
        }
        if checkpoints.is_empty() && !lives.iter().any(Life::is_restore_that_failed) {
            return Decision::Start;
        }
        let (first, reason) = self.older_than(lives, checkpoints);
        let left = checkpoints.iter().skip(first).find(|candidate| !is_spoiled(lives, &candidate.id));
        match left {
            _ if restores_in_vain(lives) >= TRIES_OF_A_RESTORE => Decision::GiveUp(Reason::NoneRestorable),
            Some(candidate) => Decision::Restore(candidate.id.clone()),
            None => Decision::GiveUp(reason),
        }
    }

    /// How many of the newest checkpoints are to be passed over, and what it means if none is left. The way goes to
    /// older ones only: those that were made on the way to the same crash are no better.
    fn older_than(&self, lives: &[Life], checkpoints: &[Candidate]) -> (usize, Reason) {
        let same = same_crashes(lives);
        if same.len() <= TRIES_OF_THE_NEWEST {
            return (0, Reason::NoneRestorable);
        }
        let tried = |candidate: &Candidate| {
            same.iter().any(|life| life.start == Start::Checkpoint(candidate.id.clone()))
        };
        let passed = checkpoints.iter().rposition(tried).map_or(0, |oldest| oldest + 1);
        (passed, Reason::SamePlace)
    }
}

/// How many lives there were since the last that had settled, that one included: each but the last was followed by
/// another. A restore that failed was no life.
pub(crate) fn row(lives: &[Life]) -> usize {
    let lives = lives.iter().rev().filter(|life| !life.is_restore_that_failed());
    let mut count = 0;
    for life in lives {
        count += 1;
        if life.ran >= SETTLED {
            break;
        }
    }
    count
}

/// The crashes at the end of the row that are like the last one.
fn same_crashes(lives: &[Life]) -> Vec<&Life> {
    let mut lives = lives.iter().rev().filter(|life| !life.is_restore_that_failed());
    let Some(last) = lives.next() else { return Vec::new() };
    std::iter::once(last).chain(lives.take_while(|life| life.failed_like(last))).collect()
}

/// Whether a restore of this checkpoint failed for a reason of its own.
fn is_spoiled(lives: &[Life], checkpoint: &str) -> bool {
    lives.iter().any(|life| {
        life.end == End::NotRestored { lasting: true }
            && matches!(&life.start, Start::Checkpoint(id) if id == checkpoint)
    })
}

/// How often in a row the last restore has failed by what passes: others had stood in its way, or it was killed.
fn restores_in_vain(lives: &[Life]) -> usize {
    lives.iter().rev().take_while(|life| life.end == End::NotRestored { lasting: false }).count()
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
