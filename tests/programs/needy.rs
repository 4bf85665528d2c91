//! Needs a lot to be as it was when it comes back: a TCP port (which it prints), an abstract unix socket whose name
//! ends in its process id, and in the current folder a unix socket in `sockets/`, a watch on `watched/`, and the
//! named pipe `pipe`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _handle = selfdump::install()?;
    let folder = std::env::current_dir()?;
    fs::create_dir("sockets")?;
    fs::create_dir("watched")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let in_folder = UnixListener::bind(folder.join("sockets/socket"))?;
    let name = SocketAddr::from_abstract_name(format!("needy-{}", std::process::id()))?;
    let abstract_name = UnixListener::bind_addr(&name)?;
    let watch = watch()?;
    let pipe = pipe()?;
    writeln!(std::io::stdout(), "port {}", listener.local_addr()?.port())?;
    loop {
        std::hint::black_box((&listener, &in_folder, &abstract_name, &watch, &pipe));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn watch() -> std::io::Result<OwnedFd> {
    // SAFETY: inotify_init1(2) takes flags only, and has just opened what it returns.
    let inotify = unsafe { OwnedFd::from_raw_fd(libc::inotify_init1(libc::IN_CLOEXEC)) };
    // SAFETY: the path is a C string.
    let watch = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), c"watched".as_ptr(), libc::IN_CREATE) };
    if watch < 0 { Err(std::io::Error::last_os_error()) } else { Ok(inotify) }
}

fn pipe() -> std::io::Result<File> {
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(c"pipe".as_ptr(), 0o600) }, 0, "a named pipe");
    OpenOptions::new().read(true).write(true).open("pipe")
}
