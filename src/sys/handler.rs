//! The handlers of the signals that ask for checkpoints.
//!
//! A library such as signal-hook chains a handler to the one before it, at once and for good. Here a signal may
//! also be *deferred*: what was there before is to happen only if the checkpoint fails. And it has to be given
//! back as it was found, at any time, so the handler is our own.
//!
//! Each signal has a [`Slot`] in a table that lives as long as the process, since a handler that was chained to
//! by others may be called for ever. A slot without a [`Wake`] only calls what was there before.
//!
//! A program may put a handler on top of ours (the one that linking installed), and then call `install`: ours has to
//! come on top once more, though the program's may call ours as the one before it. So there are several functions,
//! one for each *layer*, and each calls what that layer replaced: they never call each other in a ring.
//!
//! A forked child inherits the handlers, and the pipe, which is its parent's as well. There the handler wakes
//! nobody: a checkpoint signal is swallowed, and a deferred one has the effect that it had before.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicIsize, AtomicPtr, AtomicUsize, Ordering::SeqCst};

use nix::errno::Errno;

use super::process;
use super::signal::Signal;
use super::wake::{Wake, Waker};

/// What becomes of the action that a signal had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It happens as well, each time.
    Chained,
    /// It happens only when [`let_happen`] says so.
    Deferred,
}

/// The threads that are in a handler just now.
pub(super) struct InFlight {
    count: AtomicIsize,
    /// The process that counts. In a forked child the threads of the parent are not there.
    process: AtomicI32,
}

impl InFlight {
    pub(super) const fn new() -> InFlight {
        InFlight { count: AtomicIsize::new(0), process: AtomicI32::new(0) }
    }

    /// Async-signal-safe, as is `leave`.
    pub(super) fn enter(&self) {
        self.count.fetch_add(1, SeqCst);
    }

    pub(super) fn leave(&self) {
        self.count.fetch_sub(1, SeqCst);
    }

    /// Waits until no thread is in flight that was when this was called.
    pub(super) fn settle(&self) {
        if self.process.swap(process::id(), SeqCst) != process::id() {
            self.count.store(0, SeqCst);
        }
        // Below zero where a thread of a forked child was in flight when the count was begun anew.
        while self.count.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}

type Action = libc::sigaction;
type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// More often than this nobody puts handlers on top of each other.
const LAYERS: usize = 4;

/// The handler of each layer.
const HANDLERS: [Handler; LAYERS] = [handler::<0>, handler::<1>, handler::<2>, handler::<3>];

/// Whom a signal wakes. It is never freed, since a handler may be reading it at any time.
struct Armed {
    wake: &'static Wake,
    waker: Waker,
    /// The process that armed it.
    owner: i32,
    before: Before,
    /// What was armed before it, for whichever signal.
    earlier: AtomicPtr<Armed>,
}

/// What was armed last. All that ever was can be found from here: it is never freed, but it isn't lost either, which
/// is how whoever looks for leaks tells.
static LAST: AtomicPtr<Armed> = AtomicPtr::new(ptr::null_mut());

/// One signal's handlers.
struct Slot {
    /// Null where the signal is nobody's.
    armed: AtomicPtr<Armed>,
    /// The threads that are in a handler, and may be using what was armed or reading `replaced`.
    in_flight: InFlight,
    /// How many layers were put in place and not taken out again. The topmost is the one that wakes.
    layers: AtomicUsize,
    /// What each layer has replaced.
    replaced: [UnsafeCell<Action>; LAYERS],
}

// SAFETY: what a layer replaced is written only while its handler is not in place, and no thread is in one.
unsafe impl Sync for Slot {}

/// One for each number up to SIGRTMAX.
static SLOTS: [Slot; 65] = [const { Slot::new() }; 65];

impl Slot {
    const fn new() -> Slot {
        Slot {
            armed: AtomicPtr::new(ptr::null_mut()),
            in_flight: InFlight::new(),
            layers: AtomicUsize::new(0),
            // SAFETY: a sigaction is plain data, for which zeros are valid: the default action.
            replaced: [const { UnsafeCell::new(unsafe { mem::zeroed() }) }; LAYERS],
        }
    }

    fn of(signal: Signal) -> &'static Slot {
        &SLOTS[signal.number() as usize]
    }

    fn armed(&self) -> Option<&'static Armed> {
        // SAFETY: what is armed is never freed.
        unsafe { self.armed.load(SeqCst).as_ref() }
    }

    /// Whether an action is that of the topmost layer.
    fn is_topmost(&self, action: &Action) -> bool {
        let topmost = self.layers.load(SeqCst).checked_sub(1).map(|layer| HANDLERS[layer]);
        topmost.is_some_and(|handler| action.sa_sigaction == handler as *const () as libc::sighandler_t)
    }

    /// What a layer has replaced.
    fn replaced(&self, layer: usize) -> Action {
        // SAFETY: nobody writes it while the layer's handler is in place or a thread is in it.
        unsafe { *self.replaced[layer].get() }
    }

    /// Puts our handler on top of what is there. Where the layers are used up the program's handler stays on top;
    /// `is_in_place` tells.
    fn put_on_top(&self, signal: Signal) -> io::Result<()> {
        let (layer, there) = (self.layers.load(SeqCst), current(signal.number())?);
        if self.is_topmost(&there) || layer == LAYERS {
            return Ok(());
        }
        // SAFETY: the layer's handler isn't in place, and no thread is in it.
        unsafe { *self.replaced[layer].get() = there };
        // The mask and the flags of a handler stay: it may count on them, on interrupting a read, say.
        let mut ours = there;
        ours.sa_sigaction = HANDLERS[layer] as *const () as libc::sighandler_t;
        ours.sa_flags = libc::SA_SIGINFO
            | match there.sa_sigaction {
                libc::SIG_DFL | libc::SIG_IGN => libc::SA_RESTART | libc::SA_ONSTACK,
                _ => there.sa_flags & (libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_NODEFER),
            };
        self.layers.store(layer + 1, SeqCst);
        set(signal.number(), &ours).inspect_err(|_| self.layers.store(layer, SeqCst))
    }
}

