//! From what was set, by whichever way, to [`Settings`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::values::{self, Fraction, Value, bad};
use super::{Config, Exit, FilePattern, FileRule, Schedule, Snapshot, Staging, Timing};
use crate::compression::Compression;
use crate::encryption::Recipient;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::report::Cause;
use crate::sys;
use crate::sys::signal::Signal;

/// A complete, valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) enabled: bool,
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) keep: u32,
    pub(crate) keep_forensic: u32,
    pub(crate) signal: Signal,
    pub(crate) exit_signal: Option<Signal>,
    pub(crate) exit: Exit,
    pub(crate) timing: Timing,
    pub(crate) hold_timeout: Duration,
    pub(crate) files: Vec<FileRule>,
    pub(crate) copy_files: Vec<FilePattern>,
    pub(crate) copy_limit: Bytes,
    pub(crate) copy_open: Bytes,
    pub(crate) keep_tcp: bool,
    pub(crate) encrypt_to: Vec<Recipient>,
    pub(crate) staging: Staging,
    pub(crate) snapshot: Snapshot,
    pub(crate) incremental: bool,
    pub(crate) compress: Compression,
    pub(crate) max_pause: Option<Duration>,
    pub(crate) huge_pages: bool,
    pub(crate) on_panic: bool,
    pub(crate) on_fatal_signal: bool,
    pub(crate) metrics_textfile: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) criu: Option<PathBuf>,
    pub(crate) service: Option<PathBuf>,
}

impl Settings {
    /// Whether checkpoints are encrypted.
    pub(crate) fn encrypts(&self) -> bool {
        !self.encrypt_to.is_empty()
    }

    /// What may be told of a cause where everybody who can read the disk reads it.
    pub(crate) fn told(&self, cause: &Cause) -> Cause {
        if self.encrypts() { cause.without_words() } else { cause.clone() }
    }

    /// The most that copies of files take in a checkpoint.
    pub(crate) fn most_to_copy(&self) -> Bytes {
        let named = if self.copy_files.is_empty() { Bytes(0) } else { self.copy_limit };
        Bytes(named.0.saturating_add(self.copy_open.0))
    }
}

