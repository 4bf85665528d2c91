//! A checkpoint's images as CRIU alone takes them.

use std::fs;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::image;
use crate::store::catalogue::Entry;
use crate::sys::disk;

/// Writes the images of a checkpoint into a folder, for `criu restore` and other tools: whole, whatever they build on. The
/// folder is made, or is there and empty. Files that were copied with the checkpoint stay there. `progress` is told how much
/// is done, and of how much; how much it was is returned.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] where the checkpoint isn't whole, [`ErrorKind::Encrypted`] where it was not opened,
/// [`ErrorKind::Config`] where there is something in the folder.
pub fn export(entry: &Entry, to: &Path, progress: &mut dyn FnMut(Bytes, Bytes)) -> Result<Bytes> {
    let images = entry.images()?;
    entry.verify()?;
    if to.exists() {
        let mut there = fs::read_dir(to).map_err(|source| Error::io("read", to, source))?;
        if there.next().is_some() {
            return Err(Error::new(ErrorKind::Config, format!("{} isn't empty", to.display()))
                .with_hint("name a folder that isn't there yet: it is made"));
        }
    } else {
        disk::make_private(to).map_err(|source| Error::io("make", to, source))?;
    }
    image::whole::copy(&images, to, progress)
}
