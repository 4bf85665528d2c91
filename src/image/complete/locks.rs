//! The locks on files: POSIX ones belong to a process, and its copy has none.

use std::collections::HashSet;

use super::draft::Draft;
use super::files::{Open, unread};
use super::info::Info;
use crate::error::Result;
use crate::image::images::FileLock;
use crate::image::kind::{Image, Kind};

/// What kind of lock it is, in CRIU's numbers (its `file-lock.h`).
const POSIX: u32 = 1;
const FLOCK: u32 = 2;
const OFD: u32 = 4;
const LEASE: u32 = 8;

/// Writes which locks there were. A lock shows at every descriptor of its open file; CRIU has it at the first.
pub(super) fn note(draft: &mut Draft, pid: i32, open: &[Open]) -> Result<()> {
    let image = Image::of(Kind::FileLocks, 0_u32);
    let mut seen = HashSet::new();
    let firsts = open.iter().filter(|open| seen.insert((open.entry.r#type, open.entry.id)));
    let mut locks = Vec::new();
    for open in firsts {
        // The kernel leaves a line empty whose owner can't be seen from here.
        let lines = Info(&open.descriptor.info).all("lock").filter(|line| !line.is_empty());
        for line in lines {
            let lock = lock(line, pid, open.descriptor.fd);
            locks.push(lock.ok_or_else(|| unread(open.descriptor))?);
        }
    }
    match (locks.is_empty(), draft.has(image)) {
        (true, true) => draft.remove(image),
        (true, false) => {}
        (false, _) => draft.write(image, &locks)?,
    }
    Ok(())
}

/// `NUMBER: KIND HOW TYPE OWNER DEVICE:INODE START END`, as in `/proc/locks`. Of a lease that is being broken it doesn't
/// say what it is to become, so it can't be understood.
fn lock(line: &str, pid: i32, fd: i32) -> Option<FileLock> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, kind, how, kind_of_access, _, _, start, end] = *words else { return None };
    let flag = match (kind, how) {
        ("POSIX", _) => POSIX,
        ("FLOCK", "ADVISORY") => FLOCK,
        ("OFDLCK", _) => OFD,
        ("LEASE", "ACTIVE") => LEASE,
        _ => return None,
    };
    // F_RDLCK and F_WRLCK.
    let r#type = match kind_of_access {
        "READ" => 0,
        "WRITE" => 1,
        _ => return None,
    };
    let start: i64 = start.parse().ok()?;
    // A length of 0 is up to the end of the file, wherever that comes to be.
    let len = match end {
        "EOF" => 0,
        end => end.parse::<i64>().ok()?.checked_add(1)?.checked_sub(start)?,
    };
    Some(FileLock { flag, r#type, pid, fd, start, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<(u32, u32, i64, i64)> {
        lock(line, 7, 3).map(|lock| (lock.flag, lock.r#type, lock.start, lock.len))
    }

    #[test]
    fn each_kind_of_lock_has_criu_s_number() {
        assert_eq!(read("1: POSIX  ADVISORY  WRITE 4711 08:02:1234 2 6"), Some((POSIX, 1, 2, 5)));
        assert_eq!(read("2: POSIX  ADVISORY  READ 4711 08:02:1234 100 EOF"), Some((POSIX, 0, 100, 0)));
        assert_eq!(read("1: OFDLCK ADVISORY  WRITE -1 fe:00:10027347 0 9"), Some((OFD, 1, 0, 10)));
        assert_eq!(read("1: FLOCK  ADVISORY  READ 1796 fe:00:10027348 0 EOF"), Some((FLOCK, 0, 0, 0)));
        assert_eq!(read("1: LEASE  ACTIVE    READ 1796 fe:00:10027348 0 EOF"), Some((LEASE, 0, 0, 0)));
    }

    #[test]
    fn other_lines_are_no_locks() {
        assert_eq!(read("1: LEASE  BREAKING  READ 1796 fe:00:10027348 0 EOF"), None);
        assert_eq!(read("1: FLOCK  MSNFS     READ 1796 fe:00:10027348 0 EOF"), None);
        assert_eq!(read("1: POSIX  ADVISORY  WRITE 4711 08:02:1234 2"), None);
    }
}
