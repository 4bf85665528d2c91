//! What becomes of the files that the program had open: worked out before anything is touched.
//!
//! CRIU puts a regular file back by opening it anew, and refuses the restore where its size is not what it was. A
//! program that went on after its checkpoint has made its files grow, so that is the usual case. [`plan`] is pure:
//! what is on disk now comes in as [`Now`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::copies::{self, Likeness};
use crate::config::{FilePolicy, FileRule};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{self, Bytes, CopiedFile, DescriptorKind, FileIdentity, Process};

/// Why a program can't come back without a file; an older checkpoint may do without it.
const GONE: &str = "is gone";

/// What becomes of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FilePlan {
    /// The file.
    #[serde(with = "frozen::path::required")]
    pub path: PathBuf,
    /// What is done with it.
    #[serde(flatten)]
    pub action: FileAction,
    /// Why that.
    pub why: String,
}

/// What is done with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
#[non_exhaustive]
pub enum FileAction {
    /// It is as it was.
    Nothing,
    /// It is cut back.
    Rewind {
        /// To the size that it had.
        #[serde(rename = "to_bytes")]
        to: Bytes,
        /// What is cut off, and kept beside the checkpoint.
        #[serde(rename = "cut_bytes")]
        cut: Bytes,
    },
    /// It stays as it is, though its size is not what it was.
    Keep {
        /// The size that it has.
        #[serde(rename = "size_bytes")]
        size: Bytes,
    },
    /// It is put back as it was, from its copy in the checkpoint.
    Recreate {
        /// The size of the copy.
        #[serde(rename = "size_bytes")]
        size: Bytes,
    },
    /// It has come since the checkpoint, and is moved to where is kept what restores take away.
    SetAside,
    /// The program can't be restored with it.
    Refuse {
        /// What to do about it.
        remedy: String,
    },
}

/// A file as the frozen program had it open, by whichever descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frozen {
    /// Not known where it was only open for appending, and then CRIU doesn't look at it.
    size: Option<Bytes>,
    identity: FileIdentity,
    writes: bool,
    /// All that write to it append.
    only_appends: bool,
}

impl Frozen {
    /// Whether its name is another file's now.
    pub(super) fn was_replaced(&self, now: &Now, world: &World<'_>) -> bool {
        world.same_machine && now.identity != self.identity
    }
}

/// A file as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) size: Bytes,
    pub(super) identity: FileIdentity,
    pub(super) modified: SystemTime,
}

/// The surroundings of a restore.
pub(super) struct World<'a> {
    /// Whether inodes can be compared: it is the machine that the checkpoint was made on.
    pub(super) same_machine: bool,
    /// Whether the life that was dumped is over for certain, so that nobody else writes where it wrote.
    pub(super) is_over: bool,
    /// When the checkpoint's dump had ended.
    pub(super) dumped: SystemTime,
    pub(super) now: &'a dyn Fn(&Path) -> Option<Now>,
    /// Another process that has the file open to write to it.
    pub(super) writer: &'a dyn Fn(FileIdentity) -> Option<(i32, String)>,
    /// The files that the checkpoint has copies of.
    pub(super) copies: &'a [CopiedFile],
    /// How a file is like its copy.
    pub(super) likeness: &'a dyn Fn(&CopiedFile) -> Likeness,
    /// Files that a pattern for copies is for, and that have come since the checkpoint.
    pub(super) newcomers: &'a [PathBuf],
}

impl World<'_> {
    /// Whether somebody may still write where the program wrote, whom nobody here can see.
    pub(super) fn may_still_run(&self) -> bool {
        self.same_machine && !self.is_over
    }
}

/// What becomes of each file, in the order of their paths. The first rule that matches counts.
pub(super) fn plan(processes: &[Process], rules: &[FileRule], world: &World<'_>) -> Vec<FilePlan> {
    let frozen = frozen(processes);
    let copies: BTreeMap<&Path, &CopiedFile> =
        world.copies.iter().map(|copy| (copy.path.as_path(), copy)).collect();
    let open = frozen.keys().map(PathBuf::as_path);
    let paths: BTreeSet<&Path> =
        open.chain(copies.keys().copied()).chain(world.newcomers.iter().map(PathBuf::as_path)).collect();
    let plan = |path: &Path| {
        let rule = rules.iter().find(|rule| rule.matches(path)).map(FileRule::policy);
        let now = (world.now)(path);
        let (action, why) = match (copies.get(path), frozen.get(path)) {
            (Some(copy), Some(frozen)) if copy.spare => {
                let without = verdict(path, frozen, now.as_ref(), rule, world);
                copies::verdict_on_spare(copy, without, frozen, now.as_ref(), rule, world)
            }
            (Some(copy), frozen) => copies::verdict(copy, frozen, now.as_ref(), rule, world),
            (None, Some(frozen)) => verdict(path, frozen, now.as_ref(), rule, world),
            (None, None) => copies::verdict_on_newcomer(path, now.as_ref(), rule, world),
        };
        FilePlan { path: path.to_owned(), action, why }
    };
    paths.into_iter().map(plan).collect()
}

/// The error for the first file that the program can't be restored with.
pub(super) fn refused(plans: &[FilePlan]) -> Result<()> {
    match plans.iter().find_map(|plan| match &plan.action {
        FileAction::Refuse { remedy } => Some((plan, remedy)),
        _ => None,
    }) {
        None => Ok(()),
        Some((plan, remedy)) => {
            let kind = if plan.why == GONE { ErrorKind::FileGone } else { ErrorKind::FileChanged };
            Err(Error::new(kind, format!("{} {}", plan.path.display(), plan.why)).with_hint(remedy))
        }
    }
}

