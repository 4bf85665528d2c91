//! A program that runs while its memory is still being filled ([`LazyPages`]), and never with a page that isn't its own.
//!
//! A thread of the restorer stands by. Where what fills the memory ends before it is done, it stands still with all that
//! it has open, and whoever touches a page that is missing waits; meanwhile the thread ends the program, and all it has
//! forked. Only then may the filler go. What was lost is said, and the program is brought back once more, at once whole.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::attend::Ended;
use super::guard;
use crate::criu::{Connection, LazyPages};
use crate::error::{Error, ErrorKind, Result};
use crate::store::catalogue::Entry;
use crate::store::filling::Mark;
use crate::store::work::WorkFolder;
use crate::sys::pidfd::Stranger;
use crate::sys::procfs::{self, Stat};
use crate::sys::{process, signal};

/// How long what is killed may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// What the thread has to know when the filler ends too early.
enum Word {
    /// This CRIU has been asked, and may be about to let the program run.
    Asked(Stranger),
    /// The program runs.
    Runs,
}

/// What is needed to fill the memory of a program.
pub(super) struct Order {
    pub(super) criu: PathBuf,
    pub(super) images: PathBuf,
    pub(super) work: PathBuf,
    pub(super) timeout: Duration,
    pub(super) pids: Vec<i32>,
    pub(super) mark: Mark,
}

/// The filler of a program that isn't there yet. Where this is dropped, it ends.
pub(super) struct Filler {
    thread: Option<JoinHandle<Result<()>>>,
    words: Option<Sender<Word>>,
    is_given_up: Arc<AtomicBool>,
    started: Receiver<Result<Stranger>>,
    daemon: Option<Stranger>,
}

impl Filler {
    /// Starts it; [`Filler::before`] waits for it.
    pub(super) fn start(order: Order) -> Result<Filler> {
        let (words, heard) = mpsc::channel();
        let (tell, started) = mpsc::channel();
        let is_given_up = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_given_up);
        let thread = std::thread::Builder::new()
            .name("lazy pages".to_owned())
            .spawn(move || stand_by(&order, &tell, &heard, &seen))
            .map_err(|source| Error::os("start a thread that watches `criu lazy-pages`", source))?;
        Ok(Filler { thread: Some(thread), words: Some(words), is_given_up, started, daemon: None })
    }

    /// Waits until it is ready for this CRIU to be asked.
    pub(super) fn before(mut self, criu: &Connection) -> Result<Filler> {
        self.daemon = Some(self.started.recv().unwrap_or_else(|_| Err(stopped()))?);
        let held = criu.child_id().map(Stranger::hold).transpose();
        let held = held.map_err(|source| Error::os("hold on to criu", source))?;
        held.into_iter().for_each(|criu| self.tell(Word::Asked(criu)));
        Ok(self)
    }

    /// The program runs.
    pub(super) fn runs(mut self, pid: i32) -> Filling {
        self.tell(Word::Runs);
        Filling { pid, thread: self.thread.take(), result: Ok(()), leavings: None }
    }

    fn tell(&self, word: Word) {
        // Where it is done by now, it doesn't have to know any more.
        let _ = self.words.as_ref().map(|words| words.send(word));
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.is_given_up.store(true, Ordering::Relaxed);
        self.words = None;
        // One that nobody has waited for yet may be just about to listen.
        let daemon = self.daemon.take().or_else(|| self.started.recv().ok()?.ok());
        daemon.into_iter().for_each(|daemon| drop(daemon.signal(signal::KILL)));
        let _ = thread.join();
    }
}

/// The memory of a program that runs, and is filled. Where this is dropped, that is waited for.
#[derive(Debug)]
pub struct Filling {
    pid: i32,
    thread: Option<JoinHandle<Result<()>>>,
    result: Result<()>,
    /// What is read until then.
    leavings: Option<(Entry, WorkFolder)>,
}

impl Filling {
    /// Has what the filler reads from stay until it is done.
    pub(super) fn keeps(&mut self, entry: &Entry, work: WorkFolder) {
        self.leavings = Some((entry.clone(), work));
    }

