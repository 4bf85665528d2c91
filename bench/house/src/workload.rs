//! The one program that everything is measured on: memory of a given kind, threads and mappings, and a ticker that
//! notices every pause.
//!
//! It is told what to do by lines on its standard input, and answers each with a line; it ends with its input. Where it
//! [`tells the time`](Workload::tells_time) it says that at every tick instead, and ends with its reader.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use selfdump::{Config, Handle, Snapshot, Staging};
use serde::{Deserialize, Serialize};

use crate::comparison::{Failure, scene};

/// The first argument that makes an executable of the house the program; a [`Workload`] as JSON follows.
pub const WORD: &str = "be-the-program";

/// What the ticker aims at.
const TICK: Duration = Duration::from_millis(1);

/// How often memory is dirtied, where it is.
const STROKE: Duration = Duration::from_millis(10);

const PAGE: usize = 4096;
const WORDS: usize = PAGE / size_of::<u64>();

/// What the program is like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    pub mebibytes: usize,
    /// How much of its memory is compressible, in percent: pages of one word. The rest is random.
    pub compressible: usize,
    /// Threads besides its own, which wait.
    pub threads: usize,
    /// Mappings besides its own, of a page each.
    pub mappings: usize,
    /// How much of its memory it writes to in a second, in percent.
    pub dirties: usize,
    /// How much of its memory it changes after each checkpoint, in percent.
    pub changes: usize,
    /// Whether a thread writes to its memory as fast as it can, page by page.
    pub works: bool,
    /// Whether its memory is in huge pages; else it is in small ones, whatever the machine does by itself.
    pub huge_pages: bool,
    /// Whether it tells the time on its standard output instead of answering.
    pub tells_time: bool,
}

impl Workload {
    pub fn of(mebibytes: usize) -> Workload {
        Workload { mebibytes, ..Workload::default() }
    }

    /// The argument by which it is started.
    pub fn argument(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string(self)?)
    }
}

type Memory = Arc<Mutex<Vec<u64>>>;

/// The longest time between two ticks since the last question, in microseconds.
static LARGEST_GAP: AtomicU64 = AtomicU64::new(0);

/// How many ticks there were.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// Is the program.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let [workload] = arguments else { return Err("the program wants its workload".into()) };
    let workload: Workload = serde_json::from_str(workload)?;
    if workload.tells_time {
        // A session of its own, or whoever started it would be told apart from whoever brings it back.
        nix::unistd::setsid()?;
    }
    let handle = selfdump::install()?;
    let memory: Memory = Arc::new(Mutex::new(memory(&workload)));
    map(workload.mappings)?;
    for _ in 0..workload.threads {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    if workload.dirties > 0 {
        let (memory, share) = (memory.clone(), workload.dirties as f64 / 100.0 * STROKE.as_secs_f64());
        std::thread::spawn(move || dirty(&memory, share));
    }
    if workload.changes > 0 {
        let (memory, share) = (memory.clone(), workload.changes as f64 / 100.0);
        let mut turn = 0;
        handle.after_checkpoint(move |_| {
            turn += 2;
            change(&memory, share, turn);
        })?;
    }
    if workload.tells_time {
        return tell_the_time();
    }
    std::thread::spawn(tick);
    let work = workload.works.then(|| Work::begin(memory.clone()));
    answer(handle, work)?;
    drop(memory);
    Ok(())
}

fn answer(mut handle: Handle, mut work: Option<Work>) -> Result<(), Failure> {
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("gap", _) => writeln!(output, "{}", largest_gap())?,
            ("work", _) => match &mut work {
                Some(work) => writeln!(output, "{}", work.share())?,
                None => writeln!(output, "none")?,
            },
            ("fork", _) => {
                fork()?;
                writeln!(output, "forked")?;
            }
            ("install", how) => {
                let staging = if how == "staged" { Staging::Auto } else { Staging::Off };
                let snapshot = if how == "copied" { Snapshot::Cow } else { Snapshot::Freeze };
                handle.uninstall()?;
                handle = Config::new().staging(staging).snapshot(snapshot).install()?;
                writeln!(output, "installed")?;
            }
            _ => writeln!(output, "what?")?,
        }
    }
    Ok(())
}

