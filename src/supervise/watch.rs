//! One life of the program, from outside: its end is waited for, signals are passed on, checkpoints are told of.

use std::time::{Duration, Instant};

use super::event::{Event, Look};
use super::leave::Leaving;
use super::lineage::Beginning;
use super::order::{OnTerm, Order};
use super::policy::{End, Start};
use crate::error::{Error, Result};
use crate::restore::{Keeper, PassingOn};
use crate::store::status::{self, Attempt, Status};
use crate::sys::pidfd::Stranger;
use crate::sys::process::{self, Ended};
use crate::sys::signal::{self, Taken};

/// How long a look at a child may be off: its end comes with a signal, so only checkpoints are noticed that late.
const LOOK: Duration = Duration::from_millis(500);

/// The same where no signal tells of an end, or where somebody waits.
const CLOSE_LOOK: Duration = Duration::from_millis(50);

/// When a program has had the time to install selfdump.
const TIME_TO_INSTALL: Duration = Duration::from_secs(5);

/// How long the parent of a program that was taken over may take to reap it.
const REAPING: Duration = Duration::from_secs(10);

/// How long after the program a signal may come to us that went to all of its group.
const SAME_MOMENT: Duration = Duration::from_millis(100);

/// Who is told.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&Event);

/// A program that runs.
pub(super) struct Running {
    pub(super) pid: i32,
    pub(super) start: Start,
    pub(super) began: Instant,
    pub(super) beginning: Beginning,
    /// Where the program's own time is known. Whoever took it over doesn't know it.
    pub(super) has_place: bool,
    /// How many lives there were before.
    pub(super) restarts: usize,
    /// Held where we are not its parent.
    pub(super) stranger: Option<Stranger>,
    /// Who has brought it back, where that isn't us.
    pub(super) keeper: Option<Keeper>,
    /// What goes through a terminal that was made for it.
    pub(super) relay: Option<PassingOn>,
    /// What it says of itself, as far as we know.
    pub(super) status: Option<Status>,
    pub(super) told: Vec<i32>,
    pub(super) leaving: Option<Leaving>,
    /// Whether it has been said that it makes no checkpoints.
    pub(super) was_said: bool,
}

/// How a life came to its end.
pub(super) struct Over {
    pub(super) end: End,
    /// Whether somebody had told it to end by the signal that it died of.
    pub(super) asked: bool,
    /// The checkpoint that it left with.
    pub(super) left: Option<String>,
    /// Whether it was ended by us because it didn't leave.
    pub(super) killed: bool,
}

impl Running {
    pub(super) fn new(pid: i32, start: Start, beginning: Beginning, restarts: usize) -> Running {
        Running {
            pid,
            has_place: start != Start::TakenOver,
            start,
            began: Instant::now(),
            beginning,
            restarts,
            stranger: None,
            keeper: None,
            relay: None,
            status: None,
            told: Vec::new(),
            leaving: None,
            was_said: false,
        }
    }

    /// Waits for its end.
    pub(super) fn watch(&mut self, order: &Order, tell: Tell<'_>) -> Result<Over> {
        let failed = |source| Error::os("wait for the program", source);
        loop {
            if let Some(end) = self.look_for_the_end().map_err(failed)? {
                self.take_what_came_with_the_end(end).map_err(failed)?;
                if let Some(relay) = self.relay.take() {
                    relay.finish();
                }
                self.look(order, tell);
                return Ok(self.over(order, end));
            }
            if let Some(relay) = &mut self.relay {
                relay.take_input().map_err(failed)?;
            }
            let patience = if self.is_our_child() && self.leaving.is_none() { LOOK } else { CLOSE_LOOK };
            if let Some(taken) = signal::take(&held(), patience).map_err(failed)? {
                self.act(taken, order, tell);
            }
            self.look(order, tell);
            self.see_that_it_leaves(order, tell);
        }
    }

    /// Then a signal tells of its end.
    fn is_our_child(&self) -> bool {
        self.stranger.is_none() && self.keeper.is_none()
    }

    fn look_for_the_end(&self) -> std::io::Result<Option<End>> {
        let of = |ended| match ended {
            Ended::Exited(status) => End::Exited(status),
            Ended::Signaled(signal) => End::Signaled(signal),
            Ended::Unknown => End::Unknown,
        };
        if let Some(keeper) = &self.keeper {
            while process::reap()?.is_some() {}
            // Where the service is gone, so is the program.
            return Ok(keeper.end().map_or(Some(End::Unknown), |ended| ended.map(of)));
        }
        let Some(stranger) = &self.stranger else {
            // Whatever else has become our child, as an orphan, is reaped on the way.
            while let Some((pid, ended)) = process::reap()? {
                if pid == self.pid {
                    return Ok(Some(of(ended)));
                }
            }
            return Ok(None);
        };
        while process::reap()?.is_some() {}
        if !stranger.has_ended() {
            return Ok(None);
        }
        let since = Instant::now();
        while stranger.end().is_none() && since.elapsed() < REAPING {
            std::thread::sleep(CLOSE_LOOK);
        }
        Ok(Some(stranger.end().map_or(End::Unknown, of)))
    }

