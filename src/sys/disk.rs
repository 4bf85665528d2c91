//! What `std::fs` lacks: free space, renames that overwrite nothing, fsync of folders, private folders.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::ptr;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, FallocateFlags, Flock, FlockArg, OFlag, RenameFlags, fallocate, renameat2,
};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use crate::frozen::Bytes;

/// What an ordinary writer can still put on the file system that holds `path`.
pub(crate) fn free_space(path: &Path) -> io::Result<Bytes> {
    let stat = statvfs(path)?;
    let blocks = if super::process::is_root() { stat.blocks_free() } else { stat.blocks_available() };
    Ok(Bytes(blocks.saturating_mul(stat.fragment_size())))
}

/// Whether programs can be run from the file system that holds `path`.
pub(crate) fn allows_programs(path: &Path) -> io::Result<bool> {
    Ok(!statvfs(path)?.flags().contains(FsFlags::ST_NOEXEC))
}

/// Whether we may write to what a path leads to.
pub(crate) fn is_writable(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}

/// Whether we may execute a file.
pub(crate) fn is_executable(path: &Path) -> bool {
    access(path, AccessFlags::X_OK).is_ok()
}

/// Whether a program is given capabilities by its file (capabilities(7)).
pub(crate) fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let name = c"security.capability".as_ptr();
    // SAFETY: both are C strings; with a length of zero nothing is written.
    unsafe { libc::getxattr(path.as_ptr(), name, ptr::null_mut(), 0) > 0 }
}

/// An open folder, in which files are found sooner than by their whole paths.
pub(crate) struct Folder(OwnedFd);

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Folder(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    /// The size of a file by its path in the folder; that of its text for a link to a folder.
    pub(crate) fn size_of(&self, file: &Path) -> io::Result<u64> {
        let found = fstatat(&self.0, file, AtFlags::empty())?;
        let is_folder = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let found = if is_folder { fstatat(&self.0, file, AtFlags::AT_SYMLINK_NOFOLLOW)? } else { found };
        Ok(found.st_size as u64)
    }
}

/// Writes a program that only this user can run, or even read.
pub(crate) fn write_script(path: &Path, text: &[u8]) -> io::Result<()> {
    create(path, 0o700)?.write_all(text)
}

/// Writes a file that only this user can read. Whatever is there already, a link too, is an error.
pub(crate) fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    create_private(path)?.write_all(text)
}

/// The same for what is written piece by piece.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    create(path, 0o600)
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the umask took away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Takes a file's mode away from all but its owner. What a link leads to is left alone.
pub(crate) fn close_to_others(path: &Path) -> io::Result<()> {
    let file = fchmodat(AT_FDCWD, path, Mode::from_bits_truncate(0o600), FchmodatFlags::NoFollowSymlink);
    Ok(file?)
}

/// Whose a file is, what may be done with it, and when it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks {
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) modified: SystemTime,
}

/// Opens a file to write over what it holds; it is made where it isn't there. A link in its place is not followed:
/// that leads to some other file.
pub(crate) fn open_over(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Nobody else reads it before it looks as it has to.
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Makes an open file look so. Only root can give files away: for others the owner stays.
pub(crate) fn set_looks(file: &File, looks: Looks) -> io::Result<()> {
    match fchown(file, Some(looks.user), Some(looks.group)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !super::process::is_root() => {}
        result => result?,
    }
    // After the owner, since that takes setuid away; the times last, since all else may touch them.
    file.set_permissions(fs::Permissions::from_mode(looks.mode))?;
    file.set_modified(looks.modified)
}

/// Renames, and fails with `AlreadyExists` where `to` is there.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A file system without the flag (NFS): a rename onto a folder that isn't empty fails as well.
        Err(Errno::EINVAL) => fs::rename(from, to),
        result => Ok(result?),
    }
}

/// Has a file's bytes, or a folder's entries, on the disk before it returns.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Gives the memory, or the disk's blocks, of a part of a file back that isn't read again. It is for nothing but the room,
/// and not every file system can.
pub(crate) fn give_back(file: &File, from: u64, length: u64) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let _ = fallocate(file, flags, from as i64, length as i64);
}

/// Has what was written to a part of a file be on its way to the disk, and waits for nothing. It is no promise.
pub(crate) fn send_off(file: &File, from: u64, length: u64) {
    // SAFETY: a system call on numbers.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), from as i64, length as i64, libc::SYNC_FILE_RANGE_WRITE)
    };
}

