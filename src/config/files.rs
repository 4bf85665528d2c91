//! What becomes of a file that the program was writing and that has changed since: rules by path.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pattern;
use crate::error::{Error, ErrorKind};

/// What becomes, at a restore, of a file that has grown since the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilePolicy {
    /// It is cut back to the size that it had: what the program wrote since, it writes again. The part that is cut
    /// off is kept beside the checkpoint.
    Rewind,
    /// It stays as it is. The program goes on writing at its old position, or at the end if it appends.
    Keep,
    /// Nothing is restored.
    Fail,
}

impl FilePolicy {
    fn name(self) -> &'static str {
        match self {
            FilePolicy::Rewind => "rewind",
            FilePolicy::Keep => "keep",
            FilePolicy::Fail => "fail",
        }
    }
}

/// Which files a [`FilePolicy`] is for: `rewind:*.csv`, `keep:/var/log/**`.
///
/// A pattern without a slash is matched against the file's name, one with a slash against its whole path. `*` stands
/// for anything without a slash, `**` for any number of folders, `?` for one character, `[…]` for one of several.
///
/// ```
/// use selfdump::{FilePolicy, FileRule};
///
/// let rule: FileRule = "keep:/var/log/**".parse().unwrap();
/// assert_eq!(rule.policy(), FilePolicy::Keep);
/// assert!(rule.matches("/var/log/app/today.log".as_ref()) && !rule.matches("/tmp/today.log".as_ref()));
/// assert!("rewind:*.csv".parse::<FileRule>().unwrap().matches("/data/out.csv".as_ref()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRule {
    policy: FilePolicy,
    pattern: Pattern,
}

impl FileRule {
    /// What becomes of the files that it is for.
    pub fn policy(&self) -> FilePolicy {
        self.policy
    }

    /// The rule that is for this file alone.
    pub fn for_file(policy: FilePolicy, path: &Path) -> FileRule {
        let pattern = Pattern::escape(&path.to_string_lossy());
        // What is escaped is a pattern; else none that matches anything.
        FileRule { policy, pattern: Pattern::new(&pattern).unwrap_or_default() }
    }

    /// Whether it is for this file.
    pub fn matches(&self, path: &Path) -> bool {
        let options =
            MatchOptions { require_literal_separator: true, case_sensitive: true, ..MatchOptions::default() };
        let matches = |text| pattern::fits(self.pattern.as_str(), text, options);
        match self.pattern.as_str().contains('/') {
            true => matches(path.as_os_str()),
            false => path.file_name().is_some_and(matches),
        }
    }
}

impl FromStr for FileRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<FileRule, Error> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::Config, format!("{text:?} is no rule for files{why}"))
                .with_hint("a rule is a policy and a pattern: rewind:*.csv, keep:/var/log/**, fail:*.db")
        };
        let (policy, pattern) = text.split_once(':').ok_or_else(|| wrong(""))?;
        let policy = match policy {
            "rewind" => FilePolicy::Rewind,
            "keep" => FilePolicy::Keep,
            "fail" => FilePolicy::Fail,
            _ => return Err(wrong("")),
        };
        if pattern.is_empty() {
            return Err(wrong(""));
        }
        let pattern = Pattern::new(pattern).map_err(|error| wrong(&format!(": {error}")))?;
        if pattern.as_str().split('/').any(|part| Pattern::new(part).is_err()) {
            return Err(wrong(": a class of characters has a slash in it"));
        }
        Ok(FileRule { policy, pattern })
    }
}

impl fmt::Display for FileRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.policy.name(), self.pattern)
    }
}

impl Serialize for FileRule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<FileRule, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_a_slash_is_for_names_and_one_with_a_slash_for_paths() {
        for (rule, path, matches) in [
            ("keep:*.log", "/var/log/a.log", true),
            ("keep:*.log", "/var/log/a.txt", false),
            ("keep:/var/*.log", "/var/log/a.log", false),
            ("keep:/var/**/*.log", "/var/log/deep/a.log", true),
            ("fail:out?", "/tmp/out1", true),
        ] {
            let rule: FileRule = rule.parse().unwrap();
            assert_eq!(rule.matches(Path::new(path)), matches, "{rule} and {path}");
        }
    }

    #[test]
    fn a_rule_for_one_file_is_for_that_file_however_it_is_called() {
        let odd = Path::new("/data/a[1]*?.txt");
        let rule = FileRule::for_file(FilePolicy::Keep, odd);
        let again: FileRule = rule.to_string().parse().unwrap();
        assert!(again.matches(odd) && !again.matches(Path::new("/data/a1b.txt")));
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_form() {
        for text in ["*.csv", "cut:*.csv", "rewind:", "rewind:[", "rewind:/a[/]b", ""] {
            let error = text.parse::<FileRule>().unwrap_err();
            assert!(error.hint().unwrap().contains("rewind:*.csv"), "{text}");
        }
    }
}
