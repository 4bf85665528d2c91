//! Terminals: whether there is one, its size, its mode, and pseudoterminals.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use super::process::off_the_streams;

/// The size of a terminal where nobody has one: that of the VT100, which programs take for granted.
const CLASSIC: Size = Size(libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 });

/// Rows and columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(libc::winsize);

impl Size {
    /// That of the first of our standard streams that is a terminal.
    pub(crate) fn ours() -> Size {
        ours().and_then(|terminal| size_of(terminal.as_fd()).ok()).unwrap_or(CLASSIC)
    }
}

fn size_of(terminal: BorrowedFd<'_>) -> io::Result<Size> {
    // SAFETY: the size is written to a value that lives until the call returns; zeros are valid for it.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        Errno::result(libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size))?;
        Ok(Size(size))
    }
}

/// Gives a terminal a size; the kernel tells those who use it.
pub(crate) fn resize(terminal: &impl AsFd, size: Size) -> io::Result<()> {
    // SAFETY: the size is read from a value that lives until the call returns.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size.0) })?;
    Ok(())
}

/// A duplicate of the first of our standard streams that is a terminal.
pub(crate) fn ours() -> Option<OwnedFd> {
    use std::io::IsTerminal;
    (0..=2)
        .filter_map(|stream| super::process::standard_stream(stream).ok())
        .find(|stream| stream.is_terminal())
}

/// Where keys come from that are meant for us.
#[derive(Debug)]
pub(crate) enum Keys {
    /// Our standard input is a terminal, and we are who it is for now.
    Terminal(OwnedFd),
    /// It is a terminal, and somebody else's at the moment: to read from it would stop us.
    Elsewhere,
    /// It is no terminal.
    Stream,
}

impl Keys {
    /// What our standard input is now.
    pub(crate) fn ours() -> io::Result<Keys> {
        use std::io::IsTerminal;
        let input = super::process::standard_stream(0)?;
        Ok(match input.is_terminal() {
            false => Keys::Stream,
            // One that is not our controlling terminal tells nothing, and stops nobody.
            true if tcgetpgrp(&input).is_ok_and(|group| group != getpgrp()) => Keys::Elsewhere,
            true => Keys::Terminal(input),
        })
    }
}

/// Whether there is something to read from a pseudoterminal within a time, or it has hung up.
pub(crate) fn has_more(master: &impl AsFd, within: Duration) -> bool {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    // Interrupted, it is asked again by who waits.
    poll(&mut [PollFd::new(master.as_fd(), PollFlags::POLLIN)], timeout) != Ok(0)
}

/// A new pseudoterminal: its master and its slave, both closed on exec. It becomes nobody's controlling terminal by
/// this.
pub(crate) fn open_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave: File =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(ptsname_r(&master)?)?;
    let slave = off_the_streams(slave.into())?;
    // SAFETY: posix_openpt has given it to us alone.
    let master = unsafe { OwnedFd::from_raw_fd(master.into_raw_fd()) };
    Ok((off_the_streams(master)?, slave))
}

/// Has a command lead a session of its own, with its standard input for the controlling terminal. It is killed when the
/// thread that has started it is gone.
pub(crate) fn lead_a_session(command: &mut Command) {
    let lead = || {
        // SAFETY: system calls on numbers, which is all that may be done between fork and exec.
        unsafe {
            Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            Errno::result(libc::setsid())?;
            Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
        }
        Ok(())
    };
    // SAFETY: the closure is async-signal-safe and allocates nothing.
    unsafe { command.pre_exec(lead) };
}

/// A terminal of ours that passes everything on as it is typed; it is as it was when this is dropped.
#[derive(Debug)]
pub(crate) struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    pub(crate) fn make(terminal: OwnedFd) -> io::Result<Raw> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Raw { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
