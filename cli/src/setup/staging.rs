//! `selfdump setup --staging`: a file system in memory, in large pages, by way of which all users' programs can be
//! checkpointed.
//!
//! Everybody makes folders of his own there, as in /tmp (mode 1777), and nobody moves those of others. What lies there is
//! there only while a checkpoint is made.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;
use selfdump::Staging;
use serde::Serialize;

use super::{apt, command};

/// What was mounted, or was there already.
#[derive(Debug, Serialize)]
pub struct Mounted {
    format_version: u32,
    staging: &'static str,
    mounted: bool,
}

/// Mounts it where it isn't yet.
pub fn set_up(out: &mut dyn Write) -> Result<Mounted> {
    ensure!(geteuid().is_root(), "only root can mount a file system: run `sudo selfdump setup --staging`");
    let at = Path::new(Staging::SHARED);
    let (mounted, options) = (!is_mounted(at)?, Staging::mount_options());
    if mounted {
        make(at)?;
        let mount = command::find("mount").context("mount is not here: `apt-get install mount`")?;
        let arguments = ["-t", "tmpfs", "-o", &options, "selfdump-staging"].map(OsStr::new);
        apt::call(Command::new(mount).args(arguments).arg(at))
            .context("this kernel has no large pages in file systems, maybe (CONFIG_TRANSPARENT_HUGEPAGE)")?;
    }
    let state = if mounted { "is mounted" } else { "was mounted already" };
    writeln!(
        out,
        "{} {state}; programs with SELFDUMP_STAGING=auto are checkpointed by way of it",
        at.display()
    )?;
    writeln!(out, "so that it is there after the next boot, add to /etc/fstab:")?;
    writeln!(out, "selfdump-staging {} tmpfs {options},x-mount.mkdir 0 0", at.display())?;
    Ok(Mounted { format_version: 1, staging: Staging::SHARED, mounted })
}

/// Whether it is what it is to be. Something else in its place is an error.
fn is_mounted(at: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("can't read /proc/self/mounts")?;
    // What is mounted over something comes later.
    let mut named = mounts.lines().rev().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?, fields.next()?)).filter(|(point, _, _)| Path::new(point) == at)
    });
    match named.next() {
        None => Ok(false),
        Some(_) if Staging::is_set_up() => Ok(true),
        Some((_, kind, options)) => bail!(
            "{} is mounted as {kind} with {options}, not as a tmpfs with {}: `umount {}`, and try again",
            at.display(),
            Staging::mount_options(),
            at.display()
        ),
    }
}

/// The folder that it is mounted on, which nobody but root may have made.
fn make(at: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("can't make {}", at.display()));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(at).with_context(|| format!("can't look at {}", at.display()))?;
    ensure!(
        found.is_dir() && found.uid() == 0,
        "{} is no folder of root's: take it away, and try again",
        at.display()
    );
    Ok(())
}
