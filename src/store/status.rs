//! What came of the last attempt, for people and supervisors: `status.json`.
//!
//! It is written twice: into the instance's folder, where it stays with the checkpoints, and into the
//! runtime folder under the process id, where it is found without knowing the store, and where it can be
//! written when the store can't.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::entrance;
use super::layout::{self, Instance};
use super::life::{Here, Life};
use super::runtime;
use crate::config::{Schedule, Settings};
use crate::error::{Error, Result};
use crate::frozen::{Bytes, unix_micros};
use crate::metrics::Metrics;
use crate::report::{Cause, Outcome, PauseBudget, Report, Staged, Technique};
use crate::sys::disk;

/// The version of `status.json`.
const FORMAT_VERSION: u32 = 1;

/// The state of a running program, as of its last attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Status {
    /// The version of this format.
    pub format_version: u32,
    /// The name that its checkpoints are kept under.
    pub name: String,
    /// The folder of the instance.
    pub folder: PathBuf,
    pub(crate) life: Life,
    /// The checkpoint that this life began with: NAME/INSTANCE/NUMBER; none where the program was started.
    pub restored_from: Option<String>,
    /// How often checkpoints are taken without anybody asking.
    pub schedule: Schedule,
    /// The name of the signal that asks for a checkpoint.
    pub signal: String,
    /// The name of the signal that asks for a checkpoint and then ends the program.
    pub exit_signal: Option<String>,
    /// Those of the two for which the program has put a handler in the place of selfdump's, so that they may not
    /// reach it.
    pub overwritten_signals: Vec<String>,
    /// How many attempts have failed since the last that did not.
    pub failures_in_a_row: u64,
    /// The last attempt; none so far in a new process.
    pub last: Option<Attempt>,
    /// When the schedule's next checkpoint is due; none where there is no schedule.
    #[serde(rename = "next_unix_us", with = "unix_micros::optional")]
    pub next: Option<SystemTime>,
    /// What was counted in this life.
    pub metrics: Metrics,
}

/// An attempt at a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Attempt {
    /// Why it was made.
    pub cause: Cause,
    /// When it began.
    #[serde(rename = "started_unix_us", with = "unix_micros")]
    pub started: SystemTime,
    /// When all was done.
    #[serde(rename = "finished_unix_us", with = "unix_micros")]
    pub finished: SystemTime,
    /// Whether a checkpoint came of it.
    pub saved: bool,
    /// That checkpoint: NAME/INSTANCE/NUMBER.
    pub checkpoint: Option<String>,
    /// Its size.
    pub size_bytes: Option<Bytes>,
    /// How long the program stood still for it, in microseconds.
    pub frozen_us: Option<u64>,
    /// Where CRIU wrote meanwhile; none where there is no checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// How its moment was caught; none where there is no checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub technique: Option<Technique>,
    /// What came of the limit for its pause, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_budget: Option<PauseBudget>,
    /// Why there is none.
    pub error: Option<Failure>,
}

/// An error as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Failure {
    /// The name of its [`ErrorKind`](crate::ErrorKind).
    pub kind: String,
    /// Its text and the causes below it.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The lines of CRIU's log that matter.
    pub criu: Vec<String>,
    /// Where CRIU's log is.
    pub log: Option<PathBuf>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure {
            kind: error.kind().name().to_owned(),
            message: error.chain(),
            hint: error.hint().map(str::to_owned),
            criu: error.criu().map(|criu| criu.lines.clone()).unwrap_or_default(),
            log: error.criu().and_then(|criu| criu.log.clone()),
        }
    }
}

impl Status {
    /// That of a process that has made no attempt yet.
    pub(crate) fn new(instance: &Instance, life: &Life, settings: &Settings) -> Status {
        Status {
            format_version: FORMAT_VERSION,
            name: instance.name.clone(),
            folder: instance.folder(),
            life: life.clone(),
            restored_from: None,
            schedule: settings.timing.schedule,
            signal: settings.signal.to_string(),
            exit_signal: settings.exit_signal.map(|signal| signal.to_string()),
            overwritten_signals: Vec::new(),
            failures_in_a_row: 0,
            last: None,
            next: None,
            metrics: Metrics::default(),
        }
    }

    /// Begins the life that came back from a checkpoint. The store is left as it is; what runs now is told
    /// in the runtime folder alone.
    pub(crate) fn come_back(&mut self, life: &Life, from: Option<&str>) {
        self.life = life.clone();
        self.restored_from = from.map(str::to_owned);
        self.next = None;
        self.metrics = Metrics::default();
        self.write_running();
    }

    /// Takes in when the next checkpoint is due. Whether that is news: clocks differ by a little all the time.
    pub(crate) fn expect(&mut self, next: Option<SystemTime>) -> bool {
        const LITTLE: Duration = Duration::from_secs(1);
        let far = |one: SystemTime, other: SystemTime| {
            one.duration_since(other).unwrap_or_else(|earlier| earlier.duration()) > LITTLE
        };
        let is_news = match (self.next, next) {
            (Some(known), Some(next)) => far(known, next),
            (known, next) => known != next,
        };
        if is_news {
            self.next = next;
            self.write_running();
        }
        is_news
    }

