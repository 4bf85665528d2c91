//! A draft whose contents are encrypted before it is committed, and a checkpoint that is decrypted to be read.
//!
//! What CRIU and the script for copies write goes into a folder for what is plain, which the draft leads them to by its
//! link. When the program runs again, each file is encrypted into its place, and that folder goes. Only then the draft
//! is committed. Reading is the other way round.

use std::fs;
use std::path::{Component, Path};
use std::sync::Once;

use super::draft::Draft;
use super::life::Life;
use super::manifest::Manifest;
use super::staging::{self, Place, Wanted};
use super::{layout, staged};
use crate::config::Staging;
use crate::encryption::{self, Identities, Recipient, Undecrypted};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Cause;
use crate::sys::disk;

impl Draft {
    /// Has everything written into a folder of its own, to be encrypted from there: where it is staged or elsewhere in
    /// memory, where there is room for so much, else in the draft's.
    pub(crate) fn write_apart(&mut self, life: &Life, staging: &Staging, wanted: Wanted) -> Result<()> {
        static SAID: Once = Once::new();
        let staged = staging::as_set(life, staging, wanted).unwrap_or_else(|why| {
            log::info!("{why}");
            None
        });
        let in_memory = staged.or_else(|| staging::in_memory(life, wanted));
        if in_memory.is_none() {
            SAID.call_once(|| {
                log::warn!(
                    "there is no room in memory for what is to be encrypted ({}), so it lies on the disk until it is",
                    wanted.room
                );
            });
        }
        match in_memory {
            Some(place) => self.lead_to(place),
            None => self.write_apart_on_the_disk(),
        }
    }

    /// Has it written into a folder of its own in the draft's.
    pub(crate) fn write_apart_on_the_disk(&mut self) -> Result<()> {
        let folder = self.path(layout::PLAIN);
        disk::make_private(&folder).map_err(|source| Error::io("make", &folder, source))?;
        self.lead_to(Place::on_the_disk(folder))
    }

    /// Whether all of it takes its place on the disk twice for a while.
    pub(crate) fn is_twice_on_the_disk(&self) -> bool {
        self.written.as_ref().is_some_and(|place| place.folder.starts_with(self.folder()))
    }

    /// Encrypts all that was written apart, file by file, and leaves nothing of it that could be read.
    pub(crate) fn encrypt(&self, recipients: &[Recipient], cause: &Cause) -> Result<()> {
        let place = self.written.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Io, "what is to be encrypted lies where it is to be committed")
        })?;
        self.bring(place, |file, to| {
            fs::File::open(file)
                .and_then(|plain| encryption::encrypt_to(recipients, plain, &layout::encrypted(to)))
                .and_then(|()| fs::remove_file(file))
                .map_err(|source| Error::io("encrypt", file, source))
        })?;
        if cause.without_words() != *cause {
            let path = layout::encrypted(&self.path(layout::CAUSE));
            serde_json::to_vec(cause)
                .map_err(std::io::Error::from)
                .and_then(|text| encryption::encrypt_to(recipients, text.as_slice(), &path))
                .map_err(|source| Error::io("write", &path, source))?;
        }
        Ok(())
    }
}

pub(super) fn decrypt(
    checkpoint: &Path,
    manifest: &Manifest,
    identities: &Identities,
    to: &Path,
) -> Result<()> {
    for name in staged::FOLDERS {
        let folder = to.join(name);
        disk::make_private(&folder).map_err(|source| Error::io("make", &folder, source))?;
    }
    for file in &manifest.files {
        let encrypted = checkpoint.join(&file.path);
        let plain = layout::decrypted(Path::new(&file.path)).filter(|plain| stays_below(plain));
        let Some(plain) = plain else {
            return Err(damaged(format!("{} is no encrypted file of a checkpoint", encrypted.display())));
        };
        let plain = to.join(plain);
        encryption::decrypt_to(identities, &encrypted, &plain).map_err(|why| match why {
            Undecrypted::ForOthers => for_others(manifest, identities),
            Undecrypted::Damaged(source) => {
                damaged(format!("{} is not what was encrypted", encrypted.display())).with_source(source)
            }
            Undecrypted::Io(source) => Error::io("decrypt", &encrypted, source),
        })?;
    }
    Ok(())
}

/// Whoever could write a manifest is not to have us write somewhere else.
fn stays_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn damaged(what: String) -> Error {
    Error::new(ErrorKind::Damaged, what).with_hint("use another checkpoint; this one can't be trusted")
}

/// Why somebody who has lost them need not look for a way around.
const NO_WAY_AROUND: &str = "without one of the identities nobody can read it; there is no way around";

pub(super) fn takes_an_identity(manifest: &Manifest) -> Error {
    let what = format!("{} is encrypted to {}", manifest.id, manifest.encrypted_to.join(", "));
    Error::new(ErrorKind::Encrypted, what).with_hint(format!(
        "name the file with the identity of one of these: --identity FILE, or SELFDUMP_IDENTITY; {NO_WAY_AROUND}"
    ))
}

fn for_others(manifest: &Manifest, identities: &Identities) -> Error {
    let what = format!(
        "{} is encrypted to {}, and the identities that were named are those of {}",
        manifest.id,
        manifest.encrypted_to.join(", "),
        identities.recipients().join(", ")
    );
    Error::new(ErrorKind::Encrypted, what).with_hint(format!(
        "name another identity: `age-keygen -y FILE` prints the recipient that an identity belongs to; {NO_WAY_AROUND}"
    ))
}
