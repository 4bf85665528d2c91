//! Starting CRIU's worker from inside somebody else's program.
//!
//! The program may be large, have many threads and handle its own children, so the worker is started as
//! `posix_spawn` does it, by `clone(2)` with CLONE_VM and CLONE_VFORK: no page table is copied, no
//! `pthread_atfork` handler runs. Two things differ, which is why `posix_spawn` itself won't do:
//!
//! - the exit signal of the clone is 0, so the program gets no SIGCHLD, and a plain `waitpid(-1)` of its
//!   own doesn't meet our child;
//! - a *detached* worker is cloned a second time from the first clone, which starts a process group and ends
//!   at once: the worker is an orphan, outside of the program's tree, before anything is asked of it. What it
//!   must not outlive is the program: that is what its [`Leash`] is for.
//!
//! The worker stays in the program's session: where the kernel shares processors between sessions first (sched(7), "The
//! autogroup feature"), its nice value would count for nothing in another, and Linux 6.18 was found to let others wait
//! for very long (docs/snapshot.md). A terminal's signals go to process groups.
//!
//! Between the clone and the exec the child shares our memory. It makes only system calls, on values that
//! were made ready before; signals are blocked in it until every handler is back to its default.

mod child;

use std::ffi::{CString, OsStr, OsString, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd;

use super::{fork, leisure, process, procfs, signal};

/// Room for the few frames of a child before its exec.
const STACK: usize = 64 * 1024;

/// The number that the first descriptor given to a child gets in it.
pub(crate) const FIRST_DESCRIPTOR: i32 = 3;

/// Where the system's own programs are, whatever a program's PATH says; those for root are on few.
pub(crate) const SYSTEM_FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// What keeps a worker alive: it is killed when this is dropped, and when our process ends, however that is.
///
/// CRIU would wait for ever for a program with threads that is killed while it is being dumped: it waits for
/// the main thread, whose end the kernel tells only after that of the others, which CRIU traces and has not
/// waited for (seen with 4.2.1). And as long as it traces the dead program, the program's own parent isn't
/// told that it is dead.
///
/// It is the write end of a pipe, of which the worker holds the other: when no writer is left, the kernel
/// sends the signal that was set for that descriptor (F_SETSIG in fcntl(2)).
///
/// Whoever holds it can be somebody else: see [`Leash::end_after`].
#[derive(Debug)]
pub(crate) struct Leash {
    pub(super) writer: OwnedFd,
    /// The process id of the worker.
    pub(super) worker: i32,
}

impl Leash {
    /// Whether the worker is still there. By its number, since a descriptor that tells it would be in the image.
    pub(crate) fn is_taut(&self) -> bool {
        procfs::is_there(self.worker)
    }

    /// Has the worker work later than others.
    pub(crate) fn have_later(&self) -> io::Result<()> {
        leisure::have_later(self.worker)
    }
}

/// What the child reads; made ready before the clone, alive until the child has left our memory.
struct Launch {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    descriptors: Vec<c_int>,
    /// What takes the place of our standard input.
    stdin: Option<c_int>,
    /// Whether it goes on without us: in a session of its own, and on no leash.
    outlives_us: bool,
    /// The file that the standard streams of one on a leash, or apart, are appended to; others have ours. The child opens it itself,
    /// so that we don't hold it.
    output: Option<CString>,
    /// The folder that one on a leash runs in, if that isn't the root.
    folder: Option<c_int>,
    /// What a detached worker's first clone starts the second on.
    detached: Option<Vec<u8>>,
    /// Whom it is to be run as, where that is somebody else.
    #[cfg(feature = "service")]
    identity: Option<super::credentials::Identity>,
    /// Written by the first clone: the process id of a detached worker.
    worker: c_int,
    /// Written by the child: why the program could not be started; 0 while nothing failed.
    errno: c_int,
}

impl Launch {
    /// Of a program with our standard streams. The strings of the vectors have to live as long.
    fn new(argv: &[CString], envp: &[CString], descriptors: &[BorrowedFd<'_>]) -> Launch {
        Launch {
            argv: pointers(argv),
            envp: pointers(envp),
            descriptors: descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
            stdin: None,
            outlives_us: false,
            output: None,
            folder: None,
            detached: None,
            #[cfg(feature = "service")]
            identity: None,
            worker: 0,
            errno: 0,
        }
    }

    /// The process id of the first clone, and what went wrong in it or the second.
    fn start(&mut self) -> io::Result<(i32, c_int)> {
        let mut stack = vec![0; STACK];
        let launch: *mut Launch = self;
        let pid = signal::with_all_blocked(|| clone(first_clone, &mut stack, launch))?;
        Ok((pid, self.errno))
    }

    /// Starts a child that is waited for; its process id.
    fn start_child(&mut self) -> io::Result<i32> {
        match self.start()? {
            (pid, 0) => Ok(pid),
            (pid, errno) => {
                process::wait(pid)?;
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }
}

/// Starts a child in our session and folder, with our standard streams, or `stdin` for the first of them;
/// `descriptors` become 3, 4, … in it, everything else is closed. Returns its process id, for [`process::wait`].
pub(crate) fn child(
    program: &Path,
    arguments: &[&str],
    descriptors: &[BorrowedFd<'_>],
    stdin: Option<BorrowedFd<'_>>,
) -> io::Result<i32> {
    let (argv, envp) = (arguments_of(program, arguments)?, c_strings(environment())?);
    let mut launch = Launch::new(&argv, &envp, descriptors);
    launch.stdin = stdin.map(|stdin| stdin.as_raw_fd());
    launch.start_child()
}

/// Starts a child in a session of its own that outlives us, in the root folder, without input; what it says goes to the end
/// of the file `output`. `descriptors` become 3, 4, … in it, everything else is closed. Returns its process id.
pub(crate) fn apart(
    program: &Path,
    arguments: &[&str],
    descriptors: &[BorrowedFd<'_>],
    output: &Path,
) -> io::Result<i32> {
    let (argv, envp) = (arguments_of(program, arguments)?, c_strings(environment())?);
    let mut launch = Launch::new(&argv, &envp, descriptors);
    launch.outlives_us = true;
    launch.output = Some(CString::new(output.as_os_str().as_bytes())?);
    launch.start_child()
}

/// Starts a child as somebody else, in a session of its own, in the root folder, without streams and without our
/// environment; `descriptors` become 3, 4, … in it, the next number is the other end of its leash, and everything else is
/// closed.
#[cfg(feature = "service")]
pub(crate) fn child_as(
    identity: super::credentials::Identity,
    program: &Path,
    arguments: &[&str],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<(i32, Leash)> {
    let (reader, writer) = pipe()?;
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().copied().chain([reader.as_fd()]).collect();
    let path = format!("PATH={}", SYSTEM_FOLDERS.join(":"));
    let (argv, envp) = (arguments_of(program, arguments)?, vec![CString::new(path)?]);
    let mut launch = Launch::new(&argv, &envp, &descriptors);
    launch.output = Some(c"/dev/null".to_owned());
    launch.identity = Some(identity);
    launch.start_child().map(|pid| (pid, Leash { writer, worker: pid }))
}

/// An orphan that is to be started, in a process group of its own and without input.
pub(crate) struct Orphan<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [&'a str],
    /// They become 3, 4, … in it; the next number is the other end of its leash, and everything else is closed.
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
    /// The file to whose end goes what it says.
    pub(crate) output: &'a Path,
    /// The folder that it runs in, if that isn't the root.
    pub(crate) folder: Option<BorrowedFd<'a>>,
    /// What is in its environment besides ours.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

impl<'a> Orphan<'a> {
    /// One that runs in the root folder, and says nothing.
    pub(crate) fn new(program: &'a Path, arguments: &'a [&'a str]) -> Orphan<'a> {
        Orphan {
            program,
            arguments,
            descriptors: &[],
            output: Path::new("/dev/null"),
            folder: None,
            variables: Vec::new(),
        }
    }

    pub(crate) fn start(self) -> io::Result<Leash> {
        let (reader, writer) = pipe()?;
        let descriptors: Vec<BorrowedFd<'_>> =
            self.descriptors.iter().copied().chain([reader.as_fd()]).collect();
        let variables = self.variables.into_iter().map(|(name, value)| entry(name, &value));
        let envp = c_strings(environment().chain(variables))?;
        let argv = arguments_of(self.program, self.arguments)?;
        let mut launch = Launch::new(&argv, &envp, &descriptors);
        launch.output = Some(CString::new(self.output.as_os_str().as_bytes())?);
        launch.folder = self.folder.map(|folder| folder.as_raw_fd());
        launch.detached = Some(vec![0; STACK]);
        let (first, errno) = launch.start()?;
        process::wait(first)?;
        match errno {
            0 => Ok(Leash { writer, worker: launch.worker }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Both ends of a pipe: the reading one, and the writing one.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    fork::ours(&reader);
    Ok((process::off_the_streams(reader)?, process::off_the_streams(writer)?))
}

fn arguments_of(program: &Path, arguments: &[&str]) -> io::Result<Vec<CString>> {
    c_strings(std::iter::once(program.as_os_str().to_owned()).chain(arguments.iter().map(Into::into)))
}

/// The environment without what is meant for the program alone: what is preloaded into it does not belong
/// into CRIU, nor do our own settings. Where the program has more rights than who has started it, nothing of what that
/// one has set goes on: CRIU runs scripts that a file in HOME names, and programs that it finds on PATH.
fn environment() -> impl Iterator<Item = OsString> {
    let given: Vec<(OsString, OsString)> = match process::is_privileged_start() {
        true => vec![("PATH".into(), "/usr/sbin".into())],
        false => std::env::vars_os().collect(),
    };
    given.into_iter().filter_map(|(name, value)| {
        let ours = name.as_bytes().starts_with(b"LD_") || name.as_bytes().starts_with(b"SELFDUMP");
        (!ours).then(|| {
            let value = if name == "PATH" { with_system_folders(&value) } else { value };
            entry(name, &value)
        })
    })
}

/// As it stands in an environment.
fn entry(name: OsString, value: &OsStr) -> OsString {
    let mut entry = name;
    entry.push("=");
    entry.push(value);
    entry
}

/// CRIU runs `iptables-restore` and `nft` by their names, through `sh`: a program's own PATH may lack them.
fn with_system_folders(path: &OsStr) -> OsString {
    let folders = std::env::split_paths(path).chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    // It fails for a folder with a colon in its name, which none has that came from a PATH.
    std::env::join_paths(folders).unwrap_or_else(|_| path.to_owned())
}

fn c_strings(strings: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    strings.map(|string| Ok(CString::new(string.into_vec())?)).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain(std::iter::once(ptr::null())).collect()
}

/// Clones the calling thread into a process that shares our memory, and waits until it has left it.
fn clone(
    entry: extern "C" fn(*mut c_void) -> c_int,
    stack: &mut [u8],
    launch: *mut Launch,
) -> io::Result<c_int> {
    let top = stack.as_mut_ptr_range().end;
    let top = top.wrapping_sub(top.addr() % 16);
    // SAFETY: the stack is ours alone and its top aligned; CLONE_VFORK holds this thread until the child
    // has exec'd or exited, so the stack and `launch` outlive the child's use of them, and nothing else in
    // the process touches them.
    let pid = unsafe { libc::clone(entry, top.cast(), libc::CLONE_VM | libc::CLONE_VFORK, launch.cast()) };
    Ok(Errno::result(pid)?)
}

extern "C" fn first_clone(launch: *mut c_void) -> c_int {
    let launch: *mut Launch = launch.cast();
    // SAFETY: `launch` passes a Launch that it doesn't touch while this child is in its memory.
    let Some(stack) = (unsafe { &mut (*launch).detached }) else {
        // SAFETY: the same.
        return child::become_program(unsafe { &mut *launch });
    };
    // Taken out, because the second clone borrows the rest; put back, because it is the parent's to free: an
    // allocator's lock could be held by another of its threads.
    let mut stack = std::mem::take(stack);
    // SAFETY: plain numbers.
    let started = match unsafe { libc::setpgid(0, 0) } {
        // It can't fail, since a new process leads no group; but the leash kills the group that it makes.
        -1 => Err(io::Error::from_raw_os_error(libc::EPERM)),
        _ => clone(second_clone, &mut stack, launch),
    };
    // SAFETY: the second clone has left our memory.
    let launch = unsafe { &mut *launch };
    match started {
        Ok(pid) => launch.worker = pid,
        Err(error) => launch.errno = error.raw_os_error().unwrap_or(libc::EAGAIN),
    }
    launch.detached = Some(stack);
    0
}

extern "C" fn second_clone(launch: *mut c_void) -> c_int {
    // SAFETY: as in `first_clone`, which waits for this child.
    child::become_program(unsafe { &mut *launch.cast::<Launch>() })
}

#[cfg(test)]
mod tests;
