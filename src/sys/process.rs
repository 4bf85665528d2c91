//! Who we are, who waits for whom.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::wait::{self, WaitPidFlag, WaitStatus};
use nix::unistd::{self, Pid};

/// Our process id. Async-signal-safe, and right in a forked child as well.
pub(crate) fn id() -> i32 {
    // SAFETY: getpid has no arguments and can't fail.
    unsafe { libc::getpid() }
}

/// The calling thread's id. Async-signal-safe.
pub(crate) fn thread() -> i32 {
    // SAFETY: gettid has no arguments and can't fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// The calling thread by its name; by its id where it has none.
pub(crate) fn thread_name() -> String {
    let current = std::thread::current();
    current.name().map_or_else(|| format!("thread {}", thread()), str::to_owned)
}

/// Kills those of the processes that still are our descendants.
pub(crate) fn kill_descendants(pids: &[i32]) {
    for pid in super::procfs::tree(id()).into_iter().filter(|pid| *pid != id() && pids.contains(pid)) {
        // One that has ended meanwhile is gone as well.
        let _ = super::signal::kill(pid);
    }
}

/// Ends the process with `status`, and with nothing else: no buffer is flushed, no destructor or exit handler runs.
pub(crate) fn exit_at_once(status: u8) -> ! {
    // SAFETY: it doesn't return.
    unsafe { libc::_exit(status.into()) }
}

/// Has the kernel give no more memory in transparent huge pages to this process and those that it starts.
pub(crate) fn refuse_huge_pages() -> io::Result<()> {
    // SAFETY: PR_SET_THP_DISABLE takes plain numbers, of which those that mean nothing have to be zero.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) })?;
    Ok(())
}

/// Whether we run with root's rights.
pub(crate) fn is_root() -> bool {
    unistd::geteuid().is_root()
}

/// Whether we have CAP_SYS_ADMIN, which root of a container may lack.
pub(crate) fn may_administer() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> CAP_SYS_ADMIN & 1 == 1)
}

/// Our real and effective user id.
pub(crate) fn user() -> (u32, u32) {
    (unistd::getuid().as_raw(), unistd::geteuid().as_raw())
}

/// Our effective group id.
pub(crate) fn group() -> u32 {
    unistd::getegid().as_raw()
}

/// The process group of a process; none where it has ended.
pub(crate) fn group_of(pid: i32) -> Option<i32> {
    unistd::getpgid(Some(Pid::from_raw(pid))).ok().map(Pid::as_raw)
}

/// Whether a process id can be given to a new process: no process, thread, group or session has it. `/proc` doesn't tell:
/// a process is gone from there while its parent is still about to reap it, and others may be hidden from us.
pub(crate) fn is_free(pid: i32) -> io::Result<bool> {
    let (pipe, _) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    // Nothing is ever signalled for this pipe; whom it would be for is looked up among the numbers themselves.
    // SAFETY: plain numbers.
    match Errno::result(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETOWN, pid) }) {
        Ok(_) => Ok(false),
        Err(Errno::ESRCH) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Moves a descriptor of ours away from 0, 1 and 2, which a daemon may have closed: what it prints all the
/// same must not go to us.
pub(crate) fn off_the_streams(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() > 2 {
        return Ok(descriptor);
    }
    // A duplicate that std makes is closed on exec, and 3 at least.
    descriptor.try_clone()
}

/// Opens /dev/null in the place of standard streams that are closed, as the standard library does before main. Until
/// then a file of ours could get such a number, and have what the program prints.
pub(crate) fn fill_the_streams() -> io::Result<()> {
    // The lowest number that is free is what each gets; a program that is started is to have them as well.
    loop {
        let null = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        // It is the program's from now on.
        let _ = null.into_raw_fd();
    }
}

/// A duplicate of one of our standard streams: 0, 1 or 2.
pub(crate) fn standard_stream(number: i32) -> io::Result<OwnedFd> {
    match number {
        0 => io::stdin().as_fd().try_clone_to_owned(),
        1 => io::stdout().as_fd().try_clone_to_owned(),
        _ => io::stderr().as_fd().try_clone_to_owned(),
    }
}

/// Whether orphans among our descendants become our children: we asked for it, or are PID 1.
pub(crate) fn adopts_orphans() -> bool {
    let mut subreaper: libc::c_int = 0;
    // SAFETY: PR_GET_CHILD_SUBREAPER writes one int to the address given.
    let asked = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut subreaper) };
    id() == 1 || (asked == 0 && subreaper != 0)
}

