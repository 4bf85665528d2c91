//! How much memory a process has, and how much of it is in these images.

use std::path::Path;

use super::images::{Mapping, Memory, PageRun};
use super::kind::{Image, Kind};
use super::pages::{PagePlace, Pages};
use crate::error::Result;
use crate::frozen::Bytes;

/// What a page count is multiplied by. The images don't say it: it is that of the machine they were made on,
/// and x86-64, where this runs, has only one.
pub(super) const PAGE_SIZE: u64 = 4096;

/// A mapping that CRIU made up to remember a guard region (`VMA_AREA_GUARD` in its `image.h`).
const GUARD: u32 = 1 << 16;

/// A run of pages that the images which this dump builds on hold (`PE_PARENT` in CRIU's `pagemap.h`).
pub(super) const IN_PARENT: u32 = 1 << 0;
/// A run of pages that is fetched later (`PE_LAZY`).
pub(super) const LAZY: u32 = 1 << 1;
/// A run of pages that is in these images (`PE_PRESENT`).
pub(super) const PRESENT: u32 = 1 << 2;

/// The number of a process's mappings, without `[vsyscall]`, which is the kernel's and not in the image.
pub(super) fn mappings(images: &Path, pid: u32) -> Result<u64> {
    let memory: Memory = Image::of(Kind::Memory, pid).read_one(images)?;
    Ok(memory.vmas.iter().filter(|mapping| !is_guard(mapping)).count() as u64)
}

/// Whether a mapping is one that CRIU made up.
pub(super) fn is_guard(mapping: &Mapping) -> bool {
    mapping.status & GUARD != 0
}

/// The pages of a process that are stored in these images or in those that they build on, in bytes, without what a lazy
/// dump left to be fetched.
pub(super) fn stored(images: &Path, pid: u32) -> Result<Bytes> {
    let mut pages = Pages::of_process(images, pid)?;
    let below = pages.by_ref().try_fold(0_u64, |below, run| {
        let run = run?;
        let pages = if run.place == PagePlace::Parent { run.pages } else { 0 };
        Ok(below.saturating_add(pages * PAGE_SIZE))
    })?;
    Ok(Bytes(below.saturating_add(pages.stored())))
}

/// Where a run of pages is. Images of an older CRIU say only whether it is in the parent (as CRIU's
/// `pagemap.c` reads them).
pub(super) fn where_stored(run: &PageRun) -> u32 {
    match (run.in_parent, run.flags) {
        (Some(true), flags) => flags.unwrap_or(0) | IN_PARENT,
        (_, Some(flags)) => flags,
        (_, None) => PRESENT,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::images::PagemapHead;
    use super::super::testing::Folder;
    use super::*;

    fn run(pages: u64, flags: u32) -> PageRun {
        PageRun { nr_pages: Some(pages), flags: Some(flags), ..Default::default() }
    }

    fn stored_of(runs: &[PageRun]) -> Bytes {
        let folder = Folder::new();
        let mut bytes = folder.write(Image::of(Kind::Pagemap, 7_u32), &[PagemapHead { pages_id: 1 }]);
        for (vaddr, run) in (0_u64..).step_by(1 << 30).zip(runs) {
            let body = PageRun { vaddr, ..*run }.encode_to_vec();
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend(body);
        }
        folder.overwrite(Image::of(Kind::Pagemap, 7_u32), &bytes);
        stored(folder.path(), 7).unwrap()
    }

    #[test]
    fn pages_count_that_are_in_these_images_or_below_them() {
        let lazy = 1 << 1;
        let runs = [run(1, PRESENT), run(10, IN_PARENT), run(100, lazy), run(1000, PRESENT | lazy)];
        assert_eq!(stored_of(&runs), Bytes(1011 * PAGE_SIZE));
    }

    #[test]
    fn older_images_count_in_another_field() {
        let here = PageRun { compat_nr_pages: 3, ..Default::default() };
        let in_parent = PageRun { in_parent: Some(true), ..here };
        assert_eq!(stored_of(&[here, in_parent]), Bytes(6 * PAGE_SIZE));
    }

    #[test]
    fn guard_regions_are_no_mappings() {
        let folder = Folder::new();
        let mappings_of = |states: [u32; 3]| Memory {
            vmas: states.map(|status| Mapping { status, ..Default::default() }).into(),
            ..Default::default()
        };
        folder.write(Image::of(Kind::Memory, 7_u32), &[mappings_of([1, GUARD, 1])]);
        assert_eq!(mappings(folder.path(), 7).unwrap(), 2);
    }
}
