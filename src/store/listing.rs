//! What there is in a store, at a glance: for lists of thousands of checkpoints.
//!
//! Of each manifest only what a list tells is kept, and of each file only its size is looked at; of very many checkpoints
//! only the size of the largest file, the one with the memory. All processors take part.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::catalogue::{self, Found};
use super::life::{Here, Life};
use super::room::{Parts, Room};
use super::{draft, manifest};
use crate::error::{Error, Result};
use crate::frozen::{Bytes, DumpStats, unix_micros};
use crate::report::Cause;
use crate::sys::disk;

/// A folder that is a checkpoint, or was to become one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// NAME/INSTANCE/NUMBER, as it was committed, or is to be; by the folder it is in where it can't tell.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// Whether it can be restored from, as far as that can be seen at a glance.
    pub state: State,
    /// What its manifest tells; none where that can't be read, or isn't there yet.
    pub summary: Option<Summary>,
    /// When it was taken, or where that isn't known when its folder last changed.
    pub taken: Option<SystemTime>,
}

/// How many checkpoints a list may have for each file of each to be looked at. The kernel takes a microsecond to find a
/// file, and a checkpoint has some twenty, so that of ten thousand this alone takes longer than all else.
pub const EACH_FILE_UP_TO: usize = 1000;

/// Whether a checkpoint can be restored from, judged by its manifest and the sizes of its files: of all, or in a list of
/// more than [`EACH_FILE_UP_TO`] checkpoints of the largest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// It can.
    Good,
    /// One to look at, of a program that had gone wrong.
    Forensic,
    /// A file is missing or has another size, or the manifest can't be read.
    Damaged(Error),
    /// A draft: being written, or left by a crash.
    Partial {
        /// Whether it was left: the program that wrote it has ended.
        is_abandoned: bool,
    },
}

impl State {
    /// Its name in tables and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            State::Good => "good",
            State::Forensic => "forensic",
            State::Damaged(_) => "damaged",
            State::Partial { .. } => "partial",
        }
    }
}

/// What a list tells of a checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The name that it is kept under.
    pub name: String,
    /// How many times the program had come back before.
    pub generation: u64,
    /// Why it was taken.
    pub cause: Cause,
    /// The size of its files, without what is those of earlier checkpoints as well.
    pub size: Bytes,
    /// How many pages of memory it holds.
    pub pages_written: u64,
    /// How long the program stood still.
    pub frozen: Duration,
    /// The processes in it, the program's own first.
    pub processes: Vec<i32>,
    /// Whether it takes an identity to read what is in it.
    pub is_encrypted: bool,
    pub(crate) life: Life,
    pub(crate) parent: Option<String>,
    /// What it has in common with earlier ones, by their ids.
    levels: Vec<(String, Bytes)>,
}

/// The checkpoints and drafts of a target, newest first. A target is a NAME or an id in the store, or a folder. No
/// target is all.
///
/// # Errors
///
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where there is no such target.
pub fn list(store: &Path, target: Option<&Path>) -> Result<Vec<Listed>> {
    let found = catalogue::folders(store, target)?;
    let files = if found.len() <= EACH_FILE_UP_TO { Files::Each } else { Files::Largest };
    Ok(look_at(&found, files))
}

/// The same for who decides by it what is deleted: each file is looked at, however many there are.
pub(super) fn list_for_good(store: &Path, target: Option<&Path>) -> Result<Vec<Listed>> {
    Ok(look_at(&catalogue::folders(store, target)?, Files::Each))
}

fn look_at(found: &[Found], files: Files) -> Vec<Listed> {
    let mut listed = in_parallel(found, &|found| look(found, files));
    listed.sort_by_cached_key(|listed| std::cmp::Reverse(listed.taken));
    listed
}

