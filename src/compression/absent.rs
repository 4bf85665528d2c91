//! Without the feature `compress`: nothing is compressed, and what others have compressed isn't read.

use std::convert::Infallible;
use std::fs::File;
use std::io;

use crate::error::{Error, ErrorKind, Result};

fn absent() -> Error {
    Error::new(
        ErrorKind::Config,
        "this program's copy of selfdump can't compress: it was built without the feature `compress`",
    )
    .with_hint(
        "build it with that (selfdump = { features = [\"compress\"] }), or leave SELFDUMP_COMPRESS unset",
    )
}

pub(super) fn check() -> Result<()> {
    Err(absent())
}

/// None can be made.
pub(crate) struct Writer(Infallible);

impl Writer {
    pub(super) fn new(_: File, _: u8) -> io::Result<Writer> {
        Err(io::Error::other(absent()))
    }

    pub(super) fn write(&mut self, _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self.0 {}
    }
}

/// None can be made.
pub(crate) struct Reader(Infallible);

impl Reader {
    pub(super) fn new(_: File) -> io::Result<Reader> {
        Err(io::Error::other(absent()))
    }

    pub(super) fn size(&self) -> u64 {
        match self.0 {}
    }

    pub(super) fn read_exact_at(&mut self, _: &mut [u8], _: u64) -> io::Result<()> {
        match self.0 {}
    }
}
