//! The two programs, their stores, and the same conditions for either side of a pair.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selfdump::{Entry, restore};

use house::comparison::noise::{self, between, contention, waited_for_processor};
use house::comparison::statistics::ratio;
use house::comparison::{Failure, scene};
use house::running::Program;
use house::workload::Workload;

/// A run of either side, which follow each other directly.
pub struct Pair<R> {
    pub plain: R,
    pub encrypted: R,
}

impl<R> Pair<R> {
    /// The encrypted one's time over the other's.
    pub fn ratio(&self, time: impl Fn(&R) -> Duration) -> f64 {
        ratio(time(&self.encrypted), time(&self.plain))
    }
}

/// A checkpoint, counted from the signal.
pub struct Dumped {
    pub committed: Duration,
    pub answered: Duration,
    pub pause: Duration,
    contention: f64,
}

/// A restore.
pub struct Restored {
    pub time: Duration,
    contention: f64,
}

impl noise::Pair for Pair<Dumped> {
    fn contention(&self) -> f64 {
        self.plain.contention.max(self.encrypted.contention)
    }
}

impl noise::Pair for Pair<Restored> {
    fn contention(&self) -> f64 {
        self.plain.contention.max(self.encrypted.contention)
    }
}

/// A program and its store, whose folder goes when it is dropped.
struct Side {
    program: Option<Program>,
    folder: tempfile::TempDir,
}

/// Both of them.
pub struct Lab {
    plain: Side,
    encrypted: Side,
    mebibytes: usize,
    criu: PathBuf,
    /// The `selfdump` command.
    command: PathBuf,
    key: PathBuf,
}

impl Lab {
    /// Starts both, and makes a checkpoint of each: the first reads executables from the disk.
    pub fn open(dir: &Path, mebibytes: usize, command: &Path) -> Result<Lab, Failure> {
        fs::create_dir_all(dir)?;
        let criu = scene::criu()?;
        let folders = [tempfile::tempdir_in(dir)?, tempfile::tempdir_in(dir)?];
        let key = folders[0].path().join("key.txt");
        said(Command::new("age-keygen").arg("-o").arg(&key))?;
        let recipient = said(Command::new("age-keygen").arg("-y").arg(&key))?;
        let [plain, encrypted] = folders;
        let start = |folder: tempfile::TempDir, settings: &[(&str, &str)]| -> Result<Side, Failure> {
            let program = Program::start(&Workload::of(mebibytes), &scene::store(&folder), &criu, settings)?;
            Ok(Side { program: Some(program), folder })
        };
        let plain = start(plain, &[])?;
        let encrypted = start(encrypted, &[("SELFDUMP_ENCRYPT_TO", recipient.trim())])?;
        let mut lab = Lab { plain, encrypted, mebibytes, criu, command: command.to_owned(), key };
        lab.checkpoints(0)?;
        Ok(lab)
    }

    /// A checkpoint of each, each first in every other pair.
    pub fn checkpoints(&mut self, number: usize) -> Result<Pair<Dumped>, Failure> {
        if number % 2 == 0 {
            let encrypted = self.encrypted.checkpoint(self.mebibytes)?;
            return Ok(Pair { encrypted, plain: self.plain.checkpoint(self.mebibytes)? });
        }
        let plain = self.plain.checkpoint(self.mebibytes)?;
        Ok(Pair { plain, encrypted: self.encrypted.checkpoint(self.mebibytes)? })
    }

    /// Leaves a checkpoint of each.
    pub fn end_programs(mut self) -> Result<Lab, Failure> {
        for side in [&mut self.plain, &mut self.encrypted] {
            let pid = side.program.as_ref().ok_or("it has ended")?.pid();
            scene::checkpoint(pid, self.mebibytes, &scene::store(&side.folder))?;
            side.program = None;
        }
        Ok(self)
    }

    pub fn restores(&self, number: usize) -> Result<Pair<Restored>, Failure> {
        if number % 2 == 0 {
            let encrypted = self.restore(&self.encrypted)?;
            return Ok(Pair { encrypted, plain: self.restore(&self.plain)? });
        }
        let plain = self.restore(&self.plain)?;
        Ok(Pair { plain, encrypted: self.restore(&self.encrypted)? })
    }

    fn restore(&self, side: &Side) -> Result<Restored, Failure> {
        let entry = side.entry()?;
        let pid = Pid::from_raw(entry.manifest?.pid());
        let mut command = Command::new(&self.command);
        scene::without_settings(&mut command).env("SELFDUMP_CRIU", &self.criu);
        command.args(["restore", "--detach"]).arg(&entry.path).arg("--identity").arg(&self.key);
        scene::settle(self.mebibytes);
        let waited = waited_for_processor();
        let asked = SystemTime::now();
        // The program ends with its input, so that stays open.
        let mut restorer = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let input = restorer.stdin.take();
        let status = restorer.wait()?;
        let time = between(asked, SystemTime::now())?;
        if !status.success() {
            return Err(format!("{command:?} has failed ({status})").into());
        }
        kill(pid, Signal::SIGKILL)?;
        drop(input);
        while Path::new(&format!("/proc/{pid}")).exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Restored { time, contention: contention(waited, time) })
    }
}

impl Side {
    fn checkpoint(&mut self, mebibytes: usize) -> Result<Dumped, Failure> {
        let store = scene::store(&self.folder);
        let program = self.program.as_mut().ok_or("it has ended")?;
        scene::settle(mebibytes);
        program.largest_gap()?;
        let waited = waited_for_processor();
        let asked = SystemTime::now();
        let entry = scene::checkpoint(program.pid(), mebibytes, &store)?;
        let contention = contention(waited, between(asked, SystemTime::now())?);
        let pause = program.largest_gap()?;
        let attempt = scene::attempt_since(asked, &store).ok_or("the attempt is gone")?;
        let answered = between(asked, entry.manifest?.answered)?;
        fs::remove_dir_all(entry.path)?;
        Ok(Dumped { committed: between(asked, attempt.finished)?, answered, pause, contention })
    }

    fn entry(&self) -> Result<Entry, Failure> {
        restore::find(&scene::store(&self.folder), None)?.pop().ok_or_else(|| "there is no checkpoint".into())
    }
}

fn said(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("{command:?} has failed").into()),
    }
}
