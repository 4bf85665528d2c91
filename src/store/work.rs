//! A folder for what is needed only for a while: logs, statistics, images that nobody restores.

use std::fs;
use std::path::PathBuf;

use crate::config;
use crate::error::{Error, Result};
use crate::sys;

/// A folder of ours among the system's temporary ones.
#[derive(Debug)]
pub(crate) struct WorkFolder {
    pub(crate) path: PathBuf,
}

impl WorkFolder {
    /// Makes one, which nobody else can enter, with its purpose in its name.
    pub(crate) fn make(purpose: &str) -> Result<WorkFolder> {
        let id = sys::procfs::fresh_id().map_err(|source| Error::os("read /proc", source))?;
        let temporary = config::environment("TMPDIR").filter(|folder| !folder.is_empty());
        let temporary = temporary.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let path = temporary.join(format!("selfdump-{purpose}-{id}"));
        sys::disk::make_private(&path).map_err(|source| Error::io("make", &path, source))?;
        Ok(WorkFolder { path })
    }

    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("can't remove {}: {error}", self.path.display());
        }
    }
}
