//! A dump through selfdump by way of memory (`SELFDUMP_STAGING=auto`) against `criu dump --leave-running` of the same
//! program to the store's disk, in turn: `cargo bench --bench staging`. It has to be root's.
//!
//! Each size is measured with the program's memory in small pages and in huge ones. What is measured, and how, is told in
//! `main.rs`, the comparison of plain dumps.

#[path = "../comparison/mod.rs"]
mod comparison;
mod lab;
mod measure;
#[path = "../comparison/options.rs"]
mod options;
mod program;
mod victim;

use std::process::ExitCode;

use comparison::entry::Comparison;
use comparison::statistics::Limit;
use comparison::{Failure, noise, plan::Plan};
use lab::Lab;
use measure::Pair;

const fn pause(most: f64) -> Limit<Pair> {
    Limit { what: "pause over CRIU's own", ratio: Pair::pause_ratio, most }
}

const fn kept(most: f64) -> Limit<Pair> {
    Limit { what: "signal to commit over CRIU's dump and a sync", ratio: Pair::kept_ratio, most }
}

/// What there is a limit for, by the size in MiB and whether the program's memory is in huge pages.
const LIMITS: [(usize, bool, &[Limit<Pair>]); 5] = [
    (16, false, &[pause(1.05)]),
    (1024, false, &[pause(0.65), kept(1.25)]),
    (1024, true, &[pause(0.55)]),
    (4096, false, &[pause(0.45)]),
    (4096, true, &[pause(0.35)]),
];

fn main() -> ExitCode {
    let comparison = Comparison {
        name: "staging",
        sizes: &[16, 1024, 4096],
        word: program::WORD,
        program: program::run,
        compare,
    };
    comparison.main()
}

/// Fails the run when a limit is missed.
fn compare(plan: &Plan) -> Result<ExitCode, Failure> {
    let mut kept = true;
    for &mebibytes in &plan.sizes {
        for is_huge in [false, true] {
            kept &= case(plan, mebibytes, is_huge)?;
        }
    }
    Ok(if plan.judged && !kept { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn case(plan: &Plan, mebibytes: usize, is_huge: bool) -> Result<bool, Failure> {
    let limits = LIMITS.iter().find(|(size, huge, _)| (*size, *huge) == (mebibytes, is_huge));
    let limits = limits.map_or(&[][..], |(_, _, limits)| limits);
    let mut settings = vec![("SELFDUMP_STAGING", "auto"), ("SELFDUMP_TIMEOUT", "2m")];
    settings.extend(is_huge.then_some((program::HUGE_PAGES, "yes")));
    let mut lab = Lab::open(&plan.dir, mebibytes, &settings)?;
    let pages = if is_huge { "huge" } else { "small" };
    println!("\n{mebibytes} MiB resident in {pages} pages, by way of {}; {}", lab.way(), lab.terms());
    let is_sure = |pairs: &[Pair]| limits.iter().all(|limit| limit.is_sure(pairs));
    let pairs = noise::calm(plan, is_sure, |number| lab.pair(number))?;
    measure::table(&pairs);
    let mut kept = true;
    for limit in limits {
        // Each is told.
        kept &= limit.judge(&pairs, plan.judged);
    }
    Ok(kept)
}
