//! `selfdump export`.

use std::path::PathBuf;

use anyhow::Result;
use selfdump::frozen::Needs;
use selfdump::{Bytes, inspect};
use serde::Serialize;

use crate::{ReadArgs, output};

/// Write the images of a checkpoint to a folder, as `criu` alone takes them
///
/// They are whole, whatever the checkpoint builds on, and not encrypted. Only this user can read them. Every page is compared
/// with its checksum first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id from the list, a program's NAME (its newest checkpoint), or a checkpoint's FOLDER
    #[arg(value_name = "ID | NAME | FOLDER")]
    target: PathBuf,
    /// Where to: it is made, or is there and empty
    #[arg(value_name = "FOLDER")]
    to: PathBuf,
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
    id: String,
    path: PathBuf,
    size_bytes: Bytes,
    criu_options: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let (entry, _) = args.read.newest(&args.target)?;
    let bar = output::progress_bar();
    let size = inspect::export(&entry, &args.to, &mut |done, total| output::progress(&bar, done, total));
    bar.finish_and_clear();
    let size_bytes = size?;
    let needs = &entry.manifest.as_ref().map_err(Clone::clone)?.criu.needs;
    let report = Report {
        format_version: 1,
        id: entry.id(),
        path: args.to.clone(),
        size_bytes,
        criu_options: options(needs),
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print(&report, needs),
    }
    Ok(())
}

/// What `criu restore` has to be told of the program's state, as CRIU was at the dump.
fn options(needs: &Needs) -> Vec<String> {
    let all = [
        (needs.shell_job, "--shell-job"),
        (needs.file_locks, "--file-locks"),
        (needs.ext_unix_sk, "--ext-unix-sk"),
        (needs.tcp_established, "--tcp-close"),
    ];
    all.into_iter().filter(|(is_needed, _)| *is_needed).map(|(_, option)| option.to_owned()).collect()
}

fn print(report: &Report, needs: &Needs) {
    println!("{}: the images of {}, {}", report.path.display(), report.id, report.size_bytes);
    let options: String = report.criu_options.iter().map(|option| format!(" {option}")).collect();
    println!("bring it back by: criu restore -D {}{options}", report.path.display());
    for outside in &needs.outside {
        println!("with something in the place of {}: --inherit-fd 'fd[N]:{0}'", outside.key);
    }
}
