//! `cargo xtask demo`: a program that is checkpointed, killed and restored, told with the numbers seen.
//!
//! It needs root, cargo and apt. Nothing in it waits for ever: every wait has a deadline, and whatever was started
//! is ended when its [`Program`] is dropped.

mod program;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::{cargo, setup};
use program::{Program, Step};

/// How many steps each part of the demo goes on for.
const STEPS: usize = 8;

/// How long one thing may take: a step, a checkpoint, a restore.
const DEADLINE: Duration = Duration::from_secs(30);

/// The name under which the checkpoints are kept.
const NAME: &str = "counter";

pub fn run() -> Result<()> {
    println!("1. A CRIU that works");
    let criu = setup::current_criu()?;
    println!("\n2. The example `counter` and the command `selfdump`");
    // Not optimized: it is there three times as soon, and what takes time in it is CRIU's and the disk's.
    cargo::run(&mut cargo::cargo(&["build", "--package", "selfdump", "--example", "counter"])?)?;
    cargo::run(&mut cargo::cargo(&["build", "--package", "selfdump-cli"])?)?;
    let built = cargo::target()?.join("debug");
    let store = tempfile::Builder::new().prefix("selfdump-demo-").tempdir().context("can't make a folder")?;
    Scene {
        counter: &built.join("examples/counter"),
        selfdump: &built.join("selfdump"),
        criu: &criu,
        store: store.path(),
    }
    .play()
}

/// What the demo plays with.
struct Scene<'a> {
    counter: &'a Path,
    selfdump: &'a Path,
    criu: &'a Path,
    store: &'a Path,
}

impl Scene<'_> {
    fn play(&self) -> Result<()> {
        println!("\n3. The program runs");
        let mut first = Program::start(&mut self.command(self.counter))?;
        println!("   counter is process {}; it prints its step and a sum over all steps so far", first.pid());
        first.steps(STEPS)?;

        let (before, after) = self.checkpoint(&mut first)?;
        println!("   it goes on as if nothing had been");
        first.steps(STEPS)?;

        println!("\n5. It crashes: kill -KILL {}", first.pid());
        let pid = first.pid();
        first.kill()?;
        let last = first.last().context("the program printed no step")?.clone();
        println!("   the last that was seen of it is step {}", last.number);

        println!("\n6. It comes back: selfdump restore {NAME}");
        let mut second = Program::start(self.command(self.selfdump).args(["restore", NAME]))?;
        let restored = second.steps(STEPS).context("the restored program doesn't go on");
        // The restored program has its old pid back, and it isn't a child of ours.
        let ended = second.end(pid);
        restored.and(ended)?;
        conclude(&first, &second, before, after)
    }

    /// Asks for a checkpoint and returns the last steps seen before it was asked for and after it was there.
    fn checkpoint(&self, program: &mut Program) -> Result<(u64, u64)> {
        println!("\n4. A checkpoint: kill -USR2 {}", program.pid());
        let before = program.last().context("the program printed no step")?.number;
        let asked = Instant::now();
        program.signal(Signal::SIGUSR2)?;
        while !has_checkpoint(&self.store.join(NAME)) {
            if asked.elapsed() > DEADLINE {
                // The command tells the reason of an attempt that failed.
                let _ = cargo::run(self.command(self.selfdump).args(["status", &program.pid().to_string()]));
                bail!(
                    "no checkpoint was there {} s after SIGUSR2; its reason stands above",
                    DEADLINE.as_secs()
                );
            }
            program.pass(Duration::from_millis(5))?;
        }
        let took = asked.elapsed().as_millis();
        // What was printed before the freeze is on its way to us at most: the next step ends the doubt.
        program.steps(1)?;
        let after = program.last().map_or(before, |step| step.number);
        println!(
            "   it was on disk {took} ms after the signal, and holds a step between {before} and {after}"
        );
        Ok((before, after))
    }

    /// A command that knows this store and this CRIU, and nothing that the user has set for other programs.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SELFDUMP"))
        {
            command.env_remove(name);
        }
        command.env("SELFDUMP_DIR", self.store).env("SELFDUMP_NAME", NAME).env("SELFDUMP_CRIU", self.criu);
        command
    }
}

