//! The program that is dumped: memory that nothing compresses, and a ticker that notices every pause.
//!
//! It is this same executable under another word, so the benchmark needs nothing built beside it.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::lab::Failure;

/// The first argument that makes this executable the program.
pub const WORD: &str = "be-the-program";

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
    let memory = random(mebibytes << 20);
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

/// Bytes of Marsaglia's xorshift (Journal of Statistical Software 8, 2003): no page is like another.
fn random(bytes: usize) -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).take(bytes / size_of::<u64>()).collect()
}
