//! The time between a crash and the return.

use std::time::{Duration, Instant};

use super::backoff;
use super::event::{Event, seconds};
use super::order::OnTerm;
use super::policy::{self, End};
use super::revive;
use super::watch::held;
use super::{Conclusion, Runner};
use crate::error::{Error, Result};
use crate::store::catalogue::Entry;
use crate::sys::signal;

impl Runner<'_> {
    /// Waits before the program is brought back. A signal to end ends the wait.
    pub(super) fn wait(&mut self) -> Result<Option<i32>> {
        if matches!(self.last_end(), End::NotRestored { lasting: true }) {
            return Ok(None);
        }
        let row = policy::row(&self.lives).max(1);
        let wait = backoff::after(row, self.order.backoff, revive::chance());
        (self.tell)(&Event::Waiting { seconds: seconds(wait), crashes_in_a_row: row });
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let taken = signal::take(&held(), left).map_err(|source| Error::os("wait", source))?;
            match taken.map(|taken| taken.signal) {
                Some(told) if signal::TO_END.contains(&told) => return Ok(Some(told)),
                Some(signal::TERMINAL_STOP) => drop(signal::stop_ourselves()),
                _ if left == Duration::ZERO => return Ok(None),
                _ => {}
            }
        }
    }

    /// There is no program that the signal could be passed on to; there may be a checkpoint to go on from.
    pub(super) fn told_to_end(&mut self, told: i32) -> Result<Conclusion> {
        let newest = self.checkpoints()?.first().map(Entry::id);
        Ok(match newest {
            Some(checkpoint) if told == signal::TERM && self.order.on_term == OnTerm::Checkpoint => {
                self.leave(checkpoint)
            }
            _ => Conclusion::Ended(End::Signaled(told)),
        })
    }
}
