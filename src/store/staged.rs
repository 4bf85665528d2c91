//! A draft that is written apart, in memory, while the program stands still, and brought to the disk when it runs again.
//!
//! What CRIU and the script for copies write goes into a folder of [`staging`], which the draft leads them to by its link.
//! Then each file is read there once, block by block: its checksum is taken, it is written to the disk, with holes in the
//! place of what is all zero, and its memory is given back behind the reading. Only then the draft is committed like any
//! other.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::compressed::Compressing;
use super::draft::{self, Draft};
use super::layout;
use super::life::Life;
use super::manifest::{self, FileEntry};
use super::staging::{self, Place, Wanted};
use crate::config::Staging;
use crate::error::{Error, Result};
use crate::frozen::Bytes;
use crate::report::Staged;
use crate::sys::{disk, sparse};

/// The folders of a checkpoint that something is written into.
pub(super) const FOLDERS: [&str; 2] = [layout::IMAGES, layout::FILES];

/// What is read at once: a huge page, so that its memory can be given back.
const BLOCK: usize = 2 << 20;

impl Draft {
    /// Has everything written into memory, where a setting says so and there is room; else it goes to the disk, which may
    /// be worth a word.
    pub(crate) fn stage(&mut self, life: &Life, staging: &Staging, wanted: Wanted) -> Result<Staged> {
        match staging::as_set(life, staging, wanted) {
            Ok(Some(place)) => {
                self.lead_to(place)?;
                Ok(self.staged())
            }
            Ok(None) => Ok(Staged::Disk),
            Err(why) => Ok(Staged::FellBack { why }),
        }
    }

    /// Whether there is a file that has the memory for the pages, as far as it can be known.
    pub(crate) fn has_memory_at_hand(&self) -> bool {
        self.written.as_ref().is_some_and(|place| place.folder.join(layout::ROOM).exists())
    }

    /// That file goes, so that CRIU has the memory.
    pub(crate) fn give_memory_back(&self) -> Result<()> {
        self.written.as_ref().map_or(Ok(()), |place| draft::remove_if_there(&place.folder.join(layout::ROOM)))
    }

    /// Whether the memory that it is written to has come to its end. CRIU may have had no room left to say so.
    pub(crate) fn has_outgrown_memory(&self) -> bool {
        const NOTHING: Bytes = Bytes::mebibytes(2);
        self.written.as_ref().is_some_and(|place| {
            !place.staged.is_plain() && disk::free_space(&place.folder).is_ok_and(|free| free < NOTHING)
        })
    }

    /// Has everything written to the disk after all; what was written elsewhere is gone.
    pub(crate) fn unstage(&mut self) -> Result<()> {
        let Some(place) = self.written.take() else { return Ok(()) };
        staging::remove(&place.folder)?;
        self.point_the_link(&self.images())
    }

    /// Where it is written.
    pub(crate) fn staged(&self) -> Staged {
        self.written.as_ref().map_or(Staged::Disk, |place| place.staged.clone())
    }

    /// Has everything written into a folder of its own.
    pub(super) fn lead_to(&mut self, place: Place) -> Result<()> {
        self.written = Some(place);
        let images = self.images();
        disk::make_private(&images).map_err(|source| Error::io("make", &images, source))?;
        self.point_the_link(&images)
    }

    /// Does something with each file that was written apart and the path that it is to have in the draft, where the
    /// folder for it is. Afterwards nothing is left apart.
    pub(super) fn bring(
        &self,
        place: &Place,
        mut carry: impl FnMut(&Path, &Path) -> Result<()>,
    ) -> Result<()> {
        for name in FOLDERS {
            let (from, to) = (place.folder.join(name), self.path(name));
            if !from.exists() {
                continue;
            }
            if !to.exists() {
                disk::make_private(&to).map_err(|source| Error::io("make", &to, source))?;
            }
            for file in files_in(&from)? {
                carry(&file, &to.join(file.file_name().unwrap_or_default()))?;
            }
        }
        staging::remove(&place.folder)
    }