/// Has orphans among our descendants become our children, so that what a program leaves behind can be found. It isn't
/// inherited.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes a plain number.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })?;
    Ok(())
}

/// Whether we were started with more rights than our user has (setuid, file capabilities).
pub(crate) fn is_privileged_start() -> bool {
    // SAFETY: getauxval only reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal.
    Signaled(i32),
    /// Somebody else has reaped it already.
    Unknown,
}

/// Looks whether a child has ended, without waiting for it.
pub(crate) fn try_wait(pid: i32) -> io::Result<Option<Ended>> {
    wait_for(pid, WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)
}

/// Waits for a child to end.
pub(crate) fn wait(pid: i32) -> io::Result<Ended> {
    loop {
        if let Some(ended) = wait_for(pid, WaitPidFlag::__WALL)? {
            return Ok(ended);
        }
    }
}

/// Whether a child has ended; it is left to be waited for.
pub(crate) fn has_ended(pid: i32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    wait::waitid(wait::Id::Pid(Pid::from_raw(pid)), flags) != Ok(WaitStatus::StillAlive)
}

/// Waits until a child has ended, and leaves it to be waited for.
pub(crate) fn see_the_end(pid: i32) -> io::Result<Ended> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    loop {
        match wait::waitid(wait::Id::Pid(Pid::from_raw(pid)), flags) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(Ended::Exited(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ended::Signaled(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Looks whether any child has ended, and reaps it: which, and how. None where none has.
pub(crate) fn reap() -> io::Result<Option<(i32, Ended)>> {
    match wait::waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
        Ok(WaitStatus::Exited(pid, status)) => Ok(Some((pid.as_raw(), Ended::Exited(status)))),
        Ok(WaitStatus::Signaled(pid, signal, _)) => Ok(Some((pid.as_raw(), Ended::Signaled(signal as i32)))),
        Ok(_) | Err(Errno::EINTR | Errno::ECHILD) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn wait_for(pid: i32, flags: WaitPidFlag) -> io::Result<Option<Ended>> {
    match wait::waitpid(Pid::from_raw(pid), Some(flags)) {
        Ok(WaitStatus::Exited(_, status)) => Ok(Some(Ended::Exited(status))),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Ended::Signaled(signal as i32))),
        Ok(_) | Err(Errno::EINTR) => Ok(None),
        // The program's own waitpid(-1) came first: gone is all that we wanted to know.
        Err(Errno::ECHILD) => Ok(Some(Ended::Unknown)),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn an_id_is_free_when_its_process_was_reaped_and_its_group_is_gone() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 >&- & echo $!"]).stdout(Stdio::piped()).process_group(0);
        let child = shell.spawn().unwrap();
        let pid = child.id() as i32;
        see_the_end(pid).unwrap();
        assert!(!is_free(pid).unwrap(), "nobody has waited for it");
        let left = child.wait_with_output().unwrap().stdout;
        assert!(!is_free(pid).unwrap(), "it still is a group");
        let left = String::from_utf8(left).unwrap().trim().parse().unwrap();
        super::super::signal::kill(left).unwrap();
        let since = Instant::now();
        while !is_free(pid).unwrap() {
            assert!(since.elapsed() < Duration::from_secs(60), "somebody else is to reap an orphan");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
