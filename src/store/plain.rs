//! What can be read of an encrypted checkpoint, for as long as it has to be: in a folder that nobody else can enter,
//! in memory where there is room.
//!
//! Each says whose it is, as a draft does: what somebody leaves who is killed goes with the next that looks, and with
//! the machine's next start.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::draft;
use super::layout;
use super::life::{Here, Life};
use super::runtime;
use crate::error::{Error, Result};
use crate::frozen::Bytes;
use crate::sys::{disk, machine, process, procfs};

/// What is left in memory for everybody else.
const LEFT_OVER: Bytes = Bytes::mebibytes(64);

/// A folder of this user's, in memory, with room for so much; none where there is no room. One from which programs are
/// to be run isn't on a file system that forbids it.
pub(super) fn in_memory(life: &Life, wanted: Bytes, runs_programs: bool) -> Option<PathBuf> {
    let fits = |above: &PathBuf| {
        has_room(above, wanted) && (!runs_programs || disk::allows_programs(above).unwrap_or(false))
    };
    let mut above = folders_in_memory().into_iter().filter(|above| nobody_moves_others(above));
    let made = make(&above.find(fits)?, life);
    made.inspect_err(|error| log::warn!("{}", error.chain())).ok()
}

/// One in memory, else one among the system's temporary ones.
pub(super) fn anywhere(life: &Life, wanted: Bytes) -> Result<PathBuf> {
    if let Some(folder) = in_memory(life, wanted, false) {
        return Ok(folder);
    }
    let temporary = std::env::temp_dir();
    log::warn!(
        "there is no room in memory for {wanted}: what is decrypted lies in {} until it isn't needed any more",
        temporary.display()
    );
    make(&temporary, life)
}

/// Deletes what was left by lives that are over.
pub(crate) fn sweep() {
    let Ok(here) = Here::look() else { return };
    for above in folders_in_memory().into_iter().chain([std::env::temp_dir()]) {
        for entry in fs::read_dir(&above).into_iter().flatten().flatten() {
            let folder = entry.path();
            let is_one = entry.file_name().to_str().is_some_and(layout::is_plain_folder) && is_ours(&folder);
            if is_one && draft::is_abandoned(&folder, &here) && fs::remove_dir_all(&folder).is_ok() {
                log::info!("removed {}, left by a crash", folder.display());
            }
        }
    }
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", folder, source)),
        _ => Ok(()),
    }
}

fn folders_in_memory() -> [PathBuf; 2] {
    let runtime = runtime::folder();
    // Where it can't be made, there is no room in it either.
    let _ = runtime::make(&runtime);
    layout::folders_in_memory(runtime)
}

/// Whether what we make in a folder stays what it is: it is ours, or everybody moves only his own there.
fn nobody_moves_others(folder: &Path) -> bool {
    const STICKY: u32 = 0o1000;
    fs::symlink_metadata(folder).is_ok_and(|found| {
        let is_trusted = [0, process::user().1].contains(&found.uid());
        found.is_dir() && is_trusted && (found.mode() & 0o022 == 0 || found.mode() & STICKY != 0)
    })
}

fn is_ours(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == process::user().1)
}

/// What is in memory is taken from what programs can have.
fn has_room(folder: &Path, wanted: Bytes) -> bool {
    let wanted = Bytes(wanted.0.saturating_add(LEFT_OVER.0));
    machine::is_in_memory(folder).unwrap_or(false)
        && disk::free_space(folder).is_ok_and(|free| free >= wanted)
        && procfs::memory_to_fill().is_some_and(|free| free >= wanted)
}

fn make(above: &Path, life: &Life) -> Result<PathBuf> {
    let id = procfs::fresh_id().map_err(|source| Error::os("read /proc", source))?;
    let folder = above.join(layout::plain_folder(&id));
    disk::make_private(&folder).map_err(|source| Error::io("make", &folder, source))?;
    match draft::note_owner(&folder, life) {
        Ok(()) => Ok(folder),
        Err(error) => {
            let _ = remove(&folder);
            Err(error)
        }
    }
}
