//! How much memory a process has, and how much of it is in these images.

use std::path::Path;

use super::file::{Image, Reader};
use super::images::{Memory, PageRun, PagemapHead};
use crate::error::Result;
use crate::frozen::Bytes;

/// What a page count is multiplied by. The images don't say it: it is that of the machine they were made on,
/// and x86-64, where this runs, has only one.
const PAGE_SIZE: u64 = 4096;

/// A mapping that CRIU made up to remember a guard region (`VMA_AREA_GUARD` in its `image.h`).
const GUARD: u32 = 1 << 16;

/// A run of pages that the images which this dump builds on hold (`PE_PARENT` in CRIU's `pagemap.h`).
const IN_PARENT: u32 = 1 << 0;
/// A run of pages that is in these images (`PE_PRESENT`).
const PRESENT: u32 = 1 << 2;

/// The number of a process's mappings, without `[vsyscall]`, which is the kernel's and not in the image.
pub(super) fn mappings(images: &Path, pid: u32) -> Result<u64> {
    let memory: Memory = Image::Memory { pid }.read_one(images)?;
    Ok(memory.mappings.iter().filter(|mapping| mapping.status & GUARD == 0).count() as u64)
}

/// The pages of a process that are stored in these images, in bytes: neither what the images hold that these
/// build on, nor what a lazy dump left to be fetched.
pub(super) fn stored(images: &Path, pid: u32) -> Result<Bytes> {
    let image = Image::Pagemap { pid };
    let mut reader = Reader::open(image, images)?;
    reader.next::<PagemapHead>()?.ok_or_else(|| image.damaged(images, "it holds no message"))?;
    let mut pages: u64 = 0;
    while let Some(run) = reader.next::<PageRun>()? {
        if where_stored(&run) & PRESENT != 0 {
            pages = pages.saturating_add(run.nr_pages.unwrap_or(run.compat_nr_pages.into()));
        }
    }
    Ok(Bytes(pages.saturating_mul(PAGE_SIZE)))
}

/// Where a run of pages is. Images of an older CRIU say only whether it is in the parent (as CRIU's
/// `pagemap.c` reads them).
fn where_stored(run: &PageRun) -> u32 {
    match (run.in_parent, run.flags) {
        (Some(true), flags) => flags.unwrap_or(0) | IN_PARENT,
        (_, Some(flags)) => flags,
        (_, None) => PRESENT,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::images::Mapping;
    use super::super::testing::Folder;
    use super::*;

    fn run(pages: u64, flags: u32) -> PageRun {
        PageRun { nr_pages: Some(pages), flags: Some(flags), ..Default::default() }
    }

    fn stored_of(runs: &[PageRun]) -> Bytes {
        let folder = Folder::new();
        let mut bytes = folder.write(Image::Pagemap { pid: 7 }, &[PagemapHead { pages_id: 1 }]);
        for run in runs {
            let body = run.encode_to_vec();
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend(body);
        }
        folder.overwrite(Image::Pagemap { pid: 7 }, &bytes);
        stored(folder.path(), 7).unwrap()
    }

    #[test]
    fn only_pages_in_these_images_count() {
        let lazy = 1 << 1;
        let runs = [run(1, PRESENT), run(10, IN_PARENT), run(100, lazy), run(1000, PRESENT | lazy)];
        assert_eq!(stored_of(&runs), Bytes(1001 * PAGE_SIZE));
    }

    #[test]
    fn older_images_count_in_another_field() {
        let here = PageRun { compat_nr_pages: 3, ..Default::default() };
        let in_parent = PageRun { in_parent: Some(true), ..here };
        assert_eq!(stored_of(&[here, in_parent]), Bytes(3 * PAGE_SIZE));
    }

    #[test]
    fn guard_regions_are_no_mappings() {
        let folder = Folder::new();
        let mappings_of =
            |states: [u32; 3]| Memory { mappings: states.map(|status| Mapping { status }).into() };
        folder.write(Image::Memory { pid: 7 }, &[mappings_of([1, GUARD, 1])]);
        assert_eq!(mappings(folder.path(), 7).unwrap(), 2);
    }
}
