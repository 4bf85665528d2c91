//! The program, the store and the CRIU of a comparison, and the same conditions for every dump.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use selfdump::frozen::{Needs, NetworkLock};
use selfdump::status::Attempt;
use selfdump::{Entry, restore};

use crate::measure::{Course, Dump, Pair, between, contention, waited_for_processor};
use crate::victim::Program;

/// Whatever keeps the comparison from being made.
pub type Failure = Box<dyn std::error::Error>;

/// No dump takes as long as this.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running program and where it is dumped to. The folder and the program go when it is dropped.
pub struct Lab {
    program: Program,
    mebibytes: usize,
    criu: PathBuf,
    folder: tempfile::TempDir,
    /// What selfdump told CRIU about the program, so that the command line can be told the same.
    needs: Needs,
    version: String,
}

impl Lab {
    /// Starts the program, and dumps it once by either side: the first reads executables from the disk.
    pub fn open(dir: &Path, mebibytes: usize) -> Result<Lab, Failure> {
        fs::create_dir_all(dir)?;
        let folder = tempfile::tempdir_in(dir)?;
        let criu = criu()?;
        let program = Program::start(mebibytes, &store(&folder), &criu)?;
        let (needs, version) = (Needs::default(), String::new());
        let mut lab = Lab { program, mebibytes, criu, folder, needs, version };
        let first = lab.by_selfdump()?;
        let told = first.manifest.as_ref().map_err(Clone::clone)?.criu.clone();
        if told.peer.starts_with("service") {
            return Err(format!("{} answers; the comparison is with a worker of our own", told.peer).into());
        }
        (lab.needs, lab.version) = (told.needs, told.version);
        lab.clean()?;
        lab.time_criu()?;
        Ok(lab)
    }

    /// What both sides have in common, for people.
    pub fn terms(&self) -> String {
        let options = self.options();
        format!("CRIU {} as a worker and on the command line with {}", self.version, options.join(" "))
    }

    /// One dump by each side, each first in every other pair: what the one leaves behind, in the file
    /// system's journal say, is then met as often by the other.
    pub fn pair(&mut self, number: usize) -> Result<Pair, Failure> {
        if number % 2 == 0 {
            let (ours, course) = self.time_selfdump()?;
            return Ok(Pair { ours, course, criu: self.time_criu()? });
        }
        let criu = self.time_criu()?;
        let (ours, course) = self.time_selfdump()?;
        Ok(Pair { ours, course, criu })
    }

    fn time_selfdump(&mut self) -> Result<(Dump, Course), Failure> {
        self.settle()?;
        let waited = waited_for_processor();
        let asked = SystemTime::now();
        let entry = self.by_selfdump()?;
        let contention = contention(waited, between(asked, SystemTime::now())?);
        let pause = self.program.largest_gap()?;
        let manifest = entry.manifest?;
        let attempt = self.attempt_since(asked).ok_or("the attempt is gone")?;
        let course = Course {
            woken: between(asked, attempt.started)?,
            prepared: between(attempt.started, manifest.taken)?,
            dumped: between(manifest.taken, manifest.answered)?,
            committed: between(manifest.answered, attempt.finished)?,
        };
        self.clean()?;
        Ok((Dump { time: between(asked, manifest.answered)?, pause, contention }, course))
    }

    /// A checkpoint by signal, when it is committed.
    fn by_selfdump(&self) -> Result<Entry, Failure> {
        let asked = SystemTime::now();
        kill(self.program.pid(), Signal::SIGUSR2)?;
        let deadline = Instant::now() + PATIENCE;
        let attempt = loop {
            // Rarely enough to take no time away from what is measured.
            std::thread::sleep(Duration::from_millis(25));
            if let Some(attempt) = self.attempt_since(asked) {
                break attempt;
            }
            if Instant::now() > deadline {
                return Err("selfdump has not come to an end".into());
            }
        };
        if let Some(error) = attempt.error {
            return Err(format!("selfdump has failed: {}", error.message).into());
        }
        let entry = restore::find(&store(&self.folder), None)?.pop().ok_or("no checkpoint was written")?;
        self.is_whole(&entry.path.join("images"))?;
        Ok(entry)
    }

