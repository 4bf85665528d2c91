//! What one round of restores took.

use std::time::Duration;

use crate::comparison::noise;

/// A restore by either side.
pub struct Restore {
    /// From the start of the command until the program's first tick.
    pub time: Duration,
    /// Of that, until CRIU was started.
    pub before_criu: Duration,
    /// How much of the time somebody on this machine waited for a processor, from 0 to 1.
    pub contention: f64,
}

/// A restore by `selfdump restore`, one by `selfdump restore --lazy` and one by `criu restore`, one right after the other.
pub struct Round {
    pub ours: Restore,
    pub lazy: Restore,
    pub criu: Restore,
}

impl noise::Pair for Round {
    fn contention(&self) -> f64 {
        [&self.ours, &self.lazy, &self.criu].into_iter().map(|side| side.contention).fold(0.0, f64::max)
    }
}
