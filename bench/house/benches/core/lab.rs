//! The checkpoint of a comparison, and the same conditions for every core and copy of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::unistd::Pid;
use selfdump::Entry;
use selfdump::inspect::{CoreOptions, write_core};

use house::comparison::noise::{between, contention, waited_for_processor};
use house::comparison::{Failure, scene};

use crate::Pair;

/// The first argument that makes this executable the program.
pub const WORD: &str = "be-the-program";

/// A checkpoint in a folder that goes when this is dropped.
pub struct Lab {
    entry: Entry,
    mebibytes: usize,
    folder: tempfile::TempDir,
}

impl Lab {
    /// Has the program checkpointed once.
    pub fn open(dir: &Path, mebibytes: usize) -> Result<Lab, Failure> {
        fs::create_dir_all(dir)?;
        let folder = tempfile::tempdir_in(dir)?;
        let store = scene::store(&folder);
        let mut command = scene::program(WORD, &mebibytes.to_string(), &store, &scene::criu()?)?;
        let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut ready = String::new();
        BufReader::new(program.stdout.take().ok_or("no pipe")?).read_line(&mut ready)?;
        let entry = scene::checkpoint(Pid::from_raw(program.id() as i32), mebibytes, &store);
        program.kill()?;
        program.wait()?;
        Ok(Lab { entry: entry?, mebibytes, folder })
    }

    /// A core and a copy, each first in every other pair.
    pub fn pair(&self, number: usize) -> Result<Pair, Failure> {
        let (core, copy) = if number % 2 == 0 {
            let core = self.timed(|to| self.core(to))?;
            (core, self.timed(|to| self.copy(to))?)
        } else {
            let copy = self.timed(|to| self.copy(to))?;
            (self.timed(|to| self.core(to))?, copy)
        };
        Ok(Pair { core: core.0, copy: copy.0, contention: core.1.max(copy.1) })
    }

    /// How long something takes that writes a file, and how much of that time somebody waited for a processor.
    fn timed(&self, write: impl Fn(&Path) -> Result<(), Failure>) -> Result<(Duration, f64), Failure> {
        let to = self.folder.path().join("written");
        scene::settle(self.mebibytes);
        let (waited, started) = (waited_for_processor(), SystemTime::now());
        write(&to)?;
        let time = between(started, SystemTime::now())?;
        let contention = contention(waited, time);
        if fs::metadata(&to)?.len() < (self.mebibytes as u64) << 20 {
            return Err("not all of the memory was written".into());
        }
        fs::remove_file(&to)?;
        Ok((time, contention))
    }

    fn core(&self, to: &Path) -> Result<(), Failure> {
        write_core(&self.entry, to, &CoreOptions::default(), &mut |_, _| {})?;
        Ok(())
    }

    fn copy(&self, to: &Path) -> Result<(), Failure> {
        let status = Command::new("cp").arg(self.largest_file()?).arg(to).status()?;
        if status.success() { Ok(()) } else { Err(format!("cp has failed ({status})").into()) }
    }

    /// That of the memory.
    fn largest_file(&self) -> Result<PathBuf, Failure> {
        let files = fs::read_dir(self.entry.path.join("images"))?.flatten().map(|file| file.path());
        let size = |path: &PathBuf| path.metadata().map_or(0, |about| about.len());
        files.max_by_key(size).ok_or_else(|| "no file".into())
    }
}
