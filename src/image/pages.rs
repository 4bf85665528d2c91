//! Where the pages of a process are: run by run, and never all at once.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::image::file::Reader;
use crate::image::images::{PageRun as Run, PagemapHead};
use crate::image::kind::{Image, Kind, pages_name};
use crate::image::memory::{self, PAGE_SIZE};

/// A run of pages that lie behind each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageRun {
    /// The address of the first; in shared memory its offset there.
    pub address: u64,
    /// How many there are, of 4096 bytes each.
    pub pages: u64,
    /// Where they are.
    pub place: PagePlace,
}

impl PageRun {
    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.address + self.pages * PAGE_SIZE
    }
}

/// Where pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PagePlace {
    /// In the file of [`Pages::file`], from this offset in bytes on.
    Here {
        /// The offset.
        offset: u64,
    },
    /// In the images that these build on.
    Parent,
    /// Nowhere: they were left to be fetched later.
    Lazy,
    /// Nowhere that is known: a newer CRIU may have more places.
    Unknown,
}

/// The runs of one process or one piece of shared memory, by address. Nothing comes after an error.
pub struct Pages {
    reader: Reader,
    file: PathBuf,
    id: u32,
    /// Where the next run begins in the file.
    offset: u64,
    /// Where the last run ended.
    end: u64,
    failed: bool,
}

impl Pages {
    /// Those of a process.
    pub(crate) fn of_process(images: &Path, pid: u32) -> Result<Pages> {
        Pages::open(images, Image::of(Kind::Pagemap, pid))
    }

    /// Those of shared memory; none where nothing of it was dumped.
    #[cfg(feature = "inspect")]
    pub(crate) fn of_shared(images: &Path, id: u64) -> Result<Option<Pages>> {
        let image = Image::of(Kind::SharedPagemap, id);
        if !image.path(images).exists() {
            return Ok(None);
        }
        Pages::open(images, image).map(Some)
    }

    pub(in crate::image) fn open(images: &Path, image: Image) -> Result<Pages> {
        Pages::over(Reader::open(image, images)?, images)
    }

    fn over(mut reader: Reader, images: &Path) -> Result<Pages> {
        let head: PagemapHead = reader.next()?.ok_or_else(|| reader.damaged("it holds no message"))?;
        let file = images.join(pages_name(head.pages_id));
        Ok(Pages { reader, file, id: head.pages_id, offset: 0, end: 0, failed: false })
    }

    /// The file that they are in.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The number in that file's name.
    pub(in crate::image) fn id(&self) -> u32 {
        self.id
    }

    /// How many bytes of the file the runs took that have come so far.
    pub fn stored(&self) -> u64 {
        self.offset
    }

    fn run(&mut self, run: &Run) -> Result<PageRun> {
        let pages = run.nr_pages.unwrap_or(run.compat_nr_pages.into());
        let size = pages.checked_mul(PAGE_SIZE).filter(|&size| size > 0);
        let end = size.and_then(|size| run.vaddr.checked_add(size));
        let (Some(size), Some(end)) = (size, end) else {
            return Err(self.reader.damaged(format!("a run of {pages} pages at {:#x} can't be", run.vaddr)));
        };
        if run.vaddr < self.end || run.vaddr % PAGE_SIZE != 0 {
            return Err(self
                .reader
                .damaged(format!("a run of pages begins at {:#x}, within another", run.vaddr)));
        }
        self.end = end;
        let place = match memory::where_stored(run) {
            bits if bits & memory::PRESENT != 0 => {
                let offset = self.offset;
                self.offset = offset
                    .checked_add(size)
                    .ok_or_else(|| self.reader.damaged("it is about more pages than there can be"))?;
                PagePlace::Here { offset }
            }
            bits if bits & memory::IN_PARENT != 0 => PagePlace::Parent,
            bits if bits & memory::LAZY != 0 => PagePlace::Lazy,
            _ => PagePlace::Unknown,
        };
        Ok(PageRun { address: run.vaddr, pages, place })
    }
}

impl Pages {
    /// The next run, and as it stands in the image.
    pub(in crate::image) fn next_as_it_stands(&mut self) -> Option<Result<(PageRun, Run)>> {
        if self.failed {
            return None;
        }
        let next = self.reader.next::<Run>();
        let run = next.and_then(|run| run.map(|run| Ok((self.run(&run)?, run))).transpose());
        self.failed = run.is_err();
        run.transpose()
    }
}

impl Iterator for Pages {
    type Item = Result<PageRun>;

    fn next(&mut self) -> Option<Result<PageRun>> {
        Some(self.next_as_it_stands()?.map(|(run, _)| run))
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages")
            .field("file", &self.file)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
