//! Copies of files, made while the program stands still.
//!
//! Nobody in the program can make them, and a notification to it would wait for ever, so a shell script does, which
//! CRIU runs when all is dumped and nothing runs yet ([`script`](super::script)). What can be known beforehand, that
//! there is too much to copy or that no script can be run there, is said before anything stands still; what the script
//! did is read afterwards, and a copy that is missing fails the checkpoint.
//!
//! *Spare* copies nobody has asked for by name (`copy_open`): they are made as far as they can be, and no checkpoint
//! fails for the want of one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::script::{Files, script};
use crate::config::{FilePattern, Settings};
use crate::criu::{self, Connection, DumpOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Bytes, CopiedFile, Process};
use crate::store::draft::Draft;
use crate::sys::{disk, process, procfs};

const AGAIN: &str =
    "checkpoint again; a pattern for its whole path finds a file that has just come (SELFDUMP_COPY_FILES)";

/// The copies that a dump is to make.
#[derive(Debug)]
pub(super) struct Copies {
    patterns: Vec<FilePattern>,
    store: PathBuf,
    spares: Vec<PathBuf>,
}

/// Has everything ready, on a disk with so much room for copies; none where nothing is to be copied.
pub(super) fn prepare(settings: &Settings, draft: &Draft, room: Bytes) -> Result<Option<Copies>> {
    if settings.copy_files.is_empty() && settings.copy_open == Bytes(0) {
        return Ok(None);
    }
    let store = settings.dir.canonicalize().map_err(|source| Error::io("find", &settings.dir, source))?;
    let mut copies = Copies { patterns: settings.copy_files.clone(), store, spares: Vec::new() };
    let (named, others) = copies.open();
    let size = total(copies.among_all(&named), settings.copy_limit)?;
    ensure_room(size, room, draft)?;
    copies.spares = within(sized(others), settings.copy_open.min(Bytes(room.0 - size.0)));
    if copies.patterns.is_empty() && copies.spares.is_empty() {
        return Ok(None);
    }
    match copies.ensure_script_runs(draft) {
        Err(error) if copies.patterns.is_empty() => {
            log::info!("{}", error.chain());
            return Ok(None);
        }
        result => result?,
    }
    let folder = draft.written_folder();
    let folder = folder.canonicalize().map_err(|source| Error::io("find", &folder, source))?;
    let files =
        Files { store: &copies.store, open: &named, patterns: &copies.patterns, spares: &copies.spares };
    draft.prepare_copies(&script(&folder, &files))?;
    Ok(Some(copies))
}

fn ensure_room(size: Bytes, room: Bytes, draft: &Draft) -> Result<()> {
    if size <= room {
        return Ok(());
    }
    let folder = draft.written_folder();
    Err(Error::new(
        ErrorKind::NoSpace,
        format!("the files to be copied into the checkpoint take {size}, and {room} would be left beside the memory where {} is", folder.display()),
    )
    .with_hint("free space, keep fewer checkpoints (SELFDUMP_KEEP), name another folder with SELFDUMP_DIR, or have SELFDUMP_COPY_FILES name fewer files"))
}

/// The smallest files, as many as take no more than the limit together.
fn within(files: impl Iterator<Item = (PathBuf, Bytes)>, limit: Bytes) -> Vec<PathBuf> {
    let mut files: Vec<(PathBuf, Bytes)> = files.collect();
    files.sort_by_key(|&(_, size)| size);
    let mut left = limit;
    let fits = |&(_, size): &(PathBuf, Bytes)| {
        let fits = size <= left;
        left = Bytes(left.0.saturating_sub(size.0));
        fits
    };
    files.into_iter().take_while(fits).map(|(path, _)| path).collect()
}

/// Each file with what it takes on the disk.
fn sized(files: impl IntoIterator<Item = PathBuf>) -> impl Iterator<Item = (PathBuf, Bytes)> {
    files.into_iter().filter_map(|path| {
        let file = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        // A database may have reserved much more than it has written. Blocks are counted by 512 bytes (stat(2)).
        let size = Bytes(file.len().min(file.blocks().saturating_mul(512)));
        Some((path, size))
    })
}

/// What the files take on the disk, which has to be within the limit.
fn total(files: impl Iterator<Item = (PathBuf, Bytes)>, limit: Bytes) -> Result<Bytes> {
    let files: Vec<(PathBuf, Bytes)> = files.collect();
    let total: Bytes = files.iter().map(|&(_, size)| size).sum();
    match files.iter().max_by_key(|(_, size)| size) {
        Some((path, size)) if total > limit => Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "the files to be copied into the checkpoint take {total}, and {limit} is the limit; the largest is {} with {size}",
                path.display()
            ),
        )
        .with_hint("raise SELFDUMP_COPY_LIMIT (Config::copy_limit), or have SELFDUMP_COPY_FILES name fewer files")),
        _ => Ok(total),
    }
}

