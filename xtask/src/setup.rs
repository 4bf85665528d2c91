//! `cargo xtask setup`: what the demo and the tests need and a machine may not have.

use std::fs;
use std::io::stdout;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use selfdump_cli::setup::{ensure as ensure_criu, find_program, unpack};

use crate::{cargo, machine};

/// A package of the machine's own, installed only where its program is missing.
pub struct Package {
    pub name: &'static str,
    pub program: &'static str,
    pub why: &'static str,
}

const PACKAGES: [Package; 22] = [
    Package {
        name: "iptables",
        program: "iptables-restore",
        why: "CRIU locks TCP connections that are to be kept by it, and the tests keep the other end from noticing",
    },
    Package { name: "iproute2", program: "ss", why: "the tests have the kernel forget a connection" },
    Package { name: "gdb", program: "gdb", why: "the tests look at forensic checkpoints with it" },
    Package {
        name: "python3-minimal",
        program: "/usr/bin/python3",
        why: "the tests load a library into it, and run it",
    },
    Package { name: "perl", program: "perl", why: "the tests run a program of it" },
    Package { name: "sqlite3", program: "sqlite3", why: "the tests run it" },
    Package { name: "redis-server", program: "redis-server", why: "the tests run it" },
    Package { name: "nodejs", program: "node", why: "the tests run a program of it" },
    Package {
        name: "default-jdk-headless",
        program: "javac",
        why: "the tests run a program of it, which has SIGUSR2 for itself",
    },
    Package {
        name: "age",
        program: "age-keygen",
        why: "the tests make keys, and open what is encrypted, with it",
    },
    Package { name: "gcc", program: "gcc", why: "the tests compile C programs, and what has a disk fail" },
    Package { name: "e2fsprogs", program: "mkfs.ext4", why: "the tests have the power fail under an ext4" },
    Package { name: "g++", program: "g++", why: "the header is one for C++ as well" },
    Package { name: "valgrind", program: "valgrind", why: "the tests look for leaks with it" },
    Package {
        name: "pkgconf",
        program: "pkg-config",
        why: "the tests compile with what the package installs",
    },
    Package {
        name: "systemd",
        program: "systemd-analyze",
        why: "the tests let it judge the ready-made service",
    },
    Package { name: "runc", program: "runc", why: "the tests start the ready-made container with it" },
    Package { name: "slurmctld", program: "slurmctld", why: "the tests put the ready-made job in its queue" },
    Package { name: "slurmd", program: "slurmd", why: "it is the node that the tests' job runs on" },
    Package {
        name: "slurm-client",
        program: "sbatch",
        why: "the tests' job is submitted by it, and requeues itself",
    },
    Package { name: "libcap2-bin", program: "setcap", why: "the tests make a CRIU for ordinary users" },
    Package { name: "munge", program: "munged", why: "Slurm's daemons know each other by it" },
];

/// Debian's Python makes virtualenvs only with this.
const VENV: Package = Package {
    name: "python3-venv",
    program: "python3",
    why: "the tests install the Python package into a virtualenv",
};

/// The binaries of the CRIU that selfdump is developed with and of the oldest that it supports, and the former's own
/// decoder of images.
pub struct Criu {
    pub current: PathBuf,
    pub oldest: PathBuf,
    pub crit: PathBuf,
}

pub fn run() -> Result<()> {
    everything().map(drop)
}

/// All that the tests need.
pub fn everything() -> Result<Criu> {
    packages()?;
    machine::ensure()?;
    let oldest = oldest_criu()?;
    Ok(Criu { current: current_criu()?, oldest, crit: crit()? })
}

/// CRIU's decoder of images and its client for Python.
pub fn crit() -> Result<PathBuf> {
    let crit = cargo::target()?.join("crit");
    unpack(&crit, RELEASE, &["python3-pycriu", "python3-protobuf"], &mut stdout())?;
    Ok(crit)
}

/// The Debian release whose CRIU selfdump is developed with.
const RELEASE: &str = "forky";

/// The CRIU that selfdump is developed with.
pub fn current_criu() -> Result<PathBuf> {
    ensure_criu(&open_to_all("criu")?, RELEASE, &mut stdout())
}

/// The oldest that it supports.
pub fn oldest_criu() -> Result<PathBuf> {
    ensure_criu(&open_to_all("criu-4.1.1")?, "trixie", &mut stdout())
}

/// A folder in target/; or where others don't get there (a checkout in root's home), in one of the machine's: in tests other
/// users start a CRIU as well.
fn open_to_all(name: &str) -> Result<PathBuf> {
    const OF_THE_MACHINE: &str = "/opt/selfdump-for-tests";
    let target = cargo::target()?;
    let is_open = |folder: &Path| folder.metadata().is_ok_and(|about| about.mode() & 0o001 != 0);
    if target.ancestors().all(is_open) {
        return Ok(target.join(name));
    }
    fs::create_dir_all(OF_THE_MACHINE).with_context(|| format!("can't make {OF_THE_MACHINE}"))?;
    Ok(Path::new(OF_THE_MACHINE).join(name))
}

/// What the machine may not have.
pub fn packages() -> Result<()> {
    PACKAGES.iter().try_for_each(ensure_package)?;
    if !makes_virtualenvs() {
        println!("installing {}: {}", VENV.name, VENV.why);
        install(&VENV)?;
        ensure!(makes_virtualenvs(), "the python3 on PATH has no ensurepip: {}", VENV.why);
    }
    Ok(())
}

/// Installs one where it is missing.
pub fn ensure_package(package: &Package) -> Result<()> {
    if find_program(package.program).is_some() {
        return Ok(());
    }
    println!("installing {}: {}", package.name, package.why);
    install(package)
}

fn makes_virtualenvs() -> bool {
    let mut python = Command::new(VENV.program);
    python.args(["-c", "import ctypes, ensurepip, sqlite3"]).output().is_ok_and(|done| done.status.success())
}

fn install(package: &Package) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        cargo::run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = ["install", "--yes", "--no-install-recommends", package.name];
    // A fresh machine has no package lists yet.
    let installed = apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)));
    ensure!(
        installed.is_ok() && find_program(package.program).is_some(),
        "{} is missing and can't be installed: install {} with the machine's package manager, as root ({})",
        package.program,
        package.name,
        package.why,
    );
    Ok(())
}