/// Has a file system in memory find the memory for so much, in pages of this size, for a file that has it from then on.
pub(crate) fn find_memory(file: &Path, room: u64, page: u64) -> io::Result<()> {
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(file);
    let found = made.and_then(|file| {
        file.set_len(room)?;
        match populate(&file, room) {
            // A kernel before 5.14.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                fallocate(&file, FallocateFlags::empty(), 0, room as i64)?;
                // A host that has lent the memory to somebody else gives it back when it is touched.
                (0..room).step_by(page as usize).try_for_each(|at| file.write_all_at(&[1], at))
            }
            done => done,
        }
    });
    if found.is_err() {
        let _ = fs::remove_file(file);
    }
    found
}

/// Has all pages of a file in memory be there. The kernel makes more of an effort for huge ones in a mapping that is to
/// have such than in a write.
fn populate(file: &File, length: u64) -> io::Result<()> {
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // SAFETY: the kernel chooses the place of the mapping, which nobody else knows and which is gone afterwards. What
    // there is no room for is an error of madvise, and no signal.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::madvise(mapped, length, libc::MADV_HUGEPAGE);
        let populated = Errno::result(libc::madvise(mapped, length, libc::MADV_POPULATE_WRITE));
        libc::munmap(mapped, length);
        Ok(populated.map(drop)?)
    }
}

/// Makes a folder that only this user can enter. `AlreadyExists` where it is there.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)?;
    // Whatever the umask took away. Nobody else can have put a link in its place: that takes the rights to the folder
    // above, and who has those has this one.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Makes a folder and those above it, each private and each on the disk before the next.
pub(crate) fn make_all_private(path: &Path) -> io::Result<()> {
    match make_or_keep(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_all_private(path.parent().ok_or(error)?)?;
            // Once: where the folder above is there and still nothing can be made in it, its own has been
            // removed behind its mount point.
            make_or_keep(path)
        }
        result => result,
    }
}

fn make_or_keep(path: &Path) -> io::Result<()> {
    match make_private(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A lock that nobody else has. It goes with this value, and with our process, however that ends.
pub(crate) struct Lock {
    file: Flock<File>,
}

/// To whom it is given, it is locked for as long as he has it, if we are killed.
impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Takes the lock of a file that is there for it. None where another process has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<Lock>> {
    match Flock::lock(open_over(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(Lock { file: locked })),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Whether somebody has the lock of a file.
pub(crate) fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

/// Writes a small file so that a reader sees the old one or the new one, never a part. `writer` is a name
/// that nobody else has who may write the same file at this time.
pub(crate) fn replace(path: &Path, contents: &[u8], writer: &str) -> io::Result<()> {
    replace_with(path, contents, writer, |_| Ok(()))
}

/// The same for a file that everybody may read, whatever the umask says.
pub(crate) fn publish(path: &Path, contents: &[u8], writer: &str) -> io::Result<()> {
    replace_with(path, contents, writer, |file| file.set_permissions(fs::Permissions::from_mode(0o644)))
}

fn replace_with(
    path: &Path,
    contents: &[u8],
    writer: &str,
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let aside = path.with_extension(format!("{writer}.new"));
    // What a crash has left there, or somebody else has laid there for us to follow.
    let _ = fs::remove_file(&aside);
    // Nobody else's to read, whatever folder it is in: it may hold what the program was told.
    let written = create_private(&aside)
        .and_then(|mut file| file.write_all(contents).and_then(|()| finish(&file)))
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_capabilities_of_its_own_is_known_as_such() {
        let program = tempfile::NamedTempFile::new().unwrap();
        assert!(!has_capabilities(program.path()));
        let path = CString::new(program.path().as_os_str().as_bytes()).unwrap();
        // Version 2, effective: CAP_SYS_CHROOT may be used and no other (linux/capability.h).
        let given: [u32; 5] = [0x0200_0001, 1 << 18, 0, 0, 0];
        let size = size_of_val(&given);
        let name = c"security.capability".as_ptr();
        // SAFETY: the names are C strings, and the value is as long as is said.
        let set = unsafe { libc::setxattr(path.as_ptr(), name, given.as_ptr().cast(), size, 0) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        assert!(has_capabilities(program.path()));
    }

    #[test]
    fn memory_is_found_where_there_is_room_and_a_part_of_a_file_is_given_back() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let file = folder.path().join("file");
        find_memory(&file, 5 << 20, 2 << 20).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&file).unwrap()) * 512, 5 << 20);
        fs::remove_file(&file).unwrap();
        assert!(find_memory(&file, 1 << 60, 2 << 20).is_err() && !file.exists(), "nobody has so much");
        fs::write(&file, vec![7; 4 << 20]).unwrap();
        let open = File::options().write(true).open(&file).unwrap();
        let blocks = || std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
        let before = blocks();
        give_back(&open, 0, 3 << 20);
        assert!(blocks() <= before / 4, "{} of {before}", blocks());
        assert_eq!(file.metadata().unwrap().len(), 4 << 20);
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_an_error_and_not_tried_for_ever() {
        assert!(make_all_private(Path::new("/proc/no/such/folder")).is_err());
    }
}
