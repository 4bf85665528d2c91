//! How a program that selfdump runs in is doing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::agent;
use crate::error::{Error, ErrorKind, Result};
pub use crate::store::status::{Attempt, Failure, Status};
use crate::store::{catalogue, layout, status};
use crate::sys::procfs;

/// The process id that a target is, where it is none else: a program or folder that is called so can be named by a path
/// (`./42`).
pub fn process_id(target: &Path) -> Option<i32> {
    target.to_str()?.parse().ok().filter(|&pid| pid > 0)
}

/// Those of all programs of this pid namespace that selfdump runs in, as far as this user may know, by name.
pub fn running() -> Vec<Status> {
    let mut found = status::running();
    found.sort_by_key(|status| (status.name.clone(), status.pid()));
    found
}

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

/// Those of the instances of a NAME in `store`, or of a folder, the one that wrote last first. A program that has just
/// been started has no folder yet, and is known by its name.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where there is no such target.
pub fn of_target(store: &Path, target: &Path) -> Result<Vec<Status>> {
    let is_meant = |status: &Status| Path::new(&status.name) == target && status.folder.starts_with(store);
    let mut found: Vec<Status> = status::running().into_iter().filter(is_meant).collect();
    match catalogue::instances(store, target) {
        Ok(folders) => {
            let in_store = folders.iter().filter_map(|folder| status::in_folder(folder)).map(now);
            let in_store: Vec<Status> = in_store.collect();
            found.retain(|running| in_store.iter().all(|status| status.folder != running.folder));
            found.extend(in_store);
        }
        Err(error) if found.is_empty() => return Err(error),
        Err(_) => {}
    }
    found.sort_by_key(|status| std::cmp::Reverse(status.last.as_ref().map(|attempt| attempt.finished)));
    Ok(found)
}

/// CRIU's log of the last dump that failed, of a NAME in `store`, or of a folder.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where there is no such target, or none of its dumps has failed.
pub fn failed_log(store: &Path, target: &Path) -> Result<PathBuf> {
    let logs = catalogue::instances(store, target)?.into_iter().map(|folder| folder.join(layout::FAILED_LOG));
    let last_written = |log: &PathBuf| fs::metadata(log).and_then(|about| about.modified()).ok();
    logs.filter(|log| log.is_file()).max_by_key(last_written).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("no dump of {} has failed with a log", target.display()))
            .with_hint("`selfdump status` tells how the last one went; name the log of a restore by its path")
    })
}

/// A program that came back tells so in the runtime folder; in the store stands the last attempt of the life
/// before.
fn now(in_store: Status) -> Status {
    match Status::of(in_store.pid()) {
        Some(running) if running.folder == in_store.folder => running,
        _ => in_store,
    }
}
