//! 10,000 schedules of all kinds, each kept by an agent on a machine whose clock can't be trusted.

use super::*;

/// A program whose agent sleeps, looks and makes checkpoints as the real one does.
///
/// What has to hold is worked out from how long the program has run, which the timetable never gets to see.
#[derive(Debug)]
struct Program {
    random: SplitMix,
    timing: Timing,
    timetable: Timetable,
    clock: Instant,
    ran: Duration,
    /// By `ran`: the end of the last attempt, or the start; later by what was lost of a sleep in which the clock
    /// jumped, and that is `LOOK` at most.
    counted_from: Duration,
    /// By `ran`: the last look.
    looked: Duration,
    /// There was an attempt.
    begun: bool,
    /// By `ran`: when a signal came that is still to be acted upon.
    signalled: Option<Duration>,
    called: bool,
    last_pause: f64,
    longest_pause: f64,
    /// How likely it is that something comes between in a sleep.
    unrest: f64,
}

/// What came of it, so that nobody takes a simulation in which nothing happens for a proof.
#[derive(Debug, Default)]
struct Tally {
    timer: u32,
    signal: u32,
    held_back: u32,
    call: u32,
    failed: u32,
    restored: u32,
    forwards: u32,
    backwards: u32,
    suspended: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    Call,
    Signal,
    Timer,
}

impl Program {
    fn new(seed: u64) -> Program {
        let mut random = SplitMix(seed);
        let timing = random_timing(&mut random);
        let clock = start();
        Program {
            timing,
            timetable: Timetable::new(timing, clock, random.next()),
            clock,
            ran: Duration::ZERO,
            counted_from: Duration::ZERO,
            looked: Duration::ZERO,
            begun: false,
            signalled: None,
            called: false,
            last_pause: ASSUMED_PAUSE,
            longest_pause: ASSUMED_PAUSE,
            unrest: random.spread(0.003, 0.3),
            random,
        }
    }

    /// One turn of the agent's loop.
    fn turn(&mut self, tally: &mut Tally) {
        self.sleep(tally);
        self.timetable.look(self.clock);
        self.looked = self.ran;
        let may_begin = self.timetable.may_begin(self.clock);
        if self.called {
            self.attempt(Cause::Call, tally);
        } else if self.signalled.is_some() && may_begin {
            self.attempt(Cause::Signal, tally);
        } else if self.timetable.is_due(self.clock) {
            self.attempt(Cause::Timer, tally);
        } else {
            self.check_rest();
        }
    }

    /// A sleep lasts as long as was asked for by the program's own time, unless something comes between.
    fn sleep(&mut self, tally: &mut Tally) {
        let left = self.timetable.next_look(self.signalled.is_some()).saturating_duration_since(self.clock);
        assert!(left <= LOOK, "a sleep of {left:?}: {self:?}");
        if !self.random.chance(self.unrest) {
            return self.run(left);
        }
        let before = left.mul_f64(self.random.below_one());
        self.run(before);
        match self.random.next() % 6 {
            0 => self.called = true,
            1 | 2 => self.signalled = self.signalled.or(Some(self.ran)),
            3 => {
                let by = self.leap();
                self.clock += by;
                self.lose_this_sleep();
                tally.suspended += 1;
            }
            _ => {
                self.jump(tally);
                self.run(left - before);
                self.lose_this_sleep();
            }
        }
    }

    /// Nobody can tell how much of a sleep the program has run in which the clock jumped, so it isn't counted.
    fn lose_this_sleep(&mut self) {
        let lost = self.ran - self.looked;
        assert!(lost <= LOOK);
        self.counted_from += lost;
    }

    fn attempt(&mut self, cause: Cause, tally: &mut Tally) {
        self.check_begin(cause);
        match cause {
            Cause::Call => tally.call += 1,
            Cause::Signal if self.signalled < Some(self.ran) => tally.held_back += 1,
            Cause::Signal => tally.signal += 1,
            Cause::Timer => tally.timer += 1,
        }
        let pause = self.random.spread(0.001, 30.0);
        let in_all = pause * (1.0 + self.random.below_one());
        self.run(seconds(in_all));
        if self.random.chance(self.unrest) {
            self.jump(tally);
        }
        match self.random.next() % 10 {
            0 => {
                self.jump(tally);
                self.timetable.restart(self.clock, self.random.next());
                tally.restored += 1;
            }
            1 => {
                self.timetable.ended(self.clock, None);
                tally.failed += 1;
            }
            _ => {
                self.timetable.ended(self.clock, Some(seconds(pause)));
                self.last_pause = pause;
                self.longest_pause = self.longest_pause.max(pause);
            }
        }
        (self.signalled, self.called, self.begun) = (None, false, true);
        (self.counted_from, self.looked) = (self.ran, self.ran);
    }

