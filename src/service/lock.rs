//! The folder of the images, which belongs to the service as long as CRIU writes into it.
//!
//! It is the user's, and so are the files that CRIU makes, since CRIU acts as the user. But the folder's owner is root
//! meanwhile, and those who may enter it are a group that only this CRIU is in: nobody else can open, replace or link a
//! file in it, with descriptors from before neither, as what may be done in a folder is looked up anew each time.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::PoisonError;

use super::journal::{Journal, Line};
use super::{Service, audit};
use crate::criu::request::{Refusal, Why};
use crate::store::layout;
use crate::sys::folder::{Held, Look};

/// Whose a folder is when it isn't locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// What of a locked folder the user gets.
pub(super) enum Keep {
    /// Everything, which was looked through.
    All,
    /// CRIU's log, which tells why there is nothing else.
    Log,
    Nothing,
}

/// A locked folder. It has to be given back.
#[derive(Debug)]
#[must_use = "a locked folder is given back"]
pub(super) struct Locked {
    pub(super) folder: Held,
    pub(super) owner: Owner,
    line: Line,
}

impl Locked {
    /// Locks a folder of `user`'s. Where it can't be used it is left as it was.
    pub(super) fn take(service: &Service, folder: Held, user: u32) -> Result<Locked, Refusal> {
        // Two conversations may have been given the same one. Whoever comes second finds it locked, and doesn't give back
        // what is the other's.
        let _alone = service.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = ensure_usable(&folder, user)?;
        let line = note(&service.journal, &folder)?;
        let locked = Locked { folder, owner, line };
        match locked.close(service.group) {
            Ok(()) => Ok(locked),
            Err(refusal) => {
                // What was put into it while it was being locked is the user's own.
                let opened = locked.folder.set_mode(0o700);
                let opened = opened.and_then(|()| locked.folder.give_to(owner.user, owner.group));
                locked.end(opened);
                Err(refusal)
            }
        }
    }

    fn close(&self, group: u32) -> Result<(), Refusal> {
        let closed = self.folder.give_to(0, group).and_then(|()| self.folder.remove_access_lists());
        // The mode comes last: until then it is open to nobody but the user that owned it.
        let look = closed.and_then(|()| self.folder.set_mode(0o770)).and_then(|()| self.folder.look());
        let look = look.map_err(|error| failed("lock the folder", &error))?;
        if (look.user, look.group, look.mode) != (0, group, 0o770) {
            return Err(Refusal::new(Why::Failed, "the folder's file system doesn't let it be locked"));
        }
        ensure_empty(&self.folder)
    }

    /// Gives it back to its user.
    pub(super) fn give_back(self, keep: &Keep) {
        let given = give_back(&self.folder, self.owner, keep);
        self.end(given);
    }

    fn end(self, given: io::Result<()>) {
        match given {
            Ok(()) => self.line.cross_out(),
            // It stays in the journal, for the next service.
            Err(error) => {
                audit::trouble(&format!("can't give a folder of user {} back: {error}", self.owner.user))
            }
        }
    }
}

/// Looks whether images of a program of `user`'s can be put into a folder; whose it is.
pub(super) fn ensure_usable(folder: &Held, user: u32) -> Result<Owner, Refusal> {
    let look = ensure_owned(folder, user)?;
    ensure_empty(folder)?;
    Ok(Owner { user, group: look.group })
}

/// Looks whether a folder is `user`'s and nobody else's.
pub(super) fn ensure_owned(folder: &Held, user: u32) -> Result<Look, Refusal> {
    let look = folder.look().map_err(|error| failed("look at the folder", &error))?;
    if look.user != user {
        return Err(Refusal::forbidden(format!("the folder belongs to user {}", look.user)));
    }
    if look.mode & 0o077 != 0 {
        return Err(Refusal::forbidden(format!("the folder is open to others (mode {:o})", look.mode)));
    }
    if folder.is_made_up().map_err(|error| failed("look at the folder", &error))? {
        return Err(Refusal::forbidden("the folder's file system is a program's (FUSE)"));
    }
    Ok(look)
}

fn ensure_empty(folder: &Held) -> Result<(), Refusal> {
    let names = folder.names().map_err(|error| failed("read the folder", &error))?;
    match names.is_empty() {
        true => Ok(()),
        false => Err(Refusal::forbidden("the folder isn't empty")),
    }
}

fn note(journal: &Journal, folder: &Held) -> Result<Line, Refusal> {
    let noted = folder.look().and_then(|look| journal.note(folder, look));
    noted.map_err(|error| failed("write down that the folder is locked", &error))
}

pub(super) fn failed(doing: &str, error: &io::Error) -> Refusal {
    let why = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Why::NoSpace,
        _ => Why::Failed,
    };
    Refusal::new(why, format!("can't {doing}: {error}"))
}

/// Gives a locked folder back to its owner, with what is kept and nothing else.
pub(super) fn give_back(folder: &Held, owner: Owner, keep: &Keep) -> io::Result<()> {
    for name in folder.names()? {
        match is_kept(folder, &name, owner, keep)? {
            true => folder.file(&name)?.set_permissions(Permissions::from_mode(0o600))?,
            false => folder.remove(&name)?,
        }
    }
    // As long as it is root's nobody else can set its mode.
    folder.set_mode(0o700)?;
    folder.give_to(owner.user, owner.group)
}

fn is_kept(folder: &Held, name: &OsString, owner: Owner, keep: &Keep) -> io::Result<bool> {
    match keep {
        Keep::All => Ok(true),
        Keep::Nothing => Ok(false),
        Keep::Log if name != OsStr::new(layout::DUMP_LOG) => Ok(false),
        Keep::Log => Ok(folder.file(name)?.metadata()?.uid() == owner.user),
    }
}
