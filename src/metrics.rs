//! What is counted of a program's checkpoints: plain numbers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::frozen::{Bytes, micros, unix_micros};
use crate::report::{Outcome, Report};

/// What has been counted since the program was started or, in one that came back, since then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Metrics {
    /// Checkpoints that were saved.
    pub saved: u64,
    /// Attempts that failed, by the name of their [`ErrorKind`](crate::ErrorKind).
    pub failed: BTreeMap<String, u64>,
    /// The size of all that were saved, those included that have been deleted since.
    #[serde(rename = "written_bytes")]
    pub written: Bytes,
    /// How long the program stood still for them, all together.
    #[serde(rename = "paused_us", with = "micros")]
    pub paused: Duration,
    /// How long it took from the beginning of each attempt until the checkpoint was on disk, all together.
    #[serde(rename = "took_us", with = "micros")]
    pub took: Duration,
    /// The last one that was saved.
    pub last: Option<Saved>,
}

/// The figures of one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Saved {
    /// Which it is: NAME/INSTANCE/NUMBER.
    pub checkpoint: String,
    /// When it was on disk.
    #[serde(rename = "finished_unix_us", with = "unix_micros")]
    pub finished: SystemTime,
    /// Its size.
    #[serde(rename = "size_bytes")]
    pub size: Bytes,
    /// How long the program stood still for it.
    #[serde(rename = "frozen_us", with = "micros")]
    pub frozen: Duration,
    /// How long it took from the beginning of the attempt until it was on disk.
    #[serde(rename = "took_us", with = "micros")]
    pub took: Duration,
}

impl Metrics {
    /// How long ago the last checkpoint was saved; none where there was none.
    pub fn age(&self) -> Option<Duration> {
        self.last.as_ref().map(|last| SystemTime::now().duration_since(last.finished).unwrap_or_default())
    }

    /// Counts an attempt.
    pub(crate) fn count(&mut self, report: &Report) {
        match &report.outcome {
            Ok(Outcome::Saved(checkpoint)) => {
                let took = report.finished.duration_since(report.started).unwrap_or_default();
                self.saved += 1;
                self.written = [self.written, checkpoint.size].into_iter().sum();
                self.paused += checkpoint.stats.frozen;
                self.took += took;
                self.last = Some(Saved {
                    checkpoint: checkpoint.id.clone(),
                    finished: report.finished,
                    size: checkpoint.size,
                    frozen: checkpoint.stats.frozen,
                    took,
                });
            }
            Ok(Outcome::Restored(_)) => {}
            Err(error) => *self.failed.entry(error.kind().name().to_owned()).or_default() += 1,
        }
    }
}
