//! What is in the images of a dump, as plain data: more than a manifest keeps, for who looks closer.

pub(super) mod file;
pub(super) mod memory;
pub(super) mod registers;
pub(super) mod thread;

use std::path::Path;

use serde::Serialize;

pub use super::pages::{PagePlace, PageRun, Pages};
pub use file::*;
pub use memory::{Layout, Mapping, MappingKind, Memory};
pub use registers::*;
pub use thread::{Credentials, Rseq, SignalStack, Thread};

use super::descriptor::OpenFiles;
use super::images::{self, ObjectIds, TreeItem};
use super::kind::{Image, Kind};
use super::tree::{self, DEAD};
use crate::error::Result;

/// What is in the images of a dump.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Inside {
    /// The processes, parents before their children.
    pub processes: Vec<Process>,
}

/// A process as it stood still.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// The parent's process id; 0 for the root of the tree.
    pub parent: i32,
    /// The process group it is in.
    pub process_group: i32,
    /// The session it is in.
    pub session: i32,
    /// Its name, as in `/proc/PID/comm`.
    pub name: String,
    /// Whether it ran.
    pub state: State,
    /// What wait(2) would have given for one that had ended.
    pub exit_status: u32,
    /// Its threads, the main one first; none where it had ended.
    pub threads: Vec<Thread>,
    /// Its address space; none where it had ended.
    pub memory: Option<Memory>,
    /// What it had open, by number.
    pub descriptors: Vec<Descriptor>,
    /// Where it is; none where it had ended.
    pub place: Option<Place>,
    /// The id of its address space, of its table of descriptors, of its place, and of its signal handlers: processes
    /// with the same share it.
    pub shares: Option<Shares>,
    /// What it does about each signal from 1 on, without SIGKILL and SIGSTOP.
    pub signal_actions: Vec<SignalAction>,
    /// The signals that waited for it, oldest first, each as a `siginfo_t` of 128 bytes.
    pub pending_signals: Vec<Vec<u8>>,
    /// Its limits, in the order of their numbers (getrlimit(2)).
    pub limits: Vec<Limit>,
    /// Its timers of setitimer(2): real, virtual, profiling.
    pub interval_timers: Vec<IntervalTimer>,
    /// Its timers of timer_create(2).
    pub posix_timers: Vec<PosixTimer>,
}

/// Whether a process ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// It ran.
    Alive,
    /// It had ended, and was not yet waited for.
    Ended,
    /// It was stopped by a signal.
    Stopped,
    /// Something that only a newer CRIU knows.
    Other,
}

plain! {
    /// Which parts a process shares with others: those with the same id do.
    Shares: ObjectIds {
        /// The address space.
        vm_id: u32,
        /// The table of descriptors.
        files_id: u32,
        /// Working folder, root and mask.
        fs_id: u32,
        /// The signal handlers.
        sighand_id: u32,
    }
}

plain! {
    /// What a process does about a signal, as the kernel's struct sigaction has it.
    SignalAction: SignalAction {
        /// The handler's address; 0 is the default, 1 is to ignore it.
        sigaction: u64,
        /// Flags (`SA_*`).
        flags: u64,
        /// The signals that are blocked meanwhile.
        mask: u64,
    }
}

plain! {
    /// A limit; `u64::MAX` is none.
    Limit: Limit {
        /// The soft one.
        cur: u64,
        /// The hard one.
        max: u64,
    }
}

plain! {
    /// A timer of setitimer(2), in seconds and microseconds.
    IntervalTimer: IntervalTimer {
        /// Seconds of the interval.
        isec: u64,
        /// Microseconds of the interval.
        iusec: u64,
        /// Seconds that remained.
        vsec: u64,
        /// Microseconds that remained.
        vusec: u64,
    }
}

plain! {
    /// A timer of timer_create(2), in seconds and nanoseconds.
    PosixTimer: PosixTimer {
        /// Its id.
        it_id: u32,
        /// Its clock.
        clock_id: u32,
        /// The signal that it sends.
        si_signo: u32,
        /// How it tells (SIGEV_*).
        it_sigev_notify: u32,
        /// Seconds of the interval.
        isec: u64,
        /// Nanoseconds of the interval.
        insec: u64,
        /// Seconds that remained.
        vsec: u64,
        /// Nanoseconds that remained.
        vnsec: u64,
    }
}

impl Inside {
    /// Reads all images that say what there was; pages only by number.
    pub(crate) fn read(images: &Path) -> Result<Inside> {
        tree::check_format(images)?;
        let files = OpenFiles::read(images)?;
        let items = Image::TREE.read_all(images)?;
        let processes = items.map(|item| process(images, &files, &item?)).collect::<Result<_>>()?;
        Ok(Inside { processes })
    }
}

fn process(images: &Path, files: &OpenFiles, item: &TreeItem) -> Result<Process> {
    let task = tree::task(images, item.pid)?;
    let ended = Process {
        pid: tree::id(images, item.pid)?,
        parent: tree::id(images, item.ppid)?,
        process_group: tree::id(images, item.pgid)?,
        session: tree::id(images, item.sid)?,
        name: String::from_utf8_lossy(&task.comm).into_owned(),
        state: state(task.task_state),
        exit_status: task.exit_code,
        threads: Vec::new(),
        memory: None,
        descriptors: Vec::new(),
        place: None,
        shares: None,
        signal_actions: Vec::new(),
        pending_signals: Vec::new(),
        limits: Vec::new(),
        interval_timers: Vec::new(),
        posix_timers: Vec::new(),
    };
    if task.task_state == DEAD {
        return Ok(ended);
    }
    let ids: ObjectIds = Image::of(Kind::Ids, item.pid).read_one(images)?;
    let threads = tree::thread_ids(item);
    let timers = task.timers.unwrap_or_default();
    Ok(Process {
        threads: threads.map(|tid| Ok(thread::read(images, tid)?.0)).collect::<Result<_>>()?,
        memory: Some(memory::read(images, item.pid, files)?),
        descriptors: file::read(images, ids.files_id, files)?,
        place: Some(place(images, item.pid, files)?),
        shares: Some(ids.into()),
        signal_actions: task.sigactions.into_iter().map(Into::into).collect(),
        pending_signals: thread::queue(task.signals_s),
        limits: task.rlimits.into_iter().flat_map(|limits| limits.rlimits).map(Into::into).collect(),
        interval_timers: [timers.real, timers.virt, timers.prof].map(Into::into).into(),
        posix_timers: timers.posix.into_iter().map(Into::into).collect(),
        ..ended
    })
}

fn state(number: u32) -> State {
    match number {
        1 => State::Alive,
        DEAD => State::Ended,
        3 => State::Stopped,
        _ => State::Other,
    }
}

fn place(images: &Path, pid: u32, files: &OpenFiles) -> Result<Place> {
    let place: images::Place = Image::of(Kind::Place, pid).read_one(images)?;
    Ok(Place { folder: files.path(place.cwd_id), root: files.path(place.root_id), umask: place.umask })
}
