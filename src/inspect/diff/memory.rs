//! The memory of a process in two checkpoints, compared page by page.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::inspect::{self, Mapping, MappingKind, PagePlace, Pages, Process};
use crate::store::catalogue::Entry;

const PAGE_SIZE: u64 = 4096;

/// How much is compared at a time.
const BLOCK: u64 = 64 * PAGE_SIZE;

/// What is different in a mapping. Pages that neither checkpoint holds are as they are in the mapped file, or were
/// never touched, and count for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MappingDifference {
    /// Its beginning.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// What it is.
    pub kind: MappingKind,
    /// The file that is mapped.
    pub path: Option<PathBuf>,
    /// Whether both checkpoints have it.
    pub change: MappingChange,
    /// Pages that both hold, with the same contents.
    pub same_pages: u64,
    /// Pages that both hold, with other contents.
    pub changed_pages: u64,
    /// The bytes of those that are different.
    pub changed_bytes: Bytes,
    /// Pages that only the later one holds.
    pub new_pages: u64,
    /// Pages that only the earlier one holds.
    pub gone_pages: u64,
    /// Where the changed and the new pages are.
    pub changed: Vec<Range<u64>>,
}

/// What became of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MappingChange {
    /// Only the later checkpoint has it.
    Came,
    /// Only the earlier one has it, or this part of it.
    Went,
    /// Both have it, with other bounds or another protection.
    Altered,
    /// Both have it.
    Stayed,
}

impl MappingDifference {
    fn new(mapping: &Mapping, change: MappingChange, range: &Range<u64>) -> MappingDifference {
        MappingDifference {
            start: range.start,
            end: range.end,
            kind: mapping.kind,
            path: mapping.path.clone(),
            change,
            same_pages: 0,
            changed_pages: 0,
            changed_bytes: Bytes(0),
            new_pages: 0,
            gone_pages: 0,
            changed: Vec::new(),
        }
    }

    /// Whether anything is different at all.
    fn is_one(&self) -> bool {
        self.change != MappingChange::Stayed || self.changed_pages + self.new_pages + self.gone_pages > 0
    }

    fn note(&mut self, range: Range<u64>) {
        match self.changed.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.changed.push(range),
        }
    }

    fn came(&mut self, range: Range<u64>) {
        self.new_pages += (range.end - range.start) / PAGE_SIZE;
        self.note(range);
    }

    fn went(&mut self, range: &Range<u64>) {
        self.gone_pages += (range.end - range.start) / PAGE_SIZE;
    }

    fn both(&mut self, address: u64, before: &[u8], after: &[u8]) {
        let pages = before.chunks(PAGE_SIZE as usize).zip(after.chunks(PAGE_SIZE as usize));
        for (at, (before, after)) in (address..).step_by(PAGE_SIZE as usize).zip(pages) {
            if before == after {
                self.same_pages += 1;
                continue;
            }
            self.changed_pages += 1;
            self.changed_bytes.0 +=
                before.iter().zip(after).filter(|(before, after)| before != after).count() as u64;
            self.note(at..at + PAGE_SIZE);
        }
    }
}

/// The memory of a process in two checkpoints, mapping by mapping.
pub(super) fn diff(before: (&Entry, &Process), after: (&Entry, &Process)) -> Result<Vec<MappingDifference>> {
    let [before, after] = [Side::of(before)?, Side::of(after)?];
    let mut found = Vec::new();
    for mapping in after.mappings {
        let range = mapping.start..mapping.end;
        let change = match before.mappings.iter().find(|earlier| is_same(earlier, mapping)) {
            None => MappingChange::Came,
            Some(earlier) if is_altered(earlier, mapping) => MappingChange::Altered,
            Some(_) => MappingChange::Stayed,
        };
        let mut difference = MappingDifference::new(mapping, change, &range);
        compare(
            &before.runs(&range, |earlier| is_same(earlier, mapping))?,
            &after.runs_of(mapping, &range)?,
            &mut difference,
        )?;
        found.push(difference);
    }
    for mapping in before.mappings {
        for range in left_over(mapping, after.mappings) {
            let mut difference = MappingDifference::new(mapping, MappingChange::Went, &range);
            before.runs_of(mapping, &range)?.iter().for_each(|run| difference.went(&run.range));
            found.push(difference);
        }
    }
    found.retain(MappingDifference::is_one);
    found.sort_by_key(|difference| difference.start);
    Ok(found)
}

/// Whether two mappings are one that may have grown: they overlap, and are of the same thing.
fn is_same(one: &Mapping, other: &Mapping) -> bool {
    one.start < other.end
        && other.start < one.end
        && one.path == other.path
        && one.is_shared() == other.is_shared()
}

fn is_altered(one: &Mapping, other: &Mapping) -> bool {
    (one.start, one.end, one.protection) != (other.start, other.end, other.protection)
}

