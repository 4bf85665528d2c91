//! What becomes of files that were copied into the checkpoint, and of those that have come since.
//!
//! A copied file is left alone only where it is surely what it was, byte for byte: a file that is mapped into memory
//! can change without any sign of it outside. What a pattern for copies is for and has come since the checkpoint is
//! moved aside: the log of a database that was made later would be played into the older database.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::files::{FileAction, Frozen, Now, Verdict, World, keep, kept_because, refuse};
use crate::config::{FilePattern, FilePolicy};
use crate::frozen::CopiedFile;
use crate::store::layout;
use crate::sys::{process, procfs};

/// How much is read at once.
const BLOCK: usize = 256 * 1024;

/// What becomes of a file of which there is a copy.
pub(super) fn verdict(
    copy: &CopiedFile,
    frozen: Option<&Frozen>,
    now: Option<&Now>,
    rule: Option<FilePolicy>,
    world: &World<'_>,
) -> Verdict {
    let change = match now {
        None => "it is gone",
        Some(now) if frozen.is_some_and(|frozen| frozen.was_replaced(now, world)) => {
            "another file has its name"
        }
        Some(now) if now.size != copy.size => "it has another size",
        Some(now) if now.modified != modified(copy) => "it was written to since",
        Some(_) if (world.likeness)(copy) != Likeness::Same => "it was written to since, through memory",
        Some(_) => return (FileAction::Nothing, "it is what its copy is, byte for byte".to_owned()),
    };
    match (rule, now) {
        (Some(FilePolicy::Keep), Some(now)) => keep(
            now,
            frozen.map_or("a rule says so".to_owned(), |frozen| kept_because("a rule says so", frozen)),
        ),
        (Some(FilePolicy::Keep), None) if frozen.is_none() => {
            (FileAction::Nothing, "it is gone, and a rule says that it stays so".to_owned())
        }
        (Some(FilePolicy::Fail), _) => refuse_by_rule(),
        (rule, _) if rule != Some(FilePolicy::Rewind) && world.may_still_run() => may_still_run(&copy.path),
        (rule, now) => {
            let writer = now.filter(|_| rule.is_none()).and_then(|now| (world.writer)(now.identity));
            match writer {
                Some((pid, name)) => refuse(
                    &format!(
                        "is being written to by process {pid} ({name}), and would be overwritten with its copy"
                    ),
                    &format!(
                        "end that process, then restore again; or say what becomes of the file: --files keep:{path} or --files rewind:{path}",
                        path = copy.path.display()
                    ),
                ),
                None => (
                    FileAction::Recreate { size: copy.size },
                    format!("{change}, and the checkpoint has a copy"),
                ),
            }
        }
    }
}

/// What becomes of a file of which there is a copy that nobody has asked for: where it does `without`, it is left alone.
pub(super) fn verdict_on_spare(
    copy: &CopiedFile,
    without: Verdict,
    frozen: &Frozen,
    now: Option<&Now>,
    rule: Option<FilePolicy>,
    world: &World<'_>,
) -> Verdict {
    let with = || verdict(copy, Some(frozen), now, rule, world);
    match without.0 {
        FileAction::Rewind { .. } if (world.likeness)(copy) == Likeness::Longer => without,
        FileAction::Rewind { .. } | FileAction::Refuse { .. } => with(),
        // It could come back as it is, so it is not for a copy that nobody has asked for to forbid it.
        FileAction::Nothing => match with() {
            (FileAction::Refuse { .. } | FileAction::Keep { .. }, _) => without,
            verdict => verdict,
        },
        FileAction::Keep { .. } | FileAction::Recreate { .. } | FileAction::SetAside => without,
    }
}

/// What becomes of a file that has come since the checkpoint.
pub(super) fn verdict_on_newcomer(
    path: &Path,
    now: Option<&Now>,
    rule: Option<FilePolicy>,
    world: &World<'_>,
) -> Verdict {
    let left = |why: String| (FileAction::Nothing, why);
    let Some(now) = now else { return left("it is gone again".to_owned()) };
    match rule {
        Some(FilePolicy::Keep) => {
            left("it has come since the checkpoint, and a rule says that it stays".to_owned())
        }
        Some(FilePolicy::Fail) => refuse_by_rule(),
        _ => match (world.writer)(now.identity) {
            Some((pid, name)) => {
                left(format!("it has come since the checkpoint, and process {pid} ({name}) writes to it"))
            }
            None if rule.is_none() && world.may_still_run() => may_still_run(path),
            None => (
                FileAction::SetAside,
                "it has come since the checkpoint, and does not belong to what the program remembers"
                    .to_owned(),
            ),
        },
    }
}