/// Has the processors share the work; the order stays.
fn in_parallel<T: Sync, U: Send>(items: &[T], look: &(impl Fn(&T) -> U + Sync)) -> Vec<U> {
    /// What is done before another thread has begun.
    const AT_LEAST: usize = 64;
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(workers).max(AT_LEAST);
    thread::scope(|scope| {
        let shares =
            items.chunks(share).map(|share| scope.spawn(|| share.iter().map(look).collect::<Vec<U>>()));
        let running: Vec<_> = shares.collect();
        let done = running.into_iter().map(|share| share.join());
        done.flat_map(|share| share.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Which files of a checkpoint are looked at.
#[derive(Clone, Copy)]
enum Files {
    Each,
    Largest,
}

fn look(found: &Found, files: Files) -> Listed {
    match found {
        Found::Checkpoint(path) => checkpoint(path, files),
        Found::Draft(path) => partial(path),
    }
}

fn checkpoint(path: &Path, files: Files) -> Listed {
    let read = manifest::read_text(path).and_then(|text| {
        let lean: Lean<'_> = manifest::parse(path, &text)?;
        let state = match lean.glance(path, files) {
            Err(error) => State::Damaged(error),
            Ok(()) if lean.forensic => State::Forensic,
            Ok(()) => State::Good,
        };
        Ok(Listed {
            id: lean.id.clone().into_owned(),
            path: path.to_owned(),
            state,
            taken: Some(lean.taken),
            summary: Some(lean.into()),
        })
    });
    read.unwrap_or_else(|error| Listed {
        id: id_by_place(path),
        path: path.to_owned(),
        state: State::Damaged(error),
        summary: None,
        taken: catalogue::last_change(path),
    })
}

fn partial(path: &Path) -> Listed {
    let is_abandoned = Here::look().is_ok_and(|here| draft::is_abandoned(path, &here));
    Listed {
        id: id_by_place(&path.with_extension("")),
        path: path.to_owned(),
        state: State::Partial { is_abandoned },
        summary: None,
        taken: catalogue::last_change(path),
    }
}

/// The names of the last three folders.
fn id_by_place(path: &Path) -> String {
    let names: Vec<Cow<'_, str>> = path.iter().map(|name| name.to_string_lossy()).collect();
    names[names.len().saturating_sub(3)..].join("/")
}

/// The fields of a manifest that are looked at here; all others are passed over.
#[derive(Deserialize)]
struct Lean<'a> {
    format_version: u32,
    #[serde(borrow)]
    id: Cow<'a, str>,
    cause: Cause,
    forensic: bool,
    #[serde(rename = "taken_unix_us", with = "unix_micros")]
    taken: SystemTime,
    life: Life,
    #[serde(borrow)]
    program: LeanProgram<'a>,
    stats: DumpStats,
    processes: Vec<LeanProcess>,
    #[serde(borrow)]
    files: Vec<LeanFile<'a>>,
    #[serde(borrow, default)]
    chain: Vec<LeanLevel<'a>>,
    parent: Option<String>,
    #[serde(default)]
    encrypted_to: Vec<String>,
}

#[derive(Deserialize)]
struct LeanProgram<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct LeanProcess {
    pid: i32,
}

#[derive(Deserialize)]
struct LeanFile<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(rename = "size_bytes")]
    size: Bytes,
}

#[derive(Deserialize)]
struct LeanLevel<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    pages: Vec<LeanFile<'a>>,
}

impl LeanLevel<'_> {
    fn told(self) -> (String, Bytes) {
        (self.id.into_owned(), self.pages.iter().map(|file| file.size).sum())
    }
}

impl manifest::Versioned for Lean<'_> {
    fn format_version(&self) -> u32 {
        self.format_version
    }
}

impl Lean<'_> {
    /// Compares the sizes of files, without reading any.
    fn glance(&self, path: &Path, files: Files) -> Result<()> {
        let folder = disk::Folder::open(path).map_err(|source| Error::io("open", path, source))?;
        let as_told = |file: &LeanFile<'_>| {
            let name = Path::new(file.path.as_ref());
            manifest::compare(path, name, file.size, folder.size_of(name))
        };
        let mut all = self.files.iter().chain(self.chain.iter().flat_map(|level| &level.pages));
        match files {
            Files::Each => all.try_for_each(as_told),
            Files::Largest => all.max_by_key(|file| file.size).map_or(Ok(()), as_told),
        }
    }
}

impl From<Lean<'_>> for Summary {
    fn from(lean: Lean<'_>) -> Summary {
        Summary {
            name: lean.program.name.into_owned(),
            generation: lean.life.generation,
            size: lean.files.iter().map(|file| file.size).sum(),
            cause: lean.cause,
            pages_written: lean.stats.pages_written,
            frozen: lean.stats.frozen,
            processes: lean.processes.iter().map(|process| process.pid).collect(),
            is_encrypted: !lean.encrypted_to.is_empty(),
            life: lean.life,
            parent: lean.parent,
            levels: lean.chain.into_iter().map(LeanLevel::told).collect(),
        }
    }
}

/// How much room these take on the disk. What several have in common takes it once.
pub fn size(listed: &[Listed]) -> Bytes {
    let parts: Vec<Parts> = listed.iter().map(Listed::parts).collect();
    Room::of(&parts).size()
}

impl Listed {
    pub(super) fn parts(&self) -> Parts {
        let about = self.summary.as_ref();
        about.map_or_else(Parts::default, |it| Parts::of(&self.path, it.size, it.levels.clone()))
    }

    /// Why it is damaged.
    pub fn problem(&self) -> Option<&Error> {
        match &self.state {
            State::Damaged(error) => Some(error),
            _ => None,
        }
    }
}
