//! Which pages of memory are as they are in other images, and images that hold the others alone.
//!
//! CRIU reads images that build on others: a run of pages that is marked so is read from the images that the link
//! [`parent`](contents) leads to. It makes such images itself where the kernel tells which pages were written to. Here the
//! pages are compared, which needs nothing of the kernel: byte by byte, so that no page is taken for another, and one that
//! the disk has damaged is none that could be built on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::contents::{self, Contents, Stretch, cover};
use super::images::{Memory, PageRun as Run};
use super::kind::{Image, Kind, pages_id};
use super::memory::{self, IN_PARENT, PAGE_SIZE, PRESENT};
use super::pagemap::Pagemap;
use super::pages::{PagePlace, PageRun, Pages};
use crate::compression;
use crate::error::{Error, Result};
use crate::frozen::Bytes;
use crate::sys::sparse;

/// How much is read and compared at a time, and the most that has one checksum.
const BLOCK: u64 = 64 * PAGE_SIZE;

/// What is told of pages that other images hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The file that they are in.
    pub(crate) file: Arc<Path>,
    /// Where they begin there.
    pub(crate) offset: u64,
    /// How many bytes they are.
    pub(crate) length: u64,
    /// The XXH3 checksum of 64 bits of them all.
    pub(crate) xxh3_64: u64,
}

/// What images have to hold for themselves, and what others hold that they build on.
#[derive(Debug)]
pub(crate) struct Delta {
    pagemaps: Vec<Pagemap>,
    /// What others hold, in the order of addresses.
    pub(crate) shared: Vec<Shared>,
}

/// Whether a file of the images holds pages, compressed or as they are.
pub(crate) fn holds_pages(name: &str) -> bool {
    pages_id(compression::plain(name).unwrap_or(name)).is_some()
}

/// Whether one says which pages there are.
pub(crate) fn maps_pages(name: &str) -> bool {
    pagemap(name).is_some()
}

fn pagemap(name: &str) -> Option<Image> {
    Image::named(name).filter(|image| matches!(image.kind, Kind::Pagemap | Kind::SharedPagemap))
}

/// Whether images build on others.
pub(crate) fn builds_on_others(images: &Path) -> bool {
    images.join(contents::PARENT).symlink_metadata().is_ok()
}

/// The size of all pages in these images, and how many files say where they are.
pub(crate) fn extent(images: &Path) -> Result<(Bytes, usize)> {
    let pagemaps = pagemaps(images)?;
    let stored = |image: &Image| {
        let mut pages = Pages::open(images, *image)?;
        pages.by_ref().try_for_each(|run| run.map(drop))?;
        Ok(Bytes(pages.stored()))
    };
    let sizes: Vec<Bytes> = pagemaps.iter().map(stored).collect::<Result<_>>()?;
    Ok((sizes.into_iter().sum(), pagemaps.len()))
}

/// Compares images with those that they could build on. None where most would have to be stored all the same.
pub(crate) fn compare(below: &Path, images: &Path) -> Result<Option<Delta>> {
    let (all, _) = extent(images)?;
    let mut delta = Delta { pagemaps: Vec::new(), shared: Vec::new() };
    let mut stored = 0;
    for image in pagemaps(images)? {
        let mut comparison = Comparison::open(below, images, image, &mut delta.shared)?;
        while let Some(next) = comparison.pages.next_as_it_stands() {
            let (run, as_it_stands) = next?;
            comparison.one(run, as_it_stands)?;
            if stored + comparison.stored > all.0 / 2 {
                return Ok(None);
            }
        }
        stored += comparison.stored;
        delta.pagemaps.push(comparison.pagemap);
    }
    Ok(Some(delta))
}

/// The images that say which pages there are, in the order of their names.
pub(super) fn pagemaps(images: &Path) -> Result<Vec<Image>> {
    let failed = |source| Error::io("read", images, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(images).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        found.extend(name.to_str().and_then(pagemap));
    }
    found.sort();
    Ok(found)
}

/// One pagemap that is compared with the one of the same name.
struct Comparison<'a> {
    pages: Pages,
    file: Option<File>,
    below: Vec<Stretch>,
    own: Arc<Path>,
    /// Addresses of which CRIU reads the pages from the images themselves, whatever is said of them.
    barred: Vec<Range<u64>>,
    /// The files that were opened below.
    files: BTreeMap<Arc<Path>, Option<compression::Pages>>,
    blocks: [Vec<u8>; 2],
    pagemap: Pagemap,
    stored: u64,
    shared: &'a mut Vec<Shared>,
}

