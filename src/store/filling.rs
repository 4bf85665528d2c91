//! Whether the memory of a program that came back is still being filled: a checkpoint of it would have holes.
//!
//! There is a file for each of its processes in the runtime folder, all of them one, and whoever fills the memory has it
//! locked. The kernel lets go of the lock when that has ended, however it has, so nothing that is left says so for ever.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::layout;
use super::life::Life;
use super::runtime;
use crate::error::{Error, Result};
use crate::sys::disk::{self, Lock};
use crate::sys::{process, procfs};

/// Marks the processes of a program, for as long as it or a duplicate of its descriptor is there.
pub(crate) struct Mark {
    paths: Vec<PathBuf>,
    lock: Lock,
}

impl Mark {
    /// Marks the processes `pids` of this pid namespace, which nobody has now, in the program's runtime `folder`.
    pub(crate) fn lay(folder: &Path, pids: &[i32]) -> Result<Mark> {
        let namespace = procfs::pid_namespace(process::id())
            .map_err(|source| Error::os("read /proc about this process", source))?;
        let paths: Vec<PathBuf> = pids.iter().map(|&pid| layout::filling(folder, namespace, pid)).collect();
        runtime::make(folder)
            .and_then(|()| lock_all(&paths))
            .map(|lock| Mark { paths, lock })
            .map_err(|source| Error::io("write to", folder, source))
    }
}

fn lock_all(paths: &[PathBuf]) -> io::Result<Lock> {
    // Left by somebody who was killed.
    remove(paths);
    let (first, others) = paths.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let lock = disk::lock(first)?.ok_or(io::ErrorKind::WouldBlock)?;
    others.iter().try_for_each(|path| fs::hard_link(first, path))?;
    Ok(lock)
}

fn remove(paths: &[PathBuf]) {
    paths.iter().for_each(|path| drop(fs::remove_file(path)));
}

impl AsFd for Mark {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        remove(&self.paths);
    }
}

/// Whether the memory of this process is being filled.
pub(crate) fn is_going_on(life: &Life) -> bool {
    let path = runtime::to_read().map(|folder| layout::filling(&folder, life.pid_namespace, life.pid));
    path.is_some_and(|path| path.exists() && disk::is_locked(&path))
}
