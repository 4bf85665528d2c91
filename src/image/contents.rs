//! Where the contents of memory are, stretch by stretch, in these images and in those that they build on.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::kind::Image;
#[cfg(feature = "inspect")]
use super::kind::Kind;
use super::pages::{PagePlace, Pages};
use crate::error::{Error, Result};

/// The link to the images that these build on, as CRIU names it (`CR_PARENT_LINK` in its `image.h`).
pub(super) const PARENT: &str = "parent";

/// How many images may build on each other: a link that leads back would never end.
const LONGEST_CHAIN: usize = 1000;

/// A stretch of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: u64,
    /// The first address behind it.
    pub(crate) end: u64,
    pub(crate) contents: Contents,
}

/// Where the contents of a stretch are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// In a file, from this offset in bytes on.
    File(Arc<Path>, u64),
    /// It is all zeros.
    #[cfg(any(feature = "inspect", test))]
    Zero,
    /// They aren't known.
    Unknown,
}

impl Stretch {
    /// What of it lies in a range.
    fn within(&self, range: &Range<u64>) -> Stretch {
        let (start, end) = (self.start.max(range.start), self.end.min(range.end));
        let contents = match &self.contents {
            Contents::File(file, offset) => Contents::File(Arc::clone(file), offset + (start - self.start)),
            other => other.clone(),
        };
        Stretch { start, end, contents }
    }
}

/// What a range holds. Stretches of an upper layer, which come first, hide those below them; each layer is in the order
/// of addresses. What is in no layer is left out.
pub(crate) fn cover(range: Range<u64>, layers: &[&[Stretch]]) -> Vec<Stretch> {
    let Some((upper, below)) = layers.split_first() else { return Vec::new() };
    let first = upper.partition_point(|stretch| stretch.end <= range.start);
    let (mut at, mut found) = (range.start, Vec::new());
    for stretch in upper[first..].iter().take_while(|stretch| stretch.start < range.end) {
        let stretch = stretch.within(&range);
        if at < stretch.start {
            found.extend(cover(at..stretch.start, below));
        }
        at = stretch.end;
        found.push(stretch);
    }
    if at < range.end {
        found.extend(cover(at..range.end, below));
    }
    found
}

/// What was dumped of the memory that is a process's own, by address.
#[cfg(feature = "inspect")]
pub(crate) fn of_process(images: &Path, pid: u32) -> Result<Vec<Stretch>> {
    dumped(images, Image::of(Kind::Pagemap, pid), 0)
}

/// What was dumped of shared memory, by its offset there.
#[cfg(feature = "inspect")]
pub(crate) fn of_shared(images: &Path, id: u64) -> Result<Vec<Stretch>> {
    // Memory that nobody ever wrote to has none.
    of_image_if_there(images, Image::of(Kind::SharedPagemap, id))
}

/// What was dumped of the memory that an image is about; nothing where there is no such image.
pub(super) fn of_image_if_there(images: &Path, image: Image) -> Result<Vec<Stretch>> {
    if image.path(images).exists() { dumped(images, image, 0) } else { Ok(Vec::new()) }
}

fn dumped(images: &Path, image: Image, depth: usize) -> Result<Vec<Stretch>> {
    if depth > LONGEST_CHAIN {
        return Err(image.damaged(images, "it builds on images without an end"));
    }
    let mut pages = Pages::open(images, image)?;
    let file: Arc<Path> = pages.file().into();
    let (mut found, mut parent) = (Vec::new(), None);
    for run in pages.by_ref() {
        let run = run?;
        let (start, end) = (run.address, run.end());
        match run.place {
            PagePlace::Here { offset } => {
                found.push(Stretch { start, end, contents: Contents::File(Arc::clone(&file), offset) });
            }
            PagePlace::Parent => {
                let below = match &mut parent {
                    Some(below) => below,
                    none => none.insert(dumped_before(images, image, depth)?),
                };
                let unknown = [Stretch { start, end, contents: Contents::Unknown }];
                found.extend(cover(start..end, &[&*below, &unknown]));
            }
            _ => found.push(Stretch { start, end, contents: Contents::Unknown }),
        }
    }
    Ok(found)
}

