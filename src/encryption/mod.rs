//! Checkpoints that only a key can open: recipients, identities, and files in the format of age.
//!
//! A *recipient* (`age1…`) is a public key, and all that a program needs; an *identity* is the secret one, and all that a
//! restore needs. What is done with files is the store's business. Without the feature `encrypt` there are no recipients:
//! a program that is told of one is not installed, instead of writing what anybody can read.

#[cfg(feature = "encrypt")]
#[path = "age.rs"]
mod engine;
#[cfg(not(feature = "encrypt"))]
#[path = "absent.rs"]
mod engine;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// The largest file of keys that is read. One of a thousand has less than 200 KiB.
const LARGEST: u64 = 1 << 20;

/// How both are made, for whoever has something else.
const HOW_TO: &str =
    "`age-keygen -o key.txt` makes an identity and prints its recipient (`Public key: age1…`)";

/// Somebody who can read a checkpoint: the public key of an identity of age, `age1…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(String);

impl FromStr for Recipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Recipient> {
        if text.starts_with("AGE-") {
            // It is not to be spread any further by saying it again.
            return Err(Error::new(ErrorKind::Config, "a secret key was named as a recipient")
                .with_hint("name its public key, which begins with age1: `age-keygen -y FILE` prints it; and see whether the secret one has been seen by others"));
        }
        engine::check_recipient(text)?;
        Ok(Recipient(text.to_owned()))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Recipient {
    /// Those of a file as `age -R` takes it: one in a line; empty lines and those that begin with `#` count for nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where there is none in it, or a line that is none.
    pub fn in_file(path: &Path) -> Result<Vec<Recipient>> {
        let file = File::open(path).map_err(|source| Error::io("open", path, source))?;
        let found: Vec<Recipient> =
            lines(file, path)?.iter().map(|line| line.parse()).collect::<Result<_>>()?;
        match found.is_empty() {
            true => {
                Err(Error::new(ErrorKind::Config, format!("there is no recipient in {}", path.display()))
                    .with_hint(HOW_TO))
            }
            false => Ok(found),
        }
    }

    /// Those of a setting's text: recipients, and files of them, which have a slash in their paths, with blanks between.
    pub(crate) fn in_text(text: &str) -> Result<Vec<Recipient>> {
        let mut found = Vec::new();
        for word in text.split_whitespace() {
            match word.contains('/') {
                true => found.extend(Recipient::in_file(Path::new(word))?),
                false => found.push(word.parse()?),
            }
        }
        Ok(found)
    }
}

/// The secret keys that open checkpoints.
#[derive(Clone, Default)]
pub struct Identities(Vec<engine::Key>);

impl fmt::Debug for Identities {
    /// Their public halves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.recipients()).finish()
    }
}

impl Identities {
    /// Those of files as `age-keygen` makes them, which nobody else may be able to read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Permission`] for a file that others can read, [`ErrorKind::Config`] for one that holds no identity.
    pub fn read<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<Identities> {
        let mut keys = Vec::new();
        for path in files {
            let path = path.as_ref();
            let file = File::open(path).map_err(|source| Error::io("open", path, source))?;
            ensure_private(&file, path)?;
            let lines = lines(file, path)?;
            let found: Vec<engine::Key> = lines
                .iter()
                .map(|line| engine::key(line))
                .collect::<Result<Option<_>>>()?
                .unwrap_or_default();
            if found.is_empty() {
                return Err(no_identity(path, &lines));
            }
            keys.extend(found);
        }
        Ok(Identities(keys))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their public halves.
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().map(engine::public).collect()
    }
}

/// A file through a pipe (`--identity <(pass show key)`) has nobody's mode.
fn ensure_private(file: &File, path: &Path) -> Result<()> {
    let about = file.metadata().map_err(|source| Error::io("look at", path, source))?;
    if !about.is_file() || about.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Permission,
        format!(
            "{} holds a secret key, and others can read it (mode {:03o})",
            path.display(),
            about.mode() & 0o777
        ),
    )
    .with_hint(format!(
        "close it: chmod 600 {}; what others have read meanwhile stays known to them",
        path.display()
    )))
}

fn no_identity(path: &Path, lines: &[String]) -> Error {
    let is_locked = lines
        .first()
        .is_some_and(|line| line.starts_with("age-encryption.org/") || line.starts_with("-----BEGIN AGE"));
    let hint = match is_locked {
        true => "it is itself encrypted: pass on what is in it, as in --identity <(age -d key.age)",
        false => {
            "an identity is a line that begins with AGE-SECRET-KEY-1; keys of ssh and of plugins are none here; `age-keygen -o key.txt` makes one"
        }
    };
    Error::new(ErrorKind::Config, format!("there is no identity in {}", path.display())).with_hint(hint)
}

/// The lines that count.
fn lines(file: File, path: &Path) -> Result<Vec<String>> {
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text).map_err(|source| Error::io("read", path, source))?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// Encrypts all that can be read into a file that isn't there yet.
pub(crate) fn encrypt_to(recipients: &[Recipient], from: impl Read, to: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    engine::encrypt(recipients, from, file)
}

/// Why something isn't decrypted.
#[derive(Debug)]
#[cfg_attr(not(feature = "encrypt"), expect(dead_code, reason = "nothing gets so far"))]
pub(crate) enum Undecrypted {
    /// It is for none of these identities.
    ForOthers,
    /// It isn't what was encrypted.
    Damaged(Box<dyn std::error::Error + Send + Sync>),
    /// It can't be read, or what is in it can't be written.
    Io(io::Error),
}

/// Decrypts a file into one that isn't there yet.
pub(crate) fn decrypt_to(identities: &Identities, from: &Path, to: &Path) -> Result<(), Undecrypted> {
    let open = || File::open(from);
    let make = || fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let (from, to) = open().and_then(|from| Ok((from, make()?))).map_err(Undecrypted::Io)?;
    engine::decrypt(&identities.0, from, to)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
