//! How often checkpoints are taken without anybody asking, as plain data.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often checkpoints are taken without anybody asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// Only when asked, by a signal or a call.
    #[default]
    OnDemand,
    /// Once in each period, counted from the end of the last checkpoint, plus a random part of the jitter.
    Every {
        /// The time from the end of one to the beginning of the next, at least.
        #[serde(rename = "period_seconds", with = "seconds")]
        period: Duration,
        /// By how much it may be longer.
        #[serde(rename = "jitter_seconds", with = "seconds")]
        jitter: Duration,
    },
    /// As often as keeps the share of time that the program stands still under a fraction.
    Overhead {
        /// That share: 0.01 is one percent.
        fraction: f64,
    },
    /// At the interval that loses least to failures.
    Mtbf {
        /// The mean time between two failures.
        #[serde(rename = "mtbf_seconds", with = "seconds")]
        mtbf: Duration,
    },
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration;
        match self {
            Schedule::OnDemand => f.write_str("only when asked"),
            Schedule::Every { period, jitter } if jitter.is_zero() => write!(f, "every {}", time(*period)),
            Schedule::Every { period, jitter } => {
                write!(f, "every {}, and up to {} more", time(*period), time(*jitter))
            }
            Schedule::Overhead { fraction } => {
                write!(f, "such that the program stands still for at most {} % of the time", fraction * 100.0)
            }
            Schedule::Mtbf { mtbf } => write!(f, "best for a failure in each {}", time(*mtbf)),
        }
    }
}

/// When checkpoints are due.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Timing {
    pub(crate) schedule: Schedule,
    /// How long after the start the first scheduled one comes, where that is said.
    pub(crate) first_after: Option<Duration>,
    /// The least time between the end of a checkpoint and the beginning of one that a signal or the schedule
    /// asks for.
    pub(crate) min_interval: Duration,
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        value.as_secs_f64().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::try_from_secs_f64(f64::deserialize(from)?).unwrap_or(Duration::MAX))
    }
}
