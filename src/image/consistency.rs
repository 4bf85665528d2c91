//! Whether the images of a dump fit each other: what one refers to is in another, and pages are as many as they say.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::Path;

use super::contents::{self, Contents, cover};
use super::descriptor::OpenFiles;
use super::images::{PipeData, Remap, TerminalInfo};
use super::inside::{Inside, MappingKind, Memory, Pages, Process};
use super::kind::{Image, Kind, pages_id, pages_name};
use super::raw::{self, Content, ImageFile};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;

/// A ghost, among what can stand for a file (`remap_type`).
const GHOST: u32 = 1;

/// What was read of the images, each whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Structure {
    /// How many files of messages there are.
    pub(crate) images: usize,
    /// How many messages.
    pub(crate) messages: u64,
    /// Files of a kind that isn't read here.
    pub(crate) unread: Vec<String>,
    /// Fields that aren't known here, by file: `core-7.img 3.99`.
    pub(crate) unknown_fields: BTreeSet<String>,
}

/// Reads every image from its beginning to its end.
pub(crate) fn structure(images: &Path) -> Result<Structure> {
    let mut structure = Structure::default();
    for ImageFile { name, content, .. } in raw::files(images)? {
        match content {
            Content::Unknown => structure.unread.push(name),
            Content::Messages => read(images, &name, &mut structure)?,
            _ => {}
        }
    }
    Ok(structure)
}

fn read(images: &Path, name: &str, structure: &mut Structure) -> Result<()> {
    structure.images += 1;
    for message in raw::messages(images, name)?.into_iter().flatten() {
        structure.messages += 1;
        let unknown = message?.unknown_fields;
        structure.unknown_fields.extend(unknown.into_iter().map(|field| format!("{name} {field}")));
    }
    Ok(())
}

/// Checks that what an image refers to is in another, and returns what is inside.
pub(crate) fn references(images: &Path) -> Result<Inside> {
    let inside = Inside::read(images)?;
    tree(images, &inside.processes)?;
    strangers(images, &inside.processes)?;
    inside.processes.iter().try_for_each(|process| mapped(images, process))?;
    let files = OpenFiles::read(images)?;
    ghosts(images)?;
    contents_of_pipes(images, &files)?;
    terminals(images, &files)?;
    Ok(inside)
}

/// Parents stand before their children, and no id is there twice.
fn tree(images: &Path, processes: &[Process]) -> Result<()> {
    let damaged = |what: String| Err(Image::TREE.damaged(images, what));
    if processes.is_empty() {
        return damaged("it holds no process".to_owned());
    }
    let (mut known, mut threads) = (HashSet::from([0]), HashSet::new());
    for process in processes {
        if !known.contains(&process.parent) {
            return damaged(format!("{} has a parent, {}, that isn't there", process.pid, process.parent));
        }
        known.insert(process.pid);
        let others = process.threads.iter().map(|thread| thread.tid).filter(|&tid| tid != process.pid);
        if let Some(twice) = std::iter::once(process.pid).chain(others).find(|&id| !threads.insert(id)) {
            return damaged(format!("{twice} is there twice"));
        }
    }
    Ok(())
}

/// No image is there of a process or thread that the tree doesn't have.
fn strangers(images: &Path, processes: &[Process]) -> Result<()> {
    let processes_too = [Kind::Ids, Kind::Place, Kind::Memory, Kind::Pagemap];
    let pids: HashSet<u64> = processes.iter().map(|process| process.pid as u64).collect();
    let threads = processes.iter().flat_map(|process| &process.threads).map(|thread| thread.tid as u64);
    let threads: HashSet<u64> = threads.chain(pids.iter().copied()).collect();
    for file in raw::files(images)? {
        let Some(image) = Image::named(&file.name) else { continue };
        let lost = processes_too.contains(&image.kind) && !pids.contains(&image.number);
        if lost || image.kind == Kind::Core && !threads.contains(&image.number) {
            return Err(image.damaged(images, "it is of nobody in pstree.img"));
        }
    }
    Ok(())
}

/// The files and the shared memory that are mapped, and where the process is.
fn mapped(images: &Path, process: &Process) -> Result<()> {
    let Some(memory) = &process.memory else { return Ok(()) };
    let image = Image::of(Kind::Memory, process.pid as u64);
    let missing = |what: String| Err(image.damaged(images, format!("{what}, which isn't there")));
    if memory.executable.is_none() {
        return missing("it refers to a program".to_owned());
    }
    for mapping in &memory.mappings {
        let of_file =
            matches!(mapping.kind, MappingKind::PrivateFile | MappingKind::SharedFile | MappingKind::MemFd);
        if of_file && mapping.path.is_none() {
            return missing(format!("the mapping at {:#x} refers to a file", mapping.start));
        }
        let shared = mapping.shared.filter(|_| mapping.kind == MappingKind::Shared);
        if shared.is_some_and(|id| !Image::of(Kind::SharedPagemap, id).path(images).exists()) {
            return missing(format!("the mapping at {:#x} refers to shared memory", mapping.start));
        }
    }
    match &process.place {
        Some(place) if place.folder.is_none() || place.root.is_none() => {
            Err(Image::of(Kind::Place, process.pid as u64)
                .damaged(images, "it refers to a folder that isn't there"))
        }
        _ => Ok(()),
    }
}

/// The messages of an image that CRIU writes only if it has something to put there.
fn all<M: prost::Message + Default>(images: &Path, image: Image) -> Result<Vec<M>> {
    if !image.path(images).exists() {
        return Ok(Vec::new());
    }
    image.read_all(images)?.collect()
}

