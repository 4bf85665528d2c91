//! CRIU gives processes and threads the ids that they had; somebody else may have one now.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::store::manifest::Manifest;
use crate::store::status::Status;
use crate::sys::process;
use crate::sys::procfs::{self, Stat};

/// How long one that has ended may take to be reaped by its parent.
const REAPING: Duration = Duration::from_secs(10);

/// How long one that still looks alive may take to show that it is ending.
const ENDING: Duration = Duration::from_secs(1);

/// Waits while an id is held by a process that has ended, and says who has it otherwise.
pub(super) fn wait_until_free(manifest: &Manifest) -> Result<()> {
    // In order, so that the program itself is named before its threads.
    let ids: Vec<i32> =
        manifest.processes.iter().flat_map(|process| process.threads.iter().copied()).collect();
    let started = Instant::now();
    while let Some(id) = ids.iter().copied().find(|&id| !is_free(id)) {
        let holder = holder_of(id);
        let is_ending = holder.as_ref().is_none_or(|(_, stat)| stat.is_ending);
        if started.elapsed() > if is_ending { REAPING } else { ENDING } {
            return Err(holder.map_or_else(|| hidden(id), |(pid, stat)| taken(manifest, id, pid, &stat)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Where that can't be known, CRIU finds out.
fn is_free(id: i32) -> bool {
    process::is_free(id).unwrap_or(true)
}

/// The process that has an id: as its own, or as that of its group or session, which the kernel keeps for as long as there
/// is a member. None is seen where it is just being reaped.
fn holder_of(id: i32) -> Option<(i32, Stat)> {
    let own = procfs::stat(id).ok().map(|stat| (id, stat));
    own.or_else(|| procfs::stats().find(|(_, stat)| [stat.group, stat.session].contains(&id)))
}

fn hidden(id: i32) -> Error {
    Error::new(
        ErrorKind::PidTaken,
        format!("the program needs the process id {id}, which somebody has whom /proc doesn't show here"),
    )
    .with_hint("look as root who has it, as its own or as that of its group or session, and end it, then restore again")
}

/// Whether what runs now came back from a checkpoint of the same instance.
fn is_later_life(manifest: &Manifest) -> bool {
    let instance = Path::new(&manifest.id).parent().unwrap_or(Path::new(""));
    Status::of(manifest.life.pid).is_some_and(|status| status.folder.ends_with(instance))
}

fn taken(manifest: &Manifest, id: i32, pid: i32, holder: &Stat) -> Error {
    let life = &manifest.life;
    let name = &holder.name;
    let still_itself = id == life.pid
        && (procfs::same_start(holder.start_ticks, life.start_ticks) || is_later_life(manifest));
    let (text, hint) = if holder.is_ending {
        let parent = holder.parent;
        (
            format!(
                "process {id} ({name}) has ended, but its parent {parent} has not reaped it, so its id isn't free"
            ),
            format!("end process {parent}, or have it wait for its children; then restore again"),
        )
    } else if still_itself {
        (
            format!("the program still runs, as process {id} ({name})"),
            format!("end it first (kill {id}), then restore"),
        )
    } else if pid != id {
        (
            format!(
                "the program needs the process id {id}, which is still the group or session of process {pid} ({name})"
            ),
            format!(
                "it is probably a child that the program has left behind: end it (kill {pid}), then restore again"
            ),
        )
    } else {
        (
            format!("the program needs the process id {id}, which process {id} ({name}) has now"),
            "wait for that process to end, or end it, then restore again; or restore in a pid namespace of its own: --pidns".to_owned(),
        )
    };
    Error::new(ErrorKind::PidTaken, text).with_hint(hint)
}
