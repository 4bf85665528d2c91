//! Whole messages over a SOCK_SEQPACKET socket, with a deadline.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fork;
use super::process::off_the_streams;

/// What CRIU speaks over; closed on exec.
pub(super) const KIND: libc::c_int = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;

/// How long a receiver whose deadline has passed looks once more. A process that was frozen finds its
/// deadline gone when it thaws, while the answer is just being sent.
pub(crate) const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How long a receiver waits between two looks whether the peer is still there.
const TURN: Duration = Duration::from_millis(500);

/// The largest message taken. CRIU's answers are a few hundred bytes; this only bounds what a peer that
/// talks garbage can make us allocate.
const LARGEST: usize = 1 << 20;

/// What came out of a receive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A message, which may be empty.
    Message(Vec<u8>),
    /// The peer has closed its end.
    EndOfFile,
    /// Nothing came in time.
    TimedOut,
}

/// A connected pair of sockets, both closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: two descriptors are written to the array.
    Errno::result(unsafe { libc::socketpair(libc::AF_UNIX, KIND, 0, ends.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both are open and nobody else's.
    let (one, other) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    let (one, other) = (off_the_streams(one)?, off_the_streams(other)?);
    fork::ours(&one);
    fork::ours(&other);
    Ok((one, other))
}

/// Connects to a service's socket. A backlog that stays full until the deadline is a time-out.
pub(crate) fn connect(path: &Path, deadline: Instant) -> io::Result<OwnedFd> {
    let address = address(path)?;
    // SAFETY: no memory is passed.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_UNIX, KIND | libc::SOCK_NONBLOCK, 0) })?;
    // SAFETY: the call succeeded, so it is open and nobody else's.
    let socket = off_the_streams(unsafe { OwnedFd::from_raw_fd(socket) })?;
    fork::ours(&socket);
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    loop {
        // SAFETY: the address is a whole sockaddr_un, which lives until the call returns.
        let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
        match Errno::result(connected) {
            Ok(_) => return Ok(socket),
            Err(Errno::EINTR) => {}
            // A unix socket can't be polled for room in the backlog.
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The user of the process at the other end, as it was when the socket was connected or began to listen.
pub(crate) fn peer_user(socket: &impl AsFd) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let raw = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to `peer`, which is as long.
    Errno::result(unsafe {
        libc::getsockopt(raw, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut length)
    })?;
    Ok(peer.uid)
}

/// A path as a socket's address, which has room for 107 bytes of it.
pub(super) fn address(path: &Path) -> io::Result<libc::sockaddr_un> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: a sockaddr_un is plain data, for which zeros are valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path that a socket can have"));
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, &from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from as libc::c_char;
    }
    Ok(address)
}

/// Sends one message. A peer that is gone is an error, not a SIGPIPE.
pub(crate) fn send(socket: &impl AsFd, message: &[u8], deadline: Instant) -> io::Result<()> {
    let raw = socket.as_fd().as_raw_fd();
    loop {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: the buffer is readable for its length until the call returns.
        match Errno::result(unsafe { libc::send(raw, message.as_ptr().cast(), message.len(), flags) }) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                if !wait(socket, PollFlags::POLLOUT, deadline)? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one message, whole: its length is looked at before room is made for it. The end of a peer isn't told by its
/// connection where others have that end as well, so it is looked whether it `is_there`.
pub(crate) fn receive(
    socket: &impl AsFd,
    deadline: Instant,
    mut is_there: impl FnMut() -> bool,
) -> io::Result<Received> {
    let comes_by = |time| wait(socket, PollFlags::POLLIN, time);
    while !comes_by(deadline.min(Instant::now() + TURN))? {
        // What it has said before its end is there by now.
        if !is_there() && !comes_by(Instant::now())? {
            return Ok(Received::EndOfFile);
        }
        if Instant::now() >= deadline && !comes_by(Instant::now() + SECOND_LOOK)? {
            return Ok(Received::TimedOut);
        }
    }
    read(socket, LARGEST, 0)
}

/// Receives a message, whole, if there is one by now; else that is as a deadline that has passed.
pub(crate) fn receive_what_is_there(socket: &impl AsFd) -> io::Result<Received> {
    match wait(socket, PollFlags::POLLIN, Instant::now())? {
        true => read(socket, LARGEST, 0),
        false => Ok(Received::TimedOut),
    }
}

/// Looks at the message that comes next, whole, and leaves it there for whoever receives it. A message that has been
/// sent can't be changed any more. One of more than `largest` bytes is an error of the kind `InvalidData`.
#[cfg(feature = "service")]
pub(crate) fn peek(socket: &impl AsFd, largest: usize, deadline: Instant) -> io::Result<Received> {
    match wait(socket, PollFlags::POLLIN, deadline)? {
        true => read(socket, largest, libc::MSG_PEEK),
        false => Ok(Received::TimedOut),
    }
}

/// Ends a connection so that the other end reads what was said to it: where something is left unread it would get an error
/// first. Nothing more can be sent by then, so what there is has an end.
#[cfg(feature = "service")]
pub(crate) fn finish(socket: OwnedFd) {
    // SAFETY: plain numbers.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) };
    let mut nothing = [];
    while take(&socket, &mut nothing, libc::MSG_DONTWAIT | libc::MSG_TRUNC).is_ok_and(|length| length > 0) {}
}

/// Reads the message that is there.
fn read(socket: &impl AsFd, largest: usize, flags: libc::c_int) -> io::Result<Received> {
    let length = take(socket, &mut [], libc::MSG_PEEK | libc::MSG_TRUNC)?;
    if length == 0 && hung_up(socket)? {
        return Ok(Received::EndOfFile);
    }
    if length > largest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut message = vec![0; length];
    let taken = take(socket, &mut message, flags)?;
    message.truncate(taken);
    Ok(Received::Message(message))
}

fn take(socket: &impl AsFd, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    let raw = socket.as_fd().as_raw_fd();
    // SAFETY: the buffer is writable for its length until the call returns.
    retry(|| Errno::result(unsafe { libc::recv(raw, buffer.as_mut_ptr().cast(), buffer.len(), flags) }))
        .map(isize::unsigned_abs)
}

/// Waits until the socket is ready for `event`; false when the deadline comes first.
fn wait(socket: &impl AsFd, event: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last millisecond isn't spent spinning.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), event)], timeout) {
            Ok(0) if Instant::now() >= deadline => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A read of nothing is the end only when the peer has hung up; else it is a message without bytes.
fn hung_up(socket: &impl AsFd) -> io::Result<bool> {
    // A hang-up is told without being asked for.
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    retry(|| poll(&mut asked, PollTimeout::ZERO))?;
    Ok(asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn hear(socket: &OwnedFd, deadline: Instant) -> io::Result<Received> {
        receive(socket, deadline, || true)
    }

    #[test]
    fn a_message_larger_than_any_fixed_buffer_comes_whole() {
        let (ours, theirs) = pair().unwrap();
        let message: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        send(&theirs, &message, soon()).unwrap();
        assert_eq!(hear(&ours, soon()).unwrap(), Received::Message(message));
    }

    #[test]
    fn an_empty_message_is_no_end_of_file() {
        let (ours, theirs) = pair().unwrap();
        send(&theirs, &[], soon()).unwrap();
        assert_eq!(hear(&ours, soon()).unwrap(), Received::Message(vec![]));
        drop(theirs);
        assert_eq!(hear(&ours, soon()).unwrap(), Received::EndOfFile);
    }

    #[test]
    fn messages_keep_their_borders() {
        let (ours, theirs) = pair().unwrap();
        send(&theirs, b"one", soon()).unwrap();
        send(&theirs, b"two", soon()).unwrap();
        assert_eq!(hear(&ours, soon()).unwrap(), Received::Message(b"one".to_vec()));
        assert_eq!(hear(&ours, soon()).unwrap(), Received::Message(b"two".to_vec()));
    }

    #[test]
    fn a_peer_that_says_nothing_runs_into_the_deadline() {
        let (ours, _theirs) = pair().unwrap();
        assert_eq!(hear(&ours, Instant::now()).unwrap(), Received::TimedOut);
    }

    #[test]
    fn a_peer_that_is_gone_is_heard_out_though_somebody_else_has_its_end() {
        let (ours, theirs) = pair().unwrap();
        send(&theirs, b"last", soon()).unwrap();
        let hear = || receive(&ours, Instant::now() + Duration::from_secs(600), || false).unwrap();
        assert_eq!((hear(), hear()), (Received::Message(b"last".to_vec()), Received::EndOfFile));
    }

    #[test]
    fn an_answer_that_came_while_the_clock_ran_out_is_still_read() {
        let (ours, theirs) = pair().unwrap();
        send(&theirs, b"late", soon()).unwrap();
        let long_gone = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now);
        assert_eq!(hear(&ours, long_gone).unwrap(), Received::Message(b"late".to_vec()));
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error_and_no_signal() {
        let (ours, theirs) = pair().unwrap();
        drop(theirs);
        let error = send(&ours, b"hello", soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
