//! A program that exits with status 7 when a file is there. `ender FILE`; it counts lines meanwhile.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

fn main() -> Result<(), selfdump::Error> {
    let flag = PathBuf::from(std::env::args_os().nth(1).expect("a file"));
    let _handle = selfdump::install()?;
    for line in 1_u64.. {
        if flag.exists() {
            std::process::exit(7);
        }
        // A reader that is gone is no reason to end.
        let _ = std::io::stdout().lock().write_all(format!("line {line}\n").as_bytes());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
