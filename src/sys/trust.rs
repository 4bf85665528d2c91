//! Whether somebody else can have put there what a path leads to.
//!
//! A path is walked from the root by descriptors, a component at a time, and no link is followed that isn't looked at
//! first. Where every folder on the way is root's or ours and nobody else may write to it (or only with the sticky bit,
//! as in /tmp, where entries are their owners'), nobody else can ever exchange a component of it: what was found so
//! stays so, and what is opened by the same path afterwards is what was looked at.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::process;

/// As many links as the kernel follows in a path (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// Who owns files whose owner is unknown to a user namespace (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;

/// What others may have a hand in, and so can't be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Distrust {
    pub(crate) path: PathBuf,
    pub(crate) owner: u32,
    /// The permissions, with the sticky bit.
    pub(crate) mode: u32,
    pub(crate) why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is another user's.
    Owner,
    /// Others may write to it.
    Writable,
    /// It is a link where there must be none.
    Link,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Distrust { path, owner, mode, why } = self;
        let path = path.display();
        match why {
            Why::Owner => write!(f, "{path} is user {owner}'s (mode {mode:04o}), and we are user {}", us()),
            Why::Writable => {
                write!(f, "others than its owner, user {owner}, can write to {path} (mode {mode:04o})")
            }
            Why::Link => write!(f, "{path} is a symbolic link of user {owner}'s"),
        }
    }
}

/// Why a path isn't one to be trusted.
#[derive(Debug)]
pub(crate) enum Refusal {
    Distrust(Distrust),
    Io(io::Error),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal::Io(errno.into())
    }
}

/// An open folder that only root and we can write to, and that nobody else can put another one in the place of.
pub(crate) struct Trusted {
    folder: OwnedFd,
    path: PathBuf,
}

/// Sees that a file, a socket say, is root's or ours, and that nobody else can put another one in its place. A socket is
/// written to by whoever connects to it; of other files nobody else may write to any.
pub(crate) fn file(path: &Path) -> Result<(), Refusal> {
    walk(path, Goal::File).map(drop)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Folder,
    File,
}

/// The folder that a path leads to, or where the goal is a file, the one that it lies in.
fn walk(path: &Path, goal: Goal) -> Result<Trusted, Refusal> {
    let mut at = Trusted::root()?;
    let mut left: VecDeque<OsString> = names(&std::path::absolute(path).map_err(Refusal::Io)?).collect();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        let found = fstatat(&at.folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if is_a(&found, SFlag::S_IFLNK) {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::ELOOP.into());
            }
            at.judge(&name, &found, is_ours_or_roots(&found).then_some(()).ok_or(Why::Link))?;
            let target = PathBuf::from(readlinkat(&at.folder, name.as_os_str())?);
            if target.is_absolute() {
                at = Trusted::root()?;
            }
            names(&target).rev().for_each(|name| left.push_front(name));
        } else if goal == Goal::File && left.is_empty() {
            let is_closed = is_a(&found, SFlag::S_IFSOCK) || found.st_mode & 0o022 == 0;
            at.judge(&name, &found, only(is_ours_or_roots(&found), is_closed))?;
        } else {
            at = at.enter(&name)?;
        }
    }
    Ok(at)
}

impl Trusted {
    /// Walks to a folder. Links on the way are followed where they are root's or ours.
    pub(crate) fn open(path: &Path) -> Result<Trusted, Refusal> {
        walk(path, Goal::Folder)
    }

    /// Goes into a folder in it that is ours alone: no link, and nobody else's.
    pub(crate) fn enter_ours(&self, name: &OsStr) -> Result<Trusted, Refusal> {
        let found = fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        self.judge(name, &found, (!is_a(&found, SFlag::S_IFLNK)).then_some(()).ok_or(Why::Link))?;
        let inside = self.enter(name)?;
        let found = fstat(&inside.folder)?;
        self.judge(name, &found, only(found.st_uid == us(), found.st_mode & 0o022 == 0))?;
        Ok(inside)
    }

    fn root() -> Result<Trusted, Refusal> {
        let folder = nix::fcntl::open("/", flags(), Mode::empty())?;
        Trusted { folder, path: PathBuf::from("/") }.judged()
    }

    /// The next folder on the way. It is opened before it is looked at, so that it is that one.
    fn enter(&self, name: &OsStr) -> Result<Trusted, Refusal> {
        let folder = openat(&self.folder, name, flags(), Mode::empty())?;
        Trusted { folder, path: self.path.join(name) }.judged()
    }

