//! Bringing the program back, and clearing the way for that.

use std::time::{Duration, Instant, SystemTime};

use super::event::Event;
use super::policy::{End, Life, Start};
use super::watch::Running;
use super::{Begun, Runner};
use crate::error::{Error, ErrorKind, Result};
use crate::restore::{self, Relay};
use crate::store::catalogue::Entry;
use crate::store::status::Failure;
use crate::sys::{process, procfs, signal};

/// How long what a crash has left may take to end.
const ENDING: Duration = Duration::from_secs(10);

impl Runner<'_> {
    /// Brings the program back, if this checkpoint lets it.
    pub(super) fn restore(&mut self, entry: &Entry) -> Result<Begun> {
        let beginning = self.lineage.come_back(entry, SystemTime::now());
        let start = Start::Checkpoint(entry.id());
        let has_ended = entry.manifest.as_ref().is_ok_and(|manifest| self.place.is_over(manifest));
        let options = restore::Options { has_ended, ..self.options.clone() };
        match restore::restore(entry, &options) {
            Ok(revived) => {
                (self.tell)(&Event::Restored {
                    pid: revived.pid,
                    checkpoint: entry.id(),
                    files: revived.files,
                    cut: revived.cut,
                });
                let mut running = Running::new(revived.pid, start, beginning, self.restarts());
                running.keeper = revived.keeper;
                let relay = revived.relay.map(Relay::start).transpose();
                running.relay =
                    relay.map_err(|source| Error::os("pass on what goes through a terminal", source))?;
                Ok(Begun::Running(Box::new(running)))
            }
            Err(error) => {
                (self.tell)(&Event::NotRestored { checkpoint: entry.id(), error: Failure::from(&error) });
                let failed_before = self
                    .lives
                    .last()
                    .is_some_and(|life| life.is_restore_that_failed() && life.start == start);
                let lasting = is_the_checkpoints_own(error, failed_before)?;
                let end = End::NotRestored { lasting };
                self.lives.push(Life { start, end, asked: false, ran: Duration::ZERO, place: None });
                Ok(Begun::NotRestored)
            }
        }
    }
}

/// Whether a restore failed because of the checkpoint, so that an older one may do better, or because of something
/// that passes. What would keep every checkpoint from coming back is returned.
///
/// Whoever kills CRIU or what it has brought back half-way makes the restore of a good checkpoint fail, and an older one
/// would lose what was done since: so where that may be, only the second failure in a row counts.
fn is_the_checkpoints_own(error: Error, failed_before: bool) -> Result<bool> {
    match error.kind() {
        // A disk that is full may have room again after a wait.
        ErrorKind::PidTaken | ErrorKind::NoSpace => Ok(false),
        ErrorKind::NoCriu if !failed_before => Ok(false),
        ErrorKind::Restore | ErrorKind::ServiceDied => Ok(failed_before),
        ErrorKind::Damaged
        | ErrorKind::FileChanged
        | ErrorKind::NotFound
        | ErrorKind::Deadline
        | ErrorKind::Protocol
        | ErrorKind::Refused
        | ErrorKind::Io => Ok(true),
        _ => Err(error),
    }
}

/// Ends the processes that a crash has left of the program: they have become our children, they have the ids that
/// it needs, and they come back with it.
pub(super) fn end_children() {
    let ours = process::id();
    let since = Instant::now();
    loop {
        while matches!(process::reap(), Ok(Some(_))) {}
        let left: Vec<i32> = procfs::tree(ours).into_iter().skip(1).collect();
        if left.is_empty() || since.elapsed() > ENDING {
            return;
        }
        for pid in left {
            let _ = signal::kill(pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A random number that is at least 0 and less than 1.
pub(super) fn chance() -> f64 {
    let random = procfs::fresh_id().ok().and_then(|id| u32::from_str_radix(id.get(..8)?, 16).ok());
    f64::from(random.unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}
