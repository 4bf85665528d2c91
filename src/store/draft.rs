//! A checkpoint that is being written, and the rename that makes it one.
//!
//! Whoever makes the folder of a draft owns its number: nobody else can commit under it. Nothing is undone
//! by a destructor, since the process that comes back from a checkpoint still remembers the draft, which
//! has become that very checkpoint: it calls [`Draft::forget`], and touches nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::entrance;
use super::head::Head;
use super::layout::{self, Instance};
use super::life::{Here, Life};
use super::manifest::{self, FileEntry, Level, Manifest};
use super::retention::{self, Candidate, Keep};
use super::staging::{self, Place};
use super::status;
use crate::config::Staging;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::disk;

/// An empty draft without an owner is being made right now, unless it was made longer ago than this; or later, where the
/// clock was set back since.
const OWNERLESS: Duration = Duration::from_secs(60);

/// What a draft has and a checkpoint doesn't, but for the owner, who is named until the end.
const SCAFFOLDING: [&str; 6] = [
    layout::LINK,
    layout::WORKER_LOG,
    layout::CRIU_CONFIG,
    layout::COPY_SCRIPT,
    layout::COPIED,
    layout::COPY_FAILED,
];

/// The folder of a checkpoint that is not one yet.
#[derive(Debug)]
#[must_use = "a draft is committed, discarded or forgotten"]
pub(crate) struct Draft {
    instance: Instance,
    number: u64,
    /// Where CRIU and the script for copies write, if that isn't the draft's own folder.
    pub(super) written: Option<Place>,
    /// How many levels of memory were written ahead of the images.
    pub(super) levels: u32,
}

impl Draft {
    /// Begins the next checkpoint of an instance.
    pub(crate) fn begin(instance: &Instance, life: &Life) -> Result<Draft> {
        let folder = instance.folder();
        entrance::make(&folder, 2)?;
        let draft = claim(instance, highest_number(&folder)? + 1)?;
        match draft.furnish(life) {
            Ok(()) => Ok(draft),
            Err(error) => {
                draft.remove();
                Err(error)
            }
        }
    }

    fn furnish(&self, life: &Life) -> Result<()> {
        note_owner(&self.folder(), life)?;
        let images = self.images();
        disk::make_private(&images).map_err(|source| Error::io("make", &images, source))?;
        let link = self.link();
        symlink(&images, &link).map_err(|source| Error::io("make the link", &link, source))
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.instance.draft(self.number)
    }

    /// The newest checkpoint of the same instance; none where it can't be read.
    pub(crate) fn before(&self) -> Option<(PathBuf, Head)> {
        let numbers = names(&self.instance.folder()).ok()?.into_iter();
        let number = numbers.filter_map(|name| layout::checkpoint_number(&name)).max()?;
        let folder = self.instance.checkpoint(number);
        let head = Head::read(&folder).ok()?;
        Some((folder, head))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The folder that CRIU writes into, and the script for copies.
    pub(crate) fn written_folder(&self) -> PathBuf {
        self.written.as_ref().map_or_else(|| self.folder(), |place| place.folder.clone())
    }

    pub(super) fn written(&self, name: &str) -> PathBuf {
        self.written_folder().join(name)
    }

    /// NAME/INSTANCE/NUMBER of the checkpoint that it becomes.
    pub(crate) fn id(&self) -> String {
        self.instance.id(self.number)
    }

    /// The folder of the checkpoint that it becomes.
    pub(crate) fn destination(&self) -> PathBuf {
        self.instance.checkpoint(self.number)
    }

    /// Where CRIU writes its files.
    pub(crate) fn images(&self) -> PathBuf {
        self.written(layout::IMAGES)
    }

    /// Where those are in the checkpoint that it becomes.
    pub(crate) fn home(&self) -> PathBuf {
        self.path(layout::IMAGES)
    }

    /// Has the link lead to another folder.
    pub(super) fn point_the_link(&self, folder: &Path) -> Result<()> {
        let link = self.link();
        fs::remove_file(&link)
            .and_then(|()| symlink(folder, &link))
            .map_err(|source| Error::io("make the link", &link, source))
    }

    /// Where CRIU writes them, through a link, which is the only path that CRIU takes up to 4.1.1.
    pub(crate) fn link(&self) -> PathBuf {
        self.path(layout::LINK)
    }

    /// Where a worker's first words go.
    pub(crate) fn worker_log(&self) -> PathBuf {
        self.path(layout::WORKER_LOG)
    }

    /// Empties it of what a worker wrote, for another try.
    pub(crate) fn clear_images(&mut self) -> Result<()> {
        self.drop_levels()?;
        remove_if_there(&self.worker_log())?;
        empty(&self.images())
    }

    /// The same, and of copies of files.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.clear_images()?;
        for file in [self.written(layout::COPIED), self.written(layout::COPY_FAILED)] {
            remove_if_there(&file)?;
        }
        empty(&self.written(layout::FILES))
    }

