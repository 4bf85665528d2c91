//! `selfdump verify`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use selfdump::inspect::{self, Check, CheckResult, Verification};
use selfdump::restore;
use serde::Serialize;

use crate::{ReadArgs, output};

/// Check checkpoints: every byte, what the images say, and whether a restore can be expected here
///
/// Checked are the checksum of every file, that each image can be read and refers to nothing that isn't there, that
/// the memory is all there, that the files which the program had open are as they have to be, that its build, the
/// processor and the free memory fit, and that nobody else can have written it. The exit status is 0 only if all of it
/// is so of every checkpoint that is named.
/// Of one that is encrypted only the checksums can be checked without --identity.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program's NAME, an id from the list, or a FOLDER: a store, an instance or one checkpoint [default: all]
    #[arg(value_name = "ID | NAME | FOLDER")]
    target: Option<PathBuf>,
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
    checkpoints: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    path: PathBuf,
    good: bool,
    #[serde(flatten)]
    verification: Verification,
}

pub fn run(args: &Args) -> Result<u8> {
    let (store, options) = args.read.options()?;
    let entries = restore::find(&store, args.target.as_deref())?;
    if entries.is_empty() {
        bail!("{} holds no checkpoint", args.target.as_ref().unwrap_or(&store).display());
    }
    let rows: Vec<Row> = entries
        .iter()
        .map(|entry| {
            let verification = inspect::verify(entry, &options);
            Row { id: entry.id(), path: entry.path.clone(), good: verification.is_good(), verification }
        })
        .collect();
    let good = rows.iter().all(|row| row.good);
    match args.json {
        true => {
            println!("{}", serde_json::to_string_pretty(&Report { format_version: 1, checkpoints: rows })?)
        }
        false => rows.iter().for_each(print),
    }
    Ok(u8::from(!good))
}

fn print(row: &Row) {
    let verdict = match row.good {
        true => "good",
        false if row.verification.is_good_as_far_as_seen() => {
            "good as far as can be told without an identity"
        }
        false => "NOT good",
    };
    println!("{}: {verdict}", row.id);
    let mut table = output::Table::new(["  CHECK", "RESULT", "WHAT"], &[]);
    for checked in &row.verification.results {
        let (result, what) = match &checked.result {
            CheckResult::Good { seen } => ("good", seen.clone()),
            CheckResult::Failed { problem, hint: None } => ("FAILED", problem.clone()),
            CheckResult::Failed { problem, hint: Some(hint) } => {
                ("FAILED", format!("{problem}\nhelp: {hint}"))
            }
            CheckResult::Encrypted { .. } => {
                ("encrypted", "it takes an identity: --identity FILE".to_owned())
            }
            _ => ("not made", "another check has to go well first".to_owned()),
        };
        table.add_row([&format!("  {}", name(checked.check)), result, &what]);
    }
    table.print();
}

fn name(check: Check) -> &'static str {
    match check {
        Check::Manifest => "manifest",
        Check::Files => "checksums",
        Check::Images => "images",
        Check::References => "references",
        Check::Pages => "pages",
        Check::OpenFiles => "open files",
        Check::Fit => "fits here",
        Check::Trust => "only ours",
        _ => "other",
    }
}
