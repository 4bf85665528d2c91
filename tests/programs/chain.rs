//! A program that can't lose or double a step unnoticed: each of its threads keeps a hash chain, in which
//! every link covers the last. `chain THREADS`; it prints `thread T step N link HEX` now and then.

#[path = "link.rs"]
mod link;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

fn main() -> Result<(), selfdump::Error> {
    let threads: u64 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1);
    let memory: Option<usize> = std::env::args().nth(2).and_then(|argument| argument.parse().ok());
    let handle = selfdump::install()?;
    handle.on_restore(|restored| {
        say(&format!("restored {} generation {}", restored.id, restored.generation))
    })?;
    say(&format!("ready {}", std::process::id()));
    let _memory = memory.map(|mebibytes| std::hint::black_box(vec![7_u8; mebibytes << 20]));
    let file = std::env::args()
        .nth(2)
        .filter(|_| memory.is_none())
        .map(|path| Arc::new(File::create(path).expect("a file")));
    for thread in 1..threads {
        let file = file.clone();
        std::thread::spawn(move || run(thread, file.as_deref()));
    }
    run(0, file.as_deref())
}

fn run(thread: u64, file: Option<&File>) -> ! {
    let (mut step, mut link) = (0, link::first(thread));
    loop {
        step += 1;
        link = link::next(link, step);
        if step % 50 == 0 {
            let line = format!("thread {thread} step {step} link {link:016x}");
            match file {
                Some(mut file) => file.write_all(format!("{line}\n").as_bytes()).expect("it is written"),
                None => say(&line),
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One write for each line, so that lines of threads don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
