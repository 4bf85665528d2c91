//! What can be said on the command line, and what it means to the library.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use selfdump::supervise::{self, OnTerm, Order, Preload};

use crate::{Front, IdentityArgs, StoreArgs};

/// Run a program, and bring it back when it crashes
///
/// The program makes checkpoints as these options say, which it finds in its environment as SELFDUMP_* variables. It
/// links selfdump, or has it preloaded, as every program with shared libraries can. When it is killed by a signal it
/// comes back from its newest checkpoint. Otherwise this command ends as the program does: with its exit status, or by
/// the same signal. 75 is the exit status of a program that has left with a checkpoint, and 125 that of a failure of
/// this command itself. docs/run.md tells all of it.
#[derive(Debug, clap::Args)]
#[command(override_usage = "selfdump run [OPTIONS] -- COMMAND [ARGUMENT]...")]
pub struct Args {
    /// The program and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    store: StoreArgs,
    /// What the checkpoints are found under [default: the program's file name]
    #[arg(long, env = "SELFDUMP_NAME", value_name = "NAME")]
    name: Option<OsString>,
    /// The library that has a program make checkpoints which doesn't link selfdump; `off` for none [default:
    /// libselfdump.so beside this command, or in ../lib]
    #[arg(long, env = "SELFDUMP_PRELOAD", value_name = "LIBRARY")]
    preload: Option<PathBuf>,
    /// Encrypt the checkpoints to a recipient of age (age1…), or to those of a file, whose path has a slash in it. May be
    /// given more than once. Without the identity of one of them nobody can read them, ever
    #[arg(long, value_name = "RECIPIENT | FILE", value_parser = recipient)]
    encrypt_to: Vec<String>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten, next_help_heading = "When checkpoints are made")]
    schedule: Schedule,
    #[command(flatten, next_help_heading = "When the program ends")]
    ends: Ends,
    /// Print JSON lines (docs/format.md) on standard error instead of words; or append them to FILE, besides words
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub json: Option<Option<PathBuf>>,
    /// Whether a line on standard error shows how the program is doing: by itself only where that is a terminal and
    /// standard output is not
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub progress: Progress,
}

#[derive(Debug, clap::Args)]
struct Schedule {
    /// A checkpoint in each period: 30s, 10m, 1h 30m
    #[arg(long, value_name = "TIME", value_parser = time)]
    every: Option<String>,
    /// How much longer, at random, each period may be
    #[arg(long, value_name = "TIME", value_parser = time)]
    jitter: Option<String>,
    /// As often as keeps the program's pauses under this share of the time: 1%
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with_all = ["every", "mtbf"])]
    overhead: Option<String>,
    /// What loses least to failures that come once in this time
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "every")]
    mtbf: Option<String>,
    /// The least time between two checkpoints
    #[arg(long, value_name = "TIME", value_parser = time)]
    min_interval: Option<String>,
    /// When the first checkpoint comes
    #[arg(long, value_name = "TIME", value_parser = time)]
    first_after: Option<String>,
    /// How many checkpoints stay [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = count)]
    keep: Option<String>,
    /// How much each checkpoint may have of spare copies, of files that the program has open to write in them; `0` is
    /// none [default: 32 MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    copy_open: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Ends {
    /// Go on from what there is: a program of this name that has lost its runner, or the newest checkpoint of a run
    /// that was not done. Where there is neither, the command is started
    #[arg(long)]
    resume: bool,
    /// How often in a row the program is brought back; `unlimited` is without end. Ten minutes without a crash end a
    /// row [default: 10]
    #[arg(long, value_name = "COUNT", value_parser = restarts)]
    restarts: Option<Restarts>,
    /// An exit status other than 0 is a crash as well
    #[arg(long)]
    restart_on_failure: bool,
    /// How long to wait before the program is brought back; in a row each time twice as long, up to a minute
    /// [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    backoff: Option<Duration>,
    /// What a SIGTERM means: the program leaves with a checkpoint, or it gets the signal
    #[arg(long, value_enum, default_value = "checkpoint", value_name = "WHAT")]
    on_term: Term,
    /// How long the program may take to leave with a checkpoint; then it is killed [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    grace: Option<Duration>,
    /// What becomes of files that have changed since the checkpoint: POLICY:PATTERN, as for `selfdump restore`
    #[arg(long, value_name = "RULE", num_args = 1.., value_parser = rule)]
    files: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Restarts(Option<u32>);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Term {
    Checkpoint,
    Pass,
}

/// When the line is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    Auto,
    Always,
    Never,
}

impl Args {
    /// A first word that looks like an option of ours, and is none: misspelt, most likely. A front-end may have an
    /// option of its own there, which names a module.
    pub fn unknown_option(&self, front: &Front) -> Option<&OsStr> {
        let first = self.command.first()?;
        let is_module = front.scripts.as_ref().is_some_and(|scripts| first == scripts.module);
        (!is_module && first.as_encoded_bytes().starts_with(b"-")).then_some(first)
    }

