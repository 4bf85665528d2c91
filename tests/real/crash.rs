//! What a crash leaves: a store in which everything that is committed is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::afterlife::{Alone, Return, bring_back};
use crate::aftermath::{age, assert_everything_committed_is_whole, drafts, folders, holders};
use crate::dice::Dice;
use crate::follow::follow;
use crate::harness::{KILL, Lab, USR2, died_of, eventually, number};

const ROUNDS: u32 = 30;

/// Where in its span the crash of each round comes: spread over all of it, at random within its share.
struct Moments {
    dice: Dice,
}

impl Moments {
    /// The moment of a round; the last ones come a little after the end of `span`.
    fn of(&mut self, round: u32, span: Duration) -> Duration {
        const FINE: u32 = 1 << 20;
        let within = self.dice.below(FINE.into()) as f64 / f64::from(FINE);
        span.mul_f64(1.1 * (f64::from(round) + within) / f64::from(ROUNDS))
    }
}

/// How long an undisturbed checkpoint takes, from the signal to its name.
fn span_of_a_checkpoint(lab: &Lab, signal: impl Fn()) -> Duration {
    let next = lab.checkpoints().last().map_or(0, |newest| number(newest)) + 1;
    let started = Instant::now();
    signal();
    lab.wait_for_checkpoint(next);
    started.elapsed()
}

#[test]
fn a_crash_at_any_moment_of_a_checkpoint_leaves_a_store_that_verifies_and_restores() {
    let lab = Lab::new();
    let mut program = lab.program("chain").arg("2").start();
    program.wait_for("ready");
    span_of_a_checkpoint(&lab, || program.signal(USR2));
    let span = span_of_a_checkpoint(&lab, || program.signal(USR2));
    program.signal(KILL);
    assert!(died_of(program.wait(), KILL));

    let mut moments = Moments { dice: Dice::throw() };
    let (mut with_draft, mut committed) = (0, 0);
    for round in 0..ROUNDS {
        let back = bring_back(&lab, "chain");
        assert_comes_from_the_newest(&lab, &back, round);
        let before = lab.checkpoints().len();
        let moment = moments.of(round, span);
        back.program.signal(USR2);
        std::thread::sleep(moment);
        back.program.crash();
        with_draft += u32::from(!drafts(&lab).is_empty());
        committed += u32::from(lab.checkpoints().len() != before || moment > span);
        assert_everything_committed_is_whole(&lab, &format!("a crash {moment:?} into a checkpoint"));
        follow(&program.output());
    }
    println!("span {span:?}, {with_draft} crashes left a draft, about {committed} came after the commit");
    assert!(with_draft > 0, "no crash came in the middle of a checkpoint");

    eventually("no CRIU is left of a dump that a crash cut off", || holders(&lab).is_empty().then_some(()));
    drafts(&lab).iter().filter(|draft| !draft.join("owner.json").exists()).for_each(|draft| age(draft));
    let last = bring_back(&lab, "chain");
    let next = number(&last.path) + 1;
    last.program.signal(USR2);
    lab.wait_for_checkpoint(next);
    eventually("the next checkpoint sweeps what crashes left", || drafts(&lab).is_empty().then_some(()));
    follow(&program.output());
}

/// The life that begins is the one after that of the newest checkpoint, and says so.
fn assert_comes_from_the_newest(lab: &Lab, back: &Return, round: u32) {
    let newest = lab.checkpoints().pop().expect("a checkpoint");
    assert_eq!(back.path, newest, "round {round}");
    assert!(back.skipped.is_empty(), "round {round}: {:?}", back.skipped);
    let line = format!("restored {} generation {}", back.id, back.generation);
    let output = lab.path("chain.out");
    eventually(&line, || fs::read_to_string(&output).is_ok_and(|text| text.contains(&line)).then_some(()));
}

#[test]
fn the_next_start_of_a_program_sweeps_what_a_crash_left() {
    let lab = Lab::new();
    let program = lab.program("family").arg("64").start();
    program.wait_for("ready");
    program.signal(USR2);
    eventually("a draft", || drafts(&lab).pop());
    program.crash();
    assert_eq!(drafts(&lab).len(), 1, "it crashed before the commit");
    let listed = String::from_utf8(lab.run(["list"]).stdout).unwrap();
    assert!(listed.contains("0 checkpoints in all: 0 B, and 1 partial"), "{listed}");
    assert!(listed.contains("left by a crash"), "{listed}");

    let next = lab.program("family").start();
    eventually("the draft is swept", || drafts(&lab).is_empty().then_some(()));
    next.crash();
}

