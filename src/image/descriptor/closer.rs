//! What only who looks closer asks of the open files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::OpenFiles;
use crate::error::Result;
use crate::image::images::{FileKind, Remap};
use crate::image::kind::Image;

impl OpenFiles {
    /// The path of a regular file, where there is one of this id.
    pub(in crate::image) fn path(&self, id: u32) -> Option<PathBuf> {
        self.opened_at(id)?.path
    }

    /// The path of a file that is mapped.
    pub(in crate::image) fn mapped(&self, id: u32) -> Option<PathBuf> {
        let mem_fd = || self.mem_fd(self.files.get(&(FileKind::MemFd.into(), id))?.memfd.as_ref()?)?.path;
        self.path(id).or_else(mem_fd)
    }

    /// The number of the shared memory that is behind a memfd.
    pub(in crate::image) fn memory_of_mem_fd(&self, id: u32) -> Option<u64> {
        let mem_fd = self.files.get(&(FileKind::MemFd.into(), id))?.memfd.as_ref()?;
        Some(self.mem_fds.get(&mem_fd.inode_id.into())?.shmid.into())
    }

    /// Whether a regular file's path leads to it no more, so that something in the images stands for it.
    pub(in crate::image) fn is_deleted(&self, id: u32) -> bool {
        self.remapped.contains(&id)
    }

    /// Whether there is a pipe, with a name or without, of this inode.
    pub(in crate::image) fn has_pipe(&self, pipe_id: u32) -> bool {
        self.files.values().any(|file| {
            file.pipe.is_some_and(|pipe| pipe.pipe_id == pipe_id)
                || file.fifo.is_some_and(|fifo| fifo.pipe_id == pipe_id)
        })
    }

    /// The ids of the settings that terminals refer to.
    pub(in crate::image) fn terminals(&self) -> impl Iterator<Item = u32> {
        self.files.values().filter_map(|file| Some(file.tty?.tty_info_id))
    }
}

/// CRIU writes that image only if it has something to put there.
pub(super) fn remapped(images: &Path) -> Result<HashSet<u32>> {
    if !Image::REMAPS.path(images).exists() {
        return Ok(HashSet::new());
    }
    Image::REMAPS.read_all(images)?.map(|remap| remap.map(|remap: Remap| remap.orig_id)).collect()
}
