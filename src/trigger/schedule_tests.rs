//! The timetable with figures by hand, on a machine that fails, and with 10,000 schedules on clocks that jump.
//!
//! Everything random comes from a seed, so that whatever fails once fails again.

use super::*;

#[path = "schedule_simulation.rs"]
mod simulation;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A moment with room on both sides for a clock to jump.
fn start() -> Instant {
    Instant::now() + Duration::from_secs(1 << 40)
}

fn timing(schedule: Schedule) -> Timing {
    Timing { schedule, ..Timing::default() }
}

fn every(period: f64, jitter: f64) -> Schedule {
    Schedule::Every { period: seconds(period), jitter: seconds(jitter) }
}

impl Timetable {
    /// The next scheduled checkpoint, by the looks of an agent that sleeps exactly as long as it may.
    fn next_due(&mut self) -> Instant {
        for _ in 0..100_000 {
            let now = self.next_look(false);
            self.look(now);
            if self.is_due(now) {
                return now;
            }
        }
        panic!("it never comes: {self:?}")
    }
}

impl SplitMix {
    fn chance(&mut self, chance: f64) -> bool {
        self.below_one() < chance
    }

    /// Seconds between the two, of each order of magnitude as often.
    fn spread(&mut self, least: f64, most: f64) -> f64 {
        least * (most / least).powf(self.below_one())
    }
}

#[test]
fn on_demand_is_never_due() {
    let now = start();
    let timing = Timing { first_after: Some(Duration::ZERO), ..timing(Schedule::OnDemand) };
    let mut timetable = Timetable::new(timing, now, 1);
    assert!(!timetable.is_due(now + Duration::from_secs(1 << 30)));
    timetable.ended(now, Some(seconds(1.0)));
    assert!(!timetable.is_due(now + Duration::from_secs(1 << 30)));
    assert_eq!(timetable.next_look(false), now + seconds(60.0), "the clock has to be watched all the same");
}

#[test]
fn a_period_is_counted_from_the_end_of_the_last_checkpoint() {
    let now = start();
    let mut timetable = Timetable::new(timing(every(30.0, 0.0)), now, 1);
    assert_eq!(timetable.next_look(false), now + seconds(30.0));
    assert!(!timetable.is_due(now + seconds(29.9)) && timetable.is_due(now + seconds(30.0)));
    timetable.ended(now + seconds(1000.0), Some(seconds(900.0)));
    assert_eq!(timetable.next_look(false), now + seconds(1030.0));
}

#[test]
fn what_is_longer_than_the_clock_never_comes() {
    let (now, forever) = (start(), Duration::MAX);
    for schedule in [
        Schedule::Every { period: forever, jitter: forever },
        Schedule::Every { period: seconds(1.0), jitter: forever },
        Schedule::Overhead { fraction: f64::MIN_POSITIVE },
        Schedule::Mtbf { mtbf: forever },
    ] {
        let mut timetable = Timetable::new(timing(schedule), now, 1);
        timetable.ended(now, Some(forever));
        assert!(!timetable.is_due(now + Duration::from_secs(1 << 30)), "{schedule:?}");
    }
    let mut timetable = Timetable::new(Timing { min_interval: forever, ..timing(every(1.0, 0.0)) }, now, 1);
    timetable.ended(now, None);
    assert!(!timetable.may_begin(now + Duration::from_secs(1 << 30)));
    assert_eq!(timetable.next_look(true), now + LOOK);
}

#[test]
fn a_failed_attempt_counts_as_the_last_known_pause_and_does_not_stop_the_schedule() {
    let now = start();
    for (schedule, assumed, learned) in [
        (every(30.0, 0.0), 30.0, 30.0),
        (Schedule::Overhead { fraction: 0.1 }, 9.0, 27.0),
        (Schedule::Mtbf { mtbf: seconds(100.0) }, 13.483, 22.536),
    ] {
        let mut timetable = Timetable::new(timing(schedule), now, 1);
        for (pause, expected) in [(None, assumed), (Some(seconds(3.0)), learned), (None, learned)] {
            timetable.ended(now, pause);
            let interval = timetable.next_due() - now;
            assert!((interval.as_secs_f64() - expected).abs() < 0.001, "{schedule:?}: {interval:?}");
        }
    }
}

#[test]
fn nothing_that_is_measured_makes_it_run_hot() {
    let now = start();
    for schedule in [Schedule::Overhead { fraction: 0.999 }, Schedule::Mtbf { mtbf: seconds(0.001) }] {
        let mut timetable = Timetable::new(timing(schedule), now, 1);
        timetable.ended(now, Some(Duration::ZERO));
        assert_eq!(timetable.next_due() - now, LEAST_INTERVAL);
        timetable.timing.min_interval = seconds(5.0);
        timetable.ended(now, Some(Duration::ZERO));
        assert_eq!(timetable.next_due() - now, seconds(5.0));
    }
}

