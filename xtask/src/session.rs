//! A session that CRIU can dump programs from.

use std::env;
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