impl<'a> Comparison<'a> {
    fn open(below: &Path, images: &Path, image: Image, shared: &'a mut Vec<Shared>) -> Result<Self> {
        let pages = Pages::open(images, image)?;
        let file = match File::open(pages.file()) {
            Ok(file) => Some(file),
            // CRIU makes none where there is nothing to put into it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("open", pages.file(), error)),
        };
        let barred = if image.kind == Kind::Pagemap { barred(images, image.number)? } else { Vec::new() };
        Ok(Comparison {
            own: pages.file().into(),
            pagemap: Pagemap::new(image, pages.id()),
            pages,
            file,
            below: contents::of_image_if_there(below, image)?,
            barred,
            files: BTreeMap::new(),
            blocks: [(); 2].map(|()| vec![0; BLOCK as usize]),
            stored: 0,
            shared,
        })
    }

    fn one(&mut self, run: PageRun, as_it_stands: Run) -> Result<()> {
        let PagePlace::Here { offset } = run.place else {
            self.pagemap.push(as_it_stands, run.end() - run.address, None);
            return Ok(());
        };
        let all = run.address..run.end();
        let unknown = [Stretch { start: all.start, end: all.end, contents: Contents::Unknown }];
        let is_barred = self.barred.iter().any(|range| range.start < all.end && all.start < range.end);
        let below = if is_barred { &[] } else { &*self.below };
        for stretch in cover(all, &[below, &unknown]) {
            let offset = offset + (stretch.start - run.address);
            match stretch.contents {
                Contents::File(file, at) => {
                    self.stretch(as_it_stands, stretch.start..stretch.end, offset, (&file, at))?;
                }
                _ => self.changed(as_it_stands, stretch.start..stretch.end, offset),
            }
        }
        Ok(())
    }

    /// Compares pages that the others have as well, block by block.
    fn stretch(
        &mut self,
        run: Run,
        range: Range<u64>,
        offset: u64,
        (file, at): (&Arc<Path>, u64),
    ) -> Result<()> {
        for start in range.clone().step_by(BLOCK as usize) {
            let passed = start - range.start;
            let length = (range.end - start).min(BLOCK);
            let [now, before] = &mut self.blocks;
            let (now, before) = (&mut now[..length as usize], &mut before[..length as usize]);
            let pages = self.file.as_ref().ok_or(io::ErrorKind::NotFound.into());
            pages
                .and_then(|pages| pages.read_exact_at(now, offset + passed))
                .map_err(|source| Error::io("read", self.pages.file(), source))?;
            let opened =
                self.files.entry(Arc::clone(file)).or_insert_with(|| compression::Pages::open(file).ok());
            // What can't be read can't be built on.
            let is_there =
                opened.as_mut().is_some_and(|opened| opened.read_exact_at(before, at + passed).is_ok());
            match is_there {
                true => self.block(run, start, offset + passed, (file, at + passed), length),
                false => self.changed(run, start..start + length, offset + passed),
            }
        }
        Ok(())
    }

    /// Goes through the pages of a block that was read.
    fn block(&mut self, run: Run, start: u64, offset: u64, (file, at): (&Arc<Path>, u64), length: u64) {
        let mut done = 0;
        while done < length {
            let (count, is_same) = alike(&self.blocks, done as usize..length as usize);
            if is_same {
                let pages = &self.blocks[0][done as usize..(done + count) as usize];
                self.shared.push(Shared {
                    file: Arc::clone(file),
                    offset: at + done,
                    length: count,
                    xxh3_64: xxh3_64(pages),
                });
                let flags = memory::where_stored(&run) & !PRESENT | IN_PARENT;
                let run = Run { vaddr: start + done, flags: Some(flags), ..run };
                self.pagemap.push(run, count, None);
            } else {
                self.changed(run, start + done..start + done + count, offset + done);
            }
            done += count;
        }
    }

    fn changed(&mut self, run: Run, range: Range<u64>, offset: u64) {
        let length = range.end - range.start;
        self.stored += length;
        self.pagemap.push(Run { vaddr: range.start, ..run }, length, Some((&self.own, offset)));
    }
}

