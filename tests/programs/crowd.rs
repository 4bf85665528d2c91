//! A hundred threads that ask for a checkpoint together, once for each SIGUSR1. When all have their outcome it
//! prints how many of which there were: `100 saved ID`, `100 restored ID`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use selfdump::Outcome;

const THREADS: usize = 100;

fn main() -> Result<(), selfdump::Error> {
    let handle = selfdump::install()?;
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked)).expect("a handler");
    println!("ready");
    loop {
        if asked.swap(false, Ordering::Relaxed) {
            for (outcome, count) in ask_together(&handle) {
                println!("{count} {outcome}");
            }
            println!("all served");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn ask_together(handle: &selfdump::Handle) -> BTreeMap<String, usize> {
    let together = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (handle, together) = (handle.clone(), Arc::clone(&together));
            std::thread::spawn(move || {
                together.wait();
                match handle.checkpoint() {
                    Ok(Outcome::Saved(checkpoint)) => format!("saved {}", checkpoint.id),
                    Ok(Outcome::Restored(restored)) => format!("restored {}", restored.id),
                    Err(error) => format!("error {error}"),
                }
            })
        })
        .collect();
    let mut counts = BTreeMap::new();
    for thread in threads {
        *counts.entry(thread.join().expect("an outcome")).or_default() += 1;
    }
    counts
}
