//! A parent with four children, each process with a hash chain of its own (see `chain`; here the parent is thread
//! 0, and its children are threads 1 to 4).
//!
//! A child that gets a SIGUSR1 installs selfdump for itself, under the name `forked`, and says so.

#[path = "link.rs"]
mod link;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn main() -> Result<(), selfdump::Error> {
    let handle = selfdump::install()?;
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked)).expect("a handler");
    for child in 1..=4 {
        // SAFETY: no other thread of this program holds a lock: selfdump's waits in poll.
        if unsafe { libc::fork() } == 0 {
            say(&format!("child {child} is {} of generation {}", std::process::id(), selfdump::generation()));
            run(child, &asked, &handle);
        }
    }
    say(&format!("ready {}", std::process::id()));
    run(0, &asked, &handle)
}

fn run(thread: u64, asked: &AtomicBool, parents: &selfdump::Handle) -> ! {
    let (mut step, mut link) = (0, link::first(thread));
    loop {
        step += 1;
        link = link::next(link, step);
        if step % 20 == 0 {
            say(&format!("thread {thread} step {step} link {link:016x}"));
        }
        if asked.swap(false, Ordering::Relaxed) {
            let inherited = parents.checkpoint().map_or_else(|error| error.kind().name(), |_| "served");
            let installed = selfdump::Config::new().name("forked").install();
            let own = installed.map_or_else(|error| error.kind().name(), |_| "installed");
            say(&format!("child {thread}: its parent's handle is {inherited}, its own {own}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One write for each line, so that lines of processes don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
