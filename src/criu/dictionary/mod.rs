//! The dictionary: lines of CRIU's log, what they mean, and what to do.
//!
//! Each rule comes from a log, of which `tests/fixtures/criu-logs.txt` keeps the lines that matter. `docs/errors.md`
//! is the same for readers.

mod descriptors;
mod files;
mod last;
mod machine;
mod processes;
mod restore;

use crate::error::ErrorKind;

/// A line of CRIU's log that tells the cause, and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rule {
    /// A name that stays: `io-uring`.
    pub id: &'static str,
    /// Parts of the line, in this order.
    pub line: &'static [&'static str],
    /// The kind of the error that comes of it.
    pub kind: ErrorKind,
    /// What has happened.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// Rules of one kind, under a heading.
#[derive(Debug)]
#[non_exhaustive]
pub struct Chapter {
    /// What its rules are about.
    pub title: &'static str,
    /// Its rules.
    pub rules: &'static [Rule],
}

/// All rules. The first that a line of a log matches tells the cause, so a cause stands before what follows from it.
pub const DICTIONARY: &[Chapter] = &[
    Chapter { title: "The machine: room, limits, rights, CRIU's version", rules: machine::RULES },
    Chapter { title: "Processes and namespaces", rules: processes::RULES },
    Chapter { title: "Descriptors and mappings at the checkpoint", rules: descriptors::RULES },
    Chapter { title: "Files at the restore", rules: files::RULES },
    Chapter { title: "What else a restore needs", rules: restore::RULES },
    Chapter { title: "Where no line above tells more", rules: last::RULES },
    Chapter { title: "Where no other line tells of an error", rules: last::BARE },
];

/// Errors that CRIU logs in runs that succeed: on machines without CAP_SYS_RESOURCE or CAP_NET_ADMIN, or where /run
/// is no tmpfs.
const HARMLESS: &[&str] = &[
    "Can't setup RLIMIT_NOFILE for self",
    "kdat cache",
    "Can't keep kdat",
    "Will fail to restore",
    "-1 reported by netlink",
    "net: Unable to create a veth pair",
    "net: Unexpected error: -1",
    // Containers have no such device.
    "Unable to create tun: No such file",
];

/// Lines that tell only that something failed, of which another line has told.
const HOLLOW: &[&str] = &[
    "Dumping FAILED",
    "Restoring FAILED",
    "failed with -1",
    "exited, status=",
    "killed by signal",
    "Unable to detach from",
    "Unable to open fd=",
    "Restorer fail",
    "Killing processes because of failure",
    // What it brings back may end, for a cause of its own, while it attaches.
    "Can't attach to",
    "Can't interrupt the",
    "Can't catch all tasks",
];

/// What tells a cause without being an error. CRIU only warns of a thread that it can't stop, and then fails without
/// another word about it; and of capabilities that it lacks it tells before it has a log.
const TELLING: &[&str] = &["Unable to interrupt task", "needs to have the CAP_SYS_ADMIN"];

/// The rule for what happened, and which line it is about.
pub(super) fn find(lines: &[impl AsRef<str>]) -> Option<(&'static Rule, usize)> {
    let first = |rules: &'static [Rule]| {
        rules.iter().find_map(|rule| {
            let position = lines.iter().position(|line| rule.matches(line.as_ref()))?;
            Some((rule, position))
        })
    };
    let tells_more = |line: &str| !is_hollow(line) && !last::BARE.iter().any(|rule| rule.matches(line));
    let (bare, chapters) = DICTIONARY.split_last()?;
    chapters.iter().find_map(|chapter| first(chapter.rules)).or_else(|| {
        let nothing_else = !lines.iter().any(|line| tells_more(line.as_ref()));
        nothing_else.then(|| first(bare.rules)).flatten()
    })
}

/// Whether a line tells of something that happens in runs that succeed as well.
pub(super) fn is_harmless(line: &str) -> bool {
    HARMLESS.iter().any(|known| line.contains(known))
}

/// Whether a line tells only that something failed.
pub(super) fn is_hollow(line: &str) -> bool {
    HOLLOW.iter().any(|known| line.contains(known))
}

/// Whether a line may tell the cause.
pub(super) fn is_telling(line: &str) -> bool {
    TELLING.iter().any(|known| line.contains(known)) || line.contains("Error (") && !is_harmless(line)
}

impl Rule {
    fn matches(&self, line: &str) -> bool {
        let mut rest = line;
        self.line.iter().all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }
}
