//! How a program that selfdump runs in is doing.

use std::path::Path;

use crate::agent;
use crate::error::{Error, ErrorKind, Result};
pub use crate::store::status::{Attempt, Failure, Status};
use crate::store::{catalogue, status};
use crate::sys::procfs;

/// That of a running process.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where there is no such process, or no selfdump in it.
pub fn of_process(pid: i32) -> Result<Status> {
    if let Some(status) = Status::of(pid) {
        return Ok(status);
    }
    let process = procfs::stat(pid).map_err(|source| {
        Error::new(ErrorKind::NotFound, format!("there is no process {pid}"))
            .with_hint("`selfdump status NAME` tells of programs that have ended")
            .with_source(source)
    })?;
    let named = |name: &str| procfs::threads(pid).iter().any(|thread| thread == name);
    Err(if named(agent::THREAD_NAME) {
        Error::new(
            ErrorKind::NotFound,
            format!("process {pid} ({}) has not said how it is doing", process.name),
        )
        .with_hint("ask as the user that it runs as, or name its folder: `selfdump status FOLDER`")
    } else {
        Error::new(ErrorKind::NotFound, format!("process {pid} ({}) runs without selfdump", process.name))
            .with_hint("call selfdump::install() in it; don't send it SIGUSR2, which would end it")
    })
}

/// Those of the instances of a NAME in `store`, or of a folder, the one that wrote last first.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where there is no such target.
pub fn of_target(store: &Path, target: &Path) -> Result<Vec<Status>> {
    let folders = catalogue::instances(store, target)?;
    let mut found: Vec<Status> =
        folders.iter().filter_map(|folder| status::in_folder(folder)).map(now).collect();
    found.sort_by_key(|status| std::cmp::Reverse(status.last.as_ref().map(|attempt| attempt.finished)));
    Ok(found)
}

/// A program that came back tells so in the runtime folder; in the store stands the last attempt of the life
/// before.
fn now(in_store: Status) -> Status {
    match Status::of(in_store.pid()) {
        Some(running) if running.folder == in_store.folder => running,
        _ => in_store,
    }
}