#[test]
fn jitter_spreads_the_deadlines_over_all_of_itself_and_another_seed_spreads_them_otherwise() {
    let now = start();
    let deadlines = |seed| -> Vec<f64> {
        let mut timetable = Timetable::new(timing(every(40.0, 20.0)), now, seed);
        let mut deadline = || {
            timetable.ended(now, None);
            (timetable.next_due() - now).as_secs_f64()
        };
        (0..1000).map(|_| deadline()).collect()
    };
    let (one, other) = (deadlines(1), deadlines(2));
    assert!(one.iter().all(|interval| (40.0..=60.0).contains(interval)));
    for from in [40.0, 45.0, 50.0, 55.0] {
        let there = one.iter().filter(|&&interval| (from..from + 5.0).contains(&interval)).count();
        assert!((200..300).contains(&there), "{there} of 1000 come {from} to {} s later", from + 5.0);
    }
    assert!(one.iter().zip(&other).all(|(one, other)| one != other));
}

#[test]
fn copies_that_come_back_with_seeds_of_their_own_do_not_go_in_step_and_know_what_was_learned() {
    let now = start();
    let come_back = |schedule, seed| {
        let first_after = Some(Duration::ZERO);
        let mut timetable = Timetable::new(Timing { first_after, ..timing(schedule) }, now, 1);
        timetable.ended(now, Some(seconds(3.0)));
        let elsewhere = now - seconds(1e6);
        timetable.restart(elsewhere, seed);
        timetable.next_due() - elsewhere
    };
    assert_ne!(come_back(every(40.0, 20.0), 2), come_back(every(40.0, 20.0), 3));
    let overhead = come_back(Schedule::Overhead { fraction: 0.25 }, 2);
    assert_eq!(overhead, seconds(9.0));
}

#[test]
fn the_random_numbers_are_splitmix64s() {
    let mut random = SplitMix(1_234_567);
    assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
}

#[test]
fn the_first_one_comes_when_that_is_said_and_the_others_as_scheduled() {
    let now = start();
    let timing = Timing { first_after: Some(seconds(5.0)), ..timing(every(30.0, 0.0)) };
    let mut timetable = Timetable::new(timing, now, 1);
    assert_eq!(timetable.next_due(), now + seconds(5.0));
    timetable.ended(now + seconds(6.0), None);
    assert_eq!(timetable.next_due(), now + seconds(36.0));
}

#[test]
fn a_signal_is_held_back_after_a_checkpoint_and_looked_after_when_it_may_begin() {
    let now = start();
    let timing = Timing { min_interval: seconds(20.0), ..timing(Schedule::OnDemand) };
    let mut timetable = Timetable::new(timing, now, 1);
    assert!(timetable.may_begin(now), "there is nothing yet to keep away from");
    timetable.ended(now, Some(seconds(1.0)));
    assert!(!timetable.may_begin(now + seconds(19.9)) && timetable.may_begin(now + seconds(20.0)));
    assert_eq!(timetable.next_look(true), now + seconds(20.0));
    assert_eq!(timetable.next_look(false), now + LOOK);
}

#[test]
fn a_clock_that_went_wrong_has_all_counted_afresh_and_one_that_is_a_little_late_has_not() {
    let now = start();
    let timing = Timing { min_interval: seconds(30.0), ..timing(every(30.0, 0.0)) };
    for (wakes, wrong) in
        [(29.0, false), (90.0, false), (90.1, true), (1e6, true), (-0.1, true), (-1e6, true)]
    {
        let mut timetable = Timetable::new(timing, now, 1);
        timetable.ended(now, None);
        let awake = if wakes < 0.0 { now - seconds(-wakes) } else { now + seconds(wakes) };
        timetable.look(awake);
        let from = if wrong { awake } else { now };
        for (due, after) in [(false, 29.9), (true, 30.0)] {
            let then = from + seconds(after);
            assert_eq!((timetable.is_due(then), timetable.may_begin(then)), (due, due), "{wakes}");
        }
    }
}

#[test]
fn the_time_spent_frozen_never_exceeds_its_share_and_comes_near_it() {
    let mut random = SplitMix(1);
    for fraction in [0.001, 0.01, 0.05, 0.3, 0.9] {
        let mut now = start();
        let mut timetable = Timetable::new(timing(Schedule::Overhead { fraction }), now, 1);
        let (begun, mut frozen, mut last) = (now, 0.0, ASSUMED_PAUSE);
        let mut share = 0.0;
        for _ in 0..2000 {
            now = timetable.next_due();
            share = frozen / (now - begun).as_secs_f64();
            assert!(share <= fraction * (1.0 + 1e-9), "{share} of {fraction}");
            let failed = random.chance(0.1);
            let pause = if failed { last } else { random.spread(0.01, 100.0) };
            now += seconds(pause);
            frozen += pause;
            last = pause;
            timetable.ended(now, Some(seconds(pause)).filter(|_| !failed));
        }
        assert!(share > 0.9 * fraction, "{share} of {fraction}");
    }
}

