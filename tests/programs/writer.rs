//! A program that writes lines to a file. `writer HOW FILE`; each line is `line N` with the next N.
//!
//! `plain` (opened anew, one write for each line), `append`, `buffered` (a BufWriter), `read-append` (opened to read
//! and to append), `in-place` (a counter of fixed length at the start, rewritten), `tail` (it only reads FILE, and
//! says on standard output how many lines have come), `two` (it opens FILE to read, and at a SIGUSR1 another file). With
//! `stdout` instead of a file it writes to that.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _handle = selfdump::install()?;
    let mut arguments = std::env::args().skip(1);
    let (how, path) = (arguments.next().ok_or("HOW")?, arguments.next().ok_or("FILE")?);
    if path == "stdout" {
        return write_lines(std::io::stdout().lock());
    }
    let mut options = OpenOptions::new();
    match how.as_str() {
        "plain" => write_lines(File::create(path)?),
        "append" => write_lines(options.append(true).create(true).open(path)?),
        "read-append" => write_lines(options.read(true).append(true).create(true).open(path)?),
        "buffered" => write_lines(BufWriter::with_capacity(100, File::create(path)?)),
        "in-place" => rewrite(&options.read(true).write(true).create(true).truncate(true).open(path)?),
        "tail" => tail(File::open(path)?),
        "two" => open_two(&path, &arguments.next().ok_or("ANOTHER FILE")?),
        other => Err(format!("no such way to write: {other}").into()),
    }
}

fn write_lines(mut out: impl Write) -> Result<(), Box<dyn std::error::Error>> {
    for number in 0_u64.. {
        out.write_all(format!("line {number}\n").as_bytes())?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn rewrite(file: &File) -> Result<(), Box<dyn std::error::Error>> {
    for number in 0_u64.. {
        file.write_all_at(format!("{number:020}\n").as_bytes(), 0)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn tail(mut file: File) -> Result<(), Box<dyn std::error::Error>> {
    let (mut seen, mut lines) = (String::new(), 0);
    loop {
        seen.clear();
        file.read_to_string(&mut seen)?;
        if !seen.is_empty() {
            lines += seen.matches('\n').count();
            println!("seen {lines}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn open_two(first: &str, second: &str) -> Result<(), Box<dyn std::error::Error>> {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked))?;
    let _first = File::open(first)?;
    println!("first open");
    while !asked.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _second = File::open(second)?;
    println!("second open");
    loop {
        std::thread::sleep(Duration::from_millis(50));
    }
}