    /// Waits until all of the program's memory is filled.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Restore`] where it can't be: the program has been ended, before it has read a page that is wrong.
    pub fn wait(&mut self) -> Result<()> {
        if let Some(thread) = self.thread.take() {
            self.result = thread.join().unwrap_or_else(|_| Err(stopped()));
            match (&self.result, self.leavings.take()) {
                (Ok(()), Some((_, work))) => work.remove(),
                // Its process id is needed once more.
                (Err(_), _) => drop(process::wait(self.pid)),
                _ => {}
            }
        }
        self.result.clone()
    }

    /// The same for a program that has ended: whether it was for this that it has.
    ///
    /// # Errors
    ///
    /// Those of [`Filling::wait`].
    pub fn explains(&mut self, ended: Ended) -> Result<()> {
        let lost = self.wait();
        if ended == Ended::Signaled(signal::KILL) { lost } else { Ok(()) }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let _ = self.wait();
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Restore, "the thread that watches `criu lazy-pages` has stopped")
}

fn stand_by(
    order: &Order,
    tell: &Sender<Result<Stranger>>,
    heard: &Receiver<Word>,
    is_given_up: &AtomicBool,
) -> Result<()> {
    let mut filler = match start(order) {
        Ok((filler, held)) => {
            let _ = tell.send(Ok(held));
            filler
        }
        Err(error) => {
            let _ = tell.send(Err(error));
            return Ok(());
        }
    };
    let ended = filler.end().or_else(|error| {
        let is_by_itself = !is_given_up.load(Ordering::Relaxed);
        let did_run = end_the_program(heard, &order.pids);
        if is_by_itself && !did_run {
            log::warn!("{}", error.chain());
        }
        // It may have met the end of the program, which is as it is.
        if did_run { Err(error) } else { Ok(()) }
    });
    filler.let_go();
    ended
}

fn start(order: &Order) -> Result<(LazyPages, Stranger)> {
    let Order { criu, images, work, timeout, mark, .. } = order;
    let filler = LazyPages::start(criu, images, work, mark.as_fd(), *timeout)?;
    let held = Stranger::hold(filler.pid());
    Ok((filler, held.map_err(|source| Error::os("hold on to `criu lazy-pages`", source))?))
}

/// Ends the program, or the CRIU that is about to let it run. Whether it did run until then.
fn end_the_program(heard: &Receiver<Word>, pids: &[i32]) -> bool {
    for word in heard {
        match word {
            // Whoever has asked it then ends what it has made, and gives the filler up.
            Word::Asked(criu) => drop(criu.signal(signal::KILL)),
            Word::Runs => return end_all(pids),
        }
    }
    false
}

/// Ends these processes, their children, and what they have forked that has lost its parent since. Whether the first of
/// them was there.
fn end_all(pids: &[i32]) -> bool {
    let began = procfs::stat(process::id()).map_or(0, |stat| stat.start_ticks);
    let runs = |stat: &Stat| !stat.is_ending && stat.start_ticks >= began;
    let is_there = |pid: &i32| procfs::stat(*pid).is_ok_and(|stat| runs(&stat));
    let was_there = pids.first().is_some_and(is_there);
    let programs: BTreeSet<PathBuf> = pids.iter().filter_map(|&pid| procfs::executable(pid).ok()).collect();
    let is_stray = |(pid, stat): &(i32, Stat)| {
        let is_one_of_them = |program| programs.contains(&program);
        runs(stat) && procfs::executable(*pid).is_ok_and(is_one_of_them) && procfs::waits_for_pages(*pid)
    };
    let started = Instant::now();
    while started.elapsed() < ENDING {
        let strays = procfs::stats().filter(is_stray).map(|(pid, _)| pid);
        let left: Vec<i32> = pids.iter().copied().filter(is_there).chain(strays).collect();
        if left.is_empty() {
            return was_there;
        }
        left.into_iter().for_each(|pid| drop(guard::end_tree(pid)));
        std::thread::sleep(Duration::from_millis(5));
    }
    log::warn!("processes of the program whose memory isn't whole are still there");
    was_there
}
