//! The project's own commands: `cargo xtask …`.

mod cargo;
mod ci;
mod codegen;
mod demo;
mod fuzz;
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
    /// Give the readers of images what no CRIU has written; without a target each for a few seconds
    Fuzz {
        /// `image` or `dump`, of fuzz/
        target: Option<String>,
        /// Options of libFuzzer's: -runs=N, -max_total_time=SECONDS
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// Write the structs for CRIU's messages and images from proto/
    Codegen {
        /// Only fail if they are not what proto/ says
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
        Task::Fuzz { target: None, .. } => fuzz::briefly(),
        Task::Fuzz { target: Some(target), options } => {
            fuzz::run(&target, &options.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Task::Codegen { check } => codegen::run(check),
    }
}
