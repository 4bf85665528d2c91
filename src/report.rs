//! What a checkpoint was taken for and what came of it: plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::frozen::{Bytes, DumpStats, micros};
use crate::sys;

/// Why a checkpoint was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
#[non_exhaustive]
pub enum Cause {
    /// The checkpoint signal came.
    Signal {
        /// The number of the signal.
        signal: i32,
    },
    /// The schedule said so.
    Timer,
    /// The program asked, by [`Handle::checkpoint`](crate::Handle::checkpoint).
    Call,
    /// A thread panicked. The checkpoint is a forensic one.
    Panic {
        /// What the panic said.
        message: String,
        /// The thread's name; its id where it has none.
        thread: String,
        /// The thread's id.
        #[serde(default)]
        thread_id: Option<i32>,
        /// File, line and column of the panic.
        location: Option<String>,
    },
    /// A program of another language reported an exception that nobody caught
    /// ([`Handle::checkpoint_exception`](crate::Handle::checkpoint_exception)). The checkpoint is a forensic one.
    Exception {
        /// What the exception said.
        message: String,
        /// The name of the thread that it came up in; its id where it has none.
        thread: String,
        /// The thread's id.
        #[serde(default)]
        thread_id: Option<i32>,
        /// Where it came from, where that is known.
        location: Option<String>,
    },
    /// The program was about to die of a signal. The checkpoint is a forensic one.
    FatalSignal {
        /// The number of the signal.
        signal: i32,
        /// The id of the thread that it came to.
        thread: i32,
        /// The address that the thread failed to use, or the instruction that failed; none where the signal was
        /// sent by a process.
        address: Option<u64>,
        /// Why it came (`si_code`, sigaction(2)).
        #[serde(default)]
        code: Option<i32>,
    },
}

impl Cause {
    /// Whether it makes a forensic checkpoint: one to look at, which is never chosen to go on from.
    pub fn is_forensic(&self) -> bool {
        matches!(self, Cause::Panic { .. } | Cause::Exception { .. } | Cause::FatalSignal { .. })
    }

    /// Without what the program itself has said, which may hold anything that was in its memory.
    pub(crate) fn without_words(&self) -> Cause {
        let mut cause = self.clone();
        if let Cause::Panic { message, .. } | Cause::Exception { message, .. } = &mut cause {
            message.clear();
        }
        cause
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Signal { signal } | Cause::FatalSignal { signal, .. } => {
                f.pad(&sys::signal::name(*signal))
            }
            Cause::Panic { .. } => f.pad("panic"),
            Cause::Exception { .. } => f.pad("exception"),
            Cause::Timer => f.pad("timer"),
            Cause::Call => f.pad("call"),
        }
    }
}

/// Which of its two returns a checkpoint made.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// This is the process that goes on; the checkpoint is on disk.
    Saved(Checkpoint),
    /// This is the process that came back from the checkpoint, perhaps much later.
    Restored(Restored),
}

impl Outcome {
    /// Whether this is the process that came back.
    pub fn is_restored(&self) -> bool {
        matches!(self, Outcome::Restored(_))
    }
}

/// Where CRIU wrote while the program stood still.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "where", deny_unknown_fields)]
#[non_exhaustive]
pub enum Staged {
    /// To the store's disk, as it was to.
    #[default]
    Disk,
    /// Into memory, in a folder.
    Folder {
        /// Which one.
        path: PathBuf,
    },
    /// Into memory, in a file system of its own with large pages.
    Memory,
    /// To the store's disk, since the memory wouldn't do.
    FellBack {
        /// Why.
        why: String,
    },
}

impl Staged {
    pub(crate) fn is_plain(&self) -> bool {
        *self == Staged::Disk
    }
}

impl fmt::Display for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Staged::Disk => f.write_str("the disk"),
            Staged::Folder { path } => write!(f, "memory, in {}", path.display()),
            Staged::Memory => f.write_str("memory, in large pages"),
            Staged::FellBack { why } => write!(f, "the disk: {why}"),
        }
    }
}

/// How the moment of a checkpoint was caught ([`Config::snapshot`](crate::Config::snapshot)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how", deny_unknown_fields)]
#[non_exhaustive]
pub enum Technique {
    /// The program stood still until CRIU had copied its memory.
    #[default]
    Freeze,
    /// It stood still only until there was a copy-on-write copy of it, which CRIU dumped while it ran on.
    Cow,
    /// It stood still until CRIU had copied its memory, since no copy of it could be made, or dumped.
    FellBack {
        /// Why.
        why: String,
    },
}

impl Technique {
    pub(crate) fn is_plain(&self) -> bool {
        *self == Technique::Freeze
    }
}

/// What CRIU has dumped.
impl fmt::Display for Technique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Technique::Freeze => f.write_str("the program itself"),
            Technique::Cow => f.write_str("a copy of the program, which ran on"),
            Technique::FellBack { why } => write!(f, "the program itself: {why}"),
        }
    }
}

