//! A scripted service: for each request of a connection it does what the script says, then it hangs up.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What is done about one request.
#[derive(Clone)]
pub enum Answer {
    /// This message is sent.
    Message(Vec<u8>),
    /// This message is sent much later.
    Late(Duration, Vec<u8>),
    /// Nothing, until the other side hangs up.
    Silence,
}

const DUMP: u8 = 1;
const VERSION: u8 = 10;

/// The answer to VERSION (criu_resp: type = 1, success = 2, version = 10; each number below 128 is one byte).
pub fn version(major: u8, minor: u8, patch: u8) -> Answer {
    let version = [1 << 3, major, 2 << 3, minor, 4 << 3, patch];
    let mut message = vec![1 << 3, VERSION, 2 << 3, 1, 10 << 3 | 2, version.len() as u8];
    message.extend(version);
    Answer::Message(message)
}

/// The message that a dump went well.
pub fn success() -> Vec<u8> {
    vec![1 << 3, DUMP, 2 << 3, 1, 3 << 3 | 2, 0]
}

/// The message that a dump didn't, with this error number (cr_errno = 7).
pub fn refusal(errno: u8) -> Vec<u8> {
    vec![1 << 3, DUMP, 2 << 3, 0, 7 << 3, errno]
}

/// The running service. It ends, and its socket goes, when it is dropped.
pub struct Fake {
    listener: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Fake {
    pub fn start(path: &Path, script: Vec<Answer>) -> Fake {
        let listener = Arc::new(bind(path));
        listen(&listener, 16);
        let accepting = Arc::clone(&listener);
        let thread = thread::spawn(move || {
            while let Some(connection) = accept(&accepting) {
                serve(&connection, &script);
            }
        });
        Fake { listener, thread: Some(thread), path: path.to_owned() }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // SAFETY: a system call on a descriptor that is open. It wakes the thread that waits in accept.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        let ended = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.path);
        assert!(
            thread::panicking() || ended.is_some_and(|ended| ended.is_ok()),
            "the scripted service panicked"
        );
    }
}

fn serve(connection: &OwnedFd, script: &[Answer]) {
    for answer in script {
        if receive(connection) == 0 {
            return;
        }
        match answer {
            Answer::Message(message) => send(connection, message),
            Answer::Late(delay, message) => {
                thread::sleep(*delay);
                send(connection, message);
            }
            Answer::Silence => while receive(connection) > 0 {},
        }
    }
}

/// A socket that is bound, as it stays when a service is gone without cleaning up: nobody listens.
pub fn bind(path: &Path) -> OwnedFd {
    let _ = std::fs::remove_file(path);
    let (socket, address) = (socket(), address(path));
    // SAFETY: the address is valid, and as long as it is said to be.
    let bound =
        unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    assert_eq!(bound, 0, "bind {}: {}", path.display(), io::Error::last_os_error());
    socket
}

/// Takes connections, of which `backlog` and one more wait until they are accepted.
pub fn listen(socket: &OwnedFd, backlog: i32) {
    // SAFETY: a system call on a descriptor that is open.
    assert_eq!(unsafe { libc::listen(socket.as_raw_fd(), backlog) }, 0);
}

pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let (socket, address) = (socket(), address(path));
    // SAFETY: as in `bind`.
    match unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
    } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

fn socket() -> OwnedFd {
    // SAFETY: the descriptor is new, and ours.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0, "a socket: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(socket)
    }
}

fn address(path: &Path) -> libc::sockaddr_un {
    // SAFETY: zeros are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    let bytes = path.as_os_str().as_bytes();
    assert!(bytes.len() < address.sun_path.len(), "{} is too long for a socket", path.display());
    for (to, &from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from as libc::c_char;
    }
    address
}

fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    // SAFETY: no address is asked for; a descriptor that comes is new, and ours.
    unsafe {
        let (none, flags) = (std::ptr::null_mut(), libc::SOCK_CLOEXEC);
        let connection = libc::accept4(listener.as_raw_fd(), none, none.cast(), flags);
        (connection >= 0).then(|| OwnedFd::from_raw_fd(connection))
    }
}

/// The length of the next request; 0 when the other side has hung up.
fn receive(connection: &OwnedFd) -> isize {
    let mut buffer = [0_u8; 16 * 1024];
    // SAFETY: the kernel writes no more than the buffer holds.
    unsafe { libc::recv(connection.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) }.max(0)
}

/// That the other side has hung up meanwhile is no matter.
fn send(connection: &OwnedFd, message: &[u8]) {
    // SAFETY: the kernel reads the message, which is as long as it is said to be.
    unsafe { libc::send(connection.as_raw_fd(), message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
}