    fn judged(self) -> Result<Trusted, Refusal> {
        let found = fstat(&self.folder)?;
        // Nobody knows who that is; a user namespace in which root has no number is made of such folders.
        let is_nobodys = found.st_uid == NOBODY && !knows_everybody();
        let by_others = match found.st_mode & Mode::S_ISVTX.bits() {
            // A group with its user's number is that user's own, on all systems that make one for each.
            0 if found.st_gid == found.st_uid => found.st_mode & 0o002,
            0 => found.st_mode & 0o022,
            _ => 0,
        };
        let is_known = is_ours_or_roots(&found) || is_nobodys;
        match only(is_known, by_others == 0) {
            Ok(()) => Ok(self),
            Err(why) => Err(distrust(self.path, &found, why)),
        }
    }

    fn judge(&self, name: &OsStr, found: &FileStat, verdict: Result<(), Why>) -> Result<(), Refusal> {
        verdict.map_err(|why| distrust(self.path.join(name), found, why))
    }
}

/// What is to be said of something that may only belong to certain users, and only be written to by them.
fn only(by_owner: bool, by_mode: bool) -> Result<(), Why> {
    match (by_owner, by_mode) {
        (false, _) => Err(Why::Owner),
        (_, false) => Err(Why::Writable),
        _ => Ok(()),
    }
}

fn distrust(path: PathBuf, found: &FileStat, why: Why) -> Refusal {
    Refusal::Distrust(Distrust { path, owner: found.st_uid, mode: found.st_mode & 0o7777, why })
}

fn flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// The components of a path, below the root or below where a relative one begins.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| part.as_os_str().to_owned())
}

fn is_a(found: &FileStat, kind: SFlag) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

fn us() -> u32 {
    process::user().1
}

fn is_ours_or_roots(found: &FileStat) -> bool {
    found.st_uid == 0 || found.st_uid == us()
}

/// Whether our user namespace has a number for every user.
fn knows_everybody() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn why(refusal: Result<Trusted, Refusal>) -> Option<Why> {
        match refusal {
            Ok(_) => None,
            Err(Refusal::Distrust(distrust)) => Some(distrust.why),
            Err(Refusal::Io(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_folder_is_trusted_if_nobody_else_can_write_on_the_way_to_it() {
        let lab = tempfile::tempdir().unwrap();
        let (above, folder) = (lab.path().join("above"), lab.path().join("above/folder"));
        fs::create_dir_all(&folder).unwrap();
        for (mode, expected) in [
            (0o700, None),
            (0o755, None),
            (0o1777, None),
            (0o777, Some(Why::Writable)),
            (0o702, Some(Why::Writable)),
        ] {
            set_mode(&above, mode);
            assert_eq!(why(Trusted::open(&folder)), expected, "{mode:o}");
        }
    }

    #[test]
    fn a_link_is_followed_as_its_target_is_judged() {
        let lab = tempfile::tempdir().unwrap();
        fs::create_dir_all(lab.path().join("open/folder")).unwrap();
        set_mode(&lab.path().join("open"), 0o777);
        fs::create_dir_all(lab.path().join("closed/folder")).unwrap();
        for (target, expected) in
            [("open/folder", Some(Why::Writable)), ("closed/folder", None), ("closed/../closed", None)]
        {
            let link = lab.path().join("link");
            let _ = fs::remove_file(&link);
            symlink(target, &link).unwrap();
            assert_eq!(why(Trusted::open(&link)), expected, "{target}");
            assert_eq!(
                why(Trusted::open(lab.path()).unwrap().enter_ours("link".as_ref())),
                Some(Why::Link),
                "one that has to be ours is none"
            );
        }
        symlink("loop", lab.path().join("loop")).unwrap();
        assert!(matches!(Trusted::open(&lab.path().join("loop")), Err(Refusal::Io(_))));
    }

    #[test]
    fn what_is_another_user_s_is_not_trusted() {
        let lab = tempfile::tempdir().unwrap();
        let (folder, file) = (lab.path().join("folder"), lab.path().join("file"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        super::file(&file).unwrap();
        // Only root can give files away; for others what root has is not theirs.
        let other = if process::is_root() { 12345 } else { 0 };
        let (folder, file) = match other {
            0 => (PathBuf::from("/usr"), PathBuf::from("/usr/bin/env")),
            _ => {
                [&folder, &file].iter().for_each(|path| chown(path, Some(other), Some(other)).unwrap());
                (folder, file)
            }
        };
        let above = Trusted::open(folder.parent().unwrap()).unwrap();
        assert_eq!(why(above.enter_ours(folder.file_name().unwrap())), Some(Why::Owner));
        if other != 0 {
            assert_eq!(why(Trusted::open(&folder)), Some(Why::Owner));
            assert!(super::file(&file).is_err());
        }
    }
}
