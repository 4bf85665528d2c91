//! When the next checkpoint is due, as a pure function of the time that is passed in.
//!
//! The agent sleeps until [`next_look`](Timetable::next_look), says by [`look`](Timetable::look) what time it
//! is then, asks, perhaps makes a checkpoint, and says by [`ended`](Timetable::ended) what that cost.
//!
//! Everything is counted from one moment: the end of the last attempt. The clock may betray that count: a
//! program that was stopped, or whose virtual machine was, finds that hours have passed in which it did
//! nothing, and one that was brought back by somebody else stands before the clock of another machine. So the
//! agent never sleeps for long, and where the time that it wakes at can't be right, the next deadline is counted
//! afresh from then: less what the program had run by the last look, or one that is stopped again and again would
//! never come to a checkpoint.

use std::time::{Duration, Instant};

use crate::config::{Schedule, Timing};

/// How far off the next look may be. A clock that jumped is noticed that much later at the most.
const LOOK: Duration = Duration::from_secs(60);

/// How late a wake-up may come and still be put down to a busy machine.
const TOLERANCE: Duration = Duration::from_secs(60);

/// The least interval where it follows from a measurement, which may be next to nothing.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a checkpoint is taken to hold up the program before one was measured, in seconds. A round guess
/// will do, since it stands for the first interval only.
const ASSUMED_PAUSE: f64 = 1.0;

/// The weight of the newest pause in their mean: a single odd one doesn't turn it, and what was measured eight
/// checkpoints ago counts for a tenth.
const WEIGHT: f64 = 0.25;

/// A schedule at work.
#[derive(Debug)]
pub(crate) struct Timetable {
    timing: Timing,
    random: SplitMix,
    /// None before the first one was measured.
    pauses: Option<Pauses>,
    /// The end of the last attempt, or the start; moved along where the clock is found to be wrong.
    counted_from: Instant,
    /// From there to the next scheduled checkpoint; none where there is no schedule.
    interval: Option<Duration>,
    /// From there to when a checkpoint may begin again: nothing as long as there was none.
    hold: Duration,
    looked: Instant,
}

impl Timetable {
    pub(crate) fn new(timing: Timing, now: Instant, seed: u64) -> Timetable {
        let mut timetable = Timetable {
            timing,
            random: SplitMix(seed),
            pauses: None,
            counted_from: now,
            interval: None,
            hold: Duration::ZERO,
            looked: now,
        };
        let interval = timetable.next_interval();
        timetable.interval = interval.map(|interval| timing.first_after.unwrap_or(interval));
        timetable
    }

    /// Begins anew in a process that came back from a checkpoint, as if that had ended just now: the clock may
    /// stand anywhere. What was learned of the pauses stays. The seed has to be a new one, or all that come
    /// back from one checkpoint would go on in step.
    pub(crate) fn restart(&mut self, now: Instant, seed: u64) {
        self.random = SplitMix(seed);
        self.count_from(now);
    }

    /// When the agent has to look again at the latest; `waiting` says that a signal is held back.
    pub(crate) fn next_look(&self, waiting: bool) -> Instant {
        let free = self.free().filter(|_| waiting);
        self.due().into_iter().chain(free).fold(self.looked + LOOK, Instant::min)
    }

    /// Takes note of the time: to be called at every wake-up, before anything is asked.
    ///
    /// A clock that went back would put off what is due by as much. After a sleep that lasted far longer than
    /// was asked for, everything would be due at once, in all the programs that were stopped together. Either
    /// way what was left at the last look is counted afresh from now.
    pub(crate) fn look(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.next_look(false));
        if now < self.looked || late > TOLERANCE {
            let run = self.looked.saturating_duration_since(self.counted_from);
            self.counted_from = now.checked_sub(run).unwrap_or(now);
        }
        self.looked = now;
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Whether a checkpoint that a signal asks for may begin.
    pub(crate) fn may_begin(&self, now: Instant) -> bool {
        self.free().is_some_and(|free| free <= now)
    }

    /// An attempt has ended, whatever asked for it; the program stood frozen for `pause`, which nobody knows
    /// where it failed. What was missed meanwhile is not made up for.
    pub(crate) fn ended(&mut self, now: Instant, pause: Option<Duration>) {
        if let Some(pause) = pause {
            self.pauses = Some(Pauses::learn(self.pauses, pause.as_secs_f64()));
        }
        self.count_from(now);
    }

    fn count_from(&mut self, now: Instant) {
        self.interval = self.next_interval();
        self.hold = self.timing.min_interval;
        self.counted_from = now;
        self.looked = now;
    }

    /// When the schedule's next checkpoint is due. What lies beyond all that the clock can hold never comes.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.counted_from.checked_add(self.interval?)
    }

    fn free(&self) -> Option<Instant> {
        self.counted_from.checked_add(self.hold)
    }

    fn next_interval(&mut self) -> Option<Duration> {
        let pauses = self.pauses.unwrap_or(Pauses { last: ASSUMED_PAUSE, mean: ASSUMED_PAUSE });
        let interval = match self.timing.schedule {
            Schedule::OnDemand => return None,
            Schedule::Every { period, jitter } => {
                period.saturating_add(jitter.mul_f64(self.random.below_one()))
            }
            Schedule::Overhead { fraction } => measured(affordable(pauses.last, fraction)),
            Schedule::Mtbf { mtbf } => measured(optimum(pauses.mean, mtbf.as_secs_f64())),
        };
        Some(interval.max(self.timing.min_interval))
    }
}

/// An interval that follows from a measurement.
fn measured(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).max(LEAST_INTERVAL)
}

/// How long the program has to run for a pause to have been no more than this fraction of the time; all in
/// seconds.
///
/// Each pause pays for itself alone. Of two that a caller had follow closely, the first one's debt is
/// forgiven: added up, such debts could silence the schedule for days.
fn affordable(pause: f64, fraction: f64) -> f64 {
    pause * (1.0 - fraction) / fraction
}

/// The interval between the end of one checkpoint and the beginning of the next at which the least time is
/// lost, to checkpoints and to failures together. `cost` is how long a checkpoint holds up the program, `mtbf`
/// is the mean time between failures; all in seconds.
///
/// This is equation 37 of J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart
/// dumps", Future Generation Computer Systems 22 (2006) 303-312. It refines √(2 · cost · mtbf) of J. W. Young,
/// "A first order approximation to the optimum checkpoint interval", Communications of the ACM 17 (1974)
/// 530-531, which only holds while a checkpoint costs far less than the time between failures.
fn optimum(cost: f64, mtbf: f64) -> f64 {
    if cost >= 2.0 * mtbf {
        return mtbf;
    }
    let ratio = cost / (2.0 * mtbf);
    (2.0 * cost * mtbf).sqrt() * (1.0 + ratio.sqrt() / 3.0 + ratio / 9.0) - cost
}

/// How long the program stood frozen, in seconds.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    last: f64,
    /// Older ones count for less and less, since what a program holds in memory changes.
    mean: f64,
}

impl Pauses {
    fn learn(known: Option<Pauses>, pause: f64) -> Pauses {
        let mean = known.map_or(pause, |known| known.mean + WEIGHT * (pause - known.mean));
        Pauses { last: pause, mean }
    }
}

/// Random numbers that are good enough to keep programs out of step, without a dependency.
///
/// This is SplitMix64: G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014, with the constants of S. Vigna's splitmix64.c, which is in the public domain.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0 and less than 1; 53 bits are what an f64 holds exactly.
    fn below_one(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
