//! Asking the program to leave with a checkpoint, and seeing that it does.

use std::time::{Instant, SystemTime};

use super::event::{Event, seconds};
use super::order::Order;
use super::policy::End;
use super::watch::{Running, Tell};
use crate::report::Cause;
use crate::sys::signal::{self, Signal};

/// The program was asked to leave.
pub(super) struct Leaving {
    deadline: Instant,
    /// Since when it is to make a checkpoint without ending by itself.
    asked: Option<SystemTime>,
}

/// How it can be asked.
struct Way {
    signal: i32,
    asked: Option<SystemTime>,
    with_checkpoint: bool,
}

impl Running {
    /// The checkpoint that the program left with: its last attempt, if the signal to leave had asked for that.
    pub(super) fn left_with(&self, order: &Order, end: End) -> Option<String> {
        let last = self.last_attempt()?;
        let Cause::Signal { signal } = last.cause else { return None };
        let left = match &self.leaving {
            // We have ended it when it had made what we had asked for.
            Some(Leaving { asked: Some(asked), .. }) => last.started >= *asked,
            leaving => {
                let status = self.status.as_ref()?;
                let by_exit_signal = number(status.exit_signal.as_deref()) == Some(signal);
                let is_exit = matches!(end, End::Exited(_) | End::Unknown);
                let is_said = end == End::Exited(order.left().into()) || leaving.is_some();
                by_exit_signal && is_exit && is_said
            }
        };
        last.checkpoint.filter(|_| left)
    }

    pub(super) fn ask_to_leave(&mut self, order: &Order, tell: Tell<'_>) {
        if self.leaving.is_some() {
            return;
        }
        self.read_status();
        let Way { signal, asked, with_checkpoint } = self.way_to_leave();
        self.leaving = Some(Leaving { deadline: Instant::now() + order.grace, asked });
        tell(&Event::AskedToLeave {
            pid: self.pid,
            with_checkpoint,
            signal: signal::name(signal),
            grace_seconds: seconds(order.grace),
        });
        self.send(signal);
    }

    /// The signal that asks it to leave; or the one that asks for a checkpoint, after which we end it ourselves, where
    /// it knows no such signal. SIGTERM itself is left where it makes no checkpoints at all.
    fn way_to_leave(&self) -> Way {
        let by_term = Way { signal: signal::TERM, asked: None, with_checkpoint: false };
        let Some(status) = &self.status else { return by_term };
        let armed = |name: Option<&str>| {
            number(name.filter(|name| status.overwritten_signals.iter().all(|lost| lost != name)))
        };
        match (armed(status.exit_signal.as_deref()), armed(Some(&status.signal))) {
            (Some(exit), _) => Way { signal: exit, asked: None, with_checkpoint: true },
            (None, Some(checkpoint)) => {
                Way { signal: checkpoint, asked: Some(SystemTime::now()), with_checkpoint: true }
            }
            (None, None) => by_term,
        }
    }

    pub(super) fn see_that_it_leaves(&mut self, tell: Tell<'_>) {
        let Some(leaving) = &self.leaving else { return };
        let done = leaving.asked.and_then(|asked| {
            let last = self.status.as_ref()?.last.as_ref().filter(|last| last.started >= asked)?;
            Some(last.saved)
        });
        match done {
            // What it goes on with is in the checkpoint; what it would write from now on, it would write twice.
            Some(true) => self.kill(),
            Some(false) => {
                self.leaving = Some(Leaving { deadline: leaving.deadline, asked: None });
                self.send(signal::TERM);
            }
            None if Instant::now() >= leaving.deadline && !self.told.contains(&signal::KILL) => {
                tell(&Event::Killed { pid: self.pid });
                self.kill();
            }
            None => {}
        }
    }

    fn kill(&mut self) {
        if !self.told.contains(&signal::KILL) {
            self.send(signal::KILL);
        }
    }
}

fn number(name: Option<&str>) -> Option<i32> {
    name?.parse::<Signal>().ok().map(Signal::number)
}
