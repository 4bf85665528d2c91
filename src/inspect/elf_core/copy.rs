//! Fills the file of a core: block by block, with holes for zeros.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::segments::Segments;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::image::contents::{Contents, Stretch};
use crate::sys::sparse;

/// What is read at once: little enough to be in the processor's cache when it is written.
const BLOCK: usize = 256 << 10;

/// Writes all of a core, which is going to be at `path`. How much that was, without holes.
pub(super) fn all(
    to: &File,
    path: &Path,
    header: &[u8],
    segments: &Segments,
    progress: &mut dyn FnMut(Bytes, Bytes),
) -> Result<Bytes> {
    let failed = |error: io::Error| write_error(path, error);
    to.set_len(header.len() as u64 + segments.size()).map_err(failed)?;
    to.write_all_at(header, 0).map_err(failed)?;
    let mut copy = Copy {
        to,
        path,
        sources: HashMap::new(),
        block: vec![0; BLOCK],
        written: header.len() as u64,
        done: 0,
        total: segments.all.iter().flat_map(|segment| &segment.stretches).map(from_files).sum(),
    };
    let mut at = header.len() as u64;
    for stretch in segments.all.iter().flat_map(|segment| &segment.stretches) {
        copy.stretch(stretch, at, progress)?;
        at += stretch.end - stretch.start;
    }
    Ok(Bytes(copy.written))
}

/// How much of a stretch has to be read.
fn from_files(stretch: &Stretch) -> u64 {
    match stretch.contents {
        Contents::File(..) => stretch.end - stretch.start,
        _ => 0,
    }
}

fn write_error(path: &Path, error: io::Error) -> Error {
    let error = Error::io("write", path, error);
    match error.kind() {
        ErrorKind::NoSpace => {
            error.with_hint("free space on that file system, or name a file on another one")
        }
        _ => error,
    }
}

struct Copy<'a> {
    to: &'a File,
    path: &'a Path,
    sources: HashMap<Arc<Path>, File>,
    block: Vec<u8>,
    written: u64,
    done: u64,
    total: u64,
}

impl Copy<'_> {
    fn stretch(
        &mut self,
        stretch: &Stretch,
        mut at: u64,
        progress: &mut dyn FnMut(Bytes, Bytes),
    ) -> Result<()> {
        let &Contents::File(ref path, mut offset) = &stretch.contents else { return Ok(()) };
        let source = match self.sources.entry(Arc::clone(path)) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(new) => new.insert(open(path)?),
        };
        let mut left = stretch.end - stretch.start;
        while left > 0 {
            let block = &mut self.block[..left.min(BLOCK as u64) as usize];
            read(source, path, offset, block)?;
            self.written +=
                sparse::write_at(self.to, block, at).map_err(|error| write_error(self.path, error))?;
            let size = block.len() as u64;
            (left, offset, at) = (left - size, offset + size, at + size);
            self.done += size;
            progress(Bytes(self.done), Bytes(self.total));
        }
        Ok(())
    }
}

/// Opens a file that contents come from.
pub(super) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Error::io("open", path, error))
}

/// Reads from it as much as there is room for.
pub(super) fn read(file: &File, path: &Path, offset: u64, into: &mut [u8]) -> Result<()> {
    file.read_exact_at(into, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let what =
                format!("{} is damaged: it ends before what should be at byte {offset}", path.display());
            Error::new(ErrorKind::Damaged, what).with_hint("`selfdump verify` tells what else is damaged")
        }
        _ => Error::io("read", path, error),
    })
}
