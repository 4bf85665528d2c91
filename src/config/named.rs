//! For front-ends in other languages: settings by their names, from text, and the script that an interpreter runs.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::values::{self, Fraction, Value};
use super::{Config, Exit};
use crate::error::{Error, ErrorKind, Result};

/// The settings of [`Config`], as the methods are called.
const NAMES: [&str; 22] = [
    "dir",
    "name",
    "keep",
    "keep_forensic",
    "signal",
    "exit_signal",
    "exit_with",
    "every",
    "jitter",
    "overhead",
    "mtbf",
    "first_after",
    "min_interval",
    "hold_timeout",
    "files",
    "copy_files",
    "copy_limit",
    "on_panic",
    "on_fatal_signal",
    "timeout",
    "criu",
    "service",
];

impl Config {
    /// Sets what the method of this name sets, from the text that the variable of this setting takes: for front-ends
    /// in other languages. `exit_with` takes an exit status.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// selfdump::Config::new().set("every", "10m")?.set("keep", "3")?.install()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a name that no setting has, and for text that isn't of the setting's form.
    pub fn set(mut self, name: &str, value: impl AsRef<OsStr>) -> Result<Config> {
        let value = value.as_ref();
        match name {
            "dir" => self.dir = Some(value.into()),
            "name" => self.name = Some(values::text(name, value)?),
            "keep" => read(&mut self.keep, name, value)?,
            "keep_forensic" => read(&mut self.keep_forensic, name, value)?,
            "signal" => read(&mut self.signal, name, value)?,
            "exit_signal" => read(&mut self.exit_signal, name, value)?,
            "exit_with" => self.exit = Some(Exit::Status(values::read(name, value)?)),
            "every" => read(&mut self.every, name, value)?,
            "jitter" => read(&mut self.jitter, name, value)?,
            "overhead" => self.overhead = Some(values::read::<Fraction>(name, value)?.0),
            "mtbf" => read(&mut self.mtbf, name, value)?,
            "first_after" => read(&mut self.first_after, name, value)?,
            "min_interval" => read(&mut self.min_interval, name, value)?,
            "hold_timeout" => read(&mut self.hold_timeout, name, value)?,
            "files" => read(&mut self.files, name, value)?,
            "copy_files" => read(&mut self.copy_files, name, value)?,
            "copy_limit" => read(&mut self.copy_limit, name, value)?,
            "on_panic" => read(&mut self.on_panic, name, value)?,
            "on_fatal_signal" => read(&mut self.on_fatal_signal, name, value)?,
            "timeout" => read(&mut self.timeout, name, value)?,
            "criu" => self.criu = Some(value.into()),
            "service" => self.service = Some(value.into()),
            _ => return Err(unknown(name)),
        }
        Ok(self)
    }

    /// The program, for one that an interpreter runs: the checkpoints are found under its file name, where neither
    /// [`name`](Config::name) nor the variable says otherwise. Else it is the process's own program.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Config {
        self.program = Some(program.into());
        self
    }
}

fn read<T: Value>(setting: &mut Option<T>, name: &str, value: &OsStr) -> Result<()> {
    *setting = Some(values::read(name, value)?);
    Ok(())
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::Config, format!("there is no setting {name:?}"))
        .with_hint(format!("the settings are {}", NAMES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that each setting takes, and what it becomes.
    fn set_all() -> Config {
        let text = |name: &str| match name {
            "dir" | "criu" | "service" => "/somewhere",
            "name" => "counter",
            "signal" => "USR1",
            "exit_signal" => "TERM",
            "overhead" => "1%",
            "files" => "rewind:*.csv keep:/var/log/**",
            "copy_files" => "*.db",
            "copy_limit" => "2 MiB",
            "on_panic" | "on_fatal_signal" => "on",
            _ => "7",
        };
        NAMES.iter().fold(Config::new(), |config, name| config.set(name, text(name)).unwrap())
    }

    #[test]
    fn every_setting_can_be_set_by_its_name() {
        let config = set_all().program("counter");
        assert_eq!((config.keep, config.every), (Some(7), Some(std::time::Duration::from_secs(7))));
        assert_eq!((config.overhead, config.exit.as_ref()), (Some(0.01), Some(&Exit::Status(7))));
        let text = format!("{config:?}");
        assert!(!text.contains("None"), "something was left open: {text}");
    }

    #[test]
    fn the_names_are_those_of_the_page_about_settings() {
        let page = include_str!("../../docs/settings.md");
        let methods = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let methods: Vec<&str> = methods.map(|(name, _)| name).collect();
        assert_eq!(methods, NAMES);
    }

    #[test]
    fn a_wrong_name_and_a_wrong_value_are_named_with_what_can_be() {
        let error = Config::new().set("evry", "10m").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.hint().unwrap().contains("every"));
        let error = Config::new().set("every", "often").unwrap_err();
        assert_eq!(error.to_string(), "every can't be \"often\"");
        assert!(error.hint().unwrap().contains("10m"));
    }
}
