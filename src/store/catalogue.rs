//! Which checkpoints there are, for those who look from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::layout;
use super::manifest::Manifest;
use super::opened::Opened;
use crate::error::{Error, ErrorKind, Result};

/// A committed checkpoint that was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Its folder.
    pub path: PathBuf,
    /// Its account of itself, or why that can't be read.
    pub manifest: Result<Manifest>,
    /// Where it was opened to, by [`Entry::open`].
    pub(crate) opened: Option<Arc<Opened>>,
}

impl Entry {
    /// NAME/INSTANCE/NUMBER as it was committed; the folder's path where it can't tell.
    pub fn id(&self) -> String {
        self.manifest
            .as_ref()
            .map_or_else(|_| self.path.display().to_string(), |manifest| manifest.id.clone())
    }

    /// When it was taken; none where it can't tell.
    pub fn taken(&self) -> Option<SystemTime> {
        self.manifest.as_ref().ok().map(|manifest| manifest.taken)
    }

    /// The folder of its instance, and its number there; none where it was moved to a folder of another name.
    pub(crate) fn place(&self) -> Option<(&Path, u64)> {
        let number = self.path.file_name()?.to_str().and_then(layout::checkpoint_number)?;
        Some((self.path.parent()?, number))
    }

    /// Whether it is one to look at, of a program that had gone wrong. One that can't tell isn't.
    pub fn is_forensic(&self) -> bool {
        self.manifest.as_ref().is_ok_and(|manifest| manifest.forensic)
    }

    /// Whether it takes an identity to read what is in it ([`Entry::open`]). One that can't tell doesn't.
    pub fn is_encrypted(&self) -> bool {
        self.manifest.as_ref().is_ok_and(Manifest::is_encrypted)
    }

    /// Looks, without reading them, whether every file is there in its size.
    pub fn glance(&self) -> Result<&Manifest> {
        let manifest = self.manifest.as_ref().map_err(Clone::clone)?;
        manifest.glance(&self.path)?;
        Ok(manifest)
    }

    /// Checks every file against its size and checksum, and returns the manifest.
    pub fn verify(&self) -> Result<&Manifest> {
        let manifest = self.manifest.as_ref().map_err(Clone::clone)?;
        self.verify_those(|_| true)?;
        Ok(manifest)
    }

    /// Checks those files that are meant, by their paths in its folder, and that all others are there.
    pub(crate) fn verify_those(&self, meant: impl Fn(&Path) -> bool) -> Result<()> {
        self.manifest.as_ref().map_err(Clone::clone)?.verify(&self.path, meant)
    }
}

/// A folder that was found.
#[derive(Debug)]
pub(super) enum Found {
    Checkpoint(PathBuf),
    /// One that was to become a checkpoint.
    Draft(PathBuf),
}

/// The checkpoints of a target, newest first. A target is a NAME or an id in the store, or a folder: a
/// store, a program's, an instance's or a checkpoint's, wherever it was moved to. No target is all.
pub fn find(store: &Path, target: Option<&Path>) -> Result<Vec<Entry>> {
    let checkpoints = folders(store, target)?.into_iter().filter_map(|found| match found {
        Found::Checkpoint(path) => Some(path),
        Found::Draft(_) => None,
    });
    let mut entries: Vec<Entry> =
        checkpoints.map(|path| Entry { manifest: Manifest::read(&path), path, opened: None }).collect();
    newest_first(&mut entries);
    Ok(entries)
}

/// Puts the newest first. Of one instance that is the one with the highest number, whatever the wall clock has done in
/// between: each counts as taken no earlier than those before it.
pub(crate) fn newest_first(entries: &mut Vec<Entry>) {
    entries.sort_by_cached_key(|entry| entry.place().map(|(instance, number)| (instance.to_owned(), number)));
    let mut dated: Vec<(Option<SystemTime>, Entry)> = Vec::with_capacity(entries.len());
    for entry in entries.drain(..) {
        let own = entry.taken().or_else(|| last_change(&entry.path));
        let instance = |entry: &Entry| entry.place().map(|(instance, _)| instance.to_owned());
        let before = dated
            .last()
            .filter(|(_, other)| instance(other).is_some() && instance(other) == instance(&entry));
        dated.push((own.max(before.and_then(|(taken, _)| *taken)), entry));
    }
    dated.sort_by_key(|(taken, _)| *taken);
    entries.extend(dated.into_iter().rev().map(|(_, entry)| entry));
}

