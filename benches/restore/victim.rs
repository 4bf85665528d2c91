//! The program, from its start to its checkpoint, and how its end is brought about.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selfdump::Entry;

use crate::comparison::{Failure, scene};
use crate::program;

/// A process that is killed and waited for when this is dropped.
struct Running(Child);

/// Starts the program, makes a checkpoint of it and ends it.
pub fn checkpointed(mebibytes: usize, store: &Path, criu: &Path) -> Result<Entry, Failure> {
    let mut command = scene::program(program::WORD, mebibytes, store, criu)?;
    // Only its output leads to whoever brings it back.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn()?);
    let mut ticks = BufReader::new(running.0.stdout.take().ok_or("no pipe")?);
    let mut first = String::new();
    if ticks.read_line(&mut first)? == 0 {
        return Err("the program doesn't start".into());
    }
    // It would stand still when the pipe is full.
    let reader = std::thread::spawn(move || io::copy(&mut ticks, &mut io::sink()));
    let entry = scene::checkpoint(Pid::from_raw(running.0.id() as i32), mebibytes, store)?;
    drop(running);
    reader.join().map_err(|_| "the reader has panicked")??;
    Ok(entry)
}

/// Ends a program that was brought back, and waits for whoever did that.
pub fn end(pid: i32, restorer: &mut Child) -> Result<(), Failure> {
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    restorer.wait()?;
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
