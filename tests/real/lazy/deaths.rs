//! Whoever dies while memory is filled, in each of ten random moments or in a certain one.

use std::fs;
use std::time::{Duration, Instant};

use super::{Gone, children, runs};
use crate::afterlife::{Alone, is_there};
use crate::dice::Dice;
use crate::harness::{KILL, died_of, eventually, send};

/// How long the memory of a program is filled, from the start of what fills it.
fn time_of_filling(gone: &Gone) -> Duration {
    let mut back = gone.lazily(&[]);
    eventually("a filler", || back.filler());
    let started = Instant::now();
    eventually("its end", || back.filler().is_none().then_some(()));
    let time = started.elapsed();
    back.restored();
    send(gone.pid, KILL);
    back.restorer.wait();
    time
}

#[test]
fn the_filler_killed_at_ten_random_moments_never_leaves_a_wrong_word() {
    // With children, whose holes it alone knows of.
    let gone = Gone::new(96, 2);
    let time = time_of_filling(&gone);
    let mut dice = Dice::throw();
    let mut restored_at_once = 0;
    for _ in 0..10 {
        let back = gone.lazily(&[]);
        let filler = eventually("a filler", || back.filler());
        std::thread::sleep(Duration::from_micros(dice.below(time.as_micros() as u64)));
        send(filler, KILL);
        back.restored();
        back.looks_at_everything();
        restored_at_once += usize::from(back.was_restored_at_once());
        drop(back.program());
    }
    println!("{restored_at_once} of ten were killed before they were done");
    assert!(restored_at_once > 2, "the moments are those in which it fills");
}

#[test]
fn the_program_ends_with_a_restorer_that_is_killed_and_so_does_the_filler() {
    let gone = Gone::new(96, 2);
    for moment in 0..4 {
        let back = gone.lazily(&[]);
        let filler = Alone::new(eventually("a filler", || back.filler()));
        std::thread::sleep(Duration::from_millis(60 * moment));
        send(back.restorer.pid(), KILL);
        let program = gone.pid;
        eventually("the end of both", || (!runs(program) && !runs(filler.pid)).then_some(()));
        back.said();
    }
}

#[test]
fn without_restorer_and_guard_the_program_goes_on_and_gets_its_memory() {
    let gone = Gone::new(96, 0);
    let back = gone.lazily(&[]);
    back.restored();
    let filler = back.filler();
    let is_guard = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.ends_with("selfdump"))
    };
    let guard = eventually("a guard", || children(back.restorer.pid()).into_iter().find(is_guard));
    [guard, back.restorer.pid()].into_iter().for_each(|pid| send(pid, KILL));
    let program = back.program();
    back.looks_at_everything();
    eventually("the end of the filler", || filler.is_none_or(|pid| !runs(pid)).then_some(()));
    assert!(is_there(program.pid));
}

#[test]
fn where_criu_is_killed_the_program_is_restored_at_once() {
    let gone = Gone::new(96, 0);
    let mut was_killed = false;
    for moment in 0..6 {
        let back = gone.lazily(&[]);
        let filler = eventually("a filler", || back.filler());
        // What becomes the program is one, too, until its memory is its own.
        let is_criu = |pid: &i32| {
            ![filler, gone.pid].contains(pid)
                && fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.ends_with("criu"))
        };
        let criu = eventually("CRIU", || children(back.restorer.pid()).into_iter().find(is_criu));
        std::thread::sleep(Duration::from_millis(15 * moment));
        send(criu, KILL);
        back.restored();
        back.looks_at_everything();
        was_killed |= back.was_restored_at_once();
        drop(back.program());
    }
    assert!(was_killed);
}

#[test]
fn a_program_that_ends_meanwhile_has_ended() {
    let gone = Gone::new(96, 2);
    for moment in 0..4 {
        let mut back = gone.lazily(&[]);
        back.restored();
        std::thread::sleep(Duration::from_millis(20 * moment));
        send(gone.pid, KILL);
        let ended = back.restorer.wait();
        assert!(died_of(ended, KILL), "{ended}: {}", back.restorer.output());
        assert!(!back.was_restored_at_once(), "{}", back.restorer.output());
        back.said();
    }
}
