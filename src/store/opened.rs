//! A checkpoint with its contents in reach of whoever reads images, who needs no word about how they are stored: what is
//! encrypted gets decrypted, and what is compressed decompressed, into a folder that goes with the last who has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalogue::Entry;
use super::life::Life;
use super::manifest::Manifest;
use super::staging::{self, Place};
use super::{compressed, encrypted, layout};
use crate::config::Staging;
use crate::encryption::Identities;
use crate::error::{Error, ErrorKind, Result};

/// Where a checkpoint was opened to. It goes with this value.
#[derive(Debug)]
pub(crate) struct Opened(Place);

impl Opened {
    fn folder(&self) -> &Path {
        &self.0.folder
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Err(error) = staging::remove(self.folder()) {
            log::warn!("what a checkpoint was opened to is still there: {}", error.chain());
        }
    }
}

impl Entry {
    /// The checkpoint with its contents in reach. Mostly they are that already; what is encrypted or compressed is put, as it
    /// was, into memory where there is room, and that goes when the last copy of the returned value is dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encrypted`] where none of the identities opens it, [`ErrorKind::Damaged`] where it isn't what was
    /// encrypted or compressed.
    pub fn open(&self, identities: &Identities) -> Result<Entry> {
        let Ok(manifest) = &self.manifest else { return Ok(self.clone()) };
        let is_in_reach = self.opened.is_some() || !(manifest.is_encrypted() || manifest.is_compressed());
        if is_in_reach {
            return Ok(self.clone());
        }
        if manifest.is_encrypted() && identities.is_empty() {
            return Err(encrypted::takes_an_identity(manifest));
        }
        let (life, _) =
            Life::of_this_process().map_err(|source| Error::os("read /proc about this process", source))?;
        staging::sweep(&Staging::Off);
        let folder = match manifest.is_encrypted() {
            true => {
                let folder = Opened(staging::anywhere(&life, manifest.size())?);
                encrypted::decrypt(&self.path, manifest, identities, folder.folder())?;
                folder
            }
            false => {
                let folder = Opened(staging::anywhere(&life, compressed::size(&self.path, manifest)?)?);
                compressed::decompress(&self.path, folder.folder())?;
                folder
            }
        };
        let mut manifest = manifest.clone();
        if let Ok(text) = fs::read(folder.folder().join(layout::CAUSE)) {
            manifest.cause = serde_json::from_slice(&text).unwrap_or(manifest.cause);
        }
        Ok(Entry { path: self.path.clone(), manifest: Ok(manifest), opened: Some(Arc::new(folder)) })
    }

    /// The folder in which `images/` and `files/` can be read, by other tools as well: the checkpoint's own, or where it
    /// was opened to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encrypted`] where it is encrypted, and [`ErrorKind::Config`] where it is compressed, and was not
    /// opened.
    pub fn contents(&self) -> Result<&Path> {
        match (&self.opened, &self.manifest) {
            (Some(opened), _) => Ok(opened.folder()),
            (None, Ok(manifest)) if manifest.is_encrypted() => Err(encrypted::takes_an_identity(manifest)),
            (None, Ok(manifest)) if manifest.is_compressed() => Err(takes_room(manifest)),
            (None, _) => Ok(&self.path),
        }
    }

    /// The folder of its images.
    pub(crate) fn images(&self) -> Result<PathBuf> {
        Ok(self.contents()?.join(layout::IMAGES))
    }

    /// Whether its contents lie in a folder that is there for as long as it is open.
    pub(crate) fn is_opened_elsewhere(&self) -> bool {
        self.opened.is_some()
    }
}

fn takes_room(manifest: &Manifest) -> Error {
    Error::new(ErrorKind::Config, format!("{} is compressed, and was not opened", manifest.id))
        .with_hint("open it first (Entry::open), which puts it into memory as it was, or on the disk")
}
