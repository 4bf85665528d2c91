//! A dump through selfdump against `criu dump --leave-running` of the same program, to the same file
//! system, in turn: `cargo bench --bench dump`.
//!
//! Both are timed by CLOCK_REALTIME as a user sees them: from `kill -USR2` until CRIU has answered, and from
//! the start of `criu dump` until it has ended. The program tells of each how long it stood still.
//!
//! With `--quick` there are three pairs of each size and no verdict: enough to see that it works.

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

/// The size that the limits are for; fixed costs weigh more in smaller programs, and noise in larger ones.
const JUDGED_MEBIBYTES: usize = 256;

/// What our time, and our pause, may be as a multiple of CRIU's own.
const LIMITS: [Limit<Pair>; 2] = [
    Limit { what: "time over CRIU's own", ratio: Pair::time_ratio, most: 1.05 },
    Limit { what: "pause over CRIU's own", ratio: Pair::pause_ratio, most: 1.05 },
];

fn main() -> ExitCode {
    let comparison = Comparison {
        name: "dump",
        sizes: &[16, JUDGED_MEBIBYTES],
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
        let limits = if mebibytes == JUDGED_MEBIBYTES { &LIMITS[..] } else { &[] };
        let mut lab = Lab::open(&plan.dir, mebibytes, &[])?;
        println!("\n{mebibytes} MiB resident; {}", lab.terms());
        let is_sure = |pairs: &[Pair]| limits.iter().all(|limit| limit.is_sure(pairs));
        let pairs = noise::calm(plan, is_sure, |number| lab.pair(number))?;
        measure::table(&pairs);
        for limit in limits {
            kept &= limit.judge(&pairs, plan.judged);
        }
    }
    Ok(if plan.judged && !kept { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
