//! Where CRIU writes while the program stands still.

use std::path::{Path, PathBuf};

use crate::sys::machine::{self, LargePages};

/// Where CRIU writes while the program stands still. What it has written is moved to the store when the program runs
/// again, and is no checkpoint before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Staging {
    /// To the store.
    #[default]
    Off,
    /// Into memory, where that is the shorter pause: the program has much memory, twice as much is free, and there is a
    /// file system in large pages for it: the one of `selfdump setup --staging`, or for root one that is made for each
    /// checkpoint, seen by nobody else. Else to the store.
    Auto,
    /// Into this folder, in memory (a tmpfs, best mounted in large pages, as by [`Staging::mount_options`]), where it has room; else to the store.
    Folder(PathBuf),
}

impl Staging {
    /// Where `selfdump setup --staging` mounts a file system in memory, in large pages, for all users' programs.
    pub const SHARED: &str = "/run/selfdump-staging";

    /// The options that it is mounted with: with those pages that this kernel writes to in the shortest time. Half of the
    /// memory is what a tmpfs has by itself; programs look for what is free before.
    pub fn mount_options() -> String {
        format!("huge={},mode=1777,nosuid,nodev,size=50%", LargePages::best().option())
    }

    /// Whether what is mounted at [`SHARED`](Staging::SHARED) is a tmpfs in large pages that serves on this kernel.
    pub fn is_set_up() -> bool {
        machine::large_pages(Path::new(Staging::SHARED)).is_some()
    }
}
