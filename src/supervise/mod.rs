//! Being there for a program: it is started, watched, and brought back when it crashes.
//!
//! - [`Order`] says which program, with which settings, and what to do when it ends.
//! - [`run`] carries that out, and tells of each [`Event`].
//! - [`Policy`] decides what comes after a life: a pure function of the lives that there were.
//!
//! The program makes its checkpoints itself, by a copy of selfdump that it links or that is preloaded ([`Preload`]), as
//! the SELFDUMP_* variables say that it is started with; the runner only reads what it says of them. So a runner that is
//! killed takes nothing with it: the program goes on, and the next runner takes it over.

mod backoff;
mod event;
mod first;
mod leave;
mod lineage;
mod order;
mod place;
mod policy;
mod preload;
mod revive;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

pub use backoff::DEFAULT_BACKOFF;
pub use event::{Event, Look};
pub use order::{DEFAULT_COPY_OPEN, DEFAULT_GRACE, LEFT, OnTerm, Order};
pub use policy::{DEFAULT_RESTARTS, End, Life, Policy, Reason, Start};
pub use preload::Preload;

use crate::error::{Error, ErrorKind, Result};
use crate::restore;
use crate::store::catalogue::{self, Entry};
use crate::store::manifest::Manifest;
use crate::store::status::{Failure, Status};
use crate::sys::program::{self, Mask};
use crate::sys::{process, signal};
use lineage::Lineage;
use place::Place;
use policy::{Candidate, Decision};
use watch::{Over, Running, Tell, held};

/// What became of a program.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Conclusion {
    /// It has ended, as it wanted to or was told to.
    Ended(End),
    /// It has left with this checkpoint, to go on from there another time.
    Left(String),
    /// It crashed, and is not brought back any more. This was its last end.
    GaveUp(Reason, End),
    /// The command can't be started: [`ErrorKind::NotFound`] where there is no such program.
    NotStarted(Error),
}

/// Runs a program until it is done, bringing it back when it crashes. `tell` is told of all that happens.
///
/// Signals that are meant for the program are held back in the calling thread, and passed on. They stay held back: one
/// that comes after the end is not to keep this process from ending as the program did ([`restore::end_alike`]). Every
/// child of this process is reaped, and those that a crash has left are ended before the program comes back.
///
/// # Errors
///
/// [`ErrorKind::Held`] where another runner has this name, or a program of it runs and isn't to be taken over;
/// whatever keeps the store from being written to, or this machine from restoring anything.
pub fn run(order: &Order, tell: &mut dyn FnMut(&Event)) -> Result<Conclusion> {
    let failed = |source| Error::os("hold signals back", source);
    let mask = program::mask().map_err(failed)?;
    signal::keep_children().and_then(|()| signal::hold_back(&held())).map_err(failed)?;
    Runner::new(order, mask, tell)?.run()
}

struct Runner<'a> {
    order: &'a Order,
    /// What is put into the program when the command is started.
    library: Option<PathBuf>,
    options: restore::Options,
    place: Place,
    /// What was blocked before we began, and is to be blocked in the program.
    mask: Mask,
    tell: Tell<'a>,
    lives: Vec<Life>,
    lineage: Lineage,
    /// The process id that the program has in all lives that go on from each other.
    pid: Option<i32>,
    /// The folders of its instance: where it writes, and where the checkpoint was that it came from at first.
    folders: Vec<PathBuf>,
}

/// What to do next.
enum Step {
    Start,
    Restore(Entry),
    TakeOver(Status),
}

/// What came of it.
enum Begun {
    Running(Box<Running>),
    /// The last of the lives tells why.
    NotRestored,
    NotStarted(Error),
}

