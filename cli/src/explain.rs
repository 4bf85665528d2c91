//! `selfdump explain`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use selfdump::criu::{self, Explanation, Line};
use selfdump::{restore, status};
use serde::Serialize;

use crate::{StoreArgs, output};

/// How many lines of errors are shown where none is known.
const LAST: usize = 8;

/// What to do about what nobody has met yet.
const UNKNOWN: &str = "look for the first of these lines in https://github.com/checkpoint-restore/criu/issues; if it isn't there, report it there with the whole log and what `criu --version` and `uname -r` say";

/// What to do about a log that just ends.
const UNFINISHED: &str = "CRIU is still at work, or was killed: look for the out-of-memory killer in the kernel's log (`dmesg`). With log level 2 or less (`-v2`) it doesn't say that it went well";

/// Tell what a log of CRIU's means: the line with the cause, the cause, and what to do
///
/// The log is a dump.log or a restore.log, of selfdump or of any other program that calls CRIU. All that is known is
/// listed in docs/errors.md.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A log, `-` for standard input; or a program's NAME, an id from the list, or a FOLDER: the log of the last
    /// checkpoint that failed there
    #[arg(value_name = "LOGFILE | NAME | FOLDER")]
    target: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON (docs/format.md)
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    format_version: u32,
    log: &'a Path,
    criu_version: Option<&'a str>,
    succeeded: bool,
    explanation: Option<Known>,
    cause_line: Option<LogLine<'a>>,
    context: Vec<LogLine<'a>>,
    errors: Vec<LogLine<'a>>,
}

/// What the dictionary knows.
#[derive(Serialize)]
struct Known {
    id: &'static str,
    kind: &'static str,
    cause: &'static str,
    remedy: &'static str,
}

#[derive(Serialize)]
struct LogLine<'a> {
    number: usize,
    text: &'a str,
}

impl<'a> From<&'a Line> for LogLine<'a> {
    fn from(line: &'a Line) -> LogLine<'a> {
        LogLine { number: line.number, text: &line.text }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let (log, text) = read(args)?;
    let explanation = criu::explain(&text);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report(&log, &explanation))?);
    } else {
        print(&log, &explanation);
    }
    Ok(())
}

/// The log's path and text. CRIU writes what programs are called into it, which may be in any encoding.
fn read(args: &Args) -> Result<(PathBuf, String)> {
    let mut bytes = Vec::new();
    let log = match &args.target {
        target if target == Path::new("-") => {
            io::stdin().read_to_end(&mut bytes).context("can't read standard input")?;
            target.clone()
        }
        target => {
            let is_log = target.is_file() || target.extension().is_some_and(|extension| extension == "log");
            let log = if is_log { target.clone() } else { failed_log(args)? };
            bytes = fs::read(&log).with_context(|| format!("can't read {}", log.display()))?;
            log
        }
    };
    Ok((log, String::from_utf8_lossy(&bytes).into_owned()))
}

fn failed_log(args: &Args) -> Result<PathBuf> {
    let (store, _) = restore::from_environment(args.store.dir.as_deref())?;
    Ok(status::failed_log(&store, &args.target)?)
}

fn report<'a>(log: &'a Path, explanation: &'a Explanation) -> Report<'a> {
    let lines = |lines: &'a [Line]| lines.iter().map(LogLine::from).collect();
    Report {
        format_version: 1,
        log,
        criu_version: explanation.criu_version.as_deref(),
        succeeded: explanation.succeeded,
        explanation: explanation.rule.map(|rule| Known {
            id: rule.id,
            kind: rule.kind.name(),
            cause: rule.cause,
            remedy: rule.remedy,
        }),
        cause_line: explanation.cause.as_ref().map(LogLine::from),
        context: lines(&explanation.context),
        errors: lines(&explanation.errors),
    }
}

fn print(log: &Path, explanation: &Explanation) {
    println!("{}", headline(log, explanation));
    match (&explanation.cause, explanation.rule) {
        (Some(cause), Some(rule)) => {
            print_lines(&explanation.context, Some(cause));
            print_pairs(&[("cause", rule.cause), ("help", rule.remedy)]);
        }
        _ if explanation.succeeded => {}
        _ if explanation.errors.is_empty() => print_pairs(&[("help", UNFINISHED)]),
        _ => {
            let errors = &explanation.errors;
            print_lines(&errors[errors.len().saturating_sub(LAST)..], None);
            print_pairs(&[("help", UNKNOWN)]);
        }
    }
}

fn headline(log: &Path, explanation: &Explanation) -> String {
    let log = if log == Path::new("-") { "standard input".into() } else { log.display().to_string() };
    let by =
        explanation.criu_version.as_ref().map(|version| format!(", of CRIU {version}")).unwrap_or_default();
    let what = match (&explanation.cause, explanation.rule) {
        (Some(cause), Some(rule)) => format!("line {} tells the cause ({})", cause.number, rule.id),
        _ if explanation.succeeded => "it went well".to_owned(),
        _ if explanation.errors.is_empty() => "it tells of no error, and of no end".to_owned(),
        _ => "it failed, and no line of it is known; its last errors".to_owned(),
    };
    format!("{log}{by}: {what}")
}

/// Lines of the log with their numbers, that of the cause with a mark.
fn print_lines(lines: &[Line], cause: Option<&Line>) {
    let mut table = output::Table::pairs();
    for line in lines {
        let mark = if cause.is_some_and(|cause| cause.number == line.number) { ">" } else { " " };
        table.add_row([format!("{mark} {}", line.number), line.text.clone()]);
    }
    println!();
    table.print();
    println!();
}

fn print_pairs(pairs: &[(&str, &str)]) {
    let mut table = output::Table::pairs();
    for (name, text) in pairs {
        table.add_row([*name, *text]);
    }
    table.print();
}