/// A child that ends at once.
fn fork() -> Result<(), Failure> {
    // SAFETY: the child makes one system call.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        // SAFETY: it doesn't return.
        0 => unsafe { libc::_exit(0) },
        child => Ok(nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).map(drop)?),
    }
}

/// How many pages have been written to.
static PAGES: AtomicU64 = AtomicU64::new(0);

/// A thread that works, and how fast it is undisturbed.
struct Work {
    pages_in_a_second: f64,
    since: Instant,
    pages: u64,
}

impl Work {
    fn begin(memory: Memory) -> Work {
        std::thread::spawn(move || {
            let mut memory = memory.lock().expect("nobody panics with it");
            let pages = memory.len() / WORDS;
            // Far apart, so that hardly two are in one of the processor's own tables.
            for page in (0..).map(|step: usize| step * 7919 % pages) {
                memory[page * WORDS] += 1;
                PAGES.fetch_add(1, Relaxed);
            }
        });
        const CALIBRATION: Duration = Duration::from_secs(2);
        let mut work = Work { pages_in_a_second: 1.0, since: Instant::now(), pages: PAGES.load(Relaxed) };
        std::thread::sleep(CALIBRATION);
        work.pages_in_a_second = work.share() / 100.0;
        work
    }

    /// What was done since this was last asked, in percent of what is done undisturbed.
    fn share(&mut self) -> f64 {
        let (now, pages) = (Instant::now(), PAGES.load(Relaxed));
        let done = (pages - self.pages) as f64 / (now - self.since).as_secs_f64();
        (self.since, self.pages) = (now, pages);
        100.0 * done / self.pages_in_a_second
    }
}

/// The largest gap since this was last asked, in microseconds.
fn largest_gap() -> u64 {
    // A gap that has just ended counts once the ticker has seen its end: right after a pause this thread may run
    // before that one.
    let seen = TICKS.load(Relaxed);
    while TICKS.load(Relaxed) < seen + 2 {
        std::thread::sleep(TICK);
    }
    LARGEST_GAP.swap(0, Relaxed)
}

/// Tells at every tick how many nanoseconds have passed since 1970.
fn tell_the_time() -> Result<(), Failure> {
    let mut output = std::io::stdout();
    loop {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        // In one piece, so that no line is half from before the checkpoint.
        output.write_all(format!("{}\n", now.as_nanos()).as_bytes())?;
        std::thread::sleep(TICK);
    }
}

fn memory(workload: &Workload) -> Vec<u64> {
    let words = (workload.mebibytes << 20) / size_of::<u64>();
    let mut memory: Vec<u64> = Vec::with_capacity(words);
    scene::advise(&mut memory, if workload.huge_pages { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
    memory.extend(scene::noise().take(words));
    // Every so many pages one more is due: the two kinds lie among each other.
    for page in (0..words / WORDS).filter(|page| page * workload.compressible % 100 < workload.compressible) {
        memory[page * WORDS..][..WORDS].fill(page as u64 + 1);
    }
    memory
}

/// Makes mappings that the kernel doesn't join, since no two neighbours may be used alike.
fn map(count: usize) -> Result<(), Failure> {
    for number in 0..count {
        let access = if number % 2 == 0 { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the kernel chooses a place where nothing is, and nobody uses what is there.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, access, private, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    Ok(())
}

/// Changes a word in a share of all pages, which `seed` chooses.
fn change(memory: &Memory, share: f64, seed: u64) {
    let mut memory = memory.lock().expect("nobody panics with it");
    let pages = memory.len() / WORDS;
    let chosen = scene::noise_from(seed | 1).take((pages as f64 * share).ceil() as usize);
    for choice in chosen {
        let word = choice as usize % pages * WORDS;
        memory[word] = memory[word].wrapping_add(choice | 1);
    }
}

fn dirty(memory: &Memory, share: f64) {
    loop {
        change(memory, share, TICKS.load(Relaxed));
        std::thread::sleep(STROKE);
    }
}

fn tick() {
    let mut last = Instant::now();
    loop {
        std::thread::sleep(TICK);
        let now = Instant::now();
        LARGEST_GAP.fetch_max((now - last).as_micros() as u64, Relaxed);
        TICKS.fetch_add(1, Relaxed);
        last = now;
    }
}
