//! A program that can't lose or double a step unnoticed: each of its threads keeps a hash chain, in which
//! every link covers the last. `chain THREADS`; it prints `thread T step N link HEX` now and then.

#[path = "link.rs"]
mod link;

use std::io::Write;
use std::time::Duration;

fn main() -> Result<(), selfdump::Error> {
    let threads: u64 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1);
    let handle = selfdump::install()?;
    handle.on_restore(|restored| {
        say(&format!("restored {} generation {}", restored.id, restored.generation))
    })?;
    say(&format!("ready {}", std::process::id()));
    for thread in 1..threads {
        std::thread::spawn(move || run(thread));
    }
    run(0)
}

fn run(thread: u64) -> ! {
    let (mut step, mut link) = (0, link::first(thread));
    loop {
        step += 1;
        link = link::next(link, step);
        if step % 50 == 0 {
            say(&format!("thread {thread} step {step} link {link:016x}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One write for each line, so that lines of threads don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
