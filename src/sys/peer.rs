//! Who is at the other end of a unix socket: what the kernel wrote down when it was connected.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;

use super::pidfd::Stranger;

/// The process that connected.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) pid: i32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Its further groups.
    pub(crate) groups: Vec<u32>,
    /// Holds on to it, so that another with its number is never taken for it.
    pub(crate) process: Stranger,
}

/// `SO_PEERPIDFD` of asm-generic/socket.h, from Linux 6.5 on.
const SO_PEERPIDFD: libc::c_int = 77;

/// More groups than this no process has (NGROUPS_MAX).
const MOST_GROUPS: usize = 65_536;

impl Peer {
    /// Who connected this socket. An error where that process has ended.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Peer> {
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        option(socket, libc::SO_PEERCRED, std::slice::from_mut(&mut peer))?;
        let mut descriptor = [-1_i32];
        let process = match option(socket, SO_PEERPIDFD, &mut descriptor) {
            // SAFETY: the kernel has just given it to us, and nobody else knows of it.
            Ok(_) => Stranger::of(unsafe { OwnedFd::from_raw_fd(descriptor[0]) }),
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Stranger::hold(peer.pid)?,
            Err(error) => return Err(error),
        };
        Ok(Peer { pid: peer.pid, user: peer.uid, group: peer.gid, groups: groups(socket)?, process })
    }

    /// Whether it sees the same files, the same processes and the same users as we do. A process of a container, or one
    /// that was locked into a part of the file system, means others than we do by the same names.
    pub(crate) fn is_where_we_are(&self) -> io::Result<bool> {
        for place in ["ns/mnt", "ns/pid", "ns/user", "root"] {
            let theirs = fs::metadata(format!("/proc/{}/{place}", self.pid))?;
            let ours = fs::metadata(format!("/proc/self/{place}"))?;
            if (theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        match option(socket, libc::SO_PEERGROUPS, &mut groups) {
            Ok(count) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < MOST_GROUPS => {
                groups.resize(MOST_GROUPS, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads an option of a socket; how many values of it were written.
fn option<T>(socket: &impl AsFd, name: libc::c_int, values: &mut [T]) -> io::Result<usize> {
    let raw = socket.as_fd().as_raw_fd();
    let mut length = size_of_val(values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the values, which are as long, and plain numbers.
    Errno::result(unsafe {
        libc::getsockopt(raw, libc::SOL_SOCKET, name, values.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(length as usize / size_of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{message, process};

    #[test]
    fn a_pair_was_connected_by_us() {
        let (one, _other) = message::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!((peer.pid, peer.user), (process::id(), process::user().1));
        assert!(!peer.process.has_ended() && peer.is_where_we_are().unwrap());
    }
}
