//! Having files as they have to be: cut back, put back from copies, moved aside.
//!
//! What is taken away lies beside the checkpoint before anything is changed, so that nothing is lost: not by a crash in
//! between, and not by a restore that fails, after which the files are made whole again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::change::Change;
use super::files::FilePlan;
use crate::error::{Error, Result};
use crate::frozen::CopiedFile;
use crate::store::layout;
use crate::sys::disk;

/// Files that were changed.
pub(super) struct Rewound {
    /// In the order in which they were changed; the last may be half made where that failed.
    changes: Vec<Change>,
    is_whole: bool,
    /// Where what was taken away lies; none where nothing was changed.
    pub(super) folder: Option<PathBuf>,
}

/// What `cut.json` says.
#[derive(Serialize)]
struct Note<'a> {
    format_version: u32,
    files: &'a [Change],
}

/// Changes what the plans say, all or nothing. What is taken away comes to lie beside the checkpoint; copies are taken
/// from where its contents are.
pub(super) fn rewind(
    checkpoint: &Path,
    contents: &Path,
    plans: &[FilePlan],
    copies: &[CopiedFile],
) -> Result<Rewound> {
    let mut changes = Vec::new();
    for plan in plans {
        changes.extend(Change::planned(plan, changes.len() + 1, contents, copies));
    }
    if changes.is_empty() {
        return Ok(Rewound { changes, is_whole: true, folder: None });
    }
    let folder = make_folder(checkpoint)?;
    let mut rewound = Rewound { changes: Vec::new(), is_whole: true, folder: Some(folder.clone()) };
    match rewound.make_all(&folder, changes) {
        Ok(()) => Ok(rewound),
        Err(error) => {
            rewound.undo();
            Err(error)
        }
    }
}

fn make_folder(checkpoint: &Path) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let folder = layout::cut(checkpoint, number);
        match disk::make_private(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => {
                return Err(Error::io("make", &folder, source)
                    .with_hint("what is taken from files is kept beside the checkpoint: make that folder writable, or leave the files as they are (--files 'keep:**')"));
            }
        }
    }
}

impl Rewound {
    fn make_all(&mut self, folder: &Path, changes: Vec<Change>) -> Result<()> {
        // All is saved and on the disk before anything is changed.
        changes.iter().try_for_each(|change| change.save(folder))?;
        note(folder, &changes)?;
        for mut change in changes {
            let made = change.make(folder);
            self.is_whole = made.is_ok();
            self.changes.push(change);
            made?;
        }
        Ok(())
    }

    /// Makes the files what they were, the last one first.
    pub(super) fn undo(self) {
        let Some(folder) = &self.folder else { return };
        let mut all = true;
        for (number, change) in self.changes.iter().enumerate().rev() {
            let is_whole = self.is_whole || number + 1 < self.changes.len();
            if let Err(error) = change.undo(folder, is_whole) {
                all = false;
                log::error!(
                    "can't make {} what it was before the restore: {error}; what was taken from it is in {}",
                    change.path.display(),
                    folder.display()
                );
            }
        }
        if all {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn note(folder: &Path, changes: &[Change]) -> Result<()> {
    let path = folder.join(layout::CUT_NOTE);
    let text =
        serde_json::to_vec_pretty(&Note { format_version: 1, files: changes }).map_err(io::Error::from);
    text.and_then(|text| disk::write_new(&path, &text))
        .and_then(|()| disk::sync(&path))
        .and_then(|()| disk::sync(folder))
        .map_err(|source| Error::io("write", &path, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::Bytes;
    use crate::restore::FileAction;

    /// A checkpoint's folder, and a file of ten bytes of which a plan cuts off the last four.
    fn scene() -> (tempfile::TempDir, PathBuf, PathBuf, FilePlan) {
        let lab = tempfile::tempdir().unwrap();
        let (checkpoint, file) = (lab.path().join("000007"), lab.path().join("out.txt"));
        fs::create_dir(&checkpoint).unwrap();
        fs::write(&file, "0123456789").unwrap();
        let action = FileAction::Rewind { to: Bytes(6), cut: Bytes(4) };
        let plan = FilePlan { path: file.clone(), action, why: "it has grown".into() };
        (lab, checkpoint, file, plan)
    }

    #[test]
    fn what_is_cut_off_lies_beside_the_checkpoint_with_a_note() {
        let (lab, checkpoint, file, plan) = scene();
        let rewound = rewind(&checkpoint, &checkpoint, &[plan], &[]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "012345");
        let folder = rewound.folder.unwrap();
        assert_eq!(folder, lab.path().join("000007.cut-1"));
        assert_eq!(fs::read_to_string(folder.join("1-out.txt")).unwrap(), "6789");
        let note = fs::read_to_string(folder.join("cut.json")).unwrap();
        assert!(note.contains("out.txt") && note.contains("\"from_bytes\": 6"), "{note}");
    }

    #[test]
    fn a_restore_that_fails_leaves_the_files_whole() {
        let (lab, checkpoint, file, plan) = scene();
        rewind(&checkpoint, &checkpoint, &[plan], &[]).unwrap().undo();
        assert_eq!(fs::read_to_string(&file).unwrap(), "0123456789");
        assert!(!lab.path().join("000007.cut-1").exists());
    }

    #[test]
    fn where_one_file_can_not_be_cut_none_is() {
        let (lab, checkpoint, file, plan) = scene();
        let gone = FilePlan { path: lab.path().join("gone"), ..plan.clone() };
        let error = rewind(&checkpoint, &checkpoint, &[plan, gone], &[]).err().unwrap();
        assert!(error.to_string().contains("gone"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "0123456789");
        assert!(!lab.path().join("000007.cut-1").exists(), "nothing is left");
    }

    #[test]
    fn without_anything_to_cut_nothing_is_made() {
        let (lab, checkpoint, _, plan) = scene();
        let kept = FilePlan { action: FileAction::Nothing, ..plan };
        assert!(rewind(&checkpoint, &checkpoint, &[kept], &[]).unwrap().folder.is_none());
        assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 2);
    }
}
