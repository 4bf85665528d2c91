//! `cargo xtask test`: all tests, the ones with the real CRIU last.

use std::process::Command;

use anyhow::{Context, Result};

use crate::session::NoAutogroups;
use crate::{cargo, dist, python, setup};

/// What is built and run before the integration tests: what is quick to fail comes first.
const FIRST: [&[&str]; 5] = [
    &["test", "--workspace", "--lib", "--bins"],
    &["test", "-p", "selfdump", "--test", "architecture"],
    &["test", "--doc", "-p", "selfdump"],
    PROGRAMS[0],
    PROGRAMS[1],
];

/// The integration tests run the command, the library and the examples. Built together they would share one library, and
/// the command, which is not to be checkpointed itself, would be installed by linking as the examples are.
pub const PROGRAMS: [&[&str]; 2] =
    [&["build", "-p", "selfdump-cli", "-p", "selfdump-preload"], &["build", "-p", "selfdump", "--examples"]];

/// They come last, so that the output ends with their summary.
const INTEGRATION: &[&str] = &["test", "-p", "selfdump", "--test", "real"];

/// Programs without shared libraries, by the folder below target/ that each is built in, and the compiler's flags:
/// one that can be loaded anywhere, and one that can not.
const STATIC: [(&str, &str); 2] = [
    ("static-pie", "-C target-feature=+crt-static"),
    ("static", "-C target-feature=+crt-static -C relocation-model=static"),
];

pub fn run(filters: &[String]) -> Result<()> {
    let criu = setup::everything()?;
    let take = |step: &[&str]| {
        let mut command = cargo::cargo(step)?;
        command.env("SELFDUMP_CRIU", &criu.current).env("SELFDUMP_CRIU_OLD", &criu.oldest);
        command.env("SELFDUMP_CRIT", &criu.crit);
        if step[0] == "test" && !filters.is_empty() {
            command.arg("--").args(filters);
        }
        cargo::run(&mut command)
    };
    FIRST.into_iter().try_for_each(take)?;
    STATIC.into_iter().try_for_each(build_static)?;
    dist::run(dist::Profile::Dev)?;
    python::wheel()?;
    let _fair = NoAutogroups::new();
    take(INTEGRATION)
}

/// Builds the program that only links selfdump. The target has to be named, or procedural macros would be built
/// with the same flags, which can't be.
fn build_static((folder, flags): (&str, &str)) -> Result<()> {
    let target = host()?;
    let build = ["build", "-p", "linked", "--target", &target];
    let mut command = cargo::cargo(&build)?;
    cargo::run(command.env("CARGO_TARGET_DIR", cargo::target()?.join(folder)).env("RUSTFLAGS", flags))
}

/// The compiler's own target.
pub fn host() -> Result<String> {
    let version = cargo::read(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}