/// Compares the two lives of the program.
fn conclude(first: &Program, second: &Program, before: u64, after: u64) -> Result<()> {
    let verdict = judge(first.seen(), second.seen(), before, after)?;
    println!("\n7. What was seen");
    println!("   the checkpoint holds step     {:>6}", verdict.checkpoint);
    println!("   last step before the kill     {:>6}", verdict.killed);
    println!("   first step after the restore  {:>6}", verdict.checkpoint + 1);
    println!("   {} steps were done in both lives, with the same sums each", verdict.twice);
    println!("\nThe program went on from its checkpoint.");
    Ok(())
}

/// What the steps of two lives show.
#[derive(Debug, PartialEq)]
struct Verdict {
    checkpoint: u64,
    killed: u64,
    twice: usize,
}

/// Whether the second life goes on where the checkpoint of the first was taken, between two of its steps.
fn judge(first: &[Step], second: &[Step], before: u64, after: u64) -> Result<Verdict> {
    let (Some(killed), Some(resumed)) = (first.last(), second.first()) else {
        bail!("a life without a step")
    };
    let (killed, resumed) = (killed.number, resumed.number);
    ensure!(
        (before + 1..=after + 1).contains(&resumed),
        "the restored program's first step is {resumed}, but its checkpoint holds a step between {before} and {after}"
    );
    ensure!(resumed <= killed, "the kill came before step {resumed}, so nothing was shown");
    ensure!(unbroken(first) && unbroken(second), "a step is missing or came twice");
    let both =
        || second.iter().filter_map(|step| Some((step, first.iter().find(|old| old.number == step.number)?)));
    if let Some((new, old)) = both().find(|(new, old)| new.line != old.line) {
        bail!("the restored program has another state: `{}` instead of `{}`", new.line, old.line);
    }
    Ok(Verdict { checkpoint: resumed - 1, killed, twice: both().count() })
}

fn unbroken(steps: &[Step]) -> bool {
    steps.windows(2).all(|pair| pair[0].number + 1 == pair[1].number)
}

/// Whether a checkpoint is committed: DIR/NAME/INSTANCE/NUMBER is there from then on.
fn has_checkpoint(store: &Path) -> bool {
    let folders = |path: &Path| path.read_dir().into_iter().flatten().flatten();
    let numbered = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    folders(store)
        .flat_map(|instance| folders(&instance.path()))
        .any(|checkpoint| checkpoint.file_name().to_str().is_some_and(numbered))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(numbers: std::ops::Range<u64>) -> Vec<Step> {
        numbers.map(|number| Step { number, line: format!("step {number}  sum {}", number * 7) }).collect()
    }

    #[test]
    fn a_life_that_goes_on_from_the_checkpoint_is_right() {
        let verdict = judge(&life(1..21), &life(10..16), 8, 9).unwrap();
        assert_eq!(verdict, Verdict { checkpoint: 9, killed: 20, twice: 6 });
    }

    #[test]
    fn a_life_that_starts_anew_or_elsewhere_is_wrong() {
        assert!(judge(&life(1..21), &life(1..8), 8, 9).is_err());
        assert!(judge(&life(1..21), &life(12..16), 8, 9).is_err());
        assert!(judge(&life(1..21), &[], 8, 9).is_err());
    }

    #[test]
    fn another_state_or_a_gap_is_wrong() {
        let mut other = life(10..16);
        other[3].line.push('1');
        assert!(judge(&life(1..21), &other, 8, 9).unwrap_err().to_string().contains("another state"));
        let mut gap = life(10..16);
        gap.remove(2);
        assert!(judge(&life(1..21), &gap, 8, 9).is_err());
    }

    #[test]
    fn only_a_committed_checkpoint_counts() {
        let store = tempfile::tempdir().unwrap();
        let instance = store.path().join("4711-99");
        std::fs::create_dir_all(instance.join("000001.partial")).unwrap();
        assert!(!has_checkpoint(store.path()));
        std::fs::rename(instance.join("000001.partial"), instance.join("000001")).unwrap();
        assert!(has_checkpoint(store.path()));
    }
}
