//! Settings by name, for front-ends in languages whose settings are texts.

use std::ffi::OsStr;

use super::values::{self, Fraction};
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
    pub fn set(mut self, name: &str, value: &str) -> Result<Config> {
        if value.is_empty() {
            return Ok(self);
        }
        let variable = format!("SELFDUMP_{}", name.to_ascii_uppercase());
        let (variable, text) = (variable.as_str(), OsStr::new(value));
        match name {
            "dir" => self.dir = Some(value.into()),
            "name" => self.name = Some(value.to_owned()),
            "keep" => self.keep = Some(values::read(variable, text)?),
            "keep_forensic" => self.keep_forensic = Some(values::read(variable, text)?),
            "signal" => self.signal = Some(values::read(variable, text)?),
            "exit_signal" => self.exit_signal = Some(values::read(variable, text)?),
            "exit_status" => self.exit = Some(Exit::Status(values::read(variable, text)?)),
            "every" => self.every = Some(values::read(variable, text)?),
            "jitter" => self.jitter = Some(values::read(variable, text)?),
            "overhead" => self.overhead = Some(values::read::<Fraction>(variable, text)?.0),
            "mtbf" => self.mtbf = Some(values::read(variable, text)?),
            "first_after" => self.first_after = Some(values::read(variable, text)?),
            "min_interval" => self.min_interval = Some(values::read(variable, text)?),
            "hold_timeout" => self.hold_timeout = Some(values::read(variable, text)?),
            "files" => self.files = Some(values::read(variable, text)?),
            "copy_files" => self.copy_files = Some(values::read(variable, text)?),
            "copy_limit" => self.copy_limit = Some(values::read(variable, text)?),
            "copy_open" => self.copy_open = Some(values::read(variable, text)?),
            "on_panic" => self.on_panic = Some(values::read(variable, text)?),
            "on_fatal_signal" => self.on_fatal_signal = Some(values::read(variable, text)?),
            "timeout" => self.timeout = Some(values::read(variable, text)?),
            "criu" => self.criu = Some(value.into()),
            "service" => self.service = Some(value.into()),
            _ => return Err(no_such_setting(name)),
        }
        Ok(self)
    }
}

fn no_such_setting(name: &str) -> Error {
    Error::new(ErrorKind::Config, format!("there is no setting {name:?}")).with_hint(
        "the names are those of the SELFDUMP_* variables in docs/settings.md, as `every` for SELFDUMP_EVERY",
    )
}