/// How many bytes from the beginning of a part on are of pages that are the same in both, or of such as are not.
fn alike([now, before]: &[Vec<u8>; 2], part: Range<usize>) -> (u64, bool) {
    let page = PAGE_SIZE as usize;
    let pairs = || now[part.clone()].chunks(page).zip(before[part.clone()].chunks(page));
    let is_same = pairs().next().is_some_and(|(now, before)| now == before);
    let count = pairs().take_while(|(now, before)| (now == before) == is_same).count();
    ((count * page) as u64, is_same)
}

/// Mappings of a process whose pages CRIU reads where they are to be in the end, for which it doesn't look into other
/// images: those in huge pages of hugetlbfs, and rings of asynchronous input and output (as CRIU's `mem.c` dumps them).
fn barred(images: &Path, pid: u64) -> Result<Vec<Range<u64>>> {
    const MAP_HUGETLB: u32 = 0x4_0000;
    const AIO_RING: u32 = 1 << 13;
    let memory: Memory = Image::of(Kind::Memory, pid).read_one(images)?;
    let barred = memory.vmas.iter().filter(|it| it.flags & MAP_HUGETLB != 0 || it.status & AIO_RING != 0);
    Ok(barred.map(|mapping| mapping.start..mapping.end).collect())
}

impl Delta {
    /// Writes images that hold only what the others don't beside those that they are to take the place of, in a folder.
    /// Where that fails, nothing of it is left.
    pub(crate) fn write_beside(&self, to: &Path) -> Result<()> {
        let mut block = vec![0; BLOCK as usize];
        let mut copy = |(from, offset): (&File, u64), length: u64, (target, at): (&File, u64)| {
            (0..length).step_by(BLOCK as usize).try_for_each(|done| {
                let block = &mut block[..(length - done).min(BLOCK) as usize];
                from.read_exact_at(block, offset + done)?;
                sparse::write_at(target, block, at + done).map(drop)
            })
        };
        let written = self.pagemaps.iter().try_for_each(|pagemap| {
            let [pages, map] = pagemap.names();
            pagemap.write(&beside(to, &pages), &beside(to, &map), &mut copy)
        });
        if written.is_err() {
            self.names().for_each(|name| drop(fs::remove_file(beside(to, &name))));
        }
        written
    }

    /// Has them take the place of `images`, in the folder that they were written to, which may be the same.
    pub(crate) fn put_in_place(&self, images: &Path, to: &Path) -> Result<()> {
        self.names().try_for_each(|name| replace(&beside(to, &name), &images.join(&name), &to.join(&name)))
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.pagemaps.iter().flat_map(Pagemap::names)
    }
}

fn beside(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("new")
}

