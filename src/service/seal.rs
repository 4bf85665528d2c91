//! The seal: proof that images were made by this machine's service, of a program of the user that it names, and weren't
//! touched since.
//!
//! It is a keyed BLAKE3 over whose they are and over all files by name: the length and the bytes of the name, the length
//! of the file and its bytes, each length as eight bytes in little-endian order. So no two different folders have the same
//! text. The seal itself is left out.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::journal::read_if_there;
use super::lock::{Locked, failed};
use crate::criu::request::{Refusal, Why};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::image;
use crate::store::layout;
use crate::sys::disk;
use crate::sys::folder::Held;

/// The file of the key, in the service's state.
const KEY: &str = "key";

/// What the text that is sealed begins with, so that the key is never used on one that means something else.
const DOMAIN: &[u8] = b"selfdump seal 1\n";

/// No seal is longer.
const LONGEST_SEAL: u64 = 4096;

/// What seals are made with, and known by. It never leaves the service.
pub(super) struct Key([u8; 32]);

/// The file beside the images.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
        File::open("/dev/urandom")?.read_exact(&mut key)?;
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
    let nowhere = |_: &OsStr| Ok(io::sink());
    let (code, sealed) =
        code(key, folder, owner.user, &names, nowhere).map_err(|error| failed("read the images", &error))?;
    let seal = Seal { format_version: 1, user: owner.user, seal: code.to_hex().to_string() };
    let text = serde_json::to_vec(&seal).map_err(io::Error::from);
    text.and_then(|text| folder.create_for(layout::SEAL, &text, owner.user, owner.group))
        .map_err(|error| failed("write the seal", &error))?;
    Ok(sealed)
}

/// What a copy may take.
pub(super) struct Room {
    /// The most that one program may have, in bytes.
    pub(super) size: u64,
    /// What of the disk may be filled.
    pub(super) free: u64,
    pub(super) deadline: Instant,
}

/// Copies images of `user`'s into the folder `to`. They are what was sealed when this returns; what was copied of others is
/// to be thrown away.
pub(super) fn copy_sealed(
    key: &Key,
    folder: &Held,
    user: u32,
    to: &Path,
    room: &Room,
) -> Result<Sealed, Refusal> {
    let unreadable = |error: io::Error| failed("read the images", &error);
    let seal = read_seal(folder)?;
    if (seal.format_version, seal.user) != (1, user) {
        return Err(Refusal::forbidden(format!("the seal is for user {}", seal.user)));
    }
    let names = folder.names().map_err(unreadable)?;
    ensure_room(folder, &names, room)?;
    let copied = |name: &OsStr| {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to.join(name))?;
        Ok(InTime { file, deadline: room.deadline })
    };
    let (code, sealed) = code(key, folder, user, &names, copied).map_err(unreadable)?;
    // A comparison that takes as long wherever the two differ.
    match blake3::Hash::from_hex(&seal.seal).is_ok_and(|seal| seal == code) {
        true => Ok(sealed),
        false => Err(Refusal::forbidden("the images aren't those that this service has sealed")),
    }
}

fn read_seal(folder: &Held) -> Result<Seal, Refusal> {
    let mut text = Vec::new();
    let read =
        folder.file(OsStr::new(layout::SEAL)).and_then(|file| file.take(LONGEST_SEAL).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal::forbidden("the images bear no seal: a service has not made them"));
        }
        read => read.map_err(|error| failed("read the seal", &error))?,
    };
    serde_json::from_slice(&text).map_err(|_| Refusal::forbidden("the seal is none"))
}

/// Looks whether there is room for a copy, as far as the files say how large they are.
fn ensure_room(folder: &Held, names: &[OsString], room: &Room) -> Result<(), Refusal> {
    let size = |name: &OsString| Ok(folder.file(name)?.metadata()?.len());
    let sizes: io::Result<Vec<u64>> = names.iter().map(size).collect();
    let size =
        sizes.map_err(|error| failed("read the images", &error))?.into_iter().fold(0, u64::saturating_add);
    if size > room.size {
        let (size, most) = (Bytes(size), Bytes(room.size));
        return Err(Refusal::forbidden(format!("the images have {size}, and {most} is the limit")));
    }
    match size <= room.free {
        true => Ok(()),
        false => {
            Err(Refusal::new(Why::NoSpace, format!("no room for a copy of the images, {}", Bytes(size))))
        }
    }
}

/// The code over images, each of which is written to where `to` says as well.
fn code<W: Write>(
    key: &Key,
    folder: &Held,
    user: u32,
    names: &[OsString],
    to: impl Fn(&OsStr) -> io::Result<W>,
) -> io::Result<(blake3::Hash, Sealed)> {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(DOMAIN).update(&user.to_le_bytes());
    let mut sealed = Sealed { files: 0, bytes: 0 };
    for name in names.iter().filter(|name| *name != OsStr::new(layout::SEAL)) {
        let file = image_of(folder, user, name)?;
        let size = add(&mut hasher, name, file, to(name)?)?;
        sealed = Sealed { files: sealed.files + 1, bytes: sealed.bytes + size };
    }
    Ok((hasher.finalize(), sealed))
}

/// Opens a file by name, which has to be this user's own and nobody else's as well.
fn image_of(folder: &Held, user: u32, name: &OsStr) -> io::Result<File> {
    let file = folder.file(name)?;
    let about = file.metadata()?;
    match about.is_file() && about.uid() == user && about.nlink() == 1 {
        true => Ok(file),
        false => Err(io::Error::other(format!("{} is no image of this dump", name.to_string_lossy()))),
    }
}

/// Adds a file to the code, and writes it to `to`; its size.
fn add(hasher: &mut blake3::Hasher, name: &OsStr, file: File, to: impl Write) -> io::Result<u64> {
    let length = |number: u64| number.to_le_bytes();
    let size = file.metadata()?.len();
    hasher.update(&length(name.len() as u64)).update(name.as_bytes()).update(&length(size));
    // No more than there was: its user may write to it without an end.
    let read = io::copy(&mut file.take(size.saturating_add(1)), &mut Both { hasher, to })?;
    match read == size {
        true => Ok(read),
        false => Err(io::Error::other(format!("{} has another size than it says", name.to_string_lossy()))),
    }
}

/// What is read goes into the code and to somewhere else.
struct Both<'a, W> {
    hasher: &'a mut blake3::Hasher,
    to: W,
}

impl<W: Write> Write for Both<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A file that has to be written by a certain time.
struct InTime {
    file: File,
    deadline: Instant,
}

impl Write for InTime {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Instant::now() < self.deadline {
            true => self.file.write(bytes),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