    /// Takes an attempt in, with what may be told of its cause.
    pub(crate) fn record(&mut self, report: &Report, cause: Cause) {
        let saved = match &report.outcome {
            Ok(Outcome::Saved(checkpoint)) => Some(checkpoint),
            _ => None,
        };
        self.metrics.count(report);
        self.failures_in_a_row = if report.outcome.is_err() { self.failures_in_a_row + 1 } else { 0 };
        self.last = Some(Attempt {
            cause,
            started: report.started,
            finished: report.finished,
            saved: saved.is_some(),
            checkpoint: saved.map(|checkpoint| checkpoint.id.clone()),
            size_bytes: saved.map(|checkpoint| checkpoint.size),
            frozen_us: saved.map(|checkpoint| checkpoint.stats.frozen.as_micros() as u64),
            staged: saved.map(|checkpoint| checkpoint.staged.clone()),
            technique: saved.map(|checkpoint| checkpoint.technique.clone()),
            pause_budget: saved.and_then(|checkpoint| checkpoint.budget.clone()),
            error: report.outcome.as_ref().err().map(Failure::from),
        });
    }

    /// The process id of the program.
    pub fn pid(&self) -> i32 {
        self.life.pid
    }

    /// How many times the program has come back.
    pub fn generation(&self) -> u64 {
        self.life.generation
    }

    /// Whether the process that wrote it runs, as far as can be seen from here.
    pub fn is_running(&self) -> bool {
        Here::look().is_ok_and(|here| !here.is_over(&self.life))
    }

    /// Writes it to both places. That it can't be written is only logged: it tells of failures, and is not
    /// to be one.
    pub(crate) fn write(&self) {
        let folder = self.folder.clone();
        // What failed before there was a draft is told in the store as well; a program that tries nothing
        // leaves nothing there.
        let ready = match (&self.last, folder.is_dir()) {
            (Some(_), _) => entrance::make(&folder, 2),
            (None, true) => entrance::look(&folder, 2),
            (None, false) => return self.write_running(),
        };
        match ready {
            Ok(()) => self.write_to(&folder.join(layout::STATUS)),
            Err(error) => log::debug!("no status is written to the store: {}", error.chain()),
        }
        self.write_running();
    }

    fn write_running(&self) {
        let runtime = runtime::folder();
        match runtime::make(&runtime) {
            Ok(()) => self.write_to(&layout::running(&runtime, self.life.pid_namespace, self.life.pid)),
            Err(error) => log::debug!("can't make {}: {error}", runtime.display()),
        }
    }

    fn write_to(&self, path: &Path) {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| disk::replace(path, &text, &self.life.id)) {
            log::warn!("can't write {}: {error}", path.display());
        }
    }

    /// Takes the word about a process back that goes on without selfdump.
    pub(crate) fn forget_running(life: &Life) {
        let path = layout::running(&runtime::folder(), life.pid_namespace, life.pid);
        if life_in(&path).is_some_and(|of| of.id == life.id) {
            let _ = fs::remove_file(path);
        }
    }

    /// Reads one.
    pub(crate) fn read(path: &Path) -> Result<Status> {
        let text = fs::read(path).map_err(|source| Error::io("read", path, source))?;
        serde_json::from_slice(&text)
            .map_err(|source| Error::io("understand", path, std::io::Error::from(source)))
    }

    /// That of the process `pid`, if selfdump runs in it.
    pub(crate) fn of(pid: i32) -> Option<Status> {
        let namespace = Here::look().ok()?.pid_namespace;
        let status = Status::read(&layout::running(&runtime::to_read()?, namespace, pid)).ok()?;
        status.is_running().then_some(status)
    }
}

/// Whose the one in a file is: all that a program asks of those of others, so that it has no code for the rest.
pub(crate) fn life_in(file: &Path) -> Option<Life> {
    #[derive(Deserialize)]
    struct Whose {
        life: Life,
    }
    let whose: Whose = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    Some(whose.life)
}

/// That of the instance in a folder, if it has made an attempt.
pub(crate) fn in_folder(instance: &Path) -> Option<Status> {
    Status::read(&instance.join(layout::STATUS)).ok()
}

/// Those of all processes of this pid namespace that selfdump runs in, as far as this user may know.
pub(crate) fn running() -> Vec<Status> {
    let Ok(here) = Here::look() else { return Vec::new() };
    let found =
        runtime::to_read().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let read = found.filter_map(|entry| Status::read(&entry.path()).ok());
    read.filter(|status| status.life.pid_namespace == here.pid_namespace && !here.is_over(&status.life))
        .collect()
}

/// Deletes what processes left in the runtime folder that have ended since.
pub(crate) fn sweep() {
    let Ok(here) = Here::look() else { return };
    let folder = runtime::to_read().and_then(|folder| fs::read_dir(folder).ok());
    for entry in folder.into_iter().flatten().flatten() {
        if life_in(&entry.path()).is_some_and(|life| here.is_over(&life)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
