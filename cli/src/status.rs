//! `selfdump status`.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Result, bail};
use selfdump::status::{self, Status};
use selfdump::{Staged, Technique, restore};
use serde::Serialize;

use crate::{StoreArgs, output};

/// Tell how programs' checkpoints are doing
///
/// Without a target: how those of all programs are doing that run with selfdump in them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A process id, a program's NAME, or a FOLDER: a store, an instance or one checkpoint [default: all that run]
    #[arg(value_name = "PID | NAME | FOLDER")]
    target: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON (docs/format.md)
    #[arg(long)]
    json: bool,
    /// Print metrics in Prometheus' text format (docs/metrics.md)
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
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
    if args.prometheus {
        print!("{}", selfdump::prometheus::text(&found));
    } else if args.json {
        let programs =
            found.into_iter().map(|status| Program { running: status.is_running(), status }).collect();
        println!("{}", serde_json::to_string_pretty(&Listing { format_version: 1, programs })?);
    } else if args.target.is_none() {
        print_all(&found);
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
    let Some(target) = &args.target else { return Ok(status::running()) };
    if let Some(pid) = status::process_id(target) {
        return Ok(vec![status::of_process(pid)?]);
    }
    let (store, _) = restore::from_environment(args.store.dir.as_deref())?;
    let found = status::of_target(&store, target)?;
    if found.is_empty() {
        bail!("{} holds no status: no checkpoint was tried there", target.display());
    }
    Ok(found)
}

/// One line for each program that runs, and why those failed that did.
fn print_all(running: &[Status]) {
    if running.is_empty() {
        println!(
            "no program of this user runs with selfdump in it; `selfdump status NAME` tells of ended ones"
        );
        return;
    }
    let mut table = output::Table::new(
        ["NAME", "PID", "SAVED", "LAST", "AGE", "PAUSE", "NEXT", "FAILED"],
        &[1, 2, 4, 5, 6, 7],
    );
    for status in running {
        let last = status.last.as_ref();
        let none = || "-".to_owned();
        table.add_row([
            status.name.clone(),
            status.pid().to_string(),
            status.metrics.saved.to_string(),
            last.map_or("none", |last| if last.saved { "saved" } else { "failed" }).to_owned(),
            last.map_or_else(none, |last| output::age(last.finished)),
            last.and_then(|last| last.frozen_us)
                .map_or_else(none, |micros| output::milliseconds(micros.into())),
            status.next.map_or_else(none, output::until),
            status.failures_in_a_row.to_string(),
        ]);
    }
    table.print();
    for status in running {
        for error in status.last.iter().filter_map(|last| last.error.as_ref()) {
            println!("{} ({}): {}", status.name, status.pid(), error.message);
            output::failure(error).for_each(|line| println!("  {line}"));
        }
    }
}

fn print(status: &Status) {
    let running = status.is_running();
    let state = if running { "runs" } else { "has ended" };
    println!("{}: process {} {state}, generation {}", status.name, status.pid(), status.generation());
    println!("  checkpoints  {}", status.folder.display());
    if let Some(checkpoint) = &status.restored_from {
        println!("  came from    {checkpoint}");
    }
    println!("  signal       {}", signals(status));
    println!("  schedule     {}", status.schedule);
    if let Some(next) = status.next.filter(|_| running) {
        match next > SystemTime::now() {
            true => println!("  next         in {}", output::until(next)),
            false => println!("  next         is due"),
        }
    }
    let Some(last) = &status.last else {
        println!("  last         none tried yet");
        return;
    };
    println!("  last         {} ago, by {}", output::age(last.finished), last.cause);
    if last.saved {
        println!("  saved        {}", output::saved(last));
    }
    if let Some(budget) = &last.pause_budget {
        println!("  pause        {budget}");
    }
    if let Some(staged) = last.staged.as_ref().filter(|staged| **staged != Staged::Disk) {
        println!("  written to   {staged}");
    }
    if let Some(technique) = last.technique.as_ref().filter(|how| **how != Technique::Freeze) {
        println!("  dumped       {technique}");
    }
    if let Some(error) = &last.error {
        println!("  failed       {} ({} in a row)", error.message, status.failures_in_a_row);
        output::failure(error).for_each(|line| println!("               {line}"));
        if let Some(saved) = &status.metrics.last {
            println!("  last saved   {} ago: {}", output::age(saved.finished), saved.checkpoint);
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
