//! Extended attributes: what a program may do by its file, and which protocol a socket speaks.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The protocol of the socket behind a link in `/proc/PID/fd`: `TCP`, `UNIX-STREAM`, `MPTCP`. None for what is no socket.
pub(crate) fn socket_protocol(link: &Path) -> Option<String> {
    let name = get(link, c"system.sockprotoname")?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// The capabilities that a program has by its file (`setcap`), a bit for each: those that it may have, if they are its
/// effective ones at once (`+ep`). None where it has none.
pub(crate) fn file_capabilities(program: &Path) -> Option<u64> {
    capabilities_in(&get(program, c"security.capability")?)
}

/// A `struct vfs_cap_data` (linux/capability.h): revision and flags, then permitted and inheritable for each half.
fn capabilities_in(data: &[u8]) -> Option<u64> {
    const EFFECTIVE: u32 = 1;
    let word = |index: usize| Some(u32::from_le_bytes(data.get(index * 4..index * 4 + 4)?.try_into().ok()?));
    let permitted = u64::from(word(1)?) | u64::from(word(3).unwrap_or(0)) << 32;
    (word(0)? & EFFECTIVE != 0).then_some(permitted)
}

/// None where it has no such attribute, or one that is far too long for what is asked for here.
fn get(path: &Path, name: &CStr) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut value = vec![0; 256];
    // SAFETY: both strings end with a zero; the kernel writes at most as many bytes as the buffer has.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_socket_names_its_protocol_and_a_file_none() {
        let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        assert_eq!(socket_protocol(Path::new(&link)).as_deref(), Some("UDP"));
        assert_eq!(socket_protocol(Path::new("/proc/self/exe")), None);
        assert_eq!(file_capabilities(Path::new("/proc/self/exe")), None);
    }

    #[test]
    fn capabilities_are_read_from_both_halves() {
        // `setcap cap_checkpoint_restore,cap_sys_ptrace+ep`: bits 40 and 19.
        let data = [1, 0, 0, 2, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(capabilities_in(&data), Some(1 << 40 | 1 << 19));
        let inheritable_only = [0, 0, 0, 2, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(capabilities_in(&inheritable_only), None);
        assert_eq!(capabilities_in(&[1, 0]), None);
    }
}