    /// Moves what was written apart into the draft, and describes it; nothing where all is there already. Pages are
    /// compressed where that is wanted.
    pub(crate) fn bring_home(&self, wanted: Option<&Compressing>) -> Result<Vec<FileEntry>> {
        let described = self.written.as_ref().map(|place| self.move_home(place, wanted)).transpose()?;
        if let Some(wanted) = wanted {
            let files = files_in(&self.home())?;
            files
                .iter()
                .filter(|file| wanted.concerns(file))
                .try_for_each(|file| wanted.carry(file, file))?;
        }
        Ok(described.unwrap_or_default())
    }

    fn move_home(&self, place: &Place, wanted: Option<&Compressing>) -> Result<Vec<FileEntry>> {
        let mut described = Vec::new();
        self.bring(place, |from, to| {
            if let Some(wanted) = wanted.filter(|wanted| wanted.concerns(from)) {
                return wanted.carry(from, to);
            }
            let (size, hash) = move_file(from, to).map_err(|source| Error::io("write", to, source))?;
            let name = to.strip_prefix(self.folder()).unwrap_or(to);
            described.push(manifest::entry(name, size, &hash));
            Ok(())
        })?;
        Ok(described)
    }
}

pub(super) fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::io("read", folder, source);
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

/// Moves a file to where none is yet, on another file system; its size and checksum.
fn move_file(from: &Path, to: &Path) -> io::Result<(Bytes, Xxh3)> {
    let target = disk::create_private(to)?;
    let mut hash = Xxh3::new();
    let size = consume(from, |read, at| {
        hash.update(read);
        sparse::write_at(&target, read, at)?;
        // The disk has something to do while the next block is read.
        disk::send_off(&target, at, read.len() as u64);
        Ok(())
    })?;
    // The end of it may be a hole.
    target.set_len(size)?;
    Ok((Bytes(size), hash))
}

/// Reads a file block by block, each with the place where it begins, and gives back what was read; its size. It is gone
/// afterwards.
pub(super) fn consume(from: &Path, mut carry: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<u64> {
    let mut source = File::options().read(true).write(true).open(from)?;
    let (mut size, mut block) = (0, vec![0; BLOCK]);
    loop {
        let count = fill(&mut source, &mut block)?;
        if count == 0 {
            break;
        }
        carry(&block[..count], size)?;
        disk::give_back(&source, size, count as u64);
        size += count as u64;
    }
    fs::remove_file(from)?;
    Ok(size)
}

/// Reads as much as there is; less than a block only at the end.
fn fill(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < block.len() {
        match file.read(&mut block[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const PAGE: usize = 4096;

    fn moved(contents: &[u8]) -> (u64, u64) {
        let lab = tempfile::tempdir().unwrap();
        let (from, to) = (lab.path().join("from"), lab.path().join("to"));
        fs::write(&from, contents).unwrap();
        let (size, hash) = move_file(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), contents);
        assert_eq!(hash.digest128(), xxhash_rust::xxh3::xxh3_128(contents));
        assert!(!from.exists());
        assert!(move_file(&to, &to).is_err(), "what is there is not written over");
        (size.0, to.metadata().unwrap().blocks() * 512)
    }

    #[test]
    fn a_file_arrives_as_it_was_and_what_is_all_zero_takes_no_room() {
        let block = BLOCK as u64;
        assert_eq!(moved(b""), (0, 0));
        assert_eq!(moved(b"text").0, 4);
        assert_eq!(moved(&[7; BLOCK + 5]).0, block + 5);
        let (size, room) = moved(&vec![0; 2 * BLOCK + 17]);
        assert_eq!((size, room), (2 * block + 17, 0));
        let mut mixed = vec![0; 3 * BLOCK];
        mixed[PAGE + 9] = 1;
        mixed[2 * BLOCK - 1] = 2;
        let (size, room) = moved(&mixed);
        assert_eq!(size, 3 * block);
        assert!(room <= 16 * PAGE as u64, "{room}");
    }

    #[test]
    fn its_memory_is_given_back_block_by_block_as_it_is_read() {
        let lab = tempfile::tempdir_in("/dev/shm").unwrap();
        let from = lab.path().join("from");
        fs::write(&from, vec![7; 4 * BLOCK]).unwrap();
        let mut left = Vec::new();
        consume(&from, |_, _| {
            left.push(from.metadata()?.blocks() * 512 / BLOCK as u64);
            Ok(())
        })
        .unwrap();
        assert_eq!(left, [4, 3, 2, 1]);
    }
}
