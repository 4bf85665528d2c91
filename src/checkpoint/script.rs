//! The shell script that copies files while the program stands still.
//!
//! CRIU runs it (as an action script, criu(8)) at each stage of a dump; at `post-dump` all is written, and nothing of
//! the program runs yet. It looks for files by itself, because a database may have made or deleted its log in the
//! moment before. What it finds is compared with the patterns once more afterwards, so it may find too much: a shell
//! compares bytes, and knows only simple classes of characters alike everywhere.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::FilePattern;
use crate::store::layout;

/// The variable by which CRIU tells an action script the stage, and the one at which files are copied.
pub(super) const STAGE: (&str, &str) = ("CRTOOLS_SCRIPT_ACTION", "post-dump");

/// What comes after the settings. CRIU 4.1.1 runs the script twice at each stage, so the second run only says what the
/// first one did. A partial copy goes before the word about it, for which the disk may have no room otherwise.
const BODY: &str = r#"
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
LC_ALL=C
export LC_ALL
umask 077
[ ! -e "$failed" ] || exit 1
[ ! -e "$copied" ] || exit 0

number=0
# Copies a file, if it is one to be copied. What cp says of a failure is in $said.
try() {
    [ -f "$1" ] || return 0
    case $1/ in "$store"/* | "$PWD"/* | /proc/* | /sys/*) return 0 ;; esac
    number=$((number + 1))
    if ! said=$(cp -p --reflink=auto -- "$1" "$files/$number" 2>&1); then
        rm -f "$files/$number"
        number=$((number - 1))
        return 1
    fi
    printf '%s\000' "$1" >>"$copied.new" || exit 1
}

copy() {
    try "$1" && return
    printf '%s\000%s' "$1" "$said" >"$failed"
    exit 1
}

# The checkpoint can do without it.
spare() {
    try "$1" || :
}

# What was open is copied already.
found() {
    case $open in *"//$1//"*) ;; *) copy "$1" ;; esac
}

# Calls $2 with the folder $1 and with each below it; nothing else has local variables in every shell.
down() {
    "$2" "$1"
    for folder in "$1"/*/; do
        folder=${folder%/}
        # By whichever path the store is come upon.
        [ "$folder" -ef "$store" ] || [ -L "$folder" ] || [ ! -d "$folder" ] || down "$folder" "$2"
    done
}

: >"$copied.new" || exit 1
"#;

/// What a script copies.
pub(super) struct Files<'a> {
    /// What is left out, with the very copies in it.
    pub(super) store: &'a Path,
    /// What is open and has to be copied.
    pub(super) open: &'a [PathBuf],
    /// What there may be besides, and has to be copied.
    pub(super) patterns: &'a [FilePattern],
    /// What is copied where that can be done.
    pub(super) spares: &'a [PathBuf],
}