    /// A signal that went to a whole group may have ended the program before we have taken ours.
    fn take_what_came_with_the_end(&mut self, end: End) -> std::io::Result<()> {
        let End::Signaled(ended_by) = end else { return Ok(()) };
        let wait = if signal::FOR_THE_PROGRAM.contains(&ended_by) { SAME_MOMENT } else { Duration::ZERO };
        while !self.told.contains(&ended_by) {
            match signal::take(&held(), wait)? {
                Some(taken) => self.told.push(taken.signal),
                None => break,
            }
        }
        Ok(())
    }

    fn over(&mut self, order: &Order, end: End) -> Over {
        let left = self.left_with(order, end);
        let asked = matches!(end, End::Signaled(signal) if self.told.contains(&signal));
        let killed = end == End::Signaled(signal::KILL) && self.told.contains(&signal::KILL);
        Over { end, asked, left, killed }
    }

    /// The last attempt of this life: the store tells of it when the process has ended, the process where it can't
    /// write to the store.
    pub(super) fn last_attempt(&self) -> Option<Attempt> {
        let status = self.status.as_ref()?;
        let in_store = status::in_folder(&status.folder).and_then(|status| status.last);
        let last = in_store.into_iter().chain(status.last.clone()).max_by_key(|last| last.finished);
        last.filter(|last| last.finished >= self.beginning.wall)
    }

    fn act(&mut self, taken: Taken, order: &Order, tell: Tell<'_>) {
        match taken.signal {
            signal::CHILD => {}
            signal::TERM if order.on_term == OnTerm::Checkpoint => self.ask_to_leave(order, tell),
            signal::WINDOW if self.relay.is_some() => self.relay.iter().for_each(PassingOn::resize),
            signal::TERMINAL_STOP => {
                self.pass_on(taken);
                // So that the shell gets its terminal back; it is SIGCONT that has both go on.
                let _ = signal::stop_ourselves();
            }
            _ => self.pass_on(taken),
        }
    }

    /// A key pressed at the terminal goes to its whole foreground group, which the program may be in.
    fn pass_on(&mut self, taken: Taken) {
        let same_group = || process::group_of(self.pid) == process::group_of(process::id());
        match taken.signal {
            _ if taken.from_kernel && same_group() => {}
            signal::TERM => self.send_to_end(signal::TERM),
            other => self.send(other),
        }
        self.told.push(taken.signal);
    }

    /// It may have ended just now; the next look tells.
    pub(super) fn send(&mut self, signal: i32) {
        let is_there = self.stranger.as_ref().is_none_or(|stranger| !stranger.has_ended());
        if is_there {
            let _ = signal::send(self.pid, signal);
        }
        self.told.push(signal);
    }

    /// What is stopped acts on it as well, as with systemd (systemd.kill(5)): by Ctrl-Z, or by who was about to end it and
    /// was killed.
    pub(super) fn send_to_end(&mut self, signal: i32) {
        self.send(signal);
        self.send(signal::CONTINUE);
    }

    pub(super) fn read_status(&mut self) {
        // A process that is restored in place has its own word in the place of the one before.
        if let Some(status) = Status::of(self.pid) {
            self.status = Some(status);
        }
    }

    fn look(&mut self, order: &Order, tell: Tell<'_>) {
        let before = self.status.take();
        self.status.clone_from(&before);
        self.read_status();
        if let (None, Some(status)) = (&before, &self.status) {
            if !status.folder.starts_with(order.folder()) {
                tell(&Event::Elsewhere { folder: status.folder.clone() });
            }
        }
        if let Some(attempt) = self.last_attempt().filter(|last| !is_known(before.as_ref(), last)) {
            self.tell_of(&attempt, tell);
            if let Some(status) = &mut self.status {
                status.last = Some(attempt);
            }
        }
        if self.status.is_none() && !self.was_said && self.began.elapsed() >= TIME_TO_INSTALL {
            self.was_said = true;
            tell(&Event::NotCheckpointed { pid: self.pid });
        }
        let saved = self.status.as_ref().and_then(|status| status.last.as_ref()).filter(|last| last.saved);
        tell(&Event::Looked(Look {
            pid: self.pid,
            since: self.began,
            restarts: self.restarts,
            saved: saved.map(|last| last.finished),
        }));
    }

    fn tell_of(&self, attempt: &Attempt, tell: Tell<'_>) {
        let pid = self.pid;
        let Attempt { size_bytes, frozen_us, .. } = *attempt;
        match (&attempt.checkpoint, &attempt.error) {
            (Some(checkpoint), _) => {
                tell(&Event::Saved { pid, checkpoint: checkpoint.clone(), size_bytes, frozen_us });
            }
            (None, Some(error)) => tell(&Event::NotSaved { pid, error: error.clone() }),
            (None, None) => {}
        }
    }
}

/// Whether an attempt was told of before.
fn is_known(before: Option<&Status>, attempt: &Attempt) -> bool {
    before.and_then(|status| status.last.as_ref()).is_some_and(|last| last.finished >= attempt.finished)
}

/// The signals that a runner holds back to act upon them. What is ignored here (`nohup`, a background job) stays so:
/// it is not for the program either.
pub(super) fn held() -> Vec<i32> {
    let both = signal::FOR_THE_PROGRAM.into_iter().chain(signal::FOR_A_JOB);
    both.filter(|&signal| !signal::is_ignored(signal)).chain([signal::CHILD]).collect()
}
