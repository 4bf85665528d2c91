//! A dump through selfdump against `criu dump --leave-running` of the same program, to the same file
//! system, in turn: `cargo bench --bench dump`.
//!
//! Both are timed by CLOCK_REALTIME as a user sees them: from `kill -USR2` until CRIU has answered, and from
//! the start of `criu dump` until it has ended. The program tells of each how long it stood still. Only the
//! two of one pair are compared, since a shared machine changes its mind within minutes, and pairs during
//! which others kept the processors busy don't count. The median of the pairs' ratios is held against the
//! limits; pairs are made until it is known well enough to tell on which side of a limit it lies.
//!
//! With `--quick` there are three pairs of each size and no verdict: enough to see that it works.

mod lab;
mod measure;
mod program;
mod table;
mod victim;

use std::path::PathBuf;
use std::process::ExitCode;

use lab::{Failure, Lab};
use measure::Pair;

/// The size that the limits are for; fixed costs weigh more in smaller programs, and noise in larger ones.
const JUDGED_MEBIBYTES: usize = 256;

/// The share of its time that a calm pair may spend with somebody waiting for a processor. On an idle machine
/// of two processors it is about a tenth, since CRIU, its helpers and the ticker meet.
const CALM: f64 = 0.25;

/// So many times as many pairs as are asked for are made at most.
const PATIENCE: usize = 5;

/// What our time, and our pause, may be as a multiple of CRIU's own.
const LIMIT: f64 = 1.05;

const USAGE: &str = "cargo bench --bench dump -- [--quick] [--pairs N] [--sizes MIB,MIB] [--dir FOLDER]";

/// What is measured, and how often.
struct Plan {
    sizes: Vec<usize>,
    pairs: usize,
    judged: bool,
    dir: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match carry_out(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(arguments: &[String]) -> Result<ExitCode, Failure> {
    match arguments {
        [word, mebibytes] if word == program::WORD => program::run(mebibytes.parse()?)?,
        _ => {
            if let Some(plan) = plan(arguments)? {
                return compare(&plan);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// None where cargo was asked for other benchmarks by name.
fn plan(arguments: &[String]) -> Result<Option<Plan>, Failure> {
    // `cargo test --benches` starts us without `--bench`, to see that we work.
    let mut quick = !arguments.iter().any(|argument| argument == "--bench");
    let mut pairs = None;
    let mut sizes = vec![16, JUDGED_MEBIBYTES];
    let mut dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(USAGE);
        match argument {
            "--bench" => {}
            "--quick" => quick = true,
            "--pairs" => pairs = Some(value()?.parse()?),
            "--sizes" => sizes = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--dir" => dir = PathBuf::from(value()?),
            filter if !filter.starts_with('-') && !"dump".contains(filter) => return Ok(None),
            filter if !filter.starts_with('-') => {}
            _ => return Err(format!("{argument} is not understood; {USAGE}").into()),
        }
    }
    Ok(Some(Plan { sizes, pairs: pairs.unwrap_or(if quick { 3 } else { 25 }).max(1), judged: !quick, dir }))
}

/// Fails the run when a limit is missed.
fn compare(plan: &Plan) -> Result<ExitCode, Failure> {
    let mut kept = true;
    for &mebibytes in &plan.sizes {
        let mut lab = Lab::open(&plan.dir, mebibytes)?;
        println!("\n{mebibytes} MiB resident; {}", lab.terms());
        let pairs = calm(&mut lab, mebibytes, plan)?;
        println!("{}", table::times(&pairs));
        if mebibytes == JUDGED_MEBIBYTES {
            kept &= judge(&pairs, plan.judged);
        }
    }
    Ok(if plan.judged && !kept { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The calm pairs, as many as are planned and as it takes to be sure; or the calmest, where patience runs out
/// before there are enough. Which ones count is decided by what others did meanwhile, never by the times.
fn calm(lab: &mut Lab, mebibytes: usize, plan: &Plan) -> Result<Vec<Pair>, Failure> {
    let (mut calm, mut disturbed): (Vec<Pair>, Vec<Pair>) = Default::default();
    let most = if plan.judged { plan.pairs * PATIENCE } else { plan.pairs };
    let is_enough = |calm: &[Pair]| {
        let is_judged = plan.judged && mebibytes == JUDGED_MEBIBYTES;
        calm.len() >= plan.pairs && (!is_judged || RATIOS.iter().all(|(_, ratio)| is_sure(calm, ratio)))
    };
    while calm.len() + disturbed.len() < most && !is_enough(&calm) {
        let pair = lab.pair(calm.len() + disturbed.len())?;
        let quiet = pair.contention() <= CALM;
        if quiet { &mut calm } else { &mut disturbed }.push(pair);
    }
    let made = calm.len() + disturbed.len();
    disturbed.sort_by(|one, other| one.contention().total_cmp(&other.contention()));
    disturbed.truncate(plan.pairs.saturating_sub(calm.len()));
    calm.append(&mut disturbed);
    println!("{made} pairs were made, of which the {} calmest count", calm.len());
    Ok(calm)
}

type Ratio = fn(&Pair) -> f64;

/// What the limit is for.
const RATIOS: [(&str, Ratio); 2] = [("time", Pair::time_ratio), ("pause", Pair::pause_ratio)];

/// Whether the limit lies outside of what the median may be.
fn is_sure(pairs: &[Pair], ratio: &Ratio) -> bool {
    let (low, high) = table::confidence(pairs.iter().map(ratio));
    high <= LIMIT || low > LIMIT
}

/// Whether both ratios are within the limit.
fn judge(pairs: &[Pair], judged: bool) -> bool {
    let verdicts = RATIOS.map(|(what, ratio)| {
        let median = table::median(pairs.iter().map(ratio));
        let (low, high) = table::confidence(pairs.iter().map(ratio));
        let within = median <= LIMIT;
        let verdict = match (judged, within) {
            (false, _) => "too few pairs for a verdict",
            (true, true) => "pass",
            (true, false) => "FAIL",
        };
        println!(
            "{what} over CRIU's own: {median:.3} (95 %: {low:.3} to {high:.3}), at most {LIMIT} at \
             {JUDGED_MEBIBYTES} MiB: {verdict}"
        );
        within
    });
    verdicts.iter().all(|&within| within)
}