    /// What the library is to do.
    pub fn order(&self, front: &Front) -> Result<Order> {
        let started = front.start(&self.command);
        let mut order = Order::new(started.named, self.variables())?;
        order.command = started.command;
        order.policy.on_failure = self.ends.restart_on_failure;
        if let Some(Restarts(restarts)) = self.ends.restarts {
            order.policy.restarts = restarts;
        }
        order.backoff = self.ends.backoff.unwrap_or(order.backoff);
        order.grace = self.ends.grace.unwrap_or(order.grace);
        order.resume = self.ends.resume;
        order.identities = self.identity.read()?;
        order.preload = match &self.preload {
            None => Preload::Beside,
            Some(off) if off.as_os_str() == "off" => Preload::Off,
            Some(library) => Preload::Library(library.clone()),
        };
        order.on_term = match self.ends.on_term {
            Term::Checkpoint => OnTerm::Checkpoint,
            Term::Pass => OnTerm::Pass,
        };
        Ok(order)
    }

    /// The options that are settings of the library, as its variables.
    fn variables(&self) -> BTreeMap<String, OsString> {
        let schedule = &self.schedule;
        let joined = |words: &[String]| Some(words.join(" ")).filter(|words| !words.is_empty());
        let (files, encrypt_to) = (joined(&self.ends.files), joined(&self.encrypt_to));
        let texts = [
            ("SELFDUMP_EVERY", &schedule.every),
            ("SELFDUMP_JITTER", &schedule.jitter),
            ("SELFDUMP_OVERHEAD", &schedule.overhead),
            ("SELFDUMP_MTBF", &schedule.mtbf),
            ("SELFDUMP_MIN_INTERVAL", &schedule.min_interval),
            ("SELFDUMP_FIRST_AFTER", &schedule.first_after),
            ("SELFDUMP_KEEP", &schedule.keep),
            ("SELFDUMP_COPY_OPEN", &schedule.copy_open),
            ("SELFDUMP_FILES", &files),
            ("SELFDUMP_ENCRYPT_TO", &encrypt_to),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some((name, value.clone()?.into())));
        let paths = [
            ("SELFDUMP_DIR", self.store.dir.clone().map(OsString::from)),
            ("SELFDUMP_NAME", self.name.clone()),
        ];
        let paths = paths.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut variables: BTreeMap<String, OsString> =
            texts.chain(paths).map(|(name, value)| (name.to_owned(), value)).collect();
        // A schedule that is said here is the only one, whatever the environment says.
        if schedule.every.is_some() || schedule.overhead.is_some() || schedule.mtbf.is_some() {
            for name in ["SELFDUMP_EVERY", "SELFDUMP_OVERHEAD", "SELFDUMP_MTBF", "SELFDUMP_JITTER"] {
                variables.entry(name.to_owned()).or_default();
            }
        }
        variables
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let parsed = seconds.or_else(|| humantime::parse_duration(text).ok());
    parsed.ok_or_else(|| "it is written as 30s, 10m or 1h 30m; a bare number is seconds".to_owned())
}

/// A text that is a time, for the program to read.
fn time(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

fn share(text: &str) -> Result<String, String> {
    let number = text.strip_suffix('%').map_or(text, str::trim);
    let is_number = number.parse::<f64>().is_ok_and(f64::is_finite);
    is_number
        .then(|| text.to_owned())
        .ok_or_else(|| "it is a share between 0 and 1, as 0.01 or 1%".to_owned())
}

fn count(text: &str) -> Result<String, String> {
    let is_count = text.parse::<u32>().is_ok_and(|count| count > 0);
    is_count.then(|| text.to_owned()).ok_or_else(|| "it is a whole number from 1 up".to_owned())
}

fn size(text: &str) -> Result<String, String> {
    let size: Result<selfdump::Bytes, selfdump::Error> = text.parse();
    size.map(|_| text.to_owned()).map_err(|error| format!("it is {}", error.hint().unwrap_or_default()))
}

fn restarts(text: &str) -> Result<Restarts, String> {
    match text {
        "unlimited" => Ok(Restarts(None)),
        text => text.parse().map(|count| Restarts(Some(count))).map_err(|_| {
            format!("it is a whole number, such as {}, or `unlimited`", supervise::DEFAULT_RESTARTS)
        }),
    }
}

/// What is in a file is read when all is looked at together.
fn recipient(text: &str) -> Result<String, String> {
    if text.contains(char::is_whitespace) {
        return Err("it can't hold blanks".to_owned());
    }
    let recipient: Result<selfdump::Recipient, selfdump::Error> = match text.contains('/') {
        true => return Ok(text.to_owned()),
        false => text.parse(),
    };
    recipient.map(|_| text.to_owned()).map_err(|error| error.hint().unwrap_or_default().to_owned())
}

fn rule(text: &str) -> Result<String, String> {
    let rule: Result<selfdump::FileRule, selfdump::Error> = text.parse();
    match rule {
        Ok(_) if text.contains(char::is_whitespace) => {
            Err("a pattern can't hold blanks here: put a `?` in the place of each".to_owned())
        }
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.hint().unwrap_or_default().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    #[test]
    fn every_option_stands_in_the_page_about_it() {
        let page = include_str!("../../../docs/run.md");
        let command = super::Args::augment_args(clap::Command::new("run"));
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("| `--{option}")), "--{option} is missing");
        }
    }
}
