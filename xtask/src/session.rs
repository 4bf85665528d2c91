//! A session that CRIU can dump programs from, and that has its part of the processors.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::getsid;

/// Starts this command once more as the leader of a session, where the one that it runs in is led from outside of
/// its pid namespace, as under some CI runners: CRIU dumps no process of such a session.
pub fn ensure_ours() -> Result<()> {
    // The kernel calls what can't be seen from here 0.
    if getsid(None).context("can't tell the session")?.as_raw() != 0 {
        return Ok(());
    }
    let us = env::current_exe().context("can't tell our own path")?;
    let error = Command::new("setsid").arg("--wait").arg(us).args(env::args_os().skip(1)).exec();
    Err(error).context("can't start setsid (of the package util-linux), to have a session of our own")
}

/// Has the kernel share the processors among threads alone, and not first among sessions, for as long as this is kept.
/// Linux 6.18 was found to let whole sessions, and its own threads, wait for more than 20 s while another session's threads
/// compute on all processors; docs/snapshot.md has the figures.
pub struct NoAutogroups(Option<String>);

impl NoAutogroups {
    const SETTING: &str = "/proc/sys/kernel/sched_autogroup_enabled";

    pub fn new() -> NoAutogroups {
        let before = fs::read_to_string(Self::SETTING).ok().filter(|before| before.trim() != "0");
        let set = before.filter(|_| fs::write(Self::SETTING, "0").is_ok());
        if set.is_some() {
            println!("{} is 0 meanwhile", Self::SETTING);
        }
        NoAutogroups(set)
    }
}

impl Drop for NoAutogroups {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = fs::write(Self::SETTING, before);
        }
    }
}