/// What was done to keep a pause under a limit ([`Config::max_pause`](crate::Config::max_pause)), and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PauseBudget {
    /// The limit.
    #[serde(rename = "limit_us", with = "micros")]
    pub limit: Duration,
    /// How many times memory was written ahead.
    pub rounds: u32,
    /// How long the dump was expected to take when it was begun; none where nothing had been measured.
    #[serde(
        rename = "predicted_us",
        with = "micros::optional",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub predicted: Option<Duration>,
    /// The longest that the program stood still at once, for the dump or for a round.
    #[serde(rename = "longest_us", with = "micros")]
    pub longest: Duration,
    /// Why no memory was written ahead, where it wasn't though the limit asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

impl PauseBudget {
    /// With a limit, and nothing done yet.
    pub(crate) fn of(limit: Duration) -> PauseBudget {
        PauseBudget { limit, rounds: 0, predicted: None, longest: Duration::ZERO, why_not: None }
    }

    /// Whether the program never stood still for longer than the limit.
    pub fn is_kept(&self) -> bool {
        self.longest <= self.limit
    }
}

impl fmt::Display for PauseBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        write!(f, "{} of {} at most", in_ms(self.longest), in_ms(self.limit))?;
        if let Some(predicted) = self.predicted {
            write!(f, ", {} expected", in_ms(predicted))?;
        }
        match (self.rounds, &self.why_not) {
            (_, Some(why)) => write!(f, "; not written ahead: {why}"),
            (0, None) => Ok(()),
            (1, None) => write!(f, "; written ahead once"),
            (rounds, None) => write!(f, "; written ahead {rounds} times"),
        }
    }
}

/// A checkpoint that is on disk.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// NAME/INSTANCE/NUMBER: its path in the store.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// When it was taken.
    pub taken: SystemTime,
    /// The size of everything in it.
    pub size: Bytes,
    /// CRIU's account of the dump: how long the program stood still, how many pages were written.
    pub stats: DumpStats,
    /// Where CRIU wrote while the program stood still.
    pub staged: Staged,
    /// How its moment was caught.
    pub technique: Technique,
    /// What came of the limit for its pause, where there is one.
    pub budget: Option<PauseBudget>,
    /// The ids of the processes in it, the program's own first.
    pub processes: Vec<i32>,
}

/// What a process that came back knows of its past.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// The checkpoint that it came from: NAME/INSTANCE/NUMBER.
    pub id: String,
    /// Its folder, where it was put when it was made.
    pub path: PathBuf,
    /// When that was taken.
    pub taken: SystemTime,
    /// How long ago that was, by the clock of this machine; zero if it stands before it.
    pub age: Duration,
    /// How many times the program has come back: 1 after the first restore.
    pub generation: u64,
    /// Whether it is the same machine as at the checkpoint.
    pub same_host: bool,
    /// Whether the machine has not been started anew since.
    pub same_boot: bool,
    /// Whether process ids are counted as they were: it is the same pid namespace.
    pub same_pid_namespace: bool,
    pub(crate) settings: BTreeMap<String, String>,
}

impl Restored {
    /// What whoever restored it passes in: `selfdump restore --set KEY=VALUE`.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }
}

/// An attempt at a checkpoint, and what came of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Why it was made.
    pub cause: Cause,
    /// When it began.
    pub started: SystemTime,
    /// When CRIU had answered and the program ran on; none where it was never asked.
    pub answered: Option<SystemTime>,
    /// When all was done.
    pub finished: SystemTime,
    /// Saved, restored, or why not.
    pub outcome: Result<Outcome, Error>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_moment_was_caught_is_one_word_and_the_reason_where_it_was_not_the_wanted_one() {
        let fell_back = Technique::FellBack { why: "it has a child".to_owned() };
        for (technique, json, text) in [
            (Technique::Freeze, r#"{"how":"freeze"}"#, "the program itself"),
            (Technique::Cow, r#"{"how":"cow"}"#, "a copy of the program, which ran on"),
            (
                fell_back,
                r#"{"how":"fell-back","why":"it has a child"}"#,
                "the program itself: it has a child",
            ),
        ] {
            assert_eq!(serde_json::to_string(&technique).unwrap(), json);
            assert_eq!(serde_json::from_str::<Technique>(json).unwrap(), technique);
            assert_eq!(technique.to_string(), text);
            assert_eq!(technique.is_plain(), technique == Technique::default());
        }
        for wrong in
            [r#"{"how":"fell-back"}"#, r#"{"how":"fork"}"#, r#"{"how":"fell-back","why":"","where":""}"#]
        {
            assert!(serde_json::from_str::<Technique>(wrong).is_err(), "{wrong}");
        }
    }
}
