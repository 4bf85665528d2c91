//! `selfdump setup --rootless`: a CRIU with which ordinary users checkpoint their own programs.
//!
//! It has its rights by its file (capabilities(7)). Whoever may run it can have any image restored, a forged one too,
//! and a process that is restored may get all of CRIU's capabilities: so those are all that it has to have.
//! CAP_CHECKPOINT_RESTORE and CAP_SETPCAP lead to nobody else's processes; CAP_SYS_PTRACE leads to root's.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Group, geteuid};
use selfdump::criu::{SHARED_PREFIX, check_trust};

use super::{Args, Candidate, Origin, RELEASE, Report, apt, command, default_prefix, private, probe};

const CAPABILITIES: &str = "cap_checkpoint_restore,cap_setpcap+eip";
const WITH_PTRACE: &str = "cap_checkpoint_restore,cap_setpcap,cap_sys_ptrace+eip";

/// An ordinary user, as whom it is tried: `nobody`.
const SOMEBODY: u32 = 65534;

pub fn set_up(args: &Args, out: &mut dyn Write) -> Result<Report> {
    if !geteuid().is_root() {
        bail!("{}", for_root(args));
    }
    let group = args.group.as_deref().map(group).transpose()?;
    check_yama(args.ptrace)?;
    let criu = match &args.criu {
        Some(criu) => std::path::absolute(criu).context("can't tell the current folder")?,
        None => copy(args, out)?,
    };
    check_trust(&criu).map_err(explained)?;
    let version = probe::probe(&criu)?;
    give(&criu, group.as_ref(), if args.ptrace { WITH_PTRACE } else { CAPABILITIES }, out)?;
    try_it(&criu, group.as_ref())?;
    Ok(Report::new(Candidate { criu, from: Origin::Shared }, version, Vec::new()))
}

/// What an ordinary user is told.
fn for_root(args: &Args) -> String {
    let by_hand = match &args.criu {
        Some(criu) => format!(", or by hand `sudo setcap {CAPABILITIES} {}`", criu.display()),
        None => String::new(),
    };
    format!(
        "only root can give a program capabilities: run `sudo selfdump setup --rootless`{by_hand}. \
         Whoever may run that CRIU can checkpoint and restore programs of his own, and nobody else's (docs/rootless.md)"
    )
}

fn group(name: &str) -> Result<Group> {
    Group::from_name(name)?.with_context(|| format!("there is no group {name}: `groupadd {name}` makes one"))
}

/// Where Yama limits tracing, CRIU could dump nobody without CAP_SYS_PTRACE.
fn check_yama(ptrace: bool) -> Result<()> {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let is_free = ["", "0"].contains(&scope.trim());
    ensure!(
        is_free || ptrace,
        "kernel.yama.ptrace_scope is {}, so that a CRIU without cap_sys_ptrace can trace nobody: set it to 0 (`sysctl \
         kernel.yama.ptrace_scope=0`), or add `--ptrace --group GROUP`, if all of GROUP are to be trusted as root is",
        scope.trim()
    );
    Ok(())
}

/// A copy that everybody can reach: of one that is there already, else of a fresh one.
fn copy(args: &Args, out: &mut dyn Write) -> Result<PathBuf> {
    let prefix = args.prefix.clone().unwrap_or_else(|| SHARED_PREFIX.into());
    let prefix = std::path::absolute(prefix).context("can't tell the current folder")?;
    let release = args.release.as_deref().unwrap_or(RELEASE);
    let of_variable = std::env::var_os("SELFDUMP_CRIU").map(PathBuf::from);
    let of_variable = of_variable.and_then(|criu| Some(criu.parent()?.parent()?.to_owned()));
    let there = of_variable.into_iter().chain(default_prefix()).find(|from| {
        private::release_of(from).as_deref() == Some(release) && probe::probe(&private::binary(from)).is_ok()
    });
    let criu = match there {
        Some(from) if from != prefix => private::copy(&from, &prefix, out)?,
        _ => private::ensure(&prefix, release, out)?,
    };
    // Whatever root's umask is, all may read it, and none may write.
    change("chmod", [OsStr::new("-R"), OsStr::new("go=rX"), prefix.as_os_str()])?;
    Ok(criu)
}

/// Gives a CRIU its capabilities, and to nobody but those who may run it.
fn give(criu: &Path, group: Option<&Group>, capabilities: &str, out: &mut dyn Write) -> Result<()> {
    ensure!(command::find("setcap").is_some(), "setcap is not here: `apt-get install libcap2-bin`");
    let (owner, mode, who) = match group {
        Some(group) => (format!("0:{}", group.gid), "0750", format!("the members of {}", group.name)),
        None => ("0:0".to_owned(), "0755", "everybody".to_owned()),
    };
    // In this order: with another owner or mode the capabilities would be in wrong hands for a moment, and a new owner
    // takes them away.
    change("chown", [OsStr::new(&owner), criu.as_os_str()])?;
    change("chmod", [OsStr::new(mode), criu.as_os_str()])?;
    change("setcap", [OsStr::new(capabilities), criu.as_os_str()])?;
    writeln!(out, "{} has {capabilities}; {who} may run it", criu.display())?;
    Ok(())
}

fn change<const N: usize>(program: &str, arguments: [&OsStr; N]) -> Result<()> {
    let program = command::find(program).with_context(|| format!("{program} is not here"))?;
    apt::call(Command::new(program).args(arguments)).map(drop)
}

/// Has it look at this kernel as an ordinary user.
fn try_it(criu: &Path, group: Option<&Group>) -> Result<()> {
    let mut check = Command::new(criu);
    check
        .args(["check", "--unprivileged"])
        .uid(SOMEBODY)
        .gid(group.map_or(SOMEBODY, |group| group.gid.as_raw()));
    apt::call(check.env_clear().current_dir("/")).map(drop).with_context(|| {
        format!(
            "an ordinary user can't use {}: everybody has to be able to pass the folders above it, and its file system \
             must not be mounted nosuid",
            criu.display()
        )
    })
}

fn explained(error: selfdump::Error) -> anyhow::Error {
    anyhow::anyhow!("{}; {}", error.chain(), error.hint().unwrap_or_default())
}
