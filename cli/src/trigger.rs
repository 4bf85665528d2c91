//! `selfdump trigger`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use selfdump::status::{Attempt, Status};
use selfdump::{ask, restore};
use serde::Serialize;

use crate::{StoreArgs, output};

/// The attempt failed.
const NOT_SAVED: u8 = 1;
/// Nobody was asked.
const NOT_ASKED: u8 = 3;
/// The program was asked, and it isn't known what came of it.
const NO_ANSWER: u8 = 4;

/// Ask a running program for a checkpoint
///
/// The program is sent the signal that it takes for this, if it really has selfdump's handler for it: `kill -USR2`
/// would end one that hasn't.
///
/// Exit status: 0 when the checkpoint is saved (without --wait: when the program was asked), 1 when the attempt
/// failed, 2 for wrong usage, 3 when nobody was asked, since no such program runs or it has no handler, 4 when no answer
/// came in time or the program ended first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A process id, a program's NAME, or a FOLDER of its checkpoints
    #[arg(value_name = "PID | NAME | FOLDER")]
    target: PathBuf,
    /// Wait until the checkpoint is saved or has failed
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "15m", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON (docs/format.md)
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    format_version: u32,
    name: &'a str,
    pid: i32,
    signal: String,
    /// What came of it; null where nobody waited.
    attempt: Option<&'a Attempt>,
}

pub fn run(args: &Args) -> Result<u8> {
    let asked = restore::from_environment(args.store.dir.as_deref())
        .and_then(|(store, _)| ask::whom(&store, &args.target))
        .and_then(|status| Ok((ask::ask(&status)?, status)));
    let (asked, status) = match asked {
        Ok(asked) => asked,
        Err(error) => return Ok(refused(error, NOT_ASKED)),
    };
    let attempt = match args.wait.then(|| asked.wait(args.timeout)).transpose() {
        Ok(attempt) => attempt,
        Err(error) => return Ok(refused(error, NO_ANSWER)),
    };
    if args.json {
        let signal = asked.signal().to_string();
        let answer = Answer {
            format_version: 1,
            name: &status.name,
            pid: status.pid(),
            signal,
            attempt: attempt.as_ref(),
        };
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        print(&status, &asked, attempt.as_ref());
    }
    Ok(attempt.filter(|attempt| !attempt.saved).map_or(0, |_| NOT_SAVED))
}

fn refused(error: selfdump::Error, status: u8) -> u8 {
    output::report(&error.into());
    status
}

fn print(status: &Status, asked: &ask::Asked, attempt: Option<&Attempt>) {
    let who = format!("process {} ({})", status.pid(), status.name);
    match attempt {
        None => println!("asked {who} for a checkpoint by {}", asked.signal()),
        Some(Attempt { error: Some(failure), .. }) => {
            eprintln!("selfdump: {who} made no checkpoint: {}", failure.message);
            output::failure(failure).for_each(|line| eprintln!("  {line}"));
        }
        Some(attempt) => println!("{}", output::saved(attempt)),
    }
}