/// The regular files that have a name, each once. What the kernel tells of these processes comes back with them.
fn frozen(processes: &[Process]) -> BTreeMap<PathBuf, Frozen> {
    let mut files: BTreeMap<PathBuf, Frozen> = BTreeMap::new();
    for open in processes.iter().flat_map(|process| &process.descriptors) {
        let (DescriptorKind::File, Some(path), Some(identity)) = (open.kind, &open.path, open.identity)
        else {
            continue;
        };
        if is_told_of_one(path, processes) {
            continue;
        }
        let file = files.entry(path.clone()).or_insert(Frozen {
            size: None,
            identity,
            writes: false,
            only_appends: true,
        });
        file.size = file.size.max(open.size_bytes);
        file.writes |= open.writes();
        file.only_appends &= !open.writes() || open.appends();
    }
    files
}

/// Whether a path is in the folder of one of these processes, or threads, in `/proc`.
fn is_told_of_one(path: &Path, processes: &[Process]) -> bool {
    let below = path.strip_prefix("/proc").ok().and_then(|below| below.iter().next());
    let number = below.and_then(|name| name.to_str()?.parse::<i32>().ok());
    number.is_some_and(|number| {
        processes.iter().any(|process| process.pid == number || process.threads.contains(&number))
    })
}

fn verdict(
    path: &Path,
    frozen: &Frozen,
    now: Option<&Now>,
    rule: Option<FilePolicy>,
    world: &World<'_>,
) -> Verdict {
    match now {
        None if frozen.writes => refuse(
            GONE,
            &format!(
                "put it back where it was, then restore again; an older checkpoint may do without it; {}",
                a_copy_would_have_saved(path)
            ),
        ),
        None => refuse(
            GONE,
            "put it back where it was, then restore again; an older checkpoint may do without it",
        ),
        Some(now) => compare(path, frozen, now, rule, world),
    }
}

pub(super) type Verdict = (FileAction, String);

fn compare(path: &Path, frozen: &Frozen, now: &Now, rule: Option<FilePolicy>, world: &World<'_>) -> Verdict {
    let replaced = frozen.was_replaced(now, world);
    let Some(size) = frozen.size else {
        return (
            FileAction::Nothing,
            (if replaced {
                "another file has its name now; the program appends to that"
            } else {
                "the program only appends to it"
            })
            .to_owned(),
        );
    };
    let changed = replaced || now.size != size;
    match rule {
        _ if !changed => unchanged(path, frozen, now, world),
        Some(FilePolicy::Keep) => keep(now, kept_because("a rule says so", frozen)),
        Some(FilePolicy::Fail) => refuse(
            "has changed since the checkpoint, and a rule says that nothing is restored then",
            "restore an older checkpoint, or name another rule for it with --files",
        ),
        _ if !frozen.writes => keep(now, "the program only reads it".to_owned()),
        _ if replaced => refuse(
            "is another file than at the checkpoint",
            &format!(
                "put the old one back; or have the program go on with this one: --files keep:{}; {}",
                path.display(),
                a_copy_would_have_saved(path)
            ),
        ),
        _ if now.size < size => refuse(
            &format!("is shorter ({}) than at the checkpoint ({size})", now.size),
            &format!(
                "put back what it held; or have the program go on with it as it is: --files keep:{}; {}",
                path.display(),
                a_copy_would_have_saved(path)
            ),
        ),
        Some(FilePolicy::Rewind) => rewind(size, now, "a rule says so".to_owned()),
        None => grown(path, size, frozen, now, world),
    }
}

/// The usual case. A file that others write to as well is not cut: their lines would be lost.
fn grown(path: &Path, size: Bytes, frozen: &Frozen, now: &Now, world: &World<'_>) -> Verdict {
    if frozen.only_appends {
        return keep(now, kept_because("others may have appended to it as well", frozen));
    }
    match (world.writer)(now.identity) {
        None if world.may_still_run() => refuse(
            "has grown, and the program may still run, in another pid namespace",
            &format!(
                "have the program go on with the file as it is (--files keep:{path}), or cut it back all the same (--files rewind:{path})",
                path = path.display()
            ),
        ),
        Some((pid, name)) => {
            keep(now, kept_because(&format!("process {pid} ({name}) writes to it as well"), frozen))
        }
        None => rewind(size, now, "it has grown, and the program writes that part again".to_owned()),
    }
}

fn unchanged(path: &Path, frozen: &Frozen, now: &Now, world: &World<'_>) -> Verdict {
    let why = match frozen.writes && now.modified > world.dumped {
        true => format!(
            "it was written to since, without growing: what it holds may be later than what the program remembers; {}",
            a_copy_would_have_saved(path)
        ),
        false => "it has the size that it had".to_owned(),
    };
    (FileAction::Nothing, why)
}

/// For the next time.
fn a_copy_would_have_saved(path: &Path) -> String {
    format!(
        "a copy in the checkpoint would have saved it (SELFDUMP_COPY_FILES={}, Config::copy_files)",
        path.display()
    )
}

fn rewind(size: Bytes, now: &Now, why: String) -> Verdict {
    (FileAction::Rewind { to: size, cut: Bytes(now.size.0 - size.0) }, why)
}

pub(super) fn keep(now: &Now, why: String) -> Verdict {
    (FileAction::Keep { size: now.size }, why)
}

pub(super) fn kept_because(why: &str, frozen: &Frozen) -> String {
    let where_to = match (frozen.writes, frozen.only_appends) {
        (false, _) => return why.to_owned(),
        (true, true) => "at the end",
        (true, false) => "at its old position, over what is there now",
    };
    format!("{why}; the program goes on writing {where_to}")
}

pub(super) fn refuse(why: &str, remedy: &str) -> Verdict {
    (FileAction::Refuse { remedy: remedy.to_owned() }, why.to_owned())
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
