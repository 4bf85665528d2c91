//! One change to one file before a restore: what it was is saved first, so that it can be undone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::copies::{modified, overwrite};
use super::files::{FileAction, FilePlan};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Bytes, CopiedFile, path};
use crate::sys::disk::{self, Looks};

/// A change to a file.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    #[serde(with = "path::required")]
    pub(super) path: PathBuf,
    #[serde(flatten)]
    what: What,
    /// The name of the file, in the folder for what is saved, that holds what it was; none where it wasn't there.
    saved: Option<String>,
    /// How it looked.
    #[serde(skip)]
    before: Option<Looks>,
    /// What it is to be, and where the copy is.
    #[serde(skip)]
    copy: Option<(CopiedFile, PathBuf)>,
    /// Its size and time when it had become that.
    #[serde(skip)]
    after: Option<(u64, SystemTime)>,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
enum What {
    /// It is cut, and what is cut off saved.
    Cut {
        #[serde(rename = "from_bytes")]
        from: Bytes,
    },
    /// It becomes what its copy is; saved as a whole.
    Replaced,
    /// It is made, as its copy is.
    Made,
    /// It is moved to where things are saved.
    SetAside,
}

impl Change {
    /// The change that a plan asks for; `number` makes the saved file's name its own. Nothing is touched.
    pub(super) fn planned(
        plan: &FilePlan,
        number: usize,
        contents: &Path,
        copies: &[CopiedFile],
    ) -> Option<Change> {
        let before = fs::symlink_metadata(&plan.path).ok();
        let copy = copies.iter().find(|copy| copy.path == plan.path);
        let (what, copy) = match (&plan.action, copy) {
            (FileAction::Rewind { to, .. }, _) => (What::Cut { from: *to }, None),
            (FileAction::Recreate { .. }, Some(copy)) if before.is_some() => (What::Replaced, Some(copy)),
            (FileAction::Recreate { .. }, Some(copy)) => (What::Made, Some(copy)),
            (FileAction::SetAside, _) => (What::SetAside, None),
            _ => return None,
        };
        let name = plan.path.file_name().unwrap_or_default().to_string_lossy();
        Some(Change {
            path: plan.path.clone(),
            what,
            saved: (what != What::Made).then(|| format!("{number}-{name}")),
            before: before.as_ref().and_then(|file| looks(file).ok()),
            copy: copy.map(|copy| (copy.clone(), contents.join(&copy.copy))),
            after: None,
        })
    }

