//! Patterns for the files that are copied into a checkpoint.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind};

/// As shells match: a star ends at a slash, and what begins with a dot is only found by its dot.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Which files are copied into each checkpoint: `/data/app.db*`, `*.sqlite`.
///
/// A pattern without a slash is for names: of the files that the program and its children have open, it takes those.
/// One that begins with a slash is for whole paths: it takes the files that are there, open or not. `*` stands for
/// anything without a slash, `**` for any number of folders, `?` for one character, `[…]` for one of several; a name
/// that begins with a dot is only found by a pattern that has the dot.
///
/// ```
/// use selfdump::FilePattern;
///
/// let pattern: FilePattern = "/data/app.db*".parse().unwrap();
/// assert!(pattern.matches("/data/app.db-wal".as_ref()) && !pattern.matches("/data/other.db".as_ref()));
/// assert!("*.db".parse::<FilePattern>().unwrap().matches("/data/app.db".as_ref()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePattern(Pattern);

impl FilePattern {
    /// Whether it is for this file.
    pub fn matches(&self, path: &Path) -> bool {
        let matches = |text: &OsStr| fits(self.as_str(), text, OPTIONS);
        match self.is_for_paths() {
            true => matches(path.as_os_str()),
            false => path.file_name().is_some_and(matches),
        }
    }

    /// Whether it is for whole paths, so that files can be looked for which nobody has open.
    pub(crate) fn is_for_paths(&self) -> bool {
        self.0.as_str().starts_with('/')
    }

    /// Its text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// What it is for now, files and whatever else is there; nothing where it is only for names. (The crate's own
    /// search passes over names that are no UTF-8, and says so on the program's standard output.)
    pub(crate) fn found(&self) -> Vec<PathBuf> {
        let Some(path) = self.as_str().strip_prefix('/') else { return Vec::new() };
        let parts: Vec<&str> = path.split('/').collect();
        let found = parts.iter().fold(vec![PathBuf::from("/")], |folders, part| {
            folders.iter().flat_map(|folder| matching(folder, part)).collect()
        });
        match parts.last() {
            Some(&"**") => found.iter().flat_map(|folder| matching(folder, "*")).collect(),
            _ => found,
        }
    }
}

/// Whether a pattern is for a text, part by part between their slashes. The crate tries out all ways in which the stars of a
/// pattern can share a path, which may take hours; within a name it need not. (It would also have a text that is no UTF-8
/// never match.)
pub(super) fn fits(pattern: &str, text: &OsStr, options: MatchOptions) -> bool {
    let text = text.to_string_lossy();
    let names: Vec<&str> = text.split('/').collect();
    let mut parts = pattern.split('/').peekable();
    // After how many names the parts so far can end.
    let mut ends = vec![false; names.len() + 1];
    ends[0] = true;
    while let Some(part) = parts.next() {
        ends = match part {
            "**" => any_number(&ends, &names, parts.peek().is_some(), options),
            _ => one_more(&ends, &names, part, options),
        };
    }
    ends[names.len()]
}

fn one_more(ends: &[bool], names: &[&str], part: &str, options: MatchOptions) -> Vec<bool> {
    let pattern = Pattern::new(part);
    let matches = |name| pattern.as_ref().is_ok_and(|pattern| pattern.matches_with(name, options));
    let after = ends.iter().zip(names).map(|(before, name)| *before && matches(name));
    std::iter::once(false).chain(after).collect()
}

/// For `**`, which may be for no folder at all, but for the last: that is for what is in one.
fn any_number(ends: &[bool], names: &[&str], or_none: bool, options: MatchOptions) -> Vec<bool> {
    let passes = |name: &str| !(options.require_literal_leading_dot && name.starts_with('.'));
    let mut some = false;
    let after = ends.iter().zip(names).map(|(before, name)| {
        some = (some || *before) && passes(name);
        some
    });
    let after = std::iter::once(false).chain(after);
    after.zip(ends).map(|(some, none)| some || (or_none && *none)).collect()
}

/// What is in a folder and matches one part of a pattern; for `**`, the folder and those below it.
fn matching(folder: &Path, part: &str) -> Vec<PathBuf> {
    if part == "**" {
        let below = matching(folder, "*").into_iter().filter(|path| is_folder(path));
        return std::iter::once(folder.to_owned())
            .chain(below.flat_map(|path| matching(&path, part)))
            .collect();
    }
    if !part.contains(['*', '?', '[']) {
        return vec![folder.join(part)];
    }
    let Ok(pattern) = Pattern::new(part) else { return Vec::new() };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    names
        .filter(|name| pattern.matches_with(&name.to_string_lossy(), OPTIONS))
        .map(|name| folder.join(name))
        .collect()
}

