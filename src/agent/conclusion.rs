//! What comes after an attempt: everybody is told, a new life begins, the program ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::mailbox::Caller;
use super::{Agent, GENERATION, seed};
use crate::config::Exit;
use crate::prometheus;
use crate::report::{Outcome, Report, Restored};
use crate::sys::signal::Signal;
use crate::sys::{disk, handler, process};

impl Agent {
    /// Tells everybody what came of it.
    pub(super) fn conclude(&mut self, report: &Report, callers: Vec<Caller>) {
        match &report.outcome {
            Ok(Outcome::Restored(restored)) => {
                self.begin_life(restored);
                say(report);
                self.shared.hooks.on_restore(restored);
                self.timetable.restart(Instant::now(), seed());
            }
            _ => {
                self.record(report);
                say(report);
                self.shared.hooks.after(report);
                self.timetable.ended(Instant::now(), pause(report));
            }
        }
        for caller in callers {
            // A caller that is gone has no use for it.
            let _ = caller.send(report.outcome.clone());
        }
    }

    pub(super) fn record(&mut self, report: &Report) {
        self.status.record(report, self.subject.settings.told(&report.cause));
        self.status.write();
        self.publish();
    }

    /// Gives out the figures: to the program, and to whoever collects them. That they can't be written is only logged.
    pub(super) fn publish(&self) {
        self.shared.set_metrics(&self.status.metrics);
        let Some(path) = &self.subject.settings.metrics_textfile else { return };
        let text = prometheus::text(std::slice::from_ref(&self.status));
        if let Err(error) = disk::publish(path, text.as_bytes(), &self.subject.life.id) {
            log::warn!("can't write the metrics to {}: {error}", path.display());
        }
    }

    /// In the process that came back.
    pub(super) fn begin_life(&mut self, restored: &Restored) {
        GENERATION.store(self.subject.life.generation, Ordering::Relaxed);
        // Checkpoints that were asked for during the dump may as well have been asked for since the restore, and
        // would be lost; but an exit was meant for the life before this one.
        let woken = self.shared.wake.clear();
        self.pending.add(woken);
        self.pending.exit = false;
        self.status.come_back(&self.subject.life, Some(&restored.id));
        self.publish();
    }

    /// Ends the program as it was configured to, or as it would have ended without us.
    pub(super) fn exit(&self, report: &Report, signal: Signal) {
        match &report.outcome {
            Ok(Outcome::Saved(checkpoint)) => match &self.subject.settings.exit {
                Exit::Status(status) => {
                    // They are in the checkpoint, and have to be gone for it to come back.
                    process::kill_descendants(&checkpoint.processes);
                    process::exit_at_once(*status)
                }
                Exit::Call(call) => {
                    if catch_unwind(AssertUnwindSafe(|| call(checkpoint))).is_err() {
                        exit_as_before(signal);
                    }
                }
            },
            Ok(Outcome::Restored(_)) => {}
            Err(_) => exit_as_before(signal),
        }
    }
}

/// What the exit signal did without us happens, and from here on.
fn exit_as_before(signal: Signal) {
    if let Err(error) = handler::let_happen(signal) {
        log::error!("can't send {signal} on: {error}");
    }
}

/// How long the program stood still for a checkpoint.
fn pause(report: &Report) -> Option<Duration> {
    match &report.outcome {
        Ok(Outcome::Saved(checkpoint)) => Some(checkpoint.stats.frozen),
        _ => None,
    }
}

/// Logs what came of it. A logger of the program that panics is not to keep anybody from being told.
pub(super) fn say(report: &Report) {
    let logged = catch_unwind(AssertUnwindSafe(|| match &report.outcome {
        Ok(Outcome::Saved(checkpoint)) => log::info!(
            "saved {} ({}): {}, stood still for {:.1} ms",
            checkpoint.id,
            report.cause,
            checkpoint.size,
            checkpoint.stats.frozen.as_secs_f64() * 1e3
        ),
        Ok(Outcome::Restored(restored)) => {
            log::info!("restored from {} as generation {}", restored.id, restored.generation);
        }
        Err(error) => log::error!("no checkpoint ({}): {}: {error:?}", report.cause, error.kind().name()),
    }));
    // The panic has said so itself.
    drop(logged);
}
