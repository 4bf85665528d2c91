//! The program's hooks: Python functions, called in selfdump's thread.
//!
//! That thread is Rust's. It takes the interpreter's lock for as long as a hook runs; whoever waits for a checkpoint has
//! let go of it. It takes it only where there is something to call: code that keeps the lock for long (an extension) then
//! holds up no checkpoint. An interpreter that ends must not be entered any more (Python would end the thread in the middle of
//! Rust code), so hooks go through a gate that is closed before, by `atexit`.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use selfdump::{Cause, Error, Handle, Outcome, Report, Restored};

use crate::convert;

/// Of which kinds the program has hooks.
struct Wanted {
    before: AtomicBool,
    after: AtomicBool,
    restored: AtomicBool,
}

static WANTED: Wanted = Wanted {
    before: AtomicBool::new(false),
    after: AtomicBool::new(false),
    restored: AtomicBool::new(false),
};

/// The program has a hook of this kind from here on.
#[pyfunction]
pub fn want(kind: &str) {
    let wanted = match kind {
        "before" => &WANTED.before,
        "after" => &WANTED.after,
        _ => &WANTED.restored,
    };
    wanted.store(true, SeqCst);
}

/// Whether the interpreter may still be entered. Each installation has its own: that of a process which forks while a
/// hook runs stays locked for ever in the child.
pub struct Gate {
    owner: u32,
    open: Mutex<bool>,
}

impl Gate {
    pub fn new() -> Gate {
        Gate { owner: std::process::id(), open: Mutex::new(true) }
    }

    /// Waits for a hook that runs; none runs after it. In a forked child there is none.
    pub fn close(&self) {
        if self.owner == std::process::id() {
            *self.open.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
    }

    /// Enters the interpreter, if it is there.
    fn enter<T>(&self, call: impl FnOnce(Python<'_>) -> T) -> Option<T> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.then(|| Python::attach(call))
    }
}

/// What the Python side wants called: each calls all functions of the program.
#[derive(FromPyObject)]
pub struct Hooks {
    /// With the cause as text; an exception is a veto.
    before: Py<PyAny>,
    /// With the cause, and an outcome or an error.
    after: Py<PyAny>,
    /// With the outcome.
    restored: Py<PyAny>,
}

impl Hooks {
    pub fn add_to(self, handle: &Handle, gate: &Arc<Gate>) -> Result<(), Error> {
        let Hooks { before, after, restored } = self;
        let gates = (Arc::clone(gate), Arc::clone(gate), Arc::clone(gate));
        handle.before_checkpoint(move |cause| {
            if !WANTED.before.load(SeqCst) {
                return Ok(());
            }
            // Without an interpreter nobody objects.
            gates.0.enter(|py| ask(py, &before, cause)).unwrap_or(Ok(()))
        })?;
        handle.after_checkpoint(move |report| {
            // What went wrong is for Python's log as well.
            if WANTED.after.load(SeqCst) || report.outcome.is_err() {
                gates.1.enter(|py| say(py, tell(py, &after, report)));
            }
        })?;
        handle.on_restore(move |back| {
            if WANTED.restored.load(SeqCst) {
                gates.2.enter(|py| say(py, welcome(py, &restored, back)));
            }
        })
    }
}

fn ask(py: Python<'_>, before: &Py<PyAny>, cause: &Cause) -> Result<(), String> {
    before.call1(py, (cause.to_string(),)).map(drop).map_err(|error| error.to_string())
}

fn tell(py: Python<'_>, after: &Py<PyAny>, report: &Report) -> PyResult<Py<PyAny>> {
    let what = match &report.outcome {
        Ok(outcome) => convert::outcome(py, outcome)?,
        Err(error) => convert::error(py, error)?.unbind(),
    };
    after.call1(py, (report.cause.to_string(), what))
}

fn welcome(py: Python<'_>, restored: &Py<PyAny>, back: &Restored) -> PyResult<Py<PyAny>> {
    restored.call1(py, (convert::outcome(py, &Outcome::Restored(back.clone()))?,))
}

/// An exception that the Python side has let through.
fn say(py: Python<'_>, called: PyResult<Py<PyAny>>) {
    if let Err(error) = called {
        error.write_unraisable(py, None);
    }
}
