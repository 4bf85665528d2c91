//! The folder of one restore.

use std::fs;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::sys;

/// CRIU's log and statistics of one restore. The checkpoint itself is not written to.
pub(super) struct WorkFolder {
    pub(super) path: PathBuf,
}

impl WorkFolder {
    pub(super) fn make() -> Result<WorkFolder> {
        let id = sys::procfs::fresh_id().map_err(|source| Error::os("read /proc", source))?;
        let path = std::env::temp_dir().join(format!("selfdump-restore-{id}"));
        sys::disk::make_private(&path).map_err(|source| Error::io("make", &path, source))?;
        Ok(WorkFolder { path })
    }

    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("can't remove {}: {error}", self.path.display());
        }
    }
}
