//! `cargo xtask dist`: what is installed, as a tree and as a Debian package.

mod deb;
mod tree;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cargo;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    Release,
    /// Quickly, for the tests.
    Dev,
}

/// Builds the command and the library, and puts all of it to target/dist.
pub fn run(profile: Profile) -> Result<()> {
    // Both without the constructor of `selfdump`, so that they can share one build of it.
    let build = ["build", "-p", "selfdump-cli", "-p", "selfdump-preload", "--profile"];
    let name = if profile == Profile::Release { "release" } else { "dev" };
    cargo::run(cargo::cargo(&build)?.arg(name))?;
    let built = cargo::target()?.join(if profile == Profile::Release { "release" } else { "debug" });
    let dist = fresh("dist")?;
    let tree = dist.join(format!("selfdump-{VERSION}"));
    tree::make(&built, &tree)?;
    let package = deb::make(&tree, &dist)?;
    println!("the tree is {}, to be copied to /usr/local or wherever", tree.display());
    println!("the package is {}, for `dpkg -i`", package.display());
    Ok(())
}

/// An empty folder in target/.
fn fresh(name: &str) -> Result<PathBuf> {
    let folder = cargo::target()?.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("can't empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(folder)
}
