//! `selfdump core`.

use std::path::PathBuf;

use anyhow::Result;
use selfdump::inspect::{self, Core, CoreOptions};
use selfdump::{Bytes, Manifest};
use serde::Serialize;

use crate::{ReadArgs, output};

/// Write a core of a process in a checkpoint, for gdb
///
/// It has all threads as they stood, and the memory that is in the checkpoint; the process itself isn't needed. Programs
/// and libraries are left to the debugger, which finds them by their paths. Only this user can read the file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id from the list, a program's NAME (its newest checkpoint), or a checkpoint's FOLDER
    #[arg(value_name = "ID | NAME | FOLDER")]
    target: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Where to write it [default: core.PID in this folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which process of the checkpoint [default: the one that the others come from]
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
    /// Include what is in mapped files (programs, libraries), where these are still what they were
    #[arg(long)]
    full: bool,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// Print JSON (docs/format.md)
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    format_version: u32,
    id: String,
    #[serde(flatten)]
    core: Core,
}

pub fn run(args: &Args) -> Result<()> {
    let (entry, _) = args.read.newest(&args.target)?;
    let mut options = CoreOptions::default();
    (options.pid, options.full, options.replace) = (args.pid, args.full, args.force);
    let pid = args.pid.or_else(|| entry.manifest.as_ref().ok().map(Manifest::pid)).unwrap_or_default();
    let to = args.output.clone().unwrap_or_else(|| format!("core.{pid}").into());
    let bar = output::progress_bar();
    let core =
        inspect::write_core(&entry, &to, &options, &mut |done, total| output::progress(&bar, done, total));
    bar.finish_and_clear();
    let core = core?;
    match args.json {
        true => {
            let report = Report { format_version: 1, id: entry.id(), core };
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
        false => print(&entry.id(), &core),
    }
    Ok(())
}

fn print(id: &str, core: &Core) {
    let threads = if core.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", core.threads) };
    println!(
        "{}: process {} of {id}, {threads}, {} written ({} with holes)",
        core.path.display(),
        core.pid,
        core.written_bytes,
        core.size_bytes
    );
    if let Some(signal) = core.signal {
        println!("thread {} was about to die of signal {signal}", core.first_thread);
    }
    if core.missing_bytes > Bytes(0) {
        println!("{} of memory is in none of the images that are here", core.missing_bytes);
    }
    for path in &core.changed_files {
        println!("{} isn't what it was: a debugger shows what is in it now", path.display());
    }
    if let Some(program) = &core.executable {
        println!("look at it by: gdb {} {}", program.display(), core.path.display());
    }
}
