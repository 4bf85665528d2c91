//! What a clone does until it is another program: system calls alone, on what was made ready before.

use std::ffi::c_int;
use std::ptr;

use nix::errno::Errno;

use super::{FIRST_DESCRIPTOR, Launch};

/// Sets this child up and turns it into the program. Comes back only when that fails.
pub(super) fn become_program(launch: &mut Launch) -> c_int {
    default_signals();
    lift_limits();
    if launch.outlives_us {
        // SAFETY: setsid has no arguments.
        unsafe { libc::setsid() };
    }
    #[cfg(feature = "service")]
    if launch.identity.is_some() {
        // So that it can be ended with the helpers that it has forked.
        // SAFETY: setsid has no arguments.
        unsafe { libc::setsid() };
    }
    // SAFETY: this is the child.
    let placed = unsafe {
        // Before the first file is made, so that it is readable to us and nobody else.
        libc::umask(0o077);
        place_descriptors(launch)
    };
    if let Err(errno) = placed {
        launch.errno = errno as c_int;
        return 127;
    }
    #[cfg(feature = "service")]
    if let Some(Err(errno)) = launch.identity.as_ref().map(crate::sys::credentials::become_identity) {
        launch.errno = errno as c_int;
        return 127;
    }
    if launch.output.is_none() {
        // What a child of ours does is of no use to anybody else; a worker is on a leash instead.
        // SAFETY: a system call on numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    }
    // SAFETY: system calls on plain values; the vectors of pointers end with a null pointer, and the
    // strings that they point to live until `launch` returns.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        libc::execve(launch.argv[0], launch.argv.as_ptr(), launch.envp.as_ptr());
    }
    launch.errno = Errno::last_raw();
    127
}

/// Gives the child's own table of handlers back to the defaults: a handler of the program must not run
/// here, and what the program ignores (SIGCHLD, say) CRIU must not.
fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: an all-zero sigaction is SIG_DFL without flags. SIGKILL, SIGSTOP and the two signals
        // that the C library keeps for itself are refused, which is right.
        unsafe {
            let action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
}

/// Limits that the program set for itself would cut the images off.
fn lift_limits() {
    for limit in
        [libc::RLIMIT_FSIZE, libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_CPU, libc::RLIMIT_NOFILE]
    {
        let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointers are to a value on this stack.
        unsafe {
            if libc::getrlimit(limit, &raw mut value) == 0 {
                value.rlim_cur = value.rlim_max;
                libc::setrlimit(limit, &value);
            }
        }
    }
}

/// Brings the descriptors to their numbers and closes the rest.
///
/// # Safety
/// To be called only in the child, which has a descriptor table of its own.
unsafe fn place_descriptors(launch: &mut Launch) -> Result<(), Errno> {
    let count = launch.descriptors.len() as c_int;
    let beyond = FIRST_DESCRIPTOR + count;
    // SAFETY: system calls on numbers; nobody in this child owns the descriptors that are closed.
    unsafe {
        if let Some(stdin) = launch.stdin {
            libc::dup2(stdin, 0);
        }
        // Before its number is another's.
        if launch.folder.is_some_and(|folder| libc::fchdir(folder) < 0) {
            return Err(Errno::last());
        }
        // First out of the way of the target numbers, so that none is overwritten before it is placed.
        for descriptor in &mut launch.descriptors {
            *descriptor = libc::fcntl(*descriptor, libc::F_DUPFD, beyond);
        }
        for (target, &descriptor) in (FIRST_DESCRIPTOR..).zip(&launch.descriptors) {
            libc::dup2(descriptor, target);
        }
        if let Some(output) = &launch.output {
            let null = c"/dev/null".as_ptr();
            redirect(libc::open(null, libc::O_RDONLY), 0);
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_NOFOLLOW;
            let output = libc::open(output.as_ptr(), flags, 0o600);
            let output = if output < 0 { libc::open(null, libc::O_WRONLY) } else { output };
            libc::dup2(output, 1);
            redirect(output, 2);
            if launch.folder.is_none() {
                libc::chdir(c"/".as_ptr());
            }
            if !launch.outlives_us {
                put_on_leash(beyond - 1);
            }
        }
        // Where the kernel is too old for it (before 5.9) the rest stays open until CRIU ends.
        libc::syscall(libc::SYS_close_range, beyond, c_int::MAX, 0);
    }
    Ok(())
}

/// Has the kernel kill this process and its helpers when the last writer of the pipe behind the descriptor is gone.
///
/// # Safety
/// To be called only in the child: it is this process that is killed.
unsafe fn put_on_leash(reader: c_int) {
    /// Of asm-generic/fcntl.h; libc has it for Android alone.
    const F_SETSIG: c_int = 10;
    // SAFETY: system calls on numbers. Where one fails, the worker still ends by itself in all cases but the
    // one that the leash is for.
    unsafe {
        libc::fcntl(reader, F_SETSIG, libc::SIGKILL);
        // The whole group, of which it is the first: CRIU forks helpers, and one that it has stopped would stay.
        libc::fcntl(reader, libc::F_SETOWN, -libc::getpgrp());
        libc::fcntl(reader, libc::F_SETFL, libc::O_ASYNC);
    }
}

/// Moves a descriptor to another number.
///
/// # Safety
/// To be called only in the child, which has a descriptor table of its own.
unsafe fn redirect(from: c_int, to: c_int) {
    if from != to {
        // SAFETY: system calls on numbers.
        unsafe {
            libc::dup2(from, to);
            libc::close(from);
        }
    }
}