const DEFAULT_KEEP: u32 = 3;
const DEFAULT_COPY_LIMIT: Bytes = Bytes::mebibytes(1024);
const DEFAULT_HOLD_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// A year: what is longer is for ever, and the clock could not hold it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where variables are looked up.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Config {
    /// Fills in what was left open, and checks everything.
    pub(crate) fn resolve(self, environment: Environment<'_>) -> Result<Settings> {
        let variables = Variables(environment);
        let schedule = schedule(&self, &variables)?;
        let name = match self.name {
            Some(name) => name,
            None => match variables.value("SELFDUMP_NAME") {
                Some(value) => values::text("SELFDUMP_NAME", &value)?,
                None => self.program.as_deref().map_or_else(program_name, |program| Ok(name_of(program)))?,
            },
        };
        let dir = self.dir.or_else(|| variables.path("SELFDUMP_DIR"));
        let signal = variables.or(self.signal, "SELFDUMP_SIGNAL")?.unwrap_or(Signal::USR2);
        let exit_signal = variables.or(self.exit_signal, "SELFDUMP_EXIT_SIGNAL")?;
        let exit = match self.exit {
            Some(exit) => exit,
            None => Exit::Status(variables.or(None, "SELFDUMP_EXIT_STATUS")?.unwrap_or(0)),
        };
        let keep = variables.or(self.keep, "SELFDUMP_KEEP")?.unwrap_or(DEFAULT_KEEP);
        let keep_forensic = variables.or(self.keep_forensic, "SELFDUMP_KEEP_FORENSIC")?;
        let first_after = variables.or(self.first_after, "SELFDUMP_FIRST_AFTER")?;
        let min_interval = variables.or(self.min_interval, "SELFDUMP_MIN_INTERVAL")?.unwrap_or_default();
        let hold = variables.or(self.hold_timeout, "SELFDUMP_HOLD_TIMEOUT")?.unwrap_or(DEFAULT_HOLD_TIMEOUT);
        let max_pause = variables.or(self.max_pause, "SELFDUMP_MAX_PAUSE")?;
        let textfile = self.metrics_textfile.or_else(|| variables.path("SELFDUMP_METRICS_TEXTFILE"));
        let timeout = variables.or(self.timeout, "SELFDUMP_TIMEOUT")?.unwrap_or(DEFAULT_TIMEOUT);
        Ok(Settings {
            enabled: variables.or(None, "SELFDUMP")?.unwrap_or(true),
            dir: absolute(dir.map_or_else(|| default_dir(environment), Ok)?)?,
            name: checked_name(name)?,
            keep: above_zero("SELFDUMP_KEEP", keep)?,
            keep_forensic: above_zero("SELFDUMP_KEEP_FORENSIC", keep_forensic.unwrap_or(DEFAULT_KEEP))?,
            signal,
            exit_signal: checked_exit_signal(exit_signal, signal)?,
            exit,
            timing: Timing { schedule, first_after, min_interval },
            hold_timeout: hold.min(LONGEST_TIMEOUT),
            files: variables.or(self.files, "SELFDUMP_FILES")?.unwrap_or_default(),
            copy_files: variables.or(self.copy_files, "SELFDUMP_COPY_FILES")?.unwrap_or_default(),
            copy_limit: variables.or(self.copy_limit, "SELFDUMP_COPY_LIMIT")?.unwrap_or(DEFAULT_COPY_LIMIT),
            copy_open: variables.or(self.copy_open, "SELFDUMP_COPY_OPEN")?.unwrap_or(Bytes(0)),
            keep_tcp: variables.or(self.keep_tcp, "SELFDUMP_KEEP_TCP")?.unwrap_or(false),
            encrypt_to: match self.encrypt_to {
                Some(recipients) => somebody(recipients)?,
                None => variables.recipients("SELFDUMP_ENCRYPT_TO")?.unwrap_or_default(),
            },
            staging: checked_staging(variables.or(self.staging, "SELFDUMP_STAGING")?.unwrap_or_default())?,
            snapshot: variables.or(self.snapshot, "SELFDUMP_SNAPSHOT")?.unwrap_or_default(),
            incremental: variables.or(self.incremental, "SELFDUMP_INCREMENTAL")?.unwrap_or(true),
            compress: variables.or(self.compress, "SELFDUMP_COMPRESS")?.unwrap_or_default().checked()?,
            max_pause: max_pause.map(|limit| positive("SELFDUMP_MAX_PAUSE", limit)).transpose()?,
            huge_pages: variables.or(self.huge_pages, "SELFDUMP_HUGE_PAGES")?.unwrap_or(true),
            on_panic: variables.or(self.on_panic, "SELFDUMP_ON_PANIC")?.unwrap_or(false),
            on_fatal_signal: variables.or(self.on_fatal_signal, "SELFDUMP_ON_FATAL_SIGNAL")?.unwrap_or(false),
            metrics_textfile: textfile.map(checked_textfile).transpose()?,
            timeout: positive("SELFDUMP_TIMEOUT", timeout)?.min(LONGEST_TIMEOUT),
            criu: self.criu.or_else(|| variables.path("SELFDUMP_CRIU")),
            service: self.service.or_else(|| variables.path("SELFDUMP_SERVICE")),
        })
    }
}

/// The SELFDUMP_* variables; an empty one is none.
struct Variables<'a>(Environment<'a>);

impl Variables<'_> {
    fn value(&self, name: &str) -> Option<OsString> {
        self.0(name).filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// Why one can't be a recipient is told by itself.
    fn recipients(&self, name: &str) -> Result<Option<Vec<Recipient>>> {
        self.value(name).map(|value| values::recipients(name, &value)).transpose()
    }

    /// What was set by the program, else by the variable.
    fn or<T: Value>(&self, set: Option<T>, name: &str) -> Result<Option<T>> {
        match set {
            Some(set) => Ok(Some(set)),
            None => self.value(name).map(|value| values::read(name, &value)).transpose(),
        }
    }
}

/// What the program says of its schedule stands as a whole: a variable can't add a second one to it.
fn schedule(config: &Config, variables: &Variables<'_>) -> Result<Schedule> {
    let by_program = config.every.is_some() || config.overhead.is_some() || config.mtbf.is_some();
    let left = |name: &'static str| if by_program { "" } else { name };
    let every = variables.or(config.every, left("SELFDUMP_EVERY"))?;
    let overhead = variables.or(config.overhead.map(Fraction), left("SELFDUMP_OVERHEAD"))?;
    let mtbf = variables.or(config.mtbf, left("SELFDUMP_MTBF"))?;
    let jitter = variables.or(config.jitter, left("SELFDUMP_JITTER"))?;
    if jitter.is_some() && every.is_none() {
        return Err(Error::new(ErrorKind::Config, "a jitter without a period")
            .with_hint("set SELFDUMP_EVERY or Config::every as well, or leave SELFDUMP_JITTER unset"));
    }
    match (every, overhead, mtbf) {
        (None, None, None) => Ok(Schedule::OnDemand),
        (Some(period), None, None) => Ok(Schedule::Every {
            period: positive("SELFDUMP_EVERY", period)?,
            jitter: jitter.unwrap_or_default(),
        }),
        (None, Some(share), None) => Ok(Schedule::Overhead { fraction: checked_fraction(share)? }),
        (None, None, Some(mtbf)) => Ok(Schedule::Mtbf { mtbf: positive("SELFDUMP_MTBF", mtbf)? }),
        _ => Err(Error::new(ErrorKind::Config, "there is more than one schedule")
            .with_hint("set only one of SELFDUMP_EVERY, SELFDUMP_OVERHEAD and SELFDUMP_MTBF, or of the methods of the same names")),
    }
}

