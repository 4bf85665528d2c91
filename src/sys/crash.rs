//! The handler of the signals that a program dies of: it has the crashed thread wait, in its own frame, until a
//! checkpoint of it is there, and then lets it die as it would have died.
//!
//! Everything here that runs in the crashed thread is async-signal-safe: atomics, system calls, nothing else. The
//! thread may have crashed anywhere, with any lock held, so the wait is bounded twice: the agent has to say soon
//! that it has begun, after it has allocated something (it can't if it waits for a lock of the allocator), and has to
//! be done in time. While it is at work on another dump the thread waits for that as well.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst,
};

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::handler::{InFlight, current, set};
use super::process;
use super::wake::{Wake, Waker};

/// The signals of crashes, each with the default to kill and dump core (signal(7)).
pub(crate) const FATAL: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];

/// How soon the agent has to have begun.
pub(crate) const BEGIN_WITHIN: Duration = Duration::from_secs(10);

/// How long linking waits for the program's runtime to have put its own handlers in place.
const RUNTIME_WITHIN: Duration = Duration::from_millis(200);

/// What is known of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    pub(crate) signal: i32,
    /// The id of the thread that it came to.
    pub(crate) thread: i32,
    /// The address that the thread failed to use, or the instruction that failed, where the kernel sent the signal
    /// (`si_addr`, sigaction(2)).
    pub(crate) address: Option<u64>,
    /// Why it came (`si_code`, sigaction(2)).
    pub(crate) code: i32,
}

/// How far the one crash of a process has come.
const NONE: u32 = 0;
const ASKED: u32 = 1;
const BEGUN: u32 = 2;
const DONE: u32 = 3;

struct State {
    progress: AtomicU32,
    signal: AtomicI32,
    thread: AtomicI32,
    address: AtomicUsize,
    code: AtomicI32,
    /// Whether `address` is one: the kernel sent the signal.
    by_kernel: AtomicU32,
    /// Whom to wake; null where crashes are nobody's.
    wake: AtomicPtr<Wake>,
    owner: AtomicI32,
    patience_ms: AtomicU64,
    /// Whether the agent has CRIU at work.
    dumping: AtomicBool,
    /// The agent's own thread, which can't wait for itself.
    agent: AtomicI32,
    in_flight: InFlight,
    /// What was there before, in the order of [`FATAL`].
    old: UnsafeCell<[libc::sigaction; FATAL.len()]>,
}

// SAFETY: `old` is written only while none of the handlers is in place and no thread is in one.
unsafe impl Sync for State {}

static STATE: State = State {
    progress: AtomicU32::new(NONE),
    signal: AtomicI32::new(0),
    thread: AtomicI32::new(0),
    address: AtomicUsize::new(0),
    code: AtomicI32::new(0),
    by_kernel: AtomicU32::new(0),
    wake: AtomicPtr::new(ptr::null_mut()),
    owner: AtomicI32::new(0),
    patience_ms: AtomicU64::new(0),
    dumping: AtomicBool::new(false),
    agent: AtomicI32::new(0),
    in_flight: InFlight::new(),
    // SAFETY: a sigaction is plain data, for which zeros are valid: the default action.
    old: UnsafeCell::new(unsafe { mem::zeroed() }),
};

/// Has `wake` woken by a crash, and the crashed thread wait for [`done`], for `patience` at most.
pub(crate) fn arm(wake: &'static Wake, patience: Duration) -> io::Result<()> {
    disarm();
    STATE.owner.store(process::id(), SeqCst);
    STATE.patience_ms.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), SeqCst);
    STATE.progress.store(NONE, SeqCst);
    STATE.wake.store(ptr::from_ref(wake).cast_mut(), SeqCst);
    let put = FATAL.into_iter().enumerate().try_for_each(put_in_place);
    put.inspect_err(|_| disarm())
}

fn put_in_place((index, signal): (usize, c_int)) -> io::Result<()> {
    let old = current(signal)?;
    // SAFETY: this signal's handler isn't in place; those of the others read only their own part.
    unsafe { (*STATE.old.get())[index] = old };
    let mut ours = old;
    ours.sa_sigaction = handler as *const () as libc::sighandler_t;
    // On the alternate stack, where the thread has one: its own may be what ran out.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    set(signal, &ours)
}

/// Gives the signals back, but those for which the program has put another handler in our place.
pub(crate) fn disarm() {
    let is_ours = |action: libc::sigaction| action.sa_sigaction == handler as *const () as libc::sighandler_t;
    for (index, signal) in FATAL.into_iter().enumerate() {
        if current(signal).is_ok_and(is_ours) {
            // SAFETY: nobody writes it while our handler is in place.
            let _ = set(signal, unsafe { &(&*STATE.old.get())[index] });
        }
    }
    STATE.wake.store(ptr::null_mut(), SeqCst);
    STATE.in_flight.settle();
}

