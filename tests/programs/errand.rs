//! A program that has something to do, and an end. `errand FILE ORDER`: it writes lines `line N` to FILE, with the next
//! N, until the file ORDER tells it how to end: `exit STATUS`, `segv`, or `segv LINE`, which comes with that line.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _handle = selfdump::install()?;
    let mut arguments = std::env::args().skip(1);
    let (path, order) = (arguments.next().ok_or("FILE")?, arguments.next().ok_or("ORDER")?);
    let mut out = File::create(path)?;
    for number in 0_u64.. {
        out.write_all(format!("line {number}\n").as_bytes())?;
        let order = fs::read_to_string(&order).unwrap_or_default();
        match order.split_whitespace().collect::<Vec<_>>()[..] {
            ["exit", status] => std::process::exit(status.parse()?),
            ["segv"] => fall(),
            ["segv", line] if number >= line.parse()? => fall(),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn fall() {
    // SAFETY: it is what is being tested: nobody is there, and the kernel says so.
    unsafe { std::ptr::write_volatile(black_box(std::ptr::null_mut()), 42) }
}
