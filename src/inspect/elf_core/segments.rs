//! The memory of a core: which parts of each mapping are in it, and where they come from.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::Path;

use super::copy;
use super::files::{MappedFiles, of_file};
use crate::error::Result;
use crate::image::contents::{self, Contents, Stretch, cover};
use crate::image::inside::{Mapping, MappingKind, Memory};

/// That of the machines whose images are read.
pub(super) const PAGE_SIZE: u64 = 4096;

/// Zeros beyond this, in one piece, are left out of the file, holes or not: address space that a runtime has reserved
/// (a garbage collector's, a sanitizer's) may be larger than any file can be. gdb shows them as zeros all the same.
const LONGEST_HOLE: u64 = 1 << 30;

/// How much of the command line is looked at: more than a note has room for.
const ARGUMENTS: u64 = 256;

/// The parts of all mappings, by address.
pub(super) struct Segments {
    pub(super) all: Vec<Segment>,
}

/// A part of a mapping.
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) end: u64,
    /// As for mmap(2).
    pub(super) protection: u32,
    /// What it holds, without gaps; nothing where it is left out of the file.
    pub(super) stretches: Vec<Stretch>,
}

impl Segment {
    /// How much room it takes in the file.
    pub(super) fn stored(&self) -> u64 {
        if self.stretches.is_empty() { 0 } else { self.end - self.start }
    }
}

impl Segments {
    pub(super) fn of(images: &Path, pid: i32, memory: &Memory, files: &MappedFiles) -> Result<Segments> {
        let own = contents::of_process(images, pid.unsigned_abs())?;
        let mut shared = HashMap::new();
        let mut all = Vec::new();
        for mapping in &memory.mappings {
            let of_others = match mapping.shared {
                Some(id) => shown(mapping, shared_memory(images, id, &mut shared)?),
                None => Vec::new(),
            };
            let layers = [&own[..], &of_others, &files.layer(mapping), &[bottom(mapping)]];
            split(mapping, cover(mapping.start..mapping.end, &layers), &mut all);
        }
        Ok(Segments { all })
    }

    /// How much room they take in the file, holes included.
    pub(super) fn size(&self) -> u64 {
        self.all.iter().map(Segment::stored).sum()
    }

    /// The beginning of the command line.
    pub(super) fn arguments(&self, memory: &Memory) -> Result<Vec<u8>> {
        let (start, end) = (memory.layout.mm_arg_start, memory.layout.mm_arg_end);
        self.read(start..end.min(start.saturating_add(ARGUMENTS)))
    }

    /// What there is of a range, up to the first gap.
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        let stretches = self.all.iter().flat_map(|segment| cover(range.clone(), &[&segment.stretches]));
        for stretch in stretches {
            let at = found.len();
            if stretch.start != range.start + at as u64 {
                break;
            }
            found.resize(at + (stretch.end - stretch.start) as usize, 0);
            if let Contents::File(path, offset) = &stretch.contents {
                copy::read(&copy::open(path)?, path, *offset, &mut found[at..])?;
            }
        }
        Ok(found)
    }
}

/// Shared memory that was looked at, by its number.
type Shared = HashMap<u64, Vec<Stretch>>;

fn shared_memory<'a>(images: &Path, id: u64, known: &'a mut Shared) -> Result<&'a [Stretch]> {
    Ok(match known.entry(id) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert(contents::of_shared(images, id)?),
    })
}

/// What a mapping shows of shared memory, by address.
fn shown(mapping: &Mapping, memory: &[Stretch]) -> Vec<Stretch> {
    let offset = mapping.offset_bytes.0;
    let shown = cover(offset..offset.saturating_add(mapping.size().0), &[memory]);
    let moved = |it: Stretch| Stretch {
        start: it.start - offset + mapping.start,
        end: it.end - offset + mapping.start,
        ..it
    };
    shown.into_iter().map(moved).collect()
}

/// What is where nothing was dumped: of memory that was never touched, zeros.
fn bottom(mapping: &Mapping) -> Stretch {
    use MappingKind::{Other, Socket, Vvar};
    let is_elsewhere = of_file(mapping).is_some() || matches!(mapping.kind, Vvar | Socket | Other);
    let contents = if is_elsewhere { Contents::Unknown } else { Contents::Zero };
    Stretch { start: mapping.start, end: mapping.end, contents }
}

/// Splits a mapping into what is in the file and what isn't.
fn split(mapping: &Mapping, stretches: Vec<Stretch>, all: &mut Vec<Segment>) {
    let is_stored = |stretch: &Stretch| match stretch.contents {
        Contents::File(..) => true,
        Contents::Zero => mapping.protection != 0 && stretch.end - stretch.start < LONGEST_HOLE,
        Contents::Unknown => false,
    };
    for part in stretches.chunk_by(|one, next| is_stored(one) == is_stored(next)) {
        let (first, last) = (&part[0], &part[part.len() - 1]);
        all.push(Segment {
            start: first.start,
            end: last.end,
            protection: mapping.protection,
            stretches: if is_stored(first) { part.to_vec() } else { Vec::new() },
        });
    }
}
