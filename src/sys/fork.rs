//! What a forked child is not to have: the descriptors that its parent's agent has open at that moment.
//!
//! fork(2) copies all descriptors; nothing keeps one from a child as O_CLOEXEC keeps it from a program that is executed. A
//! child that has a file of a checkpoint keeps its room on the disk when it is deleted, and takes it into each checkpoint
//! that follows, as long as it lives; one that has the leash of a worker keeps that alive. So the C library calls us in
//! each child (pthread_atfork(3)), and what is ours is closed there: files by their names, pipes and sockets by their
//! numbers in the kernel. In the child there are only system calls, and none where the agent sleeps.
//!
//! clone(2) and vfork(2) call nobody; what they start executes another program, as a rule. And a child may keep what the agent
//! reads of the machine at that moment, in /proc say, which does no harm.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{Mode, fstat};

/// Whether the agent may have anything open.
static AT_WORK: AtomicBool = AtomicBool::new(false);

/// What stands in the paths of our files, and of nobody else's. A path is followed by a zero.
static NAMES: AtomicPtr<Vec<String>> = AtomicPtr::new(ptr::null_mut());

/// What was made since the agent began to work, by the kernel's numbers. A checkpoint makes about ten.
static MADE: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// From now on no child keeps files with one of these in their paths, each of which is something. They have to be so odd that
/// the program has none such.
pub(crate) fn keep_from_children(names: Vec<String>) {
    static REGISTERED: Once = Once::new();
    let before = NAMES.swap(Box::into_raw(Box::new(names)), SeqCst);
    if !before.is_null() {
        // SAFETY: it came from a box, and is nobody's any more: in a child that could look at it there is this memory as it
        // was when that was forked.
        drop(unsafe { Box::from_raw(before) });
    }
    REGISTERED.call_once(|| {
        // SAFETY: what is called in a child makes only system calls, and stays for as long as the program.
        let failed = unsafe { libc::pthread_atfork(None, None, Some(in_a_child)) };
        if failed != 0 {
            log::debug!(
                "children that are forked keep what is open at that moment: {}",
                Errno::from_raw(failed)
            );
        }
    });
}

/// Says whether anything of ours may be open.
pub(crate) fn at_work(is_at_work: bool) {
    AT_WORK.store(is_at_work, SeqCst);
    if !is_at_work {
        MADE.iter().for_each(|made| made.store(0, SeqCst));
    }
}

/// Notes something that we have made, and that is nobody else's: a pipe, a socket, a file system.
pub(crate) fn ours(descriptor: &impl AsFd) {
    if let Ok(about) = fstat(descriptor) {
        MADE[COUNT.fetch_add(1, SeqCst) % MADE.len()].store(number(&about), SeqCst);
    }
}

/// The kernel gives all of these numbers of 32 bits.
fn number(about: &libc::stat) -> u64 {
    about.st_dev << 32 ^ about.st_ino
}

extern "C" fn in_a_child() {
    if AT_WORK.swap(false, SeqCst) {
        let errno = Errno::last_raw();
        close_what_is_ours();
        Errno::set_raw(errno);
    }
}

/// As the kernel wants it for directory entries.
#[repr(align(8))]
struct Entries([u8; 2048]);

/// Closes what is ours among all that is open, in a process whose only thread has just been forked.
fn close_what_is_ours() {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(folder) = open(c"/proc/self/fd", flags, Mode::empty()) else { return };
    let mut entries = Entries([0; 2048]);
    loop {
        let (own, room) = (folder.as_raw_fd(), entries.0.len());
        // SAFETY: the kernel writes no more than there is room.
        let length = unsafe { libc::syscall(libc::SYS_getdents64, own, entries.0.as_mut_ptr(), room) };
        let Some(all) = usize::try_from(length).ok().and_then(|length| entries.0.get(..length)) else {
            return;
        };
        if all.is_empty() {
            return;
        }
        for name in Names(all) {
            let descriptor = name.to_str().ok().and_then(|name| name.parse().ok());
            if let Some(descriptor) = descriptor.filter(|&open| open != own && is_ours(open, &folder, name)) {
                // SAFETY: it is the agent's, which isn't there in this process.
                drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
}

/// The names in directory entries (`struct linux_dirent64`, getdents(2)).
struct Names<'a>(&'a [u8]);

impl<'a> Iterator for Names<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        const LENGTH: usize = 16;
        const NAME: usize = 19;
        let length = u16::from_ne_bytes([*self.0.get(LENGTH)?, *self.0.get(LENGTH + 1)?]);
        let (entry, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()
    }
}

/// Whether a descriptor, which has a link of this name in a folder, is one of ours.
fn is_ours(descriptor: RawFd, folder: &OwnedFd, link: &CStr) -> bool {
    // SAFETY: it was open a moment ago, and there is nobody else to close it.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    // What is for programs that are executed isn't.
    let flags = fcntl(descriptor, FcntlArg::F_GETFD).unwrap_or_default();
    let was_made = |about: libc::stat| MADE.iter().any(|made| made.load(SeqCst) == number(&about));
    flags & libc::FD_CLOEXEC != 0 && (fstat(descriptor).is_ok_and(was_made) || has_our_name(folder, link))
}

fn has_our_name(folder: &OwnedFd, link: &CStr) -> bool {
    // One more byte than a path may have, which stays zero.
    let mut path = [0_u8; 4097];
    let (buffer, room) = (path.as_mut_ptr().cast(), path.len() - 1);
    // SAFETY: the kernel writes no more than there is room.
    let length = unsafe { libc::readlinkat(folder.as_raw_fd(), link.as_ptr(), buffer, room) };
    let path = &path[..=usize::try_from(length).unwrap_or(0)];
    // SAFETY: it came from a box, and in this process nobody else is there to take it away.
    let names = unsafe { NAMES.load(SeqCst).as_ref() };
    let stands_in = |name: &String| path.windows(name.len()).any(|part| part == name.as_bytes());
    names.is_some_and(|names| names.iter().any(stands_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_folder_s_entries_are_read_to_the_last() {
        let mut entries = Vec::new();
        for name in ["3", "1024", ".."] {
            let length = (19 + name.len() + 1).next_multiple_of(8);
            let start = entries.len();
            entries.resize(start + length, 0);
            entries[start + 16..start + 18].copy_from_slice(&(length as u16).to_ne_bytes());
            entries[start + 19..start + 19 + name.len()].copy_from_slice(name.as_bytes());
        }
        assert_eq!(Names(&entries).collect::<Vec<_>>(), [c"3", c"1024", c".."]);
        assert_eq!(Names(&entries[..30]).count(), 1, "what is cut off is none");
    }
}
