//! Where the pages of a process are, by its own addresses: those of its private and of its shared mappings.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::dumped::Dumped;
use super::{Mapping, Process};
use crate::error::{Error, ErrorKind, Result};
use crate::image::contents::{Contents, Stretch};
use crate::store::catalogue::Entry;

/// The addresses of which a checkpoint holds the contents, mapping by mapping, in order.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] where an image can't be read, or doesn't hold all that belongs to it.
pub fn held(entry: &Entry, process: &Process) -> Result<Vec<Range<u64>>> {
    let held = Held::of(entry, process)?;
    let of = |mapping: &Mapping| held.runs_of(mapping, &(mapping.start..mapping.end));
    Ok(held.mappings.iter().flat_map(of).map(|run| run.range).collect())
}

/// Pages that lie behind each other in memory and in a file.
#[derive(Clone, Debug)]
pub(super) struct Run<'a> {
    pub(super) range: Range<u64>,
    file: &'a File,
    offset: u64,
}

impl Run<'_> {
    /// Reads the contents from an address on.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) -> Result<()> {
        let at = self.offset + (address - self.range.start);
        self.file.read_exact_at(into, at).map_err(|source| {
            Error::new(ErrorKind::Damaged, format!("the pages at {address:#x} can't be read"))
                .with_hint("use another checkpoint; `selfdump verify` tells what is wrong with this one")
                .with_source(source)
        })
    }
}

/// The memory of a process in a checkpoint.
pub(super) struct Held<'a> {
    pub(super) mappings: &'a [Mapping],
    dumped: Option<Dumped>,
    /// Those that the contents are in.
    files: BTreeMap<Arc<Path>, File>,
}

impl<'a> Held<'a> {
    /// Where its pages are; they are read later.
    pub(super) fn of(entry: &Entry, process: &'a Process) -> Result<Held<'a>> {
        let Some(memory) = &process.memory else {
            return Ok(Held { mappings: &[], dumped: None, files: BTreeMap::new() });
        };
        let images = entry.images()?;
        let dumped = Dumped::of(&images, process.pid, memory)?;
        let mut files = BTreeMap::new();
        for stretch in dumped.stretches() {
            let Contents::File(path, _) = &stretch.contents else { return Err(elsewhere(&images)) };
            if !files.contains_key(path) {
                let file = File::open(path).map_err(|source| Error::io("open", path, source))?;
                files.insert(Arc::clone(path), file);
            }
        }
        Ok(Held { mappings: &memory.mappings, dumped: Some(dumped), files })
    }

    /// The runs of one mapping within a range of it.
    pub(super) fn runs_of(&self, mapping: &Mapping, range: &Range<u64>) -> Vec<Run<'_>> {
        let within = self.dumped.iter().flat_map(|dumped| dumped.within(mapping, range.clone()));
        let run = |stretch: Stretch| match stretch.contents {
            Contents::File(path, offset) => {
                Some(Run { range: stretch.start..stretch.end, file: &self.files[&path], offset })
            }
            _ => None,
        };
        within.filter_map(run).collect()
    }
}

fn elsewhere(images: &Path) -> Error {
    let what = format!("not all pages that belong to {} are there", images.display());
    Error::new(ErrorKind::Damaged, what).with_hint(
        "compare checkpoints of which all images are there, and that nothing was left to be fetched of",
    )
}
