//! The part of a draft in which copies of files are made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::layout;
use crate::error::{Error, Result};
use crate::sys::disk;

impl Draft {
    /// Makes room for copies of files, and says how CRIU gets to run `script`, which makes them. The script runs in
    /// the folder of the images.
    pub(crate) fn prepare_copies(&self, script: &[u8]) -> Result<()> {
        let (files, path) = (self.written(layout::FILES), self.written(layout::COPY_SCRIPT));
        disk::make_private(&files).map_err(|source| Error::io("make", &files, source))?;
        disk::write_script(&path, script).map_err(|source| Error::io("write", &path, source))?;
        let config = self.criu_config();
        // A path from the root would have to be quoted, and CRIU takes what is behind a # for a comment even then.
        disk::write_new(&config, format!("action-script ../{}\n", layout::COPY_SCRIPT).as_bytes())
            .map_err(|source| Error::io("write", &config, source))
    }

    /// The settings that have CRIU run the script.
    pub(crate) fn criu_config(&self) -> PathBuf {
        self.written(layout::CRIU_CONFIG)
    }

    /// What the script wrote when it had copied everything; none where it has not.
    pub(crate) fn copied(&self) -> Result<Option<Vec<u8>>> {
        read_if_there(&self.written(layout::COPIED))
    }

    /// What the script wrote when it could not copy a file.
    pub(crate) fn copy_failure(&self) -> Option<Vec<u8>> {
        read_if_there(&self.written(layout::COPY_FAILED)).ok()?
    }

    /// The copy with this number: its name in the checkpoint's folder, and where it is now.
    pub(crate) fn copy(&self, number: usize) -> (String, PathBuf) {
        let name = format!("{}/{number}", layout::FILES);
        let path = self.written(&name);
        (name, path)
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("read", path, source)),
    }
}
