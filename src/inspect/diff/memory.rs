//! The memory of a process in two checkpoints, compared page by page.

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::Result;
use crate::frozen::Bytes;
use crate::inspect::runs::{Held, Run};
use crate::inspect::{Mapping, MappingKind, Process};
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
    let [before, after] = [Held::of(before.0, before.1)?, Held::of(after.0, after.1)?];
    let mut found = Vec::new();
    for mapping in after.mappings {
        let earlier: Vec<&Mapping> =
            before.mappings.iter().filter(|earlier| is_same(earlier, mapping)).collect();
        let range = mapping.start..mapping.end;
        let mut difference = MappingDifference::new(mapping, became(&earlier, mapping), &range);
        let was: Vec<Run<'_>> =
            earlier.iter().flat_map(|earlier| before.runs_of(earlier, &common(earlier, mapping))).collect();
        compare(&was, &after.runs_of(mapping, &range), &mut difference)?;
        found.push(difference);
    }
    for mapping in before.mappings {
        for range in left_over(mapping, after.mappings) {
            let mut difference = MappingDifference::new(mapping, MappingChange::Went, &range);
            before.runs_of(mapping, &range).iter().for_each(|run| difference.went(&run.range));
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

fn common(one: &Mapping, other: &Mapping) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}

fn became(earlier: &[&Mapping], now: &Mapping) -> MappingChange {
    let is_as_now =
        |was: &&Mapping| (was.start, was.end, was.protection) == (now.start, now.end, now.protection);
    match earlier {
        [] => MappingChange::Came,
        [was] if is_as_now(was) => MappingChange::Stayed,
        _ => MappingChange::Altered,
    }
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
    while let [first, rest @ ..] = *runs {
        if first.range.end > address {
            break;
        }
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
        before.read(start, &mut one[..size])?;
        after.read(start, &mut other[..size])?;
        difference.both(start, &one[..size], &other[..size]);
    }
    Ok(())
}