/// Waits until the runtime of a Rust program has looked at SIGSEGV, or can't be expected to any more. Where it finds
/// a handler it leaves its own out, and with it the alternate stacks and the word about a stack overflow.
pub(crate) fn wait_for_the_runtime() {
    let started = Instant::now();
    while current(libc::SIGSEGV).is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL)
        && started.elapsed() < RUNTIME_WITHIN
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The calling thread is the agent.
pub(crate) fn is_agent() {
    STATE.agent.store(process::thread(), SeqCst);
}

/// What has crashed. The agent has not begun by that.
pub(crate) fn look() -> Crash {
    let address = STATE.address.load(SeqCst) as u64;
    Crash {
        signal: STATE.signal.load(SeqCst),
        thread: STATE.thread.load(SeqCst),
        address: (STATE.by_kernel.load(SeqCst) != 0).then_some(address),
        code: STATE.code.load(SeqCst),
    }
}

/// The agent has begun to deal with the crash.
pub(crate) fn begin() {
    let _ = STATE.progress.compare_exchange(ASKED, BEGUN, SeqCst, SeqCst);
}

/// Whether a thread of the process has crashed and waits where it did.
pub(crate) fn is_under_way() -> bool {
    matches!(STATE.progress.load(SeqCst), ASKED | BEGUN)
}

/// Whether the agent has CRIU at work; who waits for it then waits for that as well.
pub(crate) fn set_dumping(dumping: bool) {
    STATE.dumping.store(dumping, SeqCst);
}

/// The same for others that wait for the agent.
pub(crate) fn is_dumping() -> bool {
    STATE.dumping.load(SeqCst)
}

/// The agent is done: the crashed thread may die.
pub(crate) fn done() {
    STATE.progress.store(DONE, SeqCst);
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    let errno = Errno::last_raw();
    STATE.in_flight.enter();
    let wake = STATE.wake.load(SeqCst);
    let is_agent = STATE.agent.load(SeqCst) == process::thread();
    if !wake.is_null() && !is_agent && STATE.owner.load(SeqCst) == process::id() {
        // SAFETY: the kernel passes a siginfo; what is armed lives as long as the process, and is closed only when
        // no thread is in flight.
        unsafe { report(signal, &*info, &*wake) };
        await_the_agent();
    }
    // SAFETY: the kernel passes a siginfo.
    let was_sent = unsafe { (*info).si_code } <= 0;
    die_as_before(signal, was_sent);
    STATE.in_flight.leave();
    // A handler of the program may bring it round yet.
    Errno::set_raw(errno);
}

/// Tells the agent, unless another thread has crashed before this one.
///
/// # Safety
/// `info` has to be what the kernel passed to the handler of `signal`.
unsafe fn report(signal: c_int, info: &libc::siginfo_t, wake: &Wake) {
    if STATE.progress.compare_exchange(NONE, ASKED, SeqCst, SeqCst).is_err() {
        return;
    }
    STATE.signal.store(signal, SeqCst);
    STATE.thread.store(process::thread(), SeqCst);
    STATE.code.store(info.si_code, SeqCst);
    // SI_KERNEL comes without an address: that of a pointer that no address space has is not told.
    let by_kernel = info.si_code > 0 && info.si_code != libc::SI_KERNEL && signal != libc::SIGABRT;
    STATE.by_kernel.store(u32::from(by_kernel), SeqCst);
    if by_kernel {
        // SAFETY: a siginfo of these signals that the kernel sent has an address.
        STATE.address.store(unsafe { info.si_addr() } as usize, SeqCst);
    }
    wake.wake(Waker::Crash);
}

fn await_the_agent() {
    let started = now();
    let patience = Duration::from_millis(STATE.patience_ms.load(SeqCst));
    loop {
        let bound = match STATE.progress.load(SeqCst) {
            DONE => return,
            BEGUN => patience,
            _ if STATE.dumping.load(SeqCst) => patience,
            _ => patience.min(BEGIN_WITHIN),
        };
        if now().saturating_sub(started) > bound {
            return;
        }
        // SAFETY: no descriptors are passed. poll is async-signal-safe.
        unsafe { libc::poll(ptr::null_mut(), 0, 5) };
    }
}

/// The monotonic clock: async-signal-safe, as `Instant` doesn't promise to be.
fn now() -> Duration {
    // SAFETY: the time is written to a value that lives until the call returns.
    let time = unsafe {
        let mut time: libc::timespec = mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
        time
    };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Puts back what was there. A thread that failed at an instruction fails at it once more when the handler returns; a
/// signal that somebody sent is sent again.
fn die_as_before(signal: c_int, was_sent: bool) {
    let Some(index) = FATAL.iter().position(|&fatal| fatal == signal) else { return };
    // SAFETY: nobody writes it while we are in flight; async-signal-safe system calls on plain values.
    unsafe {
        libc::sigaction(signal, &(&*STATE.old.get())[index], ptr::null_mut());
        if was_sent {
            libc::syscall(libc::SYS_tgkill, libc::getpid(), process::thread(), signal);
        }
    }
}
