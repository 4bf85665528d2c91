//! Signals by name and number; keeping the agent free of them, sending them, taking them.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal as Known};

/// SIGCHLD.
pub(crate) const CHILD: i32 = libc::SIGCHLD;
/// SIGWINCH.
pub(crate) const WINDOW: i32 = libc::SIGWINCH;
/// SIGCONT.
pub(crate) const CONTINUE: i32 = libc::SIGCONT;
/// What a supervisor passes on to the program that it stands for.
pub(crate) const FOR_THE_PROGRAM: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// What keeps a program in step with its terminal and its shell's jobs, besides those.
pub(crate) const FOR_A_JOB: [i32; 3] = [WINDOW, TERMINAL_STOP, CONTINUE];
/// What tells a supervisor to end.
pub(crate) const TO_END: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
/// SIGTERM.
pub(crate) const TERM: i32 = libc::SIGTERM;
/// SIGKILL.
pub(crate) const KILL: i32 = libc::SIGKILL;
pub(crate) const STOP: i32 = libc::SIGSTOP;
/// SIGTSTP: Ctrl-Z at the terminal.
pub(crate) const TERMINAL_STOP: i32 = libc::SIGTSTP;

/// A signal that may ask for a checkpoint: any that can be handled and that isn't the kernel's word about a crash.
///
/// ```
/// use selfdump::Signal;
///
/// let signal: Signal = "RTMIN+3".parse().unwrap();
/// assert_eq!(signal.to_string(), "SIGRTMIN+3");
/// assert_eq!("usr1".parse(), Signal::try_from(10));
/// assert!("KILL".parse::<Signal>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

/// Why a number or a name is no [`Signal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSignal;

impl Signal {
    /// SIGUSR2, the signal that asks for a checkpoint where nothing else is said.
    pub const USR2: Signal = Signal(libc::SIGUSR2);

    /// Its number, as in `kill -NUMBER`.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for Signal {
    type Error = NoSignal;

    fn try_from(number: i32) -> Result<Signal, NoSignal> {
        const NOT_TO_BE_HANDLED: [i32; 2] = [libc::SIGKILL, libc::SIGSTOP];
        let is_crash =
            super::crash::FATAL.contains(&number) || [libc::SIGTRAP, libc::SIGSYS].contains(&number);
        // Between the classic ones and SIGRTMIN stand those that the C library keeps for itself.
        let is_there = (1..32).contains(&number) || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
        match is_there && !is_crash && !NOT_TO_BE_HANDLED.contains(&number) {
            true => Ok(Signal(number)),
            false => Err(NoSignal),
        }
    }
}

/// By number (`10`), by name (`USR1`, `SIGUSR1`), or from the ends of the real-time signals (`RTMIN+3`, `RTMAX-1`).
impl FromStr for Signal {
    type Err = NoSignal;

    fn from_str(text: &str) -> Result<Signal, NoSignal> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let from = |end: i32, way: i32, rest: &str| match rest {
            "" => Some(end),
            rest => Some(end + way * rest.parse::<u8>().ok().map(i32::from)?),
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            from(libc::SIGRTMIN(), 1, rest.strip_prefix('+').unwrap_or(rest))
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            from(libc::SIGRTMAX(), -1, rest.strip_prefix('-').unwrap_or(rest))
        } else {
            name.parse().ok().or_else(|| Some(Known::from_str(&format!("SIG{name}")).ok()? as i32))
        };
        number.ok_or(NoSignal)?.try_into()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&name(self.0))
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for NoSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no signal that a program can be asked by")
    }
}

impl std::error::Error for NoSignal {}

/// Does something with every signal blocked but those of a crash. A thread that is started there blocks them as long
/// as it lives, so that the program's handlers run in the program's own threads; if it crashes, that is a crash of the
/// program as any other.
pub(crate) fn with_all_blocked<T>(call: impl FnOnce() -> T) -> T {
    let mut all = SigSet::all();
    super::crash::FATAL
        .into_iter()
        .filter_map(|signal| Known::try_from(signal).ok())
        .for_each(|crash| all.remove(crash));
    let before = all.thread_swap_mask(SigmaskHow::SIG_SETMASK);
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
    // nix knows no real-time signals.
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Blocks the given signals in the calling thread, to be taken by [`take`].
pub(crate) fn hold_back(signals: &[i32]) -> io::Result<()> {
    Ok(set_of(signals)?.thread_block()?)
}

/// Whether a signal is ignored, as a shell or `nohup` sets it for what it starts.
pub(crate) fn is_ignored(signal: i32) -> bool {
    super::handler::current(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

/// Has children stay until they are waited for, whatever our own parent has set.
pub(crate) fn keep_children() -> io::Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { nix::sys::signal::signal(Known::SIGCHLD, SigHandler::SigDfl) }?;
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
        set.add(Known::try_from(signal)?);
    }
    Ok(set)
}

/// Stops this process, as Ctrl-Z does, until somebody has it continue.
pub(crate) fn stop_ourselves() -> io::Result<()> {
    Ok(nix::sys::signal::raise(Known::SIGSTOP)?)
}

/// Whether the kernel sends it to a thread for what the thread itself has done: the program's own failure.
pub(crate) fn is_own_failure(signal: i32) -> bool {
    super::crash::FATAL.contains(&signal) || [libc::SIGTRAP, libc::SIGSYS].contains(&signal)
}

/// The name of a signal: `SIGUSR2`, `SIGRTMIN+3`, or its number where it has none.
pub(crate) fn name(signal: i32) -> String {
    match Known::try_from(signal) {
        Ok(known) => known.as_str().to_owned(),
        Err(_) if signal == libc::SIGRTMIN() => "SIGRTMIN".to_owned(),
        Err(_) if (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal) => {
            format!("SIGRTMIN+{}", signal - libc::SIGRTMIN())
        }
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
    // The first process of a pid namespace can't be ended by a signal of its own, nor abort.
    if super::process::id() != 1 {
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    // A signal whose default is to be ignored leaves us here.
    std::process::exit(128 + signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_named_by_number_by_name_and_from_either_end_of_the_real_time_ones() {
        let number = |text: &str| text.parse::<Signal>().map(Signal::number);
        assert_eq!(number("10"), Ok(libc::SIGUSR1));
        assert_eq!((number("USR1"), number("sigusr1")), (Ok(libc::SIGUSR1), Ok(libc::SIGUSR1)));
        assert_eq!(number("RTMIN+3"), Ok(libc::SIGRTMIN() + 3));
        assert_eq!((number("SIGRTMAX"), number("RTMAX-1")), (Ok(libc::SIGRTMAX()), Ok(libc::SIGRTMAX() - 1)));
        for signal in (1..=64).filter_map(|number| Signal::try_from(number).ok()) {
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn what_can_not_ask_for_a_checkpoint_is_no_signal() {
        for text in ["KILL", "STOP", "SEGV", "6", "0", "-1", "32", "65", "RTMIN+99", "RTMAX-60", "USR3", ""] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }
}
