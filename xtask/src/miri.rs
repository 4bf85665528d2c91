//! The pure modules' tests under Miri, which finds undefined behaviour, in what they depend on as well.
//!
//! Miri comes with nightly compilers only. What makes system calls of its own (`sys/`) it can't run.

use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo;

/// The modules, as filters of tests.
const PURE: [&str; 10] = [
    "config::files",
    "config::pattern",
    "criu::options",
    "doctor::judge",
    "frozen",
    "restore::files",
    "store::layout",
    "store::retention",
    "supervise::policy",
    "trigger::schedule",
];

/// Those that run for hours of a program's time, of which Miri makes hours of ours.
const LONG: [&str; 6] = [
    "simulation",
    "jitter_spreads_the_deadlines",
    "nothing_that_is_measured_makes_it_run_hot",
    "the_random_numbers_are",
    "the_schedule_for_failures",
    "the_time_spent_frozen",
];

pub fn run() -> Result<()> {
    if cargo::read(&mut nightly(&["cargo", "miri", "--version"])).is_err() {
        let install =
            ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"];
        cargo::run(Command::new("rustup").args(install)).context("Miri is missing")?;
    }
    let test = ["cargo", "miri", "test", "-q", "-p", "selfdump", "--lib", "--no-default-features"];
    let mut command = nightly(&test);
    command.arg("--").args(LONG.iter().flat_map(|test| ["--skip", test])).args(PURE);
    command.current_dir(cargo::root());
    // Tests read the time and the names of files.
    command
        .env("CARGO_TARGET_DIR", cargo::target()?.join("miri"))
        .env("MIRIFLAGS", "-Zmiri-disable-isolation");
    cargo::run(&mut command)
}

/// A command of the nightly toolchain, whichever has called us.
fn nightly(command: &[&str]) -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", "nightly"]).args(command);
    rustup
}