    /// Saves what the change takes away, and has it on the disk.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let from = match self.what {
            What::Cut { from } => from.0,
            What::Replaced => 0,
            // The one has nothing to save, the other is moved there.
            What::Made | What::SetAside => return Ok(()),
        };
        let is_link = fs::symlink_metadata(&self.path).is_ok_and(|file| file.is_symlink());
        if is_link && self.copy.is_some() {
            let what =
                format!("{} is a symbolic link now, which leads to some other file", self.path.display());
            return Err(Error::new(ErrorKind::FileChanged, what)
                .with_hint("move the link away, then restore again; the file is then made from its copy"));
        }
        let Some(saved) = self.saved_in(folder) else { return Ok(()) };
        save(&self.path, from, &saved)
            .map_err(|source| Error::io("save what it is before the restore:", &self.path, source))
    }

    /// Makes the change. Where this fails, it may be half made.
    pub(super) fn make(&mut self, folder: &Path) -> Result<()> {
        match (self.what, &self.copy) {
            (What::Cut { from }, _) => {
                self.cut(from, folder).map_err(|source| Error::io("cut back", &self.path, source))
            }
            (What::Replaced | What::Made, Some((copy, from))) => {
                self.recreate(copy, from)?;
                let file = fs::symlink_metadata(&self.path);
                self.after = file.and_then(|file| Ok((file.len(), file.modified()?))).ok();
                Ok(())
            }
            (What::SetAside, _) => match self.saved_in(folder) {
                Some(saved) => move_file(&self.path, &saved, self.before)
                    .map_err(|source| Error::io("move aside", &self.path, source)),
                None => Ok(()),
            },
            (What::Replaced | What::Made, None) => Ok(()),
        }
    }

    /// Only what was saved is cut off: who wrote to it since has the last word.
    fn cut(&self, from: Bytes, folder: &Path) -> io::Result<()> {
        let file = disk::open_over(&self.path)?;
        let now = file.metadata()?;
        let saved = self.saved_in(folder).map(fs::metadata).transpose()?.map_or(0, |saved| saved.len());
        let is_as_saved =
            self.before.is_some_and(|before| now.modified().is_ok_and(|at| at == before.modified));
        if !is_as_saved || now.len() != from.0 + saved {
            return Err(written_meanwhile());
        }
        file.set_len(from.0)?;
        file.sync_all()
    }

    fn recreate(&self, copy: &CopiedFile, from: &Path) -> Result<()> {
        let looks = Looks { mode: copy.mode, user: copy.user, group: copy.group, modified: modified(copy) };
        let made = put(&self.path, from, looks).and_then(|()| match self.path.parent() {
            Some(folder) if self.what == What::Made => disk::sync(folder),
            _ => Ok(()),
        });
        made.map_err(|source| {
            let error = Error::io("put back the copy of", &self.path, source);
            match error.kind() {
                ErrorKind::NotFound => error.with_hint("make the folder that it was in, then restore again"),
                ErrorKind::NoSpace => error.with_hint("free space on its file system, then restore again"),
                ErrorKind::Permission => error.with_hint(format!(
                    "restore as a user who may write to it, or leave it as it is: --files keep:{}",
                    self.path.display()
                )),
                _ => error,
            }
        })
    }

    /// Undoes it. One that was made as a whole is undone only where the file is as it was left: whoever wrote to it
    /// since has the last word.
    pub(super) fn undo(&self, folder: &Path, is_whole: bool) -> io::Result<()> {
        let saved = self.saved_in(folder);
        match (self.what, saved, self.before) {
            // It was to be cut, and wasn't.
            (What::Cut { from }, ..) if !is_whole && fs::metadata(&self.path)?.len() != from.0 => Ok(()),
            (What::Cut { from }, Some(saved), _) => append(&self.path, from, &saved),
            (What::Replaced, Some(saved), Some(before)) => {
                self.ensure_ours(is_whole)?;
                put(&self.path, &saved, before)
            }
            (What::SetAside, Some(saved), before) if saved.exists() => move_file(&saved, &self.path, before),
            (What::Made, ..) if fs::symlink_metadata(&self.path).is_ok() => {
                self.ensure_ours(is_whole)?;
                fs::remove_file(&self.path)
            }
            _ => Ok(()),
        }
    }

    fn ensure_ours(&self, is_whole: bool) -> io::Result<()> {
        let file = fs::symlink_metadata(&self.path)?;
        match is_whole && self.after != Some((file.len(), file.modified()?)) {
            true => Err(written_meanwhile()),
            false => Ok(()),
        }
    }

    fn saved_in(&self, folder: &Path) -> Option<PathBuf> {
        self.saved.as_ref().map(|name| folder.join(name))
    }
}

fn written_meanwhile() -> io::Error {
    io::Error::other("it was written to meanwhile")
}

fn looks(file: &fs::Metadata) -> io::Result<Looks> {
    Ok(Looks { mode: file.mode() & 0o7777, user: file.uid(), group: file.gid(), modified: file.modified()? })
}

fn save(path: &Path, from: u64, to: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut saved = disk::create_private(to)?;
    io::copy(&mut file, &mut saved)?;
    saved.sync_all()
}

/// Has a file hold what another does, and look so.
fn put(path: &Path, contents: &Path, looks: Looks) -> io::Result<()> {
    let file = disk::open_over(path)?;
    overwrite(&file, File::open(contents)?)?;
    disk::set_looks(&file, looks)?;
    file.sync_all()
}

/// Only where the file is as it was left: whoever wrote to it since has the last word.
fn append(path: &Path, end: Bytes, tail: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    if file.metadata()?.len() != end.0 {
        return Err(written_meanwhile());
    }
    io::copy(&mut File::open(tail)?, &mut file)?;
    file.sync_all()
}

/// Moves a file, to another file system as well. Nothing is overwritten.
fn move_file(from: &Path, to: &Path, looks: Option<Looks>) -> io::Result<()> {
    match disk::rename_new(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        result => return result,
    }
    save(from, 0, to)?;
    if let Some(looks) = looks {
        disk::set_looks(&disk::open_over(to)?, looks)?;
    }
    fs::remove_file(from)
}
