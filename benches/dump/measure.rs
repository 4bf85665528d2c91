//! What one pair of dumps took.

use std::time::{Duration, SystemTime};

use crate::lab::Failure;

/// A dump by either side.
pub struct Dump {
    /// From the request until the program has been dumped.
    pub time: Duration,
    /// The largest gap that the program's ticker saw.
    pub pause: Duration,
    /// How much of the time somebody on this machine waited for a processor, from 0 to 1.
    pub contention: f64,
}

/// Where the time of a dump through selfdump went, in order.
pub struct Course {
    /// From the signal until the agent had begun.
    pub woken: Duration,
    /// Until CRIU was to be reached: /proc was read and the draft was there.
    pub prepared: Duration,
    /// Until CRIU had answered, its start included.
    pub dumped: Duration,
    /// After the answer, while the program runs: manifest, checksums, fsync, rename.
    pub committed: Duration,
}

/// A dump through selfdump and, right after it, one by `criu dump`.
pub struct Pair {
    pub ours: Dump,
    pub course: Course,
    pub criu: Dump,
}

impl Pair {
    pub fn time_ratio(&self) -> f64 {
        ratio(self.ours.time, self.criu.time)
    }

    pub fn pause_ratio(&self) -> f64 {
        ratio(self.ours.pause, self.criu.pause)
    }

    /// That of the more disturbed of the two.
    pub fn contention(&self) -> f64 {
        self.ours.contention.max(self.criu.contention)
    }
}

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

/// How long, since the machine's start, some task has waited for a processor (`/proc/pressure/cpu`); none
/// on a kernel that doesn't tell.
pub fn waited_for_processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().find(|line| line.starts_with("some"))?.rsplit_once("total=")?.1;
    Some(Duration::from_micros(total.trim().parse().ok()?))
}

/// The share of `time` that somebody waited in since `before`; 0 where that isn't told.
pub fn contention(before: Option<Duration>, time: Duration) -> f64 {
    let waited = waited_for_processor().zip(before).map(|(now, before)| now.saturating_sub(before));
    (waited.unwrap_or_default().as_secs_f64() / time.as_secs_f64()).min(1.0)
}

/// The time between two readings of CLOCK_REALTIME, of which the earlier may come from a file that holds
/// whole microseconds.
pub fn between(earlier: SystemTime, later: SystemTime) -> Result<Duration, Failure> {
    let error = |_| format!("the clock was set back meanwhile: {earlier:?}, then {later:?}");
    later.duration_since(earlier).map_err(|source| error(source).into())
}
