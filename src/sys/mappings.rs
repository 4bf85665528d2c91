//! The names of what a process has mapped.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The names in `/proc/PID/maps`, each once: paths, and what stands in the place of one (`/SYSV00000000 (deleted)`,
/// `anon_inode:[io_uring]`), without the kernel's own in brackets. Nothing of a process that has ended.
pub(crate) fn names(pid: i32) -> BTreeSet<PathBuf> {
    parse(&fs::read(format!("/proc/{pid}/maps")).unwrap_or_default())
}

fn parse(maps: &[u8]) -> BTreeSet<PathBuf> {
    let names = maps.split(|&byte| byte == b'\n').filter_map(|line| {
        let name = line.splitn(6, |&byte| byte == b' ').nth(5)?.trim_ascii_start();
        let is_kernels = name.is_empty() || name.starts_with(b"[");
        (!is_kernels).then(|| PathBuf::from(OsString::from_vec(name.to_vec())))
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_they_stand_and_once() {
        let maps = b"7f00-7f01 r-xp 00000000 08:01 42   /lib/a b.so\n7f01-7f02 rw-p 00000000 08:01 42   /lib/a b.so\n\
                     7f02-7f03 rw-s 00000000 00:01 7    /SYSV00000000 (deleted)\n7f03-7f04 rw-p 00000000 00:00 0 \n\
                     7f04-7f05 rw-p 00000000 00:00 0    [heap]\n";
        let names: Vec<PathBuf> = parse(maps).into_iter().collect();
        assert_eq!(names, [PathBuf::from("/SYSV00000000 (deleted)"), PathBuf::from("/lib/a b.so")]);
    }
}
