//! The command, for the comparisons that run it.

use std::path::PathBuf;
use std::process::Command;

use crate::comparison::{Failure, scene};

/// The `selfdump` command, built anew where its source has changed: cargo builds only what is in the same package
/// for a benchmark.
pub fn command() -> Result<PathBuf, Failure> {
    let target = scene::target()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "--package", "selfdump-cli", "--target-dir"]).arg(&target);
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    match status.success() {
        true => Ok(target.join("release/selfdump")),
        false => Err(format!("the command can't be built ({status})").into()),
    }
}