fn replace(new: &Path, old: &Path, place: &Path) -> Result<()> {
    fs::rename(new, place).map_err(|source| Error::io("rename to", place, source))?;
    if old == place || !old.exists() {
        return Ok(());
    }
    fs::remove_file(old).map_err(|source| Error::io("remove", old, source))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::file::Writer;
    use super::super::images::{Mapping, PagemapHead};
    use super::super::memory::LAZY;
    use super::super::testing::Folder;
    use super::*;

    const PAGE: usize = PAGE_SIZE as usize;

    /// Images of one process, of runs of pages with an address in pages, and what each page is full of.
    fn images(folder: &Folder, runs: &[(u64, &[u8])], mapping_flags: u32) {
        let mapping = Mapping { end: 1 << 40, flags: mapping_flags, ..Default::default() };
        let memory = Memory { vmas: vec![mapping], ..Default::default() };
        folder.write(Image::of(Kind::Memory, 7_u32), &[memory]);
        let image = Image::of(Kind::Pagemap, 7_u32);
        let mut writer = Writer::new(image);
        writer.put(&PagemapHead { pages_id: 3 }.encode_to_vec());
        let mut contents = Vec::new();
        for (first, pages) in runs {
            let flags = Some(PRESENT | LAZY);
            let nr_pages = Some(pages.len() as u64);
            writer.put(
                &Run { vaddr: first * PAGE_SIZE, nr_pages, flags, ..Default::default() }.encode_to_vec(),
            );
            pages.iter().for_each(|byte| contents.extend([*byte; PAGE]));
        }
        folder.overwrite(image, writer.bytes());
        fs::write(folder.path().join("pages-3.img"), contents).unwrap();
    }

    /// The images of the second that build on the first, and what they leave to it.
    fn reduced(before: &[(u64, &[u8])], now: &[(u64, &[u8])], flags: u32) -> (Folder, Folder, Option<Delta>) {
        let (below, folder) = (Folder::new(), Folder::new());
        images(&below, before, flags);
        images(&folder, now, flags);
        let delta = compare(below.path(), folder.path()).unwrap();
        if let Some(delta) = &delta {
            delta.write_beside(folder.path()).unwrap();
            delta.put_in_place(folder.path(), folder.path()).unwrap();
            std::os::unix::fs::symlink(below.path(), folder.path().join("parent")).unwrap();
        }
        (below, folder, delta)
    }

    fn runs(folder: &Folder) -> Vec<(u64, u64, u32)> {
        let mut pages = Pages::of_process(folder.path(), 7).unwrap();
        let mut next = || pages.next_as_it_stands().map(Result::unwrap);
        std::iter::from_fn(|| next().map(|(run, it)| (run.address / PAGE_SIZE, run.pages, it.flags.unwrap())))
            .collect()
    }

    #[test]
    fn only_what_has_changed_is_left_and_all_of_it_can_be_had_again() {
        let now: [(u64, &[u8]); 3] = [(1, &[1, 2, 9, 4, 5]), (10, &[6, 7]), (20, &[0])];
        let (below, folder, delta) = reduced(&[(1, &[1, 2, 3, 4]), (10, &[6, 7, 8])], &now, 0);
        let (here, there) = (PRESENT | LAZY, IN_PARENT | LAZY);
        let expected =
            [(1, 2, there), (3, 1, here), (4, 1, there), (5, 1, here), (10, 2, there), (20, 1, here)];
        assert_eq!(runs(&folder), expected);
        let shared: u64 = delta.unwrap().shared.iter().map(|shared| shared.length).sum();
        assert_eq!(shared, 5 * PAGE_SIZE);
        let pages = fs::read(folder.path().join("pages-3.img")).unwrap();
        assert_eq!(pages.chunks(PAGE).map(|page| page[0]).collect::<Vec<_>>(), [9, 5, 0]);
        let again = Folder::new();
        super::super::whole::copy(folder.path(), again.path(), &mut |_, _| {}).unwrap();
        images(&below, &now, 0);
        for name in ["pages-3.img", "pagemap-7.img", "mm-7.img"] {
            let read = |folder: &Folder| fs::read(folder.path().join(name)).unwrap();
            assert!(read(&again) == read(&below), "{name}");
        }
        assert!(!again.path().join("parent").exists());
    }

    #[test]
    fn nothing_is_left_out_where_most_has_changed_or_criu_would_not_look_for_it() {
        let pages: [(u64, &[u8]); 1] = [(1, &[1, 2, 3, 4])];
        assert!(reduced(&[(1, &[1, 9, 9, 9])], &pages, 0).2.is_none());
        let in_huge_pages = 0x4_0000;
        assert!(reduced(&pages, &pages, in_huge_pages).2.is_none());
        let (_below, folder, delta) = reduced(&pages, &pages, 0);
        assert!(delta.is_some());
        assert_eq!(fs::metadata(folder.path().join("pages-3.img")).unwrap().len(), 0);
    }

    #[test]
    fn what_can_not_be_read_below_has_changed() {
        let pages: [(u64, &[u8]); 2] = [(1, &[1, 2, 3]), (9, &[4])];
        let (below, folder) = (Folder::new(), Folder::new());
        images(&below, &pages, 0);
        images(&folder, &pages, 0);
        let file = fs::File::options().write(true).open(below.path().join("pages-3.img")).unwrap();
        file.set_len(3 * PAGE_SIZE).unwrap();
        let delta = compare(below.path(), folder.path()).unwrap().unwrap();
        delta.write_beside(folder.path()).unwrap();
        delta.put_in_place(folder.path(), folder.path()).unwrap();
        assert_eq!(runs(&folder), [(1, 3, IN_PARENT | LAZY), (9, 1, PRESENT | LAZY)]);
    }
}
