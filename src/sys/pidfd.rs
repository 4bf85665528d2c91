//! A process that isn't our child, held on to by a pidfd: it can't be taken for another that gets its number later.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::process::Ended;

/// A process that somebody else is the parent of.
#[derive(Debug)]
pub(crate) struct Stranger(OwnedFd);

/// `struct pidfd_info` (linux/pidfd.h) in its first version. Later kernels take it as it is.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    control_group: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: how it ended, from Linux 6.15 on.
const EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = 0xc000_ff0b | ((size_of::<Info>() as libc::c_ulong) << 16);

impl Stranger {
    /// Of a pidfd that the kernel gave us.
    #[cfg(feature = "service")]
    pub(crate) fn of(descriptor: OwnedFd) -> Stranger {
        Stranger(descriptor)
    }

    /// Holds on to the process `pid`, which is an error where there is none. Whoever means a certain process looks
    /// after this whether that is the one.
    pub(crate) fn hold(pid: i32) -> io::Result<Stranger> {
        // SAFETY: plain numbers; the descriptor that it returns is closed on exec.
        let descriptor = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the kernel has just given it to us, and nobody else knows of it.
        Ok(Stranger(unsafe { OwnedFd::from_raw_fd(descriptor as i32) }))
    }

    /// Whether it has ended, reaped by its parent or not.
    pub(crate) fn has_ended(&self) -> bool {
        let mut look = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut look, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Sends it a signal; no other process gets it, whoever has its number by then.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let (descriptor, no_info) = (self.0.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: plain numbers; without a siginfo the kernel makes one as for kill(2).
        Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor, signal, no_info, 0) })?;
        Ok(())
    }

    /// How it ended. The kernel tells that from 6.15 on, and once its parent has reaped it.
    pub(crate) fn end(&self) -> Option<Ended> {
        let mut info = Info { mask: EXIT, ..Info::default() };
        // SAFETY: the kernel writes no more than the size in the request's number, which is that of `info`.
        let told = unsafe { libc::ioctl(self.0.as_raw_fd(), GET_INFO, &raw mut info) };
        if told != 0 || info.mask & EXIT == 0 {
            return None;
        }
        let status = ExitStatus::from_raw(info.exit_code);
        status.code().map(Ended::Exited).or_else(|| status.signal().map(Ended::Signaled))
    }
}

/// It can be waited for, with other things, until it has ended.
impl AsFd for Stranger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_end_of_a_process_is_seen_and_told_where_the_kernel_knows_it() {
        for (script, expected) in
            [("read x; exit 3", Ended::Exited(3)), ("read x; kill -9 $$", Ended::Signaled(9))]
        {
            let mut shell = Command::new("sh");
            let mut child = shell.arg("-c").arg(script).stdin(std::process::Stdio::piped()).spawn().unwrap();
            let stranger = Stranger::hold(child.id() as i32).unwrap();
            assert!(!stranger.has_ended() && stranger.end().is_none());
            drop(child.stdin.take());
            child.wait().unwrap();
            assert!(stranger.has_ended());
            assert!(stranger.end().is_none_or(|end| end == expected), "{:?}", stranger.end());
        }
    }
}
