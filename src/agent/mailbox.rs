//! What the agent shares with the program's threads and with the signal handlers.

use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::holds::Holds;
use super::hooks::Hooks;
use super::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::report::{Cause, Outcome, Report, Restored};
use crate::sys::wake::{Wake, Waker};
use crate::sys::{crash, process};

/// Where the outcome of a call goes.
pub(super) type Caller = Sender<Result<Outcome>>;

/// Where a thread that waits in its panic is told how far its checkpoint has come.
pub(super) type Panicked = Sender<Progress>;

pub(super) enum Progress {
    Begun,
    Done,
}

/// What a thread in its panic waits on.
pub(crate) struct Waiting(Receiver<Progress>);

impl Waiting {
    /// Waits until the agent is done. It may never begin, where it waits for a lock that this thread has; and then not
    /// be done for as long as it has CRIU at work.
    pub(crate) fn wait(self, patience: Duration) {
        let started = Instant::now();
        let mut begun = false;
        loop {
            let bound =
                if begun || crash::is_dumping() { patience } else { patience.min(crash::BEGIN_WITHIN) };
            if started.elapsed() > bound {
                return;
            }
            match self.0.recv_timeout(Duration::from_millis(50)) {
                Ok(Progress::Begun) => begun = true,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Progress::Done) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// A checkpoint that was asked for ([`Handle::ask`](crate::Handle::ask)). It is made whether anybody waits for it or not.
#[derive(Debug)]
#[must_use = "what comes of the checkpoint is only told to who waits"]
pub struct Asked(Receiver<Result<Outcome>>);

impl Asked {
    /// Waits until it is made, or has failed, as [`Handle::checkpoint`](crate::Handle::checkpoint) does.
    ///
    /// # Errors
    ///
    /// Whatever kept the checkpoint from being made.
    pub fn wait(self) -> Result<Outcome> {
        self.0.recv().unwrap_or_else(|_| Err(ended()))
    }

    /// Waits for that long at most; none where nothing has come of it yet. The outcome is told once.
    pub fn wait_for(&self, time: Duration) -> Option<Result<Outcome>> {
        match self.0.recv_timeout(time) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(ended())),
        }
    }
}

/// It is never freed: a handler may have its address at any time. The pipe, which handlers know, stands first, so that
/// who looks for leaks sees from that address that it isn't lost.
#[repr(C)]
pub(crate) struct Shared {
    pub(crate) wake: Wake,
    /// The process that it belongs to. In a forked child there is no agent.
    owner: i32,
    pub(super) holds: Holds,
    pub(super) hooks: Hooks,
    state: Mutex<State>,
    metrics: Mutex<Metrics>,
}

#[derive(Default)]
struct State {
    /// No more is asked of the agent; the pipe may be closed.
    stopped: bool,
    callers: Vec<Caller>,
    panics: Vec<(Cause, Panicked)>,
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
            metrics: Mutex::default(),
        })
    }

    /// Whether it belongs to this process, and not to the one that this was forked from.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner == process::id()
    }

    /// Asks for a checkpoint. Who asks before one begins shares it with all others who did.
    pub(crate) fn call(&self) -> Asked {
        Asked(self.ask(|state, caller| state.callers.push(caller)))
    }

    /// Asks for a forensic checkpoint, for a thread that waits in its panic.
    pub(crate) fn call_from_panic(&self, cause: Cause) -> Waiting {
        Waiting(self.ask(|state, panicked| state.panics.push((cause, panicked))))
    }

    fn ask<T>(&self, put: impl FnOnce(&mut State, Sender<T>)) -> Receiver<T> {
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

    /// What has been counted by now.
    pub(crate) fn metrics(&self) -> Metrics {
        lock(&self.metrics).clone()
    }

    pub(super) fn set_metrics(&self, metrics: &Metrics) {
        lock(&self.metrics).clone_from(metrics);
    }

    pub(super) fn has_callers(&self) -> bool {
        !lock(&self.state).callers.is_empty()
    }

    pub(super) fn take_callers(&self) -> Vec<Caller> {
        std::mem::take(&mut lock(&self.state).callers)
    }

    /// The panics that nobody has dealt with yet. One picture shows them all.
    pub(super) fn take_panics(&self) -> Vec<(Cause, Panicked)> {
        std::mem::take(&mut lock(&self.state).panics)
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
