//! `cargo xtask bench`: the bench house (`bench/`), which makes the tables and pictures of docs/performance.md.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{cargo, setup};

/// Runs the house with these arguments, which are its own; what it needs is had before.
pub fn run(arguments: &[String]) -> Result<()> {
    let has = |words: &[&str]| arguments.iter().any(|argument| words.contains(&argument.as_str()));
    // A quick run only shows that everything works, and needn't be built for long.
    let profile = if has(&["--quick"]) { "dev" } else { "release" };
    build("house", profile)?;
    let mut house = house(profile, arguments)?;
    if has(&["--page", "--check"]) {
        return cargo::run(&mut house);
    }
    let criu = setup::current_criu()?;
    // pycriu, a peer.
    setup::crit()?;
    build("presence", profile)?;
    // The house looks for it, and would build it in the middle of a measurement.
    cargo::run(&mut cargo::cargo(&["build", "--profile", profile, "-p", "selfdump-cli"])?)?;
    cargo::run(house.env("SELFDUMP_CRIU", criu))
}

/// For CI: that everything can be measured, and that the page is what its results say.
pub fn briefly() -> Result<()> {
    cargo::run(cargo::cargo(&["test", "--workspace", "--lib"])?.current_dir(folder()))?;
    let documents = cargo::target()?.join("bench/documents");
    std::fs::create_dir_all(&documents)?;
    std::fs::copy(cargo::root().join("docs/performance.md"), documents.join("performance.md"))?;
    let quick = ["--quick", "--documents", &documents.display().to_string()].map(str::to_owned);
    run(&quick)?;
    cargo::run(&mut house("dev", &["--check".to_owned()])?)
}

pub fn format() -> Result<()> {
    cargo::run(cargo::cargo(&["fmt", "--all", "--check"])?.current_dir(folder()))
}

pub fn lint() -> Result<()> {
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    cargo::run(cargo::cargo(&lints)?.current_dir(folder()))
}

/// It is a workspace of its own.
fn build(package: &str, profile: &str) -> Result<()> {
    cargo::run(cargo::cargo(&["build", "--profile", profile, "-p", package])?.current_dir(folder()))
}

fn folder() -> PathBuf {
    cargo::root().join("bench")
}

fn house(profile: &str, arguments: &[String]) -> Result<Command> {
    let built = if profile == "dev" { "debug" } else { profile };
    let mut house = Command::new(cargo::target()?.join(built).join("house"));
    house.args(arguments);
    Ok(house)
}
