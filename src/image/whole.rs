//! Images that build on nothing, made of those that build on others.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use super::contents::{self, Contents, Stretch, cover};
use super::delta;
use super::images::PageRun as Run;
use super::kind::Image;
use super::memory::{IN_PARENT, PRESENT, where_stored};
use super::pagemap::Pagemap;
use super::pages::{PagePlace, PageRun, Pages};
use crate::error::{Error, Result};
use crate::frozen::Bytes;
use crate::sys::{disk, part};

/// Copies images to a folder, with all that they have in others. `progress` is told how much is done, and of how much.
pub(crate) fn copy(images: &Path, to: &Path, progress: &mut dyn FnMut(Bytes, Bytes)) -> Result<Bytes> {
    let pagemaps = delta::pagemaps(images)?.into_iter().map(|image| with_all(images, image));
    let pagemaps: Vec<Pagemap> = pagemaps.collect::<Result<_>>()?;
    let others = others(images, &pagemaps)?;
    let sizes = others.iter().map(|(_, size)| *size).chain(pagemaps.iter().map(Pagemap::size));
    let (total, mut done) = (Bytes(sizes.sum()), 0);
    for (name, size) in others {
        copy_file(&images.join(&name), &to.join(&name), size)?;
        done += size;
        progress(Bytes(done), total);
    }
    for pagemap in pagemaps {
        let [pages, map] = pagemap.names();
        pagemap.write(&to.join(pages), &to.join(map), &mut |(from, offset), length, (target, at)| {
            part::copy(from, offset, length, target, at)?;
            done += length;
            progress(Bytes(done), total);
            Ok(())
        })?;
    }
    Ok(total)
}

/// The files that have nothing to do with pages, with their sizes.
fn others(images: &Path, pagemaps: &[Pagemap]) -> Result<Vec<(String, u64)>> {
    let about_pages: Vec<String> = pagemaps.iter().flat_map(Pagemap::names).collect();
    let failed = |source| Error::io("read", images, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(images).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let about = entry.metadata().map_err(failed)?;
        // What is no file is the link to the others.
        if about.is_file() && !about_pages.contains(&name) {
            found.push((name, about.len()));
        }
    }
    found.sort();
    Ok(found)
}

fn copy_file(from: &Path, to: &Path, size: u64) -> Result<()> {
    let source = File::open(from).map_err(|source| Error::io("open", from, source))?;
    let copied = disk::create_private(to).and_then(|target| {
        part::copy(&source, 0, size, &target, 0)?;
        target.set_len(size)
    });
    copied.map_err(|source| Error::io("write", to, source))
}

/// What a pagemap is with all that others hold.
fn with_all(images: &Path, image: Image) -> Result<Pagemap> {
    let mut pages = Pages::open(images, image)?;
    let own: Arc<Path> = pages.file().into();
    let mut whole = Pagemap::new(image, pages.id());
    let mut elsewhere = None;
    while let Some(next) = pages.next_as_it_stands() {
        let (run, as_it_stands) = next?;
        match run.place {
            PagePlace::Here { offset } => {
                whole.push(as_it_stands, run.end() - run.address, Some((&own, offset)));
            }
            PagePlace::Parent => {
                let all = match &elsewhere {
                    Some(all) => all,
                    None => elsewhere.insert(contents::of_image_if_there(images, image)?),
                };
                fetch(images, image, (run, as_it_stands), all, &mut whole)?;
            }
            _ => whole.push(as_it_stands, run.end() - run.address, None),
        }
    }
    Ok(whole)
}

/// Adds a run that others hold.
fn fetch(
    images: &Path,
    image: Image,
    (run, as_it_stands): (PageRun, Run),
    all: &[Stretch],
    whole: &mut Pagemap,
) -> Result<()> {
    let flags = where_stored(&as_it_stands) & !IN_PARENT | PRESENT;
    for stretch in cover(run.address..run.end(), &[all]) {
        let Contents::File(file, offset) = &stretch.contents else {
            let what = format!("pages at {:#x} are not in the images that it builds on", stretch.start);
            return Err(image.damaged(images, what));
        };
        let run = Run { vaddr: stretch.start, flags: Some(flags), in_parent: None, ..as_it_stands };
        whole.push(run, stretch.end - stretch.start, Some((file, *offset)));
    }
    Ok(())
}
