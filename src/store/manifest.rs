//! What a checkpoint says of itself: `manifest.json`, format version 1 (docs/format.md).
//!
//! The file is an envelope, `{"xxh3_128": …, "manifest": …}`, whose checksum covers the bytes of the
//! manifest as they stand, so that a changed bit in the manifest is found as surely as one in an image.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use super::life::Life;
use super::{chain, layout};
use crate::config::{FilePattern, FileRule};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Bytes, CopiedFile, DumpStats, MappedFile, Needs, Process, unix_micros};
use crate::report::{Cause, PauseBudget, Staged, Technique};
use crate::sys::disk;

/// The version of the format that is written, and the only one that is read.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The largest manifest that is read. One of 10,000 descriptors has about 2 MiB.
const LARGEST: u64 = 256 << 20;

/// A checkpoint's account of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of this format.
    pub format_version: u32,
    /// NAME/INSTANCE/NUMBER: where it stood in the store that it was written to.
    pub id: String,
    /// Why it was taken.
    pub cause: Cause,
    /// Whether it is one to look at, which is never chosen to go on from: its cause is a panic or a crash.
    pub forensic: bool,
    /// When it was taken.
    #[serde(rename = "taken_unix_us", with = "unix_micros")]
    pub taken: SystemTime,
    /// When CRIU had answered and the program ran on.
    #[serde(rename = "answered_unix_us", with = "unix_micros")]
    pub answered: SystemTime,
    pub(crate) life: Life,
    /// What ran.
    pub program: Program,
    /// What dumped it, and what it has to be told at the restore.
    pub criu: Criu,
    /// CRIU's account of the dump.
    pub stats: DumpStats,
    /// What was frozen, the root of the tree first.
    pub processes: Vec<Process>,
    /// Files that were copied into the checkpoint while all stood still, to be put back before a restore.
    pub copies: Vec<CopiedFile>,
    /// Every other file of the checkpoint.
    pub files: Vec<FileEntry>,
    /// The checkpoint that this one builds on, if any.
    pub parent: Option<String>,
    /// What it has in common with earlier checkpoints, the oldest first: each holds what has changed since the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Level>,
    /// Where CRIU wrote while the program stood still.
    #[serde(default, skip_serializing_if = "Staged::is_plain")]
    pub staged: Staged,
    /// How the moment was caught.
    #[serde(default, skip_serializing_if = "Technique::is_plain")]
    pub technique: Technique,
    /// What came of the limit for its pause, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_budget: Option<PauseBudget>,
    /// The recipients that it is encrypted to; none where it isn't.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encrypted_to: Vec<String>,
}

/// What ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Program {
    /// The name that its checkpoints are kept under.
    pub name: String,
    /// The path of its executable.
    pub executable: String,
    /// The version of selfdump in it.
    pub selfdump: String,
    /// What it wants to become of files that have changed since, at a restore.
    pub file_rules: Vec<FileRule>,
    /// The programs and libraries that it and its children ran.
    pub mapped: Vec<MappedFile>,
    /// The features of the processors that it ran on, as `/proc/cpuinfo` names them.
    pub cpu_features: Vec<String>,
    /// The folder in which it looks, when it comes back, for what the restorer has for it.
    pub runtime: PathBuf,
    /// Which files it wants copied into its checkpoints.
    pub copy_files: Vec<FilePattern>,
}

/// What dumped it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Criu {
    /// CRIU's version.
    pub version: String,
    /// The program or service that was asked.
    pub peer: String,
    /// What it was told, and has to be told again at the restore.
    pub needs: Needs,
}

/// Pages of memory that were stored with an earlier checkpoint, and are the same files on the disk as there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Level {
    /// The checkpoint that they were first stored with.
    pub id: String,
    /// The files. Not all of what is in them belongs to this checkpoint, so they have no checksum as a whole.
    pub pages: Vec<PagesFile>,
}

