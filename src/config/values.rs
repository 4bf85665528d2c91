//! The forms in which values are written in variables, and what they may be.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use super::{FilePattern, FileRule, Snapshot, Staging};
use crate::compression::Compression;
use crate::encryption::Recipient;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::sys::signal::Signal;

/// A value that a variable may hold, and how it is written there.
pub(super) trait Value: Sized {
    /// What the variable takes, for whoever wrote something else.
    const FORM: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

/// Reads a variable's value.
pub(super) fn read<T: Value>(name: &str, value: &OsStr) -> Result<T> {
    let text = text(name, value)?;
    T::parse(text.trim()).ok_or_else(|| bad(name, &text, T::FORM))
}

/// The error for a value that a setting can't have.
pub(super) fn bad(name: &str, value: &str, form: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{name} can't be {value:?}"))
        .with_hint(format!("{name} takes {form}"))
}

pub(super) fn text(name: &str, value: &OsStr) -> Result<String> {
    value.to_str().map(str::to_owned).ok_or_else(|| bad(name, &value.to_string_lossy(), "text in UTF-8"))
}

/// Reads recipients, and files of them. What is no word for anybody is refused: it was meant to be one.
pub(super) fn recipients(name: &str, value: &OsStr) -> Result<Vec<Recipient>> {
    let text = text(name, value)?;
    let found = Recipient::in_text(&text)?;
    match found.is_empty() {
        true => Err(bad(
            name,
            &text,
            "recipients of age (age1…) and files of them (./team.txt), with blanks between them",
        )),
        false => Ok(found),
    }
}

impl Value for Duration {
    const FORM: &'static str = "a duration, such as 30s, 10m or 1h 30m; a bare number is seconds";

    fn parse(text: &str) -> Option<Duration> {
        let seconds = text.parse().ok().map(Duration::from_secs);
        seconds.or_else(|| humantime::parse_duration(text).ok())
    }
}

impl Value for u32 {
    const FORM: &'static str = "a whole number";

    fn parse(text: &str) -> Option<u32> {
        text.parse().ok()
    }
}

impl Value for u8 {
    const FORM: &'static str = "an exit status from 0 to 255";

    fn parse(text: &str) -> Option<u8> {
        text.parse().ok()
    }
}

impl Value for bool {
    const FORM: &'static str = "on or off";

    fn parse(text: &str) -> Option<bool> {
        match text {
            "on" | "1" => Some(true),
            "off" | "0" => Some(false),
            _ => None,
        }
    }
}

impl Value for Signal {
    const FORM: &'static str = "a signal by name or number, such as USR1, TERM, RTMIN+3 or 10, \
                                but none that can't be handled and none of a crash";

    fn parse(text: &str) -> Option<Signal> {
        text.parse().ok()
    }
}

/// A share of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fraction(pub(super) f64);

impl Value for Fraction {
    const FORM: &'static str = "a share between 0 and 1, such as 0.01 or 1%";

    fn parse(text: &str) -> Option<Fraction> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        match text.strip_suffix('%') {
            Some(percent) => Some(Fraction(number(percent)? / 100.0)),
            None => number(text).map(Fraction),
        }
    }
}

impl Value for Vec<FileRule> {
    const FORM: &'static str = "rules with blanks between them, such as rewind:*.csv keep:/var/log/**";

    fn parse(text: &str) -> Option<Vec<FileRule>> {
        text.split_whitespace().map(|rule| rule.parse().ok()).collect()
    }
}

impl Value for Vec<FilePattern> {
    const FORM: &'static str =
        "patterns with blanks between them, for whole paths or for names, such as /data/app.db* *.log";

    fn parse(text: &str) -> Option<Vec<FilePattern>> {
        text.split_whitespace().map(|pattern| pattern.parse().ok()).collect()
    }
}

impl Value for Bytes {
    const FORM: &'static str = Bytes::FORM;

    fn parse(text: &str) -> Option<Bytes> {
        text.parse().ok()
    }
}

impl Value for Compression {
    const FORM: &'static str = "off, zstd, or zstd:LEVEL with a level from 1 to 19";

    fn parse(text: &str) -> Option<Compression> {
        Compression::parse(text)
    }
}

impl Value for Staging {
    const FORM: &'static str = "off, auto, or the path of a folder in memory, which has a slash in it";

    fn parse(text: &str) -> Option<Staging> {
        match text {
            "off" => Some(Staging::Off),
            "auto" => Some(Staging::Auto),
            folder => folder.contains('/').then(|| Staging::Folder(PathBuf::from(folder))),
        }
    }
}

impl Value for Snapshot {
    const FORM: &'static str = "freeze, auto or cow";

    fn parse(text: &str) -> Option<Snapshot> {
        match text {
            "freeze" => Some(Snapshot::Freeze),
            "auto" => Some(Snapshot::Auto),
            "cow" => Some(Snapshot::Cow),
            _ => None,
        }
    }
}
