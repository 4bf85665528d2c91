//! Folders in memory for what is there only for a while: what CRIU writes while the program stands still, and what can be
//! read of an encrypted checkpoint.
//!
//! Nobody else can enter them. Each says whose it is, as a draft does: what somebody leaves who is killed goes with the
//! next that looks, and with the machine's next start. A file system of our own ([`Hidden`]) goes by itself.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::draft;
use super::layout;
use super::life::{Here, Life};
use super::runtime;
use crate::config::Staging;
use crate::error::{Error, Result};
use crate::frozen::Bytes;
use crate::report::Staged;
use crate::sys::hidden::Hidden;
use crate::sys::machine::LargePages;
use crate::sys::trust::Trusted;
use crate::sys::{disk, machine, process, procfs};

/// What is left in memory for everybody else.
const LEFT_OVER: Bytes = Bytes::mebibytes(64);

/// A huge page, on most machines.
const HUGE_PAGE: Bytes = Bytes::mebibytes(2);

/// Less than this is written to the disk's cache as soon.
const WORTH_IT: Bytes = Bytes::mebibytes(64);

/// A folder of ours, and what keeps it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    /// What is told of what is written there.
    pub(super) staged: Staged,
    /// The file system that it is in, where that is ours alone. Held, and never looked at.
    _hidden: Option<Hidden>,
}

impl Place {
    /// One on the store's disk.
    pub(super) fn on_the_disk(folder: PathBuf) -> Place {
        Place { folder, staged: Staged::Disk, _hidden: None }
    }
}

/// What a place has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// How much is to be written there at most.
    pub(crate) room: Bytes,
    /// How much of that is there for certain.
    pub(crate) memory: Bytes,
    /// In how many files: each takes a huge page where there are such, however small it is.
    pub(crate) files: u64,
    /// Whether programs are to be run from there, which some file systems forbid.
    pub(crate) runs_programs: bool,
}

impl Wanted {
    /// Why a folder isn't it.
    fn missing_at(self, folder: &Path) -> Option<&'static str> {
        if Trusted::open(folder).is_err() {
            return Some("it isn't there, or others could put something else in its place");
        }
        if !machine::is_in_memory(folder).unwrap_or(false) {
            return Some("it isn't in memory");
        }
        if self.runs_programs && !disk::allows_programs(folder).unwrap_or(false) {
            return Some("it is mounted noexec, and a script is to be run there");
        }
        let room = with_a_margin(self.room_in(machine::large_pages(folder)));
        let has_room = disk::free_space(folder).is_ok_and(|free| free >= room) && fits_in_memory(room);
        (!has_room).then_some("it has no room")
    }

    /// Where all pages are huge, each file has one that is empty for the most part.
    fn room_in(self, pages: Option<LargePages>) -> Bytes {
        let files = if pages == Some(LargePages::Always) { self.files } else { 0 };
        Bytes(self.room.0.saturating_add(files.saturating_mul(HUGE_PAGE.0)))
    }

    /// Whether the pause gets shorter: of many small files in huge pages it doesn't.
    fn is_worth_it(self, pages: LargePages) -> bool {
        self.room >= WORTH_IT && self.room_in(Some(pages)).0 - self.room.0 <= self.room.0 / 4
    }
}

fn with_a_margin(room: Bytes) -> Bytes {
    Bytes(room.0.saturating_add(LEFT_OVER.0))
}

/// What is in memory is taken from what programs can have.
fn fits_in_memory(room: Bytes) -> bool {
    procfs::memory_to_fill().is_some_and(|free| free >= room)
}

/// Where a setting says that it is to be; none where that is the disk. An error says why it can't be there.
pub(super) fn as_set(life: &Life, staging: &Staging, wanted: Wanted) -> Result<Option<Place>, String> {
    match staging {
        Staging::Off => Ok(None),
        Staging::Folder(folder) => match wanted.missing_at(folder) {
            Some(why) => Err(format!("{} would take {}: {why}", folder.display(), wanted.room)),
            None if machine::large_pages(folder).is_some() => furnished(folder, life, wanted).map(Some),
            None => make(folder, life).map(Some).map_err(|error| error.chain()),
        },
        Staging::Auto => in_large_pages(life, wanted),
    }
}

/// The place of `selfdump setup --staging`, or one that is made for this; none where neither can be had, or would do good.
fn in_large_pages(life: &Life, wanted: Wanted) -> Result<Option<Place>, String> {
    let set_up = Path::new(Staging::SHARED);
    let shared = machine::large_pages(set_up);
    let pages = shared.unwrap_or_else(LargePages::best);
    if !wanted.is_worth_it(pages) {
        return Ok(None);
    }
    let room = wanted.room_in(Some(pages));
    if !fits_in_memory(Bytes(room.0.saturating_mul(2))) {
        return Err(format!("there isn't twice as much memory free as would be taken, {room}"));
    }
    if shared.is_some() && wanted.missing_at(set_up).is_none() {
        return furnished(set_up, life, wanted).map(Some);
    }
    if !process::may_administer() || process::adopts_orphans() {
        return Ok(None);
    }
    match Hidden::with_room(with_a_margin(wanted.room_in(Some(LargePages::best())))) {
        Ok(hidden) => {
            let place = furnished(hidden.path(), life, wanted)?;
            Ok(Some(Place { folder: place.folder, staged: Staged::Memory, _hidden: Some(hidden) }))
        }
        Err(error) => {
            log::debug!("no file system in large pages: {error}");
            Ok(None)
        }
    }
}