/// A file of pages, of which not all are a checkpoint's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PagesFile {
    /// Its path in the checkpoint's folder.
    pub path: String,
    /// Its size.
    #[serde(rename = "size_bytes")]
    pub size: Bytes,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FileEntry {
    /// Its path in the checkpoint's folder.
    pub path: String,
    /// Its size.
    #[serde(rename = "size_bytes")]
    pub size: Bytes,
    /// Its XXH3 checksum of 128 bits, in hexadecimal.
    pub xxh3_128: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<Raw> {
    xxh3_128: String,
    manifest: Raw,
}

/// What can be read from a manifest, which tells the version that it was written as.
pub(crate) trait Versioned {
    fn format_version(&self) -> u32;
}

impl Versioned for Manifest {
    fn format_version(&self) -> u32 {
        self.format_version
    }
}

impl Manifest {
    /// The generation of the process that was dumped: 0 for one that was never restored.
    pub fn generation(&self) -> u64 {
        self.life.generation
    }

    /// The size of all files together, without the manifest itself and what is [shared](Manifest::shared) with others.
    pub fn size(&self) -> Bytes {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The size of the files that are those of earlier checkpoints as well.
    pub fn shared(&self) -> Bytes {
        self.shared_files().map(|file| file.size).sum()
    }

    /// Those files.
    pub(crate) fn shared_files(&self) -> impl Iterator<Item = &PagesFile> {
        self.chain.iter().flat_map(|level| &level.pages)
    }

    /// Whether it takes an identity to read what is in its files.
    pub fn is_encrypted(&self) -> bool {
        !self.encrypted_to.is_empty()
    }

    /// The process id of the root of the tree.
    pub fn pid(&self) -> i32 {
        self.life.pid
    }

    /// Writes it into a checkpoint's folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(layout::MANIFEST);
        let text = serde_json::to_string_pretty(self).and_then(enveloped).map_err(|source| {
            Error::new(ErrorKind::Io, format!("can't describe the checkpoint {}", self.id))
                .with_source(source)
        })?;
        disk::write_new(&path, text.as_bytes()).map_err(|source| Error::io("write", &path, source))
    }

    /// Reads that of a checkpoint's folder, and checks it against its own checksum.
    pub(crate) fn read(folder: &Path) -> Result<Manifest> {
        parse(folder, &read_text(folder)?)
    }

    /// Compares the size of every file, without reading any.
    pub(crate) fn glance(&self, folder: &Path) -> Result<()> {
        let own = self.files.iter().map(|file| (&file.path, file.size));
        own.chain(self.shared_files().map(|file| (&file.path, file.size))).try_for_each(|(path, size)| {
            let found = size_of(&folder.join(path));
            compare(folder, Path::new(path), size, found)
        })
    }

    /// Compares files with their sizes and checksums, those that are `meant`, and the folder with the list: nothing may
    /// be missing and nothing may have come.
    pub(crate) fn verify(&self, folder: &Path, meant: impl Fn(&Path) -> bool) -> Result<()> {
        let found = list_files(folder)?;
        let links: Vec<PathBuf> = layout::links(self.chain.len()).map(|(link, _)| link).collect();
        let listed = |path: &Path| {
            self.files.iter().any(|file| Path::new(&file.path) == path)
                || self.shared_files().any(|file| Path::new(&file.path) == path)
                || links.iter().any(|link| link == path)
        };
        if let Some(stranger) = found.iter().find(|path| !listed(path)) {
            return Err(damaged_file(folder, stranger, "is not part of the checkpoint"));
        }
        for file in &self.files {
            let path = Path::new(&file.path);
            if !found.iter().any(|known| known == path) {
                return Err(damaged_file(folder, path, "is missing"));
            }
            if !meant(path) {
                continue;
            }
            let now = describe(folder, path)?;
            if now.size != file.size {
                return Err(wrong_size(folder, path, file.size, now.size.0));
            }
            if now.xxh3_128 != file.xxh3_128 {
                return Err(damaged_file(folder, path, "has another checksum than when it was written"));
            }
        }
        chain::verify(folder, self, meant)
    }
}

/// The text of a manifest's file, with the checksum in it.
pub(crate) fn enveloped(manifest: String) -> serde_json::Result<String> {
    let manifest = RawValue::from_string(manifest)?;
    let xxh3_128 = hex(xxhash_rust::xxh3::xxh3_128(manifest.get().as_bytes()));
    serde_json::to_string(&Envelope { xxh3_128, manifest })
}

/// The text of the manifest in a checkpoint's folder.
pub(super) fn read_text(folder: &Path) -> Result<String> {
    read_bounded(&folder.join(layout::MANIFEST))
}

/// Understands the text of a manifest, as much of it as is asked for, and checks it against its own checksum.
pub(crate) fn parse<'a, T: Deserialize<'a> + Versioned>(folder: &Path, text: &'a str) -> Result<T> {
    let damaged = |what: &str| {
        Error::new(ErrorKind::Damaged, format!("{}: {what}", folder.join(layout::MANIFEST).display()))
            .with_hint("use another checkpoint; this one can't be trusted")
    };
    let is_right = |raw: &str, checksum: &str| hex(xxhash_rust::xxh3::xxh3_128(raw.as_bytes())) == checksum;
    let as_written = opened(text).filter(|(checksum, raw)| is_right(raw, checksum));
    let raw = match as_written {
        Some((_, raw)) => raw,
        None => {
            let envelope: Envelope<&RawValue> =
                serde_json::from_str(text).map_err(|source| damaged("not a manifest").with_source(source))?;
            let raw = envelope.manifest.get();
            if !is_right(raw, &envelope.xxh3_128) {
                return Err(damaged("its checksum is wrong"));
            }
            raw
        }
    };
    let parsed = serde_json::from_str::<T>(raw);
    // A later version may have fields that this one doesn't know, and lack some that it does.
    let version = match &parsed {
        Ok(parsed) => parsed.format_version(),
        Err(_) => {
            let only: OnlyVersion =
                serde_json::from_str(raw).map_err(|source| damaged("no version").with_source(source))?;
            only.format_version
        }
    };
    if version != FORMAT_VERSION {
        let path = folder.join(layout::MANIFEST);
        let text =
            format!("{}: format version {version}, but this selfdump reads {FORMAT_VERSION}", path.display());
        return Err(
            Error::new(ErrorKind::Damaged, text).with_hint("use the version of selfdump that wrote it")
        );
    }
    parsed.map_err(|source| damaged("not a manifest of this version").with_source(source))
}

/// Checksum and manifest of an envelope that stands as it is written here, found without reading what is between: the
/// checksum tells whether it is so. Lists of thousands take half as long for it.
fn opened(text: &str) -> Option<(&str, &str)> {
    let (checksum, rest) = text.strip_prefix("{\"xxh3_128\":\"")?.split_once("\",\"manifest\":")?;
    Some((checksum, rest.strip_suffix('}')?))
}

/// What every version of a manifest has.
#[derive(Deserialize)]
struct OnlyVersion {
    format_version: u32,
}

/// Compares the size of a file with what was found.
pub(super) fn compare(folder: &Path, file: &Path, size: Bytes, found: io::Result<u64>) -> Result<()> {
    match found {
        Ok(found) if found == size.0 => Ok(()),
        Ok(found) => Err(wrong_size(folder, file, size, found)),
        Err(source) => Err(damaged_file(folder, file, "can't be found").with_source(source)),
    }
}

fn wrong_size(folder: &Path, file: &Path, size: Bytes, found: u64) -> Error {
    damaged_file(folder, file, &format!("has {found} bytes instead of {}", size.0))
}

pub(super) fn damaged_file(folder: &Path, file: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("{} {what}", folder.join(file).display()))
        .with_hint("use another checkpoint; this one can't be trusted")
}