    /// What came of the attempt that began since then, if one did.
    fn attempt_since(&self, asked: SystemTime) -> Option<Attempt> {
        // The file holds whole microseconds.
        let asked = asked - Duration::from_micros(1);
        let statuses = selfdump::status::of_target(&store(&self.folder), Path::new(NAME)).ok()?;
        statuses.into_iter().find_map(|status| status.last).filter(|attempt| attempt.started >= asked)
    }

    fn time_criu(&mut self) -> Result<Dump, Failure> {
        self.settle()?;
        let images = self.images();
        fs::create_dir(&images)?;
        let mut command = Command::new(&self.criu);
        command
            .arg("dump")
            .args(["--tree", &self.program.pid().to_string()])
            .arg("--images-dir")
            .arg(&images);
        command.args(self.options()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let waited = waited_for_processor();
        let asked = SystemTime::now();
        let status = command.status()?;
        let time = between(asked, SystemTime::now())?;
        let contention = contention(waited, time);
        let pause = self.program.largest_gap()?;
        if !status.success() {
            let log = fs::read_to_string(images.join("dump.log")).unwrap_or_default();
            return Err(format!("criu dump has failed ({status}):\n{log}").into());
        }
        self.is_whole(&images)?;
        self.clean()?;
        Ok(Dump { time, pause, contention })
    }

    /// The options that selfdump gives over RPC, as they are spelled on the command line.
    fn options(&self) -> Vec<String> {
        let fixed = ["--leave-running", "-v2", "--log-file=dump.log", "--manage-cgroups=ignore"];
        let network_lock = match self.needs.network_lock {
            NetworkLock::Nftables => Some("--network-lock=nftables"),
            NetworkLock::Skip => Some("--network-lock=skip"),
            _ => None,
        };
        let needed = [
            self.needs.shell_job.then_some("--shell-job"),
            self.needs.file_locks.then_some("--file-locks"),
            self.needs.tcp_established.then_some("--tcp-established"),
            self.needs.ext_unix_sk.then_some("--ext-unix-sk"),
            self.needs.unprivileged.then_some("--unprivileged"),
            network_lock,
        ];
        fixed.into_iter().chain(needed.into_iter().flatten()).map(str::to_owned).collect()
    }

    /// Where `criu dump` writes to, beside the store.
    fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// Whether all of the program's memory was written, so that times of the same work are compared.
    fn is_whole(&self, images: &Path) -> Result<(), Failure> {
        let pages = fs::read_dir(images)?.flatten().filter(|file| {
            let name = file.file_name();
            name.to_string_lossy().starts_with("pages-")
        });
        let bytes: u64 = pages.map(|file| file.metadata().map_or(0, |file| file.len())).sum();
        if bytes >= (self.mebibytes as u64) << 20 {
            return Ok(());
        }
        Err(format!("{} holds only {bytes} bytes of memory", images.display()).into())
    }

    /// Brings about the same state before every dump: the host has given us the memory that the dump will
    /// use, nothing waits to be written to the disk, and the program's ticker begins anew.
    fn settle(&mut self) -> Result<(), Failure> {
        std::hint::black_box(vec![1u8; (self.mebibytes + 64) << 20]);
        nix::unistd::sync();
        self.program.largest_gap().map(drop)
    }

    /// Removes what the last dump wrote, after it has reached the disk on either side: a file that is
    /// removed before that is never written, which would favour the side that doesn't wait for it.
    fn clean(&self) -> Result<(), Failure> {
        nix::unistd::sync();
        for entry in restore::find(&store(&self.folder), None)? {
            fs::remove_dir_all(entry.path)?;
        }
        match self.images() {
            images if images.exists() => Ok(fs::remove_dir_all(images)?),
            _ => Ok(()),
        }
    }
}

/// The name that the program's checkpoints have in the store.
pub const NAME: &str = "bench";

fn store(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("store")
}

/// SELFDUMP_CRIU, or the one that the tests use: target/criu, seen from target/PROFILE/deps/dump-HASH.
fn criu() -> Result<PathBuf, Failure> {
    let ours = std::env::current_exe()?;
    let installed = ours.ancestors().nth(3).unwrap_or(&ours).join("criu/bin/criu");
    let criu = std::env::var_os("SELFDUMP_CRIU").map_or(installed, PathBuf::from);
    match criu.is_file() {
        true => Ok(criu),
        false => {
            Err(format!("no CRIU at {}: run `cargo xtask setup`, which gets one", criu.display()).into())
        }
    }
}
