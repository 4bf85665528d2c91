//! Has what no copy of it would have, one thing after the other, and asks for a checkpoint each time.
//! `hindered [seccomp | uninterruptible]`
//!
//! For each it prints `ID | KIND | MESSAGE | HINT` of the error, or `ID | saved | HOW`. The last line is for a checkpoint with
//! nothing in the way; but of a filter of system calls nobody gets rid. It works in the current folder.

use std::any::Any;
use std::ffi::c_void;
use std::fs::{self, File};
use std::io::{Error, Result, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use selfdump::Outcome;

/// What is in the way as long as it isn't dropped.
type Obstacle = Box<dyn Any>;

/// Puts it there.
type Put = fn() -> Result<Obstacle>;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let handle = selfdump::install()?;
    let try_it = |id: &str| {
        let said = match handle.checkpoint() {
            Ok(Outcome::Saved(checkpoint)) => format!("saved | {}", checkpoint.technique),
            Ok(Outcome::Restored(_)) => "restored".to_owned(),
            Err(error) => {
                format!("{} | {} | {}", error.kind().name(), error.chain(), error.hint().unwrap_or_default())
            }
        };
        writeln!(std::io::stdout(), "{id} | {}", said.replace('\n', " "))
    };
    match std::env::args().nth(1).as_deref() {
        Some("seccomp") => {
            filter_system_calls()?;
            try_it("seccomp")?;
        }
        Some("uninterruptible") => {
            let in_the_way = uninterruptible()?;
            try_it("uninterruptible")?;
            drop(in_the_way);
            try_it("nothing")?;
        }
        _ => {
            for (id, put) in OBSTACLES {
                let _in_the_way = put()?;
                try_it(id)?;
            }
            try_it("nothing")?;
        }
    }
    Ok(())
}

const OBSTACLES: &[(&str, Put)] = &[
    ("child", child),
    ("shared-mapping", shared_mapping),
    ("timer", timer),
    ("locked", locked),
    ("not-inherited", not_inherited),
    ("connection", connection),
    ("datagrams", || Ok(Box::new(UdpSocket::bind("127.0.0.1:0")?))),
    ("pair", || Ok(Box::new(UnixStream::pair()?))),
    ("without-a-name", without_a_name),
    ("named-pipe", named_pipe),
    ("inotify", inotify),
    ("memfd", memfd),
    ("adopts", adopts),
    ("thread-of-other-rights", thread_of_other_rights),
];

/// A process that ends with it.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child() -> Result<Obstacle> {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Box::new(Ends(command.spawn()?)))
}

/// A mapping that goes with it.
struct Mapping(*mut c_void);

const LENGTH: usize = 1 << 16;

impl Mapping {
    fn new(kind: i32) -> Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, which is written within its bounds.
        unsafe {
            let memory = libc::mmap(std::ptr::null_mut(), LENGTH, access, kind | libc::MAP_ANONYMOUS, -1, 0);
            if memory == libc::MAP_FAILED {
                return Err(Error::last_os_error());
            }
            memory.cast::<u8>().write_bytes(7, LENGTH);
            Ok(Mapping(memory))
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is mapped, and nobody has a reference into it.
        unsafe { libc::munmap(self.0, LENGTH) };
    }
}

fn shared_mapping() -> Result<Obstacle> {
    Ok(Box::new(Mapping::new(libc::MAP_SHARED)?))
}

fn locked() -> Result<Obstacle> {
    let memory = Mapping::new(libc::MAP_PRIVATE)?;
    // SAFETY: that memory is mapped.
    checked(unsafe { libc::mlock(memory.0, LENGTH) })?;
    Ok(Box::new(memory))
}

fn not_inherited() -> Result<Obstacle> {
    let memory = Mapping::new(libc::MAP_PRIVATE)?;
    // SAFETY: the same.
    checked(unsafe { libc::madvise(memory.0, LENGTH, libc::MADV_DONTFORK) })?;
    Ok(Box::new(memory))
}

struct Timer(libc::timer_t);

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer is there.
        unsafe { libc::timer_delete(self.0) };
    }
}

