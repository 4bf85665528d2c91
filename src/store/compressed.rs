//! Pages of memory that are compressed on their way into the store, and decompressed to be read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::manifest::{self, Manifest};
use super::staged;
use crate::compression::{self, Compressor, Pages};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::sys::{disk, sparse};

/// What is decompressed at once.
const BLOCK: u64 = 1 << 20;

/// Which files are compressed, and how much.
pub(crate) struct Compressing {
    pub(crate) level: u8,
    /// Whether a file holds pages, by its name.
    pub(crate) holds_pages: fn(&str) -> bool,
}

impl Compressing {
    pub(super) fn concerns(&self, file: &Path) -> bool {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        compression::plain(name).is_none() && (self.holds_pages)(name)
    }

    /// Takes a file away and puts it down compressed, beside the path that it would have.
    pub(super) fn carry(&self, from: &Path, to: &Path) -> Result<()> {
        let to = compression::compressed(to);
        self.compress(from, &to).map_err(|source| Error::io("write", &to, source))
    }

    fn compress(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut compressor = Compressor::new(disk::create_private(to)?, self.level)?;
        staged::consume(from, |read, _| compressor.write(read))?;
        compressor.finish()
    }
}

/// The path of a file before it was compressed; none of one that isn't.
fn plain(file: &str) -> Option<PathBuf> {
    compression::plain(file).map(PathBuf::from)
}

impl Manifest {
    /// Whether files of it have to be decompressed before CRIU can read them.
    pub fn is_compressed(&self) -> bool {
        self.stored_files().any(|file| plain(file).is_some())
    }

    /// The paths of its own files, and of those that it shares with others.
    fn stored_files(&self) -> impl Iterator<Item = &str> {
        let own = self.files.iter().map(|file| &*file.path);
        own.chain(self.shared_files().map(|file| &*file.path))
    }
}

/// How much room what is compressed of a checkpoint takes when it isn't.
pub(super) fn size(checkpoint: &Path, manifest: &Manifest) -> Result<Bytes> {
    let sizes = manifest.stored_files().filter(|file| plain(file).is_some()).map(|file| {
        let file = checkpoint.join(file);
        let size = Pages::open_compressed(&file).and_then(|pages| pages.size());
        size.map(Bytes).map_err(|source| damaged(&file, source))
    });
    sizes.sum()
}

/// Makes a checkpoint's folder in another place, with its pages decompressed; all else is links to where it is.
pub(super) fn decompress(checkpoint: &Path, to: &Path) -> Result<()> {
    let checkpoint = fs::canonicalize(checkpoint).map_err(|source| Error::io("find", checkpoint, source))?;
    for file in manifest::list_files(&checkpoint)? {
        let (from, to) = (checkpoint.join(&file), to.join(&file));
        // The topmost folder is closed to others.
        let above = to.parent().unwrap_or(&to);
        fs::create_dir_all(above).map_err(|source| Error::io("make", above, source))?;
        match (to.to_str().and_then(plain), fs::read_link(&from)) {
            (Some(plain), _) => write(&from, &plain)?,
            // Those of a chain, which lead to each other here as there.
            (None, Ok(target)) => make_link(&target, &to)?,
            (None, Err(_)) => make_link(&from, &to)?,
        }
    }
    Ok(())
}

fn make_link(target: &Path, link: &Path) -> Result<()> {
    symlink(target, link).map_err(|source| Error::io("make the link", link, source))
}

fn write(from: &Path, to: &Path) -> Result<()> {
    let mut pages = Pages::open_compressed(from).map_err(|source| damaged(from, source))?;
    let size = pages.size().map_err(|source| damaged(from, source))?;
    let target = disk::create_private(to).map_err(|source| Error::io("make", to, source))?;
    target.set_len(size).map_err(|source| Error::io("write", to, source))?;
    let mut block = vec![0; BLOCK as usize];
    for at in (0..size).step_by(BLOCK as usize) {
        let block = &mut block[..(size - at).min(BLOCK) as usize];
        pages.read_exact_at(block, at).map_err(|source| damaged(from, source))?;
        put(&target, block, at).map_err(|source| Error::io("write", to, source))?;
    }
    Ok(())
}

fn put(target: &File, block: &[u8], at: u64) -> io::Result<()> {
    sparse::write_at(target, block, at).map(drop)
}

fn damaged(file: &Path, source: io::Error) -> Error {
    Error::new(ErrorKind::Damaged, format!("{} can't be decompressed", file.display()))
        .with_hint("use another checkpoint; this one can't be trusted")
        .with_source(source)
}
