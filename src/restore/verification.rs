//! Nothing of a program runs before every byte of its checkpoint is known to be what was committed.
//!
//! What CRIU acts on (which files to open, which ids to give) and what is put back from copies is read and compared
//! before anything is done. What a program has in its memory only has to be right when it runs: that is most of a
//! checkpoint, and is compared while CRIU restores it. What was read for the one is in memory for the other.

use std::thread::JoinHandle;

use crate::error::{Error, ErrorKind, Result};
use crate::image;
use crate::store::catalogue::Entry;

/// What is still being read.
pub(super) struct Verification {
    reader: Option<JoinHandle<Result<()>>>,
    result: Result<()>,
}

impl Verification {
    /// Verifies all but the memory, and begins with that.
    pub(super) fn begin(entry: &Entry) -> Result<Verification> {
        entry.verify_those(|path| !image::is_of_memory(path))?;
        let entry = entry.clone();
        let reader = move || entry.verify_those(image::is_of_memory);
        let reader = std::thread::Builder::new()
            .name("verification".to_owned())
            .spawn(reader)
            .map_err(|source| Error::os("start a thread that verifies the checkpoint", source))?;
        Ok(Verification { reader: Some(reader), result: Ok(()) })
    }

    /// What has come of it, when all is read.
    pub(super) fn result(&mut self) -> Result<()> {
        if let Some(reader) = self.reader.take() {
            let stopped = |_| Err(Error::new(ErrorKind::Io, "the verification has stopped before its end"));
            self.result = reader.join().unwrap_or_else(stopped);
        }
        self.result.clone()
    }
}
