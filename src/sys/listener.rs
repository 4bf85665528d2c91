//! The socket of a service: its own, or one that systemd listens at for it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::message::{KIND, address};
use super::process::{self, off_the_streams};

/// Connections that wait to be taken; more wait in their `connect`.
const BACKLOG: libc::c_int = 128;

/// The number of the first descriptor that systemd hands over (sd_listen_fds(3)).
const FIRST_HANDED_OVER: i32 = 3;

/// A socket that is listened at.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    /// What is to be removed at the end; nothing where systemd keeps the socket.
    path: Option<PathBuf>,
}

impl Listener {
    /// Listens at a path, for everybody. What an earlier service has left there is taken away; where one answers, that
    /// is an error of the kind `AddrInUse`.
    pub(crate) fn at(path: &Path) -> io::Result<Listener> {
        remove_what_is_left(path)?;
        let address = address(path)?;
        // SAFETY: no memory is passed.
        let socket = Errno::result(unsafe { libc::socket(libc::AF_UNIX, KIND | libc::SOCK_NONBLOCK, 0) })?;
        // SAFETY: the call succeeded, so it is open and nobody else's.
        let socket = off_the_streams(unsafe { OwnedFd::from_raw_fd(socket) })?;
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        // SAFETY: the address is a whole sockaddr_un, which lives until the call returns.
        Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        let listener = Listener { socket, path: Some(path.to_owned()) };
        // Nobody can connect before it is listened at.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        // SAFETY: plain numbers.
        Errno::result(unsafe { libc::listen(listener.socket.as_raw_fd(), BACKLOG) })?;
        Ok(listener)
    }

    /// The socket that systemd has handed over to this process, if it has.
    pub(crate) fn handed_over() -> io::Result<Option<Listener>> {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
        match (number("LISTEN_PID"), number("LISTEN_FDS")) {
            (Some(pid), Some(1)) if pid == process::id() => {}
            (Some(pid), Some(count)) if pid == process::id() => {
                return Err(io::Error::other(format!("{count} sockets were handed over, and one is served")));
            }
            _ => return Ok(None),
        }
        let mut listens: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
        // SAFETY: the kernel writes at most `length` bytes to `listens`, which is as long. What isn't open, or no socket, is
        // an error.
        Errno::result(unsafe {
            libc::getsockopt(FIRST_HANDED_OVER, level, option, (&raw mut listens).cast(), &raw mut length)
        })?;
        if listens == 0 {
            return Err(io::Error::other("what was handed over isn't listened at"));
        }
        // SAFETY: it is open, and nobody else in this process knows of it.
        let socket = unsafe { OwnedFd::from_raw_fd(FIRST_HANDED_OVER) };
        // SAFETY: plain numbers.
        unsafe {
            Errno::result(libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC))?;
            Errno::result(libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK))?;
        }
        Ok(Some(Listener { socket, path: None }))
    }

    /// Takes the next connection; none where it has gone again.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let (raw, null) = (self.socket.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: the address of the other end is not asked for.
        match Errno::result(unsafe { libc::accept4(raw, null, null.cast(), libc::SOCK_CLOEXEC) }) {
            // SAFETY: the call succeeded, so it is open and nobody else's.
            Ok(socket) => Ok(Some(off_the_streams(unsafe { OwnedFd::from_raw_fd(socket) })?)),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The socket's file goes; systemd's stays, being systemd's.
impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn remove_what_is_left(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => match super::message::connect(path, Instant::now()) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => fs::remove_file(path),
        },
    }
}

/// Waits until one of these can be read from, has ended or was hung up; which. None when the deadline comes first.
pub(crate) fn first_ready(of: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<Option<usize>> {
    first_of(of.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN)).collect(), deadline)
}

/// The same, with a last one that has to be hung up: what can be read there is for somebody else.
pub(crate) fn first_ready_or_hung_up(
    of: &[BorrowedFd<'_>],
    socket: BorrowedFd<'_>,
    deadline: Option<Instant>,
) -> io::Result<Option<usize>> {
    let ready = of.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN));
    first_of(ready.chain([PollFd::new(socket, PollFlags::empty())]).collect(), deadline)
}

fn first_of(mut asked: Vec<PollFd<'_>>, deadline: Option<Instant>) -> io::Result<Option<usize>> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut asked, timeout) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(None),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(asked.iter().position(|fd| fd.any().unwrap_or(false))),
            Err(errno) => return Err(errno.into()),
        }
    }
}