impl Copies {
    fn matches(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(path))
    }

    /// What no copy is made of: our own files, and what the kernel shows as files.
    fn is_left_out(&self, path: &Path) -> bool {
        [self.store.as_path(), Path::new("/proc"), Path::new("/sys")].iter().any(|out| path.starts_with(out))
    }

    /// The regular files that the program and its children have open and a pattern is for, and the others that they
    /// can write over, each once.
    fn open(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let tree = procfs::tree(process::id()).into_iter();
        let open = tree.flat_map(|pid| {
            let descriptors = procfs::descriptors(pid).unwrap_or_default().into_iter();
            descriptors.map(move |open| (pid, open))
        });
        let wanted = open.filter(|(_, open)| {
            (open.overwrites || self.matches(&open.target)) && !self.is_left_out(&open.target)
        });
        // One that has lost its name can't be copied by it; CRIU carries that.
        let named = wanted.filter(|(pid, open)| procfs::file_identity(*pid, open.fd, &open.target).is_some());
        let paths: BTreeSet<PathBuf> = named.map(|(_, open)| open.target).collect();
        paths.into_iter().partition(|path| self.matches(path))
    }

    /// These, and what is found by the patterns for paths: each file with what it takes on the disk.
    fn among_all(&self, open: &[PathBuf]) -> impl Iterator<Item = (PathBuf, Bytes)> {
        let found = self.patterns.iter().flat_map(FilePattern::found);
        let all = open.iter().cloned().chain(found).filter_map(|path| path.canonicalize().ok());
        let all: BTreeSet<PathBuf> = all.filter(|path| !self.is_left_out(path)).collect();
        sized(all)
    }

    fn ensure_script_runs(&self, draft: &Draft) -> Result<()> {
        let folder = draft.written_folder();
        if let Some(missing) = ["sh", "cp"].into_iter().find(|tool| criu::on_path(tool).is_none()) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("files can't be copied into the checkpoint: there is no `{missing}` here, and a script makes the copies"),
            )
            .with_hint("install it (the packages dash and coreutils), or leave SELFDUMP_COPY_FILES unset"));
        }
        match disk::allows_programs(&folder) {
            Ok(false) => Err(Error::new(
                ErrorKind::Config,
                format!("files can't be copied into the checkpoint: nothing can be run from the file system of {} (noexec), and a script in it makes the copies", folder.display()),
            )
            .with_hint("name another folder with SELFDUMP_DIR, or leave SELFDUMP_COPY_FILES unset")),
            Ok(true) => Ok(()),
            Err(source) => Err(Error::io("look at the file system of", &folder, source)),
        }
    }

    /// Has the dump make them, if it can: whether it will. A service of another user would copy files that are not
    /// this user's to read, and leave copies that this user can't read.
    pub(super) fn ask(
        &self,
        connection: &Connection,
        draft: &Draft,
        options: &mut DumpOptions,
    ) -> Result<bool> {
        let (_, ours) = process::user();
        match connection.service_user()?.filter(|&theirs| theirs != ours) {
            None => {
                options.config_file = Some(draft.criu_config());
                Ok(true)
            }
            Some(_) if self.patterns.is_empty() => Ok(false),
            Some(theirs) => Err(Error::new(
                ErrorKind::Config,
                format!("files can't be copied by the {}: it runs as user {theirs}, and the program as user {ours}", connection.peer()),
            )
            .with_hint("leave SELFDUMP_SERVICE unset to use a worker of our own, run the service as the program's user, or leave SELFDUMP_COPY_FILES unset")),
        }
    }

    /// What a dump that failed has failed of, where that was a copy.
    pub(super) fn explain(&self, draft: &Draft, error: Error) -> Error {
        let Some(told) = draft.copy_failure() else { return error };
        let mut parts =
            told.splitn(2, |&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        let (path, why) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (kind, hint) = reason(&why);
        let criu = error.criu().cloned().unwrap_or_default();
        Error::new(kind, format!("{path} can't be copied into the checkpoint: {}", why.trim()))
            .with_hint(hint)
            .with_criu(criu)
    }

    /// What was copied: all that was open when everything stood still, among the rest.
    pub(super) fn made(&self, draft: &Draft, processes: &[Process]) -> Result<Vec<CopiedFile>> {
        let made = self.read(draft, processes)?;
        self.ensure_complete(&made, processes)?;
        Ok(made)
    }

    /// What belongs to no pattern goes, and a file that was found by two names counts once.
    fn read(&self, draft: &Draft, processes: &[Process]) -> Result<Vec<CopiedFile>> {
        let Some(list) = draft.copied()? else {
            return Err(Error::new(ErrorKind::Dump, "CRIU didn't make the copies of files that it was asked for")
                .with_hint("look whether /etc/criu or ~/.criu configures it otherwise; a service has to see the store under the same path as the program"));
        };
        let mut made = BTreeMap::new();
        let paths = list.split(|&byte| byte == 0).filter(|path| !path.is_empty());
        for (number, path) in (1..).zip(paths) {
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            let (name, copy) = draft.copy(number);
            let real = real_path(&path);
            let spare = !self.matches(&path);
            let wanted = !spare || (self.spares.contains(&path) && is_written_to(&path, processes));
            let kept = match !wanted || self.is_left_out(&real) || made.contains_key(&real) {
                true => fs::remove_file(&copy),
                false => describe(&real, name, &copy, spare).map(|file| drop(made.insert(real, file))),
            };
            kept.map_err(|source| Error::io("read", &copy, source))?;
        }
        Ok(made.into_values().collect())
    }

    /// A file that was open when all stood still may have been opened since we looked.
    fn ensure_complete(&self, made: &[CopiedFile], processes: &[Process]) -> Result<()> {
        let open = processes.iter().flat_map(|process| &process.descriptors);
        let mut named = open.filter(|open| open.identity.is_some()).filter_map(|open| open.path.as_ref());
        let is_missing = |path: &PathBuf| {
            self.matches(path) && !self.is_left_out(path) && !made.iter().any(|copy| copy.path == *path)
        };
        match named.find(|path| is_missing(path)) {
            None => Ok(()),
            Some(path) => Err(Error::new(
                ErrorKind::Dump,
                format!(
                    "{} was opened just as the dump began, so it was not copied into the checkpoint",
                    path.display()
                ),
            )
            .with_hint(AGAIN)),
        }
    }
}

