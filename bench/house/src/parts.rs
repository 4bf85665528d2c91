//! What is measured, on which sizes, how often, and what has to come of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::comparison::plan::Plan;
use crate::comparison::{Failure, command, scene};
use crate::dumps::{self, ALL, AUTO, COPIES, COW, FEW, KEPT, MEMORY, OFF, PAUSE, Side, TIME, WORK};
use crate::results::{Case, Found, Line, Picture, Results};
use crate::workload::Workload;
use crate::{around, keeping, presence, restores};

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Presence,
    Dumps,
    Threads,
    Snapshots,
    Restores,
    Keeping,
}

impl Part {
    pub const ALL: [Part; 6] =
        [Part::Presence, Part::Dumps, Part::Threads, Part::Snapshots, Part::Restores, Part::Keeping];

    /// By which it is asked for, and its results are filed.
    pub fn name(self) -> &'static str {
        match self {
            Part::Presence => "presence",
            Part::Dumps => "dumps",
            Part::Threads => "threads",
            Part::Snapshots => "snapshots",
            Part::Restores => "restores",
            Part::Keeping => "keeping",
        }
    }
}

/// What a run is to be like.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Enough to see that everything works: small sizes, few rounds.
    pub quick: bool,
    /// In MiB, where others than the usual ones are wanted.
    pub sizes: Option<Vec<usize>>,
    pub rounds: Option<usize>,
    /// Where stores and images go.
    pub dir: Option<PathBuf>,
}

impl Wish {
    fn plan(&self, rounds: usize) -> Result<Plan, Failure> {
        let pairs = self.rounds.unwrap_or(if self.quick { 2 } else { rounds }).max(1);
        // Who says how many wants no more.
        let patience = if self.quick || self.rounds.is_some() { 1 } else { 2 };
        let dir = self.dir.clone().map_or_else(|| Ok::<_, Failure>(scene::target()?.join("bench")), Ok)?;
        Ok(Plan { sizes: vec![], pairs, judged: !self.quick, patience, dir })
    }

    fn sizes(&self, usual: &[usize]) -> Vec<usize> {
        let usual = if self.quick { &[16] } else { usual };
        self.sizes.clone().unwrap_or_else(|| usual.to_owned())
    }
}

/// How a part is asked for on the command line.
fn command_line(part: Part, wish: &Wish) -> String {
    let mut line = format!("cargo xtask bench --only {}", part.name());
    if wish.quick {
        line += " --quick";
    }
    if let Some(sizes) = &wish.sizes {
        let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
        line += &format!(" --sizes {}", sizes.join(","));
    }
    if let Some(rounds) = wish.rounds {
        line += &format!(" --rounds {rounds}");
    }
    line
}

/// Measures a part.
pub fn measure(part: Part, wish: &Wish) -> Result<Found, Failure> {
    let began = Instant::now();
    let results = match part {
        Part::Presence => {
            let (starts, idle) = if wish.quick { (20, 1) } else { (300, 10) };
            presence::compare(&wish.plan(9)?, starts, Duration::from_secs(idle))?
        }
        Part::Dumps => dumps(wish)?,
        Part::Threads => threads(wish)?,
        Part::Snapshots => snapshots(wish)?,
        Part::Restores => restores(wish)?,
        Part::Keeping => {
            let size = wish.sizes(&[1024])[0];
            let checkpoints = if wish.quick { 3 } else { 20 };
            keeping::compare(&wish.plan(7)?, size, checkpoints, &command::command()?)?
        }
    };
    let seconds = began.elapsed().as_secs();
    Ok(Found { command: command_line(part, wish), machine: machine()?, seconds, results })
}

/// How many rounds are made of a size: as many as take about as long.
fn rounds_of(mebibytes: usize) -> usize {
    match mebibytes {
        ..64 => 15,
        64..512 => 11,
        512..2048 => 9,
        _ => 5,
    }
}

/// What a ratio to `criu dump` in the same round may be: by size in MiB, pages, side and column.
const LIMITS: [(usize, bool, Side, &str, f64); 8] = [
    (16, false, AUTO, PAUSE, 1.05),
    (256, false, OFF, PAUSE, 1.05),
    (256, false, OFF, TIME, 1.05),
    (1024, false, AUTO, PAUSE, 0.65),
    (1024, false, AUTO, KEPT, 1.25),
    (1024, true, AUTO, PAUSE, 0.55),
    (4096, false, AUTO, PAUSE, 0.45),
    (4096, true, AUTO, PAUSE, 0.35),
];