    /// The process that came back from the checkpoint changes nothing on disk: what it remembers as a
    /// draft may be the checkpoint that it came from.
    pub(crate) fn forget(self) {}

    /// Gives the draft up. CRIU's log is kept beside it, for whoever looks for the cause; its new path.
    pub(crate) fn discard(self) -> Option<PathBuf> {
        let kept = self.instance.folder().join(layout::FAILED_LOG);
        let log = self.images().join(layout::DUMP_LOG);
        // It may be on another file system, in memory.
        let moved = fs::rename(&log, &kept).or_else(|_| fs::copy(&log, &kept).map(drop)).is_ok();
        let _ = disk::close_to_others(&kept);
        self.remove();
        moved.then_some(kept)
    }

    fn remove(&self) {
        let apart = self.written.as_ref().map(|place| place.folder.clone());
        for folder in apart.into_iter().chain([self.folder()]) {
            if let Err(error) = remove_draft(&folder) {
                log::warn!("can't remove {}: {error}", folder.display());
            }
        }
    }

    /// Makes it a checkpoint: every byte goes to the disk, then the rename that gives it its name. The
    /// manifest comes with those files described that have been already. Where this fails, nothing has become a checkpoint.
    pub(crate) fn commit(&self, mut manifest: Manifest) -> Result<(PathBuf, Manifest)> {
        for name in SCAFFOLDING {
            remove_if_there(&self.path(name))?;
        }
        manifest.files = self.seal(manifest.files, &manifest.chain)?;
        let folder = self.folder();
        manifest.write(&folder)?;
        self.sync_all(&manifest)?;
        remove_if_there(&self.path(layout::OWNER))?;
        sync(&folder)?;
        let checkpoint = self.destination();
        disk::rename_new(&folder, &checkpoint)
            .map_err(|source| Error::io("rename to", &checkpoint, source))?;
        // What can't be promised to last is none: the name is taken back, and the caller told the truth.
        sync(&self.instance.folder()).inspect_err(|_| {
            if let Err(error) = disk::rename_new(&checkpoint, &folder) {
                log::warn!("can't take the name of {} back: {error}", checkpoint.display());
            }
        })?;
        if !manifest.forensic {
            point_latest(&self.instance, self.number);
        }
        Ok((checkpoint, manifest))
    }

    /// Closes the files to others, whatever mode CRIU gave them, and takes their checksums.
    fn seal(&self, described: Vec<FileEntry>, chain: &[Level]) -> Result<Vec<FileEntry>> {
        let folder = self.folder();
        let files = manifest::list_files(&folder)?;
        let shared = chain.iter().flat_map(|level| &level.pages).map(|file| PathBuf::from(&file.path));
        let links = layout::links(chain.len()).map(|(link, _)| link);
        let others: Vec<PathBuf> = shared.chain(links).chain([layout::OWNER.into()]).collect();
        let sealed = files.iter().filter(|file| !others.contains(file)).map(|file| {
            // The files of a root service are not ours to change; the folder around them is closed.
            let _ = disk::close_to_others(&folder.join(file));
            let known = described.iter().find(|entry| Path::new(&entry.path) == file);
            known.map_or_else(|| manifest::describe(&folder, file), |known| Ok(known.clone()))
        });
        sealed.collect()
    }

