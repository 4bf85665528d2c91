//! A program that writes here and there in its memory, by a rule by which it knows what has to be where: `scribbler
//! MEBIBYTES PERCENT CHECKPOINTS`, of which so many percent differ after a second. It asks for its checkpoints itself, one
//! second after the other, and prints a line for each; then it writes on. When it has come back it compares all of its
//! memory with the rule, says what came of that, and ends.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use selfdump::{Checkpoint, Handle, Outcome};

const WORDS: usize = 512;
const PAGES_OF_A_MEBIBYTE: usize = 256;
const TICK: Duration = Duration::from_millis(2);

type Page = [u64; WORDS];

/// What the thread that writes and the one that asks for checkpoints know of each other.
#[derive(Default)]
struct Shared {
    has_come_back: AtomicBool,
    /// The longest time between two ticks since it was last taken, in microseconds.
    gap: AtomicU64,
}

fn main() -> Result<(), selfdump::Error> {
    let mut arguments = std::env::args().skip(1).map(|number| number.parse::<usize>().expect("a number"));
    let mut number = || arguments.next().expect("MEBIBYTES PERCENT CHECKPOINTS");
    let (pages, percent, checkpoints) = (number() * PAGES_OF_A_MEBIBYTE, number(), number());
    let handle = selfdump::install()?;
    let shared = Arc::new(Shared::default());
    let mut memory = Memory::new(pages);
    let asking = Arc::clone(&shared);
    std::thread::spawn(move || ask(&handle, &asking, checkpoints));
    let started = Instant::now();
    let mut last = started;
    loop {
        std::thread::sleep(TICK);
        if shared.has_come_back.load(Ordering::SeqCst) {
            say(&format!("came back: {}", memory.look()));
            return Ok(());
        }
        shared.gap.fetch_max(last.elapsed().as_micros() as u64, Ordering::SeqCst);
        let due = last.elapsed().as_secs_f64() * pages as f64 * percent as f64 / 100.0;
        last = Instant::now();
        (0..due.round() as u64).for_each(|_| memory.write());
    }
}

fn ask(handle: &Handle, shared: &Shared, checkpoints: usize) {
    for _ in 0..checkpoints {
        std::thread::sleep(Duration::from_secs(1));
        shared.gap.store(0, Ordering::SeqCst);
        match handle.checkpoint() {
            Ok(Outcome::Saved(checkpoint)) => say(&line(&checkpoint, shared)),
            Ok(Outcome::Restored(_)) => {
                shared.has_come_back.store(true, Ordering::SeqCst);
                return;
            }
            Err(error) => say(&format!("failed: {error:?}").replace('\n', " | ")),
        }
    }
    say("done");
}

fn line(checkpoint: &Checkpoint, shared: &Shared) -> String {
    let budget = checkpoint.budget.as_ref();
    let told = budget.map_or_else(|| "without a limit".to_owned(), ToString::to_string);
    format!(
        "saved pause {} gap {} kept {} rounds {} pages {}: {told}",
        checkpoint.stats.pause().as_micros(),
        shared.gap.load(Ordering::SeqCst),
        budget.is_some_and(|budget| budget.is_kept()),
        budget.map_or(0, |budget| budget.rounds),
        checkpoint.stats.pages_written,
    )
}

/// The memory, and how often it was written to.
struct Memory {
    pages: Box<[Page]>,
    writes: u64,
}

impl Memory {
    /// A power of two pages, which the rule wants.
    fn new(pages: usize) -> Memory {
        assert!(pages.is_power_of_two());
        let pages = (0..pages).map(|page| contents(page as u64, 0)).collect();
        Memory { pages, writes: 0 }
    }

    /// Writes to another page than in any of the last writes, until each had its turn.
    fn write(&mut self) {
        self.writes += 1;
        let page = place(self.writes, self.pages.len());
        self.pages[page][1] = self.writes;
    }

    /// Compares every word of it with the rule.
    fn look(&self) -> String {
        let mut last = vec![0; self.pages.len()];
        let first = self.writes.saturating_sub(last.len() as u64) + 1;
        (first..=self.writes).for_each(|write| last[place(write, self.pages.len())] = write);
        let wrong = |page: &usize| self.pages[*page] != contents(*page as u64, last[*page]);
        match (0..last.len()).filter(wrong).count() {
            0 => format!("all {} pages are right after {} writes", last.len(), self.writes),
            wrong => format!("{wrong} of {} pages are WRONG after {} writes", last.len(), self.writes),
        }
    }
}

/// The page that is written to: an odd step goes through all of a power of two.
fn place(write: u64, pages: usize) -> usize {
    write.wrapping_mul(0x9e37_79b9_7f4a_7c15 | 1) as usize & (pages - 1)
}

fn contents(page: u64, write: u64) -> Page {
    let mut contents = [page.wrapping_mul(0xd134_2543_de82_ef95); WORDS];
    contents[0] = page;
    contents[1] = write;
    contents
}

/// One write for each line.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