/// Whoever asks for encryption and has got nobody's key is not to get what everybody can read.
fn somebody(recipients: Vec<Recipient>) -> Result<Vec<Recipient>> {
    match recipients.is_empty() {
        true => Err(Error::new(ErrorKind::Config, "checkpoints are to be encrypted to nobody").with_hint(
            "name a recipient (Config::encrypt_to), or don't call it for checkpoints that are not encrypted",
        )),
        false => Ok(recipients),
    }
}

/// A program may change its folder.
fn checked_staging(staging: Staging) -> Result<Staging> {
    match staging {
        Staging::Folder(folder) => Ok(Staging::Folder(absolute(folder)?)),
        other => Ok(other),
    }
}

/// The collector reads no files of other names.
fn checked_textfile(path: PathBuf) -> Result<PathBuf> {
    match path.extension().is_some_and(|extension| extension == "prom") {
        true => absolute(path),
        false => Err(bad(
            "SELFDUMP_METRICS_TEXTFILE",
            &path.to_string_lossy(),
            "the path of a file whose name ends in .prom",
        )),
    }
}

fn checked_fraction(Fraction(fraction): Fraction) -> Result<f64> {
    match fraction > 0.0 && fraction < 1.0 {
        true => Ok(fraction),
        false => Err(bad("SELFDUMP_OVERHEAD", &fraction.to_string(), Fraction::FORM)),
    }
}

fn checked_exit_signal(exit: Option<Signal>, signal: Signal) -> Result<Option<Signal>> {
    if exit != Some(signal) {
        return Ok(exit);
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("{signal} can't both ask for a checkpoint and end the program"),
    )
    .with_hint("name another signal with SELFDUMP_EXIT_SIGNAL or SELFDUMP_SIGNAL"))
}

fn positive(name: &str, duration: Duration) -> Result<Duration> {
    const FORM: &str = "a duration above zero, such as 30s, 10m or 1h 30m; a bare number is seconds";
    if duration.is_zero() { Err(bad(name, "0", FORM)) } else { Ok(duration) }
}

fn above_zero(name: &str, count: u32) -> Result<u32> {
    if count > 0 { Ok(count) } else { Err(bad(name, "0", "a whole number from 1 up")) }
}

/// The process's environment; nothing where it was started with more rights than its user has, because
/// then whoever started it could have its memory written wherever they like.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    if sys::process::is_privileged_start() { None } else { std::env::var_os(name) }
}

/// What the SELFDUMP_* variables say, to a command that looks at programs from outside; `dir` is the store, where another
/// one is meant.
pub(crate) fn for_commands(dir: Option<&Path>) -> Result<Settings> {
    let config = match dir {
        Some(dir) => Config::new().dir(dir),
        None => Config::new(),
    };
    // The name is that of the program that is looked at, not of the one that looks.
    config.name("command").resolve(&|name| match name {
        "SELFDUMP" => None,
        name => environment(name),
    })
}

/// The store where nothing else is said.
fn default_dir(environment: Environment<'_>) -> Result<PathBuf> {
    if sys::process::is_root() {
        return Ok(PathBuf::from("/var/lib/selfdump"));
    }
    let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|state| state.join("selfdump"))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "no folder for the checkpoints: neither XDG_STATE_HOME nor HOME is set",
            )
            .with_hint("name one with SELFDUMP_DIR or Config::dir")
        })
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(|source| Error::io("find", &path, source))
}

fn program_name() -> Result<String> {
    let program = sys::procfs::executable(sys::process::id())
        .map_err(|source| Error::io("read", Path::new("/proc/self/exe"), source))?;
    Ok(name_of(&program))
}

/// The name that a program's checkpoints are found under where nothing else is said.
pub(crate) fn name_of(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().map(|c| if is_name_character(c) { c } else { '_' }).take(100).collect();
    if name.starts_with(['.', '-']) { format!("_{}", &name[1..]) } else { name }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// A name becomes a folder's name, and stands beside folders' paths on command lines.
fn checked_name(name: String) -> Result<String> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if starts_well && name.len() <= 100 && name.chars().all(is_name_character) {
        return Ok(name);
    }
    Err(Error::new(ErrorKind::Config, format!("{name:?} can't be the name of a program's checkpoints"))
        .with_hint("SELFDUMP_NAME and Config::name take up to 100 letters, digits, '.', '_' and '-', beginning with a letter, a digit or '_'"))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
