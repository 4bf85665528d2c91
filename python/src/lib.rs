//! What Python code can't do for the package `selfdump`, as its module `selfdump._native`.
//!
//! The Python side (`selfdump/`) has the public names, their types and their docs; this side hands them to the library.
//! Whatever waits lets go of the interpreter's lock first: hooks are called in selfdump's own thread, and take it there
//! (`hooks.rs`). The lock around [`INSTALLED`] is only taken with the interpreter's, and not kept beyond it, so that a
//! forked child never finds it locked.

#![deny(unsafe_code)]

mod convert;
mod holds;
mod hooks;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use selfdump::{Config, Handle};
use selfdump_cli::{Front, Scripts};

use convert::raise;
use hooks::{Gate, Hooks};

/// How soon a wait sees that Python has a signal to handle.
const LOOK: Duration = Duration::from_millis(20);

/// What `install` has put in place in this process, or in the one that it was forked from.
static INSTALLED: Mutex<Option<Installed>> = Mutex::new(None);

struct Installed {
    handle: Handle,
    gate: Arc<Gate>,
}

fn installed() -> MutexGuard<'static, Option<Installed>> {
    INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handle(py: Python<'_>) -> PyResult<Handle> {
    // Python may let another thread run while it makes the error, so the lock is given back before.
    let handle = installed().as_ref().map(|installed| installed.handle.clone());
    handle.ok_or_else(|| convert::not_installed(py))
}

/// The program's settings by name and text, the script that it is called after, and its hooks.
#[pyfunction]
fn install(
    py: Python<'_>,
    settings: Vec<(String, OsString)>,
    script: Option<PathBuf>,
    hooks: Hooks,
) -> PyResult<()> {
    let mut config = Config::new();
    for (name, value) in settings {
        config = config.set(&name, value).map_err(|error| raise(py, &error))?;
    }
    if let Some(script) = script {
        config = config.program(script);
    }
    let gate = Arc::new(Gate::new());
    let handle = py
        .detach(|| {
            let handle = config.install()?;
            hooks.add_to(&handle, &gate)?;
            Ok(handle)
        })
        .map_err(|error| raise(py, &error))?;
    *installed() = Some(Installed { handle, gate });
    Ok(())
}

/// Installs as the variables say, as programs are that link selfdump: a call of `install` takes over from that.
#[pyfunction]
fn install_beforehand(py: Python<'_>) {
    py.detach(|| selfdump::auto::construct());
}

#[pyfunction]
fn uninstall(py: Python<'_>) -> PyResult<()> {
    let handle = handle(py)?;
    py.detach(|| handle.uninstall()).map_err(|error| raise(py, &error))?;
    *installed() = None;
    Ok(())
}

/// Keeps hooks out of an interpreter that is about to end; waits for one that runs.
#[pyfunction]
fn close(py: Python<'_>) {
    let gate = installed().as_ref().map(|installed| Arc::clone(&installed.gate));
    if let Some(gate) = gate {
        py.detach(|| gate.close());
    }
}

#[pyfunction]
fn checkpoint(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let mut asked = handle(py)?.ask().map_err(|error| raise(py, &error))?;
    loop {
        let (back, outcome) = py.detach(move || {
            let outcome = asked.wait_for(LOOK);
            (asked, outcome)
        });
        match outcome {
            Some(outcome) => return convert::outcome(py, &outcome.map_err(|error| raise(py, &error))?),
            None => asked = back,
        }
        // Only the main thread has any, KeyboardInterrupt among them.
        py.check_signals()?;
    }
}

#[pyfunction]
fn checkpoint_exception(py: Python<'_>, message: &str, location: Option<String>) -> PyResult<()> {
    let handle = handle(py)?;
    py.detach(|| handle.checkpoint_exception(message, location)).map_err(|error| raise(py, &error))
}

#[pyfunction]
fn hold(py: Python<'_>) -> PyResult<()> {
    let handle = handle(py)?;
    py.detach(|| holds::hold(&handle)).map_err(|error| raise(py, &error))
}

#[pyfunction]
fn release(py: Python<'_>) {
    py.detach(holds::release);
}

#[pyfunction]
fn generation() -> u64 {
    selfdump::generation()
}

/// The command `selfdump` with these arguments; `command` is what started it, `starter` what starts a script.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<OsString>, command: Vec<OsString>, starter: Vec<OsString>) -> u8 {
    let scripts = Some(Scripts { extension: "py", module: "-m", starter });
    py.detach(|| selfdump_cli::run(&Front { command, scripts }, &arguments))
}

/// The native part of the package.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::hooks::want;
    #[pymodule_export]
    use super::{
        checkpoint, checkpoint_exception, close, generation, hold, install, install_beforehand, main,
        release, uninstall,
    };
}
