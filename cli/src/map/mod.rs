//! `selfdump map`.

mod picture;
mod regions;

use std::path::PathBuf;

use anyhow::{Context, Result};
use selfdump::inspect::{self, Change, Inside, Process};
use selfdump::{Bytes, Entry};

use crate::{ReadArgs, drawing, output};
use picture::{Header, Picture};

/// Draw where the memory of a process is, what was dumped of it, and what has changed since the checkpoint before
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id from the list, a program's NAME (its newest checkpoint), or a checkpoint's FOLDER
    #[arg(value_name = "ID | NAME | FOLDER")]
    target: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// The SVG file to write, or `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The process [default: the root of the tree]
    #[arg(long)]
    pid: Option<i32>,
}

pub fn run(args: &Args) -> Result<()> {
    let (entry, options) = args.read.newest(&args.target)?;
    let inside = Inside::of(&entry)?;
    let is_wanted = |process: &&Process| args.pid.is_none_or(|pid| pid == process.pid);
    let process = inside.processes.iter().find(is_wanted).with_context(|| {
        let pid = args.pid.unwrap_or_default();
        format!("{} holds no process {pid}; `selfdump show` lists those that it has", entry.id())
    })?;
    let memory = process.memory.as_ref().with_context(|| {
        format!("process {} of {} had ended, and has no memory to draw", process.pid, entry.id())
    })?;
    let held = inspect::held(&entry, process)?;
    let compared = inspect::preceding(&entry)?;
    let compared = compared.map(|earlier| earlier.open(&options.identities)).transpose()?;
    let changed =
        compared.as_ref().map(|earlier| changed(earlier, &entry, process.pid)).transpose()?.flatten();
    let has_changes = changed.is_some();
    let regions = regions::regions(memory, &process.threads, &held, &changed.unwrap_or_default());
    let header = Header {
        title: format!("{}: memory of {} {}", entry.id(), process.pid, process.name),
        subtitle: subtitle(&entry, &regions),
        compared: compared.filter(|_| has_changes).map(|earlier| earlier.id()),
    };
    let picture = Picture::of(header, regions);
    drawing::draw(&args.output, picture.size(), |area| picture.draw(area))
}

/// Where memory is different from the checkpoint before; none where that had no such process.
fn changed(earlier: &Entry, entry: &Entry, pid: i32) -> Result<Option<Vec<std::ops::Range<u64>>>> {
    let processes = inspect::diff(earlier, entry)?.processes;
    let same = processes.into_iter().find(|process| process.pid == pid && process.change == Change::Stayed);
    Ok(same.map(|process| process.memory.into_iter().flat_map(|mapping| mapping.changed).collect()))
}

fn subtitle(entry: &Entry, regions: &[regions::Region]) -> String {
    let [size, held] =
        regions.iter().fold([0, 0], |[size, held], region| [size + region.size, held + region.held]);
    let taken = entry.taken().map(|taken| humantime::format_rfc3339_seconds(taken).to_string());
    let taken = taken.unwrap_or_default().replace('T', " ").replace('Z', " UTC");
    let pause = entry.manifest.as_ref().map(|manifest| manifest.stats.frozen.as_micros()).unwrap_or_default();
    format!(
        "{taken}  ·  {} mapped, {} dumped  ·  pause {}",
        Bytes(size),
        Bytes(held),
        output::milliseconds(pause)
    )
}
