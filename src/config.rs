//! What can be set, by method and by SELFDUMP_* variable, with one meaning.
//!
//! What a program sets by a method of [`Config`] stands; what it leaves open is taken from the variable;
//! else the default holds. [`Config::resolve`] is the one place where this becomes [`Settings`]: plain,
//! complete and checked.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// How a program is checkpointed. Start with [`Config::new`], end with [`Config::install`].
///
/// | method | variable | form | default |
/// |---|---|---|---|
/// | [`dir`](Config::dir) | `SELFDUMP_DIR` | a folder | `/var/lib/selfdump` as root, else `$XDG_STATE_HOME/selfdump` (`~/.local/state/selfdump`) |
/// | [`name`](Config::name) | `SELFDUMP_NAME` | letters, digits, `.`, `_`, `-` | the program's file name |
/// | [`every`](Config::every) | `SELFDUMP_EVERY` | a duration: `30s`, `10m`, `1h 30m`; a bare number is seconds | only when asked |
/// | [`keep`](Config::keep) | `SELFDUMP_KEEP` | a number of checkpoints, at least 1 | 3 |
/// | [`timeout`](Config::timeout) | `SELFDUMP_TIMEOUT` | a duration | `10m` |
/// | [`criu`](Config::criu) | `SELFDUMP_CRIU` | a program | `criu` on PATH, else the copy that `selfdump setup` made |
/// | [`service`](Config::service) | `SELFDUMP_SERVICE` | a socket of `criu service` | the standard socket if somebody answers there, else a worker of our own |
/// | — | `SELFDUMP` | `on`, `off` | `on` |
#[derive(Clone, Debug, Default)]
#[must_use = "a Config does nothing until it is installed"]
pub struct Config {
    dir: Option<PathBuf>,
    name: Option<String>,
    every: Option<Duration>,
    keep: Option<u32>,
    timeout: Option<Duration>,
    criu: Option<PathBuf>,
    service: Option<PathBuf>,
}

impl Config {
    /// Everything left open: as the SELFDUMP_* variables say, else the defaults.
    pub fn new() -> Config {
        Config::default()
    }

    /// The store: the folder that checkpoints of all names are kept in. It is made when it is missing,
    /// readable by this user alone.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Config {
        self.dir = Some(dir.into());
        self
    }

    /// The name that the checkpoints are found under.
    pub fn name(mut self, name: impl Into<String>) -> Config {
        self.name = Some(name.into());
        self
    }

    /// Takes a checkpoint whenever this much time has passed since the last one ended.
    pub fn every(mut self, period: Duration) -> Config {
        self.every = Some(period);
        self
    }

    /// How many checkpoints stay; older ones are deleted after each new one.
    pub fn keep(mut self, checkpoints: u32) -> Config {
        self.keep = Some(checkpoints);
        self
    }

    /// How long CRIU may take to answer before a checkpoint counts as failed.
    pub fn timeout(mut self, timeout: Duration) -> Config {
        self.timeout = Some(timeout);
        self
    }

    /// The CRIU program to start for each dump.
    pub fn criu(mut self, program: impl Into<PathBuf>) -> Config {
        self.criu = Some(program.into());
        self
    }

    /// The socket of a running `criu service`, to be asked instead of a worker of our own.
    pub fn service(mut self, socket: impl Into<PathBuf>) -> Config {
        self.service = Some(socket.into());
        self
    }

    /// Fills in what was left open, and checks everything.
    pub(crate) fn resolve(self, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Settings> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let path = |set: Option<PathBuf>, name: &str| set.or_else(|| variable(name).map(PathBuf::from));
        let duration = |set: Option<Duration>, name: &str| match set {
            Some(duration) => Ok(Some(duration)),
            None => variable(name).map(|value| parse_duration(name, &value)).transpose(),
        };
        let keep = match self.keep {
            Some(keep) => keep,
            None => variable("SELFDUMP_KEEP")
                .map_or(Ok(DEFAULT_KEEP), |value| parse_count("SELFDUMP_KEEP", &value))?,
        };
        let schedule = match duration(self.every, "SELFDUMP_EVERY")? {
            Some(period) => Schedule::Every(positive("SELFDUMP_EVERY", period)?),
            None => Schedule::OnDemand,
        };
        let timeout = duration(self.timeout, "SELFDUMP_TIMEOUT")?.unwrap_or(DEFAULT_TIMEOUT);
        let name = match self.name {
            Some(name) => name,
            None => {
                variable("SELFDUMP_NAME").map_or_else(program_name, |value| text("SELFDUMP_NAME", &value))?
            }
        };
        Ok(Settings {
            enabled: parse_switch(variable("SELFDUMP"))?,
            dir: absolute(path(self.dir, "SELFDUMP_DIR").map_or_else(|| default_dir(environment), Ok)?)?,
            name: checked_name(name)?,
            schedule,
            keep: checked_keep(keep)?,
            timeout: positive("SELFDUMP_TIMEOUT", timeout)?.min(LONGEST_TIMEOUT),
            criu: path(self.criu, "SELFDUMP_CRIU"),
            service: path(self.service, "SELFDUMP_SERVICE"),
        })
    }
}

