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
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::config::Staging;
use crate::criu::LazyPages;
use crate::error::{Error, Result};
use crate::store::staging;
use crate::sys::{message, procfs, signal};

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
    began: Began,
    /// The folder that what fills its memory is in, if anything does.
    work: PathBuf,
}

/// When the program began, in the kernel's ticks: who has its process id and began at another time is somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Began {
    /// It isn't there yet, and nobody had the id by then.
    Since(u64),
    At(u64),
}

impl Began {
    fn is_of(self, stat: &procfs::Stat) -> bool {
        match self {
            Began::Since(earliest) => stat.start_ticks >= earliest,
            Began::At(start) => stat.start_ticks == start,
        }
    }
}

/// A process that outlives this one, to end the program that this one brings back. It goes without a word when it is
/// dropped.
#[derive(Debug)]
pub struct Guard {
    socket: OwnedFd,
    /// Until it has been waited for.
    start: Mutex<Option<JoinHandle<()>>>,
}

impl Guard {
    /// Posts one: a command that calls [`stand`]. That goes on beside what is done before anything is restored; what it is
    /// told, it finds when it is ready. That it can't be started is logged.
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
        let start = thread::Builder::new().name("guard".to_owned()).spawn(start).map_err(failed)?;
        Ok(Guard { socket: ours, start: Mutex::new(Some(start)) })
    }

    /// From here on it is this process that has to end with us. Nobody has that id yet. What fills its memory, if anything
    /// does, is in the work folder.
    pub(super) fn watch(&self, pid: i32, work: &Path) {
        // Nothing is restored before there is somebody to end it, who may be ready for that only when it is there.
        if let Some(start) = self.start.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = start.join();
        }
        match procfs::now() {
            Ok(now) => self.tell(&format!("{pid} since {now} {}", work.display())),
            Err(error) => {
                log::warn!("the program would go on without this command, were that killed: {error}")
            }
        }
    }

    /// It is there: what has its id later, when it has ended, isn't it any more.
    pub(super) fn knows(&self, pid: i32, work: &Path) {
        if let Ok(stat) = procfs::stat(pid) {
            self.tell(&format!("{pid} at {} {}", stat.start_ticks, work.display()));
        }
    }

    /// The program hasn't come back, or is done.
    pub(super) fn forget(&self) {
        self.tell(&NOBODY.to_string());
    }

    /// One that was killed can't be told anything; the restore goes on without it.
    fn tell(&self, text: &str) {
        if let Err(error) = message::send(&self.socket, text.as_bytes(), Instant::now() + TELLING) {
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
    if let Some(Ward { pid, began, work }) = ward {
        match began {
            Began::At(_) => drop(end_if(pid, began)),
            Began::Since(earliest) => end(pid, earliest),
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
    match std::str::from_utf8(&message[..length]) {
        Ok("") => Ok(None),
        text => Ok(Some(text.ok().and_then(understood).ok_or(io::ErrorKind::InvalidData)?)),
    }
}

fn understood(text: &str) -> Option<Ward> {
    let mut words = text.splitn(4, ' ');
    let pid = words.next()?.parse().ok()?;
    if pid == NOBODY {
        return Some(Ward { pid, began: Began::At(0), work: PathBuf::new() });
    }
    let (which, ticks) = (words.next()?, words.next()?.parse().ok()?);
    let began = match which {
        "since" => Began::Since(ticks),
        _ => Began::At(ticks),
    };
    Some(Ward { pid, began, work: words.next()?.into() })
}

/// Ends the program, or what there is of it: the process with that id that began at this time, in the kernel's ticks, or
/// later. It may not even have: CRIU, which is killed with the restorer or with a service, may be about to make it.
pub(super) fn end(pid: i32, earliest: u64) {
    let started = Instant::now();
    while started.elapsed() < AFTERMATH && !end_if(pid, Began::Since(earliest)) {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Ends a process and its descendants if it is the one that is meant. Whether it was there.
fn end_if(pid: i32, began: Began) -> bool {
    let is_there = procfs::stat(pid).is_ok_and(|stat| !stat.is_ending && began.is_of(&stat));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_there_before_is_left_alone_and_one_that_has_come_since_is_ended() {
        let mut old = Command::new("sleep").arg("60").spawn().unwrap();
        thread::sleep(Duration::from_millis(50));
        let earliest = procfs::now().unwrap();
        let mut new = Command::new("sleep").arg("60").spawn().unwrap();
        [&old, &new].iter().for_each(|child| end(child.id() as i32, earliest));
        assert!(!new.wait().unwrap().success());
        assert!(old.try_wait().unwrap().is_none());
        old.kill().unwrap();
        old.wait().unwrap();
    }

    #[test]
    fn what_a_guard_is_told_it_understands_and_nothing_else() {
        let ward = understood("4711 since 123 /tmp/a folder").unwrap();
        assert_eq!((ward.pid, ward.began), (4711, Began::Since(123)));
        assert_eq!(ward.work, Path::new("/tmp/a folder"));
        assert_eq!(understood("4711 at 123 /tmp").unwrap().began, Began::At(123));
        assert_eq!(understood("0").unwrap().pid, NOBODY);
        for text in ["", "x", "4711", "4711 since", "4711 since then /tmp", "4711 - /tmp"] {
            assert!(understood(text).is_none(), "{text}");
        }
    }
}
