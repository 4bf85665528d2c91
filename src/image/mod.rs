//! Reads what a dump wrote: CRIU's image files, as plain data. And completes what a dump of a process's copy wrote.
//!
//! What lies behind it: the layout of CRIU's image files (its `image.c`, `protobuf.c` and `magic.h`), their
//! names (`image-desc.c`), the messages in them (`images/*.proto`, of which `proto/images.proto` declares
//! what is read here) and how they refer to each other (`pstree.c`, `files.c`, `pagemap.c`). No protobuf type
//! leaves this module.
//!
//! An image is a file of messages. It starts with two 32-bit numbers in little-endian order: one says that
//! it is an image (or a service file, such as the statistics), the other which; the inventory, which says
//! that the others are so, has the second only. Then come the messages, each behind its size as a 32-bit
//! number, until the file ends. Pages of memory and the contents of pipes are in files of their own, or behind
//! messages, and are passed over by number.
//!
//! How the files hang together:
//!
//! ```text
//! inventory.img ─ the format
//! pstree.img ──┬─▶ core-TID.img       registers; of the main thread, what is the process's
//!  (processes) ├─▶ mm-PID.img         the mappings
//!              ├─▶ pagemap-PID.img ─▶ pages-N.img, without structure
//!              └─▶ ids-PID.img ─▶ fdinfo-ID.img ─▶ files.img ─▶ memfd.img
//!                  (zombies: none)    (descriptors)   (open files)
//! stats-dump ─ CRIU's own account
//! ```
//!
//! The images are read after the dump, and perhaps long after it, from a disk that may have lost some of
//! them. So nothing in them is believed: sizes are bounded, ids must be there, and what is wrong is an error
//! of the kind [`Damaged`](crate::ErrorKind::Damaged) that names the file and the place in it.

mod complete;
#[cfg(feature = "inspect")]
pub(crate) mod consistency;
pub(crate) mod contents;
pub(crate) mod delta;
mod descriptor;
mod file;
mod images;
#[cfg(feature = "inspect")]
pub(crate) mod inside;
mod kind;
mod memory;
#[cfg(feature = "service")]
mod owners;
mod pagemap;
mod pages;
#[cfg(feature = "inspect")]
pub(crate) mod raw;
mod resize;
#[cfg(feature = "inspect")]
pub(crate) mod rewrite;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(feature = "inspect")]
mod text;
mod tree;
#[cfg(feature = "inspect")]
mod unknown;
#[cfg(feature = "inspect")]
pub(crate) mod whole;
mod wire;

use std::path::Path;

pub(crate) use complete::{Pause, complete};
pub(crate) use kind::first_pages_and_last;
#[cfg(feature = "service")]
pub(crate) use owners::with_more_rights;
#[cfg(feature = "service")]
pub(crate) use resize::set_sizes;
pub(crate) use resize::with_sizes;
pub(crate) use stats::dump_stats;
pub(crate) use tree::processes;
#[cfg(feature = "service")]
pub(crate) use tree::root;

/// Whether a file holds pages of memory, and so nothing that CRIU acts on.
pub(crate) fn is_of_memory(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).and_then(kind::pages_id).is_some()
}

/// Whether the dump has told which processor it was made on (`cpuinfo.img`), for CRIU to compare.
pub(crate) fn has_processor(images: &Path) -> bool {
    kind::Image::PROCESSORS.path(images).exists()
}
