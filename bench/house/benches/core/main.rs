//! A core of a checkpoint against a copy of the file that its memory is in, in turn, in the same folder:
//! `cargo bench --bench core` in bench/.
//!
//! Both read what is in the page cache and leave what they write there; neither waits for the disk.
//!
//! With `--quick` there are three pairs and no verdict: enough to see that it works.

mod lab;

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use house::comparison::entry::Comparison;
use house::comparison::statistics::{Limit, Table, ms, ratio};
use house::comparison::{Failure, noise, plan::Plan, scene};
use lab::Lab;

/// The size that the limit is for.
const JUDGED_MEBIBYTES: usize = 1024;

const LIMIT: Limit<Pair> = Limit { what: "time over that of cp", ratio: Pair::ratio, most: 1.5 };

/// A core, and a copy of the file that its memory is in.
pub struct Pair {
    core: Duration,
    copy: Duration,
    /// How much of the time somebody on this machine waited for a processor, from 0 to 1.
    contention: f64,
}

impl Pair {
    fn ratio(&self) -> f64 {
        ratio(self.core, self.copy)
    }
}

impl noise::Pair for Pair {
    fn contention(&self) -> f64 {
        self.contention
    }
}

fn main() -> ExitCode {
    let comparison = Comparison {
        name: "core",
        sizes: &[JUDGED_MEBIBYTES],
        word: lab::WORD,
        program: be_the_program,
        compare,
    };
    comparison.main()
}

/// Holds memory that has neither holes nor pages of zeros, until its input ends.
fn be_the_program(arguments: &[String]) -> Result<(), Failure> {
    let mebibytes: usize = arguments.first().ok_or("how much memory?")?.parse()?;
    let _ = selfdump::install()?;
    let memory = scene::random(mebibytes << 20);
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    std::hint::black_box(memory);
    Ok(())
}

/// Fails the run when the limit is missed.
fn compare(plan: &Plan) -> Result<ExitCode, Failure> {
    let mut kept = true;
    for &mebibytes in &plan.sizes {
        let lab = Lab::open(&plan.dir, mebibytes)?;
        println!("\n{mebibytes} MiB resident");
        let is_judged = mebibytes == JUDGED_MEBIBYTES;
        let is_sure = |pairs: &[Pair]| !is_judged || LIMIT.is_sure(pairs);
        let pairs = noise::calm(plan, is_sure, |number| lab.pair(number))?;
        table(&pairs);
        if is_judged {
            kept &= LIMIT.judge(&pairs, plan.judged);
        }
    }
    Ok(if plan.judged && !kept { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn table(pairs: &[Pair]) {
    Table::of(pairs)
        .row("a core of the checkpoint, ms", 1, |pair| ms(pair.core))
        .row("cp of the file with its memory, ms", 1, |pair| ms(pair.copy))
        .row("  ratio of each pair", 3, Pair::ratio)
        .row("time that somebody waited for a CPU, %", 1, |pair| 100.0 * noise::Pair::contention(pair))
        .print();
}
