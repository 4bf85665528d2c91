//! The sentence: choose the newest good checkpoint, see that its process ids are free, have its files as they have to
//! be, reconnect what was connected to the outside, ask CRIU, be the parent.
//!
//! - [`find`] and [`newest_good`] choose.
//! - [`plan`] tells what becomes of the files that the program had open, and touches nothing.
//! - [`restore`] brings a program back as our child.
//! - [`attend`] passes signals on to it and waits for its end.

mod attend;
mod files;
mod pids;
mod rewind;
mod stdio;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use attend::{Ended, attend, end_alike, hold_signals};
pub use files::{FileAction, FilePlan};

use crate::config::{self, Config, FileRule};
use crate::criu::{self, Connection, RestoreOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::image;
use crate::store::catalogue::{self, Entry};
use crate::store::handover::{self, Ready};
use crate::store::layout;
use crate::store::life::Here;
use crate::store::manifest::Manifest;
use crate::sys::{self, procfs};
use files::{Now, World};

/// How often a restore is tried again that met somebody else's process id.
const TRIES: u32 = 3;

/// How a program is brought back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The CRIU program; where none is named, the one that `install` would use.
    pub criu: Option<PathBuf>,
    /// How long CRIU may take.
    pub timeout: Duration,
    /// The program is left stopped (SIGSTOP), for a debugger; SIGCONT lets it go on.
    pub stopped: bool,
    /// What the program finds in [`Restored::settings`](crate::Restored::settings).
    pub settings: BTreeMap<String, String>,
    /// What becomes of files that have changed. They come before the rules that the program has named itself.
    pub files: Vec<FileRule>,
    /// Whether it is known that the program has ended, though that can't be seen from here: it was in another pid
    /// namespace, say, which is gone.
    pub has_ended: bool,
}

/// A program that was brought back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Revived {
    /// Its process id.
    pub pid: i32,
    /// What was done with the files that it had open.
    pub files: Vec<FilePlan>,
    /// Where what was cut off files is kept; none where nothing was.
    pub cut: Option<PathBuf>,
}

/// Where checkpoints are looked for and how they are restored, as the SELFDUMP_* variables say.
///
/// # Errors
///
/// [`ErrorKind::Config`] for a variable with a value that it can't have.
pub fn from_environment(dir: Option<&Path>) -> Result<(PathBuf, Options)> {
    let config = match dir {
        Some(dir) => Config::new().dir(dir),
        None => Config::new(),
    };
    // The name is that of the program to be restored, not of the one that restores.
    let settings = config.name("restore").resolve(&|name| match name {
        "SELFDUMP" => None::<OsString>,
        name => config::environment(name),
    })?;
    let options = Options {
        criu: settings.criu,
        timeout: settings.timeout,
        stopped: false,
        settings: BTreeMap::new(),
        files: settings.files,
        has_ended: false,
    };
    Ok((settings.dir, options))
}

/// The checkpoints of a target in `store`, newest first: a NAME, an id (NAME/INSTANCE/NUMBER), or a folder,
/// which may be a store, an instance or one checkpoint, wherever it was moved to. No target is all.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where there is no such target.
pub fn find(store: &Path, target: Option<&Path>) -> Result<Vec<Entry>> {
    catalogue::find(store, target)
}

/// The newest checkpoint of which every file is as it was committed. `skipped` is told of each newer one
/// that isn't, and why. A forensic one is chosen only where the target is that very checkpoint.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where there is none at all, [`ErrorKind::Damaged`] where none is whole.
pub fn newest_good(
    store: &Path,
    target: Option<&Path>,
    skipped: &mut dyn FnMut(&Entry, &Error),
) -> Result<Entry> {
    let mut entries = find(store, target)?;
    let place = target.unwrap_or(store).display().to_string();
    let is_named = target.is_some_and(|target| catalogue::is_checkpoint(store, target));
    let found = entries.len();
    entries.retain(|entry| is_named || !entry.is_forensic());
    let count = entries.len();
    for entry in entries {
        match entry.verify() {
            Ok(_) => return Ok(entry),
            Err(error) => skipped(&entry, &error),
        }
    }
    Err(match count {
        0 if found > 0 => Error::new(
            ErrorKind::NotFound,
            format!("{place} holds only forensic checkpoints ({found}), of programs that had gone wrong"),
        )
        .with_hint("name one by its id (`selfdump list`) to look at it: `selfdump restore --stopped ID`"),
        0 => Error::new(ErrorKind::NotFound, format!("{place} holds no checkpoint")).with_hint(
            "send the program a SIGUSR2 to have one made; `selfdump status PID` tells why there is none",
        ),
        count => {
            Error::new(ErrorKind::Damaged, format!("none of the {count} checkpoints of {place} is whole"))
        }
    })
}

/// What becomes of the files that the program had open, were it brought back now. Nothing is touched.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] where the checkpoint's manifest can't be read.
pub fn plan(entry: &Entry, options: &Options) -> Result<Vec<FilePlan>> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let here = Here::look().map_err(|source| Error::os("read /proc about this process", source))?;
    let rules: Vec<FileRule> = options.files.iter().chain(&manifest.program.file_rules).cloned().collect();
    let now = |path: &Path| {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Now {
            size: Bytes(file.len()),
            identity: procfs::identity(&file),
            modified: file.modified().ok()?,
        })
    };
    let world = World {
        same_machine: manifest.life.machine == here.machine,
        is_over: options.has_ended || here.is_over(&manifest.life),
        dumped: manifest.answered,
        now: &now,
        writer: &procfs::writer_of,
    };
    Ok(files::plan(&manifest.processes, &rules, &world))
}

