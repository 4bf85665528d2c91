//! What a machine, and a program, lack for dumps and restores: facts are gathered, and judged by pure functions.
//!
//! - [`machine`] looks at everything that all programs need, and has a small process dumped for a proof: this one.
//! - [`program`] looks at what one running program has.

mod criu;
mod facts;
mod judge;
mod running;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::config::for_commands;
use crate::error::{Error, Result};

/// How long CRIU may take for a small process.
const PATIENCE: Duration = Duration::from_secs(30);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at, in a word or two: `criu`, `store`, `descriptors`.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it: a command to copy, where there is one.
    pub remedy: Option<String>,
}

/// How something is that was looked at. The worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it has to be, or of no matter.
    Ok,
    /// Dumps and restores work, but not all of them, or not safely.
    Warning,
    /// Dumps or restores don't work.
    Failed,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Ok, message: message.into(), remedy: None }
    }

    fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    fn failed(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Failed, ..Finding::warning(check, message, remedy) }
    }

    /// An error as what was found.
    fn of(check: &'static str, verdict: Verdict, error: &Error) -> Finding {
        Finding { check, verdict, message: error.chain(), remedy: error.hint().map(str::to_owned) }
    }
}

/// What dumps and restores are made with here.
#[derive(Clone, Debug)]
struct Setup {
    store: PathBuf,
    criu: Option<PathBuf>,
    service: Option<PathBuf>,
}

/// The worst of what was found; ok where there is nothing.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

/// Looks at the machine, as the SELFDUMP_* variables have it used; `dir` is the store, where another one is meant. This
/// process is dumped into a temporary folder, which takes some tenths of a second, and goes on.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for a variable with a value that it can't have.
pub fn machine(dir: Option<&Path>) -> Result<Vec<Finding>> {
    let settings = for_commands(dir)?;
    let setup = Setup { store: settings.dir, criu: settings.criu, service: settings.service };
    let mut found = criu::look(&setup);
    found.extend(judge::machine(&facts::look(&setup)));
    Ok(found)
}

/// Looks at a running program: its handler, everything that CRIU may refuse, its store.
///
/// # Errors
///
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where there is no such process.
pub fn program(pid: i32) -> Result<Vec<Finding>> {
    running::look(pid).map(|facts| running::judge(&facts))
}
