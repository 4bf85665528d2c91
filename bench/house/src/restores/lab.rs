//! The checkpoint and the two commands of a comparison, and the same conditions for every restore.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use selfdump::Entry;
use selfdump::frozen::{DescriptorKind, Process};

use super::measure::{Restore, Round};
use super::victim::{self, Victim};
use super::watch::Watch;
use crate::comparison::noise::{between, contention, waited_for_processor};
use crate::comparison::{Failure, options, scene};
use crate::workload::Workload;

/// How long a program runs after its first tick. A restorer would take an earlier end for a failure, as it has not
/// heard of its success yet.
const LIFE: Duration = Duration::from_millis(200);

/// A checkpoint, and who brings it back. The folder goes when it is dropped.
pub struct Lab {
    mebibytes: usize,
    criu: PathBuf,
    /// The `selfdump` command.
    command: PathBuf,
    entry: Entry,
    pid: i32,
    options: Vec<String>,
    version: String,
    folder: tempfile::TempDir,
}

impl Lab {
    /// Makes a checkpoint of a program, and restores it once by either side: the first reads everything from the disk.
    pub fn open(dir: &Path, mebibytes: usize, command: &Path) -> Result<Lab, Failure> {
        let lab = Lab::closed(dir, &Workload::of(mebibytes), command, &[], |_| Ok(()), 1)?;
        lab.round(0)?;
        Ok(lab)
    }

    /// Makes so many checkpoints of a program with these settings, and tells of each as the store is then.
    pub fn closed(
        dir: &Path,
        workload: &Workload,
        command: &Path,
        settings: &[(&str, &str)],
        mut told: impl FnMut(&Path) -> Result<(), Failure>,
        checkpoints: usize,
    ) -> Result<Lab, Failure> {
        let mebibytes = workload.mebibytes;
        fs::create_dir_all(dir)?;
        let folder = tempfile::tempdir_in(dir)?;
        // A copy, since somebody else may start the same one, which would be seen as well.
        let criu = folder.path().join("criu");
        fs::copy(scene::criu()?, &criu)?;
        let store = scene::store(&folder);
        let mut victim = Victim::start(workload, &store, &criu, settings)?;
        let mut entry = victim.checkpoint(mebibytes, &store)?;
        told(&store)?;
        for _ in 1..checkpoints {
            entry = victim.checkpoint(mebibytes, &store)?;
            told(&store)?;
        }
        victim.end()?;
        let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
        let (pid, version) = (manifest.pid(), manifest.criu.version.clone());
        let mut options = options::options(&manifest.criu.needs);
        options.extend(["--inherit-fd".to_owned(), format!("fd[1]:{}", output(&manifest.processes)?)]);
        Ok(Lab { mebibytes, criu, command: command.to_owned(), pid, options, version, entry, folder })
    }

    /// What both sides have in common, for people.
    pub fn terms(&self) -> String {
        format!("CRIU {} with `{}`", self.version, self.options.join(" "))
    }

    /// One restore by each side, each first in every third round.
    pub fn round(&self, number: usize) -> Result<Round, Failure> {
        let (mut ours, mut lazy, mut criu) = (None, None, None);
        for side in [0, 1, 2].map(|place| (place + number) % 3) {
            match side {
                0 => ours = Some(self.by_selfdump(&[])?),
                1 => lazy = Some(self.by_selfdump(&["--lazy"])?),
                _ => criu = Some(self.by_criu()?),
            }
        }
        let all = ours.zip(lazy).zip(criu);
        all.map(|((ours, lazy), criu)| Round { ours, lazy, criu }).ok_or_else(|| "a side was left out".into())
    }

    /// A restore with these options besides.
    pub fn by_selfdump(&self, options: &[&str]) -> Result<Restore, Failure> {
        let mut command = Command::new(&self.command);
        scene::without_settings(&mut command).env("SELFDUMP_CRIU", &self.criu);
        command.arg("restore").args(options).arg(&self.entry.path);
        self.time(command)
    }

    fn by_criu(&self) -> Result<Restore, Failure> {
        // A folder of its own, as selfdump makes one: what is written into the images would be damage to them.
        let work = tempfile::tempdir()?;
        let mut command = Command::new(&self.criu);
        command.arg("restore").arg("--images-dir").arg(self.images()).arg("--work-dir").arg(work.path());
        command.args(["--log-file", "restore.log"]).args(&self.options);
        self.time(command).map_err(|error| {
            let log = fs::read_to_string(work.path().join("restore.log")).unwrap_or_default();
            format!("{error}{log}").into()
        })
    }

    fn time(&self, mut command: Command) -> Result<Restore, Failure> {
        let said = self.folder.path().join("said");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&said)?);
        scene::settle(self.mebibytes);
        let watch = Watch::begin(&self.criu)?;
        let waited = waited_for_processor();
        let asked = SystemTime::now();
        let mut restorer = command.spawn()?;
        // The program ends with its reader.
        let mut ticks = BufReader::new(restorer.stdout.take().ok_or("no pipe")?);
        let Some(tick) = first_tick(&mut ticks, asked)? else {
            let status = restorer.wait()?;
            let said = fs::read_to_string(said).unwrap_or_default();
            return Err(format!("{command:?} has failed ({status}):\n{said}").into());
        };
        let time = between(asked, tick)?;
        let contention = contention(waited, time);
        std::thread::sleep(LIFE);
        victim::end(self.pid, &mut restorer)?;
        let before_criu = between(asked, watch.end()?)?;
        Ok(Restore { time, before_criu, contention })
    }

    pub fn images(&self) -> PathBuf {
        self.entry.path.join("images")
    }
}

/// The first time that the program tells after that of the question; none where it doesn't come.
fn first_tick(ticks: &mut impl BufRead, asked: SystemTime) -> Result<Option<SystemTime>, Failure> {
    for line in ticks.lines() {
        let told = SystemTime::UNIX_EPOCH + Duration::from_nanos(line?.parse()?);
        // One that was read before the checkpoint may be written only now.
        if told > asked {
            return Ok(Some(told));
        }
    }
    Ok(None)
}

/// CRIU's key of the pipe that was the program's standard output.
fn output(processes: &[Process]) -> Result<String, Failure> {
    let open = processes.iter().flat_map(|process| &process.descriptors);
    let mut pipes = open.filter(|open| open.fd == 1 && open.kind == DescriptorKind::Pipe);
    let path = pipes.next().and_then(|pipe| pipe.path.as_deref()).ok_or("its output was not a pipe")?;
    Ok(path.display().to_string())
}
