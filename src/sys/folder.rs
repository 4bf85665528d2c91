//! What is done in an open folder: whatever its path leads to by now, it is this folder.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};

/// An open folder, which nobody else has a part in: neither its position is shared, nor is it opened for others.
#[derive(Debug)]
pub(crate) struct Held(File);

/// What tells a folder from every other, and who may do what in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) mode: u32,
}

impl Held {
    /// The folder behind a descriptor that somebody else may have as well. What is no folder is an error.
    pub(crate) fn behind(descriptor: BorrowedFd<'_>) -> io::Result<Held> {
        open(&PathBuf::from(format!("/proc/self/fd/{}/.", descriptor.as_raw_fd())))
    }

    /// The folder at a path, which may not end in a link.
    pub(crate) fn at(path: &Path) -> io::Result<Held> {
        open(path)
    }

    pub(crate) fn look(&self) -> io::Result<Look> {
        let about = self.0.metadata()?;
        Ok(Look {
            device: about.dev(),
            inode: about.ino(),
            user: about.uid(),
            group: about.gid(),
            mode: about.mode() & 0o7777,
        })
    }

    /// Where it is now.
    pub(crate) fn path(&self) -> io::Result<PathBuf> {
        fs::read_link(self.link())
    }

    /// The path that leads to it as long as it is held, in this process.
    pub(crate) fn link(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// The path, in this process, of something in it.
    pub(crate) fn within(&self, name: &OsStr) -> PathBuf {
        self.link().join(name)
    }

    /// Whether a program of somebody's is its file system (FUSE), which can tell everybody something else.
    pub(crate) fn is_made_up(&self) -> io::Result<bool> {
        Ok(fstatfs(&self.0)?.filesystem_type() == FUSE_SUPER_MAGIC)
    }

    /// What is in it, by name.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(self.link())?;
        let mut names: Vec<OsString> =
            entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    pub(crate) fn give_to(&self, user: u32, group: u32) -> io::Result<()> {
        fchown(&self.0, Some(user), Some(group))
    }

    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.0.set_permissions(fs::Permissions::from_mode(mode))
    }

    /// Takes away the lists that let more users in than the mode does, into it and into what is made in it.
    pub(crate) fn remove_access_lists(&self) -> io::Result<()> {
        for list in [c"system.posix_acl_access", c"system.posix_acl_default"] {
            // SAFETY: the name is a C string, and the descriptor is open.
            match Errno::result(unsafe { libc::fremovexattr(self.0.as_raw_fd(), list.as_ptr()) }) {
                Ok(_) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Opens a file in it to be read. A link is an error, and a pipe doesn't wait for its writer.
    pub(crate) fn file(&self, name: &OsStr) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.within(name))
    }

    /// Makes a file of somebody's, which nobody else can read.
    pub(crate) fn create_for(&self, name: &str, contents: &[u8], user: u32, group: u32) -> io::Result<()> {
        let path = self.within(OsStr::new(name));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(contents)?;
        fchown(&file, Some(user), Some(group))
    }

    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_file(self.within(name))
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(path: &Path) -> io::Result<Held> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    Ok(Held(OpenOptions::new().read(true).custom_flags(flags).open(path)?))
}
