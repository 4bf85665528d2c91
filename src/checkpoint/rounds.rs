//! Whether another round of memory is written ahead of the dump: a pure function of what was measured.
//!
//! A round writes what has changed since the one before it, while the program runs; the dump then writes the rest while it
//! stands still. How long that takes is taken to be a fixed time, and one for each page. What a program changes in the
//! time that a round takes is taken to be as much as before in such a time.

use std::time::Duration;

use crate::frozen::DumpStats;

/// More rounds than this are not made for a checkpoint, whatever they promise.
pub(super) const MOST: usize = 8;

/// A round that leaves more than this share of what the one before it left isn't followed by another.
const STILL_SHRINKS: f64 = 0.9;

/// Where the pages are no more than this share of a pause, writing less of them makes it no shorter.
const WORTH_WRITING: f64 = 0.1;

/// Fewer pages than these say nothing about how long one takes.
const ENOUGH_PAGES: u64 = 256;

/// What a pause is made up of, as far as it was measured in this life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Costs {
    /// What a dump of nothing takes.
    fixed: Option<Duration>,
    /// What each page takes to be collected and written, in seconds.
    page: Option<f64>,
}

impl Costs {
    /// Learns from a round, in which pages are written as in a dump, but not while the program stands still.
    pub(super) fn learn_from_round(&mut self, round: &DumpStats) {
        let pages = round.pages_written;
        if pages >= ENOUGH_PAGES {
            self.page = Some((round.memdump + round.memwrite).as_secs_f64() / pages as f64);
        }
    }

    /// Learns from a dump.
    pub(super) fn learn(&mut self, dump: &DumpStats) {
        self.learn_from_round(dump);
        self.fixed = Some(dump.pause().saturating_sub(self.of_pages(dump.pages_written)));
    }

    fn of_pages(self, pages: u64) -> Duration {
        let seconds = self.page.unwrap_or_default() * pages as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// How long a dump of so many pages takes, where no dump has told yet no less than a round that writes nothing.
    fn pause(self, pages: u64, rounds: &[Round]) -> Duration {
        let shortest = || rounds.iter().map(|round| round.stats.pause()).min().unwrap_or_default();
        self.fixed.unwrap_or_else(shortest).saturating_add(self.of_pages(pages))
    }
}

/// A round that was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) stats: DumpStats,
    /// From the beginning of the checkpoint.
    pub(super) began: Duration,
    pub(super) ended: Duration,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    /// One more round.
    Round,
    /// The dump, for which the program is expected to stand still for so long.
    Dump(Duration),
}

/// Decides. `memory` is how many pages the program has.
pub(super) fn next(limit: Duration, costs: Costs, memory: u64, rounds: &[Round]) -> Next {
    let pages = match rounds {
        [] if costs.fixed.is_some() => memory,
        // It isn't known what a dump takes, or not how much the program changes.
        [] | [_] => return Next::Round,
        [.., before, last] => expected(before, last),
    };
    let expected = costs.pause(pages, rounds);
    let is_worth_it = costs.of_pages(pages) >= expected.mul_f64(WORTH_WRITING);
    match expected <= limit || rounds.len() >= MOST || !shrinks(rounds) || !is_worth_it {
        true => Next::Dump(expected),
        false => Next::Round,
    }
}

/// How many pages the next one will have to write: as many as the last, for a part of the time. It may as well be that the
/// program writes to the same pages all the time, so that they are as many after a shorter one: it takes a round that
/// shows how they become less to promise less than half.
fn expected(before: &Round, last: &Round) -> u64 {
    let (since, until) = (last.began.saturating_sub(before.began), last.ended.saturating_sub(last.began));
    let part = until.as_secs_f64() / since.as_secs_f64().max(1e-6);
    let least = if is_less(before, last) { 0.5 } else { 1.0 };
    (last.stats.pages_written as f64 * part.clamp(least, 1.0)).ceil() as u64
}

fn shrinks(rounds: &[Round]) -> bool {
    match rounds {
        [.., before, last] => is_less(before, last),
        _ => true,
    }
}

fn is_less(before: &Round, last: &Round) -> bool {
    (last.stats.pages_written as f64) < before.stats.pages_written as f64 * STILL_SHRINKS
}

#[cfg(test)]
#[path = "rounds_simulation.rs"]
mod simulation;
