//! A file system in memory, in large pages, that is mounted nowhere.
//!
//! No path leads to it but through the current folder of a process that is there for nothing else, `sleep`, on a leash of
//! ours. So nobody meets it who doesn't look for it, CRIU finds it in no list of mounts, and it is gone with all that is
//! in it when we let go or end, however that is: there is nothing to tidy up after a crash.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;

use super::machine::LargePages;
use super::spawn::{Leash, Orphan};
use super::{fork, limit};
use crate::frozen::Bytes;

/// Longer than anything takes: `sleep` is ended by its leash.
const A_YEAR: &str = "31536000";

/// The file system; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Hidden {
    path: PathBuf,
    /// Held, and never looked at.
    _leash: Leash,
}

impl Hidden {
    /// One with room for so much. It takes root's rights, and a kernel with huge pages in file systems.
    pub(crate) fn with_room(size: Bytes) -> io::Result<Hidden> {
        let root = mount(size)?;
        let sleep = limit::sleep()?;
        let leash = Orphan { folder: Some(root.as_fd()), ..Orphan::new(&sleep, &[A_YEAR]) }.start()?;
        Ok(Hidden { path: PathBuf::from(format!("/proc/{}/cwd", leash.worker)), _leash: leash })
    }

    /// Its topmost folder, which only we can enter.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The topmost folder of a new file system.
fn mount(size: Bytes) -> io::Result<OwnedFd> {
    /// Of linux/mount.h, as those below.
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const NOSUID_NODEV: libc::c_uint = 0x2 | 0x4;
    // SAFETY: the name is a C string.
    let context = opened(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let (pages, size) = (LargePages::best().option().to_owned(), size.0.to_string());
    for (key, value) in [(c"huge", pages), (c"mode", "0700".to_owned()), (c"size", size)] {
        configure(&context, Some((key, &CString::new(value)?)))?;
    }
    configure(&context, None)?;
    // SAFETY: a system call on numbers.
    let root = opened(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, NOSUID_NODEV)
    })?;
    fork::ours(&root);
    Ok(root)
}

/// Sets an option of a file system that is being made; without one, makes it.
fn configure(context: &OwnedFd, option: Option<(&CStr, &CStr)>) -> io::Result<()> {
    const FSCONFIG_SET_STRING: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    let (command, key, value) = match option {
        Some((key, value)) => (FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr()),
        None => (FSCONFIG_CMD_CREATE, ptr::null(), ptr::null()),
    };
    // SAFETY: key and value are C strings, or null where the command has none.
    let done = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}

fn opened(result: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = Errno::result(result)?;
    // SAFETY: the kernel has just given it to us, and to nobody else.
    super::process::off_the_streams(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::{disk, machine, process};

    #[test]
    fn what_is_hidden_is_in_memory_has_its_room_and_goes_with_who_holds_it() {
        if !process::may_administer() {
            assert!(Hidden::with_room(Bytes::mebibytes(8)).is_err(), "it takes rights");
            return;
        }
        let hidden = Hidden::with_room(Bytes::mebibytes(8)).unwrap();
        let path = hidden.path().to_owned();
        assert!(machine::is_in_memory(&path).unwrap());
        assert_eq!(disk::free_space(&path).unwrap(), Bytes::mebibytes(8));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let file = path.join("file");
        fs::write(&file, "text").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        drop(hidden);
        let started = Instant::now();
        while file.exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "it is still there");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!mounts.contains("/proc/"), "it was never mounted");
    }
}
