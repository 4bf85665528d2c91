//! Asking a program for a checkpoint, from outside.
//!
//! A signal ends a program that has no handler for it. So nobody is sent one who doesn't say of himself that he takes
//! it, and of whom the kernel doesn't say so as well.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, ErrorKind, Result};
use crate::status::{self, Attempt, Status};
use crate::store::status::in_folder;
use crate::sys::pidfd::Stranger;
use crate::sys::signal::Signal;
use crate::sys::task;

/// How often it is looked whether the program has something to say.
const LOOK: Duration = Duration::from_millis(20);

/// A program that was asked for a checkpoint.
#[derive(Debug)]
pub struct Asked {
    process: Stranger,
    /// What it had said of itself just before.
    status: Status,
    signal: Signal,
    at: SystemTime,
    /// When the attempts began that were known just before: none of them is the answer, though the clock be set back.
    known: Vec<SystemTime>,
}

/// The program that is meant by a process id, a NAME in the store, or a folder of its checkpoints.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where no such program runs with selfdump in it, or more than one does.
pub fn whom(store: &Path, target: &Path) -> Result<Status> {
    if let Some(pid) = status::process_id(target) {
        return status::of_process(pid);
    }
    let mut running = status::of_target(store, target)?;
    running.retain(Status::is_running);
    match running.len() {
        0 => Err(Error::new(ErrorKind::NotFound, format!("no program of {} runs", target.display()))
            .with_hint(
                "`selfdump status` lists the programs that run; `selfdump restore NAME` brings one back",
            )),
        1 => Ok(running.remove(0)),
        count => {
            let pids: Vec<String> = running.iter().map(|status| status.pid().to_string()).collect();
            Err(Error::new(
                ErrorKind::NotFound,
                format!("{count} programs of {} run: {}", target.display(), pids.join(", ")),
            )
            .with_hint("name the one that is meant by its process id"))
        }
    }
}

/// Sends a program the signal that it takes for this, if it really has selfdump's handler for it.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where the program, or its handler, isn't there any more; [`ErrorKind::Permission`] where it
/// isn't ours to be signalled.
pub fn ask(status: &Status) -> Result<Asked> {
    let pid = status.pid();
    let gone = |source| {
        Error::os("look at the program", source).with_hint("look whether it still runs: `selfdump status`")
    };
    // Held before it is looked at: what is looked at afterwards is what gets the signal.
    let process = Stranger::hold(pid).map_err(gone)?;
    if !status.is_running() {
        return Err(Error::new(ErrorKind::NotFound, format!("process {pid} ({}) has ended", status.name))
            .with_hint("`selfdump restore NAME` brings it back"));
    }
    let signal = handled_signal(status, &task::look(pid).map_err(gone)?)?;
    let known = attempts(status).map(|attempt| attempt.started).collect();
    let at = SystemTime::now();
    process.signal(signal.number()).map_err(|source| {
        Error::os(&format!("send {signal} to process {pid} ({})", status.name), source)
            .with_hint("ask as the user that it runs as, or as root")
    })?;
    Ok(Asked { process, status: status.clone(), signal, at, known })
}

/// The signal that a program takes, if the kernel says that it has a handler for it, and the program that it is ours.
fn handled_signal(status: &Status, task: &task::Task) -> Result<Signal> {
    let (pid, name) = (status.pid(), &status.signal);
    let not_there = |why: &str, hint: &str| {
        Error::new(ErrorKind::NotFound, format!("process {pid} ({}) is not sent {name}: {why}", status.name))
            .with_hint(hint)
    };
    let signal = name.parse::<Signal>().map_err(|error| {
        not_there("it names a signal that is none here", "ask on the machine that it runs on")
            .with_source(error)
    })?;
    if !task.catches(signal.number()) {
        return Err(not_there(
            "it has no handler for it any more, and would be ended by it",
            "the program has taken selfdump's handler away, or runs another program by now: have it call selfdump::install() again",
        ));
    }
    if status.overwritten_signals.contains(name) {
        return Err(not_there(
            "it has put a handler of its own in the place of selfdump's",
            "install selfdump after that handler, or give it another signal with SELFDUMP_SIGNAL",
        ));
    }
    Ok(signal)
}

