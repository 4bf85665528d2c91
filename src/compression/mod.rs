//! Files of pages in the seekable format of Zstandard, which its own tools decompress as well.
//!
//! A file is cut into parts, each compressed by itself, with a table of them at its end (`zstd_seekable_compression_format.md`
//! in Zstandard's `contrib/seekable_format`). So a page can be read without all that is before it, as it is when the next
//! checkpoint's pages are compared with it. Without the feature `compress` nothing is compressed: a program that is told
//! to is not installed.

#[cfg(not(feature = "compress"))]
#[path = "absent.rs"]
mod engine;
#[cfg(feature = "compress")]
#[path = "zstd.rs"]
mod engine;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::Result;

/// What stands behind the name of a file that is compressed, as Zstandard's own tools have it.
const SUFFIX: &str = ".zst";

/// How pages of memory are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// As they are; all that is zero takes no room.
    #[default]
    Off,
    /// By Zstandard, from level 1, which takes the least time, to 19.
    Zstd {
        /// The level.
        level: u8,
    },
}

impl Compression {
    /// By Zstandard in the least time.
    pub const ZSTD: Compression = Compression::Zstd { level: 1 };

    /// What a setting says: `off`, `zstd`, or `zstd:LEVEL`.
    pub(crate) fn parse(text: &str) -> Option<Compression> {
        match text.split_once(':') {
            None if text == "off" => Some(Compression::Off),
            None if text == "zstd" => Some(Compression::ZSTD),
            Some(("zstd", level)) => Some(Compression::Zstd { level: level.parse().ok()? }),
            _ => None,
        }
        .filter(Compression::is_possible)
    }

    fn is_possible(&self) -> bool {
        !matches!(self, Compression::Zstd { level } if !(1..=19).contains(level))
    }

    /// Fails where this copy of the library can't do it.
    pub(crate) fn checked(self) -> Result<Compression> {
        if self != Compression::Off {
            engine::check()?;
        }
        match self.is_possible() {
            true => Ok(self),
            false => Err(crate::error::Error::new(
                crate::error::ErrorKind::Config,
                format!("checkpoints can't be compressed so: {self:?}"),
            )
            .with_hint("the levels of Zstandard are 1 to 19")),
        }
    }
}

/// The name that a file has when it is compressed.
pub(crate) fn compressed(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// The name that it had before; none of a file that isn't compressed.
pub(crate) fn plain(name: &str) -> Option<&str> {
    name.strip_suffix(SUFFIX)
}

/// Something that is written to while it is compressed.
pub(crate) struct Compressor(engine::Writer);

impl Compressor {
    /// Into a file, which is empty.
    pub(crate) fn new(file: File, level: u8) -> io::Result<Compressor> {
        engine::Writer::new(file, level).map(Compressor)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes)
    }

    /// Writes the table.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.0.finish()
    }
}

/// A file of pages, whichever way it is stored.
pub(crate) enum Pages {
    Plain(File),
    Compressed(Box<engine::Reader>),
}

impl Pages {
    /// That of this name, or the compressed one in its place.
    pub(crate) fn open(file: &Path) -> io::Result<Pages> {
        match File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let compressed = File::open(compressed(file)).map_err(|_| error)?;
                Ok(Pages::Compressed(Box::new(engine::Reader::new(compressed)?)))
            }
            opened => opened.map(Pages::Plain),
        }
    }

    /// A compressed one by its own name.
    pub(crate) fn open_compressed(file: &Path) -> io::Result<Pages> {
        Ok(Pages::Compressed(Box::new(engine::Reader::new(File::open(file)?)?)))
    }

    /// How many bytes of pages they are.
    pub(crate) fn size(&self) -> io::Result<u64> {
        match self {
            Pages::Plain(file) => file.metadata().map(|found| found.len()),
            Pages::Compressed(reader) => Ok(reader.size()),
        }
    }

    /// Reads what is there from an offset on, in the pages as they are.
    pub(crate) fn read_exact_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Pages::Plain(file) => file.read_exact_at(bytes, offset),
            Pages::Compressed(reader) => reader.read_exact_at(bytes, offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_zstandard() {
        let parsed = ["off", "zstd", "zstd:19"].map(Compression::parse);
        let expected = [Compression::Off, Compression::ZSTD, Compression::Zstd { level: 19 }];
        assert_eq!(parsed, expected.map(Some));
        for wrong in ["", "on", "zstd:0", "zstd:20", "zstd:", "gzip", "zstd:1:2"] {
            assert_eq!(Compression::parse(wrong), None, "{wrong}");
        }
        assert!(Compression::Zstd { level: 0 }.checked().is_err());
        assert_eq!(Compression::Off.checked().unwrap(), Compression::Off);
    }

    #[cfg(not(feature = "compress"))]
    #[test]
    fn without_the_feature_nobody_is_told_that_it_is_compressed() {
        let error = Compression::ZSTD.checked().unwrap_err();
        assert!(error.to_string().contains("without the feature `compress`"), "{error}");
    }
}