/// Brings a program back as a child of this process.
///
/// # Errors
///
/// [`ErrorKind::PidTaken`] where one of its process ids stays another's, [`ErrorKind::FileChanged`] where a
/// file that it had open is not what it has to be, and whatever else CRIU meets. Files are then as they were before.
pub fn restore(entry: &Entry, options: &Options) -> Result<Revived> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let handover = handover(manifest, options)?;
    let restored = with_another_try(entry, manifest, options);
    if let Some(handover) = handover.filter(|_| restored.is_err()) {
        handover.take_back();
    }
    restored
}

fn handover(manifest: &Manifest, options: &Options) -> Result<Option<Ready>> {
    match options.settings.is_empty() {
        true => Ok(None),
        false => handover::lay_ready(manifest.pid(), &manifest.id, &options.settings).map(Some),
    }
}

fn with_another_try(entry: &Entry, manifest: &Manifest, options: &Options) -> Result<Revived> {
    let mut tries = 0..TRIES;
    loop {
        // Only then is it certain that the program itself doesn't write to its files any more.
        pids::wait_until_free(manifest)?;
        let work = WorkFolder::make()?;
        let restored = with_its_files(entry, manifest, options, &work.path);
        // Taken between our look and CRIU's; the next look says by whom, if it stays so.
        let is_taken = restored.as_ref().is_err_and(|error| error.kind() == ErrorKind::PidTaken);
        let again = is_taken && tries.next().is_some();
        // The log of the last try is what its error points to.
        if again || !restored.as_ref().is_err_and(points_to_a_log) {
            work.remove();
        }
        if !again {
            return restored;
        }
    }
}

/// Has the files as they have to be, and back as they were if the program doesn't come.
fn with_its_files(entry: &Entry, manifest: &Manifest, options: &Options, work: &Path) -> Result<Revived> {
    let files = plan(entry, options)?;
    files::refused(&files)?;
    let images = images(entry, &files, work)?;
    let rewound = rewind::rewind(&entry.path, &files)?;
    match by_the_first_fit(&images, manifest, options, work) {
        Ok(pid) => Ok(Revived { pid, files, cut: rewound.folder }),
        Err(error) => {
            rewound.undo();
            Err(error)
        }
    }
}

/// The checkpoint's images, or some that expect the sizes of files that are to stay as they are.
fn images(entry: &Entry, files: &[FilePlan], work: &Path) -> Result<PathBuf> {
    let images = entry.path.join(layout::IMAGES);
    let kept: BTreeMap<PathBuf, Bytes> = files
        .iter()
        .filter_map(|file| match file.action {
            FileAction::Keep { size } => Some((file.path.clone(), size)),
            _ => None,
        })
        .collect();
    if kept.is_empty() {
        return Ok(images);
    }
    let images = images.canonicalize().map_err(|source| Error::io("find", &images, source))?;
    let resized = work.join(layout::IMAGES);
    image::with_sizes(&images, &resized, &kept)?;
    Ok(resized)
}

fn points_to_a_log(error: &Error) -> bool {
    error.criu().is_some_and(|criu| criu.log.is_some())
}

/// Asks the first CRIU that is right for this machine.
fn by_the_first_fit(images: &Path, manifest: &Manifest, options: &Options, work: &Path) -> Result<i32> {
    let programs = criu::programs(options.criu.as_deref())?;
    let mut restored = Err(Error::new(ErrorKind::NoCriu, "no criu was found"));
    for program in programs {
        restored = ask(&program, images, manifest, options, work);
        match &restored {
            Err(error) if error.is_unfit_criu() => log::warn!("{}", error.chain()),
            _ => return restored,
        }
    }
    restored
}

fn ask(program: &Path, images: &Path, manifest: &Manifest, options: &Options, work: &Path) -> Result<i32> {
    let images = open(images)?;
    let folder = open(work)?;
    let reconnected = stdio::reconnect(&manifest.processes)?;
    let descriptors: Vec<BorrowedFd<'_>> = reconnected.iter().map(|(_, stream)| stream.as_fd()).collect();
    let mut request = RestoreOptions::new(images.as_fd(), folder.as_fd(), manifest.criu.needs);
    request.sibling = true;
    request.leave_stopped = options.stopped;
    // The worker's socket is its descriptor 3; what is given to it follows.
    request.inherit = reconnected.iter().map(|(key, _)| key.clone()).zip(4..).collect();
    let connection = Connection::child(program, &descriptors, options.timeout)?;
    criu::supported_version(&connection, program, None)?;
    let log = work.join(&request.log_file);
    connection.restore(&request, &log).inspect_err(|_| end_halfway(manifest))
}

/// Ends what a CRIU that failed or was killed in the middle has left of the program: as siblings of the
/// worker, its processes are our children from the beginning.
fn end_halfway(manifest: &Manifest) {
    let ours = |pid: &i32| sys::procfs::stat(*pid).is_ok_and(|stat| stat.parent == sys::process::id());
    for pid in manifest.processes.iter().map(|process| process.pid).filter(ours) {
        let _ = sys::signal::kill(pid);
        let _ = sys::process::wait(pid);
    }
}

fn open(folder: &Path) -> Result<File> {
    File::open(folder).map_err(|source| Error::io("open", folder, source))
}

/// CRIU's log and statistics of one restore. The checkpoint itself is not written to.
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    fn make() -> Result<WorkFolder> {
        let id = sys::procfs::fresh_id().map_err(|source| Error::os("read /proc", source))?;
        let path = std::env::temp_dir().join(format!("selfdump-restore-{id}"));
        sys::disk::make_private(&path).map_err(|source| Error::io("make", &path, source))?;
        Ok(WorkFolder { path })
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("can't remove {}: {error}", self.path.display());
        }
    }
}
