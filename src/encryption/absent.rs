//! Without the feature `encrypt`: there are neither recipients nor keys, and who names one is told so.

use std::convert::Infallible;
use std::io::{self, Read, Write};

use super::{Recipient, Undecrypted};
use crate::error::{Error, ErrorKind, Result};

/// None can be made.
pub(super) type Key = Infallible;

fn absent() -> Error {
    Error::new(ErrorKind::Config, "this program's copy of selfdump can't encrypt: it was built without the feature `encrypt`")
        .with_hint("build it with that (selfdump = { features = [\"encrypt\"] }), or leave SELFDUMP_ENCRYPT_TO unset to have checkpoints that whoever reads the disk can read")
}

pub(super) fn check_recipient(_: &str) -> Result<()> {
    Err(absent())
}

pub(super) fn key(_: &str) -> Result<Option<Key>> {
    Err(absent())
}

pub(super) fn public(key: &Key) -> String {
    match *key {}
}

pub(super) fn encrypt(_: &[Recipient], _: impl Read, _: impl Write) -> io::Result<()> {
    Err(io::Error::other(absent()))
}

pub(super) fn decrypt(_: &[Key], _: impl Read, _: impl Write) -> Result<(), Undecrypted> {
    Err(Undecrypted::Io(io::Error::other(absent())))
}
