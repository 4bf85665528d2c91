//! What selfdump does around CRIU: the draft, reading the images, the manifest, the rename.
//!
//! What the checksums and the disk take is left out, as it goes with the size of the program: the store is in memory, where
//! an fsync costs nothing, and inotify tells from outside when the file with the program's memory is opened and closed
//! again after CRIU's answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use selfdump::restore;

use crate::comparison::noise::{self, between, contention, waited_for_processor};
use crate::comparison::plan::Plan;
use crate::comparison::statistics::ms;
use crate::comparison::{Failure, scene};
use crate::results::{Case, Results, Series, Spread, Verdict, case};
use crate::running::Program;
use crate::workload::Workload;

/// In milliseconds.
const LIMIT: f64 = 3.0;

/// How often somebody looks whether the draft is there: CRIU takes far longer before it writes any memory.
const LOOK: Duration = Duration::from_millis(2);

/// Where the time of one checkpoint went, in order.
struct Course {
    /// From the signal until the agent had begun.
    woken: Duration,
    /// Until CRIU was to be reached: /proc was read and the draft was there.
    prepared: Duration,
    /// Until CRIU had answered, its start included.
    dumped: Duration,
    /// After the answer, while the program runs.
    committed: Duration,
    /// Of that, while the file with the memory was open.
    read: Duration,
    contention: f64,
}

impl Course {
    fn around(&self) -> Duration {
        self.woken + self.prepared + self.committed.saturating_sub(self.read)
    }
}

impl noise::Pair for Course {
    fn contention(&self) -> f64 {
        self.contention
    }
}

pub fn compare(plan: &Plan, mebibytes: usize) -> Result<Results, Failure> {
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let store = scene::store(&folder);
    let criu = scene::criu()?;
    let mut program = Program::start(&Workload::of(mebibytes), &store, &criu, &[])?;
    let rounds = noise::calm(plan, |_: &[Course]| true, |_| course(&mut program, mebibytes, &store))?;
    let title = format!("Where the time goes, {mebibytes} MiB, store in memory");
    let case = table(title, &rounds);
    let found = Spread::of(rounds.iter().map(|course| ms(course.around())));
    let what = format!("{mebibytes} MiB: all around CRIU but the checksums and the disk, ms");
    Ok(Results { cases: vec![case], verdicts: vec![Verdict { what, found, limit: LIMIT }], pictures: vec![] })
}

fn table(title: String, rounds: &[Course]) -> Case {
    let row = |name, of: fn(&Course) -> Duration| Series {
        name,
        columns: vec![rounds.iter().map(of).map(ms).collect()],
    };
    let rows = [
        row("signal to the beginning of the attempt", |course| course.woken),
        row("`/proc` and the draft", |course| course.prepared),
        row("CRIU, from its start to its answer", |course| course.dumped),
        row("after the answer: checksums of the memory", |course| course.read),
        row("after the answer: all else", |course| course.committed.saturating_sub(course.read)),
        row("**all around CRIU but the checksums**", Course::around),
    ];
    case(title, noise::told(rounds), &["ms"], &rows, "")
}

fn course(program: &mut Program, mebibytes: usize, store: &Path) -> Result<Course, Failure> {
    scene::settle(mebibytes);
    let watch = Watch::begin(store);
    let waited = waited_for_processor();
    let asked = SystemTime::now();
    let entry = scene::checkpoint(program.pid(), mebibytes, store)?;
    let contention = contention(waited, between(asked, SystemTime::now())?);
    let attempt = scene::attempt_since(asked, store).ok_or("the attempt is gone")?;
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let mut opened = watch.end()?;
    opened.retain(|(opened, _)| *opened >= manifest.answered);
    if opened.is_empty() {
        return Err("nobody was seen to read the memory's image".into());
    }
    let times = opened.into_iter().map(|(opened, closed)| between(opened, closed));
    let read = times.sum::<Result<Duration, Failure>>()?;
    // Who looks got no processor meanwhile, and can't tell how long it took.
    let contention = if read.is_zero() { 1.0 } else { contention };
    let course = Course {
        woken: between(asked, attempt.started)?,
        prepared: between(attempt.started, manifest.taken)?,
        dumped: between(manifest.taken, manifest.answered)?,
        committed: between(manifest.answered, attempt.finished)?,
        read,
        contention,
    };
    restore::find(store, None)?.into_iter().try_for_each(|entry| fs::remove_dir_all(entry.path))?;
    Ok(course)
}

type Opened = Vec<(SystemTime, SystemTime)>;

/// Sees when the files of memory in the next draft of a store are opened and closed.
struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<Opened, Errno>>,
}

impl Watch {
    fn begin(store: &Path) -> Watch {
        let ended = Arc::new(AtomicBool::new(false));
        let (store, until) = (store.to_owned(), ended.clone());
        Watch { ended, thread: std::thread::spawn(move || watch(&store, &until)) }
    }

    fn end(self) -> Result<Opened, Failure> {
        self.ended.store(true, Relaxed);
        Ok(self.thread.join().map_err(|_| "the watch has panicked")??)
    }
}

/// Has this thread run whenever it can, if there is another processor for the others. Where that may not be, what it sees
/// is told with less certainty.
fn run_before_others() {
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1) {
        return;
    }
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: it reads the parameter, and is about this thread alone.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) };
}

fn watch(store: &Path, ended: &AtomicBool) -> Result<Opened, Errno> {
    run_before_others();
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let mut is_watched = false;
    let (mut open, mut opened) = (None, Vec::new());
    loop {
        let is_last = ended.load(Relaxed);
        if !is_watched {
            let folder = draft(store);
            let what = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE;
            is_watched = folder.is_some_and(|folder| inotify.add_watch(&folder, what).is_ok());
        }
        let events = match inotify.read_events() {
            Err(Errno::EAGAIN) if is_last => return Ok(opened),
            Err(Errno::EAGAIN) => Vec::new(),
            events => events?,
        };
        let now = SystemTime::now();
        for event in events.into_iter().filter(|event| is_memory(event.name.as_deref())) {
            match event.mask.contains(AddWatchFlags::IN_OPEN) {
                true => open = Some(now),
                false => opened.extend(open.take().map(|opened| (opened, now))),
            }
        }
        if !is_watched {
            std::thread::sleep(LOOK);
        } else if opened.is_empty() {
            std::thread::sleep(Duration::from_micros(200));
        } else {
            // CRIU has written the memory. What is read now is told by this thread's clock, and who sleeps is late by as much
            // as is to be told.
            std::hint::spin_loop();
        }
    }
}

fn is_memory(name: Option<&std::ffi::OsStr>) -> bool {
    name.is_some_and(|name| name.to_string_lossy().starts_with("pages-"))
}

/// The folder of images of a draft: STORE/NAME/INSTANCE/NUMBER.partial/images.
fn draft(store: &Path) -> Option<PathBuf> {
    let below =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let drafts = below(store.to_owned()).flat_map(below).flat_map(below);
    let images = |draft: PathBuf| draft.join("images");
    drafts
        .filter(|path| path.extension().is_some_and(|name| name == "partial"))
        .map(images)
        .find(|path| path.is_dir())
}
