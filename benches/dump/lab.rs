//! The program, the store and the CRIU of a comparison, and the same conditions for every dump.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use selfdump::frozen::Needs;
use selfdump::{Entry, Staged, restore};

use crate::comparison::noise::{between, contention, waited_for_processor};
use crate::comparison::{Failure, scene};
use crate::measure::{Course, Dump, Pair};
use crate::victim::Program;

/// A running program and where it is dumped to. The folder and the program go when it is dropped.
pub struct Lab {
    program: Program,
    mebibytes: usize,
    criu: PathBuf,
    folder: tempfile::TempDir,
    /// What selfdump told CRIU about the program, so that the command line can be told the same.
    needs: Needs,
    version: String,
    way: Staged,
}

impl Lab {
    /// Starts the program, and dumps it once by either side: the first reads executables from the disk.
    pub fn open(dir: &Path, mebibytes: usize, settings: &[(&str, &str)]) -> Result<Lab, Failure> {
        fs::create_dir_all(dir)?;
        let folder = tempfile::tempdir_in(dir)?;
        let criu = scene::criu()?;
        let program = Program::start(mebibytes, &scene::store(&folder), &criu, settings)?;
        let (needs, version, way) = (Needs::default(), String::new(), Staged::Disk);
        let mut lab = Lab { program, mebibytes, criu, folder, needs, version, way };
        let first = lab.by_selfdump()?;
        let manifest = first.manifest.as_ref().map_err(Clone::clone)?;
        lab.way = manifest.staged.clone();
        let told = manifest.criu.clone();
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

    /// Where CRIU writes for selfdump.
    pub fn way(&self) -> &Staged {
        &self.way
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
        let attempt = scene::attempt_since(asked, &self.store()).ok_or("the attempt is gone")?;
        let course = Course {
            woken: between(asked, attempt.started)?,
            prepared: between(attempt.started, manifest.taken)?,
            dumped: between(manifest.taken, manifest.answered)?,
            committed: between(manifest.answered, attempt.finished)?,
        };
        self.clean()?;
        let (time, kept) = (between(asked, manifest.answered)?, between(asked, attempt.finished)?);
        Ok((Dump { time, pause, contention, kept }, course))
    }

    fn by_selfdump(&self) -> Result<Entry, Failure> {
        scene::checkpoint(self.program.pid(), self.mebibytes, &self.store())
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
        scene::is_whole(&images, self.mebibytes)?;
        let kept = time + sync(&images)?;
        self.clean()?;
        Ok(Dump { time, pause, contention, kept })
    }

    fn options(&self) -> Vec<String> {
        let mut options = crate::options::options(&self.needs);
        options.extend(["--leave-running", "--log-file=dump.log"].map(str::to_owned));
        options.extend(self.needs.tcp_established.then(|| "--tcp-established".to_owned()));
        options
    }

    fn store(&self) -> PathBuf {
        scene::store(&self.folder)
    }

    /// Where `criu dump` writes to, beside the store.
    fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    /// Brings about the same state before every dump; the program's ticker begins anew.
    fn settle(&mut self) -> Result<(), Failure> {
        scene::settle(self.mebibytes);
        self.program.largest_gap().map(drop)
    }

    /// Removes what the last dump wrote, after it has reached the disk on either side: a file that is
    /// removed before that is never written, which would favour the side that doesn't wait for it.
    fn clean(&self) -> Result<(), Failure> {
        nix::unistd::sync();
        for entry in restore::find(&self.store(), None)? {
            fs::remove_dir_all(entry.path)?;
        }
        match self.images() {
            images if images.exists() => Ok(fs::remove_dir_all(images)?),
            _ => Ok(()),
        }
    }
}

/// Has all files of a folder on the disk; how long that took.
fn sync(folder: &Path) -> Result<Duration, Failure> {
    let started = Instant::now();
    for file in fs::read_dir(folder)? {
        fs::File::open(file?.path())?.sync_all()?;
    }
    fs::File::open(folder)?.sync_all()?;
    Ok(started.elapsed())
}
