//! `selfdump restore` against `criu restore` of the same images, in turn: `cargo bench --bench restore`.
//!
//! Both are timed by CLOCK_REALTIME as a user sees them: from the start of the command, which stays in the
//! foreground, until the first tick of the program that has come back. selfdump reads every file of the checkpoint
//! beforehand to compare its checksum, which `criu restore` doesn't; what that takes is seen from outside (see
//! `watch.rs`), and the ratios are given with it and without.
//!
//! With `--quick` there are three pairs of each size and no verdict: enough to see that it works.

#[path = "../comparison/command.rs"]
mod command;
#[path = "../comparison/mod.rs"]
mod comparison;
mod lab;
mod measure;
#[path = "../comparison/options.rs"]
mod options;
mod program;
mod victim;
mod watch;

use std::process::ExitCode;

use comparison::entry::Comparison;
use comparison::statistics::Limit;
use comparison::{Failure, noise, plan::Plan};
use lab::Lab;
use measure::Pair;

/// In MiB: one in which the fixed costs weigh most, and one in which the memory does.
const SIZES: [usize; 2] = [16, 1024];

/// What our time without the verification may be as a multiple of CRIU's own. The ratio with it stands beside.
const LIMIT: Limit<Pair> =
    Limit { what: "time without verification over CRIU's own", ratio: Pair::ratio_apart, most: 1.10 };

fn main() -> ExitCode {
    let comparison =
        Comparison { name: "restore", sizes: &SIZES, word: program::WORD, program: program::run, compare };
    comparison.main()
}

/// Fails the run when the limit is missed.
fn compare(plan: &Plan) -> Result<ExitCode, Failure> {
    let mut kept = true;
    let command = command::command()?;
    for &mebibytes in &plan.sizes {
        let lab = Lab::open(&plan.dir, mebibytes, &command)?;
        println!("\n{mebibytes} MiB resident; {}", lab.terms());
        let pairs = noise::calm(plan, |pairs| LIMIT.is_sure(pairs), |number| lab.pair(number))?;
        measure::table(&pairs);
        kept &= LIMIT.judge(&pairs, plan.judged);
    }
    Ok(if plan.judged && !kept { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
