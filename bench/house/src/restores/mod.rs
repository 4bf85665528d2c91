//! Restores: `selfdump restore`, the same with `--lazy`, and `criu restore` of the same images, in turn.
//!
//! All are timed by CLOCK_REALTIME as a user sees them: from the start of the command, which stays in the
//! foreground, until the first tick of the program that has come back. selfdump compares every file of the checkpoint
//! with its checksum, most of it while CRIU restores, which `criu restore` doesn't; that is in its time.

mod lab;
mod measure;
mod victim;
mod watch;

use std::path::Path;
use std::time::Duration;

pub use lab::Lab;
pub use measure::Restore;
use measure::Round;

use crate::comparison::plan::Plan;
use crate::comparison::statistics::{ms, ratio};
use crate::comparison::{Failure, noise};
use crate::results::{Results, Series, Spread, Verdict, case};

pub const TIME: &str = "start to first tick, ms";
pub const CRIU: &str = "`criu restore`";
pub const OURS: &str = "`selfdump restore`";
pub const LAZY: &str = "`selfdump restore --lazy`";

/// What our time may be as a multiple of CRIU's own, with the verification that CRIU doesn't have, and at which sizes in MiB.
const LIMIT: ([usize; 2], f64) = ([16, 1024], 1.25);

/// The same of a lazy restore and one that isn't.
const LAZY_LIMIT: (usize, f64) = (512, 0.4);

pub fn compare(title: &str, plan: &Plan, mebibytes: usize, command: &Path) -> Result<Results, Failure> {
    let lab = Lab::open(&plan.dir, mebibytes, command)?;
    println!("\n{title}; {}", lab.terms());
    let rounds = noise::calm(plan, |_: &[Round]| true, |number| lab.round(number))?;
    let row = |name, of: fn(&Round) -> Duration| Series {
        name,
        columns: vec![rounds.iter().map(of).map(ms).collect()],
    };
    let rows = [
        row(OURS, |round| round.ours.time),
        row(LAZY, |round| round.lazy.time),
        row(CRIU, |round| round.criu.time),
        row("of the first, until CRIU is started", |round| round.ours.before_criu),
    ];
    let terms = format!("{}; {}", noise::told(&rounds), lab.terms());
    let mut case = case(title.to_owned(), terms, &[TIME], &rows, CRIU);
    // What is a part of another row is compared with nothing.
    case.rows[3].cells[0].iter_mut().for_each(|cell| cell.ratio = None);
    let mut results = Results::default();
    if LIMIT.0.contains(&mebibytes) {
        results.verdicts.push(case.verdict(OURS, TIME, LIMIT.1)?);
    }
    if mebibytes == LAZY_LIMIT.0 {
        results.verdicts.push(Verdict {
            what: format!("{title}: {LAZY}, ratio to {OURS} of {TIME}"),
            found: Spread::of(rounds.iter().map(|round| ratio(round.lazy.time, round.ours.time))),
            limit: LAZY_LIMIT.1,
        });
    }
    results.cases.push(case);
    Ok(results)
}
