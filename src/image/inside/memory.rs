//! The address space of a process, and what was dumped of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::registers::plain;
use crate::error::Result;
use crate::frozen::Bytes;
use crate::image::descriptor::OpenFiles;
use crate::image::images::{self, Mapping as Mapped};
use crate::image::kind::{Image, Kind};
use crate::image::pages::{PagePlace, Pages};

/// The address space of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// The program that it was loaded from, where the images name it.
    pub executable: Option<PathBuf>,
    /// Where its parts are.
    pub layout: Layout,
    /// The auxiliary vector, as pairs of a type and a value; it ends with type 0.
    pub auxiliary_vector: Vec<(u64, u64)>,
    /// The mappings, by address.
    pub mappings: Vec<Mapping>,
    /// Ranges without a guard page's own mapping that may not be touched (MADV_GUARD_INSTALL).
    pub guards: Vec<Range<u64>>,
}

plain! {
    /// Where the parts of an address space are, by the names that prctl(2) has for them.
    Layout: Memory {
        /// The beginning of the program's code.
        mm_start_code: u64,
        /// Its end.
        mm_end_code: u64,
        /// The beginning of its data.
        mm_start_data: u64,
        /// Its end.
        mm_end_data: u64,
        /// Where the stack of the main thread begins.
        mm_start_stack: u64,
        /// Where the heap of brk(2) begins.
        mm_start_brk: u64,
        /// Where it ends.
        mm_brk: u64,
        /// The beginning of the arguments.
        mm_arg_start: u64,
        /// Their end.
        mm_arg_end: u64,
        /// The beginning of the environment.
        mm_env_start: u64,
        /// Its end.
        mm_env_end: u64,
    }
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Mapping {
    /// Its addresses.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// What it is.
    pub kind: MappingKind,
    /// What may be done with it: 1 read, 2 write, 4 execute (mmap(2)).
    pub protection: u32,
    /// The flags of mmap(2).
    pub flags: u32,
    /// The file that is mapped.
    pub path: Option<PathBuf>,
    /// The offset of its beginning in the file or the shared memory.
    pub offset_bytes: Bytes,
    /// The number of the shared memory, for `inspect::shared_pages`.
    pub shared: Option<u64>,
    /// How much of it is in these images.
    pub dumped_bytes: Bytes,
    /// How much of it is in the images that these build on.
    pub in_parent_bytes: Bytes,
}

impl Mapping {
    /// How much of it the checkpoint has, in its own images or in those that they build on.
    pub fn held(&self) -> Bytes {
        [self.dumped_bytes, self.in_parent_bytes].into_iter().sum()
    }

    /// Its size.
    pub fn size(&self) -> Bytes {
        Bytes(self.end - self.start)
    }

    /// Whether others see what is written to it.
    pub fn is_shared(&self) -> bool {
        self.flags & MAP_SHARED != 0
    }
}

/// MAP_SHARED of mmap(2), the same on all of Linux's architectures.
const MAP_SHARED: u32 = 1;

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MappingKind {
    /// The heap of brk(2).
    Heap,
    /// The stack of the main thread.
    Stack,
    /// Private memory without a file.
    Anonymous,
    /// A file, what is written stays private.
    PrivateFile,
    /// A file, what is written goes into it.
    SharedFile,
    /// Shared memory without a file.
    Shared,
    /// A memfd.
    MemFd,
    /// Shared memory of System V.
    SystemV,
    /// Code of the kernel's at a fixed address, for old programs.
    Vsyscall,
    /// Code of the kernel's.
    Vdso,
    /// Data of the kernel's.
    Vvar,
    /// A shadow stack.
    ShadowStack,
    /// A ring of asynchronous input and output.
    AioRing,
    /// A packet socket's ring.
    Socket,
    /// Anything else.
    Other,
}

/// CRIU's bits (`VMA_*` in its `image.h`), the one that says most first.
const KINDS: [(u32, MappingKind); 15] = [
    (1 << 2, MappingKind::Vsyscall),
    (1 << 3, MappingKind::Vdso),
    (1 << 12, MappingKind::Vvar),
    (1 << 15, MappingKind::ShadowStack),
    (1 << 13, MappingKind::AioRing),
    (1 << 11, MappingKind::Socket),
    (1 << 10, MappingKind::SystemV),
    (1 << 14, MappingKind::MemFd),
    (1 << 1, MappingKind::Stack),
    (1 << 5, MappingKind::Heap),
    (1 << 6, MappingKind::PrivateFile),
    (1 << 7, MappingKind::SharedFile),
    (1 << 8, MappingKind::Shared),
    (1 << 9, MappingKind::Anonymous),
    (0, MappingKind::Other),
];

/// Reads the address space of a process.
pub(super) fn read(images: &Path, pid: u32, files: &OpenFiles) -> Result<Memory> {
    let image = Image::of(Kind::Memory, pid);
    let memory: images::Memory = image.read_one(images)?;
    let (guards, mapped): (Vec<&Mapped>, Vec<&Mapped>) =
        memory.vmas.iter().partition(|mapping| crate::image::memory::is_guard(mapping));
    let mut mappings = Vec::with_capacity(mapped.len());
    for mapping in mapped {
        if mapping.start >= mapping.end {
            return Err(image.damaged(images, format!("a mapping at {:#x} has no end", mapping.start)));
        }
        mappings.push(plain_mapping(mapping, memory.mm_start_stack, files));
    }
    if !mappings.is_sorted_by(|one, next| one.end <= next.start) {
        return Err(image.damaged(images, "its mappings overlap, or are not in order"));
    }
    let mut shared = HashMap::new();
    count(Pages::of_process(images, pid)?, &mut mappings)?;
    mappings.iter_mut().try_for_each(|mapping| count_shared(images, mapping, &mut shared))?;
    Ok(Memory {
        executable: files.path(memory.exe_file_id),
        auxiliary_vector: memory.mm_saved_auxv.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
        mappings,
        guards: guards.iter().map(|guard| guard.start..guard.end).collect(),
        layout: memory.into(),
    })
}

fn plain_mapping(mapping: &Mapped, stack: u64, files: &OpenFiles) -> Mapping {
    let bit = |(bit, _): &(u32, MappingKind)| *bit == 0 || mapping.status & bit != 0;
    let kind = match KINDS.into_iter().find(bit).map_or(MappingKind::Other, |(_, kind)| kind) {
        // CRIU has a bit for the stack, and doesn't set it.
        MappingKind::Anonymous if (mapping.start..mapping.end).contains(&stack) => MappingKind::Stack,
        kind => kind,
    };
    let id = u32::try_from(mapping.shmid).ok();
    let of_file = matches!(kind, MappingKind::PrivateFile | MappingKind::SharedFile | MappingKind::MemFd);
    // A heap or a stack may be a file's as well: its data that was made larger.
    let is_file = of_file || mapping.status & (1 << 6 | 1 << 7) != 0;
    Mapping {
        start: mapping.start,
        end: mapping.end,
        kind,
        protection: mapping.prot,
        flags: mapping.flags,
        path: id.filter(|_| is_file).and_then(|id| files.mapped(id)),
        offset_bytes: Bytes(mapping.pgoff),
        shared: match kind {
            MappingKind::Shared | MappingKind::SystemV => Some(mapping.shmid),
            MappingKind::MemFd => id.and_then(|id| files.memory_of_mem_fd(id)),
            _ => None,
        },
        dumped_bytes: Bytes(0),
        in_parent_bytes: Bytes(0),
    }
}

/// Adds the pages of a process up, by mapping. Both are in the order of addresses.
fn count(pages: Pages, mappings: &mut [Mapping]) -> Result<()> {
    let mut at = 0;
    for run in pages {
        let run = run?;
        while mappings.get(at).is_some_and(|mapping| mapping.end <= run.address) {
            at += 1;
        }
        for mapping in mappings[at..].iter_mut().take_while(|mapping| mapping.start < run.end()) {
            add(mapping, &run.place, overlap(&(mapping.start..mapping.end), &(run.address..run.end())));
        }
    }
    Ok(())
}

/// The runs of shared memory that were read, by its number.
type Shared = HashMap<u64, Vec<(Range<u64>, PagePlace)>>;

/// Adds the pages of the shared memory up that a mapping shows.
fn count_shared(images: &Path, mapping: &mut Mapping, read: &mut Shared) -> Result<()> {
    // What a private mapping shows of it is the memfd's, and what it has changed has been counted.
    let Some(id) = mapping.shared.filter(|_| mapping.is_shared()) else { return Ok(()) };
    let runs = match read.entry(id) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert(runs_of_shared(images, id)?),
    };
    let shown = mapping.offset_bytes.0..mapping.offset_bytes.0.saturating_add(mapping.end - mapping.start);
    for (run, place) in runs {
        let size = overlap(&shown, run);
        add(mapping, place, size);
    }
    Ok(())
}

fn runs_of_shared(images: &Path, id: u64) -> Result<Vec<(Range<u64>, PagePlace)>> {
    let Some(pages) = Pages::of_shared(images, id)? else { return Ok(Vec::new()) };
    pages.map(|run| run.map(|run| (run.address..run.end(), run.place))).collect()
}

fn add(mapping: &mut Mapping, place: &PagePlace, size: u64) {
    match place {
        PagePlace::Here { .. } => mapping.dumped_bytes.0 += size,
        PagePlace::Parent => mapping.in_parent_bytes.0 += size,
        _ => {}
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> u64 {
    one.end.min(other.end).saturating_sub(one.start.max(other.start))
}
