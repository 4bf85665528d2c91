//! Puts things in CRIU's way, one after the other, and asks for a checkpoint each time. For each it prints
//! `ID | KIND | MESSAGE | HINT` of the error, and `ID | saved` where a checkpoint was made all the same. The last line
//! is for a checkpoint with nothing in the way. It works in the current folder.

use std::any::Any;
use std::fs::{self, File};
use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use selfdump::Outcome;

/// What is in the way as long as it isn't dropped.
type Obstacle = Box<dyn Any>;

/// Puts it there.
type Put = fn() -> Result<Obstacle>;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let handle = selfdump::install()?;
    let try_it = |id: &str| {
        let said = match handle.checkpoint() {
            Ok(Outcome::Saved(_) | Outcome::Restored(_)) => "saved".to_owned(),
            Err(error) => format!("{} | {error} | {}", error.kind().name(), error.hint().unwrap_or_default()),
        };
        writeln!(std::io::stdout(), "{id} | {said}")
    };
    for (id, put) in OBSTACLES {
        let _in_the_way = put()?;
        try_it(id)?;
    }
    try_it("nothing")?;
    Ok(())
}

/// By the id of the rule that explains what comes of it.
const OBSTACLES: &[(&str, Put)] = &[
    ("pipe-of-packets", pipe_of_packets),
    ("credentials-in-queue", credentials_in_queue),
    ("netlink-unread", netlink_unread),
    ("unix-hung-up", unix_hung_up),
    ("tcp-not-accepted", tcp_not_accepted),
    ("udp-corked", udp_corked),
    ("huge-memfd", huge_memfd),
    ("pidfd-outside", pidfd_outside),
    ("sysv-shared-memory", sysv_shared_memory),
    ("watched-file", watched_file),
    ("name-lost", name_lost),
    ("nested-namespace", nested_namespace),
];

fn pipe_of_packets() -> Result<Obstacle> {
    let mut ends = [0; 2];
    // SAFETY: pipe2(2) writes two numbers.
    checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_DIRECT | libc::O_CLOEXEC) })?;
    let [reader, mut writer] = ends.map(|end| File::from(owned(end)));
    writer.write_all(b"packet")?;
    Ok(Box::new((reader, writer)))
}

fn credentials_in_queue() -> Result<Obstacle> {
    let (mut writer, reader) = UnixStream::pair()?;
    set(&reader, libc::SOL_SOCKET, libc::SO_PASSCRED)?;
    writer.write_all(b"with credentials")?;
    Ok(Box::new((writer, reader)))
}

/// Asks the kernel for its network devices, and doesn't read the answer.
fn netlink_unread() -> Result<Obstacle> {
    const GET_LINKS: u16 = 18;
    const REQUEST_DUMP: u16 = 0x301;
    // SAFETY: socket(2) takes numbers only.
    let socket = checked(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    let mut request = Vec::from(20_u32.to_ne_bytes());
    request.extend([GET_LINKS.to_ne_bytes(), REQUEST_DUMP.to_ne_bytes()].concat());
    request.extend([0; 12]);
    let mut socket = File::from(owned(socket));
    socket.write_all(&request)?;
    Ok(Box::new(socket))
}

fn unix_hung_up() -> Result<Obstacle> {
    let listener = UnixListener::bind("hung-up")?;
    UnixStream::connect("hung-up")?.write_all(b"gone")?;
    Ok(Box::new(listener))
}

fn tcp_not_accepted() -> Result<Obstacle> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok(Box::new((listener, client)))
}

fn udp_corked() -> Result<Obstacle> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    set(&socket, libc::IPPROTO_UDP, libc::UDP_CORK)?;
    socket.send(b"held back")?;
    Ok(Box::new(socket))
}

fn huge_memfd() -> Result<Obstacle> {
    // SAFETY: the name is a C string.
    let memory =
        checked(unsafe { libc::memfd_create(c"huge".as_ptr(), libc::MFD_HUGETLB | libc::MFD_CLOEXEC) })?;
    Ok(Box::new(owned(memory)))
}

fn pidfd_outside() -> Result<Obstacle> {
    // SAFETY: pidfd_open(2) takes numbers only.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getppid(), 0) };
    Ok(Box::new(owned(checked(pidfd as i32)?)))
}

/// Attached System V shared memory, which goes with its last user.
struct Attached(*mut libc::c_void);

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: it is attached, and nobody has a reference into it.
        unsafe { libc::shmdt(self.0) };
    }
}

fn sysv_shared_memory() -> Result<Obstacle> {
    // SAFETY: the kernel chooses an address where nothing is.
    let attached = unsafe {
        let segment = checked(libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600))?;
        let address = libc::shmat(segment, std::ptr::null(), 0);
        libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut());
        address
    };
    assert!(attached as isize != -1, "shared memory");
    Ok(Box::new(Attached(attached)))
}

/// A file in /proc can't be found by its handle.
fn watched_file() -> Result<Obstacle> {
    // SAFETY: inotify_init1(2) takes flags only, and the path is a C string.
    unsafe {
        let inotify = owned(checked(libc::inotify_init1(libc::IN_CLOEXEC))?);
        checked(libc::inotify_add_watch(
            inotify.as_raw_fd(),
            c"/proc/self/status".as_ptr(),
            libc::IN_MODIFY,
        ))?;
        Ok(Box::new(inotify))
    }
}

fn name_lost() -> Result<Obstacle> {
    let file = File::create("first-name")?;
    fs::hard_link("first-name", "second-name")?;
    fs::remove_file("first-name")?;
    Ok(Box::new(file))
}

/// A child, which ends with it.
struct Child(i32);

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: numbers only, of a child that nobody else has waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// A child in a user namespace of its own.
fn nested_namespace() -> Result<Obstacle> {
    let (mut told, teller) = UnixStream::pair()?;
    // SAFETY: the child calls nothing but system calls.
    unsafe {
        let child = checked(libc::fork())?;
        if child == 0 {
            libc::unshare(libc::CLONE_NEWUSER);
            libc::write(teller.as_raw_fd(), c"!".as_ptr().cast(), 1);
            loop {
                libc::pause();
            }
        }
        told.read_exact(&mut [0])?;
        Ok(Box::new(Child(child)))
    }
}

/// Switches a socket's option on.
fn set(socket: &impl AsRawFd, level: i32, option: i32) -> Result<()> {
    let on: i32 = 1;
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is an int, as these options want it, and so large.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) })?;
    Ok(())
}

fn checked(result: i32) -> Result<i32> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the call before has just opened it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
