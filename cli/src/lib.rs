//! The `selfdump` command as a library: [`run`] takes the arguments and returns the exit status, so that
//! other front-ends (`python -m selfdump`) are the same command. How such a front-end is started is a [`Front`].

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use selfdump::restore::Options;
use selfdump::{Entry, Identities};

mod core_file;
mod diff;
mod doctor;
mod drawing;
mod explain;
mod export;
mod front;
mod history;
mod images;
mod list;
mod map;
mod output;
mod prune;
mod restore;
mod run;
mod service;
pub mod setup;
mod show;
mod status;
mod symbols;
mod trigger;
mod verify;

pub use front::{Front, Scripts};

/// Checkpoints of running programs: what there is, how they are doing, and how they come back
///
/// A program that selfdump runs in makes a checkpoint when it is sent SIGUSR2 (`kill -USR2 PID`), and goes on.
#[derive(Debug, Parser)]
#[command(name = "selfdump", version, max_term_width = 100, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Explain(explain::Args),
    List(list::Args),
    Doctor(doctor::Args),
    Prune(prune::Args),
    Restore(restore::Args),
    Run(Box<run::Args>),
    Status(status::Args),
    Trigger(trigger::Args),
    Show(show::Args),
    Diff(diff::Args),
    Map(map::Args),
    History(history::Args),
    Images(images::Args),
    Verify(verify::Args),
    Core(core_file::Args),
    Export(export::Args),
    Setup(setup::Args),
    Service(service::Args),
    /// What `restore` has for the case that it is killed itself
    #[command(hide = true)]
    Guard,
}

/// Where the checkpoints are.
#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// The store [default: /var/lib/selfdump as root, else ~/.local/state/selfdump]
    #[arg(long, env = "SELFDUMP_DIR", value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
}

/// What opens checkpoints that are encrypted.
#[derive(Debug, clap::Args)]
struct IdentityArgs {
    /// The file with an identity of age (`age-keygen`), for checkpoints that are encrypted. May be given more than once;
    /// the variable may name several with colons between
    #[arg(
        long,
        env = "SELFDUMP_IDENTITY",
        value_name = "FILE",
        value_delimiter = ':',
        hide_env_values = true
    )]
    identity: Vec<std::path::PathBuf>,
}

impl IdentityArgs {
    fn read(&self) -> Result<Identities, selfdump::Error> {
        Identities::read(&self.identity)
    }
}

/// Where the checkpoints are, and how to look into them.
#[derive(Debug, clap::Args)]
struct ReadArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    identity: IdentityArgs,
}

impl ReadArgs {
    /// The newest checkpoint of a target with its contents in reach, and how one would be restored.
    fn newest(&self, target: &Path) -> anyhow::Result<(Entry, Options)> {
        let (entry, options) = self.unopened(target)?;
        Ok((entry.open(&options.identities)?, options))
    }

    /// The newest checkpoint of a target as it lies there.
    fn unopened(&self, target: &Path) -> anyhow::Result<(Entry, Options)> {
        let (store, options) = self.options()?;
        let entry = selfdump::restore::find(&store, Some(target))?.into_iter().next();
        let entry = entry.with_context(|| format!("{} holds no checkpoint", target.display()))?;
        Ok((entry, options))
    }

    /// The store, and how a checkpoint would be restored.
    fn options(&self) -> anyhow::Result<(std::path::PathBuf, Options)> {
        let (store, mut options) = selfdump::restore::from_environment(self.store.dir.as_deref())?;
        options.identities = self.identity.read()?;
        Ok((store, options))
    }
}

/// The command as clap knows it, for manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command with these arguments, which don't include its own name, and returns its exit status. Errors are
/// printed, with the remedy. Where a program was attended to, this process ends as that has ended, without returning.
pub fn run(front: &Front, arguments: &[OsString]) -> u8 {
    // A reader that goes away (`selfdump list | head -1`) ends us quietly, as it does other tools.
    output::end_quietly_on_broken_pipe();
    let logger = env_logger::Env::new().filter_or("SELFDUMP_LOG", "warn");
    // A front-end may have a logger of its own.
    let _ = env_logger::Builder::from_env(logger).format_timestamp(None).try_init();
    let name = OsString::from("selfdump");
    let parsed = Arguments::try_parse_from(std::iter::once(&name).chain(arguments));
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let succeeded = |()| 0;
    let (done, failure) = match parsed.command {
        Command::Explain(args) => (explain::run(&args).map(succeeded), 1),
        Command::List(args) => (list::run(&args).map(succeeded), 1),
        Command::Restore(args) => (restore::run(&args, front, arguments).map(succeeded), restore::FAILURE),
        Command::Run(args) => (run::run(&args, front), restore::FAILURE),
        Command::Status(args) => (status::run(&args).map(succeeded), 1),
        Command::Doctor(args) => (doctor::run(&args), 1),
        Command::Prune(args) => (prune::run(&args).map(succeeded), 1),
        Command::Trigger(args) => (trigger::run(&args), 1),
        Command::Show(args) => (show::run(&args).map(succeeded), 1),
        Command::Diff(args) => (diff::run(&args).map(succeeded), 1),
        Command::Map(args) => (map::run(&args).map(succeeded), 1),
        Command::History(args) => (history::run(&args).map(succeeded), 1),
        Command::Images(args) => (images::run(&args).map(succeeded), 1),
        Command::Verify(args) => (verify::run(&args), 1),
        Command::Core(args) => (core_file::run(&args).map(succeeded), 1),
        Command::Export(args) => (export::run(&args).map(succeeded), 1),
        Command::Setup(args) => (setup::run(args).map(succeeded), 1),
        Command::Service(args) => (service::run(&args).map(succeeded), 1),
        Command::Guard => (selfdump::restore::guard::stand().map_err(Into::into).map(succeeded), 1),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            output::report(&error);
            failure
        }
    }
}