impl Asked {
    /// The signal that it was asked by.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Waits for what comes of it: an attempt that began after it was asked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadline`] where nothing came of it for so long; [`ErrorKind::NotFound`] where the program ended
    /// first.
    pub fn wait(&self, patience: Duration) -> Result<Attempt> {
        let started = Instant::now();
        loop {
            let has_ended = self.process.has_ended();
            if let Some(attempt) = self.answer() {
                return Ok(attempt);
            }
            if has_ended {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "process {} ({}) ended before it had a checkpoint",
                        self.status.pid(),
                        self.status.name
                    ),
                )
                .with_hint("its own output tells why; `selfdump restore NAME` goes on from the last one"));
            }
            if started.elapsed() >= patience {
                return Err(self.out_of_patience(patience));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The attempt that it made of it.
    fn answer(&self) -> Option<Attempt> {
        // What is written of a time is cut off to microseconds.
        let earliest = self.at.checked_sub(Duration::from_micros(1))?;
        attempts(&self.status)
            .filter(|attempt| attempt.started >= earliest && !self.known.contains(&attempt.started))
            .min_by_key(|attempt| attempt.started)
    }

    fn out_of_patience(&self, patience: Duration) -> Error {
        let pid = self.status.pid();
        let error = Error::new(
            ErrorKind::Deadline,
            format!(
                "process {pid} ({}) was sent {}, and has no checkpoint after {}",
                self.status.name,
                self.signal,
                humantime::format_duration(patience)
            ),
        );
        match task::look(pid).is_ok_and(|task| task.is_stopped) {
            true => error.with_hint(format!("it is stopped: `kill -CONT {pid}` has it go on, and make the checkpoint then")),
            false => error.with_hint(format!("it comes when min_interval has passed, and the last Hold is dropped: `selfdump status {pid}` tells")),
        }
    }
}

/// The last attempt, as it is told by the process, and by the store where that has just ended.
fn attempts(status: &Status) -> impl Iterator<Item = Attempt> + use<> {
    let told = [Status::of(status.pid()), in_folder(&status.folder)];
    told.into_iter().flatten().filter_map(|status| status.last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::report::Cause;
    use crate::store::layout::{self, Instance};
    use crate::store::life::Life;

    #[test]
    fn nobody_is_signalled_who_has_no_handler_of_ours() {
        let settings = Config::new().dir("/tmp").name("app").resolve(&|_| None).unwrap();
        let (life, instance) = Life::of_this_process().unwrap();
        let status = Status::new(&Instance::new(&settings.dir, "app", instance), &life, &settings);
        let catching = |bits: &str| task::Task::parse(&format!("SigCgt:\t{bits}\n"));
        assert_eq!(handled_signal(&status, &catching("0800")).unwrap(), Signal::USR2);
        let error = handled_signal(&status, &catching("0400")).unwrap_err();
        assert!(error.to_string().contains("would be ended by it"), "{error:?}");
        let mut overwritten = status.clone();
        overwritten.overwritten_signals.push("SIGUSR2".to_owned());
        let error = handled_signal(&overwritten, &catching("0800")).unwrap_err();
        assert!(error.hint().unwrap().contains("SELFDUMP_SIGNAL"), "{error:?}");
    }
    #[test]
    fn an_attempt_that_was_known_before_is_no_answer_though_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Config::new().dir("/tmp").name("app").resolve(&|_| None).unwrap();
        let (life, instance) = Life::of_this_process().unwrap();
        let mut status = Status::new(&Instance::new(&settings.dir, "app", instance), &life, &settings);
        status.folder = folder.path().to_owned();
        let at = SystemTime::now();
        let started = at + Duration::from_secs(3600);
        status.last = Some(Attempt {
            cause: Cause::Timer,
            started,
            finished: started,
            saved: true,
            checkpoint: None,
            size_bytes: None,
            frozen_us: None,
            staged: None,
            technique: None,
            pause_budget: None,
            error: None,
        });
        std::fs::write(folder.path().join(layout::STATUS), serde_json::to_vec(&status).unwrap()).unwrap();
        let answer = |known: &[SystemTime]| {
            let process = Stranger::hold(status.pid()).unwrap();
            let (status, known) = (status.clone(), known.to_vec());
            Asked { process, status, signal: Signal::USR2, at, known }.answer()
        };
        assert!(answer(&[]).is_some());
        let known: Vec<SystemTime> = attempts(&status).map(|attempt| attempt.started).collect();
        assert!(answer(&known).is_none());
    }
}
