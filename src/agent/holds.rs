//! Parts of the program that must not be cut by a checkpoint.
//!
//! A hold and a dump exclude each other: a dump doesn't begin while there is a hold, and a hold that is asked for
//! while a dump is under way waits until nothing stands still any more. The thread of a [`Hold`] that asks for a
//! checkpoint would wait for itself; that is an error instead.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{Shared, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::process;
use crate::sys::wake::Waker;

/// While one of these lives no checkpoint begins; those that are asked for meanwhile wait for the last to be dropped.
///
/// It belongs to the thread that asked for it, so that [`Handle::checkpoint`](crate::Handle::checkpoint) can tell
/// when it would wait for itself.
#[derive(Debug)]
#[must_use = "a checkpoint may begin as soon as it is dropped"]
pub struct Hold {
    /// None where selfdump is off.
    shared: Option<&'static Shared>,
    number: u64,
    of_this_thread: PhantomData<*const ()>,
}

thread_local! {
    /// The agents whose checkpoints this thread holds up, once for each hold.
    static HOLDING: RefCell<Vec<*const Shared>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
pub(super) struct Holds {
    state: Mutex<State>,
    /// Notified when a dump is over.
    thawed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holders: Vec<Holder>,
    next: u64,
    dumping: bool,
}

/// Who holds, for the report.
#[derive(Debug)]
struct Holder {
    number: u64,
    thread: String,
    since: Instant,
}

impl Hold {
    /// A hold of nothing, where there is no checkpoint to hold up.
    pub(crate) fn of_nothing() -> Hold {
        Hold { shared: None, number: 0, of_this_thread: PhantomData }
    }

    /// Holds up the checkpoints of an agent. Waits for a dump that is under way.
    pub(crate) fn of(shared: &'static Shared, patience: Duration) -> Result<Hold> {
        let started = Instant::now();
        let mut state = lock(&shared.holds.state);
        while state.dumping {
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(Error::new(ErrorKind::Held, "a checkpoint has been under way all the time")
                    .with_hint("look whether CRIU hangs, or a hook of the program; a longer SELFDUMP_HOLD_TIMEOUT waits longer"));
            }
            state =
                shared.holds.thawed.wait_timeout(state, left).unwrap_or_else(|poison| poison.into_inner()).0;
        }
        let number = state.next;
        state.next += 1;
        state.holders.push(Holder { number, thread: process::thread_name(), since: Instant::now() });
        drop(state);
        HOLDING.with_borrow_mut(|holding| holding.push(shared));
        Ok(Hold { shared: Some(shared), number, of_this_thread: PhantomData })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // In a forked child there is nothing to be held up, and our locks may be another thread's for ever.
        let Some(shared) = self.shared.filter(|shared| shared.is_ours()) else { return };
        // A thread that is ending may have lost its own list.
        let _ = HOLDING.try_with(|holding| {
            let mut holding = holding.borrow_mut();
            if let Some(position) = holding.iter().position(|&held| std::ptr::eq(held, shared)) {
                holding.swap_remove(position);
            }
        });
        let mut state = lock(&shared.holds.state);
        state.holders.retain(|holder| holder.number != self.number);
        let last = state.holders.is_empty();
        drop(state);
        if last {
            shared.wake(Waker::Thread);
        }
    }
}

/// Whether the calling thread holds up the checkpoints of this agent.
pub(crate) fn held_by_this_thread(shared: &Shared) -> bool {
    HOLDING.with_borrow(|holding| holding.iter().any(|&held| std::ptr::eq(held, shared)))
}

impl Holds {
    /// Begins a dump, if nobody holds it up.
    pub(super) fn begin(&self) -> bool {
        let mut state = lock(&self.state);
        state.dumping = state.holders.is_empty();
        state.dumping
    }

    /// Nothing stands still any more.
    pub(super) fn end(&self) {
        lock(&self.state).dumping = false;
        self.thawed.notify_all();
    }

    /// The error for a checkpoint that was held up for too long: who does, and since when.
    pub(super) fn error(&self, patience: Duration) -> Error {
        let state = lock(&self.state);
        let seconds = |holder: &Holder| holder.since.elapsed().as_secs();
        let who: Vec<String> = state
            .holders
            .iter()
            .map(|holder| format!("{} (for {} s)", holder.thread, seconds(holder)))
            .collect();
        Error::new(
            ErrorKind::Held,
            format!(
                "checkpoints were held up for {}, by {}",
                humantime::format_duration(patience),
                who.join(", ")
            ),
        )
        .with_hint("drop the Hold earlier, or let checkpoints wait longer with SELFDUMP_HOLD_TIMEOUT or Config::hold_timeout")
    }
}