    fn run(&mut self, time: Duration) {
        self.ran += time;
        self.clock += time;
    }

    fn jump(&mut self, tally: &mut Tally) {
        let by = self.leap();
        if self.random.chance(0.5) {
            self.clock += by;
            tally.forwards += 1;
        } else {
            self.clock -= by;
            tally.backwards += 1;
        }
    }

    /// More than an agent could take for a sleep and a busy machine.
    fn leap(&mut self) -> Duration {
        LOOK + TOLERANCE + seconds(self.random.spread(0.001, 1e7))
    }

    fn check_begin(&self, cause: Cause) {
        let since = self.ran - self.counted_from;
        assert!(cause == Cause::Call || since >= self.hold(), "{cause:?} too early: {self:?}");
        if cause == Cause::Timer {
            let (least, most) = self.bounds().expect("no schedule");
            assert!(least <= since && since <= most, "not {least:?} to {most:?} but {since:?}: {self:?}");
        }
        if cause == Cause::Signal {
            let on_time = self.signalled.max(Some(self.counted_from + self.hold()));
            assert_eq!(Some(self.ran), on_time, "the signal waits for too long: {self:?}");
        }
    }

    fn check_rest(&self) {
        let since = self.ran - self.counted_from;
        assert!(self.bounds().is_none_or(|(_, most)| since < most), "{since:?} and none is due: {self:?}");
        assert!(self.signalled.is_none() || since < self.hold(), "the signal is forgotten: {self:?}");
    }

    fn hold(&self) -> Duration {
        if self.begun { self.timing.min_interval } else { Duration::ZERO }
    }

    /// How long after `counted_from` the next scheduled one has to come, at least and at most.
    fn bounds(&self) -> Option<(Duration, Duration)> {
        let first = self.timing.first_after.filter(|_| !self.begun);
        let rounding = seconds(1e-6);
        let (least, most) = match (self.timing.schedule, first) {
            (Schedule::OnDemand, _) => return None,
            (_, Some(first)) => return Some((first, first)),
            (Schedule::Every { period, jitter }, None) => (period, period + jitter),
            (Schedule::Overhead { fraction }, None) => {
                let paid = seconds(self.last_pause / fraction - self.last_pause).max(LEAST_INTERVAL);
                (paid.saturating_sub(rounding), paid + rounding)
            }
            (Schedule::Mtbf { mtbf }, None) => {
                // Young's estimate is above Daly's wherever both hold, and Daly's is never above the mtbf.
                let young = (2.0 * self.longest_pause * mtbf.as_secs_f64()).sqrt();
                (LEAST_INTERVAL, mtbf.min(seconds(young)).max(LEAST_INTERVAL))
            }
        };
        Some((least.max(self.timing.min_interval), most.max(self.timing.min_interval)))
    }
}

fn random_timing(random: &mut SplitMix) -> Timing {
    let schedule = match random.next() % 6 {
        0 => Schedule::OnDemand,
        1 => Schedule::Overhead { fraction: random.spread(0.001, 0.9) },
        2 => Schedule::Mtbf { mtbf: seconds(random.spread(1.0, 1e6)) },
        3 => every(random.spread(1.0, 7200.0), 0.0),
        _ => every(random.spread(1.0, 7200.0), random.spread(0.01, 3600.0)),
    };
    let mut sometimes = |most| {
        let time = seconds(random.spread(1.0, most));
        Some(time).filter(|_| random.chance(0.5))
    };
    let first_after = sometimes(3600.0);
    Timing { schedule, first_after, min_interval: sometimes(3600.0).unwrap_or_default() }
}

#[test]
fn no_clock_makes_it_come_too_early_or_too_late() {
    let mut tally = Tally::default();
    for seed in 0..10_000 {
        let mut program = Program::new(seed);
        (0..400).for_each(|_| program.turn(&mut tally));
    }
    let Tally { timer, signal, held_back, call, failed, restored, forwards, backwards, suspended } = tally;
    for happened in [timer, signal, held_back, call, failed, restored, forwards, backwards, suspended] {
        assert!(happened > 5_000, "{tally:?}");
    }
}
