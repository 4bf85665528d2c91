//! What a kernel, its security modules and its file systems allow.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::statfs::statfs;

/// The release of the running kernel: `6.18.0-1-amd64`.
pub(crate) fn kernel() -> String {
    word("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// Yama's restriction of ptrace, from 0 to 3 (`Documentation/admin-guide/LSM/Yama.rst`). None without Yama.
pub(crate) fn ptrace_scope() -> Option<u32> {
    word("/proc/sys/kernel/yama/ptrace_scope")?.parse().ok()
}

/// The security profile that this process is confined by: AppArmor's, SELinux's. None where it is free.
pub(crate) fn confinement() -> Option<String> {
    let profile = word("/proc/self/attr/current")?;
    let profile = profile.trim_matches('\0').to_owned();
    let is_free =
        ["unconfined", "kernel", ""].contains(&profile.as_str()) || profile.contains("unconfined_t");
    (!is_free).then_some(profile)
}

/// The kind of container that we are in, by the marks that the usual ones leave. None where there is no mark.
pub(crate) fn container() -> Option<String> {
    let marked = |file: &str, name: &str| Path::new(file).exists().then(|| name.to_owned());
    let by_variable = || {
        let environment = fs::read("/proc/1/environ").ok()?;
        let value =
            environment.split(|&byte| byte == 0).find_map(|variable| variable.strip_prefix(b"container="))?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    marked("/.dockerenv", "docker").or_else(|| marked("/run/.containerenv", "podman")).or_else(by_variable)
}

/// Whether a file system is kept in memory, and goes with it.
pub(crate) fn is_in_memory(path: &Path) -> io::Result<bool> {
    /// TMPFS_MAGIC and RAMFS_MAGIC (linux/magic.h).
    const KINDS: [i64; 2] = [0x0102_1994, 0x8584_58f6];
    Ok(KINDS.contains(&kind_of(path)?))
}

/// Whether a file system is a layer over another that goes with its container.
pub(crate) fn is_an_overlay(path: &Path) -> io::Result<bool> {
    /// OVERLAYFS_SUPER_MAGIC (linux/magic.h).
    const OVERLAY: i64 = 0x794c_7630;
    Ok(kind_of(path)? == OVERLAY)
}

fn kind_of(path: &Path) -> io::Result<i64> {
    // The type differs by architecture.
    #[allow(clippy::unnecessary_cast)]
    Ok(statfs(path)?.filesystem_type().0 as i64)
}

/// The name of the file system that holds a path, as it is mounted: `ext4`, `btrfs`, `overlay`.
pub(crate) fn file_system(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mount_in(&mounts, &path)?.split(' ').next().map(str::to_owned)
}

/// How a file system in memory has pages that are larger than the smallest: `huge=` of tmpfs(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LargePages {
    /// `within_size`: as large as what is written at once. Before Linux 6.14 a file that grows has small ones only.
    AsWritten,
    /// `always`: huge ones, in a small file as well. What a first write leaves of one is cleared, and then written to.
    Always,
}

impl LargePages {
    /// What this kernel writes to in the shortest time.
    pub(crate) fn best() -> LargePages {
        LargePages::of_release(&kernel())
    }

    fn of_release(release: &str) -> LargePages {
        let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 14) => LargePages::AsWritten,
            _ => LargePages::Always,
        }
    }

    /// The value of the option.
    pub(crate) fn option(self) -> &'static str {
        match self {
            LargePages::AsWritten => "within_size",
            LargePages::Always => "always",
        }
    }

    /// Those of what is mounted with these options, on a kernel for which that one is the best.
    fn of_mount(mounted: &str, best: LargePages) -> Option<LargePages> {
        let has = |pages: &LargePages| {
            mounted.split([' ', ',']).any(|it| it.strip_prefix("huge=") == Some(pages.option()))
        };
        let found = [LargePages::AsWritten, LargePages::Always].into_iter().find(has)?;
        let is_of_use = found == LargePages::Always || best == LargePages::AsWritten;
        (mounted.starts_with("tmpfs ") && is_of_use).then_some(found)
    }
}

