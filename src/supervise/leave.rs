//! Asking the program to leave with a checkpoint, and seeing that it does.

use std::time::{Duration, Instant, SystemTime};

use super::event::{Event, seconds};
use super::order::Order;
use super::policy::{End, Start};
use super::watch::{Running, Tell};
use crate::report::Cause;
use crate::sys::signal::{self, Signal};

/// How long a program that has come back may take to say so.
const TIME_TO_COME_BACK: Duration = Duration::from_secs(10);

/// The program is to leave.
pub(super) struct Leaving {
    /// None where it has all the time that there is.
    deadline: Option<Instant>,
    asked: Asked,
}

/// What it was asked for.
#[derive(Clone, Copy)]
enum Asked {
    Nothing,
    /// To end, with a checkpoint or, if it makes none, without.
    ToLeave,
    /// For a checkpoint, since then; it is ended by us.
    ForACheckpoint(SystemTime),
}

/// How it can be asked.
struct Way {
    signal: i32,
    asked: Asked,
    with_checkpoint: bool,
}

impl Running {
    /// The checkpoint that the program left with: its last attempt, if the signal to leave had asked for that.
    pub(super) fn left_with(&self, order: &Order, end: End) -> Option<String> {
        let last = self.last_attempt()?;
        let Cause::Signal { signal } = last.cause else { return None };
        let left = match &self.leaving {
            // We have ended it when it had made what we had asked for.
            Some(Leaving { asked: Asked::ForACheckpoint(asked), .. }) => last.started >= *asked,
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
        if self.leaving.is_none() {
            let deadline = Instant::now().checked_add(order.grace);
            self.leaving = Some(Leaving { deadline, asked: Asked::Nothing });
            self.ask(order, tell);
        }
    }

    /// A program that is just coming back takes a signal to leave for one that was meant for the life before, until it
    /// has said that it is there.
    fn ask(&mut self, order: &Order, tell: Tell<'_>) {
        self.read_status();
        let is_coming_back = matches!(self.start, Start::Checkpoint(_)) && self.status.is_none();
        if is_coming_back && self.began.elapsed() < TIME_TO_COME_BACK {
            return;
        }
        let Way { signal, asked, with_checkpoint } = self.way_to_leave();
        if let Some(leaving) = &mut self.leaving {
            leaving.asked = asked;
        }
        tell(&Event::AskedToLeave {
            pid: self.pid,
            with_checkpoint,
            signal: signal::name(signal),
            grace_seconds: seconds(order.grace),
        });
        self.send_to_end(signal);
    }

    /// The signal that asks it to leave; or the one that asks for a checkpoint, after which we end it ourselves, where
    /// it knows no such signal. SIGTERM itself is left where it makes no checkpoints at all.
    fn way_to_leave(&self) -> Way {
        let by_term = Way { signal: signal::TERM, asked: Asked::ToLeave, with_checkpoint: false };
        let Some(status) = &self.status else { return by_term };
        let armed = |name: Option<&str>| {
            number(name.filter(|name| status.overwritten_signals.iter().all(|lost| lost != name)))
        };
        match (armed(status.exit_signal.as_deref()), armed(Some(&status.signal))) {
            (Some(exit), _) => Way { signal: exit, asked: Asked::ToLeave, with_checkpoint: true },
            (None, Some(checkpoint)) => Way {
                signal: checkpoint,
                asked: Asked::ForACheckpoint(SystemTime::now()),
                with_checkpoint: true,
            },
            (None, None) => by_term,
        }
    }

    pub(super) fn see_that_it_leaves(&mut self, order: &Order, tell: Tell<'_>) {
        let Some(&Leaving { deadline, asked }) = self.leaving.as_ref() else { return };
        match asked {
            Asked::Nothing => self.ask(order, tell),
            Asked::ToLeave => {}
            Asked::ForACheckpoint(asked) => self.see_to_the_checkpoint(deadline, asked),
        }
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if is_over && !self.told.contains(&signal::KILL) {
            tell(&Event::Killed { pid: self.pid });
            self.kill();
        }
    }

    fn see_to_the_checkpoint(&mut self, deadline: Option<Instant>, asked: SystemTime) {
        let last = self.status.as_ref().and_then(|status| status.last.as_ref());
        match last.filter(|last| last.started >= asked).map(|last| last.saved) {
            // What it goes on with is in the checkpoint; what it would write from now on, it would write twice.
            Some(true) => self.kill(),
            Some(false) => {
                self.leaving = Some(Leaving { deadline, asked: Asked::ToLeave });
                self.send_to_end(signal::TERM);
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
