//! What a subject has for itself, so that it alone is struck: a small disk, a clock, a CRIU, and a `criu service`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use super::{required, wait};
use crate::cargo;

/// A file system in memory, mounted until it is dropped.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    pub fn mount(at: PathBuf, mebibytes: u64) -> Result<Disk> {
        fs::create_dir(&at)?;
        let options = format!("size={mebibytes}m");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("can't mount a small disk at {}, which takes root", at.display()))?;
        Ok(Disk { at })
    }

    /// Writes something else to it until no more than this is free.
    pub fn fill(&self, left: u64) -> Result<()> {
        let about = statvfs(&self.at)?;
        let free = about.blocks_free() * about.fragment_size();
        let filler = vec![1; free.saturating_sub(left) as usize];
        // What is being written meanwhile takes its part.
        let _ = fs::write(self.filler(), filler);
        Ok(())
    }

    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.at, MntFlags::MNT_DETACH) {
            eprintln!("chaos: can't unmount {}: {error}", self.at.display());
        }
    }
}

/// The wall clock of one subject: a file that says how far it is from the machine's (programs/clock.c).
pub struct Clock(File);

impl Clock {
    pub fn new(path: &Path) -> Result<Clock> {
        let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
        file.write_all(&0_i64.to_ne_bytes())?;
        Ok(Clock(file))
    }

    /// In place, since the file is mapped.
    pub fn set(&self, seconds_ahead: i64) -> Result<()> {
        Ok(self.0.write_all_at(&seconds_ahead.to_ne_bytes(), 0)?)
    }
}

/// Compiles what puts that clock into programs.
pub fn build_clock(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, include_str!("programs/clock.c"))?;
    cargo::read(Command::new("gcc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source))?;
    Ok(library)
}

/// A `criu service`, ended when it is dropped.
pub struct Service {
    child: Child,
}

impl Service {
    pub fn start(criu: &Path, folder: &Path, socket: &Path) -> Result<Service> {
        let _ = fs::remove_file(socket);
        let mut command = Command::new(criu);
        command.args(["service", "-v2", "-o", "service.log", "--address"]).arg(socket).arg("-W").arg(folder);
        let said = File::create(folder.join("service.out"))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let service = Service { child: command.spawn().context("can't start a criu service")? };
        wait("the criu service", || Ok(answers(socket).then_some(())))?;
        Ok(service)
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody listens there: it is a socket of packets, which one of streams finds out by its error.
fn answers(socket: &Path) -> bool {
    const WRONG_TYPE: i32 = nix::errno::Errno::EPROTOTYPE as i32;
    UnixStream::connect(socket).is_err_and(|error| error.raw_os_error() == Some(WRONG_TYPE))
}

/// What the firewall does with packets to or from this port.
pub fn firewall_rules(port: u16) -> Result<Vec<String>> {
    let rules = cargo::read(&mut Command::new("iptables-save"))?;
    let ends = ["--sport", "--dport"].map(|end| format!(" {end} {port} "));
    let rules = rules.lines().filter(|rule| ends.iter().any(|end| rule.contains(end)));
    Ok(rules.map(str::to_owned).collect())
}

/// The processes that run this very program, which is nobody else's copy.
pub fn running(program: &Path) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program))
        .collect()
}

/// Copies what there was to be looked at later; the disk goes when the subject does.
pub fn keep(folder: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(required(to.parent(), "a folder for what is kept")?)?;
    cargo::read(Command::new("cp").arg("-a").arg(folder).arg(to)).map(drop)
}