/// Those of the file system that a path is in. None where it isn't in memory, or has small ones only.
pub(crate) fn large_pages(path: &Path) -> Option<LargePages> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    LargePages::of_mount(mount_in(&mounts, &fs::canonicalize(path).ok()?)?, LargePages::best())
}

/// What is mounted where the path is: `KIND WHAT OPTIONS`, by the last of the mounts that lie nearest above it. Fields:
/// id, parent, device, root, mount point, …, `-`, and those three.
fn mount_in<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let parsed = mounts.lines().filter_map(|line| {
        let (mount, of) = line.split_once(" - ")?;
        // Blanks in paths are written as \040.
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        Some((point, of))
    });
    let above = parsed.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, of)| of)
}

/// Whether files in a folder can share their blocks (reflink), tried with two files that are gone at once. An error where
/// nothing can be written there.
pub(crate) fn shares_blocks(folder: &Path) -> io::Result<bool> {
    /// `FICLONE`: `_IOW(0x94, 9, int)`.
    const CLONE: libc::c_ulong = 0x4004_9409;
    let unnamed = || -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder)
    };
    let (mut from, to) = (unnamed()?, unnamed()?);
    io::Write::write_all(&mut from, &[7; 4096])?;
    // SAFETY: the request takes a descriptor by value, and both are open.
    Ok(unsafe { libc::ioctl(to.as_raw_fd(), CLONE, from.as_raw_fd()) } == 0)
}

fn word(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_above_a_path_is_the_one_that_holds_it() {
        let mounts = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      30 21 0:5 / /var/lib rw - btrfs /dev/sdb rw\n\
                      31 21 0:6 / /mnt/a\\040b rw shared:1 - xfs /dev/sdc rw\n";
        let of = |path: &str| mount_in(mounts, Path::new(path)).unwrap().split(' ').next().unwrap();
        assert_eq!((of("/var/lib/selfdump"), of("/var/library"), of("/mnt/a b/c")), ("btrfs", "ext4", "xfs"));
    }

    #[test]
    fn a_file_system_in_large_pages_is_known_by_its_option_where_nothing_is_mounted_over_it() {
        let huge = "40 21 0:50 / /run/staging rw - tmpfs none rw,size=9k,huge=always\n";
        let plain = "41 40 0:51 / /run/staging rw - tmpfs none rw,size=9k\n";
        let of = |mounts: &str, path: &str| {
            LargePages::of_mount(mount_in(mounts, Path::new(path))?, LargePages::AsWritten)
        };
        assert_eq!(of(huge, "/run/staging"), Some(LargePages::Always));
        assert_eq!(of(huge, "/run/staging/folder"), Some(LargePages::Always));
        assert_eq!(of(huge, "/run"), None);
        assert_eq!(of(&format!("{huge}{plain}"), "/run/staging"), None);
    }

    #[test]
    fn pages_as_large_as_what_is_written_take_a_kernel_that_has_them() {
        let mounted = "tmpfs none rw,huge=within_size";
        let on = |release| LargePages::of_mount(mounted, LargePages::of_release(release));
        assert_eq!(on("6.14.0"), Some(LargePages::AsWritten));
        assert_eq!(on("10.1-rc2"), Some(LargePages::AsWritten));
        assert_eq!([on("6.12.48+deb13-amd64"), on("5.19"), on("")], [None; 3]);
    }

    #[test]
    fn this_machine_can_be_asked() {
        assert!(!kernel().is_empty());
        assert!(file_system(Path::new("/")).is_some());
        let folder = tempfile::tempdir().unwrap();
        assert!(shares_blocks(folder.path()).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        assert!(shares_blocks(Path::new("/proc")).is_err());
    }
}
