//! Being the parent of a restored program: signals are passed on to it, its end becomes ours.

use std::process::Command;
use std::time::Duration;

use super::guarded::Keeper;
use super::relay::{PassingOn, Relay};
use crate::error::{Error, Result};
use crate::sys::{namespace, process, signal, terminal};

/// How long a lost SIGCHLD could go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The same where no signal tells of an end.
const LOOK_CLOSELY: Duration = Duration::from_millis(50);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal.
    Signaled(i32),
}

/// Holds back, in the calling thread, the signals that are meant for the program. To be called before
/// [`restore`](super::restore), so that none is lost while the program comes back; [`attend`] then passes
/// them on.
///
/// # Errors
///
/// Where the operating system refuses it.
pub fn hold_signals() -> Result<()> {
    signal::keep_children()
        .and_then(|()| signal::hold_back(&held()))
        .map_err(|source| Error::os("hold signals back", source))
}

/// Waits for a restored program to end, and passes signals on to it meanwhile, and what goes through the terminal
/// that was made for it. One that isn't a child of this process has a keeper.
///
/// # Errors
///
/// Where the process is neither, or the keeper gone.
pub fn attend(pid: i32, relay: Option<Relay>, keeper: Option<&Keeper>) -> Result<Ended> {
    let relay = relay.map(Relay::start).transpose();
    let mut relay = relay.map_err(|source| Error::os("pass on what goes through a terminal", source))?;
    let ended = wait(pid, relay.as_mut(), keeper);
    if let Some(relay) = relay {
        relay.finish();
    }
    ended
}

fn wait(pid: i32, mut relay: Option<&mut PassingOn>, keeper: Option<&Keeper>) -> Result<Ended> {
    let failed = |source| Error::os(&format!("wait for process {pid}"), source);
    loop {
        let ended = match keeper {
            Some(keeper) => keeper.end()?,
            None => process::try_wait(pid).map_err(failed)?,
        };
        match ended {
            Some(process::Ended::Exited(status)) => return Ok(Ended::Exited(status)),
            Some(process::Ended::Signaled(signal)) => return Ok(Ended::Signaled(signal)),
            Some(process::Ended::Unknown) => {
                return Err(failed(std::io::Error::other("it is not our child")));
            }
            None => {}
        }
        if let Some(relay) = &mut relay {
            relay.take_input().map_err(failed)?;
        }
        if let Some(taken) =
            signal::take(&held(), keeper.map_or(LOOK_AGAIN, |_| LOOK_CLOSELY)).map_err(failed)?
        {
            pass_on(pid, taken, relay.as_deref());
        }
    }
}

/// It may have ended just now; the next look tells.
fn pass_on(pid: i32, taken: signal::Taken, relay: Option<&PassingOn>) {
    match (taken.signal, relay) {
        (signal::CHILD, _) => {}
        // The kernel tells those who use the terminal.
        (signal::WINDOW, Some(relay)) => relay.resize(),
        (signal::TERMINAL_STOP, _) => {
            if !has_it_already(pid, taken) {
                let _ = signal::send(pid, taken.signal);
            }
            // We stop as the program does, and go on when we are told to; then so does the program.
            let _ = signal::stop_ourselves();
            let _ = signal::send(pid, signal::CONTINUE);
        }
        _ if has_it_already(pid, taken) => {}
        _ => {
            let _ = signal::send(pid, taken.signal);
        }
    }
}

/// A key pressed at the terminal goes to its whole foreground group, which the program may be in.
fn has_it_already(pid: i32, taken: signal::Taken) -> bool {
    taken.from_kernel && process::group_of(pid) == process::group_of(process::id())
}

/// What is ignored here (`nohup`, a background job) stays so: it is not for the program either.
fn held() -> Vec<i32> {
    let both = signal::FOR_THE_PROGRAM.into_iter().chain(signal::FOR_A_JOB);
    both.filter(|&signal| !signal::is_ignored(signal)).chain([signal::CHILD]).collect()
}

/// Runs a command at a pseudoterminal of its own, as the leader of a session there, and passes on what goes through
/// that until it ends.
///
/// # Errors
///
/// Where no pseudoterminal can be had, or the command can't be started.
pub fn at_a_terminal(mut command: Command) -> Result<Ended> {
    let failed = |source| Error::os("start a command at a pseudoterminal", source);
    let (relay, slave) = Relay::make().map_err(failed)?;
    let stream = || slave.try_clone().map_err(failed);
    command.stdin(stream()?).stdout(stream()?).stderr(stream()?);
    terminal::lead_a_session(&mut command);
    let child = command.spawn().map_err(failed)?;
    // Or it would never end for us.
    drop((command, slave));
    attend(child.id() as i32, Some(relay), None)
}

/// Runs a command, this one once more, as the first process of a new pid namespace, in which every process id is free,
/// and waits for its end as [`attend`] does. It ends with this process. A death by a signal is the status 128 and the
/// signal's number there, since a first process can't die of a signal of its own.
///
/// # Errors
///
/// [`ErrorKind::Permission`](crate::ErrorKind::Permission) without root's rights.
pub fn in_a_pid_namespace(mut command: Command) -> Result<Ended> {
    let child = namespace::spawn(&mut command).map_err(|source| {
        Error::os("start a command in a pid namespace of its own", source)
            .with_hint("that takes root's rights; without it the program's process ids have to be free")
    })?;
    attend(child.id() as i32, None, None)
}

/// Ends this process as the program ended: with its status, or by the same signal.
pub fn end_alike(ended: Ended) -> ! {
    match ended {
        Ended::Exited(status) => std::process::exit(status),
        Ended::Signaled(signal) => signal::die_of(signal),
    }
}
