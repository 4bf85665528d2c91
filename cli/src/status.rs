//! `selfdump status`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use selfdump::restore;
use selfdump::status::{self, Status};
use serde::Serialize;

use crate::{StoreArgs, output};

/// Tell how a program's checkpoints are doing
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A process id, a program's NAME, or a FOLDER: a store, an instance or one checkpoint
    #[arg(value_name = "PID | NAME | FOLDER")]
    target: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON (docs/format.md)
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing {
    format_version: u32,
    programs: Vec<Program>,
}

#[derive(Serialize)]
struct Program {
    running: bool,
    #[serde(flatten)]
    status: Status,
}

pub fn run(args: &Args) -> Result<()> {
    let found = look(args)?;
    if args.json {
        let programs =
            found.into_iter().map(|status| Program { running: status.is_running(), status }).collect();
        println!("{}", serde_json::to_string_pretty(&Listing { format_version: 1, programs })?);
    } else {
        for (index, status) in found.iter().enumerate() {
            if index > 0 {
                println!();
            }
            print(status);
        }
    }
    Ok(())
}

fn look(args: &Args) -> Result<Vec<Status>> {
    if let Some(pid) = process_id(&args.target) {
        return Ok(vec![status::of_process(pid)?]);
    }
    let (store, _) = restore::from_environment(args.store.dir.as_deref())?;
    let found = status::of_target(&store, &args.target)?;
    if found.is_empty() {
        bail!("{} holds no status: no checkpoint was tried there", args.target.display());
    }
    Ok(found)
}

/// A number is a process id; a program or folder that is called so can be named by a path (`./42`).
fn process_id(target: &Path) -> Option<i32> {
    target.to_str()?.parse().ok().filter(|&pid| pid > 0)
}

fn print(status: &Status) {
    let state = if status.is_running() { "runs" } else { "has ended" };
    println!("{}: process {} {state}, generation {}", status.name, status.pid(), status.generation());
    println!("  checkpoints  {}", status.folder.display());
    if let Some(checkpoint) = &status.restored_from {
        println!("  came from    {checkpoint}");
    }
    println!("  signal       {}", signals(status));
    println!("  schedule     {}", status.schedule);
    let Some(last) = &status.last else {
        println!("  last         none tried yet");
        return;
    };
    println!("  last         {} ago, by {}", output::age(last.finished), last.cause);
    if let (Some(checkpoint), Some(size), Some(frozen)) = (&last.checkpoint, last.size_bytes, last.frozen_us)
    {
        println!(
            "  saved        {checkpoint}, {size}, stood still for {}",
            output::milliseconds(frozen.into())
        );
    }
    if let Some(error) = &last.error {
        println!("  failed       {} ({} in a row)", error.message, status.failures_in_a_row);
        for line in &error.criu {
            println!("               criu: {line}");
        }
        if let Some(log) = &error.log {
            println!("  log          {}", log.display());
        }
        if let Some(hint) = &error.hint {
            println!("  help         {hint}");
        }
    }
}

/// The signals that ask for a checkpoint, and what keeps one from doing so.
fn signals(status: &Status) -> String {
    let armed = |signal: &String| match status.overwritten_signals.contains(signal) {
        true => {
            format!("{signal} (the program has a handler of its own for it now: it may not reach selfdump)")
        }
        false => signal.clone(),
    };
    let exit = status.exit_signal.as_ref().map(|signal| format!("; to exit: {}", armed(signal)));
    armed(&status.signal) + &exit.unwrap_or_default()
}
