//! `cargo xtask test`: all tests, the ones with the real CRIU last.

use anyhow::Result;

use crate::{cargo, setup};

/// The steps in order: what is quick to fail comes first, and the integration tests come last, so that the output
/// ends with their summary.
const STEPS: [&[&str]; 5] = [
    &["test", "--workspace", "--lib", "--bins"],
    &["test", "-p", "selfdump", "--test", "architecture"],
    &["test", "--doc", "-p", "selfdump"],
    // The integration tests run the command and the examples.
    &["build", "--workspace", "--bins", "--examples"],
    &["test", "-p", "selfdump", "--test", "real"],
];

pub fn run(filters: &[String]) -> Result<()> {
    let criu = setup::everything()?;
    for step in STEPS {
        let mut command = cargo::cargo(step)?;
        command.env("SELFDUMP_CRIU", &criu.current).env("SELFDUMP_CRIU_OLD", &criu.oldest);
        if step[0] == "test" && !filters.is_empty() {
            command.arg("--").args(filters);
        }
        cargo::run(&mut command)?;
    }
    Ok(())
}