fn dumps(wish: &Wish) -> Result<Results, Failure> {
    let mut results = Results::default();
    let sizes = wish.sizes(&[16, 256, 1024, 4096]);
    for (is_huge, sides) in [(false, &ALL[..]), (true, &FEW[..])] {
        // Huge pages are of no account in a small program.
        for &mebibytes in sizes.iter().filter(|&&size| !is_huge || size >= 1024) {
            let workload = Workload { huge_pages: is_huge, ..Workload::of(mebibytes) };
            let title = format!("{}{}", size(mebibytes), if is_huge { " in huge pages" } else { "" });
            let case = dumps::compare(&title, &wish.plan(rounds_of(mebibytes))?, &workload, sides)?;
            let limits = LIMITS.iter().filter(|limit| (limit.0, limit.1) == (mebibytes, is_huge));
            for (_, _, side, column, most) in limits {
                results.verdicts.push(case.verdict(side.name(), column, *most)?);
            }
            results.cases.push(case);
        }
    }
    let places: Vec<String> = sizes.iter().map(|&mebibytes| size(mebibytes)).collect();
    let drawn = ALL.map(Side::name);
    results.pictures.push(picture(
        "pause",
        "Pause against memory",
        places,
        "memory",
        &results.cases,
        &drawn,
        PAUSE,
    ));
    results.add(around::compare(&wish.plan(15)?, 16)?);
    Ok(results)
}

fn threads(wish: &Wish) -> Result<Results, Failure> {
    let mut results = Results::default();
    let mebibytes = if wish.quick { 16 } else { 256 };
    let counts: &[usize] = if wish.quick { &[1, 8] } else { &[1, 8, 64] };
    for &count in counts {
        // Its main thread, its ticker and that of selfdump are there in any case.
        let workload = Workload { threads: count, ..Workload::of(mebibytes) };
        let title = format!("{}, {count} more threads", size(mebibytes));
        results.cases.push(dumps::compare(&title, &wish.plan(9)?, &workload, &FEW)?);
    }
    let places = counts.iter().map(usize::to_string).collect();
    let drawn = FEW.map(Side::name);
    let picture =
        picture("threads", "Pause against threads", places, "threads", &results.cases, &drawn, PAUSE);
    results.pictures.push(Picture { by_logarithm: false, ..picture });
    let others = [
        ("10,000 more mappings", Workload { mappings: 10_000, ..Workload::of(mebibytes) }),
        (
            "10 % written to in a second, half of it compressible",
            Workload { dirties: 10, compressible: 50, ..Workload::of(mebibytes) },
        ),
    ];
    for (what, workload) in others.iter().filter(|_| !wish.quick) {
        let title = format!("{}, {what}", size(mebibytes));
        results.cases.push(dumps::compare(&title, &wish.plan(9)?, workload, &FEW)?);
    }
    Ok(results)
}

/// How much of `criu dump`'s pause a copy's may be, and of a bare fork's: of programs of 1 GiB and more.
const OF_A_DUMP: f64 = 0.15;
const OF_A_FORK: f64 = 2.5;

