//! Pagemaps and files of pages that are written: with what is in other images left to those, or with all of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use prost::Message;

use super::file::Writer;
use super::images::{PageRun as Run, PagemapHead};
use super::kind::{Image, pages_name};
use super::memory::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::sys::disk;

/// A pagemap, and where the pages that it is about are now.
#[derive(Debug)]
pub(super) struct Pagemap {
    image: Image,
    pages_id: u32,
    runs: Vec<Piece>,
}

/// A run of pages.
#[derive(Clone, Debug)]
struct Piece {
    /// As it is to stand in the image, but for how many there are.
    run: Run,
    pages: u64,
    /// The file, and the place in it, that they are copied from; none where they are left to others.
    from: Option<(Arc<Path>, u64)>,
}

/// Copies a part of a file, of a length, to a place in another one.
pub(super) type Copy<'a> = &'a mut dyn FnMut((&File, u64), u64, (&File, u64)) -> io::Result<()>;

impl Pagemap {
    pub(super) fn new(image: Image, pages_id: u32) -> Pagemap {
        Pagemap { image, pages_id, runs: Vec::new() }
    }

    /// The names of the two files that it becomes.
    pub(super) fn names(&self) -> [String; 2] {
        [pages_name(self.pages_id), self.image.file_name()]
    }

    /// The size of its file of pages.
    #[cfg(feature = "inspect")]
    pub(super) fn size(&self) -> u64 {
        self.runs.iter().filter(|piece| piece.from.is_some()).map(Piece::length).sum()
    }

    /// Adds so many bytes of pages, from the address of `run` on, to the run before if they go on with that.
    pub(super) fn push(&mut self, run: Run, length: u64, from: Option<(&Arc<Path>, u64)>) {
        let pages = length / PAGE_SIZE;
        match self.runs.last_mut() {
            Some(last) if last.is_followed_by(&run, from) => last.pages += pages,
            _ => self.runs.push(Piece { run, pages, from: from.map(|(file, at)| (Arc::clone(file), at)) }),
        }
    }

    /// Writes its two files.
    pub(super) fn write(&self, pages: &Path, pagemap: &Path, copy: Copy<'_>) -> Result<()> {
        self.write_pages(pages, copy).map_err(|source| Error::io("write", pages, source))?;
        let mut image = Writer::new(self.image);
        image.put(&PagemapHead { pages_id: self.pages_id }.encode_to_vec());
        self.joined().iter().for_each(|run| image.put(&run.encode_to_vec()));
        disk::write_new(pagemap, image.bytes()).map_err(|source| Error::io("write", pagemap, source))
    }

    fn write_pages(&self, to: &Path, copy: Copy<'_>) -> io::Result<()> {
        let target = disk::create_private(to)?;
        let (mut files, mut size) = (BTreeMap::new(), 0);
        for (piece, (file, at)) in self.runs.iter().filter_map(|piece| Some((piece, piece.from.as_ref()?))) {
            if !files.contains_key(file) {
                files.insert(Arc::clone(file), File::open(file)?);
            }
            copy((&files[file], *at), piece.length(), (&target, size))?;
            size += piece.length();
        }
        // The end of it may be a hole.
        target.set_len(size)
    }

    /// The runs as they are to stand there. Those of several files are one where they follow each other.
    fn joined(&self) -> Vec<Run> {
        let mut joined: Vec<Piece> = Vec::new();
        for piece in &self.runs {
            match joined.last_mut() {
                Some(last) if last.end() == piece.run.vaddr && last.run.flags == piece.run.flags => {
                    last.pages += piece.pages;
                }
                _ => joined.push(piece.clone()),
            }
        }
        joined.iter().map(Piece::message).collect()
    }
}

impl Piece {
    fn length(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    fn end(&self) -> u64 {
        self.run.vaddr + self.length()
    }

    fn is_followed_by(&self, run: &Run, from: Option<(&Arc<Path>, u64)>) -> bool {
        let next = self.from.as_ref().map(|(file, at)| (file, at + self.length()));
        self.end() == run.vaddr && self.run.flags == run.flags && next == from
    }

    /// As CRIU would write it, which has counted pages in one field and then in the other.
    fn message(&self) -> Run {
        match self.run.nr_pages {
            Some(_) => Run { nr_pages: Some(self.pages), ..self.run },
            None => Run { compat_nr_pages: self.pages as u32, ..self.run },
        }
    }
}