/// Without links, even where the file is gone again.
fn real_path(path: &Path) -> PathBuf {
    let real = path.canonicalize().ok();
    let folder = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    real.or_else(folder).unwrap_or_else(|| path.to_owned())
}

/// Whether it still was when everything stood still.
fn is_written_to(path: &Path, processes: &[Process]) -> bool {
    let mut open = processes.iter().flat_map(|process| &process.descriptors);
    open.any(|open| open.writes() && open.path.as_deref() == Some(path))
}

/// The copy looks as the file did; that one may have changed since.
fn describe(path: &Path, name: String, copy: &Path, spare: bool) -> io::Result<CopiedFile> {
    let file = fs::metadata(copy)?;
    Ok(CopiedFile {
        path: path.to_owned(),
        copy: name,
        size: Bytes(file.len()),
        mode: file.mode() & 0o7777,
        user: file.uid(),
        group: file.gid(),
        modified: file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec()),
        spare,
    })
}

/// What kind of failure it was, by cp's words, and what to do about it.
fn reason(why: &str) -> (ErrorKind, &'static str) {
    let has = |text: &str| why.contains(text);
    if has("No space left on device") || has("Disk quota exceeded") {
        let hint = "free space where the store is, keep fewer checkpoints (SELFDUMP_KEEP), name another folder with SELFDUMP_DIR, or have SELFDUMP_COPY_FILES name fewer files";
        return (ErrorKind::NoSpace, hint);
    }
    if has("Permission denied") || has("Operation not permitted") {
        let hint = "let the user that CRIU runs as read the file, or have SELFDUMP_COPY_FILES leave it out";
        return (ErrorKind::Permission, hint);
    }
    (ErrorKind::Io, "put right what cp says, or have SELFDUMP_COPY_FILES leave the file out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_the_limit_the_largest_file_is_named() {
        let files =
            [("/data/a", 3 << 20), ("/data/b", 5 << 20)].map(|(path, size)| (path.into(), Bytes(size)));
        assert_eq!(total(files.clone().into_iter(), Bytes(8 << 20)).unwrap(), Bytes(8 << 20));
        let error = total(files.into_iter(), Bytes::mebibytes(7)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(
            error.to_string().contains("take 8.0 MiB") && error.to_string().contains("/data/b with 5.0 MiB"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("SELFDUMP_COPY_LIMIT"));
        assert_eq!(total(std::iter::empty(), Bytes(0)).unwrap(), Bytes(0));
    }

    #[test]
    fn the_smallest_of_those_that_nobody_has_named_come_first() {
        let files = || [("/c", 30), ("/a", 10), ("/b", 20)].map(|(path, size)| (path.into(), Bytes(size)));
        for (limit, taken) in [(60, "/a /b /c"), (59, "/a /b"), (29, "/a"), (9, ""), (0, "")] {
            let found = within(files().into_iter(), Bytes(limit));
            let found: Vec<&str> = found.iter().map(|path| path.to_str().unwrap()).collect();
            assert_eq!(found.join(" "), taken, "{limit}");
        }
    }

    #[test]
    fn what_cp_says_becomes_a_kind_and_a_remedy() {
        for (why, kind, remedy) in [
            ("cp: error writing 'files/1': No space left on device", ErrorKind::NoSpace, "SELFDUMP_KEEP"),
            ("cp: cannot open '/x' for reading: Permission denied", ErrorKind::Permission, "read the file"),
            ("cp: error reading '/x': Input/output error", ErrorKind::Io, "leave the file out"),
        ] {
            let (found, hint) = reason(why);
            assert!(found == kind && hint.contains(remedy), "{why}");
        }
    }
}
