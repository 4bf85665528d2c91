//! `selfdump show`.

mod head;
mod json;
mod tables;

use std::path::PathBuf;

use anyhow::{Result, bail};
use selfdump::Entry;
use selfdump::inspect::{self, Fate, Inside, Process};

use crate::ReadArgs;
use crate::symbols::{Location, Symbols};

/// Show what is in a checkpoint: processes, threads, memory, descriptors, sockets, and how the dump went
///
/// Without an option it tells of every part what matters most; `--threads` and `--memory` tell all of theirs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id from the list, a program's NAME (its newest checkpoint), or a checkpoint's FOLDER
    #[arg(value_name = "ID | NAME | FOLDER")]
    target: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Only this process
    #[arg(long)]
    pid: Option<i32>,
    /// Only the threads, with their registers
    #[arg(long)]
    threads: bool,
    /// Only the memory, mapping by mapping, with what was dumped of each
    #[arg(long)]
    memory: bool,
    /// Only the descriptors, and what a restore does with each
    #[arg(long)]
    descriptors: bool,
    /// Only the sockets, with their states and addresses
    #[arg(long)]
    sockets: bool,
    /// Print everything as JSON (docs/format.md)
    #[arg(long, conflicts_with_all = ["threads", "memory", "descriptors", "sockets"])]
    json: bool,
}

/// A process, and what there is to say of it besides.
struct Shown {
    process: Process,
    /// Where each thread stands.
    standing: Vec<Option<Location>>,
    /// What becomes of each descriptor.
    fates: Vec<Fate>,
}

pub fn run(args: &Args) -> Result<()> {
    let (unopened, options) = args.read.unopened(&args.target)?;
    let entry = unopened.open(&options.identities).inspect_err(|_| tell_what_is_plain(&unopened, args))?;
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let inside = Inside::of(&entry)?;
    let fates = inspect::fates(&entry, &inside, &options)?;
    let mut symbols = Symbols::of(manifest);
    let mut processes: Vec<Shown> = inside
        .processes
        .into_iter()
        .zip(fates)
        .map(|(process, fates)| Shown { standing: standing(&process, &mut symbols), process, fates })
        .collect();
    if let Some(pid) = args.pid {
        processes.retain(|shown| shown.process.pid == pid);
        if processes.is_empty() {
            bail!(
                "{} holds no process {pid}; `selfdump show` without --pid lists those that it has",
                entry.id()
            );
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&json::whole(&entry, manifest, &processes)?)?);
        return Ok(());
    }
    let chosen = [args.threads, args.memory, args.descriptors, args.sockets];
    match chosen.contains(&true) {
        true => println!("{}", manifest.id),
        false => {
            head::print(&entry, manifest);
            tables::processes(&processes);
        }
    }
    processes.iter().for_each(|shown| part_by_part(shown, chosen));
    Ok(())
}

/// Of a checkpoint that can't be opened: what its manifest says.
fn tell_what_is_plain(unopened: &Entry, args: &Args) {
    if let (Ok(manifest), false) = (&unopened.manifest, args.json) {
        head::print(unopened, manifest);
    }
}

/// The parts that were chosen, or of all of them what matters most.
fn part_by_part(shown: &Shown, chosen @ [threads, memory, descriptors, sockets]: [bool; 4]) {
    let all = !chosen.contains(&true);
    if all || threads {
        tables::threads(shown);
    }
    if threads {
        tables::registers(shown);
    }
    if all {
        tables::memory_by_kind(&shown.process);
    }
    if memory {
        tables::memory(&shown.process);
    }
    if all || descriptors {
        tables::descriptors(shown);
    }
    if all || sockets {
        tables::sockets(&shown.process);
    }
}

fn standing(process: &Process, symbols: &mut Symbols) -> Vec<Option<Location>> {
    let locate = |address| process.memory.as_ref().map(|memory| symbols.locate(memory, address));
    let addresses = process.threads.iter().map(|thread| thread.registers.instruction_pointer());
    addresses.map(locate).collect()
}
