//! What one pair of restores took.

use std::time::Duration;

use crate::comparison::noise;

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

impl Restore {
    /// What verified it was too short where others kept the watch from running meanwhile.
    pub fn without_verification(&self) -> Duration {
        self.time.saturating_sub(self.verified.unwrap_or_default())
    }

    /// What is done besides verifying, until CRIU is started.
    pub fn prepared(&self) -> Duration {
        self.before_criu.saturating_sub(self.verified.unwrap_or_default())
    }
}

impl noise::Pair for Pair {
    fn contention(&self) -> f64 {
        self.ours.contention.max(self.criu.contention)
    }
}
