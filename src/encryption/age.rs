//! With the feature `encrypt`: the crate `age`.

use std::io::{self, Read, Write};

use age::x25519::{Identity, Recipient};
use age::{DecryptError, Decryptor, Encryptor};

use super::{HOW_TO, Undecrypted};
use crate::error::{Error, ErrorKind, Result};

/// How much is read at once: what age encrypts at once.
const BLOCK: usize = 64 * 1024;

pub(super) type Key = Identity;

fn parse(recipient: &str) -> Result<Recipient> {
    recipient.parse().map_err(|why: &str| {
        Error::new(ErrorKind::Config, format!("{recipient:?} is no recipient of age: {why}"))
            .with_hint(format!("a recipient begins with age1, and a file of recipients has a slash in its path (./team.txt); {HOW_TO}"))
    })
}

pub(super) fn check_recipient(text: &str) -> Result<()> {
    parse(text).map(drop)
}

/// The key in a line; none where it holds something else.
pub(super) fn key(line: &str) -> Result<Option<Key>> {
    Ok(line.parse().ok())
}

pub(super) fn public(key: &Key) -> String {
    key.to_public().to_string()
}

pub(super) fn encrypt(recipients: &[super::Recipient], from: impl Read, to: impl Write) -> io::Result<()> {
    let keys: Vec<Recipient> = recipients
        .iter()
        .map(|recipient| parse(&recipient.0))
        .collect::<Result<_>>()
        .map_err(io::Error::other)?;
    let keys = keys.iter().map(|key| key as &dyn age::Recipient);
    let mut encrypted = Encryptor::with_recipients(keys).map_err(io::Error::other)?.wrap_output(to)?;
    blocks(from, |block| encrypted.write_all(block))??;
    // What stands at the end of the last block tells that it is the last.
    encrypted.finish().map(drop)
}

pub(super) fn decrypt(keys: &[Key], from: impl Read, mut to: impl Write) -> Result<(), Undecrypted> {
    let keys = keys.iter().map(|key| key as &dyn age::Identity);
    let decrypted = Decryptor::new(from).and_then(|encrypted| encrypted.decrypt(keys)).map_err(not_begun)?;
    let written = blocks(decrypted, |block| to.write_all(block)).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Undecrypted::Damaged(error.into()),
        _ => Undecrypted::Io(error),
    })?;
    written.map_err(Undecrypted::Io)
}

fn not_begun(error: DecryptError) -> Undecrypted {
    match error {
        DecryptError::NoMatchingKeys => Undecrypted::ForOthers,
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => Undecrypted::Io(error),
        error => Undecrypted::Damaged(error.into()),
    }
}

/// Hands on all that can be read. The outer error is the reader's, the inner one that of `each`.
fn blocks(mut from: impl Read, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<io::Result<()>> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = match from.read(&mut block) {
            Ok(0) => return Ok(Ok(())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Err(error) = each(&block[..count]) {
            return Ok(Err(error));
        }
    }
}
