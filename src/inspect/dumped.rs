//! What the images hold of each mapping of a process, by its own addresses: its own pages, and those of the shared
//! memory that it shows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::{Mapping, Memory};
use crate::error::Result;
use crate::image::contents::{self, Stretch, cover};

/// The memory of a process that was dumped.
pub(super) struct Dumped {
    own: Vec<Stretch>,
    /// By its number, each by its offset there.
    shared: BTreeMap<u64, Vec<Stretch>>,
}

impl Dumped {
    pub(super) fn of(images: &Path, pid: i32, memory: &Memory) -> Result<Dumped> {
        let own = contents::of_process(images, pid.unsigned_abs())?;
        let ids: BTreeSet<u64> = memory.mappings.iter().filter_map(|mapping| mapping.shared).collect();
        let of_shared = |id| Ok((id, contents::of_shared(images, id)?));
        Ok(Dumped { own, shared: ids.into_iter().map(of_shared).collect::<Result<_>>()? })
    }

    /// What there is of a range of a mapping. A page of the process's own hides that of the shared memory below it.
    pub(super) fn within(&self, mapping: &Mapping, range: Range<u64>) -> Vec<Stretch> {
        let shared = mapping.shared.and_then(|id| self.shared.get(&id));
        let shown = shared.map_or_else(Vec::new, |memory| shown(mapping, memory));
        cover(range, &[&self.own, &shown])
    }

    /// All of it, wherever it belongs.
    pub(super) fn stretches(&self) -> impl Iterator<Item = &Stretch> {
        self.own.iter().chain(self.shared.values().flatten())
    }
}

/// What a mapping shows of shared memory, by address.
fn shown(mapping: &Mapping, memory: &[Stretch]) -> Vec<Stretch> {
    let offset = mapping.offset_bytes.0;
    let shown = cover(offset..offset.saturating_add(mapping.size().0), &[memory]);
    let moved = |it: Stretch| Stretch {
        start: it.start - offset + mapping.start,
        end: it.end - offset + mapping.start,
        ..it
    };
    shown.into_iter().map(moved).collect()
}
