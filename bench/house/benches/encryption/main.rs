//! Checkpoints that are encrypted against those that are not, in turn: `cargo bench --bench encryption` in bench/. It needs
//! `age-keygen`, of the package `age`.
//!
//! The same program runs twice. Each pair is a checkpoint of either, from `kill -USR2` until it is committed; the programs
//! tell how long they stood still. Then both are ended, and each pair is a restore of either, from the start of
//! `selfdump restore --detach` until that has ended.
//!
//! With `--quick` there are three pairs of each size and no verdict: enough to see that it works.

mod lab;

use std::process::ExitCode;
use std::time::Duration;

use house::comparison::entry::Comparison;
use house::comparison::statistics::{Limit, Table, ms};
use house::comparison::{Failure, command, noise, plan::Plan};
use house::workload;
use lab::{Dumped, Lab, Pair, Restored};

/// What encryption may make of the pause. The program runs again before anything is encrypted; but a tmpfs of small pages
/// takes longer to be written to than the cache of a disk (docs/performance.md).
const LIMIT: Limit<Pair<Dumped>> = Limit {
    what: "pause over that without encryption",
    ratio: |pair| pair.ratio(|run| run.pause),
    most: 1.6,
};

/// A name, and the time of a run that it stands for.
type Time<R> = (&'static str, fn(&R) -> Duration);

fn main() -> ExitCode {
    let comparison = Comparison {
        name: "encryption",
        sizes: &[256],
        word: workload::WORD,
        program: workload::run,
        compare,
    };
    comparison.main()
}

/// Fails the run when the limit is missed.
fn compare(plan: &Plan) -> Result<ExitCode, Failure> {
    let mut kept = true;
    let command = command::command()?;
    for &mebibytes in &plan.sizes {
        let mut lab = Lab::open(&plan.dir, mebibytes, &command)?;
        println!("\n{mebibytes} MiB resident");
        let pairs = noise::calm(plan, |pairs| LIMIT.is_sure(pairs), |number| lab.checkpoints(number))?;
        table(
            &pairs,
            &[
                ("signal to commit", |run: &Dumped| run.committed),
                ("signal to CRIU's answer", |run| run.answered),
                ("pause", |run| run.pause),
            ],
        );
        kept &= LIMIT.judge(&pairs, plan.judged);
        let lab = lab.end_programs()?;
        let pairs = noise::calm(plan, |_| true, |number| lab.restores(number))?;
        table(&pairs, &[("restore", |run: &Restored| run.time)]);
    }
    Ok(if plan.judged && !kept { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The times of both sides in milliseconds, and their ratio.
fn table<R>(pairs: &[Pair<R>], times: &[Time<R>]) {
    let mut table = Table::of(pairs);
    for (name, time) in times {
        table.row(&format!("{name}, plain, ms"), 1, |pair| ms(time(&pair.plain)));
        table.row(&format!("{name}, encrypted, ms"), 1, |pair| ms(time(&pair.encrypted)));
        table.row(&format!("{name}, ratio of each pair"), 3, |pair| pair.ratio(time));
    }
    table.print();
}
