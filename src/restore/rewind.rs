//! Cutting files back to where they were at the checkpoint.
//!
//! What is cut off lies beside the checkpoint before the file is cut, so that nothing is lost: not by a crash in
//! between, and not by a restore that fails, after which the files are made whole again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::{FileAction, FilePlan};
use crate::error::{Error, Result};
use crate::frozen::Bytes;
use crate::store::layout;
use crate::sys::disk;

/// Files that were cut back.
pub(super) struct Rewound {
    cuts: Vec<Cut>,
    /// Where what was cut off lies; none where nothing was.
    pub(super) folder: Option<PathBuf>,
}

/// What was cut off a file.
#[derive(Debug, Serialize)]
struct Cut {
    path: PathBuf,
    /// Where it was cut.
    #[serde(rename = "from_bytes")]
    from: Bytes,
    /// The name of the file in the folder that holds what was cut off.
    saved: String,
}

/// What `cut.json` says.
#[derive(Serialize)]
struct Note<'a> {
    format_version: u32,
    files: &'a [Cut],
}

/// Cuts back what the plans say, all or nothing.
pub(super) fn rewind(checkpoint: &Path, plans: &[FilePlan]) -> Result<Rewound> {
    let to_cut: Vec<(&Path, Bytes)> = plans
        .iter()
        .filter_map(|plan| match plan.action {
            FileAction::Rewind { to, .. } => Some((plan.path.as_path(), to)),
            _ => None,
        })
        .collect();
    if to_cut.is_empty() {
        return Ok(Rewound { cuts: Vec::new(), folder: None });
    }
    let folder = make_folder(checkpoint)?;
    let mut rewound = Rewound { cuts: Vec::new(), folder: Some(folder.clone()) };
    match rewound.cut_all(&folder, &to_cut) {
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
                    .with_hint("what is cut off files is kept beside the checkpoint: make that folder writable, or leave the files as they are (--files 'keep:**')"));
            }
        }
    }
}

impl Rewound {
    fn cut_all(&mut self, folder: &Path, files: &[(&Path, Bytes)]) -> Result<()> {
        // All is saved and on the disk before anything is cut.
        let mut cuts = Vec::new();
        for (number, &(path, from)) in files.iter().enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let saved = format!("{}-{name}", number + 1);
            save(path, from, &folder.join(&saved))?;
            cuts.push(Cut { path: path.to_owned(), from, saved });
        }
        note(folder, &cuts)?;
        for cut in cuts {
            let cutting = OpenOptions::new().write(true).open(&cut.path);
            let cut_back = cutting.and_then(|file| file.set_len(cut.from.0).and_then(|()| file.sync_all()));
            cut_back.map_err(|source| Error::io("cut back", &cut.path, source))?;
            self.cuts.push(cut);
        }
        Ok(())
    }

    /// Makes the files whole again.
    pub(super) fn undo(self) {
        let Some(folder) = &self.folder else { return };
        let mut whole = true;
        for cut in &self.cuts {
            if let Err(error) = put_back(cut, &folder.join(&cut.saved)) {
                whole = false;
                log::error!(
                    "can't put back what was cut off {}: {error}; it is in {}",
                    cut.path.display(),
                    folder.display()
                );
            }
        }
        if whole {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn save(path: &Path, from: Bytes, to: &Path) -> Result<()> {
    let copy = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from.0))?;
        let mut saved = File::create_new(to)?;
        io::copy(&mut file, &mut saved)?;
        saved.sync_all()
    };
    copy().map_err(|source| Error::io("save what is cut off", path, source))
}

fn note(folder: &Path, cuts: &[Cut]) -> Result<()> {
    let path = folder.join(layout::CUT_NOTE);
    let text = serde_json::to_vec_pretty(&Note { format_version: 1, files: cuts }).map_err(io::Error::from);
    text.and_then(|text| fs::write(&path, text))
        .and_then(|()| disk::sync(&path))
        .and_then(|()| disk::sync(folder))
        .map_err(|source| Error::io("write", &path, source))
}

/// Only where the file is as it was left: whoever wrote to it since has the last word.
fn put_back(cut: &Cut, saved: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(&cut.path)?;
    if file.metadata()?.len() != cut.from.0 {
        return Err(io::Error::other("it was written to meanwhile"));
    }
    let mut bytes = File::open(saved)?;
    io::copy(&mut bytes.by_ref(), &mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let rewound = rewind(&checkpoint, &[plan]).unwrap();
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
        rewind(&checkpoint, &[plan]).unwrap().undo();
        assert_eq!(fs::read_to_string(&file).unwrap(), "0123456789");
        assert!(!lab.path().join("000007.cut-1").exists());
    }

    #[test]
    fn where_one_file_can_not_be_cut_none_is() {
        let (lab, checkpoint, file, plan) = scene();
        let gone = FilePlan { path: lab.path().join("gone"), ..plan.clone() };
        let error = rewind(&checkpoint, &[plan, gone]).err().unwrap();
        assert!(error.to_string().contains("gone"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "0123456789");
        assert!(!lab.path().join("000007.cut-1").exists(), "nothing is left");
    }

    #[test]
    fn without_anything_to_cut_nothing_is_made() {
        let (lab, checkpoint, _, plan) = scene();
        let kept = FilePlan { action: FileAction::Nothing, ..plan };
        assert!(rewind(&checkpoint, &[kept]).unwrap().folder.is_none());
        assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 2);
    }
}
