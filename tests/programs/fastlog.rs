//! Writes lines to a file as fast as it can, from several threads, and not at the file's end but where it stands in it.
//! `fastlog FILE THREADS`; each line is `line N` with the next N.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// So many lines without a rest.
const BURST: u64 = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("FILE")?;
    let threads: u32 = arguments.next().ok_or("THREADS")?.parse()?;
    let _handle = selfdump::install()?;
    let next = Arc::new(Mutex::new((File::create(path)?, 0)));
    println!("ready");
    for _ in 1..threads {
        let next = Arc::clone(&next);
        std::thread::spawn(move || write_lines(&next));
    }
    write_lines(&next)
}

fn write_lines(next: &Mutex<(File, u64)>) -> ! {
    for turn in 1_u64.. {
        let mut next = next.lock().expect("nobody panics");
        let line = format!("line {}\n", next.1);
        next.1 += 1;
        next.0.write_all(line.as_bytes()).expect("it is written");
        drop(next);
        if turn % BURST == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    unreachable!("the lines don't end")
}
