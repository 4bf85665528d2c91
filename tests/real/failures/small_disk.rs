//! A disk of the test's own.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::harness::{Lab, eventually};

/// A file system in memory, mounted until it is dropped.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// In the place of the store.
    pub fn of(lab: &Lab, mebibytes: u64) -> Disk {
        Disk::at(lab.store(), &format!("size={mebibytes}m"))
    }

    /// In this folder, which it makes, with these options of a tmpfs.
    pub fn at(at: PathBuf, options: &str) -> Disk {
        fs::create_dir(&at).expect("a folder");
        mount(&at, 0, options).expect("a small disk");
        Disk { at }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// No program can be run from it any more.
    pub fn runs_no_programs(&self) {
        mount(&self.at, libc::MS_REMOUNT | libc::MS_NOEXEC, "").expect("a disk without programs");
    }

    pub fn grows_to(&self, mebibytes: u64) {
        mount(&self.at, libc::MS_REMOUNT, &format!("size={mebibytes}m")).expect("a larger disk");
    }

    pub fn becomes_read_only(&self) {
        // A worker that has just answered may still have its log open.
        eventually("a disk that nobody writes to", || {
            mount(&self.at, libc::MS_REMOUNT | libc::MS_RDONLY, "").ok()
        });
    }

    pub fn becomes_writable(&self) {
        mount(&self.at, libc::MS_REMOUNT, "").expect("a writable disk");
    }

    /// Writes something else to it until no more than this is free; its path.
    pub fn is_filled_but_for(&self, left: u64) -> PathBuf {
        let filler = self.at.join("filler");
        let free = free(&self.at).expect("a disk");
        fs::write(&filler, vec![1; free.saturating_sub(left) as usize]).expect("it fits");
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = c_string(&self.at);
        // SAFETY: the string ends with a zero and lives as long as the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

fn mount(at: &Path, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let (at, options) = (c_string(at), CString::new(options).expect("no zero"));
    // SAFETY: the strings end with a zero and live as long as the call.
    let done = unsafe {
        libc::mount(c"tmpfs".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), flags, options.as_ptr().cast())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn free(at: &Path) -> io::Result<u64> {
    let at = c_string(at);
    // SAFETY: zeros are a valid statvfs, and the kernel writes no more than that.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(at.as_ptr(), &raw mut stat) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat.f_bfree * stat.f_frsize)
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no zero")
}
