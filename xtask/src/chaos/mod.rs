//! `cargo xtask chaos`: real programs under random blows, and not a step lost or doubled.
//!
//! - `subject`: the programs, each under `selfdump run`, and what is whole for each.
//! - `blows`: what is done to them, and what has to follow.
//! - `lab`: what a subject has for itself, so that nothing else is struck.
//! - `reading`: what is read of files that grow.
//! - `record`: a line for each round.
//!
//! What happens in a round follows from the seed and the round's number alone, so that any can be repeated. The subjects
//! are struck side by side, each in its own rounds.

mod blows;
mod lab;
mod reading;
mod record;
mod subject;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use crate::{cargo, setup, test};
use blows::Blow;
use record::{Record, Round};
use subject::{KINDS, Kind, Subject, Tools};

#[derive(clap::Args)]
pub struct Options {
    /// How many rounds
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// How long instead: 30s, 10m
    #[arg(long, value_parser = humantime::parse_duration, conflicts_with = "rounds")]
    time: Option<Duration>,
    /// The seed that everything follows from [default: a random one, or with --resume the last]
    #[arg(long)]
    seed: Option<u64>,
    /// The round to begin with
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Go on with the rounds that the seed's log doesn't have yet
    #[arg(long)]
    resume: bool,
}

/// The short form, for `cargo xtask ci`.
pub fn briefly() -> Result<()> {
    run(&Options { rounds: 24, time: None, seed: None, from: 1, resume: false })
}

/// Slack for a machine that is busy with other things; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(90);

/// Somebody wants all of this to end, or a subject has failed: every wait ends, and everything is cleaned up on the way
/// out.
static OVER: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

pub fn run(options: &Options) -> Result<()> {
    let logs = cargo::target()?.join("chaos");
    let seed = options.seed.or_else(|| record::last_seed(&logs).filter(|_| options.resume));
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("chaos: seed {seed}; the same once more: cargo xtask chaos --seed {seed}");
    let home = tempfile::Builder::new().prefix("selfdump-chaos-").tempdir().context("can't make a folder")?;
    let tools = tools(home.path())?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&OVER))?;
    }
    let record = Mutex::new(Record::open(&logs, seed, options.resume)?);
    let began = Instant::now();
    let run = Run { options, seed, tools: &tools, home: home.path(), logs: &logs, record: &record, began };
    let failures = run.all();
    let record = record.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("\n{}", record.summary());
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure);
    }
    if OVER.load(Ordering::Relaxed) {
        println!("chaos: interrupted; it goes on with: cargo xtask chaos --seed {seed} --resume");
        return Ok(());
    }
    let seconds = began.elapsed().as_secs();
    println!("chaos: {} rounds without a lost or doubled step; seed {seed}; {seconds} s", record.rounds());
    Ok(())
}

/// What `cargo xtask test` builds as well, and a clock that can jump.
fn tools(home: &Path) -> Result<Tools> {
    setup::packages()?;
    let criu = setup::current_criu()?;
    for build in test::PROGRAMS {
        cargo::run(&mut cargo::cargo(build)?)?;
    }
    Ok(Tools { built: copy_of_what_was_built(home)?, criu, clock: lab::build_clock(home)? })
}

/// What is built meanwhile is not to get in between: a program comes back only to the very file that it was started from.
fn copy_of_what_was_built(home: &Path) -> Result<PathBuf> {
    let (from, to) = (cargo::target()?.join("debug"), home.join("built"));
    std::fs::create_dir_all(to.join("examples"))?;
    for program in ["selfdump", "libselfdump.so", "examples/chain", "examples/server"] {
        std::fs::copy(from.join(program), to.join(program))
            .with_context(|| format!("can't copy {program}"))?;
    }
    Ok(to)
}

struct Run<'a> {
    options: &'a Options,
    seed: u64,
    tools: &'a Tools,
    home: &'a Path,
    logs: &'a Path,
    record: &'a Mutex<Record>,
    began: Instant,
}

