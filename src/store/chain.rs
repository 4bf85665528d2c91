//! What a checkpoint has in common with earlier ones: pages of memory that are as they were.
//!
//! Its images hold the other pages, and build on those of the checkpoint before as CRIU's images build on others. They are
//! all there in its own folder, level by level, and they are the same files on the disk: hard links. So it can be restored,
//! moved, copied and deleted by itself, and what nobody has any more the file system frees. A damaged page takes those
//! checkpoints that use it, and no other: each has a list of the pages that are its own in those files, with checksums.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::draft::{self, Draft};
use super::head::Head;
use super::manifest::{Level, Manifest, PagesFile, damaged_file};
use super::{layout, staged};
use crate::compression::{self, Pages};
use crate::error::{Error, Result};
use crate::frozen::Bytes;
use crate::sys::disk;

/// The most that are held in memory of what a list says has one checksum.
const LARGEST_RUN: u64 = 64 << 20;

/// Pages in a file that are a checkpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Used {
    /// Where they begin in the file.
    pub(crate) offset: u64,
    /// How many bytes they are.
    pub(crate) length: u64,
    /// The XXH3 checksum of 64 bits of them all.
    pub(crate) xxh3_64: u64,
}

/// Which of CRIU's files have to do with pages, by their names.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    /// Those that hold them.
    pub(crate) pages: fn(&str) -> bool,
    /// Those that say which there are.
    pub(crate) maps: fn(&str) -> bool,
}

impl Draft {
    /// Links what a checkpoint holds of pages, for this one to build on. Where that has as many levels below its images as
    /// there may be, it is only the lowest, which is whole.
    pub(crate) fn build_on(
        &self,
        (folder, head): &(PathBuf, Head),
        most: usize,
        names: Names,
    ) -> Result<Vec<Level>> {
        let chain = &head.chain;
        let mut below: Vec<(PathBuf, &String)> =
            (1..).zip(chain).map(|(number, level)| (folder.join(layout::level(number)), &level.id)).collect();
        below.push((folder.join(layout::IMAGES), &head.id));
        if below.len() > most {
            below.truncate(1);
        }
        make(&self.path(layout::CHAIN))?;
        let linked = (1..).zip(&below).map(|(number, (from, id))| {
            Ok(Level { id: (*id).clone(), pages: self.link_level(from, number, names)? })
        });
        let levels: Vec<Level> = linked.collect::<Result<_>>()?;
        for (link, target) in layout::links(levels.len()) {
            let link = self.folder().join(link);
            symlink(target, &link).map_err(|source| Error::io("make the link", &link, source))?;
        }
        Ok(levels)
    }

    fn link_level(&self, from: &Path, number: usize, names: Names) -> Result<Vec<PagesFile>> {
        let level = layout::level(number);
        make(&self.folder().join(&level))?;
        let mut pages = Vec::new();
        for file in staged::files_in(from)? {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !(names.pages)(name) && !(names.maps)(name) {
                continue;
            }
            let path = level.join(name);
            let link = self.folder().join(&path);
            let linked = fs::hard_link(&file, &link).and_then(|()| link.metadata());
            let size = linked.map_err(|source| Error::io("make the link", &link, source))?.len();
            if (names.pages)(name) {
                pages.push(PagesFile { path: path.to_string_lossy().into_owned(), size: Bytes(size) });
            }
        }
        Ok(pages)
    }

    /// The folder of a level.
    pub(crate) fn level(&self, number: usize) -> PathBuf {
        self.folder().join(layout::level(number))
    }

