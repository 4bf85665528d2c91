//! When the next checkpoint is due, as a pure function of the time that is passed in.

use std::time::Instant;

use crate::config::Schedule;

/// A schedule at work.
#[derive(Debug)]
pub(crate) struct Timetable {
    schedule: Schedule,
    due: Option<Instant>,
}

impl Timetable {
    pub(crate) fn new(schedule: Schedule, now: Instant) -> Timetable {
        let mut timetable = Timetable { schedule, due: None };
        timetable.restart(now);
        timetable
    }

    /// When the agent has to wake at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Counts afresh: after every checkpoint, and after a restore, when the clock may have jumped. Periods
    /// that were missed meanwhile are not made up for.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.due = match self.schedule {
            Schedule::OnDemand => None,
            // A period beyond what the clock can hold never comes.
            Schedule::Every(period) => now.checked_add(period),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn on_demand_is_never_due() {
        let now = Instant::now();
        let timetable = Timetable::new(Schedule::OnDemand, now);
        assert_eq!(timetable.due(), None);
        assert!(!timetable.is_due(now + Duration::from_secs(1 << 30)));
    }

    #[test]
    fn a_period_is_counted_from_the_last_restart_and_missed_ones_are_not_made_up_for() {
        let (start, period) = (Instant::now(), Duration::from_secs(60));
        let mut timetable = Timetable::new(Schedule::Every(period), start);
        assert!(!timetable.is_due(start + period / 2));
        assert!(timetable.is_due(start + period));
        let much_later = start + period * 1000;
        timetable.restart(much_later);
        assert_eq!(timetable.due(), Some(much_later + period));
    }

    #[test]
    fn a_period_longer_than_the_clock_is_never_due() {
        let timetable = Timetable::new(Schedule::Every(Duration::MAX), Instant::now());
        assert_eq!(timetable.due(), None);
    }
}
