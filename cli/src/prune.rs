//! `selfdump prune`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use selfdump::prune::{self, Fate, Limits, Reason};
use selfdump::{Bytes, restore};
use serde::Serialize;

use crate::{StoreArgs, output};

/// Delete checkpoints by count, age and size
///
/// The last good one of each instance (a process and all its restored lives) always stays, and so do the last one of a
/// program that runs, what another one builds on, what is just being written, and damaged ones. What a crash has left half
/// written goes.
#[derive(Debug, clap::Args)]
#[group(id = "limits", required = true, multiple = true, args = ["keep", "older_than", "max_size"])]
pub struct Args {
    /// A program's NAME, or a FOLDER: a store or an instance [default: all]
    #[arg(value_name = "NAME | FOLDER")]
    target: Option<PathBuf>,
    /// How many of each instance stay, the newest; forensic ones are counted by themselves
    #[arg(long, value_name = "COUNT")]
    keep: Option<u32>,
    /// Those that are older go: 12h, 30days
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// The oldest go until the rest is no larger: 500MiB, 20GiB
    #[arg(long, value_name = "SIZE", value_parser = output::size)]
    max_size: Option<Bytes>,
    /// The age and the size are about the last ones of instances that have ended as well, but for the newest of each program
    #[arg(long)]
    ended: bool,
    /// Say what would go, and touch nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON (docs/format.md)
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    format_version: u32,
    dry_run: bool,
    deleted_bytes: Bytes,
    kept_bytes: Bytes,
    checkpoints: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    path: PathBuf,
    taken_unix_us: u64,
    size_bytes: Bytes,
    deleted: bool,
    reason: Reason,
}

pub fn run(args: &Args) -> Result<()> {
    let (store, _) = restore::from_environment(args.store.dir.as_deref())?;
    let Args { keep, older_than, max_size, ended, .. } = *args;
    let plan = prune::plan(&store, args.target.as_deref(), &Limits { keep, older_than, max_size, ended })?;
    if !args.dry_run {
        prune::carry_out(&plan)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report(plan, args.dry_run))?);
    } else {
        print(&plan, args.dry_run);
    }
    Ok(())
}

fn report(plan: Vec<Fate>, dry_run: bool) -> Report {
    let micros =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    let (deleted_bytes, kept_bytes) = prune::sizes(&plan);
    Report {
        format_version: 1,
        dry_run,
        deleted_bytes,
        kept_bytes,
        checkpoints: plan
            .into_iter()
            .map(|fate| Row {
                id: fate.id,
                path: fate.path,
                taken_unix_us: micros(fate.taken),
                size_bytes: fate.size,
                deleted: fate.reason.goes(),
                reason: fate.reason,
            })
            .collect(),
    }
}

fn print(plan: &[Fate], dry_run: bool) {
    if plan.is_empty() {
        println!("there are no checkpoints");
        return;
    }
    let done = if dry_run { "would go" } else { "deleted" };
    let mut table = output::Table::new(["ID", "AGE", "SIZE", "", "WHY"], &[1, 2]);
    for fate in plan {
        table.add_row([
            fate.id.clone(),
            output::age(fate.taken),
            fate.size.to_string(),
            if fate.reason.goes() { done } else { "kept" }.to_owned(),
            fate.reason.text().to_owned(),
        ]);
    }
    table.print();
    let (deleted, kept) = prune::sizes(plan);
    let count = |goes| plan.iter().filter(|fate| fate.reason.goes() == goes).count();
    println!(
        "{} {done} ({deleted}), {} kept ({kept})",
        output::counted(count(true), "checkpoint"),
        count(false),
    );
}