#[test]
fn the_next_start_of_a_program_sweeps_an_instance_that_came_to_no_checkpoint() {
    let lab = Lab::new();
    let program = lab.program("family").env("SELFDUMP_CRIU", "/no/such/criu").start();
    program.wait_for("ready");
    program.signal(USR2);
    lab.status_when("a failed attempt", |status| status["last"]["saved"] == false);
    program.crash();

    let next = lab.program("family").start();
    let instances = || folders(&lab.store().join("family"));
    eventually("the folder is swept", || instances().is_empty().then_some(()));
    next.crash();
}

/// Three checkpoints of a program that has ended.
fn three_checkpoints(lab: &Lab) -> Vec<PathBuf> {
    let program = lab.program("chain").start();
    program.wait_for("ready");
    for number in 1..=3 {
        program.signal(USR2);
        lab.wait_for_checkpoint(number);
    }
    program.crash();
    lab.checkpoints()
}

/// Damages the newest checkpoint, and shows that the one before it comes back and why.
fn a_damaged_newest_checkpoint_is_passed_over(damage: impl FnOnce(&Path), problem: &str) {
    let lab = Lab::new();
    let checkpoints = three_checkpoints(&lab);
    damage(&checkpoints[2]);
    let said = lab.run(["restore", "chain", "--detach"]);
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    let pid: i32 =
        String::from_utf8_lossy(&said.stdout).split_whitespace().next_back().unwrap().parse().unwrap();
    Alone::new(pid).crash();
    assert!(said.status.success(), "{said:?}");
    assert!(errors.contains("selfdump: passed over ") && errors.contains(problem), "{errors}");

    let back = bring_back(&lab, "chain");
    assert_eq!(back.path, checkpoints[1]);
    assert_eq!(back.skipped.len(), 1);
    assert!(back.skipped[0].contains(problem), "{:?}", back.skipped);
    follow(&fs::read_to_string(lab.path("chain.out")).unwrap());
}

#[test]
fn a_flipped_bit_in_the_memory_is_found_and_the_checkpoint_passed_over() {
    a_damaged_newest_checkpoint_is_passed_over(
        |checkpoint| {
            let pages = checkpoint.join("images/pages-1.img");
            let mut bytes = fs::read(&pages).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&pages, bytes).unwrap();
        },
        "pages-1.img has another checksum",
    );
}

#[test]
fn a_truncated_image_is_found_and_the_checkpoint_passed_over() {
    a_damaged_newest_checkpoint_is_passed_over(
        |checkpoint| {
            let image =
                fs::OpenOptions::new().write(true).open(checkpoint.join("images/pstree.img")).unwrap();
            image.set_len(image.metadata().unwrap().len() - 1).unwrap();
        },
        "pstree.img has ",
    );
}

#[test]
fn a_missing_file_is_found_and_the_checkpoint_passed_over() {
    a_damaged_newest_checkpoint_is_passed_over(
        |checkpoint| fs::remove_file(checkpoint.join("images/inventory.img")).unwrap(),
        "inventory.img is missing",
    );
}

#[test]
fn a_changed_manifest_is_found_and_the_checkpoint_passed_over() {
    a_damaged_newest_checkpoint_is_passed_over(
        |checkpoint| {
            let manifest = checkpoint.join("manifest.json");
            let text = fs::read_to_string(&manifest).unwrap();
            let changed = text.replacen("\"name\": \"chain\"", "\"name\": \"chaim\"", 1);
            assert_ne!(changed, text);
            fs::write(&manifest, changed).unwrap();
        },
        "its checksum is wrong",
    );
}

#[test]
fn where_no_checkpoint_is_whole_nothing_is_restored() {
    let lab = Lab::new();
    for checkpoint in three_checkpoints(&lab) {
        fs::remove_file(checkpoint.join("manifest.json")).unwrap();
    }
    let done = lab.run(["restore", "chain"]);
    assert_eq!(done.status.code(), Some(125));
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(errors.matches("passed over").count(), 3, "{errors}");
    assert!(errors.contains("none of the 3 checkpoints of chain is whole"), "{errors}");
}
