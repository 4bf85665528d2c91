//! Whether a CRIU works on this kernel, and if not, the line that says why.
//!
//! `criu --version` answers even where nothing else works, so it proves nothing: `criu check` and a real dump of a
//! small process do.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, geteuid, getsid};

use super::command::{self, Group};

/// How long each command of a probe may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A version of CRIU, such as 4.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 4 of 4.2.1.
    pub major: u32,
    /// The 2 of 4.2.1.
    pub minor: u32,
    /// The 1 of 4.2.1; 0 in a version of two numbers.
    pub patch: u32,
}

impl Version {
    /// Reads what `criu --version` prints.
    fn parse(output: &str) -> Option<Self> {
        let numbers = output.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
        let mut numbers = numbers.split(['.', '-', '+', ' ']).map(|number| number.parse().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some(Self { major, minor, patch: numbers.next().flatten().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.patch {
            0 => write!(f, "{}.{}", self.major, self.minor),
            patch => write!(f, "{}.{}.{patch}", self.major, self.minor),
        }
    }
}

/// What a CRIU was asked to do when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `criu --version`
    Version,
    /// `criu check`
    Check,
    /// The dump of a small process.
    Dump,
}

/// Why a CRIU can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it failed at.
    pub stage: Stage,
    /// The line of its output or log that tells why.
    pub reason: String,
}

impl Failure {
    /// Whether the program lacks a permission, which another copy of it would lack as well.
    pub fn is_permission(&self) -> bool {
        ["CAP_", "capabilit", "Operation not permitted"].iter().any(|sign| self.reason.contains(sign))
    }

    /// Whether it's known to be the mark of a CRIU that is older than the kernel's ways.
    pub fn is_too_old(&self) -> bool {
        self.reason.contains("vDSO") || self.reason.contains("Can't get 1:16 opt")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Version => "`criu --version`",
            Stage::Check => "`criu check`",
            Stage::Dump => "the dump of a small process",
        };
        write!(f, "{stage} fails: {}", self.reason)?;
        if self.is_too_old() {
            write!(f, " (this CRIU is too old for the kernel)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Asks `criu` for its version, its own check and a real dump.
pub fn probe(criu: &Path) -> Result<Version, Failure> {
    probe_within(criu, DEADLINE)
}

/// [`probe`] with another deadline for each command.
pub fn probe_within(criu: &Path, deadline: Duration) -> Result<Version, Failure> {
    let output = succeed(Command::new(criu).arg("--version"), Stage::Version, deadline)?;
    let version = Version::parse(&output).ok_or_else(|| Failure {
        stage: Stage::Version,
        reason: match output.lines().next() {
            Some(line) => format!("it answers `{line}`, which is no version of CRIU"),
            None => "it answers nothing".to_owned(),
        },
    })?;
    succeed(unprivileged(Command::new(criu).arg("check")), Stage::Check, deadline)?;
    dump(criu, deadline)?;
    Ok(version)
}

fn dump(criu: &Path, deadline: Duration) -> Result<(), Failure> {
    let failed =
        |what: &str, error: io::Error| Failure { stage: Stage::Dump, reason: format!("{what}: {error}") };
    let folder = tempfile::Builder::new()
        .prefix("selfdump-probe-")
        .tempdir()
        .map_err(|error| failed("can't make a folder for it", error))?;
    let victim =
        Victim::start().map_err(|error| failed("can't start one with `setsid sh -c sleep`", error))?;
    let mut command = Command::new(criu);
    unprivileged(command.arg("dump"))
        .args(["--leave-running", "-v2", "-o", "dump.log", "-t"])
        .arg(victim.0.id().to_string())
        .arg("-D")
        .arg(folder.path());
    succeed(&mut command, Stage::Dump, deadline).map_err(|failure| {
        // The log says more than the output, which may be empty; where there is no log the output has to do.
        let log = std::fs::read(folder.path().join("dump.log")).unwrap_or_default();
        match telling_line(&String::from_utf8_lossy(&log)) {
            Some(reason) => Failure { reason, ..failure },
            None => failure,
        }
    })?;
    Ok(())
}

/// CRIU wants to be told that it has to do with the capabilities of an ordinary user.
fn unprivileged(command: &mut Command) -> &mut Command {
    if geteuid().is_root() { command } else { command.arg("--unprivileged") }
}

/// Runs one command of the probe and returns its output; whatever isn't success becomes a reason.
fn succeed(command: &mut Command, stage: Stage, deadline: Duration) -> Result<String, Failure> {
    let ran = command::run(command, Group::Own, deadline)
        .map_err(|error| Failure { stage, reason: format!("it can't be started: {error}") })?;
    if ran.ok() {
        return Ok(ran.output);
    }
    let told = ran.status.and_then(|_| telling_line(&ran.output));
    Err(Failure { stage, reason: told.unwrap_or_else(|| ran.ending(deadline)) })
}

/// The line of CRIU's output or log that names the cause: the first error, since the later ones follow from it.
///
/// Two lines are harmless and come on success too: CRIU can't raise its own descriptor limit without
/// CAP_SYS_RESOURCE, and can't cache its kernel probing where /run is no tmpfs.
pub fn telling_line(text: &str) -> Option<String> {
    let harmless = |line: &&str| !line.contains("RLIMIT_NOFILE") && !line.contains("kdat");
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty()).filter(harmless);
    let error = lines().find_map(|line| {
        // With a time in front: `(00.012345) Error (criu/vdso.c:381): vdso: Unexpected …`.
        let line = line.split_once("Error (")?.1;
        Some(line.split_once("): ").map_or(line, |(_, message)| message))
    });
    error
        .or_else(|| lines().find(|line| line.contains("CAP_")))
        .or_else(|| lines().next_back())
        .map(|line| line.trim_end_matches(':').to_owned())
}

/// A small process to dump, ended when this is dropped.
struct Victim(Child);

impl Victim {
    /// Starts `sleep` as the leader of its own session, holding nothing but /dev/null.
    ///
    /// In our session or with our terminal CRIU would want `--shell-job`. The shell closes the low descriptors
    /// that we may have inherited from whoever started us: a socket among them would make the dump fail.
    fn start() -> io::Result<Self> {
        let close = "for fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done; exec sleep 60";
        let child = Command::new("setsid")
            .args(["sh", "-c", close])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut victim = Self(child);
        victim.settle()?;
        Ok(victim)
    }

    /// Waits until the process has its session; before that CRIU would take our terminal for its own.
    fn settle(&mut self) -> io::Result<()> {
        let pid = Pid::from_raw(self.0.id() as i32);
        let started = Instant::now();
        while getsid(Some(pid)) != Ok(pid) {
            if let Some(status) = self.0.try_wait()? {
                return Err(io::Error::other(format!("it ended at once, {status}")));
            }
            if started.elapsed() > Duration::from_secs(5) {
                return Err(io::Error::other("it got no session of its own within 5 s"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail only when it's gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
