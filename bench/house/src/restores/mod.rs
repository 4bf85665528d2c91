//! Restores: `selfdump restore` and `criu restore` of the same images, in turn.
//!
//! Both are timed by CLOCK_REALTIME as a user sees them: from the start of the command, which stays in the
//! foreground, until the first tick of the program that has come back. selfdump reads every file of the checkpoint
//! beforehand to compare its checksum, which `criu restore` doesn't; what that takes is seen from outside (see
//! `watch.rs`), and the ratios are given with it and without.

mod lab;
mod measure;
mod victim;
mod watch;

use std::path::Path;
use std::time::Duration;

pub use lab::Lab;
use measure::Pair;
pub use measure::Restore;

use crate::comparison::plan::Plan;
use crate::comparison::statistics::ms;
use crate::comparison::{Failure, noise};
use crate::results::{Case, Series, case};

pub const TIME: &str = "start to first tick, ms";
pub const CRIU: &str = "`criu restore`";
pub const OURS: &str = "`selfdump restore`";
pub const APART: &str = "`selfdump restore`, without the verification";

pub fn compare(title: &str, plan: &Plan, mebibytes: usize, command: &Path) -> Result<Case, Failure> {
    let lab = Lab::open(&plan.dir, mebibytes, command)?;
    println!("\n{title}; {}", lab.terms());
    let rounds = noise::calm(plan, |_: &[Pair]| true, |number| lab.pair(number))?;
    let row = |name, of: fn(&Pair) -> Duration| Series {
        name,
        columns: vec![rounds.iter().map(of).map(ms).collect()],
    };
    let rows = [
        row(OURS, |pair| pair.ours.time),
        row(CRIU, |pair| pair.criu.time),
        row(APART, |pair| pair.ours.without_verification()),
        row("of that, until CRIU is started", |pair| pair.ours.prepared()),
    ];
    let terms = format!("{}; {}", noise::told(&rounds), lab.terms());
    let mut case = case(title.to_owned(), terms, &[TIME], &rows, CRIU);
    // What is a part of another row is compared with nothing.
    case.rows[3].cells[0].iter_mut().for_each(|cell| cell.ratio = None);
    Ok(case)
}
