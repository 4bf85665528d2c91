//! What the agent shares with the program's threads and with the signal handlers.

use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::holds::Holds;
use super::hooks::Hooks;
use super::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Cause, Outcome, Report, Restored};
use crate::sys::process;
use crate::sys::wake::{Wake, Waker};

/// Where the outcome of a call goes.
pub(super) type Caller = Sender<Result<Outcome>>;

/// It is never freed: a handler may have its address at any time.
pub(crate) struct Shared {
    pub(crate) wake: Wake,
    /// The process that it belongs to. In a forked child there is no agent.
    owner: i32,
    pub(super) holds: Holds,
    pub(super) hooks: Hooks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// No more is asked of the agent; the pipe may be closed.
    stopped: bool,
    callers: Vec<Caller>,
    panics: Vec<(Cause, Caller)>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new() -> std::io::Result<Shared> {
        Ok(Shared {
            wake: Wake::new()?,
            owner: process::id(),
            holds: Holds::default(),
            hooks: Hooks::default(),
            state: Mutex::default(),
        })
    }

    /// Whether it belongs to this process, and not to the one that this was forked from.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner == process::id()
    }

    /// Asks for a checkpoint. Who asks before one begins shares it with all others who did.
    pub(crate) fn call(&self) -> Receiver<Result<Outcome>> {
        self.ask(|state, caller| state.callers.push(caller))
    }

    /// Asks for a forensic checkpoint, for a thread that waits in its panic.
    pub(crate) fn call_from_panic(&self, cause: Cause) -> Receiver<Result<Outcome>> {
        self.ask(|state, caller| state.panics.push((cause, caller)))
    }

    fn ask(&self, put: impl FnOnce(&mut State, Caller)) -> Receiver<Result<Outcome>> {
        let (caller, outcome) = channel();
        let mut state = lock(&self.state);
        // Where it is stopped the caller is dropped, and the receiver tells.
        if !state.stopped {
            put(&mut state, caller);
            self.wake.wake(Waker::Thread);
        }
        outcome
    }

    /// Wakes the agent, if there still is one.
    pub(super) fn wake(&self, waker: Waker) {
        // The pipe is closed only after the state says so. That of a forked child is its parent's.
        let state = lock(&self.state);
        if !state.stopped && self.is_ours() {
            self.wake.wake(waker);
        }
    }

    /// Has the agent end after what it is doing now.
    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.wake.wake(Waker::Thread);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.state).stopped
    }

    /// Nobody is answered any more: who waits is told that the agent has ended.
    pub(crate) fn let_everybody_go(&self) {
        let State { callers, panics, .. } = &mut *lock(&self.state);
        callers.clear();
        panics.clear();
    }

    pub(super) fn has_callers(&self) -> bool {
        !lock(&self.state).callers.is_empty()
    }

    pub(super) fn take_callers(&self) -> Vec<Caller> {
        std::mem::take(&mut lock(&self.state).callers)
    }

    pub(super) fn take_panic(&self) -> Option<(Cause, Caller)> {
        let mut state = lock(&self.state);
        (!state.panics.is_empty()).then(|| state.panics.remove(0))
    }

    pub(crate) fn before_checkpoint(&self, hook: impl FnMut(&Cause) -> Result<(), String> + Send + 'static) {
        self.hooks.add_before(Box::new(hook));
    }

    pub(crate) fn after_checkpoint(&self, hook: impl FnMut(&Report) + Send + 'static) {
        self.hooks.add_after(Box::new(hook));
    }

    pub(crate) fn on_restore(&self, hook: impl FnMut(&Restored) + Send + 'static) {
        self.hooks.add_on_restore(Box::new(hook));
    }
}

/// The error for a caller whose agent has ended.
pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::NotInstalled, "selfdump was uninstalled from this process")
        .with_hint("call selfdump::install() again")
}