/// A link to a folder is none: it may lead back up.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_dir())
}

impl FromStr for FilePattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<FilePattern, Error> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::Config, format!("{text:?} can't be a pattern for files to copy: {why}"))
                .with_hint("a pattern is for a whole path, /data/app.db*, or for a name, *.db")
        };
        let pattern = Pattern::new(text).map_err(|error| wrong(&error.to_string()))?;
        let is_path = text.starts_with('/');
        match text {
            "" => Err(wrong("it is empty")),
            _ if text.contains('\0') => Err(wrong("no path has a zero byte")),
            _ if text.contains('/') && !is_path => Err(wrong("it has a slash, but doesn't begin with one")),
            _ if text.ends_with('/') => Err(wrong("it ends with a slash, and only files are copied")),
            _ if is_path && text[1..].split('/').any(|part| matches!(part, "" | "." | "..")) => {
                Err(wrong("an empty part, . or .. is in no path that it is compared with"))
            }
            _ if text.split('/').any(|part| Pattern::new(part).is_err()) => {
                Err(wrong("a class of characters has a slash in it"))
            }
            _ => Ok(FilePattern(pattern)),
        }
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FilePattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FilePattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<FilePattern, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn pattern(text: &str) -> FilePattern {
        text.parse().unwrap()
    }

    #[test]
    fn names_and_paths_are_told_apart() {
        for (text, path, matches) in [
            ("*.db", "/data/app.db", true),
            ("*.db", "/data/app.db-wal", false),
            ("*.db", "/data/.hidden.db", false),
            ("/data/*", "/data/app.db", true),
            ("/data/*", "/data/deep/app.db", false),
            ("/data/**/*.db", "/data/deep/er/app.db", true),
            ("/data/**/*.db", "/data/app.db", true),
            ("/data/**/*.db", "/data/.deep/app.db", false),
            ("/data/**", "/data/deep/app.db", true),
            ("/data/**", "/data", false),
            ("/**/deep/**/app.db", "/data/deep/deep/er/app.db", true),
            ("/data/.*", "/data/.hidden", true),
        ] {
            assert_eq!(pattern(text).matches(path.as_ref()), matches, "{text} and {path}");
        }
    }

    #[test]
    fn however_many_stars_there_are_nobody_has_to_wait() {
        let many = format!("/{}x/y", "a*".repeat(30));
        let path = format!("/{}/y", "a".repeat(80));
        assert!(!pattern(&many).matches(path.as_ref()) && !pattern(&many).matches("/y".as_ref()));
        let deep = format!("/{}x", "**/a/".repeat(15));
        assert!(!pattern(&deep).matches("/a".repeat(40).as_ref()));
    }

    #[test]
    fn a_name_that_is_no_utf8_matches_as_well() {
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/data/\xff\x81.db"));
        assert!(pattern("*.db").matches(odd) && pattern("/data/*").matches(odd));
    }

    #[test]
    fn what_is_there_is_found_by_path_and_not_by_name() {
        let lab = tempfile::tempdir().unwrap();
        let root = lab.path();
        let odd = root.join(std::ffi::OsStr::from_bytes(b"deep/\xff.db"));
        let files = ["a b.db", "deep/er/c.db", "deep/d.txt", ".x/e.db"].map(|name| root.join(name));
        for file in files.iter().chain([&odd]) {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("deep/up")).unwrap();
        let found = |text: &str| {
            let mut found = pattern(&format!("{}/{text}", root.display())).found();
            found.retain(|path| path.is_file());
            found.sort();
            found
        };
        let [top, deeper, text, hidden] = &files;
        for (text, expected) in [
            ("*.db", &[top][..]),
            ("**/*.db", &[top, deeper, &odd]),
            ("deep/**", &[text, deeper, &odd]),
            (".x/e.db", &[hidden]),
        ] {
            assert_eq!(found(text).iter().collect::<Vec<_>>(), expected, "{text}");
        }
        assert!(found("gone/*").is_empty() && pattern("*.db").found().is_empty());
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_form() {
        for text in ["", "[", "data/*.db", "/data/", "/data//x", "/data/../x", "./x", "/a**", "/a[/]b"] {
            let error = text.parse::<FilePattern>().unwrap_err();
            assert!(error.hint().unwrap().contains("/data/app.db*"), "{text}");
        }
    }
}
