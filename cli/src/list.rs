//! `selfdump list`.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;
use selfdump::{Bytes, Entry, Manifest, restore};
use serde::Serialize;

use crate::{StoreArgs, output};

/// List checkpoints, newest first
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
struct Listing {
    format_version: u32,
    checkpoints: Vec<Row>,
}

/// One checkpoint; what its manifest would tell is null where that can't be read.
#[derive(Serialize)]
struct Row {
    id: String,
    path: PathBuf,
    state: &'static str,
    problem: Option<String>,
    name: Option<String>,
    pid: Option<i32>,
    generation: Option<u64>,
    cause: Option<String>,
    taken_unix_us: Option<u64>,
    size_bytes: Option<Bytes>,
    pages_written: Option<u64>,
    frozen_us: Option<u64>,
    processes: Option<usize>,
    #[serde(skip)]
    taken: Option<SystemTime>,
}

pub fn run(args: &Args) -> Result<()> {
    let (store, _) = restore::from_environment(args.store.dir.as_deref())?;
    let entries = restore::find(&store, args.target.as_deref())?;
    let rows: Vec<Row> = entries.iter().map(row).collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&Listing { format_version: 1, checkpoints: rows })?);
    } else if rows.is_empty() {
        let place = args.target.as_ref().unwrap_or(&store);
        println!(
            "no checkpoints in {}; `kill -USR2 PID` makes one of a program that selfdump runs in",
            place.display()
        );
    } else {
        print(&rows);
    }
    Ok(())
}

fn row(entry: &Entry) -> Row {
    let problem = entry.glance().err().map(|error| error.chain());
    let manifest = entry.manifest.as_ref().ok();
    let from = |read: fn(&Manifest) -> u64| manifest.map(read);
    Row {
        id: entry.id(),
        path: entry.path.clone(),
        state: match problem {
            None if entry.is_forensic() => "forensic",
            None => "good",
            Some(_) => "damaged",
        },
        problem,
        name: manifest.map(|manifest| manifest.program.name.clone()),
        pid: manifest.map(Manifest::pid),
        generation: from(Manifest::generation),
        cause: manifest.map(|manifest| manifest.cause.to_string()),
        taken_unix_us: from(|manifest| {
            manifest.taken.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
        }),
        size_bytes: manifest.map(Manifest::size),
        pages_written: from(|manifest| manifest.stats.pages_written),
        frozen_us: from(|manifest| manifest.stats.frozen.as_micros() as u64),
        processes: manifest.map(|manifest| manifest.processes.len()),
        taken: entry.taken(),
    }
}

fn print(rows: &[Row]) {
    let mut table = output::table(["ID", "AGE", "CAUSE", "SIZE", "PAUSE", "STATE"], &[1, 3, 4]);
    for row in rows {
        table.add_row([
            row.id.clone(),
            row.taken.map_or_else(|| "?".to_owned(), output::age),
            row.cause.clone().unwrap_or_else(|| "?".to_owned()),
            row.size_bytes.map_or_else(|| "?".to_owned(), |size| size.to_string()),
            row.frozen_us.map_or_else(|| "?".to_owned(), |micros| output::milliseconds(micros.into())),
            row.state.to_owned(),
        ]);
    }
    output::print_table(&mut table);
    let size: Bytes = rows.iter().filter_map(|row| row.size_bytes).sum();
    println!("{} in all: {size}", output::counted(rows.len(), "checkpoint"));
    for row in rows.iter().filter(|row| row.problem.is_some()) {
        println!("{}: {}", row.id, row.problem.as_deref().unwrap_or_default());
    }
}