    /// Writes down which pages of other checkpoints' files are this one's.
    pub(crate) fn note_used<'a>(&self, used: impl Iterator<Item = (&'a Path, Used)>) -> Result<()> {
        let mut files: BTreeMap<PathBuf, Vec<Used>> = BTreeMap::new();
        for (file, used) in used {
            files.entry(in_its_level(file)).or_default().push(used);
        }
        let mut text = String::new();
        for (file, mut used) in files {
            used.sort();
            text += &format!("{}\n", file.display());
            text.extend(used.iter().map(|it| format!("{} {} {:016x}\n", it.offset, it.length, it.xxh3_64)));
        }
        let path = self.folder().join(layout::used());
        disk::write_new(&path, text.as_bytes()).map_err(|source| Error::io("write", &path, source))
    }

    /// Builds on nothing, after all.
    pub(crate) fn build_on_nothing(&self) -> Result<()> {
        let chain = self.path(layout::CHAIN);
        match fs::remove_dir_all(&chain) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &chain, source));
            }
            _ => {}
        }
        layout::links(1).try_for_each(|(link, _)| draft::remove_if_there(&self.folder().join(link)))
    }
}

fn make(folder: &Path) -> Result<()> {
    disk::make_private(folder).map_err(|source| Error::io("make", folder, source))
}

/// The path in a checkpoint's folder of a file of its chain.
fn in_its_level(file: &Path) -> PathBuf {
    let names: Vec<_> = file.iter().rev().take(3).collect();
    names.into_iter().rev().collect()
}

/// Whether it is the one of this name, compressed or not.
fn is_file(file: &PagesFile, name: &str) -> bool {
    compression::plain(&file.path).unwrap_or(&file.path) == name
}

/// Sees that the levels of a checkpoint lead to each other, and that the pages are as they were that it uses of them, in
/// files that are `meant`. Its own files have been verified.
pub(super) fn verify(checkpoint: &Path, manifest: &Manifest, meant: impl Fn(&Path) -> bool) -> Result<()> {
    if manifest.chain.is_empty() {
        return Ok(());
    }
    for (link, target) in layout::links(manifest.chain.len()) {
        if fs::read_link(checkpoint.join(&link)).ok() != Some(target) {
            return Err(damaged_file(checkpoint, &link, "doesn't lead where it has to"));
        }
    }
    let list = checkpoint.join(layout::used());
    let failed = |source| Error::io("read", &list, source);
    let unreadable = || damaged_file(checkpoint, &layout::used(), "can't be understood");
    let mut pages: Option<(&Path, Option<Pages>)> = None;
    let mut block = Vec::new();
    for line in BufReader::new(File::open(&list).map_err(failed)?).lines() {
        let line = line.map_err(failed)?;
        if let Some(file) = manifest.shared_files().find(|file| is_file(file, &line)) {
            let name = Path::new(&file.path);
            let path = checkpoint.join(&line);
            let open = meant(name).then(|| Pages::open(&path));
            pages = Some((name, open.transpose().map_err(|source| Error::io("open", &path, source))?));
        } else {
            let (file, open) = pages.as_mut().ok_or_else(unreadable)?;
            let used = read_line(&line).ok_or_else(unreadable)?;
            if let Some(open) = open {
                block.resize(used.length as usize, 0);
                check(open, used, &mut block).map_err(|what| damaged_file(checkpoint, file, &what))?;
            }
        }
    }
    Ok(())
}

fn read_line(line: &str) -> Option<Used> {
    let mut words = line.split(' ');
    let mut number = || words.next()?.parse().ok();
    let (offset, length) = (number()?, number()?);
    let xxh3_64 = u64::from_str_radix(words.next()?, 16).ok()?;
    (words.next().is_none() && length <= LARGEST_RUN).then_some(Used { offset, length, xxh3_64 })
}

fn check(file: &mut Pages, used: Used, pages: &mut [u8]) -> Result<(), String> {
    let place = format!("{} bytes from byte {} on", used.length, used.offset);
    match file.read_exact_at(pages, used.offset) {
        Err(error) => Err(format!("can't be read: {place}: {error}")),
        Ok(()) if xxh3_64(pages) != used.xxh3_64 => {
            Err(format!("has another checksum than when it was written: {place}"))
        }
        Ok(()) => Ok(()),
    }
}
