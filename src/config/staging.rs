//! Where CRIU writes while the program stands still.

use std::path::PathBuf;

/// Where CRIU writes while the program stands still. What it has written is moved to the store when the program runs
/// again, and is no checkpoint before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Staging {
    /// To the store.
    #[default]
    Off,
    /// Into memory, where that is the shorter pause: the program has much memory, twice as much is free, and there is a
    /// file system in huge pages for it: the one of `selfdump setup --staging`, or for root one that is made for each
    /// checkpoint, seen by nobody else. Else to the store.
    Auto,
    /// Into this folder, in memory (a tmpfs, best mounted `huge=always`), where it has room; else to the store.
    Folder(PathBuf),
}

impl Staging {
    /// Where `selfdump setup --staging` mounts a file system in memory, in huge pages, for all users' programs.
    pub const SHARED: &str = "/run/selfdump-staging";
}