fn refuse_by_rule() -> Verdict {
    refuse(
        "has changed since the checkpoint, and a rule says that nothing is restored then",
        "restore an older checkpoint, or name another rule for it with --files",
    )
}

fn may_still_run(path: &Path) -> Verdict {
    let path = path.display();
    refuse(
        "has changed, and the program may still run, in another pid namespace",
        &format!(
            "have the program go on with the file as it is (--files keep:{path}), or have it as it was all the same (--files rewind:{path})"
        ),
    )
}

/// When a copied file was last written to.
pub(super) fn modified(copy: &CopiedFile) -> SystemTime {
    let since = Duration::from_nanos(copy.modified.unsigned_abs());
    match copy.modified < 0 {
        true => SystemTime::UNIX_EPOCH - since,
        false => SystemTime::UNIX_EPOCH + since,
    }
}

/// The files that patterns for copies are for, and that were not there when all stood still.
pub(super) fn newcomers(patterns: &[FilePattern], copies: &[CopiedFile]) -> Vec<PathBuf> {
    let found = patterns.iter().flat_map(FilePattern::found);
    // What a link leads to has a place of its own, which nobody has named.
    let files = found.filter(|path| fs::symlink_metadata(path).is_ok_and(|file| file.is_file()));
    // The output of this very command is not to be moved from under it.
    let ours = procfs::descriptors(process::id()).unwrap_or_default();
    let mut new: Vec<PathBuf> = files
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| !copies.iter().any(|copy| copy.path == *path))
        .filter(|path| !layout::is_in_an_instance(path) && !ours.iter().any(|open| open.target == *path))
        .collect();
    new.sort();
    new.dedup();
    new
}

/// How a file is like its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It holds the same.
    Same,
    /// It holds the same, and more behind that.
    Longer,
    /// It holds something else, or can't be read.
    Other,
}

/// How a file is like its copy in this checkpoint.
pub(super) fn likeness(checkpoint: &Path, copy: &CopiedFile) -> Likeness {
    let compare = || -> io::Result<Likeness> {
        let (mut one, other) = (File::open(checkpoint.join(&copy.copy))?, File::open(&copy.path)?);
        let mut same = true;
        let size = blocks(&mut one, |at, block| {
            let (mut theirs, block) = (vec![0; block.len()], block);
            same &= read_at(&other, &mut theirs, at)? == block.len() && theirs == block;
            Ok(same)
        })?;
        Ok(match (same, other.metadata()?.len() == size) {
            (true, true) => Likeness::Same,
            (true, false) => Likeness::Longer,
            (false, _) => Likeness::Other,
        })
    };
    compare().unwrap_or(Likeness::Other)
}

/// Makes an open file hold what another does. Only what differs is written, so that holes stay, and whoever has the
/// file mapped finds no part of it missing meanwhile.
pub(super) fn overwrite(to: &File, mut from: File) -> io::Result<()> {
    let mut old = vec![0; BLOCK];
    let size = blocks(&mut from, |at, block| {
        let old = &mut old[..block.len()];
        let known = read_at(to, old, at)?;
        // What is beyond the end will be zeros.
        old[known..].fill(0);
        if old != block {
            to.write_all_at(block, at)?;
        }
        Ok(true)
    })?;
    to.set_len(size)
}

/// Calls `each` with each block and where it stands, as long as that says so; how far that was.
fn blocks(file: &mut File, mut each: impl FnMut(u64, &[u8]) -> io::Result<bool>) -> io::Result<u64> {
    let (mut block, mut at) = (Vec::with_capacity(BLOCK), 0);
    loop {
        block.clear();
        file.take(BLOCK as u64).read_to_end(&mut block)?;
        if block.is_empty() || !each(at, &block)? {
            return Ok(at);
        }
        at += block.len() as u64;
    }
}

/// Reads until the buffer is full or the file ends; how much that was.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