/// Has `wake` woken by `signal` in this process. A signal that is armed already passes from whoever had it to
/// `wake` at once: at no moment is it nobody's. Whom it woke before isn't used any more when this returns.
pub(crate) fn arm(signal: Signal, wake: &'static Wake, waker: Waker, before: Before) -> io::Result<()> {
    let slot = Slot::of(signal);
    let earlier = AtomicPtr::default();
    let armed: *mut Armed = Box::leak(Box::new(Armed { wake, waker, owner: process::id(), before, earlier }));
    // SAFETY: it was made just now, and is never freed.
    unsafe { &*armed }.earlier.store(LAST.swap(armed, SeqCst), SeqCst);
    let earlier = slot.armed.swap(armed, SeqCst);
    slot.in_flight.settle();
    slot.put_on_top(signal).inspect_err(|_| slot.armed.store(earlier, SeqCst))
}

/// Whether the program has put another handler in the place of ours, for a signal that is armed.
pub(crate) fn is_overwritten(signal: Signal) -> bool {
    Slot::of(signal).armed().is_some() && !is_in_place(signal)
}

fn is_in_place(signal: Signal) -> bool {
    current(signal.number()).is_ok_and(|action| Slot::of(signal).is_topmost(&action))
}

/// Gives a signal back as it was found. Whom it woke isn't used any more when this returns.
pub(crate) fn give_back(signal: Signal) {
    let slot = Slot::of(signal);
    if is_in_place(signal) {
        let layer = slot.layers.load(SeqCst) - 1;
        if set(signal.number(), &slot.replaced(layer)).is_ok() {
            slot.layers.store(layer, SeqCst);
        }
    }
    slot.armed.store(ptr::null_mut(), SeqCst);
    slot.in_flight.settle();
}

/// Has a deferred signal's old action happen after all, and from here on.
pub(crate) fn let_happen(signal: Signal) -> io::Result<()> {
    give_back(signal);
    super::signal::send(process::id(), signal.number())
}

extern "C" fn handler<const LAYER: usize>(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    let slot = &SLOTS[signal as usize];
    slot.in_flight.enter();
    let replaced = slot.replaced(LAYER);
    let armed = slot.armed().filter(|_| slot.layers.load(SeqCst) == LAYER + 1);
    let is_owner = armed.is_some_and(|armed| armed.owner == process::id());
    if let Some(armed) = armed.filter(|_| is_owner) {
        armed.wake.wake(armed.waker);
    }
    slot.in_flight.leave();
    match armed.map(|armed| armed.before) {
        Some(Before::Deferred) if is_owner => {}
        // In a forked child it does what it did before.
        Some(Before::Deferred) => happen_here(signal, &replaced),
        Some(Before::Chained) => call(&replaced, signal, info, context),
        // It was on its way to us when it was given back, or the program has put us back in place.
        None if is_default(&replaced) && !is_somebody_else_s::<LAYER>(signal) => {
            happen_here(signal, &replaced)
        }
        None => call(&replaced, signal, info, context),
    }
    Errno::set_raw(errno);
}

fn is_default(action: &Action) -> bool {
    action.sa_sigaction == libc::SIG_DFL
}

/// Whether a signal's action now is a handler of the program, which has called ours as the one before it.
fn is_somebody_else_s<const LAYER: usize>(signal: c_int) -> bool {
    current(signal).is_ok_and(|action| {
        let ours = HANDLERS[LAYER] as *const () as libc::sighandler_t;
        action.sa_sigaction != ours && !is_default(&action)
    })
}

/// Has a signal do what it did before. It is delivered when the handler returns.
fn happen_here(signal: c_int, old: &Action) {
    // SAFETY: async-signal-safe system calls on plain values; the action was this process's before.
    unsafe {
        libc::sigaction(signal, old, ptr::null_mut());
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), signal);
    }
}

/// Calls the handler that was there before, if there was one.
fn call(action: &Action, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    match action.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {}
        function if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with SA_SIGINFO the kernel was given a function of this type, and would call it so.
            let function: Handler = unsafe { mem::transmute(function) };
            function(signal, info, context);
        }
        function => {
            // SAFETY: without SA_SIGINFO the kernel was given a function of this type, and would call it so.
            let function: extern "C" fn(c_int) = unsafe { mem::transmute(function) };
            function(signal);
        }
    }
}

/// The action that a signal has.
pub(super) fn current(signal: c_int) -> io::Result<Action> {
    // SAFETY: nothing is changed; the action is written to a value that lives until the call returns, and for
    // which zeros are valid.
    unsafe {
        let mut action: Action = mem::zeroed();
        Errno::result(libc::sigaction(signal, ptr::null(), &raw mut action))?;
        Ok(action)
    }
}

/// Gives a signal an action.
pub(super) fn set(signal: c_int, action: &Action) -> io::Result<()> {
    // SAFETY: the action is one of the process's own, or ours, whose function is async-signal-safe.
    Errno::result(unsafe { libc::sigaction(signal, action, ptr::null_mut()) })?;
    Ok(())
}
