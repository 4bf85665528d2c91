//! Which checkpoint a program goes on from.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::store::catalogue::{self, Entry};
use crate::store::{entrance, layout};

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
    let entries = candidates(store, target)?;
    let count = entries.len();
    for entry in entries {
        match entry.verify() {
            Ok(_) => return Ok(entry),
            Err(error) => skipped(&entry, &error),
        }
    }
    Err(none_is_whole(count, target.unwrap_or(store)))
}

/// Whether nobody but root and we can have written a checkpoint.
///
/// # Errors
///
/// [`ErrorKind::Permission`] where others can, with what lets them.
pub fn check_trust(entry: &Entry) -> Result<()> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let files = manifest.files.iter().map(|file| &file.path);
    let files = files.chain(manifest.shared_files().map(|file| &file.path)).map(Path::new);
    entrance::trust(&entry.path, files.chain([Path::new(layout::MANIFEST)]))
}

/// The checkpoints of a target to go on from, newest first: there is one.
pub(super) fn candidates(store: &Path, target: Option<&Path>) -> Result<Vec<Entry>> {
    let mut entries = find(store, target)?;
    let is_named = target.is_some_and(|target| catalogue::is_checkpoint(store, target));
    let found = entries.len();
    entries.retain(|entry| is_named || !entry.is_forensic());
    if !entries.is_empty() {
        return Ok(entries);
    }
    let place = target.unwrap_or(store).display();
    Err(match found {
        0 => Error::new(ErrorKind::NotFound, format!("{place} holds no checkpoint")).with_hint(
            "send the program a SIGUSR2 to have one made; `selfdump status PID` tells why there is none",
        ),
        found => Error::new(
            ErrorKind::NotFound,
            format!("{place} holds only forensic checkpoints ({found}), of programs that had gone wrong"),
        )
        .with_hint("name one by its id (`selfdump list`) to look at it: `selfdump restore --stopped ID`"),
    })
}

pub(super) fn none_is_whole(count: usize, place: &Path) -> Error {
    let place = place.display();
    Error::new(ErrorKind::Damaged, format!("none of the {count} checkpoints of {place} is whole"))
}
