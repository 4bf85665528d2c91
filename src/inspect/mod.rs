//! Looking into a checkpoint: what stood still in it, and whether it can be trusted.
//!
//! - [`Inside::of`] reads processes, threads with registers, mappings and descriptors; [`pages`] tells, run by run,
//!   where the contents of memory are.
//! - [`fates`] tells what a restore does with each descriptor.
//! - [`diff()`] compares two checkpoints, page by page; [`preceding`] finds the one to compare with.
//! - [`images`] lists CRIU's files, and [`messages`] shows each as it stands there; [`rewrite`] writes it back.
//! - [`write_core`] writes a core of a process, for debuggers.
//! - [`export()`] writes the images for CRIU alone.
//! - [`verify()`] checks everything that can be checked without a restore.
//!
//! Of a checkpoint that is encrypted all of it but [`verify()`] wants one that was opened ([`Entry::open`]); else its error
//! is of the kind [`ErrorKind::Encrypted`](crate::ErrorKind::Encrypted).
//!
//! ```no_run
//! # fn main() -> Result<(), selfdump::Error> {
//! use selfdump::{inspect::Inside, restore};
//!
//! let (store, _) = restore::from_environment(None)?;
//! let newest = &restore::find(&store, Some("counter".as_ref()))?[0];
//! for process in Inside::of(newest)?.processes {
//!     for thread in process.threads {
//!         println!("{} at {:#x}", thread.name, thread.registers.instruction_pointer());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod diff;
mod dumped;
mod elf_core;
mod export;
mod fate;
mod runs;
mod verify;

pub use crate::image::inside::*;
pub use crate::image::raw::{Content, ImageFile, ImageMessage, ImageMessages};
pub use crate::image::rewrite::{Rewritten, Unequal};
pub use diff::{
    Change, DescriptorChange, DescriptorDifference, Difference, MappingChange, MappingDifference,
    ProcessDifference, ThreadDifference, diff,
};
pub use elf_core::{Core, CoreOptions, write_core};
pub use export::export;
pub use fate::{Fate, fates};
pub use runs::held;
pub use verify::{Check, CheckResult, Checked, Verification, verify};

use std::io::{Read, Write};

use crate::error::{Error, Result};
use crate::image::{raw, rewrite as again};
use crate::store::catalogue::{self, Entry};

impl Inside {
    /// What is in a checkpoint.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) where an image is missing, or isn't what it should be.
    pub fn of(entry: &Entry) -> Result<Inside> {
        Inside::read(&entry.images()?)
    }
}

/// Where the pages of a process are: those of its private mappings.
///
/// # Errors
///
/// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) where the image can't be read; each run may be an error as well.
pub fn pages(entry: &Entry, pid: u32) -> Result<Pages> {
    Pages::of_process(&entry.images()?, pid)
}

/// Where the pages of shared memory are ([`Mapping::shared`]); none where nothing of it was dumped.
///
/// # Errors
///
/// As for [`pages`].
pub fn shared_pages(entry: &Entry, shared: u64) -> Result<Option<Pages>> {
    Pages::of_shared(&entry.images()?, shared)
}

/// The checkpoint before this one, of those beside it: the same program's, and the same instance's.
///
/// # Errors
///
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where the folder that it is in can't be found.
pub fn preceding(entry: &Entry) -> Result<Option<Entry>> {
    let path = entry.path.canonicalize().map_err(|source| Error::io("find", &entry.path, source))?;
    let Some(beside) = path.parent() else { return Ok(None) };
    let all = catalogue::find(beside, Some(beside))?;
    Ok(all.into_iter().skip_while(|other| other.path != path).skip(1).find(|other| other.manifest.is_ok()))
}

/// The files of a checkpoint's images, by name.
///
/// # Errors
///
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where the folder can't be read.
pub fn images(entry: &Entry) -> Result<Vec<ImageFile>> {
    raw::files(&entry.images()?)
}

/// The messages of one of them; none where it is of a kind that isn't read here. Each may be an error.
///
/// # Errors
///
/// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) where it doesn't begin as it should.
pub fn messages(entry: &Entry, name: &str) -> Result<Option<ImageMessages>> {
    raw::messages(&entry.images()?, name)
}

/// The same of an image that is in memory, under the name that its file would have.
///
/// # Errors
///
/// As for [`messages`].
pub fn messages_in(name: &str, image: impl Read + 'static) -> Result<Option<ImageMessages>> {
    raw::messages_in(name, Box::new(image))
}

/// Reads an image, by the name that its file has, and writes it back: each message from what is read of it here, and what
/// stands behind messages untouched, as are pages and what other programs wrote for CRIU. [`Rewritten::unequal`] tells
/// where that isn't what it was, byte by byte. None where it is of a kind that isn't known here, or no image; nothing is
/// written then.
///
/// # Errors
///
/// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) where it isn't an image of that kind, and
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where it can't be written.
pub fn rewrite(name: &str, image: impl Read + 'static, mut to: impl Write) -> Result<Option<Rewritten>> {
    again::rewrite(name, Box::new(image), &mut to)
}