/// The same of the images that these build on; nothing where they aren't there.
fn dumped_before(images: &Path, image: Image, depth: usize) -> Result<Vec<Stretch>> {
    let parent = images.join(PARENT);
    // Link by link, since the kernel follows no more than 40 in one path.
    match parent.canonicalize() {
        Ok(parent) => dumped(&parent, image, depth + 1),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("open", &parent, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use prost::Message;

    use super::super::images::{PageRun, PagemapHead};
    use super::super::memory::{IN_PARENT, LAZY, PRESENT};
    use super::super::testing::Folder;
    use super::*;

    const PAGE: u64 = 4096;

    /// Writes a pagemap of runs, each the number of its first page, how many, and its flags.
    fn pagemap(folder: &Folder, runs: &[(u64, u64, u32)]) {
        let image = Image::of(Kind::Pagemap, 7_u32);
        let mut bytes = folder.write(image, &[PagemapHead { pages_id: 1 }]);
        for &(first, pages, flags) in runs {
            let run = PageRun {
                vaddr: first * PAGE,
                nr_pages: Some(pages),
                flags: Some(flags),
                ..Default::default()
            };
            let body = run.encode_to_vec();
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend(body);
        }
        folder.overwrite(image, &bytes);
    }

    fn builds_on(folder: &Folder, parent: &Path) {
        std::os::unix::fs::symlink(parent, folder.path().join(PARENT)).unwrap();
    }

    /// A stretch in pages: from, to, and the folder and the page in its file that hold it.
    type InPages = (u64, u64, Option<(PathBuf, u64)>);

    fn in_pages(folder: &Folder) -> Vec<InPages> {
        let place = |contents| match contents {
            Contents::File(file, offset) => {
                let folder = file.parent().expect("a folder").canonicalize().unwrap();
                Some((folder, offset / PAGE))
            }
            _ => None,
        };
        let found = of_process(folder.path(), 7).unwrap();
        found.into_iter().map(|it| (it.start / PAGE, it.end / PAGE, place(it.contents))).collect()
    }

    #[test]
    fn pages_of_a_parent_are_found_there_and_what_is_nowhere_is_unknown() {
        let (oldest, older, folder) = (Folder::new(), Folder::new(), Folder::new());
        pagemap(&oldest, &[(0, 2, PRESENT), (4, 4, PRESENT)]);
        builds_on(&older, oldest.path());
        pagemap(&older, &[(1, 2, PRESENT), (4, 4, IN_PARENT)]);
        builds_on(&folder, older.path());
        pagemap(&folder, &[(0, 1, PRESENT), (1, 6, IN_PARENT), (10, 3, PRESENT), (20, 1, LAZY)]);
        let at = |folder: &Folder, page| Some((folder.path().canonicalize().unwrap(), page));
        let expected = [
            (0, 1, at(&folder, 0)),
            (1, 3, at(&older, 0)),
            (3, 4, None),
            (4, 7, at(&oldest, 2)),
            (10, 13, at(&folder, 1)),
            (20, 21, None),
        ];
        assert_eq!(in_pages(&folder), expected);
    }

    #[test]
    fn without_a_parent_its_pages_are_unknown_and_one_that_leads_back_is_damage() {
        let folder = Folder::new();
        pagemap(&folder, &[(3, 2, IN_PARENT)]);
        assert_eq!(in_pages(&folder), [(3, 5, None)]);
        builds_on(&folder, folder.path());
        assert!(of_process(folder.path(), 7).unwrap_err().to_string().ends_with("without an end"));
    }

    #[test]
    fn an_upper_layer_hides_what_is_below_it() {
        let file: Arc<Path> = Path::new("f").into();
        let upper = [Stretch { start: 10, end: 20, contents: Contents::Zero }];
        let below = [Stretch { start: 0, end: 100, contents: Contents::File(Arc::clone(&file), 1000) }];
        let found = cover(5..30, &[&upper, &below]);
        let expected = [
            Stretch { start: 5, end: 10, contents: Contents::File(Arc::clone(&file), 1005) },
            upper[0].clone(),
            Stretch { start: 20, end: 30, contents: Contents::File(file, 1020) },
        ];
        assert_eq!(found, expected);
    }
}
