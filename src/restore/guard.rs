//! Nothing is left behind: a process that ends the program when its restorer is gone before it.
//!
//! A restorer that is killed by SIGKILL can do nothing more, and the kernel's own way (PR_SET_PDEATHSIG) would be a
//! part of the program from then on, in its next checkpoint as well. So somebody else waits for the restorer's end: the
//! same command once more, in a process group of its own, at the other end of a socket. What comes through it is the
//! process id of the program that is being brought back; the end of the socket is the end of the restorer.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Staging;
use crate::criu::LazyPages;
use crate::error::{Error, Result};
use crate::store::staging;
use crate::sys::{message, process, procfs, signal};

/// How long the few bytes may take that a guard is told.
const TELLING: Duration = Duration::from_secs(1);

/// How long CRIU may go on making processes after it was killed with the restorer.
const AFTERMATH: Duration = Duration::from_secs(2);

/// The longest message: two numbers, and a path of the longest that the kernel takes.
const LONGEST: usize = 4096 + 40;

/// What stands for nobody.
const NOBODY: i32 = 0;

/// What a guard is told: the program that is to end with the restorer.
struct Ward {
    pid: i32,
    /// When it began, in the kernel's ticks, once it is there.
    start_ticks: Option<u64>,
    /// The folder that what fills its memory is in, if anything does.
    work: PathBuf,
}

/// A process that outlives this one, to end the program that this one brings back. It goes without a word when it is
/// dropped.
#[derive(Debug)]
pub struct Guard(OwnedFd);

impl Guard {
    /// Posts one: a command that calls [`stand`]. The restore doesn't wait for it: what it is told, it finds when it has
    /// started. That it can't be started is logged.
    ///
    /// # Errors
    ///
    /// Where there is no socket or thread to be had.
    pub fn post(mut command: Command) -> Result<Guard> {
        let failed = |source| Error::os("start a process that ends the program with this one", source);
        let (ours, theirs) = message::pair().map_err(failed)?;
        command.process_group(0).current_dir("/");
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let start = move || {
            if let Err(source) = command.spawn() {
                log::warn!("{}", failed(source).chain());
            }
        };
        thread::Builder::new().name("guard".to_owned()).spawn(start).map_err(failed)?;
        Ok(Guard(ours))
    }

    /// From here on it is this process that has to end with us. Nobody has that id yet. What fills its memory, if anything
    /// does, is in the work folder.
    pub(super) fn watch(&self, pid: i32, work: &Path) {
        self.tell(&format!("{pid} - {}", work.display()));
    }

    /// It is there: what has its id later, when it has ended, isn't it any more.
    pub(super) fn knows(&self, pid: i32, work: &Path) {
        if let Ok(stat) = procfs::stat(pid) {
            self.tell(&format!("{pid} {} {}", stat.start_ticks, work.display()));
        }
    }

    /// The program hasn't come back, or is done.
    pub(super) fn forget(&self) {
        self.tell(&NOBODY.to_string());
    }

    /// One that was killed can't be told anything; the restore goes on without it.
    fn tell(&self, text: &str) {
        if let Err(error) = message::send(&self.0, text.as_bytes(), Instant::now() + TELLING) {
            log::warn!(
                "the program would go on without this command, were that killed: its guard is gone ({error})"
            );
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.forget();
    }
}

/// What a guard does: waits for the end of its restorer, which it knows by its standard input, and then ends the
/// program, if that is still there.
///
/// # Errors
///
/// Where standard input can't be read, or isn't from a restorer.
pub fn stand() -> Result<()> {
    let failed = |source| Error::os("watch over a restored program", source);
    let mut ward = None;
    while let Some(told) = next().map_err(failed)? {
        ward = Some(told).filter(|told| told.pid != NOBODY);
    }
    if let Some(Ward { pid, start_ticks, work }) = ward {
        match start_ticks {
            Some(began) => drop(end_if(pid, |stat| stat.start_ticks == began)),
            None => end(pid).map_err(failed)?,
        }
        // There is one only where memory was to be filled, and it hasn't begun.
        let _ = LazyPages::dismiss(&work);
    }
    // Of a restorer that was killed; one that has ended by itself has left nothing.
    staging::sweep(&Staging::Off);
    Ok(())
}

/// The next that it is told; none when the restorer is gone.
fn next() -> io::Result<Option<Ward>> {
    // A message is read as a whole.
    let mut message = [0; LONGEST];
    let length = io::stdin().read(&mut message)?;
    let text = std::str::from_utf8(&message[..length]).unwrap_or_default();
    let mut words = text.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (pid, start, work) = (word(), word(), word());
    match pid {
        "" => Ok(None),
        pid => {
            let pid = pid.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            Ok(Some(Ward { pid, start_ticks: start.parse().ok(), work: work.into() }))
        }
    }
}

/// Ends the program, or what there is of it. Only a process that has begun since this one has is the program. It may not
/// even have: CRIU, which is killed with the restorer or with a service, may be about to make it.
pub(super) fn end(pid: i32) -> io::Result<()> {
    let born = procfs::stat(process::id())?.start_ticks;
    let started = Instant::now();
    while started.elapsed() < AFTERMATH && !end_if(pid, |stat| stat.start_ticks >= born) {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ends a process and its descendants if it is the one that is meant. Whether it was there.
fn end_if(pid: i32, is_meant: impl Fn(&procfs::Stat) -> bool) -> bool {
    let is_there = procfs::stat(pid).is_ok_and(|stat| !stat.is_ending && is_meant(&stat));
    if is_there {
        end_tree(pid);
    }
    is_there
}

/// Ends a process and all its descendants; who they were.
pub(crate) fn end_tree(root: i32) -> Vec<i32> {
    let mut stopped = Vec::new();
    // What is stopped makes no more children; those that came meanwhile are found by another look.
    loop {
        let tree = procfs::tree(root);
        let new: Vec<i32> = tree.into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        new.iter().for_each(|&pid| drop(signal::send(pid, signal::STOP)));
        stopped.extend(new);
    }
    stopped.iter().for_each(|&pid| drop(signal::kill(pid)));
    stopped
}
