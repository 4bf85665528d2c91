//! Unix sockets and who is at their other ends, asked of the kernel (sock_diag(7)), which tells it nowhere else.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// What is known of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnixSocket {
    pub(crate) is_datagram: bool,
    /// The inode of the socket that it is connected to.
    pub(crate) peer: Option<u64>,
}

/// Of linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h; libc has none of them.
const NETLINK_SOCK_DIAG: libc::c_int = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;

/// The sizes of `struct nlmsghdr`, of `struct unix_diag_msg`, and of `struct nlattr`.
const HEADER: usize = 16;
const SOCKET: usize = 16;
const ATTRIBUTE: usize = 4;

/// The unix sockets of our network namespace, by inode.
pub(crate) fn unix_sockets() -> io::Result<HashMap<u64, UnixSocket>> {
    let kernel = connect()?;
    ask(&kernel)?;
    let mut sockets = HashMap::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        // SAFETY: the buffer is writable for its length until the call returns.
        let length = Errno::result(unsafe {
            libc::recv(kernel.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
        });
        let length = match length {
            Err(Errno::EINTR) => continue,
            length => length?.unsigned_abs(),
        };
        if length == 0 || take(&buffer[..length], &mut sockets)? {
            return Ok(sockets);
        }
    }
}

fn connect() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_NETLINK, kind, NETLINK_SOCK_DIAG) })?;
    // SAFETY: the call succeeded, so it is open and nobody else's.
    super::process::off_the_streams(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Asks for all unix sockets, whatever their state, with their peers.
fn ask(kernel: &OwnedFd) -> io::Result<()> {
    let mut request = Vec::new();
    let length = (HEADER + 24) as u32;
    request.extend(length.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence and port.
    request.extend([0; 8]);
    // struct unix_diag_req: family, protocol and padding, states, inode, what to show, cookie.
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(UDIAG_SHOW_PEER.to_ne_bytes());
    request.extend([0; 8]);
    // SAFETY: the buffer is readable for its length until the call returns.
    Errno::result(unsafe { libc::send(kernel.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) })?;
    Ok(())
}

/// Takes in one part of the answer; true when it was the last.
fn take(mut answer: &[u8], sockets: &mut HashMap<u64, UnixSocket>) -> io::Result<bool> {
    while let Some((message, kind, rest)) = split(answer, HEADER, 4) {
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(message, HEADER).unwrap_or(0) as i32;
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            _ => sockets.extend(socket(&message[HEADER..])),
        }
        answer = rest;
    }
    Ok(false)
}

/// The first message or attribute, whose length stands at its start in two or four bytes, with its kind behind that;
/// and what follows, each at a multiple of four.
fn split(bytes: &[u8], head: usize, length_size: usize) -> Option<(&[u8], u16, &[u8])> {
    let length = match length_size {
        4 => number(bytes, 0)? as usize,
        _ => usize::from(short(bytes, 0)?),
    };
    let kind = short(bytes, length_size)?;
    if length < head {
        return None;
    }
    let message = bytes.get(..length)?;
    Some((message, kind, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A `struct unix_diag_msg` (family, type, state, padding, inode, cookie) and its attributes.
fn socket(message: &[u8]) -> Option<(u64, UnixSocket)> {
    let is_datagram = i32::from(*message.get(1)?) == libc::SOCK_DGRAM;
    let inode = number(message, 4)?;
    let (mut attributes, mut peer) = (message.get(SOCKET..)?, None);
    while let Some((attribute, kind, rest)) = split(attributes, ATTRIBUTE, 2) {
        if kind == UNIX_DIAG_PEER {
            // A peer that has been closed has no inode any more.
            peer = number(attribute, ATTRIBUTE).filter(|&inode| inode != 0).map(u64::from);
        }
        attributes = rest;
    }
    Some((inode.into(), UnixSocket { is_datagram, peer }))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn inode(socket: &impl AsFd) -> u64 {
        std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap().ino()
    }

    #[test]
    fn the_ends_of_a_connection_know_each_other() {
        let (one, other) = UnixStream::pair().unwrap();
        let (datagram, _peer) = UnixDatagram::pair().unwrap();
        let (left, gone) = UnixStream::pair().unwrap();
        drop(gone);
        let lonely = UnixDatagram::unbound().unwrap();
        let sockets = unix_sockets().unwrap();
        let of = |socket: u64| sockets[&socket];
        assert_eq!(of(inode(&one)), UnixSocket { is_datagram: false, peer: Some(inode(&other)) });
        assert_eq!(of(inode(&other)).peer, Some(inode(&one)));
        assert!(of(inode(&datagram)).is_datagram && of(inode(&datagram)).peer.is_some());
        assert_eq!(of(inode(&left)).peer, None);
        assert_eq!(of(inode(&lonely)), UnixSocket { is_datagram: true, peer: None });
    }

    #[test]
    fn an_answer_that_is_cut_ends_without_harm() {
        let mut sockets = HashMap::new();
        for length in 0..HEADER + SOCKET {
            let mut answer = vec![0; length];
            if length >= 4 {
                answer[..4].copy_from_slice(&((HEADER + SOCKET) as u32).to_ne_bytes());
            }
            assert!(!take(&answer, &mut sockets).unwrap());
        }
        assert!(sockets.is_empty());
    }
}
