//! The program that faults happen to, in life after life: a hash chain that can't lose or double a step unnoticed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use selfdump::status::{Attempt, of_process};

use super::order::{At, Fault, Faults};
use crate::afterlife::{Alone, Return, bring_back, is_there};
use crate::aftermath::{age, assert_everything_committed_is_whole, drafts, holders};
use crate::failures::criu::{children, held_by};
use crate::follow::follow;
use crate::harness::{self, Lab, Launch, USR2, eventually, number};

/// What a fault came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was no such operation or message.
    NotMet,
    Failed,
    Saved,
}

/// The memory of a large one.
pub const MEBIBYTES: &str = "5";

/// Longer than any attempt may take: two seconds for a question and for a dump, each with the second in which a late
/// answer is still taken, and slack for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(9);

/// The same of a restore, which tries each of the two checkpoints that there are.
const RESTORE: Duration = Duration::from_secs(20);

/// The program `chain`, always in a life that a restore has begun.
pub struct Victim<'a> {
    lab: &'a Lab,
    life: Return,
    held: (BTreeMap<String, String>, usize),
}

impl<'a> Victim<'a> {
    /// One of two threads that keeps two checkpoints, so that each new one has an old one deleted.
    pub fn start(lab: &'a Lab, prepare: impl FnOnce(Launch) -> Launch) -> Victim<'a> {
        Victim::start_as(lab.program("chain").arg("2"), lab, prepare)
    }

    /// The same with so much memory that its checkpoints build on each other.
    pub fn start_large(lab: &'a Lab, prepare: impl FnOnce(Launch) -> Launch) -> Victim<'a> {
        Victim::start_as(lab.program("chain").args(["2", MEBIBYTES]), lab, prepare)
    }

    fn start_as(launch: Launch, lab: &'a Lab, prepare: impl FnOnce(Launch) -> Launch) -> Victim<'a> {
        let program = prepare(launch.env("SELFDUMP_KEEP", "2").env("SELFDUMP_TIMEOUT", "2s")).start();
        program.wait_for("ready");
        for number in 1..=3 {
            program.signal(USR2);
            Victim::has_told(program.pid(), number);
        }
        program.crash();
        Victim::of(lab, bring_back(lab, "chain"))
    }

    fn of(lab: &'a Lab, life: Return) -> Victim<'a> {
        let line = format!("restored {} generation {}", life.id, life.generation);
        eventually(&line, || output(lab).contains(&line).then_some(()));
        let held = eventually("nothing that is only held for a moment", || {
            let now = held_by(life.program.pid);
            sleep(Duration::from_millis(10));
            (held_by(life.program.pid) == now).then_some(now)
        });
        Victim { lab, life, held }
    }

    pub fn pid(&self) -> i32 {
        self.life.program.pid
    }

    /// The number of the newest checkpoint.
    pub fn newest(&self) -> u64 {
        self.lab.checkpoints().last().map_or(0, |newest| number(newest))
    }

    /// Asks for a checkpoint: what came of it, or nothing where it was the end of the program.
    pub fn asks(&self) -> Option<Attempt> {
        let before = self.last().map(|attempt| attempt.started);
        self.life.program.signal(USR2);
        eventually("what came of a checkpoint", || {
            if !is_there(self.pid()) {
                return Some(None);
            }
            let after = self.last().filter(|attempt| Some(attempt.started) != before);
            after.map(Some)
        })
    }

    /// A fault strikes while a checkpoint is made.
    pub fn meets(&self, faults: &Faults, (at, number): (At, u64), fault: &Fault) -> Outcome {
        let before = self.newest();
        faults.order(at, number, fault);
        let attempt = self.asks().expect("it runs on");
        let struck = faults.struck();
        faults.none();
        match struck {
            Some(step) => self.bears(&attempt, before, &format!("{fault} at {at:?} {number}, {step:?}")),
            None => Outcome::NotMet,
        }
    }

    /// It makes a checkpoint, or not, where something is wrong.
    pub fn fares(&self, what: &str) -> Outcome {
        let before = self.newest();
        self.bears(&self.asks().expect("it runs on"), before, what)
    }

    /// Whatever came of an attempt: it has ended in time, the program runs on, and if no checkpoint came of it, then the
    /// reason is told with a remedy.
    fn bears(&self, attempt: &Attempt, before: u64, what: &str) -> Outcome {
        let took = attempt.finished.duration_since(attempt.started).unwrap_or_default();
        assert!(took < DEADLINE, "{what}: {took:?}");
        self.runs_on(what);
        let Some(error) = &attempt.error else { return Outcome::Saved };
        assert!(error.hint.is_some(), "no remedy after {what}: {error:?}");
        assert_eq!(self.newest(), before, "after {what}");
        Outcome::Failed
    }

    /// Waits until a program has told that it has saved this checkpoint, the last thing that it does about it.
    pub fn has_told(pid: i32, number: u64) {
        let id = format!("/{number:06}");
        eventually("the word about a checkpoint", || {
            let last = of_process(pid).ok()?.last?.checkpoint?;
            last.ends_with(&id).then_some(())
        });
    }

    fn last(&self) -> Option<Attempt> {
        of_process(self.pid()).ok()?.last
    }

    /// A checkpoint that nothing happens to. Afterwards no draft is left of what happened before.
    pub fn saves(&self) {
        let unowned = |draft: &&PathBuf| !draft.join("owner.json").exists();
        drafts(self.lab).iter().filter(unowned).for_each(|draft| age(draft));
        let attempt = self.asks().expect("a running program");
        assert!(attempt.saved, "{:?}", attempt.error);
        assert_eq!(drafts(self.lab), Vec::<PathBuf>::new(), "what is left of earlier attempts");
    }

    /// It was left alone by whatever it was: it goes on, holds what it held, and met no child.
    pub fn runs_on(&self, after: &str) {
        let before = self.steps();
        eventually("the chains go on", || {
            let now = self.steps();
            now.iter().all(|(thread, step)| *step > before[thread]).then_some(())
        });
        eventually(&format!("the descriptors and threads that it had before {after}"), || {
            (held_by(self.pid()) == self.held).then_some(())
        });
        assert_eq!(children(self.pid()), Vec::<i32>::new(), "children after {after}");
        eventually("the end of every CRIU", || holders(self.lab).is_empty().then_some(()));
        assert_everything_committed_is_whole(self.lab, after);
    }

    /// The steps of its threads, which are the right ones.
    fn steps(&self) -> BTreeMap<u64, u64> {
        follow(&output(self.lab)).into_iter().collect()
    }

    /// Whatever is left of it, it has ended.
    pub fn has_ended(self) -> &'a Lab {
        let lab = self.lab;
        drop(self);
        eventually("the end of every CRIU", || holders(lab).is_empty().then_some(()));
        lab
    }

    /// Ends it as a crash would; it comes back from its newest checkpoint.
    pub fn comes_back(self) -> Victim<'a> {
        let newest = self.newest();
        let back = Victim::from_the_store(self.has_ended());
        assert_eq!(back.comes_from(), newest);
        back
    }

    /// The same from the checkpoint of this number.
    pub fn goes_back_to(self, number: u64) -> Victim<'a> {
        let wanted = |path: &PathBuf| harness::number(path) == number;
        let checkpoint = self.lab.checkpoints().into_iter().find(wanted).expect("a checkpoint");
        let lab = self.has_ended();
        Victim::of(lab, bring_back(lab, checkpoint))
    }

    /// Brings it back while a fault strikes one of CRIU's messages, and ends what came back. Whether it met the fault.
    ///
    /// Whatever it was: the restore ends in time, and either the program is there or the reason is told with a remedy,
    /// and nothing of it is left.
    pub fn comes_back_meeting(
        lab: &Lab,
        pid: i32,
        faults: &Faults,
        at: At,
        number: u64,
        fault: &Fault,
    ) -> bool {
        faults.order(at, number, fault);
        let started = Instant::now();
        let mut restore = lab.selfdump(["restore", "chain", "--detach"]);
        let said = restore.env("SELFDUMP_TIMEOUT", "2s").output().expect("selfdump runs");
        let (took, struck) = (started.elapsed(), faults.struck().is_some());
        faults.none();
        let errors = String::from_utf8_lossy(&said.stderr);
        let what = format!("{fault} at {at:?} {number} of a restore: {errors}");
        assert!(took < RESTORE, "{what}: {took:?}");
        assert_eq!(is_there(pid), said.status.success(), "{what}");
        if said.status.success() {
            Alone::new(pid).crash();
        } else {
            assert!(errors.contains("help: "), "{what}");
        }
        assert_everything_committed_is_whole(lab, &what);
        struck
    }

    /// Brings it back from whatever is in the store, where nothing is to be passed over.
    pub fn from_the_store(lab: &'a Lab) -> Victim<'a> {
        let life = bring_back(lab, "chain");
        assert_eq!(life.skipped, Vec::<String>::new());
        Victim::of(lab, life)
    }

    /// The number of the checkpoint that it came back from.
    pub fn comes_from(&self) -> u64 {
        number(&self.life.path)
    }
}

fn output(lab: &Lab) -> String {
    fs::read_to_string(lab.path("chain.out")).unwrap_or_default()
}
