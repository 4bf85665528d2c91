//! What is so of one running program, and what follows from it.

use std::path::PathBuf;

use super::{Finding, Verdict};
use crate::criu::{self, Obstacle};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::status::{self, Status};
use crate::sys::signal::Signal;
use crate::sys::{self, disk, procfs, task};

/// Everything that is judged of a program.
pub(super) struct Running {
    pid: i32,
    task: task::Task,
    /// Our own effective user id.
    us: u32,
    /// Its user's id.
    user: u32,
    /// What it says of itself, or why it doesn't.
    status: Result<Status>,
    /// What CRIU can't dump, or why it can't be seen.
    obstacles: Result<Vec<Obstacle>>,
    /// What its checkpoint takes, and what is free where it goes.
    memory: Bytes,
    free: Option<Bytes>,
}

pub(super) fn look(pid: i32) -> Result<Running> {
    let task = task::look(pid).map_err(|source| {
        Error::new(ErrorKind::NotFound, format!("there is no process {pid}"))
            .with_hint("`selfdump status` lists the programs that run with selfdump in them")
            .with_source(source)
    })?;
    let status = status::of_process(pid);
    let obstacles = criu::obstacles_of(pid).map_err(|source| {
        Error::os(&format!("look at what process {pid} has open"), source)
            .with_hint("ask as the user that it runs as, or as root")
    });
    let at = status.as_ref().ok().and_then(|status| nearest(&status.folder));
    Ok(Running {
        pid,
        us: sys::process::user().1,
        user: task.user,
        task,
        status,
        obstacles,
        memory: procfs::tree(pid)
            .into_iter()
            .map(|pid| Bytes(procfs::status_number(pid, "RssAnon").unwrap_or(0) * 1024))
            .sum(),
        free: at.and_then(|folder| disk::free_space(&folder).ok()),
    })
}

/// The nearest folder that is there already.
fn nearest(folder: &std::path::Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.is_dir()).map(PathBuf::from)
}

pub(super) fn judge(running: &Running) -> Vec<Finding> {
    let mut found = vec![user(running)];
    match &running.status {
        Ok(status) => {
            found.push(handler(running, status));
            found.push(last_attempt(status));
            found.extend(running.free.map(|free| space(running.memory, free, status)));
        }
        Err(error) => found.push(Finding::of("selfdump", Verdict::Failed, error)),
    }
    found.extend(obstacles(&running.obstacles));
    found
}

fn user(running: &Running) -> Finding {
    const CHECK: &str = "user";
    let Running { pid, us, user, .. } = running;
    match us == user || *us == 0 {
        true => Finding::ok(CHECK, format!("process {pid} runs as user {user}")),
        false => Finding::warning(
            CHECK,
            format!("process {pid} runs as user {user}, and little can be seen of it as user {us}"),
            format!("sudo selfdump doctor {pid}"),
        ),
    }
}

fn handler(running: &Running, status: &Status) -> Finding {
    const CHECK: &str = "handler";
    let (pid, name) = (running.pid, &status.signal);
    let catches = name.parse::<Signal>().is_ok_and(|signal| running.task.catches(signal.number()));
    if !catches {
        return Finding::failed(
            CHECK,
            format!("it has no handler for {name} any more, which would end it"),
            "the program has taken selfdump's handler away, or runs another program by now: have it call selfdump::install() again",
        );
    }
    if !status.overwritten_signals.is_empty() {
        return Finding::failed(
            CHECK,
            format!(
                "it has put handlers of its own in the place of selfdump's: {}",
                status.overwritten_signals.join(", ")
            ),
            "install selfdump after those, or name other signals with SELFDUMP_SIGNAL and SELFDUMP_EXIT_SIGNAL",
        );
    }
    match running.task.is_stopped {
        true => Finding::warning(
            CHECK,
            "it is stopped, and makes no checkpoint until it goes on",
            format!("kill -CONT {pid}"),
        ),
        false => Finding::ok(CHECK, format!("{name} asks it for a checkpoint: `selfdump trigger {pid}`")),
    }
}

fn last_attempt(status: &Status) -> Finding {
    const CHECK: &str = "last checkpoint";
    let Some(last) = &status.last else { return Finding::ok(CHECK, "none tried yet") };
    match (&last.error, &last.checkpoint) {
        (Some(error), _) => Finding {
            check: CHECK,
            verdict: Verdict::Failed,
            message: format!("failed, {} in a row: {}", status.failures_in_a_row, error.message),
            remedy: error.hint.clone(),
        },
        (None, Some(checkpoint)) => Finding::ok(CHECK, format!("saved: {checkpoint}")),
        (None, None) => Finding::ok(CHECK, "saved"),
    }
}

/// A new checkpoint is written before an old one is deleted.
fn space(memory: Bytes, free: Bytes, status: &Status) -> Finding {
    const CHECK: &str = "space";
    let at = status.folder.display();
    let remedy = format!("free space, or move the store: SELFDUMP_DIR (now {at})");
    if free < memory {
        return Finding::failed(
            CHECK,
            format!("a checkpoint takes about {memory}, and {free} are free"),
            remedy,
        );
    }
    match free.0 / 2 < memory.0 {
        true => Finding::warning(
            CHECK,
            format!("a checkpoint takes about {memory}, and {free} are free: there is room for one"),
            remedy,
        ),
        false => Finding::ok(CHECK, format!("a checkpoint takes about {memory}, and {free} are free")),
    }
}

fn obstacles(looked: &Result<Vec<Obstacle>>) -> Vec<Finding> {
    const CHECK: &str = "obstacles";
    match looked {
        Err(error) => vec![Finding::of(CHECK, Verdict::Warning, error)],
        Ok(found) if found.is_empty() => {
            vec![Finding::ok(CHECK, "nothing is open or mapped that CRIU is known to refuse")]
        }
        Ok(found) => found
            .iter()
            .map(|obstacle| match obstacle.is_certain {
                true => Finding::of(CHECK, Verdict::Failed, &obstacle.error),
                false => Finding::of(CHECK, Verdict::Warning, &obstacle.error),
            })
            .collect(),
    }
}
