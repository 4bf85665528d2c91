//! What one pair of dumps took.

use std::time::Duration;

use crate::comparison::noise;
use crate::comparison::statistics::{Table, ms, ratio};

/// A dump by either side.
pub struct Dump {
    /// From the request until the program has been dumped.
    pub time: Duration,
    /// Until all of it is on the disk, for CRIU by a sync of each of its files.
    pub kept: Duration,
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

/// A dump through selfdump and one by `criu dump`, one right after the other.
pub struct Pair {
    pub ours: Dump,
    pub course: Course,
    pub criu: Dump,
}

impl Pair {
    pub fn time_ratio(&self) -> f64 {
        ratio(self.ours.time, self.criu.time)
    }

    pub fn kept_ratio(&self) -> f64 {
        ratio(self.ours.kept, self.criu.kept)
    }

    pub fn pause_ratio(&self) -> f64 {
        ratio(self.ours.pause, self.criu.pause)
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
        .row("selfdump: signal to answer, ms", 1, |pair| ms(pair.ours.time))
        .row("criu dump: start to end, ms", 1, |pair| ms(pair.criu.time))
        .row("  ratio of each pair", 3, Pair::time_ratio)
        .row("selfdump: pause, ms", 1, |pair| ms(pair.ours.pause))
        .row("criu dump: pause, ms", 1, |pair| ms(pair.criu.pause))
        .row("  ratio of each pair", 3, Pair::pause_ratio)
        .row("selfdump: signal to commit, ms", 1, |pair| ms(pair.ours.kept))
        .row("criu dump and a sync of its files, ms", 1, |pair| ms(pair.criu.kept))
        .row("  ratio of each pair", 3, Pair::kept_ratio)
        .row("within selfdump: signal to attempt, ms", 2, |pair| ms(pair.course.woken))
        .row("  /proc, draft, ms", 2, |pair| ms(pair.course.prepared))
        .row("  CRIU, from its start to its answer, ms", 1, |pair| ms(pair.course.dumped))
        .row("after the answer: checksums, fsync, ms", 1, |pair| ms(pair.course.committed))
        .row("time that somebody waited for a CPU, %", 1, |pair| 100.0 * noise::Pair::contention(pair))
        .print();
}
