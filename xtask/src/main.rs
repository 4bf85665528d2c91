//! The project's own commands: `cargo xtask …`.

mod cargo;
mod ci;
mod codegen;
mod demo;
mod errors;
mod session;
mod setup;
mod test;

use clap::Parser;

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Get what the demo and the tests need: CRIU, current and oldest supported, and a few packages
    Setup,
    /// Show a program that is checkpointed, killed and restored, from nothing but cargo and apt
    Demo,
    /// Get what the tests need and run them all
    Test {
        /// What to pass on to the test runner: filters and its options
        #[arg(last = true)]
        filters: Vec<String>,
    },
    /// Everything that has to hold before a change goes in; ends with the tests
    Ci,
    /// Write the structs for CRIU's messages and images from proto/, and docs/errors.md from the dictionary
    Codegen {
        /// Only fail if they are not what their sources say
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let task = Task::parse();
    session::ensure_ours()?;
    match task {
        Task::Setup => setup::run(),
        Task::Demo => demo::run(),
        Task::Test { filters } => test::run(&filters),
        Task::Ci => ci::run(),
        Task::Codegen { check } => codegen::run(check),
    }
}