/// Every file of a checkpoint but the manifest, by path in its folder, in order.
pub(super) fn list_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        for entry in fs::read_dir(&path).map_err(|source| Error::io("read", &path, source))? {
            let entry = entry.map_err(|source| Error::io("read", &path, source))?;
            let name = below.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(name),
                _ if name == Path::new(layout::MANIFEST) => {}
                _ => files.push(name),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What is told of a file that was read to its end.
pub(super) fn entry(file: &Path, size: Bytes, hash: &Xxh3) -> FileEntry {
    FileEntry { path: file.to_string_lossy().into_owned(), size, xxh3_128: hex(hash.digest128()) }
}

/// A file's size and checksum; those of its text for a link to a folder, as one leads from images to those that they build on.
pub(super) fn describe(folder: &Path, file: &Path) -> Result<FileEntry> {
    let path = folder.join(file);
    let read = if path.is_dir() { link_checksum(&path) } else { checksum(&path) };
    let (size, hash) = read.map_err(|source| Error::io("read", &path, source))?;
    Ok(entry(file, Bytes(size), &hash))
}

fn size_of(path: &Path) -> io::Result<u64> {
    let found = fs::metadata(path)?;
    if found.is_dir() { Ok(fs::symlink_metadata(path)?.len()) } else { Ok(found.len()) }
}

fn link_checksum(link: &Path) -> io::Result<(u64, Xxh3)> {
    let target = fs::read_link(link)?;
    let (text, mut hash) = (target.as_os_str().as_bytes(), Xxh3::new());
    hash.update(text);
    Ok((text.len() as u64, hash))
}

fn checksum(path: &Path) -> io::Result<(u64, Xxh3)> {
    const MOST: u64 = 256 << 10;
    let mut file = File::open(path)?;
    // Most files are small: room for more than they hold would be mapped and unmapped for each.
    let mut block = vec![0; file.metadata()?.len().clamp(1 << 10, MOST) as usize];
    let (mut hash, mut size) = (Xxh3::new(), 0);
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok((size, hash)),
            Ok(count) => {
                size += count as u64;
                hash.update(&block[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(checksum: u128) -> String {
    format!("{checksum:032x}")
}

fn read_bounded(path: &Path) -> Result<String> {
    /// Most are smaller, and are read at once.
    const MOST: usize = 16 << 10;
    let read = || -> io::Result<String> {
        let mut text = String::with_capacity(MOST);
        File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Damaged, format!("{} can't be read", path.display()))
                .with_hint("use another checkpoint; this one can't be trusted")
                .with_source(source)
        }
        _ => Error::io("read", path, source),
    })
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
