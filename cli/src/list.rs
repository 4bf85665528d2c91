//! `selfdump list`.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;
use selfdump::listing::{self, Listed, State, Summary};
use selfdump::{Bytes, restore};
use serde::Serialize;

use crate::{StoreArgs, output};

/// List checkpoints, newest first
///
/// State: `good` and `forensic` by the manifest and the sizes of the files, which aren't read for this (of more than a
/// thousand checkpoints, by the size of the largest file); `damaged`; and `partial` for what is being written, or was
/// left by a crash.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program's NAME, an id from the list, or a FOLDER: a store, an instance or one checkpoint [default: all]
    #[arg(value_name = "NAME | FOLDER")]
    target: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON (docs/format.md)
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing<'a> {
    format_version: u32,
    size_bytes: Bytes,
    files_looked_at: &'static str,
    checkpoints: Vec<Row<'a>>,
}

/// One checkpoint; what its manifest would tell is null where that can't be read.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    path: &'a PathBuf,
    state: &'static str,
    problem: Option<String>,
    name: Option<&'a str>,
    pid: Option<i32>,
    generation: Option<u64>,
    cause: Option<String>,
    taken_unix_us: Option<u64>,
    size_bytes: Option<Bytes>,
    pages_written: Option<u64>,
    frozen_us: Option<u64>,
    processes: Option<usize>,
    pids: Option<&'a [i32]>,
    encrypted: Option<bool>,
}

pub fn run(args: &Args) -> Result<()> {
    let (store, _) = restore::from_environment(args.store.dir.as_deref())?;
    let listed = listing::list(&store, args.target.as_deref())?;
    let size = listing::size(&listed);
    if args.json {
        let listing = Listing {
            format_version: 1,
            size_bytes: size,
            files_looked_at: if looks_at_each(&listed) { "each" } else { "largest" },
            checkpoints: listed.iter().map(row).collect(),
        };
        println!("{}", serde_json::to_string_pretty(&listing)?);
    } else if listed.is_empty() {
        let place = args.target.as_ref().unwrap_or(&store);
        println!(
            "no checkpoints in {}; `kill -USR2 PID` makes one of a program that selfdump runs in",
            place.display()
        );
    } else {
        print(&listed, size);
    }
    Ok(())
}

fn looks_at_each(listed: &[Listed]) -> bool {
    listed.len() <= listing::EACH_FILE_UP_TO
}

fn row(listed: &Listed) -> Row<'_> {
    let summary = listed.summary.as_ref();
    let from = |read: fn(&Summary) -> u64| summary.map(read);
    let micros = |taken: SystemTime| {
        taken.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    };
    Row {
        id: &listed.id,
        path: &listed.path,
        state: listed.state.name(),
        problem: problem(listed),
        name: summary.map(|about| about.name.as_str()),
        pid: summary.and_then(|about| about.processes.first().copied()),
        generation: from(|about| about.generation),
        cause: summary.map(|about| about.cause.to_string()),
        taken_unix_us: summary.and(listed.taken).map(micros),
        size_bytes: summary.map(|about| about.size),
        pages_written: from(|about| about.pages_written),
        frozen_us: from(|about| about.frozen.as_micros() as u64),
        processes: summary.map(|about| about.processes.len()),
        pids: summary.map(|about| about.processes.as_slice()),
        encrypted: summary.map(|about| about.is_encrypted),
    }
}

/// What is to be said of one that isn't as it should be.
fn problem(listed: &Listed) -> Option<String> {
    match &listed.state {
        State::Damaged(error) => Some(error.chain()),
        State::Partial { is_abandoned: true } => {
            Some("left by a crash; the program's next start, or `selfdump prune`, takes it away".to_owned())
        }
        State::Partial { is_abandoned: false } => Some("being written".to_owned()),
        _ => None,
    }
}

fn print(listed: &[Listed], size: Bytes) {
    let header = ["ID", "AGE", "CAUSE", "SIZE", "PAGES", "PAUSE", "PROCS", "STATE"];
    let mut table = output::Table::new(header, &[1, 3, 4, 5, 6]);
    for one in listed {
        let from =
            |read: &dyn Fn(&Summary) -> String| one.summary.as_ref().map_or_else(|| "?".to_owned(), read);
        table.add_row([
            one.id.clone(),
            one.taken.map_or_else(|| "?".to_owned(), output::short_age),
            from(&|about| about.cause.to_string()),
            from(&|about| about.size.to_string()),
            from(&|about| about.pages_written.to_string()),
            from(&|about| output::milliseconds(about.frozen.as_micros())),
            from(&|about| about.processes.len().to_string()),
            one.state.name().to_owned(),
        ]);
    }
    table.print();
    let partial = listed.iter().filter(|one| matches!(one.state, State::Partial { .. })).count();
    let whole = output::counted(listed.len() - partial, "checkpoint");
    let drafts = if partial > 0 { format!(", and {partial} partial") } else { String::new() };
    println!("{whole} in all: {size}{drafts}");
    if !looks_at_each(listed) {
        println!(
            "Of so many only the largest file of each was looked at; `selfdump list` of fewer looks at all."
        );
    }
    for (one, problem) in listed.iter().filter_map(|one| Some((one, problem(one)?))) {
        println!("{}: {problem}", one.id);
    }
}