#[test]
fn the_newest_pause_turns_the_mean_by_a_quarter() {
    let mean = |pauses: &[f64]| {
        let learned = pauses.iter().fold(None, |known, &pause| Some(Pauses::learn(known, pause)));
        learned.map(|pauses| pauses.mean)
    };
    assert_eq!(mean(&[4.0]), Some(4.0));
    assert_eq!(mean(&[4.0, 8.0]), Some(5.0));
    assert_eq!(mean(&[4.0, 8.0, 1.0]), Some(4.0));
}

#[test]
fn the_optimum_is_dalys() {
    for (cost, mtbf, expected) in [
        (2.0, 3600.0, 118.670_370),
        (60.0, 86_400.0, 3_180.062_113),
        (300.0, 1800.0, 848.852_989),
        (600.0, 600.0, 495.668_589),
        (1_200.0, 600.0, 600.0),
        (5_000.0, 600.0, 600.0),
    ] {
        assert!((optimum(cost, mtbf) - expected).abs() < 1e-5, "{cost} {mtbf}: {}", optimum(cost, mtbf));
    }
}

/// A machine that fails at random moments, and the cost of a checkpoint on it; all in seconds.
#[derive(Clone, Copy, Debug)]
struct FailingMachine {
    cost: f64,
    mtbf: f64,
    restart: f64,
}

impl FailingMachine {
    /// How long this much work takes when each checkpoint comes as `interval` says, which is told what the last
    /// one has cost; None at a restart. What was done since the last checkpoint's end is lost at a failure.
    ///
    /// The machine fails at the same moments for all: the nth time that it is up lasts as long for each.
    fn time_for(self, work: f64, interval: &mut dyn FnMut(Option<f64>) -> f64) -> f64 {
        let (mut failures, mut costs) = (SplitMix(1), SplitMix(2));
        let (mut total, mut saved) = (0.0, 0.0);
        loop {
            let up = -self.mtbf * (1.0 - failures.below_one()).ln();
            let mut now = self.restart;
            let mut next = interval(None);
            while now < up {
                if saved + next >= work && now + (work - saved) <= up {
                    return total + now + (work - saved);
                }
                let cost = self.cost * (0.5 + costs.below_one());
                now += next + cost;
                if now <= up {
                    saved += next;
                    next = interval(Some(cost));
                }
            }
            total += up;
        }
    }

    fn time_on_schedule(self, work: f64) -> f64 {
        let mut now = start();
        let mut timetable = Timetable::new(timing(Schedule::Mtbf { mtbf: seconds(self.mtbf) }), now, 1);
        self.time_for(work, &mut |cost| {
            match cost {
                Some(cost) => timetable.ended(now, Some(seconds(cost))),
                None => timetable.restart(now, 1),
            }
            let due = timetable.next_due();
            let interval = due - now;
            now = due;
            interval.as_secs_f64()
        })
    }

    /// The least time with a fixed interval, and that interval: of all from a third to the double of Young's
    /// estimate, in steps of a hundredth.
    fn best_fixed_time(self, work: f64) -> (f64, f64) {
        let middle = (2.0 * self.cost * self.mtbf).sqrt();
        let intervals = (-120..=80).map(|step| middle * 1.01f64.powi(step));
        intervals
            .map(|interval| (self.time_for(work, &mut |_| interval), interval))
            .min_by(|one, other| one.0.total_cmp(&other.0))
            .unwrap()
    }
}

#[test]
fn the_schedule_for_failures_is_as_good_as_the_best_fixed_interval() {
    for (cost, mtbf, checkpoints) in [
        (1.0, 3_600.0, 40_000.0),
        (10.0, 3_600.0, 40_000.0),
        (60.0, 3_600.0, 30_000.0),
        (60.0, 900.0, 30_000.0),
        (300.0, 1_800.0, 20_000.0),
        (600.0, 600.0, 10_000.0),
    ] {
        let machine = FailingMachine { cost, mtbf, restart: 30.0 };
        let work = checkpoints * optimum(cost, mtbf);
        let scheduled = machine.time_on_schedule(work);
        let (best, interval) = machine.best_fixed_time(work);
        assert!(
            scheduled <= best * 1.02,
            "{machine:?}: {scheduled} s, and {best} s are possible with one each {interval} s"
        );
    }
}
