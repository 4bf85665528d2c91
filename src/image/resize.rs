//! Images that differ in one thing: the sizes that regular files are expected to have.
//!
//! CRIU refuses a restore where a file's size isn't the one in `files.img`. A file that is to stay as it is needs
//! the size that it has now there. The rest of that image is taken over byte by byte, fields that are not known here
//! included; all other images are links to those of the checkpoint, which isn't touched.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use prost::DecodeError;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::descriptor;
use super::file::{Reader, Writer};
use super::kind::Image;
use super::wire::fields;
use crate::error::{Error, Result};
use crate::frozen::Bytes;

/// The numbers of the fields on the way to a size: the regular file in an open file, its name, its size.
const REGULAR: u32 = 3;
const NAME: u32 = 6;
const SIZE: u32 = 8;

/// Makes the folder `to`, with images like those in `images` but for these sizes.
pub(crate) fn with_sizes(images: &Path, to: &Path, sizes: &BTreeMap<PathBuf, Bytes>) -> Result<()> {
    fs::create_dir(to).map_err(|source| Error::io("make", to, source))?;
    let entries = fs::read_dir(images).map_err(|source| Error::io("read", images, source))?;
    let changed = Image::FILES.path(to);
    for entry in entries {
        let entry = entry.map_err(|source| Error::io("read", images, source))?;
        let link = to.join(entry.file_name());
        if link != changed {
            symlink(entry.path(), &link).map_err(|source| Error::io("make the link", &link, source))?;
        }
    }
    write(images, &changed, sizes)
}

/// Gives images that are nobody else's these sizes.
#[cfg(feature = "service")]
pub(crate) fn set_sizes(images: &Path, sizes: &BTreeMap<PathBuf, Bytes>) -> Result<()> {
    let path = Image::FILES.path(images);
    let aside = path.with_extension("new");
    write(images, &aside, sizes)?;
    fs::rename(&aside, &path).map_err(|source| Error::io("replace", &path, source))
}

fn write(images: &Path, path: &Path, sizes: &BTreeMap<PathBuf, Bytes>) -> Result<()> {
    let failed = |source| Error::io("write", path, source);
    let mut out = fs::File::create_new(path).map_err(failed)?;
    let mut image = Writer::new(Image::FILES);
    let mut reader = Reader::open(Image::FILES, images)?;
    while let Some(message) = reader.next_bytes()? {
        let message = open_file(&message, sizes)
            .map_err(|error| Image::FILES.damaged(images, "a message can't be decoded").with_source(error))?;
        image.put(&message);
    }
    out.write_all(image.bytes()).map_err(failed)
}

fn open_file(message: &[u8], sizes: &BTreeMap<PathBuf, Bytes>) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(message.len() + 8);
    for field in fields(message)? {
        match (field.number, field.nested) {
            (REGULAR, Some(nested)) => put_nested(&mut out, REGULAR, &regular_file(nested, sizes)?),
            _ => out.extend(field.bytes),
        }
    }
    Ok(out)
}

fn regular_file(message: &[u8], sizes: &BTreeMap<PathBuf, Bytes>) -> Result<Vec<u8>, DecodeError> {
    let fields = fields(message)?;
    let name = fields.iter().find(|field| field.number == NAME).and_then(|field| field.nested);
    let size = name.and_then(|name| sizes.get(&descriptor::absolute(name)));
    let mut out = Vec::with_capacity(message.len() + 8);
    for field in fields {
        match size.filter(|_| field.number == SIZE) {
            Some(size) => {
                encode_key(SIZE, WireType::Varint, &mut out);
                encode_varint(size.0, &mut out);
            }
            None => out.extend(field.bytes),
        }
    }
    Ok(out)
}

fn put_nested(out: &mut Vec<u8>, number: u32, message: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(message.len() as u64, out);
    out.extend(message);
}

#[cfg(test)]
mod tests {
    use super::super::images::{OpenFile, RegularFile};
    use super::super::testing::Folder;
    use super::*;

    fn regular(id: u32, name: &str, size: Option<u64>) -> OpenFile {
        let file = RegularFile { id, name: name.into(), size, pos: 300, ..Default::default() };
        OpenFile { r#type: 1, id, reg: Some(file), ..Default::default() }
    }

    fn resized(folder: &Folder, sizes: &[(&str, u64)]) -> PathBuf {
        let to = folder.path().join("resized");
        let sizes = sizes.iter().map(|(path, size)| (PathBuf::from(path), Bytes(*size))).collect();
        with_sizes(folder.path(), &to, &sizes).unwrap();
        to
    }

    #[test]
    fn one_size_is_another_and_all_else_is_the_same() {
        let folder = Folder::new();
        folder.write(
            Image::FILES,
            &[
                regular(1, "/a", Some(42)),
                regular(2, "b", Some(7)),
                regular(3, "/c", Some(5)),
                regular(4, "/b", None),
            ],
        );
        std::fs::write(folder.path().join("pages-1.img"), "pages").unwrap();
        let to = resized(&folder, &[("/a", 1 << 40), ("/b", 0)]);
        let read: Vec<OpenFile> = Image::FILES.read_all(&to).unwrap().collect::<Result<_>>().unwrap();
        let expected = [
            regular(1, "/a", Some(1 << 40)),
            regular(2, "b", Some(0)),
            regular(3, "/c", Some(5)),
            regular(4, "/b", None),
        ];
        assert_eq!(read, expected);
        assert_eq!(std::fs::read_to_string(to.join("pages-1.img")).unwrap(), "pages");
    }

    #[test]
    fn fields_that_are_not_known_here_stay() {
        let folder = Folder::new();
        let mut bytes = folder.write(Image::FILES, &[regular(1, "/a", Some(42))]);
        // One more field at the end of the only message: number 1000, a varint.
        let mut unknown = Vec::new();
        encode_key(1000, WireType::Varint, &mut unknown);
        encode_varint(4711, &mut unknown);
        bytes.extend(&unknown);
        let size = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) + unknown.len() as u32;
        bytes[8..12].copy_from_slice(&size.to_le_bytes());
        folder.overwrite(Image::FILES, &bytes);
        let to = resized(&folder, &[("/a", 43)]);
        let written = std::fs::read(to.join("files.img")).unwrap();
        assert!(written.ends_with(&unknown));
        assert_eq!(written.len(), bytes.len());
    }

    #[test]
    fn a_damaged_image_is_an_error() {
        let folder = Folder::new();
        let mut bytes = folder.write(Image::FILES, &[regular(1, "/a", Some(42))]);
        let last = bytes.len() - 1;
        bytes.truncate(last);
        let size = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) - 1;
        bytes[8..12].copy_from_slice(&size.to_le_bytes());
        folder.overwrite(Image::FILES, &bytes);
        let to = folder.path().join("resized");
        let error = with_sizes(folder.path(), &to, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Damaged);
    }
}
