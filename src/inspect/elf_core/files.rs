//! The mapped files: whether they still are what they were, and what of them goes into a core.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::segments::PAGE_SIZE;
use crate::image::contents::{Contents, Stretch};
use crate::image::inside::{Mapping, MappingKind, Memory};
use crate::store::manifest::Manifest;
use crate::sys;

/// What is known of the mapped files, by path.
pub(super) struct MappedFiles {
    /// None of one that isn't what it was.
    known: BTreeMap<PathBuf, Option<Known>>,
    full: bool,
}

struct Known {
    path: Arc<Path>,
    size: u64,
    /// Whether it is a program or library.
    is_elf: bool,
}

impl MappedFiles {
    pub(super) fn look(memory: &Memory, manifest: &Manifest, full: bool) -> MappedFiles {
        let paths = memory.mappings.iter().filter_map(of_file);
        let known = paths.map(|path| (path.to_owned(), known(path, manifest))).collect();
        MappedFiles { known, full }
    }

    pub(super) fn changed(&self) -> Vec<PathBuf> {
        self.known.iter().filter(|(_, known)| known.is_none()).map(|(path, _)| path.clone()).collect()
    }

    /// What of a mapping comes from its file: all, or the first page of a program or library.
    pub(super) fn layer(&self, mapping: &Mapping) -> Vec<Stretch> {
        let known = of_file(mapping).and_then(|path| self.known.get(path)?.as_ref());
        // What may not be read is there to keep a place.
        let Some(file) = known.filter(|_| mapping.protection != 0) else { return Vec::new() };
        let (start, offset) = (mapping.start, mapping.offset_bytes.0);
        let wanted = match self.full {
            true => mapping.size().0,
            false if file.is_elf && offset == 0 => PAGE_SIZE,
            false => 0,
        };
        let length = wanted.min(file.size.saturating_sub(offset));
        // Up to the end of its page there are zeros behind a file.
        let (end, end_of_page) = (start + length, start + length.next_multiple_of(PAGE_SIZE));
        let stretches = [
            Stretch { start, end, contents: Contents::File(Arc::clone(&file.path), offset) },
            Stretch { start: end, end: end_of_page, contents: Contents::Zero },
        ];
        stretches.into_iter().filter(|stretch| stretch.start < stretch.end).collect()
    }
}

/// The file that is mapped. The contents of a memfd are in the images.
pub(super) fn of_file(mapping: &Mapping) -> Option<&Path> {
    mapping.path.as_deref().filter(|_| mapping.kind != MappingKind::MemFd)
}

fn known(path: &Path, manifest: &Manifest) -> Option<Known> {
    let about = path.metadata().ok()?;
    let build_id = || sys::elf::build_id(path).ok().flatten();
    let then = manifest.program.mapped.iter().find(|file| file.path == path);
    let as_it_was = match then.and_then(|file| file.build_id.as_ref()) {
        Some(then) => build_id().as_ref() == Some(then),
        // Renames and whatever keeps the time of the last write count as changes too.
        None => about.is_file() && last_change(&about) <= manifest.taken,
    };
    let is_elf = || sys::elf::machine(path).is_ok_and(|machine| machine.is_some());
    as_it_was.then(|| Known { path: path.into(), size: about.len(), is_elf: is_elf() })
}

fn last_change(about: &std::fs::Metadata) -> SystemTime {
    let seconds = Duration::from_secs(about.ctime().unsigned_abs());
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(about.ctime_nsec().unsigned_abs())
}