fn timer() -> Result<Obstacle> {
    let mut timer = std::ptr::null_mut();
    // SAFETY: a zeroed struct is valid, and both live until the call returns.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_NONE;
        checked(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer))?;
    }
    Ok(Box::new(Timer(timer)))
}

fn connection() -> Result<Obstacle> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    Ok(Box::new((client, server)))
}

fn without_a_name() -> Result<Obstacle> {
    let mut file = File::create("nameless")?;
    fs::remove_file("nameless")?;
    file.write_all(b"what is in it")?;
    Ok(Box::new(file))
}

fn named_pipe() -> Result<Obstacle> {
    // SAFETY: the path is a C string.
    checked(unsafe { libc::mkfifo(c"named-pipe".as_ptr(), 0o600) })?;
    Ok(Box::new(File::options().read(true).write(true).open("named-pipe")?))
}

fn inotify() -> Result<Obstacle> {
    // SAFETY: flags only, and a path that is a C string.
    unsafe {
        let inotify = libc::inotify_init1(libc::IN_CLOEXEC);
        checked(inotify)?;
        checked(libc::inotify_add_watch(inotify, c".".as_ptr(), libc::IN_CREATE))?;
        Ok(Box::new(OwnedFd::from_raw_fd(inotify)))
    }
}

fn memfd() -> Result<Obstacle> {
    // SAFETY: the name is a C string; the descriptor is ours.
    unsafe {
        let memory = libc::memfd_create(c"some".as_ptr(), libc::MFD_CLOEXEC);
        checked(memory)?;
        Ok(Box::new(OwnedFd::from_raw_fd(memory)))
    }
}

struct Adopts;

impl Drop for Adopts {
    fn drop(&mut self) {
        // SAFETY: plain values.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) };
    }
}

fn adopts() -> Result<Obstacle> {
    // SAFETY: plain values.
    checked(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    Ok(Box::new(Adopts))
}

/// A thread that ends when nobody can tell it anything any more.
struct Thread(Option<mpsc::Sender<()>>, Option<std::thread::JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.take();
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

fn thread_of_other_rights() -> Result<Obstacle> {
    let ((sender, ends), (ready, is_ready)) = (mpsc::channel(), mpsc::channel());
    let thread = std::thread::spawn(move || {
        // SAFETY: plain values.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let _ = ready.send(());
        let _ = ends.recv();
    });
    is_ready.recv().map_err(Error::other)?;
    Ok(Box::new(Thread(Some(sender), Some(thread))))
}

/// A thread that the kernel has wait, as vfork(2) does, until this is dropped. Its child is a sibling of the program, since a
/// child of the program would be in the way itself.
fn uninterruptible() -> Result<Obstacle> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [reader, writer] = ends;
    let (sender, tid) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: plain numbers.
        let _ = sender.send(unsafe { libc::gettid() });
        let flags = libc::CLONE_VFORK | libc::CLONE_PARENT;
        // SAFETY: the child has memory of its own, and makes system calls alone.
        unsafe {
            if libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) == 0 {
                libc::close(writer);
                libc::read(reader, [0_u8].as_mut_ptr().cast(), 1);
                libc::_exit(0);
            }
            libc::close(reader);
        }
    });
    let stat = format!("/proc/self/task/{}/stat", tid.recv().map_err(Error::other)?);
    while !fs::read_to_string(&stat)?.contains(") D ") {
        std::thread::yield_now();
    }
    // SAFETY: it is open, and nobody else closes it.
    Ok(Box::new((unsafe { OwnedFd::from_raw_fd(writer) }, Thread(None, Some(thread)))))
}

/// Allows all of them, to all threads.
fn filter_system_calls() -> Result<()> {
    const RETURN: u16 = 6;
    const ALLOW: u32 = 0x7fff_0000;
    const SET_FILTER: libc::c_ulong = 1;
    const ALL_THREADS: libc::c_ulong = 1;
    let mut allow = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW };
    let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
    // SAFETY: a program of one instruction, which lives until the call returns.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_FILTER, ALL_THREADS, &raw const program) };
    checked(done as i32)
}

fn checked(result: i32) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