/// The script for a draft's folder.
pub(super) fn script(draft: &Path, files: &Files<'_>) -> Vec<u8> {
    let Files { store, open, patterns, spares } = files;
    let mut script =
        b"#!/bin/sh\n# Copies files into a checkpoint while its program stands still.\n".to_vec();
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| script.extend_from_slice(part));
        script.push(b'\n');
    };
    line(&[b"cd ", &quoted(bytes(draft)), b" || exit 1"]);
    line(&[b"store=", &quoted(bytes(store))]);
    for (variable, name) in
        [("files", layout::FILES), ("copied", layout::COPIED), ("failed", layout::COPY_FAILED)]
    {
        line(&[variable.as_bytes(), b"=", &quoted(name.as_bytes())]);
    }
    line(&[
        b"open=",
        &quoted(&open.iter().flat_map(|file| [b"//", bytes(file), b"//"].concat()).collect::<Vec<u8>>()),
    ]);
    line(&[BODY.as_bytes()]);
    for file in *open {
        line(&[b"copy ", &quoted(bytes(file))]);
    }
    for (number, pattern) in patterns.iter().filter(|pattern| pattern.is_for_paths()).enumerate() {
        line(&[search(pattern.as_str(), number).as_bytes()]);
    }
    for file in *spares {
        line(&[b"spare ", &quoted(bytes(file))]);
    }
    line(&[br#"mv "$copied.new" "$copied""#]);
    script
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// As one word in single quotes, in which a shell leaves every byte as it is; a quote stands outside of them.
fn quoted(text: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = text.split(|&byte| byte == b'\'').collect();
    [b"'", parts.join(&b"'\\''"[..]).as_slice(), b"'"].concat()
}

/// Loops that call `found` with each file that a pattern for paths is for: one loop for what stands before, between
/// and behind the `**`, each called by the one before it.
fn search(pattern: &str, number: usize) -> String {
    let parts: Vec<&str> = pattern[1..].split('/').collect();
    let groups: Vec<&[&str]> = parts.split(|part| *part == "**").collect();
    let ends = [0, groups.len() - 1];
    // Two `**` on end are as one.
    let groups = groups.iter().enumerate().filter(|(at, group)| ends.contains(at) || !group.is_empty());
    let path = |group: &&[&str]| group.iter().map(|part| format!("/{}", word(part))).collect();
    let mut stretches: Vec<String> = groups.map(|(_, group)| path(group)).collect();
    // `/data/**` is for every file below.
    if let Some(last) = stretches.last_mut().filter(|last| last.is_empty()) {
        "/*".clone_into(last);
    }
    let last = stretches.len() - 1;
    let call = |at: usize| match at == last {
        true => "found \"$file\"".to_owned(),
        false => format!("down \"${{file%/}}\" below_{number}_{}", at + 1),
    };
    let inner = (1..=last).rev().map(|at| {
        format!("below_{number}_{at}() {{ for file in \"$1\"{}; do {}; done; }}\n", stretches[at], call(at))
    });
    let first = if stretches[0].is_empty() { "/" } else { &stretches[0] };
    inner.chain([format!("for file in {first}; do {}; done", call(0))]).collect()
}

/// A part of a pattern between two slashes, for a shell: quoted but for what is to match.
fn word(part: &str) -> String {
    let (mut word, mut plain, mut rest) = (String::new(), String::new(), part);
    while let Some(first) = rest.chars().next() {
        let class = rest.strip_prefix('[').and_then(class);
        let (literal, wild, length) = match (first, class) {
            (_, Some((Class::Of(letter), length))) => (Some(letter), "", length + 1),
            (_, Some((Class::Simple(text), length))) => (None, text, length + 1),
            (_, Some((Class::Odd, length))) => (None, "*", length + 1),
            ('*', None) => (None, "*", 1),
            ('?', None) => (None, "?", 1),
            (letter, None) => (Some(letter), "", letter.len_utf8()),
        };
        match literal {
            Some(letter) => plain.push(letter),
            None => {
                word.push_str(&quoted_text(&plain));
                plain.clear();
                match wild.len() {
                    1 => word.push_str(wild),
                    _ => word.push_str(&format!("[{wild}]")),
                }
            }
        }
        rest = &rest[length..];
    }
    word + &quoted_text(&plain)
}

fn quoted_text(text: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => String::from_utf8_lossy(&quoted(text.as_bytes())).into_owned(),
    }
}

/// What stands between square brackets.
enum Class<'a> {
    /// One letter, which is so taken for itself: `[*]`.
    Of(char),
    /// Letters and ranges that every shell understands alike.
    Simple(&'a str),
    Odd,
}

/// The class behind an opening bracket, and how long it is with the closing one; none where that is missing. The first
/// letter in it may be a closing bracket itself.
fn class(rest: &str) -> Option<(Class<'_>, usize)> {
    let negated = rest.starts_with('!');
    let skipped = usize::from(negated);
    let first = rest[skipped..].chars().next()?;
    let end = skipped + first.len_utf8() + rest[skipped + first.len_utf8()..].find(']')?;
    let inside = &rest[..end];
    let mut letters = inside.chars();
    let class = match (letters.next(), letters.next()) {
        (Some(letter), None) => Class::Of(letter),
        _ if inside[skipped..].chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') => {
            Class::Simple(inside)
        }
        _ => Class::Odd,
    };
    Some((class, end + 1))
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
