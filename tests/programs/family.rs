//! A program that tells what selfdump tells it. `family [MEMORY_MIB [fork]]`
//!
//! Each SIGUSR1 has it ask for a checkpoint and print which of the two returns that made. With `fork` it has
//! a child, which says what becomes of its own asking, and then counts on.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use selfdump::Outcome;

fn main() -> Result<(), selfdump::Error> {
    let mut arguments = std::env::args().skip(1);
    let mebibytes: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1);
    let memory = vec![7_u8; mebibytes << 20];
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked)).expect("a handler");
    let handle = selfdump::install()?;
    if arguments.next().is_some() {
        have_a_child(&handle);
    }
    say(&format!("ready {}", std::process::id()));
    for tick in 0_usize.. {
        if asked.swap(false, Ordering::Relaxed) {
            say(&match handle.checkpoint() {
                Ok(Outcome::Saved(checkpoint)) => format!("saved {}", checkpoint.id),
                Ok(Outcome::Restored(restored)) => format!(
                    "restored {} generation {} age {}",
                    restored.id,
                    restored.generation,
                    restored.age.as_millis()
                ),
                Err(error) => format!("error {error:?}"),
            });
        }
        assert_eq!(memory[tick * 4096 % memory.len()], 7, "the memory is as it was");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn have_a_child(handle: &selfdump::Handle) {
    // SAFETY: no other thread of this program holds a lock: selfdump's waits in poll.
    if unsafe { libc::fork() } != 0 {
        return;
    }
    let kind = handle.checkpoint().map_or_else(|error| error.kind().name(), |_| "a checkpoint");
    say(&format!("child {} asked and got {kind}", std::process::id()));
    for step in 0_u64.. {
        say(&format!("child step {step}"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One write for each line, so that lines of processes don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
