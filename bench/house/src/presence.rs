//! That it is there: a small program with selfdump linked and the same without, both as `cargo build --release` makes them.
//!
//! How large they are when stripped; what they have resident at rest, of their own (`Anonymous` of smaps_rollup) and with
//! what lies in the page cache and goes when somebody needs the room (`Rss`); their threads; how often they are woken;
//! and how long they take from their start to their end when there is nothing to do.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::comparison::noise::{self, contention, waited_for_processor};
use crate::comparison::plan::Plan;
use crate::comparison::statistics::ms;
use crate::comparison::{Failure, command, scene};
use crate::results::{Results, Series, Spread, Verdict, case};

const PRESENT: &str = "with selfdump";
const ABSENT: &str = "without";
const ADDED: &str = "**added**";

/// How long it is left alone before it is looked at.
const REST: Duration = Duration::from_millis(300);

/// What may be added: KiB of the stripped program, KiB of its own memory, milliseconds of its start, threads, wake-ups.
const LIMITS: [f64; 5] = [600.0, 200.0, 1.0, 1.0, 0.0];

/// What a program shows at rest.
struct Seen {
    anonymous: f64,
    resident: f64,
    threads: f64,
    woken: f64,
}

struct Round {
    present: Seen,
    absent: Seen,
}

struct Starts {
    present: Duration,
    absent: Duration,
    contention: f64,
}

impl noise::Pair for Starts {
    fn contention(&self) -> f64 {
        self.contention
    }
}

pub fn compare(plan: &Plan, starts: usize, idle: Duration) -> Result<Results, Failure> {
    fs::create_dir_all(&plan.dir)?;
    let folder = tempfile::tempdir_in(&plan.dir)?;
    let programs = [stripped("present", folder.path())?, stripped("absent", folder.path())?];
    let sizes =
        programs.each_ref().map(|program| fs::metadata(program).map(|about| about.len() as f64 / 1024.0));
    let [present_size, absent_size] = sizes;
    let (present_size, absent_size) = (present_size?, absent_size?);
    let [present, absent] = &programs;
    let rounds = (0..plan.pairs.max(3)).map(|number| {
        // The wake-ups are counted once, since that takes its time.
        let idle = if number == 0 { idle } else { Duration::ZERO };
        Ok(Round { present: at_rest(present, idle)?, absent: at_rest(absent, idle)? })
    });
    let rounds = rounds.collect::<Result<Vec<Round>, Failure>>()?;
    let starts = noise::calm(
        &Plan { pairs: starts, sizes: vec![], dir: plan.dir.clone(), ..*plan },
        |_: &[Starts]| true,
        |number| start(present, absent, number),
    )?;

    let of = |value: fn(&Seen) -> f64, first: bool| -> [Vec<f64>; 3] {
        let rounds = if first { &rounds[..1] } else { &rounds[..] };
        let present = rounds.iter().map(|round| value(&round.present));
        let absent = rounds.iter().map(|round| value(&round.absent));
        let added = rounds.iter().map(|round| value(&round.present) - value(&round.absent));
        [present.collect(), absent.collect(), added.collect()]
    };
    let measures = [
        [vec![present_size], vec![absent_size], vec![present_size - absent_size]],
        of(|seen| seen.anonymous, false),
        [
            starts.iter().map(|pair| ms(pair.present)).collect(),
            starts.iter().map(|pair| ms(pair.absent)).collect(),
            starts.iter().map(|pair| ms(pair.present) - ms(pair.absent)).collect(),
        ],
        of(|seen| seen.threads, false),
        of(|seen| seen.woken, true),
        of(|seen| seen.resident, false),
    ];
    let columns =
        ["stripped, KiB", "own memory, KiB", "start to end, ms", "threads", "wake-ups", "resident, KiB"];
    let row =
        |name, which: usize| Series { name, columns: measures.iter().map(|of| of[which].clone()).collect() };
    let rows = [row(PRESENT, 0), row(ABSENT, 1), row(ADDED, 2)];
    let terms = format!("start to end: {}; wake-ups in {} s", noise::told(&starts), idle.as_secs());
    let case = case("A small program".to_owned(), terms, &columns, &rows, "");
    let verdicts =
        columns.iter().zip(LIMITS).zip(&measures).map(|((column, limit), [_, _, added])| Verdict {
            what: format!("added by selfdump: {column}"),
            found: Spread::of(added.iter().copied()),
            limit,
        });
    Ok(Results { verdicts: verdicts.collect(), cases: vec![case], pictures: vec![] })
}

/// A copy of a program without its symbols.
fn stripped(name: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let copy = folder.join(name);
    let built = command::built(name)?;
    let status = Command::new("strip").arg("-o").arg(&copy).arg(&built).status()?;
    match status.success() {
        true => Ok(copy),
        false => Err(format!("strip has failed on {} ({status})", built.display()).into()),
    }
}

fn started(program: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(program);
    let store = program.parent().ok_or("no folder")?.join("store");
    scene::without_settings(&mut command).env("SELFDUMP_DIR", store);
    Ok(command)
}

/// A run of either, each first in every other pair.
fn start(present: &Path, absent: &Path, number: usize) -> Result<Starts, Failure> {
    let waited = waited_for_processor();
    let began = Instant::now();
    let (present, absent) = if number % 2 == 0 {
        let present = run(present)?;
        (present, run(absent)?)
    } else {
        let absent = run(absent)?;
        (run(present)?, absent)
    };
    Ok(Starts { present, absent, contention: contention(waited, began.elapsed()) })
}

fn run(program: &Path) -> Result<Duration, Failure> {
    let mut command = started(program)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status()?;
    let time = began.elapsed();
    if status.success() {
        Ok(time)
    } else {
        Err(format!("{} has failed ({status})", program.display()).into())
    }
}

fn at_rest(program: &Path, idle: Duration) -> Result<Seen, Failure> {
    let mut child = started(program)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let seen = look(&mut child, idle);
    // It ends with its input.
    drop(child.stdin.take());
    child.wait()?;
    seen
}

fn look(child: &mut Child, idle: Duration) -> Result<Seen, Failure> {
    let mut output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
    output.read_line(&mut String::new())?;
    std::thread::sleep(REST);
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let before = switches(&process)?;
    std::thread::sleep(idle);
    let woken = switches(&process)? - before;
    let memory = fs::read_to_string(process.join("smaps_rollup"))?;
    Ok(Seen {
        anonymous: number(&memory, "Anonymous:")?,
        resident: number(&memory, "Rss:")?,
        threads: fs::read_dir(process.join("task"))?.count() as f64,
        woken,
    })
}

/// How often any of its threads has begun to wait or was put off.
fn switches(process: &Path) -> Result<f64, Failure> {
    let mut sum = 0.0;
    for thread in fs::read_dir(process.join("task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        sum += number(&status, "voluntary_ctxt_switches:")? + number(&status, "nonvoluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

fn number(text: &str, name: &str) -> Result<f64, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or(format!("no {name}"))?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}
