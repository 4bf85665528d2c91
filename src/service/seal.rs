//! The seal: proof that images were made by this machine's service, of a program of the user that it names, and weren't
//! touched since.
//!
//! It is a keyed BLAKE3 over whose they are and over all files by name: the length and the bytes of the name, the length
//! of the file and its bytes, each length as eight bytes in little-endian order. So no two different folders have the same
//! text. The seal itself is left out.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;

use super::journal::read_if_there;
use super::lock::{Locked, Owner, failed};
use crate::criu::request::{Refusal, Why};
use crate::error::{Error, ErrorKind, Result};
use crate::image;
use crate::store::layout;
use crate::sys::disk;
use crate::sys::folder::Held;

/// The file of the key, in the service's state.
const KEY: &str = "key";

/// What the text that is sealed begins with, so that the key is never used on one that means something else.
const DOMAIN: &[u8] = b"selfdump seal 1\n";

/// What seals are made with, and known by. It never leaves the service.
pub(super) struct Key([u8; 32]);

/// The file beside the images.
#[derive(Serialize)]
struct Seal {
    format_version: u32,
    user: u32,
    seal: String,
}

/// What was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

impl Key {
    /// The key of this machine's service; made where there is none.
    pub(super) fn of(state: &Path) -> Result<Key> {
        let path = state.join(KEY);
        let found = read_if_there(&path).map_err(|source| Error::io("read", &path, source))?;
        if let Some(bytes) = found {
            return bytes.try_into().map(Key).map_err(|_| {
                Error::new(ErrorKind::Damaged, format!("{} isn't a key of 32 bytes", path.display()))
                    .with_hint("put it back from a copy; without it what was sealed isn't known any more")
            });
        }
        let made = Key::make(state).map_err(|source| Error::io("make", &path, source))?;
        Ok(made)
    }

    /// Made under another name, so that half a key is none.
    fn make(state: &Path) -> io::Result<Key> {
        let mut key = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        let aside = state.join(format!("{KEY}.new"));
        let _ = std::fs::remove_file(&aside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(&key)?;
        file.sync_all()?;
        disk::rename_new(&aside, &state.join(KEY))?;
        disk::sync(state)?;
        Ok(Key(key))
    }
}

/// Looks through the images in a locked folder and seals them.
pub(super) fn seal(key: &Key, locked: &Locked) -> Result<Sealed, Refusal> {
    let (folder, owner) = (&locked.folder, locked.owner);
    let names = folder.names().map_err(|error| failed("read the images", &error))?;
    // That CRIU has finished is told by the images themselves, whatever it has said.
    let more = image::with_more_rights(&folder.link(), owner.user)
        .map_err(|error| Refusal::new(Why::Failed, format!("the images aren't whole: {}", error.chain())))?;
    if let Some(what) = more {
        return Err(Refusal::forbidden(format!(
            "{what}, so that this user may not have what is in its memory"
        )));
    }
    let (code, sealed) =
        code(key, folder, owner, &names).map_err(|error| failed("read the images", &error))?;
    let seal = Seal { format_version: 1, user: owner.user, seal: code.to_hex().to_string() };
    let text = serde_json::to_vec(&seal).map_err(io::Error::from);
    text.and_then(|text| folder.create_for(layout::SEAL, &text, owner.user, owner.group))
        .map_err(|error| failed("write the seal", &error))?;
    Ok(sealed)
}

fn code(key: &Key, folder: &Held, owner: Owner, names: &[OsString]) -> io::Result<(blake3::Hash, Sealed)> {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(DOMAIN).update(&owner.user.to_le_bytes());
    let mut sealed = Sealed { files: 0, bytes: 0 };
    for name in names.iter().filter(|name| *name != OsStr::new(layout::SEAL)) {
        let size = add(&mut hasher, folder, owner, name)?;
        sealed = Sealed { files: sealed.files + 1, bytes: sealed.bytes + size };
    }
    Ok((hasher.finalize(), sealed))
}

/// Adds a file by name, which has to be this user's own and nobody else's as well; its size.
fn add(hasher: &mut blake3::Hasher, folder: &Held, owner: Owner, name: &OsStr) -> io::Result<u64> {
    let mut file = folder.file(name)?;
    let about = file.metadata()?;
    if !about.is_file() || about.uid() != owner.user || about.nlink() != 1 {
        return Err(io::Error::other(format!("{} is no image of this dump", name.to_string_lossy())));
    }
    let length = |number: usize| (number as u64).to_le_bytes();
    hasher.update(&length(name.len())).update(name.as_bytes()).update(&about.len().to_le_bytes());
    let read = io::copy(&mut file, hasher)?;
    match read == about.len() {
        true => Ok(read),
        false => Err(io::Error::other(format!("{} has another size than it says", name.to_string_lossy()))),
    }
}
