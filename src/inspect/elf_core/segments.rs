//! The memory of a core: which parts of each mapping are in it, and where they come from.

use std::ops::Range;
use std::path::Path;

use super::copy;
use super::files::{MappedFiles, of_file};
use crate::error::Result;
use crate::image::contents::{Contents, Stretch, cover};
use crate::image::inside::{Mapping, MappingKind, Memory};
use crate::inspect::dumped::Dumped;

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
    /// How much memory the images tell of and don't have.
    pub(super) missing: u64,
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
        let held = Dumped::of(images, pid, memory)?;
        let mut segments = Segments { all: Vec::new(), missing: 0 };
        for mapping in &memory.mappings {
            let dumped = held.within(mapping, mapping.start..mapping.end);
            segments.missing += dumped.iter().map(missing).sum::<u64>();
            let layers = [&dumped[..], &files.layer(mapping), &[bottom(mapping)]];
            split(mapping, cover(mapping.start..mapping.end, &layers), &mut segments.all);
        }
        Ok(segments)
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

/// How much of a stretch was left to other images that aren't there, or to be fetched.
fn missing(dumped: &Stretch) -> u64 {
    if dumped.contents == Contents::Unknown { dumped.end - dumped.start } else { 0 }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::Bytes;

    fn mapping(kind: MappingKind, pages: u64, protection: u32) -> Mapping {
        Mapping {
            start: PAGE_SIZE,
            end: PAGE_SIZE * (pages + 1),
            kind,
            protection,
            flags: 2,
            path: (kind == MappingKind::PrivateFile).then(|| "/lib/some.so".into()),
            offset_bytes: Bytes(0),
            shared: None,
            dumped_bytes: Bytes(0),
            in_parent_bytes: Bytes(0),
        }
    }

    /// The segments of a mapping of which one page was dumped: how many pages each has, and how many are stored.
    fn parts(mapping: &Mapping, dumped: u64) -> Vec<(u64, u64)> {
        let (start, end) = (PAGE_SIZE * dumped, PAGE_SIZE * (dumped + 1));
        let contents = Contents::File(Path::new("pages-1.img").into(), 0);
        let own = [Stretch { start, end, contents }];
        let mut all = Vec::new();
        split(mapping, cover(mapping.start..mapping.end, &[&own, &[bottom(mapping)]]), &mut all);
        all.iter().map(|it| ((it.end - it.start) / PAGE_SIZE, it.stored() / PAGE_SIZE)).collect()
    }

    #[test]
    fn what_was_never_touched_is_a_hole_in_the_file() {
        assert_eq!(parts(&mapping(MappingKind::Anonymous, 9, 3), 4), [(9, 9)]);
    }

    #[test]
    fn address_space_that_is_only_reserved_takes_no_part_of_the_file() {
        assert_eq!(parts(&mapping(MappingKind::Anonymous, 9, 0), 4), [(3, 0), (1, 1), (5, 0)]);
        let huge = LONGEST_HOLE / PAGE_SIZE;
        assert_eq!(parts(&mapping(MappingKind::Anonymous, huge + 9, 3), 4), [(4, 4), (huge + 5, 0)]);
    }

    #[test]
    fn what_is_in_a_file_is_left_to_it() {
        assert_eq!(parts(&mapping(MappingKind::PrivateFile, 9, 3), 1), [(1, 1), (8, 0)]);
    }
}