fn ghosts(images: &Path) -> Result<()> {
    for remap in all::<Remap>(images, Image::REMAPS)? {
        let ghost = Image::of(Kind::GhostFile, remap.remap_id);
        if remap.remap_type.unwrap_or(GHOST) == GHOST && !ghost.path(images).exists() {
            return Err(ghost.damaged(images, "remap-fpath.img refers to it, and it is missing"));
        }
    }
    Ok(())
}

fn contents_of_pipes(images: &Path, files: &OpenFiles) -> Result<()> {
    for kind in [Kind::PipesData, Kind::FifosData] {
        let image = Image::of(kind, 0_u32);
        for data in read_pipes(images, image)? {
            if !files.has_pipe(data) {
                return Err(image.damaged(images, format!("it is about a pipe, {data}, that isn't there")));
            }
        }
    }
    Ok(())
}

/// The pipes of which there are contents.
fn read_pipes(images: &Path, image: Image) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    if image.path(images).exists() {
        let mut reader = super::file::Reader::open(image, images)?;
        while let Some(data) = reader.next::<PipeData>()? {
            reader.skip(Some(data.bytes.into()))?;
            found.push(data.pipe_id);
        }
    }
    Ok(found)
}

fn terminals(images: &Path, files: &OpenFiles) -> Result<()> {
    let image = Image::of(Kind::TerminalInfo, 0_u32);
    let known: HashSet<u32> = all::<TerminalInfo>(images, image)?.iter().map(|info| info.id).collect();
    match files.terminals().find(|id| !known.contains(id)) {
        Some(id) => Err(image.damaged(images, format!("the terminal {id} isn't there"))),
        None => Ok(()),
    }
}

/// Checks that the files of pages are as large as the pagemaps say, that each is of one of them, that the pages of a process
/// lie in its mappings, and that those which others hold are there. How much there is of them.
pub(crate) fn pages(images: &Path, inside: &Inside) -> Result<Bytes> {
    let mut sizes: BTreeMap<u32, u64> = BTreeMap::new();
    let files = raw::files(images)?;
    for file in &files {
        if let Some(id) = pages_id(&file.name) {
            sizes.insert(id, file.size_bytes.0);
        }
    }
    let mut total = 0;
    for image in files.iter().filter_map(|file| Image::named(&file.name)) {
        let mappings = match image.kind {
            Kind::Pagemap => Some(mappings_of(inside, image.number)),
            Kind::SharedPagemap => None,
            _ => continue,
        };
        total += one_pagemap(images, image, mappings.as_deref(), &mut sizes)?;
    }
    match sizes.keys().next() {
        Some(id) => Err(damaged(images, *id, "no pagemap is about it")),
        None => Ok(Bytes(total)),
    }
}

fn mappings_of(inside: &Inside, pid: u64) -> Vec<Range<u64>> {
    let process = inside.processes.iter().find(|process| process.pid as u64 == pid);
    let memory: Option<&Memory> = process.and_then(|process| process.memory.as_ref());
    let mappings = memory.iter().flat_map(|memory| &memory.mappings);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for mapping in mappings {
        match joined.last_mut() {
            // A run of pages may go on in the next mapping.
            Some(last) if last.end == mapping.start => last.end = mapping.end,
            _ => joined.push(mapping.start..mapping.end),
        }
    }
    joined
}

fn one_pagemap(
    images: &Path,
    image: Image,
    mappings: Option<&[Range<u64>]>,
    sizes: &mut BTreeMap<u32, u64>,
) -> Result<u64> {
    let mut pages = Pages::open(images, image)?;
    let id = pages.id();
    let mut elsewhere = Vec::new();
    for run in pages.by_ref() {
        let run = run?;
        let is_inside = |range: &Range<u64>| range.start <= run.address && run.end() <= range.end;
        if mappings.is_some_and(|mappings| !mappings.iter().any(is_inside)) {
            return Err(image.damaged(images, format!("pages at {:#x} are in no mapping", run.address)));
        }
        if run.place == super::inside::PagePlace::Parent {
            elsewhere.push(run.address..run.end());
        }
    }
    let all = pages.stored() + elsewhere.iter().map(|range| range.end - range.start).sum::<u64>();
    are_there(images, image, elsewhere)?;
    match sizes.remove(&id) {
        Some(size) if size == pages.stored() => Ok(all),
        // CRIU makes no file where there is nothing to put into it.
        None if pages.stored() == 0 => Ok(all),
        Some(size) => {
            let what = format!("it has {size} bytes, and {} says {}", image.file_name(), pages.stored());
            Err(damaged(images, id, what))
        }
        None => Err(damaged(images, id, format!("{} refers to it, and it isn't there", image.file_name()))),
    }
}

/// Whether the images that these build on have pages that are said to be there.
fn are_there(images: &Path, image: Image, pages: Vec<Range<u64>>) -> Result<()> {
    if pages.is_empty() {
        return Ok(());
    }
    let known = contents::of_image_if_there(images, image)?;
    let mut found = pages.into_iter().flat_map(|range| cover(range, &[&known]));
    match found.find(|stretch| stretch.contents == Contents::Unknown) {
        None => Ok(()),
        Some(lost) => {
            let what = format!("pages at {:#x} are not in the images that it builds on", lost.start);
            Err(image.damaged(images, what))
        }
    }
}

fn damaged(images: &Path, id: u32, what: impl std::fmt::Display) -> Error {
    let path = images.join(pages_name(id));
    Error::new(ErrorKind::Damaged, format!("{} is damaged: {what}", path.display()))
}
