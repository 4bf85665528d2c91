//! The program that is dumped: memory that nothing compresses, and a ticker that notices every pause.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::comparison::{Failure, scene};

/// The first argument that makes this executable the program.
pub const WORD: &str = "be-the-program";

/// The variable that has the program's memory be in huge pages.
pub const HUGE_PAGES: &str = "BENCH_HUGE_PAGES";

/// What the ticker aims at.
const TICK: Duration = Duration::from_millis(1);

/// The longest time between two ticks since the last question, in microseconds.
static LARGEST_GAP: AtomicU64 = AtomicU64::new(0);

/// How many ticks there were.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// Holds memory and ticks; answers every line of its input with the largest gap since the last one, in
/// microseconds. Ends with its input.
pub fn run(mebibytes: usize) -> Result<(), Failure> {
    let _ = selfdump::install()?;
    let memory = memory(mebibytes << 20);
    std::thread::spawn(tick);
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    for line in std::io::stdin().lines() {
        line?;
        // A gap that has just ended counts once the ticker has seen its end: right after a pause this thread
        // may run before that one.
        let seen = TICKS.load(Relaxed);
        while TICKS.load(Relaxed) < seen + 2 {
            std::thread::sleep(TICK);
        }
        writeln!(output, "{}", LARGEST_GAP.swap(0, Relaxed))?;
    }
    std::hint::black_box(memory);
    Ok(())
}

/// Random data in huge pages, or in none, whatever the machine does by itself.
fn memory(bytes: usize) -> Vec<u64> {
    let words = bytes / size_of::<u64>();
    let mut memory: Vec<u64> = Vec::with_capacity(words);
    let advice = match std::env::var_os(HUGE_PAGES) {
        Some(_) => libc::MADV_HUGEPAGE,
        None => libc::MADV_NOHUGEPAGE,
    };
    scene::advise(&mut memory, advice);
    memory.extend(scene::noise().take(words));
    memory
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
