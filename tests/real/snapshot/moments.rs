//! What comes back was all there in one moment: the sums of what threads move about without pause are right, and so are
//! their chains.
//!
//! SELFDUMP_TEST_ROUNDS says how often each program is copied, killed and brought back.

use std::sync::{Mutex, PoisonError};

use super::{copied, output, ready, saved};
use crate::afterlife::bring_back;
use crate::chain::follow;
use crate::harness::{Lab, eventually, oldest_criu};

fn rounds() -> u64 {
    let given = std::env::var("SELFDUMP_TEST_ROUNDS").ok();
    given.map_or(5, |rounds| rounds.parse().expect("SELFDUMP_TEST_ROUNDS is a number"))
}

/// Every thread tells of a further step, and the sum is found to be right, in what is said from here on.
fn goes_on(lab: &Lab, threads: usize, from: usize) {
    eventually("all threads and the checker go on", || {
        let all = output(lab, "invariants");
        let said = &all[from..];
        assert!(!said.contains("wrong"), "{said}");
        (follow(&all[..all.rfind('\n')? + 1]).len() == threads
            && said.matches("sum right").count() >= 2
            && (0..threads).all(|thread| said.contains(&format!("thread {thread} step "))))
        .then_some(())
    });
}

/// Two such programs at once would leave a CRIU, or anybody else, next to nothing of the processors.
static ALONE: Mutex<()> = Mutex::new(());

fn holds_at_every_moment(lab: &Lab, memory: u64, threads: usize) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let program = ready(copied(lab.program("invariants").arg(memory.to_string()).arg(threads.to_string())));
    goes_on(lab, threads, 0);
    saved(lab, program.pid(), 1);
    goes_on(lab, threads, output(lab, "invariants").len());
    program.crash();
    for round in 1..=rounds() {
        let from = output(lab, "invariants").len();
        let back = bring_back(lab, "invariants");
        assert_eq!(back.generation, round);
        goes_on(lab, threads, from.min(output(lab, "invariants").len()));
        // Every other checkpoint has one right before it, whose copy may not be gone yet.
        let number = 2 * round;
        saved(lab, back.program.pid, number);
        saved(lab, back.program.pid, number + 1);
        back.program.crash();
    }
}

#[test]
fn one_thread_that_writes_without_pause_comes_back_as_it_was_in_one_moment() {
    holds_at_every_moment(&Lab::new(), 16, 1);
}

#[test]
fn so_do_eight_threads() {
    holds_at_every_moment(&Lab::new(), 32, 8);
}

#[test]
fn so_do_sixty_four_threads() {
    holds_at_every_moment(&Lab::new(), 32, 64);
}

#[test]
fn so_do_eight_threads_with_the_oldest_supported_criu() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    holds_at_every_moment(&lab, 16, 8);
}

fn chains_are_unbroken(lab: &Lab, threads: u64) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let program = ready(copied(lab.program("chain").arg(threads.to_string())));
    let mut pid = program.pid();
    (1..=10).for_each(|number| drop(saved(lab, pid, number)));
    let mut before = follow(&program.output());
    program.crash();
    for generation in 1..=3 {
        let back = bring_back(lab, "chain");
        pid = back.program.pid;
        assert_eq!(back.generation, generation);
        eventually("every thread goes on beyond where it was", || {
            let now = follow(&output(lab, "chain"));
            (now.len() as u64 == threads && now.iter().all(|(thread, step)| *step > before[thread] + 100))
                .then_some(())
        });
        saved(lab, pid, 10 + generation);
        before = follow(&output(lab, "chain"));
        back.program.crash();
    }
    assert_eq!(
        output(lab, "chain").matches("restored chain/").count(),
        3,
        "on_restore ran once in each life"
    );
}

#[test]
fn a_chain_of_one_thread_is_unbroken_over_four_lives() {
    chains_are_unbroken(&Lab::new(), 1);
}

#[test]
fn chains_of_eight_threads_are_unbroken_over_four_lives() {
    chains_are_unbroken(&Lab::new(), 8);
}

#[test]
fn chains_of_sixty_four_threads_are_unbroken_over_four_lives() {
    chains_are_unbroken(&Lab::new(), 64);
}
