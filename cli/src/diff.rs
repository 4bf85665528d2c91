//! `selfdump diff`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use selfdump::inspect::{
    self, DescriptorDifference, Difference, Inside, MappingDifference, ProcessDifference, ThreadDifference,
};
use selfdump::{Bytes, Entry, frozen};
use serde::Serialize;

use crate::symbols::Symbols;
use crate::{ReadArgs, output};

/// Show what is different between two checkpoints: memory page by page, threads, descriptors and files
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The earlier one: an id from the list, a program's NAME (its newest), or a checkpoint's FOLDER
    #[arg(value_name = "EARLIER")]
    earlier: PathBuf,
    /// The later one; without it the one that is named is compared with the one before it
    #[arg(value_name = "LATER")]
    later: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    /// Print JSON (docs/format.md)
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    format_version: u32,
    earlier: String,
    later: String,
    #[serde(flatten)]
    difference: Difference,
}

pub fn run(args: &Args) -> Result<()> {
    let (named, options) = args.read.newest(&args.earlier)?;
    let (earlier, later) = match &args.later {
        Some(later) => (named, args.read.newest(later)?.0),
        None => (before(&named)?.open(&options.identities)?, named),
    };
    let difference = inspect::diff(&earlier, &later)?;
    if args.json {
        let report = Report { format_version: 1, earlier: earlier.id(), later: later.id(), difference };
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("from {}\nto   {}{}", earlier.id(), later.id(), gap(&earlier, &later));
    let [mut before, mut after] = [Places::of(&earlier)?, Places::of(&later)?];
    difference.processes.iter().for_each(|process| print(process, &mut before, &mut after));
    Ok(())
}

fn before(named: &Entry) -> Result<Entry> {
    inspect::preceding(named)?.with_context(|| {
        format!("{} has no checkpoint before it to compare it with; name another one as well", named.id())
    })
}

fn gap(earlier: &Entry, later: &Entry) -> String {
    let gap =
        later.taken().zip(earlier.taken()).and_then(|(later, earlier)| later.duration_since(earlier).ok());
    gap.map_or_else(String::new, |gap| format!(", {} later", output::seconds(gap)))
}

fn print(process: &ProcessDifference, before: &mut Places, after: &mut Places) {
    println!("\n{} {}: {}", process.pid, process.name, told(process));
    memory(&process.memory);
    threads(process.pid, &process.threads, before, after);
    descriptors(&process.descriptors);
}

fn told(process: &ProcessDifference) -> String {
    let sum = |of: fn(&MappingDifference) -> u64| process.memory.iter().map(of).sum::<u64>();
    let bytes = Bytes(sum(|mapping| mapping.changed_bytes.0));
    match process.change {
        inspect::Change::Came => "came".to_owned(),
        inspect::Change::Went => "went".to_owned(),
        _ => format!(
            "{} pages changed ({bytes} of them), {} new, {} gone",
            sum(|mapping| mapping.changed_pages),
            sum(|mapping| mapping.new_pages),
            sum(|mapping| mapping.gone_pages),
        ),
    }
}

fn memory(mappings: &[MappingDifference]) {
    if mappings.is_empty() {
        return;
    }
    let header = ["  MEMORY", "", "CHANGED", "BYTES", "NEW", "GONE", "WHAT"];
    let mut table = output::Table::new(header, &[2, 3, 4, 5]);
    table.add_rows(mappings.iter().map(|mapping| {
        let what = mapping.path.as_ref().map(|path| path.display().to_string());
        [
            format!("  {:012x}", mapping.start),
            output::name(&mapping.change),
            mapping.changed_pages.to_string(),
            mapping.changed_bytes.0.to_string(),
            mapping.new_pages.to_string(),
            mapping.gone_pages.to_string(),
            what.unwrap_or_else(|| output::name(&mapping.kind)),
        ]
    }));
    println!();
    table.print();
}

fn threads(pid: i32, threads: &[ThreadDifference], before: &mut Places, after: &mut Places) {
    if threads.is_empty() {
        return;
    }
    let mut table = output::Table::new(["  THREAD", "NAME", "", "STOOD IN", "STANDS IN"], &[]);
    table.add_rows(threads.iter().map(|thread| {
        [
            format!("  {}", thread.tid),
            thread.name.clone(),
            output::name(&thread.change),
            before.place(pid, thread.before),
            after.place(pid, thread.after),
        ]
    }));
    println!();
    table.print();
}

fn descriptors(descriptors: &[DescriptorDifference]) {
    if descriptors.is_empty() {
        return;
    }
    let mut table = output::Table::new(["  FD", "", "WAS", "IS"], &[]);
    table.add_rows(descriptors.iter().map(|descriptor| {
        let [was, is] = [&descriptor.before, &descriptor.after]
            .map(|open| open.as_ref().map_or_else(String::new, opened));
        [format!("  {}", descriptor.fd), output::name(&descriptor.change), was, is]
    }));
    println!();
    table.print();
}

/// A file with its position and size, or what else is open.
fn opened(open: &frozen::Descriptor) -> String {
    let path = open.path.as_ref().map_or_else(|| output::name(&open.kind), |path| path.display().to_string());
    match (open.position_bytes, open.size_bytes) {
        (Some(position), Some(size)) => format!("{path} at {} of {}", position.0, size.0),
        (Some(position), None) => format!("{path} at {}", position.0),
        _ => path,
    }
}

/// Where the threads of a checkpoint stand.
struct Places {
    inside: Inside,
    symbols: Symbols,
}

impl Places {
    fn of(entry: &Entry) -> Result<Places> {
        let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
        Ok(Places { inside: Inside::of(entry)?, symbols: Symbols::of(manifest) })
    }

    fn place(&mut self, pid: i32, address: Option<u64>) -> String {
        let process = self.inside.processes.iter().find(|process| process.pid == pid);
        let memory = process.and_then(|process| process.memory.as_ref());
        let location = memory.zip(address).map(|(memory, address)| self.symbols.locate(memory, address));
        location.map_or_else(String::new, |location| location.to_string())
    }
}
