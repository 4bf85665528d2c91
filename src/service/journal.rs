//! Which folders are locked, on disk: a service that is killed can give none back, and the next one does.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lock::{self, Owner};
use super::{audit, own_folder};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::folder::{Held, Look};
use crate::sys::{disk, procfs};

/// The entries' folder below the service's state, and the lock that one service alone has.
const ENTRIES: &str = "locked";
const ONLY_ONE: &str = "service.lock";

/// The journal of one service.
pub(super) struct Journal {
    entries: PathBuf,
    _only_one: disk::Lock,
}

/// A folder that is locked, as it stands in the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Its path when it was locked, in bytes.
    path: Vec<u8>,
    device: u64,
    inode: u64,
    user: u32,
    group: u32,
}

/// An entry that is to be crossed out when its folder is given back.
#[derive(Debug)]
pub(super) struct Line(PathBuf);

impl Journal {
    pub(super) fn open(state: &Path) -> Result<Journal> {
        let entries = state.join(ENTRIES);
        own_folder(state)?;
        own_folder(&entries)?;
        let path = state.join(ONLY_ONE);
        let only_one = disk::lock(&path).map_err(|source| Error::io("lock", &path, source))?;
        let only_one = only_one.ok_or_else(|| {
            Error::new(ErrorKind::Io, format!("another service works with {}", state.display()))
                .with_hint("stop that one first, or name another folder with --state")
        })?;
        Ok(Journal { entries, _only_one: only_one })
    }

    /// Writes down that a folder is going to be locked. It is on the disk when this returns.
    pub(super) fn note(&self, folder: &Held, look: Look) -> std::io::Result<Line> {
        let entry = Entry {
            path: folder.path()?.into_os_string().into_vec(),
            device: look.device,
            inode: look.inode,
            user: look.user,
            group: look.group,
        };
        let path = self.entries.join(procfs::fresh_id()?);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&serde_json::to_vec(&entry)?)?;
        file.sync_all()?;
        disk::sync(&self.entries)?;
        Ok(Line(path))
    }

    /// Gives back what an earlier service has left locked.
    pub(super) fn mend(&self) {
        let entries = fs::read_dir(&self.entries).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            match mend(&path) {
                Ok(folder) => {
                    audit::trouble(&format!("gave back {}, which was left locked", folder.display()))
                }
                Err(why) => audit::trouble(&format!("{}: {why}", path.display())),
            }
            Line(path).cross_out();
        }
    }
}

impl Line {
    pub(super) fn cross_out(self) {
        if let Err(error) = fs::remove_file(&self.0) {
            audit::trouble(&format!("can't remove {}: {error}", self.0.display()));
        }
    }
}

/// The folder that was given back; else why not.
fn mend(entry: &Path) -> Result<PathBuf, String> {
    let text = fs::read(entry).map_err(|error| error.to_string())?;
    // One that was being written when the service was killed: nothing had been locked yet.
    let entry: Entry = serde_json::from_slice(&text).map_err(|error| format!("not whole: {error}"))?;
    let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
    let folder = Held::at(path).map_err(|error| format!("can't open {}: {error}", path.display()))?;
    let look = folder.look().map_err(|error| error.to_string())?;
    // Else it was given back, and the service killed before it could say so; or somebody has moved it away.
    if (look.device, look.inode, look.user) != (entry.device, entry.inode, 0) {
        return Err(format!("{} isn't a folder that is locked", path.display()));
    }
    let owner = Owner { user: entry.user, group: entry.group };
    lock::give_back(&folder, owner, &lock::Keep::Nothing).map_err(|error| error.to_string())?;
    Ok(path.to_owned())
}

/// Reads a small file whole, if it is there.
pub(super) fn read_if_there(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(_) => fs::read(path).map(Some),
    }
}