/// What of a mapping none of the later ones takes up.
fn left_over(mapping: &Mapping, later: &[Mapping]) -> Vec<Range<u64>> {
    let (mut from, mut left) = (mapping.start, Vec::new());
    for same in later.iter().filter(|later| is_same(mapping, later)) {
        if from < same.start {
            left.push(from..same.start);
        }
        from = from.max(same.end);
    }
    if from < mapping.end {
        left.push(from..mapping.end);
    }
    left
}

/// Pages that lie behind each other in memory and in a file.
#[derive(Clone, Debug)]
struct Run<'a> {
    range: Range<u64>,
    file: &'a File,
    offset: u64,
}

/// One of the two checkpoints.
struct Side<'a> {
    entry: &'a Entry,
    mappings: &'a [Mapping],
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

impl<'a> Side<'a> {
    fn of((entry, process): (&'a Entry, &'a Process)) -> Result<Side<'a>> {
        let mappings = process.memory.as_ref().map_or(&[][..], |memory| &memory.mappings);
        let own = match &process.memory {
            Some(_) => Source::of(inspect::pages(entry, process.pid.unsigned_abs())?)?,
            None => None,
        };
        let mut side = Side { entry, mappings, own, shared: Vec::new() };
        mappings
            .iter()
            .filter_map(|mapping| mapping.shared)
            .try_for_each(|shared| side.read_shared(shared))?;
        Ok(side)
    }

    fn read_shared(&mut self, shared: u64) -> Result<()> {
        if self.shared.iter().all(|(known, _)| *known != shared) {
            let pages = inspect::shared_pages(self.entry, shared)?;
            self.shared.push((shared, pages.map(Source::of).transpose()?.flatten()));
        }
        Ok(())
    }

    /// The runs of all mappings that are wanted, within a range.
    fn runs(&self, range: &Range<u64>, is_wanted: impl Fn(&Mapping) -> bool) -> Result<Vec<Run<'_>>> {
        let mut all = Vec::new();
        for mapping in self.mappings.iter().filter(|mapping| is_wanted(mapping)) {
            let common = range.start.max(mapping.start)..range.end.min(mapping.end);
            all.extend(self.runs_of(mapping, &common)?);
        }
        Ok(all)
    }

    /// The runs of one mapping within a range of it.
    fn runs_of(&self, mapping: &Mapping, range: &Range<u64>) -> Result<Vec<Run<'_>>> {
        let (source, base) = match mapping.shared {
            None => (self.own.as_ref(), 0),
            Some(shared) => {
                let source = self.shared.iter().find(|(known, _)| *known == shared);
                (
                    source.and_then(|(_, source)| source.as_ref()),
                    mapping.start.wrapping_sub(mapping.offset_bytes.0),
                )
            }
        };
        Ok(source.into_iter().flat_map(|source| source.within(range, base)).collect())
    }
}

/// Goes along both, and compares where both have pages.
fn compare(before: &[Run<'_>], after: &[Run<'_>], difference: &mut MappingDifference) -> Result<()> {
    let edges = before.iter().chain(after).flat_map(|run| [run.range.start, run.range.end]);
    let mut edges: Vec<u64> = edges.collect();
    edges.sort_unstable();
    edges.dedup();
    let (mut before, mut after) = (before, after);
    for piece in edges.windows(2).map(|edges| edges[0]..edges[1]) {
        let [earlier, later] = [reach(&mut before, piece.start), reach(&mut after, piece.start)];
        match (earlier, later) {
            (Some(earlier), Some(later)) => contents(earlier, later, &piece, difference)?,
            (Some(_), None) => difference.went(&piece),
            (None, Some(_)) => difference.came(piece),
            (None, None) => {}
        }
    }
    Ok(())
}

/// The run that an address is in, when asked in the order of addresses.
fn reach<'r, 'a>(runs: &mut &'r [Run<'a>], address: u64) -> Option<&'r Run<'a>> {
    while let Some((first, rest)) = runs.split_first().filter(|(first, _)| first.range.end <= address) {
        let _ = first;
        *runs = rest;
    }
    runs.first().filter(|run| run.range.contains(&address))
}

fn contents(
    before: &Run<'_>,
    after: &Run<'_>,
    piece: &Range<u64>,
    difference: &mut MappingDifference,
) -> Result<()> {
    let (mut one, mut other) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
    for start in piece.clone().step_by(BLOCK as usize) {
        let size = BLOCK.min(piece.end - start) as usize;
        read(before, start, &mut one[..size])?;
        read(after, start, &mut other[..size])?;
        difference.both(start, &one[..size], &other[..size]);
    }
    Ok(())
}

fn read(run: &Run<'_>, address: u64, into: &mut [u8]) -> Result<()> {
    let at = run.offset + (address - run.range.start);
    run.file.read_exact_at(into, at).map_err(|source| {
        Error::new(ErrorKind::Damaged, format!("the pages at {address:#x} can't be read"))
            .with_hint("use another checkpoint; `selfdump verify` tells what is wrong with this one")
            .with_source(source)
    })
}