/// A folder in large pages, with its memory at hand, in a file of its own. The kernel may have to take that from files first, and to move others'
/// pages out of the way of large ones: it does so now, and not while the program stands still.
fn furnished(above: &Path, life: &Life, wanted: Wanted) -> Result<Place, String> {
    let place = make(above, life).map_err(|error| error.chain())?;
    let room = place.folder.join(layout::ROOM);
    match disk::find_memory(&room, wanted.memory.0, HUGE_PAGE.0) {
        Ok(()) => Ok(place),
        Err(error) => {
            let _ = remove(&place.folder);
            Err(format!("the memory isn't to be had, {}: {error}", wanted.memory))
        }
    }
}

/// Where checkpoints could go by way of large pages here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Possible {
    /// By the file system of `selfdump setup --staging`.
    Shared,
    /// By one that is made for each.
    Own,
    /// Not at all, until root has set it up.
    NotYet,
}

/// What is so here, which is seen by trying.
pub(crate) fn possible() -> Possible {
    let can_be_made =
        || process::may_administer() && !process::adopts_orphans() && Hidden::with_room(HUGE_PAGE).is_ok();
    match Staging::is_set_up() {
        true => Possible::Shared,
        false if can_be_made() => Possible::Own,
        false => Possible::NotYet,
    }
}

/// A folder of this user's in memory; none where there is no room.
pub(super) fn in_memory(life: &Life, wanted: Wanted) -> Option<Place> {
    let mut above = folders_in_memory().into_iter().filter(|above| wanted.missing_at(above).is_none());
    let made = make(&above.next()?, life);
    made.inspect_err(|error| log::warn!("{}", error.chain())).ok()
}

/// One in memory, else one among the system's temporary ones.
pub(super) fn anywhere(life: &Life, room: Bytes) -> Result<Place> {
    if let Some(place) = in_memory(life, Wanted { room, memory: room, files: 0, runs_programs: false }) {
        return Ok(place);
    }
    let temporary = std::env::temp_dir();
    log::warn!(
        "there is no room in memory for {room}: what is to be read of it lies in {} until it isn't needed any more",
        temporary.display()
    );
    make(&temporary, life)
}

/// Deletes what was left by lives that are over; `staging` names one more place to look.
pub(crate) fn sweep(staging: &Staging) {
    let Ok(here) = Here::look() else { return };
    let named = match staging {
        Staging::Folder(folder) => Some(folder.clone()),
        _ => None,
    };
    let others = [PathBuf::from(Staging::SHARED), std::env::temp_dir()];
    for above in folders_in_memory().into_iter().chain(others).chain(named) {
        for entry in fs::read_dir(&above).into_iter().flatten().flatten() {
            let folder = entry.path();
            let is_one = entry.file_name().to_str().is_some_and(layout::is_plain_folder) && is_ours(&folder);
            if is_one && draft::is_abandoned(&folder, &here) && remove(&folder).is_ok() {
                log::info!("removed {}, left by a crash", folder.display());
            }
        }
    }
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    /// A CRIU that is being killed may make one more file meanwhile.
    const TRIES: usize = 3;
    let mut tried = 0;
    loop {
        tried += 1;
        match fs::remove_dir_all(folder) {
            Err(source) if source.kind() == io::ErrorKind::DirectoryNotEmpty && tried < TRIES => {}
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", folder, source));
            }
            _ => return Ok(()),
        }
    }
}

fn folders_in_memory() -> [PathBuf; 2] {
    let runtime = runtime::folder();
    // Where it can't be made, there is no room in it either.
    let _ = runtime::make(&runtime);
    layout::folders_in_memory(runtime)
}

fn is_ours(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == process::user().1)
}

fn make(above: &Path, life: &Life) -> Result<Place> {
    let id = procfs::fresh_id().map_err(|source| Error::os("read /proc", source))?;
    let folder = above.join(layout::plain_folder(&id));
    disk::make_private(&folder).map_err(|source| Error::io("make", &folder, source))?;
    match draft::note_owner(&folder, life) {
        Ok(()) => Ok(Place { folder, staged: Staged::Folder { path: above.to_owned() }, _hidden: None }),
        Err(error) => {
            let _ = remove(&folder);
            Err(error)
        }
    }
}