    /// What is shared with others as well: those may have been copied here just now.
    fn sync_all(&self, manifest: &Manifest) -> Result<()> {
        let own = manifest.files.iter().map(|file| &file.path);
        let files = own.chain(manifest.shared_files().map(|file| &file.path));
        let paths: Vec<PathBuf> = files.map(|file| self.path(file)).collect();
        paths.iter().try_for_each(|file| sync(file))?;
        sync(&self.path(layout::MANIFEST))?;
        let folder = self.folder();
        let above = paths.iter().flat_map(|file| file.ancestors().skip(1));
        let folders: BTreeSet<&Path> = above.filter(|at| **at != folder && at.starts_with(&folder)).collect();
        folders.into_iter().try_for_each(sync)
    }
}

/// Whole or not there: half an owner would be none that a sweep could ask about.
pub(super) fn note_owner(folder: &Path, life: &Life) -> Result<()> {
    let owner = folder.join(layout::OWNER);
    let text = serde_json::to_vec(life).map_err(io::Error::from);
    text.and_then(|text| disk::replace(&owner, &text, &life.id))
        .map_err(|source| Error::io("write", &owner, source))
}

fn sync(path: &Path) -> Result<()> {
    disk::sync(path).map_err(|source| Error::io("write to the disk", path, source))
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, source)),
        _ => Ok(()),
    }
}

/// Makes the folder of the first number from `number` on that is nobody's.
fn claim(instance: &Instance, number: u64) -> Result<Draft> {
    for number in number..number.saturating_add(1000) {
        let draft = Draft { instance: instance.clone(), number, written: None, levels: 0 };
        let folder = draft.folder();
        match disk::make_private(&folder) {
            // Another life may have committed this number since we looked.
            Ok(()) if instance.checkpoint(number).exists() => draft.remove(),
            Ok(()) => return Ok(draft),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::io("make", &folder, source)),
        }
    }
    Err(Error::new(
        ErrorKind::Io,
        format!("no number is free for a checkpoint in {}", instance.folder().display()),
    ))
}

fn highest_number(folder: &Path) -> Result<u64> {
    let number = |name: &str| layout::checkpoint_number(name).or_else(|| layout::draft_number(name));
    Ok(names(folder)?.iter().filter_map(|name| number(name)).max().unwrap_or(0))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|source| Error::io("read", folder, source))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// The link is for people; a checkpoint is one without it, so that it can't be made is only logged.
fn point_latest(instance: &Instance, number: u64) {
    let latest = instance.folder().join(layout::LATEST);
    let aside = latest.with_extension("new");
    let pointed = remove_if_there(&aside).is_ok()
        && symlink(layout::checkpoint_name(number), &aside)
            .and_then(|()| fs::rename(&aside, &latest))
            .is_ok();
    if !pointed {
        log::warn!("can't point {} to {}", latest.display(), layout::checkpoint_name(number));
    }
}

fn empty(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder)
        .and_then(|()| disk::make_private(folder))
        .map_err(|source| Error::io("empty", folder, source))
}

/// Deletes what retention gives up. Never fails the checkpoint that was just committed.
pub(crate) fn prune(instance: &Instance, life: &Life, keep: Keep) {
    let pruned = Here::look().map_err(|source| Error::os("read /proc", source)).and_then(|here| {
        let numbers =
            names(&instance.folder())?.into_iter().filter_map(|name| layout::checkpoint_number(&name));
        let candidates: Vec<Candidate> =
            numbers.filter_map(|number| candidate(instance, number, life, &here)).collect();
        retention::expired(&candidates, keep).into_iter().try_for_each(|number| delete(instance, number))
    });
    if let Err(error) = pruned {
        log::warn!("can't delete old checkpoints: {}", error.chain());
    }
}

/// None for a checkpoint whose manifest can't be read: it is damaged, and not deleted unseen.
fn candidate(instance: &Instance, number: u64, life: &Life, here: &Here) -> Option<Candidate> {
    let read = Head::read(&instance.checkpoint(number)).ok()?;
    let parent = read.parent.and_then(|id| layout::checkpoint_number(id.rsplit('/').next()?));
    let ours = read.life.id == life.id || here.is_over(&read.life);
    Some(Candidate { number, ours, forensic: read.forensic, parent })
}

fn delete(instance: &Instance, number: u64) -> Result<()> {
    let checkpoint = instance.checkpoint(number);
    delete_folder(&checkpoint).map_err(|source| Error::io("delete", &checkpoint, source))
}

