//! `selfdump doctor`.

use std::path::PathBuf;

use anyhow::Result;
use selfdump::doctor::{self, Finding, Verdict};
use selfdump::{ask, restore, status};
use serde::Serialize;

use crate::{StoreArgs, output};

/// Look at everything that dumps and restores need, and say what to do where something is missing
///
/// A small process, this command itself, is dumped for a proof. With a program, what CRIU may refuse of that one is
/// looked at as well; it isn't touched.
///
/// Exit status: 0 where all is ok or there are only warnings, 1 where something failed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A process id, a program's NAME, or a FOLDER of its checkpoints
    #[arg(value_name = "PID | NAME | FOLDER")]
    target: Option<PathBuf>,
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
    verdict: Verdict,
    machine: Vec<Finding>,
    /// Null where none was asked for.
    program: Option<Vec<Finding>>,
}

pub fn run(args: &Args) -> Result<u8> {
    let program = match &args.target {
        Some(target) => Some(match status::process_id(target) {
            Some(pid) => pid,
            None => {
                let (store, _) = restore::from_environment(args.store.dir.as_deref())?;
                ask::whom(&store, target)?.pid()
            }
        }),
        None => None,
    };
    let program = program.map(doctor::program).transpose()?;
    let machine = doctor::machine(args.store.dir.as_deref())?;
    let verdict = doctor::worst(&machine).max(doctor::worst(program.as_deref().unwrap_or_default()));
    let report = Report { format_version: 1, verdict, machine, program };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(u8::from(verdict == Verdict::Failed))
}

fn print(report: &Report) {
    report.machine.iter().for_each(print_finding);
    if let Some(program) = &report.program {
        println!();
        program.iter().for_each(print_finding);
    }
    let all = || report.machine.iter().chain(report.program.iter().flatten());
    let count = |verdict| all().filter(|finding| finding.verdict == verdict).count();
    println!();
    match (count(Verdict::Failed), count(Verdict::Warning)) {
        (0, 0) => println!("all is well"),
        (0, 1) => println!("it works, with 1 warning"),
        (0, warnings) => println!("it works, with {warnings} warnings"),
        (failed, warnings) => println!("{failed} failed, {}", output::counted(warnings, "warning")),
    }
}

fn print_finding(finding: &Finding) {
    const INDENT: usize = 10;
    let mark = match finding.verdict {
        Verdict::Ok => output::Colour::Green.paint("ok      "),
        Verdict::Warning => output::Colour::Yellow.paint("warning "),
        Verdict::Failed => output::Colour::Red.paint("failed  "),
    };
    let text = format!("{}: {}", finding.check, finding.message);
    let mut lines = output::wrapped(&text, INDENT).into_iter();
    println!("{mark}  {}", lines.next().unwrap_or_default());
    lines.for_each(|line| println!("{:INDENT$}{line}", ""));
    if let Some(remedy) = &finding.remedy {
        // What is to be copied stays on one line.
        println!("{:INDENT$}help: {remedy}", "");
    }
}
