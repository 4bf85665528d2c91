//! The program's own time: where in it each checkpoint and each life stands.
//!
//! It is the wall clock's time of a run that was never interrupted. A life that begins with a checkpoint begins at the
//! time of that, however long ago it was. What is only known from the store, made before this runner came, stands at
//! the time at which it was made: such checkpoints are in step with each other, which is all that counts.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::store::catalogue::Entry;

/// Where the checkpoints of this run stand, by id.
#[derive(Debug, Default)]
pub(super) struct Lineage(HashMap<String, Duration>);

/// The beginning of a life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) wall: SystemTime,
    place: Duration,
}

impl Beginning {
    /// Where a life stands that began here, after so much time.
    pub(super) fn after(&self, ran: Duration) -> Duration {
        self.place + ran
    }
}

impl Lineage {
    /// A start of the command.
    pub(super) fn start(now: SystemTime) -> Beginning {
        Beginning { wall: now, place: since_1970(now) }
    }

    /// A return from a checkpoint.
    pub(super) fn come_back(&self, checkpoint: &Entry, now: SystemTime) -> Beginning {
        let known = self.0.get(&checkpoint.id()).copied();
        let made = checkpoint.taken().map(since_1970);
        Beginning { wall: now, place: known.or(made).unwrap_or_else(|| since_1970(now)) }
    }

    /// Takes in the checkpoints that there are at the end of a life.
    pub(super) fn note(&mut self, beginning: &Beginning, checkpoints: &[Entry]) {
        for checkpoint in checkpoints {
            let Some(taken) = checkpoint.taken() else { continue };
            let place = match taken.duration_since(beginning.wall) {
                Ok(since) => beginning.after(since),
                Err(_) => since_1970(taken),
            };
            self.0.entry(checkpoint.id()).or_insert(place);
        }
    }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