/// Takes the checkpoint's name away first, and that on the disk, so that one that is half deleted is none. What restores
/// from it have taken from files stays: it is the only copy of that.
pub(super) fn delete_folder(checkpoint: &Path) -> io::Result<()> {
    let aside = layout::aside(checkpoint);
    disk::rename_new(checkpoint, &aside)?;
    checkpoint.parent().map_or(Ok(()), disk::sync)?;
    remove_draft(&aside)
}

/// Removes a folder, whatever tells whose it is first: where the rest can't be removed now, it is nobody's, and a sweep
/// removes it.
fn remove_draft(folder: &Path) -> io::Result<()> {
    for name in [layout::OWNER, layout::MANIFEST] {
        let _ = fs::remove_file(folder.join(name));
    }
    fs::remove_dir_all(folder)
}

/// Deletes what the lives of a program that are over have left behind: their drafts, and the folders of
/// instances that came to no checkpoint.
pub(crate) fn sweep(instance: &Instance, staging: &Staging) {
    staging::sweep(staging);
    let Ok(here) = Here::look() else { return };
    let program = instance.store.join(&instance.name);
    // What others may have laid there is not to lead us to what is ours elsewhere.
    if entrance::look(&program, 1).is_err() {
        return;
    }
    for name in names(&program).unwrap_or_default().into_iter().filter(|name| layout::is_instance(name)) {
        let folder = program.join(&name);
        sweep_instance(&folder, &here);
        let is_over = status::life_in(&folder.join(layout::STATUS)).is_some_and(|life| here.is_over(&life));
        if is_over && folder != instance.folder() && holds_nothing(&folder) {
            // Another life may be sweeping as well.
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

fn sweep_instance(folder: &Path, here: &Here) {
    let drafts = names(folder).unwrap_or_default().into_iter();
    for draft in drafts.filter(|name| layout::draft_number(name).is_some()).map(|name| folder.join(name)) {
        if is_abandoned(&draft, here) && fs::remove_dir_all(&draft).is_ok() {
            log::info!("removed {}, left by a crash", draft.display());
        }
    }
}

/// Whether there is no checkpoint in it, no draft and nothing that a restore has taken from files.
fn holds_nothing(folder: &Path) -> bool {
    names(folder).is_ok_and(|names| !names.iter().any(|name| layout::is_of_a_checkpoint(name)))
}

pub(super) fn is_abandoned(draft: &Path, here: &Here) -> bool {
    let owner = fs::read_to_string(draft.join(layout::OWNER));
    let owner = owner.ok().and_then(|text| serde_json::from_str(&text).ok());
    // Just before the rename, and just after the one that begins a deletion, the manifest is what tells.
    let owner: Option<Life> = owner.or_else(|| Some(Head::read(draft).ok()?.life));
    match owner {
        Some(life) => here.is_over(&life),
        None => is_being_deleted(draft) || !is_from_now(draft),
    }
}

/// Whether somebody has begun to delete it, who may have been killed since. What is being made has its owner first.
fn is_being_deleted(draft: &Path) -> bool {
    let names = names(draft).unwrap_or_default();
    names.iter().any(|name| !layout::is_of_the_owner(name))
        && !names.iter().any(|name| name == layout::MANIFEST)
}

fn is_from_now(draft: &Path) -> bool {
    let Ok(changed) = fs::metadata(draft).and_then(|folder| folder.modified()) else { return true };
    let apart = SystemTime::now().duration_since(changed).unwrap_or_else(|ahead| ahead.duration());
    apart <= OWNERLESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_that_nobody_owns_is_left_alone_only_while_it_may_be_being_made() {
        let here = Here::look().unwrap();
        let now = SystemTime::now();
        let long = OWNERLESS * 2;
        for (what, files, changed, expected) in [
            ("it was just made", &[][..], now, false),
            ("its owner is being written", &["owner.id.new"], now, false),
            ("it was made long ago", &[], now - long, true),
            ("it was made before the clock was set back", &[], now + long, true),
            ("its deletion was begun", &["link"], now, true),
            ("its manifest is of another time, and the rename may follow", &["manifest.json"], now, false),
        ] {
            let draft = tempfile::tempdir().unwrap();
            files.iter().for_each(|file| fs::write(draft.path().join(file), "").unwrap());
            fs::File::open(draft.path()).unwrap().set_modified(changed).unwrap();
            assert_eq!(is_abandoned(draft.path(), &here), expected, "{what}");
        }
    }
}
