//! `selfdump restore`.

use std::path::PathBuf;

use anyhow::Result;
use selfdump::restore;
use serde::Serialize;

use crate::StoreArgs;

/// The exit status where the program was not brought back: one that programs themselves seldom use.
pub const FAILURE: u8 = 125;

/// Bring a program back from its newest good checkpoint
///
/// The program gets the process id that it had, goes on from where it was, and this command stands for it: signals
/// are passed on, its exit status (or death by a signal) becomes ours. Standard streams that were pipes are connected
/// to those of this command. 125 is the exit status if the program can't be brought back.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program's NAME, an id from the list, or a FOLDER: a store, an instance or one checkpoint [default: the store]
    #[arg(value_name = "NAME | FOLDER")]
    target: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Let the program run by itself, and return as soon as it runs
    #[arg(long)]
    detach: bool,
    /// Leave the program stopped, to look at it with a debugger: `gdb -p PID`. `kill -CONT PID` lets it go on
    #[arg(long)]
    stopped: bool,
    /// Pass a setting in, for the program to find in Restored::settings(). May be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Print JSON about the restore: on standard output with --detach, else on standard error, since standard
    /// output is the program's
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    format_version: u32,
    restored: String,
    path: &'a PathBuf,
    pid: i32,
    generation: u64,
    skipped: Vec<Skipped>,
}

/// A newer checkpoint that is damaged.
#[derive(Serialize)]
struct Skipped {
    id: String,
    problem: String,
}

/// Splits `KEY=VALUE`; the value may hold any more `=`.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is written as KEY=VALUE".to_owned()),
    }
}

pub fn run(args: &Args) -> Result<()> {
    let (store, mut options) = restore::from_environment(args.store.dir.as_deref())?;
    options.stopped = args.stopped;
    options.settings = args.set.iter().cloned().collect();
    let mut skipped = Vec::new();
    let entry = restore::newest_good(&store, args.target.as_deref(), &mut |entry, error| {
        eprintln!("selfdump: passed over {}: {}", entry.id(), error.chain());
        skipped.push(Skipped { id: entry.id(), problem: error.chain() });
    })?;
    if !args.detach {
        restore::hold_signals()?;
    }
    let pid = restore::restore(&entry, &options)?;
    // The life that begins is one later than the one that was dumped.
    let generation = entry.manifest.as_ref().map_or(0, |manifest| manifest.generation() + 1);
    if args.json {
        let report =
            Report { format_version: 1, restored: entry.id(), path: &entry.path, pid, generation, skipped };
        let text = serde_json::to_string(&report)?;
        if args.detach { println!("{text}") } else { eprintln!("{text}") }
    } else if args.detach {
        println!("restored {} as process {pid}", entry.id());
    } else {
        eprintln!("selfdump: restored {} as process {pid}", entry.id());
    }
    if args.detach {
        return Ok(());
    }
    restore::end_alike(restore::attend(pid)?)
}