impl Run<'_> {
    /// Strikes every subject in its rounds; what has failed.
    fn all(&self) -> Vec<anyhow::Error> {
        std::thread::scope(|scope| {
            let threads = KINDS.map(|kind| scope.spawn(move || self.rounds_of(kind)));
            let outcomes = threads.into_iter().map(|thread| thread.join().expect("it panics nowhere"));
            outcomes.filter_map(Result::err).filter(|error| !error.is::<Over>()).collect()
        })
    }

    fn rounds_of(&self, kind: Kind) -> Result<()> {
        let started = Subject::start(kind, self.tools, self.home);
        let mut subject = started.inspect_err(|_| OVER.store(true, Ordering::Relaxed))?;
        for number in self.options.from.. {
            if self.is_done(number) {
                break;
            }
            let (its_kind, mut random) = fate(self.seed, number);
            if its_kind != kind || self.record.lock().unwrap_or_else(PoisonError::into_inner).has(number) {
                continue;
            }
            let blow = Blow::choose(kind, &mut random);
            let round = round(&mut subject, number, blow, &mut random);
            let round = round.map_err(|error| self.failed(&subject, number, blow, error))?;
            self.record.lock().unwrap_or_else(PoisonError::into_inner).note(&round)?;
        }
        Ok(())
    }

    fn is_done(&self, number: u64) -> bool {
        match self.options.time {
            Some(time) => self.began.elapsed() > time,
            None => number >= self.options.from + self.options.rounds,
        }
    }

    /// Keeps what there is to be looked at, and says how to come there again.
    fn failed(&self, subject: &Subject, number: u64, blow: Blow, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Over>() {
            return error;
        }
        OVER.store(true, Ordering::Relaxed);
        let (name, seed) = (subject.kind.name(), self.seed);
        let kept = self.logs.join(format!("{seed}-{number}"));
        let kept = match lab::keep(&subject.folder, &kept) {
            Ok(()) => format!("its folder is kept at {}", kept.display()),
            Err(error) => format!("its folder can't be kept: {error:#}"),
        };
        error.context(format!(
            "round {number}, {} of {name}; {kept}; again from there: cargo xtask chaos --seed {seed} --from {number}",
            blow.name()
        ))
    }
}

/// Which subject is struck in a round, and the chance that decides all else in it.
fn fate(seed: u64, round: u64) -> (Kind, Rng) {
    let mut random = Rng::with_seed(seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (KINDS[random.usize(..KINDS.len())], random)
}

fn round(subject: &mut Subject, number: u64, blow: Blow, random: &mut Rng) -> Result<Round> {
    let began = Instant::now();
    let before = subject.moment()?;
    let safe = subject.checkpoint()?;
    subject.mark();
    let last = subject.moment()?;
    let then = blow.strike(subject, random)?;
    let struck = subject.moment()?;
    let from = then.follows(subject, safe)?;
    // What is seen of it may still be from before.
    let seen = subject.moment()?;
    let all = [&last, &struck, &seen];
    subject.wait("it goes on beyond where it was", |subject| {
        Ok(all.iter().all(|then| subject.is_beyond(then)).then_some(()))
    })?;
    let next = subject.checkpoint()?;
    ensure!(next > safe, "checkpoint {next} came after {safe}");
    let from = then.follows(subject, safe)?.or(from);
    subject.is_whole(&before, &last)?;
    wait("nothing is left of drafts", || Ok(subject.drafts().is_empty().then_some(())))?;
    wait("nothing is left of CRIU", || Ok(subject.workers().is_empty().then_some(())))?;
    Ok(Round { number, kind: subject.kind, blow, from, next, took: began.elapsed() })
}

/// Waits for something to be there.
fn wait<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let since = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        bide(what, since, Duration::ZERO)?;
    }
}

/// A moment between two looks, as long as there is patience; `more` than usual where that is known to take its time.
fn bide(what: &str, since: Instant, more: Duration) -> Result<()> {
    if OVER.load(Ordering::Relaxed) {
        return Err(Over.into());
    }
    ensure!(since.elapsed() < PATIENCE + more, "never came: {what}");
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Up to so many milliseconds.
fn nap(random: &mut Rng, most: u64) {
    std::thread::sleep(Duration::from_millis(random.u64(..most)));
}

/// What has to be there.
fn required<T>(found: Option<T>, what: &str) -> Result<T> {
    found.with_context(|| format!("there is no {what}"))
}

/// A wait that has ended because all is over.
#[derive(Debug)]
struct Over;

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Over {}
