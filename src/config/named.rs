//! For front-ends in other languages: settings by their names, from text, and the script that an interpreter runs.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::values::{self, Fraction, Value};
use super::{Config, Exit};
use crate::error::{Error, ErrorKind, Result};

impl Config {
    /// Sets one setting by its name, to a value as it is written in its variable: `every` to `10m`. The name is that of
    /// the variable, in small letters and without `selfdump_`. What is set so stands as if it were set by the method;
    /// an empty value leaves the setting open.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// selfdump::Config::new().set("every", "10m")?.set("exit_status", "75")?.install()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where there is no such setting, or for a value that can't be read.
    pub fn set(mut self, name: &str, value: impl AsRef<OsStr>) -> Result<Config> {
        let value = value.as_ref();
        if value.is_empty() {
            return Ok(self);
        }
        let variable = format!("SELFDUMP_{}", name.to_ascii_uppercase());
        match name {
            "dir" => self.dir = Some(value.into()),
            "name" => self.name = Some(values::text(&variable, value)?),
            "keep" => read(&mut self.keep, &variable, value)?,
            "keep_forensic" => read(&mut self.keep_forensic, &variable, value)?,
            "signal" => read(&mut self.signal, &variable, value)?,
            "exit_signal" => read(&mut self.exit_signal, &variable, value)?,
            "exit_status" => self.exit = Some(Exit::Status(values::read(&variable, value)?)),
            "every" => read(&mut self.every, &variable, value)?,
            "jitter" => read(&mut self.jitter, &variable, value)?,
            "overhead" => self.overhead = Some(values::read::<Fraction>(&variable, value)?.0),
            "mtbf" => read(&mut self.mtbf, &variable, value)?,
            "first_after" => read(&mut self.first_after, &variable, value)?,
            "min_interval" => read(&mut self.min_interval, &variable, value)?,
            "hold_timeout" => read(&mut self.hold_timeout, &variable, value)?,
            "files" => read(&mut self.files, &variable, value)?,
            "copy_files" => read(&mut self.copy_files, &variable, value)?,
            "copy_limit" => read(&mut self.copy_limit, &variable, value)?,
            "copy_open" => read(&mut self.copy_open, &variable, value)?,
            "keep_tcp" => read(&mut self.keep_tcp, &variable, value)?,
            "encrypt_to" => self.encrypt_to = Some(values::recipients(&variable, value)?),
            "staging" => read(&mut self.staging, &variable, value)?,
            "snapshot" => read(&mut self.snapshot, &variable, value)?,
            "incremental" => read(&mut self.incremental, &variable, value)?,
            "compress" => read(&mut self.compress, &variable, value)?,
            "max_pause" => read(&mut self.max_pause, &variable, value)?,
            "huge_pages" => read(&mut self.huge_pages, &variable, value)?,
            "metrics_textfile" => self.metrics_textfile = Some(value.into()),
            "on_panic" => read(&mut self.on_panic, &variable, value)?,
            "on_fatal_signal" => read(&mut self.on_fatal_signal, &variable, value)?,
            "timeout" => read(&mut self.timeout, &variable, value)?,
            "criu" => self.criu = Some(value.into()),
            "service" => self.service = Some(value.into()),
            _ => return Err(no_such_setting(name)),
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

fn read<T: Value>(setting: &mut Option<T>, variable: &str, value: &OsStr) -> Result<()> {
    *setting = Some(values::read(variable, value)?);
    Ok(())
}

fn no_such_setting(name: &str) -> Error {
    Error::new(ErrorKind::Config, format!("there is no setting {name:?}")).with_hint(
        "the names are those of the SELFDUMP_* variables in docs/settings.md, as `every` for SELFDUMP_EVERY",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that the page about settings has, but for the switch, which is only for users.
    fn names() -> Vec<String> {
        let page = include_str!("../../docs/settings.md");
        let variables = page.lines().filter_map(|line| line.split_once("| `SELFDUMP_")?.1.split_once('`'));
        variables.map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    /// A text that each setting takes.
    fn text(name: &str) -> &str {
        match name {
            "dir" | "criu" | "service" => "/somewhere",
            "metrics_textfile" => "/somewhere/app.prom",
            "name" => "counter",
            "signal" => "USR1",
            "exit_signal" => "TERM",
            "overhead" => "1%",
            "files" => "rewind:*.csv keep:/var/log/**",
            "copy_files" => "*.db",
            "copy_limit" | "copy_open" => "2 MiB",
            "encrypt_to" => "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
            "staging" | "snapshot" => "auto",
            "compress" => "zstd",
            "keep_tcp" | "huge_pages" | "incremental" | "on_panic" | "on_fatal_signal" => "on",
            _ => "7",
        }
    }

    #[test]
    fn every_setting_can_be_set_by_its_name() {
        let names = names();
        assert!(names.len() > 20, "{names:?}");
        let set = |config: Config, name: &String| config.set(name, text(name)).unwrap();
        let config = names.iter().fold(Config::new().program("counter"), set);
        assert_eq!((config.keep, config.every), (Some(7), Some(std::time::Duration::from_secs(7))));
        assert_eq!((config.overhead, config.exit.as_ref()), (Some(0.01), Some(&Exit::Status(7))));
        let text = format!("{config:?}");
        assert!(!text.contains("None"), "something was left open: {text}");
    }

    #[test]
    fn a_wrong_name_and_a_wrong_value_are_named_and_an_empty_one_is_none() {
        let error = Config::new().set("evry", "10m").unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Config, "there is no setting \"evry\"")
        );
        let error = Config::new().set("every", "often").unwrap_err();
        assert_eq!(error.to_string(), "SELFDUMP_EVERY can't be \"often\"");
        assert!(error.hint().unwrap().contains("10m"));
        assert_eq!(Config::new().set("every", "").unwrap().every, None);
    }
}
