//! What processes have open, and which files that is.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{all, stat};
use crate::frozen::FileIdentity;
use crate::sys::process;

/// An open descriptor of a process.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) fd: i32,
    /// What `/proc/PID/fd/N` points to: a path, `socket:[INODE]`, `anon_inode:[io_uring]`.
    pub(crate) target: PathBuf,
    /// Whether it can write over what the file holds: it is open for writing, and not only for appending.
    pub(crate) overwrites: bool,
    /// Whether it holds a lock (fcntl, flock or a lease).
    pub(crate) locked: bool,
    /// The size of the regular file, where it has no name any more.
    pub(crate) unlinked_size: Option<u64>,
    /// The terminal that it is.
    pub(crate) terminal: Option<Terminal>,
    /// The clock of a timer (timerfd), by its number.
    pub(crate) timer_clock: Option<u32>,
}

/// A terminal, or what is one to the program: a pseudoterminal's slave, a virtual console, a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// The device by its number, on the file system (of the `devpts` kind, say) with that number.
    Device { number: u64, file_system: u64 },
    /// The master of the pseudoterminal with this index.
    Master(u32),
}

/// A device's major number.
const fn major(device: u64) -> u64 {
    (device >> 8) & 0xfff
}

/// A device's minor number, as far as terminals have them.
const fn minor(device: u64) -> u64 {
    (device & 0xff) | ((device >> 12) & 0xfff00)
}

impl Terminal {
    /// Of what `/proc/PID/fdinfo/N` and the file itself say; numbers as in the kernel's devices.txt.
    fn of(file: &fs::Metadata, info: &str) -> Option<Terminal> {
        let number = file.rdev();
        let index = info.lines().find_map(|line| line.strip_prefix("tty-index:"));
        if let Some(index) = index {
            return Some(Terminal::Master(index.trim().parse().ok()?));
        }
        let is_slave = (136..=143).contains(&major(number));
        // The current terminal, 5:0, is not a device of its own.
        let is_console = major(number) == 4 || (major(number), minor(number)) == (5, 1);
        (is_slave || is_console).then_some(Terminal::Device { number, file_system: file.dev() })
    }

    /// The master that a slave belongs to, by its index.
    pub(crate) fn is_slave_of(self, master: Terminal) -> bool {
        match (self, master) {
            (Terminal::Device { number, .. }, Terminal::Master(index)) => {
                (136..=143).contains(&major(number))
                    && (major(number) - 136) * 256 + minor(number) == u64::from(index)
            }
            _ => false,
        }
    }
}

/// The open descriptors of a process, by number.
pub(crate) fn descriptors(pid: i32) -> io::Result<Vec<Open>> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let mut open: Vec<Open> = fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|fd| descriptor(pid, &folder, fd))
        .collect();
    open.sort_by_key(|descriptor| descriptor.fd);
    Ok(open)
}

/// None for a descriptor that was closed since it was listed.
fn descriptor(pid: i32, folder: &Path, fd: i32) -> Option<Open> {
    let link = folder.join(fd.to_string());
    let target = fs::read_link(&link).ok()?;
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let file = fs::metadata(&link).ok();
    let terminal = file.as_ref().filter(|file| file.file_type().is_char_device());
    let terminal = terminal.and_then(|file| Terminal::of(file, &info));
    let unlinked = file.filter(|file| file.is_file() && file.nlink() == 0);
    let flags = open_flags(&info);
    Some(Open {
        fd,
        terminal,
        overwrites: writes(flags) && flags & libc::O_APPEND as u32 == 0,
        timer_clock: info.lines().find_map(|line| line.strip_prefix("clockid:")?.trim().parse().ok()),
        locked: info.lines().any(|line| line.starts_with("lock:")),
        // A memfd has no name either, but CRIU carries it by itself.
        unlinked_size: unlinked.filter(|_| !target.starts_with("/memfd:")).map(|file| file.size()),
        target,
    })
}

/// Which regular file a descriptor of a process refers to, if that still is the one at `path`.
pub(crate) fn file_identity(pid: i32, fd: i32, path: &Path) -> Option<FileIdentity> {
    let open = fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok().filter(|file| file.is_file())?;
    let identity = identity(&open);
    let named = fs::metadata(path).ok()?;
    (self::identity(&named) == identity).then_some(identity)
}

/// Which regular file a descriptor referred to that has been closed since that moment: the one at `path`, if that is as
/// old.
pub(crate) fn identity_of_closed(pid: i32, fd: i32, path: &Path, since: SystemTime) -> Option<FileIdentity> {
    let is_closed = fs::symlink_metadata(format!("/proc/{pid}/fd/{fd}")).is_err();
    let file = fs::metadata(path).ok().filter(|file| is_closed && file.is_file())?;
    file.created().is_ok_and(|made| made < since).then(|| identity(&file))
}

/// Which file it is.
pub(crate) fn identity(file: &fs::Metadata) -> FileIdentity {
    let made = file.created().ok().and_then(|made| made.duration_since(SystemTime::UNIX_EPOCH).ok());
    let made_unix_ns = made.and_then(|since| u64::try_from(since.as_nanos()).ok());
    FileIdentity { device: file.dev(), inode: file.ino(), made_unix_ns }
}

/// Another process that has a file open to write to it: its id and name.
pub(crate) fn writer_of(file: FileIdentity) -> Option<(i32, String)> {
    let writes = |pid: &i32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter(|entry| fs::metadata(entry.path()).is_ok_and(|open| identity(&open) == file))
            .any(|entry| is_open_for_writing(*pid, &entry.file_name().to_string_lossy()))
    };
    let pid = all().into_iter().filter(|&pid| pid != process::id()).find(writes)?;
    Some((pid, stat(pid).map(|stat| stat.name).unwrap_or_default()))
}

fn is_open_for_writing(pid: i32, fd: &str) -> bool {
    writes(open_flags(&fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default()))
}

/// The open flags, which stand in fdinfo in octal.
fn open_flags(info: &str) -> u32 {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0)
}

/// The access mode is in the two lowest bits.
fn writes(flags: u32) -> bool {
    flags & 0b11 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_closed_is_known_by_its_path_if_it_is_as_old() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (_, path) = file.keep().unwrap();
        let made = fs::metadata(&path).unwrap().created().unwrap();
        let known = |fd, since| identity_of_closed(process::id(), fd, &path, since);
        let later = made + std::time::Duration::from_secs(1);
        assert!(known(99_999, later).is_some());
        assert_eq!((known(99_999, made), known(0, later)), (None, None), "a newer one, and one that is open");
        fs::remove_file(&path).unwrap();
    }
}