/// The folders of a target's checkpoints and drafts.
pub(super) fn folders(store: &Path, target: Option<&Path>) -> Result<Vec<Found>> {
    let folder = match target {
        None => store.to_owned(),
        Some(target) => locate(store, target)?,
    };
    let mut found = Vec::new();
    // A store that was never written to is an empty one.
    if target.is_some() || folder.exists() {
        collect(&folder, DEPTH, &mut found)?;
    }
    Ok(found)
}

/// When a file of a checkpoint's folder last came or went, or when its manifest was last written: one that
/// can't tell when it was taken stands where it would, or further up, so that it is met and spoken of.
pub(super) fn last_change(checkpoint: &Path) -> Option<SystemTime> {
    let modified = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    modified(&checkpoint.join(layout::MANIFEST)).max(modified(checkpoint))
}

/// Whether a target is one checkpoint, and not a folder of several.
pub(crate) fn is_checkpoint(store: &Path, target: &Path) -> bool {
    locate(store, target).is_ok_and(|folder| looks_like_a_checkpoint(&folder))
}

fn looks_like_a_checkpoint(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    layout::checkpoint_number(name).is_some() || folder.join(layout::MANIFEST).is_file()
}

/// The folders of the instances of a target; for that of a checkpoint, the one that it is in.
pub(crate) fn instances(store: &Path, target: &Path) -> Result<Vec<PathBuf>> {
    let folder = locate(store, target)?;
    let above = folder.ancestors().take(2).find(|folder| is_instance(folder));
    if let Some(instance) = above {
        return Ok(vec![instance.to_owned()]);
    }
    let mut found = Vec::new();
    for child in folders_in(&folder)? {
        if is_instance(&child) {
            found.push(child);
        } else {
            found.extend(folders_in(&child)?.into_iter().filter(|below| is_instance(below)));
        }
    }
    Ok(found)
}

fn is_instance(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(layout::is_instance)
}

/// The folders in a folder; a link to one (`latest`) is that folder once more, and left out.
fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|source| Error::io("read", folder, source))?;
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()).collect())
}

/// From a store to a checkpoint: program, instance, checkpoint.
const DEPTH: u32 = 3;

/// What the store has under this name comes before a folder that happens to be called so.
fn locate(store: &Path, target: &Path) -> Result<PathBuf> {
    let in_store = store.join(target);
    [in_store, target.to_owned()].into_iter().find(|path| path.is_dir()).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "there are no checkpoints of {} in {}, and no such folder",
                target.display(),
                store.display()
            ),
        )
        .with_hint("`selfdump list` shows what there is; another store is named with --dir or SELFDUMP_DIR")
    })
}

fn collect(folder: &Path, depth: u32, found: &mut Vec<Found>) -> Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if layout::draft_number(name).is_some() {
        found.push(Found::Draft(folder.to_owned()));
        return Ok(());
    }
    if looks_like_a_checkpoint(folder) {
        found.push(Found::Checkpoint(folder.to_owned()));
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    folders_in(folder)?.iter().try_for_each(|child| collect(child, depth - 1, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn of_an_instance_the_highest_number_is_the_newest_though_the_clock_was_set_back() {
        let store = tempfile::tempdir().unwrap();
        for (place, seconds) in [("app/1-1/000001", 300), ("app/1-1/000002", 100), ("app/2-2/000001", 200)] {
            let folder = store.path().join(place);
            fs::create_dir_all(&folder).unwrap();
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::open(&folder).unwrap().set_modified(changed).unwrap();
        }
        let found = find(store.path(), None).unwrap();
        let places: Vec<&Path> =
            found.iter().map(|entry| entry.path.strip_prefix(store.path()).unwrap()).collect();
        assert_eq!(places, ["app/1-1/000002", "app/1-1/000001", "app/2-2/000001"].map(Path::new));
    }
}
