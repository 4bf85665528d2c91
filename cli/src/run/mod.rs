//! `selfdump run`.

mod options;
mod said;

use std::ffi::OsStr;

use anyhow::Result;
use clap::Args as _;
use selfdump::restore::{self, Ended};
use selfdump::supervise::{self, Conclusion, End};
use selfdump::{Error, ErrorKind};

pub use options::Args;
use said::Said;

use crate::{Front, output, restore::FAILURE};

/// As clap has it.
const USAGE: u8 = 2;
/// As env(1), nohup(1) and timeout(1) have them.
const NO_SUCH_PROGRAM: u8 = 127;
const NO_PROGRAM: u8 = 126;

pub fn run(args: &Args, front: &Front) -> Result<u8> {
    // Whoever reads what we say may go away; the program is not to lose its runner by that.
    output::outlive_readers();
    if let Some(option) = args.unknown_option(front) {
        return Ok(misspelt(option));
    }
    let order = args.order(front)?;
    let mut said = Said::new(order.name(), args.json.as_ref(), args.progress)?;
    let concluded = supervise::run(&order, &mut |event| said.tell(event));
    said.clear();
    Ok(match concluded? {
        Conclusion::Left(_) => order.left(),
        Conclusion::NotStarted(error) => not_started(error),
        Conclusion::Ended(end) | Conclusion::GaveUp(_, end) => alike(end),
        _ => FAILURE,
    })
}

/// Says so as clap says it of other options.
fn misspelt(option: &OsStr) -> u8 {
    let option = option.to_string_lossy();
    let problem = format!("{option} is no option of `selfdump run`; a program of that name is ./{option}");
    let error = Args::augment_args(clap::Command::new("selfdump run"))
        .error(clap::error::ErrorKind::UnknownArgument, problem);
    // Nobody may be listening.
    let _ = error.print();
    USAGE
}

/// Ends us as the program has ended, where that is known.
fn alike(end: End) -> u8 {
    match end {
        End::Exited(status) => restore::end_alike(Ended::Exited(status)),
        End::Signaled(signal) => restore::end_alike(Ended::Signaled(signal)),
        _ => FAILURE,
    }
}

fn not_started(error: Error) -> u8 {
    let is_missing = error.kind() == ErrorKind::NotFound;
    output::report(&error.into());
    if is_missing { NO_SUCH_PROGRAM } else { NO_PROGRAM }
}
