//! Descriptors that go along with a message over a unix socket (SCM_RIGHTS in unix(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

/// As many descriptors as the kernel takes (SCM_MAX_FD).
const MOST: usize = 253;

/// The bytes of a control message with so many.
const ROOM: usize = 1032;

/// Room for a control message, aligned as its header has to be.
#[repr(C)]
union Control {
    _header: libc::cmsghdr,
    _bytes: [u8; ROOM],
}

/// Sends one message that descriptors go along with. There has to be room for it.
pub(crate) fn send(socket: &impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let size = size_of_val(descriptors) as u32;
    if descriptors.len() > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let mut control = Control { _bytes: [0; ROOM] };
    with_header(message.as_ptr().cast_mut(), message.len(), &mut control, |header| {
        // SAFETY: the control buffer is aligned and not smaller than what the descriptors take, so there is a first header,
        // and room behind it for the numbers.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size) as usize;
            let first = libc::CMSG_FIRSTHDR(header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size) as usize;
            let numbers = libc::CMSG_DATA(first).cast::<RawFd>();
            for (at, descriptor) in descriptors.iter().enumerate() {
                ptr::write_unaligned(numbers.add(at), descriptor.as_raw_fd());
            }
        }
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: the header leads to buffers that live until the call returns.
        Errno::result(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), header, flags) })
    })?;
    Ok(())
}

/// Takes a message that is there, with the descriptors that come along with it; they are closed on exec.
#[cfg(feature = "service")]
pub(crate) fn receive(socket: &impl AsFd, most: usize) -> io::Result<(Vec<u8>, Vec<std::os::fd::OwnedFd>)> {
    use std::os::fd::{FromRawFd, OwnedFd};

    let mut message = vec![0; most];
    let mut control = Control { _bytes: [0; ROOM] };
    let mut descriptors = Vec::new();
    let (start, length) = (message.as_mut_ptr(), message.len());
    let taken = with_header(start, length, &mut control, |header| {
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        // SAFETY: the header leads to buffers that live until the call returns.
        let taken = Errno::result(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), header, flags) })?;
        // SAFETY: the kernel has written whole control messages, as many bytes as the header says now.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !next.is_null() {
            // SAFETY: `next` is a control message of the kernel's, and what is in one of SCM_RIGHTS is descriptors,
            // which are ours from now on.
            unsafe {
                if ((*next).cmsg_level, (*next).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                    let bytes = (*next).cmsg_len - libc::CMSG_LEN(0) as usize;
                    let first = libc::CMSG_DATA(next).cast::<RawFd>();
                    let numbers =
                        (0..bytes / size_of::<RawFd>()).map(|at| ptr::read_unaligned(first.add(at)));
                    descriptors.extend(numbers.map(|number| OwnedFd::from_raw_fd(number)));
                }
                next = libc::CMSG_NXTHDR(header, next);
            }
        }
        Ok(taken)
    })?;
    message.truncate(taken.unsigned_abs());
    Ok((message, descriptors))
}

/// Has something done with the header of a message that is in one piece.
fn with_header(
    message: *mut u8,
    length: usize,
    control: &mut Control,
    mut call: impl FnMut(&mut libc::msghdr) -> nix::Result<isize>,
) -> io::Result<isize> {
    let mut piece = libc::iovec { iov_base: message.cast(), iov_len: length };
    loop {
        // SAFETY: a msghdr is plain data, for which zeros are valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut piece;
        header.msg_iovlen = 1;
        header.msg_control = ptr::from_mut(control).cast();
        header.msg_controllen = size_of::<Control>();
        match call(&mut header) {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(all(test, feature = "service"))]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::super::message;
    use super::*;

    #[test]
    fn a_descriptor_comes_along_with_its_message() {
        let (ours, theirs) = message::pair().unwrap();
        let file = File::open("/proc/self/comm").unwrap();
        send(&theirs, b"this one", &[file.as_fd()]).unwrap();
        drop(file);
        let (message, mut descriptors) = receive(&ours, 100).unwrap();
        assert_eq!((message.as_slice(), descriptors.len()), (b"this one".as_slice(), 1));
        let mut text = String::new();
        File::from(descriptors.remove(0)).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
    }
}
