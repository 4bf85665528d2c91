//! Registering the checkpoint signal, keeping the agent free of signals, sending them.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;

use super::process;
use super::wake::{Wake, Waker};

/// SIGUSR2.
pub(crate) const USR2: i32 = libc::SIGUSR2;
/// SIGCHLD.
pub(crate) const CHILD: i32 = libc::SIGCHLD;
/// What a supervisor passes on to the program that it stands for.
pub(crate) const FOR_THE_PROGRAM: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// Has `wake` woken whenever `signal` arrives in the process `owner`. signal-hook
/// chains it to a handler that was there before.
///
/// A forked child inherits the handler together with the pipe that it writes to, which is its parent's as
/// well: there the handler does nothing.
pub(crate) fn wake_on(signal: i32, wake: &'static Wake, owner: i32) -> io::Result<()> {
    let handler = move || {
        if process::id() == owner {
            wake.wake(Waker::Signal);
        }
    };
    // SAFETY: the handler is async-signal-safe: getpid and one write to a descriptor that is never closed,
    // since `wake` is 'static. It doesn't allocate, lock or log. errno is kept by signal-hook's own handler.
    unsafe { signal_hook::low_level::register(signal, handler) }?;
    Ok(())
}

/// Does something with every signal blocked. A thread that is started there blocks them as long as it
/// lives, so that the program's handlers run in the program's own threads.
pub(crate) fn with_all_blocked<T>(call: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let result = call();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    result
}

/// Ends a process at once.
pub(crate) fn kill(pid: i32) -> io::Result<()> {
    send(pid, libc::SIGKILL)
}

/// Sends a signal. ESRCH is an error like any other.
pub(crate) fn send(pid: i32, signal: i32) -> io::Result<()> {
    let signal = Signal::try_from(signal)?;
    Ok(nix::sys::signal::kill(Pid::from_raw(pid), signal)?)
}

/// Blocks the given signals in the calling thread, to be taken by [`take`].
pub(crate) fn hold_back(signals: &[i32]) -> io::Result<()> {
    Ok(set_of(signals)?.thread_block()?)
}

/// Whether a signal is ignored, as a shell or `nohup` sets it for what it starts.
pub(crate) fn is_ignored(signal: i32) -> bool {
    // SAFETY: nothing is changed; the old action is written to a value that lives until the call returns.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Has children stay until they are waited for, whatever our own parent has set.
pub(crate) fn keep_children() -> io::Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// A signal that was held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) signal: i32,
    /// The kernel itself sent it, as it does for keys pressed at a terminal.
    pub(crate) from_kernel: bool,
}

/// Waits for one of the signals that were held back; none when `timeout` passes first.
pub(crate) fn take(signals: &[i32], timeout: Duration) -> io::Result<Option<Taken>> {
    let set = set_of(signals)?;
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the pointers are to values that live until the call returns; a siginfo is plain data, for
    // which zeros are valid.
    let (taken, info) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        (libc::sigtimedwait(set.as_ref(), &raw mut info, &timeout), info)
    };
    match Errno::result(taken) {
        Ok(signal) => Ok(Some(Taken { signal, from_kernel: info.si_code == libc::SI_KERNEL })),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn set_of(signals: &[i32]) -> io::Result<SigSet> {
    let mut set = SigSet::empty();
    for &signal in signals {
        set.add(Signal::try_from(signal)?);
    }
    Ok(set)
}

/// The name of a signal: `SIGUSR2`, or its number where it has none.
pub(crate) fn name(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(known) => known.as_str().to_owned(),
        Err(_) => format!("signal {signal}"),
    }
}

/// Ends this process by `signal`, as if it had met it unprepared, but without a core dump of its own.
pub(crate) fn die_of(signal: i32) -> ! {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a value that lives until the call returns.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    if let Ok(set) = set_of(&[signal]) {
        let _ = set.thread_unblock();
    }
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    // A signal whose default is to be ignored leaves us here.
    std::process::exit(128 + signal)
}
