//! The program, from its start to its checkpoint, and how its end is brought about.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selfdump::Entry;

use crate::comparison::{Failure, scene};
use crate::workload::{self, Workload};

/// A program that tells the time to somebody who reads it, and is killed and waited for when this is dropped.
pub struct Victim {
    child: Child,
    reader: Option<JoinHandle<io::Result<u64>>>,
}

impl Victim {
    pub fn start(
        workload: &Workload,
        store: &Path,
        criu: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Victim, Failure> {
        let workload = Workload { tells_time: true, ..workload.clone() };
        let mut command = scene::program(workload::WORD, &workload.argument()?, store, criu)?;
        command.envs(settings.iter().copied());
        // Only its output leads to whoever brings it back.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut victim = Victim { child: command.spawn()?, reader: None };
        let mut ticks = BufReader::new(victim.child.stdout.take().ok_or("no pipe")?);
        if ticks.read_line(&mut String::new())? == 0 {
            return Err("the program doesn't start".into());
        }
        // It would stand still when the pipe is full.
        victim.reader = Some(std::thread::spawn(move || io::copy(&mut ticks, &mut io::sink())));
        Ok(victim)
    }

    pub fn checkpoint(&mut self, mebibytes: usize, store: &Path) -> Result<Entry, Failure> {
        scene::checkpoint(Pid::from_raw(self.child.id() as i32), mebibytes, store)
    }

    pub fn end(mut self) -> Result<(), Failure> {
        let reader = self.reader.take();
        drop(self);
        reader.map_or(Ok(0), |reader| {
            reader.join().map_err(|_| "the reader has panicked")?.map_err(Failure::from)
        })?;
        Ok(())
    }
}

/// Ends a program that was brought back, and waits for whoever did that.
pub fn end(pid: i32, restorer: &mut Child) -> Result<(), Failure> {
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    restorer.wait()?;
    Ok(())
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