/// Copies of the program, which CRIU dumps while that runs on.
fn snapshots(wish: &Wish) -> Result<Results, Failure> {
    let mut results = Results::default();
    let sizes = wish.sizes(&[16, 1024, 4096]);
    let counts: &[usize] = if wish.quick { &[1] } else { &[1, 8, 64] };
    for &mebibytes in &sizes {
        for &count in counts {
            let workload = Workload { threads: count, ..Workload::of(mebibytes) };
            let title = format!("{}, {count} more threads", size(mebibytes));
            let plan = wish.plan(rounds_of(mebibytes).min(9))?;
            let (case, to_a_fork, to_a_freeze) = dumps::compare_copies(&title, &plan, &workload)?;
            match mebibytes {
                1024.. => {
                    results.verdicts.push(case.verdict(COW.name(), PAUSE, OF_A_DUMP)?);
                    results.verdicts.push(to_a_fork.verdict(COW.name(), PAUSE, OF_A_FORK)?);
                }
                _ => results.verdicts.push(to_a_freeze.verdict(COW.name(), PAUSE, 1.0)?),
            }
            results.cases.push(case);
        }
    }
    let pairs = sizes.iter().flat_map(|&mebibytes| counts.iter().map(move |count| (size(mebibytes), count)));
    let places = pairs.map(|(size, count)| format!("{size}, {count}")).collect();
    let drawn = COPIES.map(Side::name);
    results.pictures.push(picture(
        "snapshots",
        "Pause of a copy",
        places,
        "memory, and more threads",
        &results.cases,
        &drawn,
        PAUSE,
    ));
    // What it costs afterwards: a program that writes to all its memory without pause.
    let mut after = Vec::new();
    for &mebibytes in &sizes {
        let workload = Workload { works: true, ..Workload::of(mebibytes) };
        let title = format!("{}, all of it written to without pause", size(mebibytes));
        after.push(dumps::compare(&title, &wish.plan(5)?, &workload, &COPIES[..3])?);
    }
    let places = sizes.iter().map(|&mebibytes| size(mebibytes)).collect();
    let drawn = [OFF, COW].map(Side::name);
    let work =
        picture("work", "Work done until the checkpoint is kept", places, "memory", &after, &drawn, WORK);
    results.pictures.push(Picture { by_logarithm: false, ..work });
    let places = sizes.iter().map(|&mebibytes| size(mebibytes)).collect();
    let title = "More memory that the machine has to have";
    results.pictures.push(picture("peak", title, places, "memory", &after, &drawn, MEMORY));
    results.cases.extend(after);
    Ok(results)
}

fn restores(wish: &Wish) -> Result<Results, Failure> {
    let mut results = Results::default();
    let sizes = wish.sizes(&[16, 512, 1024, 4096]);
    let command = command::command()?;
    for &mebibytes in &sizes {
        let plan = wish.plan(rounds_of(mebibytes))?;
        results.add(restores::compare(&size(mebibytes), &plan, mebibytes, &command)?);
    }
    let places = sizes.iter().map(|&mebibytes| size(mebibytes)).collect();
    let drawn = [restores::OURS, restores::LAZY, restores::CRIU];
    let title = "Start to first tick, against memory";
    results.pictures.push(picture(
        "restore",
        title,
        places,
        "memory",
        &results.cases,
        &drawn,
        restores::TIME,
    ));
    Ok(results)
}

/// Medians of the cases, one for each place.
fn picture(
    name: &str,
    title: &str,
    places: Vec<String>,
    across: &str,
    cases: &[Case],
    rows: &[&str],
    column: &str,
) -> Picture {
    let values = |row: &str| -> Vec<Option<f64>> {
        let cells = cases.iter().take(places.len()).map(|case| case.cell(row, column));
        cells.map(|cell| cell.map(|cell| cell.value.median)).collect()
    };
    let lines = rows.iter().map(|row| Line { name: row.replace('`', ""), values: values(row) }).collect();
    let (name, title, across) = (name.to_owned(), title.to_owned(), across.to_owned());
    Picture { name, title, places, across, upwards: column.to_owned(), by_logarithm: true, lines }
}

fn size(mebibytes: usize) -> String {
    match mebibytes {
        1024.. if mebibytes % 1024 == 0 => format!("{} GiB", mebibytes / 1024),
        _ => format!("{mebibytes} MiB"),
    }
}

/// What it was measured on, for people.
fn machine() -> Result<String, Failure> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kibibytes: u64 = memory.split_whitespace().nth(1).ok_or("no memory")?.parse()?;
    let processors = std::thread::available_parallelism()?;
    let gibibytes = kibibytes.div_ceil(1 << 20);
    Ok(format!("Linux {}, {processors} processors, {gibibytes} GiB", kernel.trim()))
}

/// Whether everything is within its limit; each is told.
pub fn judge(found: &Found) -> bool {
    found.results.verdicts.iter().fold(true, |all, verdict| {
        println!("{}", crate::page::verdict(verdict));
        all && verdict.is_kept()
    })
}
