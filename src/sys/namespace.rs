//! A pid namespace of its own for a command, in which every process id is free.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

use nix::errno::Errno;

/// Starts a command as the first process of a new pid namespace, in a session and with a `/proc` of its own. It is
/// killed, and all of the namespace with it, when the thread that has started it is gone.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: the closure is async-signal-safe and allocates nothing.
    unsafe { command.pre_exec(enter) };
    let ours = File::open("/proc/self/ns/pid")?;
    // SAFETY: flags. It is for the children of this thread alone, and is taken back below: until then the thread can
    // start no other.
    Errno::result(unsafe { libc::unshare(libc::CLONE_NEWPID) })?;
    let child = command.spawn();
    // SAFETY: a descriptor that is open, of the namespace that we are in ourselves.
    Errno::result(unsafe { libc::setns(ours.as_raw_fd(), libc::CLONE_NEWPID) })?;
    child
}

/// Between fork and exec, in the new process.
fn enter() -> io::Result<()> {
    const PRIVATE: libc::c_ulong = libc::MS_REC | libc::MS_PRIVATE;
    const HARMLESS: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: system calls on numbers and on strings that end with a zero and live for ever.
    unsafe {
        Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        Errno::result(libc::setsid())?;
        Errno::result(libc::unshare(libc::CLONE_NEWNS))?;
        Errno::result(libc::mount(c"none".as_ptr(), c"/".as_ptr(), ptr::null(), PRIVATE, ptr::null()))?;
        let (kind, at) = (c"proc".as_ptr(), c"/proc".as_ptr());
        Errno::result(libc::mount(kind, at, kind, HARMLESS, ptr::null()))?;
    }
    Ok(())
}
