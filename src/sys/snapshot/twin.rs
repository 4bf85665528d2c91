//! A copy of this process that shares its memory until one of both writes to it, and that is nobody's child.
//!
//! A clone that shares our memory makes the second one, which doesn't, and ends: so the copy is an orphan, and this process,
//! which waits for the first alone, never has it for a child. Both have the exit signal 0, so nobody gets a SIGCHLD. The
//! memory is copied once. No `pthread_atfork` handler runs, and nothing but system calls is made in any of them.

use std::io;

use nix::errno::Errno;

/// On which side of the copying this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The process that was there before. The copy has this process id.
    Original { copy: i32 },
    /// The copy: it has one thread, the caller's.
    Copy,
}

/// What the first clone tells.
#[repr(C)]
struct Told {
    /// The second clone's process id, or why there is none.
    second: i64,
    /// Its own; 0 in the second.
    first: i64,
}

/// Copies this process. **Returns twice**, in the copy as well: there nothing may be done that takes a lock, since those who
/// hold one aren't there.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(super) fn copy_this_process() -> io::Result<Side> {
    const SHARED: libc::c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
    let mut told = Told { second: 0, first: 0 };
    // SAFETY: the first clone runs on this thread's stack while this thread waits for its end (CLONE_VFORK), without
    // writing to it: between its start and its exit are two system calls, of numbers, and one store to `told`. The second
    // has a copy of all memory, this stack among it, and goes on as the caller.
    unsafe {
        std::arch::asm!(
            "mov eax, 56", "xor esi, esi", "xor edx, edx", "xor r10d, r10d", "xor r8d, r8d", "syscall",
            "test rax, rax",
            "jnz 31f",
            "mov eax, 56", "xor edi, edi", "xor esi, esi", "xor edx, edx", "xor r10d, r10d", "xor r8d, r8d",
            "syscall",
            "test rax, rax",
            "jz 31f",
            "mov [{told}], rax",
            "mov eax, 60", "xor edi, edi", "syscall",
            "ud2",
            "31:",
            "mov [{told} + 8], rax",
            told = in(reg) &raw mut told,
            inout("rdi") i64::from(SHARED) => _,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("r8") _, out("r10") _, out("r11") _,
        );
    }
    if told.first == 0 {
        return Ok(Side::Copy);
    }
    let first = checked(told.first)?;
    let mut status = 0;
    // SAFETY: it waits for our own clone, which has ended, and writes a status to where one is.
    while unsafe { libc::waitpid(first, &raw mut status, libc::__WALL) } == -1
        && Errno::last() == Errno::EINTR
    {}
    Ok(Side::Original { copy: checked(told.second)? })
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn copy_this_process() -> io::Result<Side> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A process id, or the error that a system call has given.
fn checked(result: i64) -> io::Result<i32> {
    match i32::try_from(result) {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(errno) if errno < 0 => Err(io::Error::from_raw_os_error(-errno)),
        _ => Err(io::ErrorKind::Other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_copy_has_the_memory_of_its_moment_and_is_nobodys_child() {
        let (reader, writer) = super::super::super::spawn::pipe().unwrap();
        let mut reader = std::fs::File::from(reader);
        let memory = std::hint::black_box(vec![7_u8; 1 << 20]);
        match copy_this_process().unwrap() {
            Side::Copy => {
                use std::os::fd::AsRawFd;
                // SAFETY: a write of a byte that lives, and the end of this copy, in which no other thread is.
                unsafe {
                    libc::write(writer.as_raw_fd(), memory[memory.len() / 2..].as_ptr().cast(), 1);
                    libc::_exit(0);
                }
            }
            Side::Original { copy } => {
                drop(writer);
                let mut told = Vec::new();
                reader.read_to_end(&mut told).unwrap();
                assert_eq!(told, [7]);
                // SAFETY: it waits for a child that isn't one.
                let waited = unsafe { libc::waitpid(copy, std::ptr::null_mut(), libc::__WALL) };
                assert_eq!((waited, Errno::last()), (-1, Errno::ECHILD));
            }
        }
    }
}