const DEFAULT_KEEP: u32 = 3;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// A year: what is longer is for ever, and the clock could not hold it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// How often checkpoints are taken without anybody asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// Only when asked, by a signal or a call.
    #[default]
    OnDemand,
    /// Once in each period, counted from the end of the last checkpoint.
    Every(Duration),
}

/// A complete, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) enabled: bool,
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) schedule: Schedule,
    pub(crate) keep: u32,
    pub(crate) timeout: Duration,
    pub(crate) criu: Option<PathBuf>,
    pub(crate) service: Option<PathBuf>,
}

/// The process's environment; nothing where it was started with more rights than its user has, because
/// then whoever started it could have its memory written wherever they like.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    if sys::process::is_privileged_start() { None } else { std::env::var_os(name) }
}

/// The store where nothing else is said.
pub(crate) fn default_dir(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
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
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().map(|c| if is_name_character(c) { c } else { '_' }).take(100).collect();
    Ok(if name.starts_with(['.', '-']) { format!("_{}", &name[1..]) } else { name })
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

fn checked_keep(keep: u32) -> Result<u32> {
    if keep > 0 {
        return Ok(keep);
    }
    Err(Error::new(ErrorKind::Config, "0 checkpoints can't be kept")
        .with_hint("SELFDUMP_KEEP and Config::keep take a whole number from 1 up"))
}

fn positive(name: &str, duration: Duration) -> Result<Duration> {
    if duration.is_zero() { Err(bad(name, "0", DURATION_FORM)) } else { Ok(duration) }
}

const DURATION_FORM: &str = "a duration above zero, such as 30s, 10m or 1h 30m; a bare number is seconds";

fn parse_duration(name: &str, value: &OsStr) -> Result<Duration> {
    let text = text(name, value)?;
    if let Ok(seconds) = text.trim().parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text.trim())
        .map_err(|source| bad(name, &text, DURATION_FORM).with_source(source))
}

fn parse_count(name: &str, value: &OsStr) -> Result<u32> {
    let text = text(name, value)?;
    text.trim().parse().map_err(|source: std::num::ParseIntError| {
        bad(name, &text, "a whole number from 1 up").with_source(source)
    })
}

fn parse_switch(value: Option<OsString>) -> Result<bool> {
    match value.as_deref().map(OsStr::to_string_lossy).as_deref() {
        None | Some("on" | "1") => Ok(true),
        Some("off" | "0") => Ok(false),
        Some(other) => Err(bad("SELFDUMP", other, "on or off")),
    }
}

fn text(name: &str, value: &OsStr) -> Result<String> {
    value.to_str().map(str::to_owned).ok_or_else(|| bad(name, &value.to_string_lossy(), "text in UTF-8"))
}

fn bad(name: &str, value: &str, form: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{name} can't be {value:?}"))
        .with_hint(format!("{name} takes {form}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: Config, variables: &[(&str, &str)]) -> Result<Settings> {
        config.resolve(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn every_setting_has_one_meaning_by_method_and_by_variable() {
        let by_method = Config::new()
            .dir("/tmp/checkpoints")
            .name("app")
            .every(Duration::from_secs(90))
            .keep(5)
            .timeout(Duration::from_secs(7))
            .criu("/opt/criu")
            .service("/run/criu.socket");
        let by_variable = [
            ("SELFDUMP_DIR", "/tmp/checkpoints"),
            ("SELFDUMP_NAME", "app"),
            ("SELFDUMP_EVERY", "1m 30s"),
            ("SELFDUMP_KEEP", "5"),
            ("SELFDUMP_TIMEOUT", "7"),
            ("SELFDUMP_CRIU", "/opt/criu"),
            ("SELFDUMP_SERVICE", "/run/criu.socket"),
        ];
        assert_eq!(resolve(by_method, &[]).unwrap(), resolve(Config::new(), &by_variable).unwrap());
    }

    #[test]
    fn what_the_program_sets_stands_and_an_empty_variable_is_none() {
        let settings =
            resolve(Config::new().keep(2), &[("SELFDUMP_KEEP", "9"), ("SELFDUMP_EVERY", "")]).unwrap();
        assert_eq!((settings.keep, settings.schedule), (2, Schedule::OnDemand));
    }

    #[test]
    fn wrong_values_are_named_with_the_allowed_form() {
        for (name, value, form) in [
            ("SELFDUMP_EVERY", "often", "30s"),
            ("SELFDUMP_EVERY", "0s", "above zero"),
            ("SELFDUMP_KEEP", "-1", "whole number"),
            ("SELFDUMP_KEEP", "0", "from 1 up"),
            ("SELFDUMP_TIMEOUT", "0", "above zero"),
            ("SELFDUMP_NAME", "a/b", "letters"),
            ("SELFDUMP_NAME", "..", "letters"),
            ("SELFDUMP", "maybe", "on or off"),
        ] {
            let error = resolve(Config::new(), &[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{name}={value}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(name) && hint.contains(form), "{name}={value}: {hint}");
        }
    }

    #[test]
    fn a_relative_store_is_made_absolute_while_the_current_folder_is_known() {
        let settings = resolve(Config::new().dir("checkpoints"), &[]).unwrap();
        assert_eq!(settings.dir, std::env::current_dir().unwrap().join("checkpoints"));
    }
}
