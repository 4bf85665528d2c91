//! The library's values as the objects of the Python side.

use std::time::SystemTime;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use selfdump::{Error, Outcome};

/// An `Outcome` of the Python side.
pub fn outcome(py: Python<'_>, outcome: &Outcome) -> PyResult<Py<PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("restored", outcome.is_restored())?;
    match outcome {
        Outcome::Saved(saved) => {
            fields.set_item("id", &saved.id)?;
            fields.set_item("path", &saved.path)?;
            fields.set_item("taken", unix_seconds(saved.taken))?;
            fields.set_item("generation", selfdump::generation())?;
            fields.set_item("size", saved.size.0)?;
            fields.set_item("frozen", saved.stats.frozen.as_secs_f64())?;
        }
        Outcome::Restored(back) => {
            fields.set_item("id", &back.id)?;
            fields.set_item("path", &back.path)?;
            fields.set_item("taken", unix_seconds(back.taken))?;
            fields.set_item("age", back.age.as_secs_f64())?;
            fields.set_item("generation", back.generation)?;
            fields.set_item("same_host", back.same_host)?;
            fields.set_item("same_boot", back.same_boot)?;
            fields.set_item("same_pid_namespace", back.same_pid_namespace)?;
            fields.set_item("settings", back.settings())?;
        }
    }
    let made = py.import(intern!(py, "selfdump._outcome"))?.getattr(intern!(py, "from_native"))?;
    Ok(made.call((), Some(&fields))?.unbind())
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// An error of the Python side, of the class for its kind.
pub fn error<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let (lines, log) = match error.criu() {
        Some(criu) => (criu.lines.as_slice(), criu.log.as_ref()),
        None => (&[][..], None),
    };
    let made = py.import(intern!(py, "selfdump._errors"))?.getattr(intern!(py, "from_native"))?;
    made.call1((error.kind().name(), error.chain(), error.hint(), lines, log))
}

/// The same, to be raised.
pub fn raise(py: Python<'_>, from: &Error) -> PyErr {
    error(py, from).map_or_else(|failure| failure, PyErr::from_value)
}

/// The error for a program that asks for something before it has installed anything.
pub fn not_installed(py: Python<'_>) -> PyErr {
    let made =
        py.import(intern!(py, "selfdump._errors")).and_then(|errors| errors.call_method0("not_installed"));
    made.map_or_else(|failure| failure, PyErr::from_value)
}
