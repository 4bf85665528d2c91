//! The programs that lie in other packages, for the comparisons that run them.

use std::path::PathBuf;
use std::process::Command;

use crate::comparison::{Failure, scene};

/// How they are built: as we are ourselves. For a benchmark that is as a release.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

/// A program that is built already.
pub fn built(name: &str) -> Result<PathBuf, Failure> {
    let folder = if PROFILE == "dev" { "debug" } else { PROFILE };
    Ok(scene::target()?.join(folder).join(name))
}

/// The `selfdump` command, built anew where its source has changed: it lies in another workspace.
pub fn command() -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--profile", PROFILE, "--package", "selfdump-cli"]);
    build.arg("--target-dir").arg(scene::target()?);
    let status = build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).status()?;
    match status.success() {
        true => built("selfdump"),
        false => Err(format!("the command can't be built ({status})").into()),
    }
}
