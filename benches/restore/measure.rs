//! What one pair of restores took.

use std::time::Duration;

use crate::comparison::noise;
use crate::comparison::statistics::{Table, ms, ratio};

/// A restore by either side.
pub struct Restore {
    /// From the start of the command until the program's first tick.
    pub time: Duration,
    /// Of that, until CRIU was started.
    pub before_criu: Duration,
    /// Of that, while every image was read and compared with its checksum; none where nobody did.
    pub verified: Option<Duration>,
    /// How much of the time somebody on this machine waited for a processor, from 0 to 1.
    pub contention: f64,
}

/// A restore by `selfdump restore` and one by `criu restore`, one right after the other.
pub struct Pair {
    pub ours: Restore,
    pub criu: Restore,
}

impl Pair {
    /// With the verification.
    fn ratio(&self) -> f64 {
        ratio(self.ours.time, self.criu.time)
    }

    /// Without the verification.
    pub fn ratio_apart(&self) -> f64 {
        ratio(self.ours.time.saturating_sub(self.verified()), self.criu.time)
    }

    /// Too short where others kept the watch from running meanwhile.
    fn verified(&self) -> Duration {
        self.ours.verified.unwrap_or_default()
    }

    /// What selfdump does besides verifying, until it starts CRIU.
    fn prepared(&self) -> Duration {
        self.ours.before_criu.saturating_sub(self.verified())
    }
}

impl noise::Pair for Pair {
    fn contention(&self) -> f64 {
        self.ours.contention.max(self.criu.contention)
    }
}

/// Prints the median, minimum and maximum of every time and ratio.
pub fn table(pairs: &[Pair]) {
    Table::of(pairs)
        .row("selfdump restore: start to first tick, ms", 1, |pair| ms(pair.ours.time))
        .row("criu restore: start to first tick, ms", 1, |pair| ms(pair.criu.time))
        .row("  ratio of each pair", 3, Pair::ratio)
        .row("  ratio without verification", 3, Pair::ratio_apart)
        .row("within selfdump: verification, ms", 1, |pair| ms(pair.verified()))
        .row("  all else until CRIU is started, ms", 1, |pair| ms(pair.prepared()))
        .row("  CRIU, from its start to the tick, ms", 1, |pair| ms(pair.ours.time - pair.ours.before_criu))
        .row("within criu restore: the same, ms", 1, |pair| ms(pair.criu.time - pair.criu.before_criu))
        .row("time that somebody waited for a CPU, %", 1, |pair| 100.0 * noise::Pair::contention(pair))
        .print();
}