impl<'a> Runner<'a> {
    fn new(order: &'a Order, mask: Mask, tell: Tell<'a>) -> Result<Runner<'a>> {
        let library = order.preload.library()?;
        if order.can_not_bring_back() {
            log::warn!(
                "the program's checkpoints are encrypted, and none of the identities that were named (--identity) opens them: were it to crash, it could not be brought back from here"
            );
        }
        let place = Place::take(&order.folder(), order.name())?;
        process::adopt_orphans().map_err(|source| Error::os("adopt orphans", source))?;
        Ok(Runner {
            order,
            library,
            options: order.restore_options()?,
            place,
            mask,
            tell,
            lives: Vec::new(),
            lineage: Lineage::default(),
            pid: None,
            folders: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Conclusion> {
        let mut step = self.first()?;
        loop {
            match self.begin(step)? {
                Begun::Running(mut running) => {
                    let over = running.watch(self.order, self.tell)?;
                    self.note(&running, &over);
                    if let Some(conclusion) = self.conclusion_of(over) {
                        return Ok(conclusion);
                    }
                }
                Begun::NotRestored => {}
                Begun::NotStarted(error) => return Ok(Conclusion::NotStarted(error)),
            }
            let checkpoints = self.checkpoints()?;
            step = match self.decide(&checkpoints) {
                Decision::Restore(id) => match checkpoints.into_iter().find(|entry| entry.id() == id) {
                    Some(entry) => Step::Restore(entry),
                    None => Step::Start,
                },
                Decision::Start => Step::Start,
                Decision::GiveUp(reason) => return Ok(self.give_up(reason)),
                Decision::Done => return Ok(Conclusion::Ended(self.last_end())),
            };
            if let Some(told) = self.wait()? {
                return self.told_to_end(told);
            }
            revive::end_children();
        }
    }

    fn begin(&mut self, step: Step) -> Result<Begun> {
        match step {
            Step::Start => Ok(self.start()),
            Step::Restore(entry) => self.restore(&entry),
            Step::TakeOver(status) => self.take_over(status).map(Box::new).map(Begun::Running),
        }
    }

    fn start(&mut self) -> Begun {
        self.folders.clear();
        let beginning = Lineage::start(SystemTime::now());
        let mut variables = self.order.variables();
        let is_refused = self.preload(&mut variables);
        let made_before = self.place.made();
        let pid = match program::start(&self.order.command, variables, self.mask) {
            Ok(pid) => pid,
            Err(source) => return Begun::NotStarted(not_started(self.order, source)),
        };
        // Now that there is something else to go on with.
        self.place.begin_anew(made_before);
        self.pid = Some(pid);
        let anew = self.order.resume || !self.lives.is_empty();
        (self.tell)(&Event::Started { pid, anew });
        let mut running = Running::new(pid, Start::Command, beginning, self.restarts());
        running.was_said = is_refused;
        Begun::Running(Box::new(running))
    }

    /// Has the loader put our library into the program. Where that can't be this is true, and it is told before the
    /// first start.
    fn preload(&mut self, variables: &mut BTreeMap<String, OsString>) -> bool {
        let (Some(library), Some(command)) = (&self.library, self.order.command.first()) else {
            return false;
        };
        match preload::variable(library, command) {
            Ok((name, value)) => {
                variables.insert(name, value);
                false
            }
            Err(error) => {
                if self.lives.is_empty() {
                    (self.tell)(&Event::NotPreloaded { error: Failure::from(&error) });
                }
                true
            }
        }
    }

    /// How many lives there were before the next one.
    fn restarts(&self) -> usize {
        self.lives.iter().filter(|life| !life.is_restore_that_failed()).count()
    }

    fn note(&mut self, running: &Running, over: &Over) {
        if let Some(folder) = running.status.as_ref().map(|status| &status.folder) {
            if !self.folders.contains(folder) {
                self.folders.push(folder.clone());
            }
        }
        self.place.note_an_end();
        let ran = running.began.elapsed();
        let place = running.has_place.then(|| running.beginning.after(ran));
        let Over { end, asked, .. } = *over;
        let life = Life { start: running.start.clone(), end, asked, ran, place };
        let crashed = over.left.is_none() && !over.killed && !self.order.policy.is_done(&life);
        (self.tell)(&Event::Ended { pid: running.pid, life: life.clone(), crashed });
        self.lives.push(life);
        if running.has_place {
            // What can't be read now can't be decided upon later either.
            let made = self.checkpoints().unwrap_or_default();
            self.lineage.note(&running.beginning, &made);
        }
    }

    /// What there is to conclude without looking at the policy's row of lives.
    fn conclusion_of(&mut self, over: Over) -> Option<Conclusion> {
        if let Some(checkpoint) = over.left {
            return Some(self.leave(checkpoint));
        }
        if over.end == End::Exited(0) {
            self.place.begin_anew(self.place.made());
        }
        // It was told to end by SIGTERM, and had to be helped.
        over.killed.then_some(Conclusion::Ended(End::Signaled(signal::TERM)))
    }

    fn leave(&mut self, checkpoint: String) -> Conclusion {
        (self.tell)(&Event::Left { checkpoint: checkpoint.clone() });
        Conclusion::Left(checkpoint)
    }

    /// The checkpoints of this run, the newest first.
    fn checkpoints(&self) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        for folder in self.folders.iter().filter(|folder| folder.is_dir()) {
            found.extend(catalogue::find(self.order.dir(), Some(folder))?);
        }
        if self.folders.is_empty() {
            // It was too quick for us to see where it has them.
            let ours = |entry: &Entry| {
                let made_by = entry.manifest.as_ref().ok().map(Manifest::pid);
                made_by.is_some() && made_by == self.pid && !self.place.is_behind(entry)
            };
            found = catalogue::find(self.order.dir(), Some(&self.order.folder()))?;
            found.retain(ours);
        }
        found.retain(|entry| !entry.is_forensic());
        catalogue::newest_first(&mut found);
        Ok(found)
    }

    fn decide(&self, checkpoints: &[Entry]) -> Decision {
        let candidates: Vec<Candidate> =
            checkpoints.iter().map(|entry| Candidate { id: entry.id() }).collect();
        self.order.policy.decide(&self.lives, &candidates)
    }

    fn give_up(&mut self, reason: Reason) -> Conclusion {
        (self.tell)(&Event::GaveUp { reason, lives: self.lives.clone() });
        Conclusion::GaveUp(reason, self.last_end())
    }

    fn last_end(&self) -> End {
        self.lives.last().map_or(End::Unknown, |life| life.end)
    }
}

fn not_started(order: &Order, source: std::io::Error) -> Error {
    let program = order.command.first().map(PathBuf::from).unwrap_or_default();
    let error = Error::io("start", &program, source);
    let hint = match error.kind() {
        ErrorKind::NotFound => {
            "there is no such program on PATH, or the interpreter that its first line names is missing"
        }
        ErrorKind::Permission => "make it executable (chmod +x), or name the program that it is for",
        _ => return error,
    };
    error.with_hint(hint)
}
