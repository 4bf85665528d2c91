//! Where the pages of a process are, by its own addresses: those of its private and of its shared mappings.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{Mapping, PagePlace, Pages, Process};
use crate::error::{Error, ErrorKind, Result};
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
    entry: &'a Entry,
    pub(super) mappings: &'a [Mapping],
    own: Option<Source>,
    shared: Vec<(u64, Option<Source>)>,
}

/// Where pages are: their runs by address, and the file.
struct Source {
    runs: Vec<(Range<u64>, u64)>,
    file: File,
}

impl Source {
    fn of(mut pages: Pages) -> Result<Option<Source>> {
        let mut runs = Vec::new();
        for run in pages.by_ref() {
            let run = run?;
            match run.place {
                PagePlace::Here { offset } => runs.push((run.address..run.end(), offset)),
                _ => return Err(elsewhere(&pages)),
            }
        }
        // CRIU makes no file where there is nothing to put into it.
        if runs.is_empty() {
            return Ok(None);
        }
        let file = File::open(pages.file()).map_err(|source| Error::io("open", pages.file(), source))?;
        Ok(Some(Source { runs, file }))
    }

    /// The runs within a range, where what the images have at address 0 is at `base`.
    fn within(&self, range: &Range<u64>, base: u64) -> impl Iterator<Item = Run<'_>> {
        let wanted = range.start.wrapping_sub(base)..range.end.wrapping_sub(base);
        let first = self.runs.partition_point(|(run, _)| run.end <= wanted.start);
        let behind = wanted.end;
        let near = self.runs[first..].iter().take_while(move |(run, _)| run.start < behind);
        near.map(move |(run, offset)| {
            let clipped = run.start.max(wanted.start)..run.end.min(wanted.end);
            Run {
                range: clipped.start.wrapping_add(base)..clipped.end.wrapping_add(base),
                file: &self.file,
                offset: offset + (clipped.start - run.start),
            }
        })
    }
}

fn elsewhere(pages: &Pages) -> Error {
    let what = format!("not all pages that belong to {} are there", pages.file().display());
    Error::new(ErrorKind::Damaged, what)
        .with_hint("compare checkpoints that build on no other, and that nothing was left to be fetched of")
}

impl<'a> Held<'a> {
    /// Where its pages are; they are read later.
    pub(super) fn of(entry: &'a Entry, process: &'a Process) -> Result<Held<'a>> {
        let mappings = process.memory.as_ref().map_or(&[][..], |memory| &memory.mappings);
        let own = match &process.memory {
            Some(_) => Source::of(super::pages(entry, process.pid.unsigned_abs())?)?,
            None => None,
        };
        let mut held = Held { entry, mappings, own, shared: Vec::new() };
        let mut shared = mappings.iter().filter_map(|mapping| mapping.shared);
        shared.try_for_each(|shared| held.read_shared(shared))?;
        Ok(held)
    }

    fn read_shared(&mut self, shared: u64) -> Result<()> {
        if self.shared.iter().all(|(known, _)| *known != shared) {
            let pages = super::shared_pages(self.entry, shared)?;
            self.shared.push((shared, pages.map(Source::of).transpose()?.flatten()));
        }
        Ok(())
    }

    /// The runs of one mapping within a range of it. Those of shared memory begin at its beginning, not the mapping's.
    pub(super) fn runs_of(&self, mapping: &Mapping, range: &Range<u64>) -> Vec<Run<'_>> {
        let (source, base) = match mapping.shared {
            None => (self.own.as_ref(), 0),
            Some(shared) => {
                let known = self.shared.iter().find(|(known, _)| *known == shared);
                let base = mapping.start.wrapping_sub(mapping.offset_bytes.0);
                (known.and_then(|(_, source)| source.as_ref()), base)
            }
        };
        source.into_iter().flat_map(|source| source.within(range, base)).collect()
    }
}
