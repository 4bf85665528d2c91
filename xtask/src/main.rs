//! The project's own commands: `cargo xtask …`.

mod bench;
mod cargo;
mod chaos;
mod ci;
mod codegen;
mod crates;
mod demo;
mod dist;
mod errors;
mod fuzz;
mod guest;
mod machine;
mod miri;
mod python;
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
    /// Boot a guest with Debian's kernel, which tells which pages have changed, and look what limits for pauses come to
    VmTest,
    /// Everything that has to hold before a change goes in; ends with the tests
    Ci,
    /// Measure selfdump and its peers, and remake the tables and pictures of docs/performance.md
    Bench {
        /// What the house is told: --quick, --only PART,PART (presence, dumps, threads, restores, keeping), --sizes
        /// MIB,MIB, --rounds N, --dir FOLDER; --page and --check measure nothing
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Keep real programs under random kills, full disks, clock jumps and the like, and look whether they lose a step
    Chaos(chaos::Options),
    /// Build the Python package, install it into a fresh virtualenv and check its types
    Wheel,
    /// Give what reads files, answers and settings what nobody would write; without a target each for a minute
    Fuzz {
        /// One of fuzz/: `image`, `dump`, `answer`, `manifest`, `settings`
        target: Option<String>,
        /// Options of libFuzzer's: -runs=N, -max_total_time=SECONDS
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// Run the tests of the pure modules under Miri, which finds undefined behaviour
    Miri,
    /// Write the structs for CRIU's messages and images from proto/, and docs/errors.md from the dictionary
    Codegen {
        /// Only fail if they are not what their sources say
        #[arg(long)]
        check: bool,
    },
    /// Build what is installed, as a tree and as a Debian package, in target/dist
    Dist {
        /// How it is built
        #[arg(long, value_enum, default_value = "release")]
        profile: dist::Profile,
    },
}

fn main() -> anyhow::Result<()> {
    let task = Task::parse();
    session::ensure_ours()?;
    match task {
        Task::Setup => setup::run(),
        Task::Demo => demo::run(),
        Task::Test { filters } => test::run(&filters),
        Task::VmTest => guest::run(),
        Task::Ci => ci::run(),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Chaos(options) => chaos::run(&options),
        Task::Wheel => setup::packages().and_then(|()| python::wheel()).map(drop),
        Task::Fuzz { target: None, .. } => fuzz::briefly(),
        Task::Fuzz { target: Some(target), options } => {
            fuzz::run(&target, &options.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Task::Miri => miri::run(),
        Task::Codegen { check } => codegen::run(check),
        Task::Dist { profile } => dist::run(profile),
    }
}
