//! Whoever is killed: what becomes of a program that the service has brought back, or is about to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::restores::{checkpoint, comes_back, output, restore, start as selfdump};
use super::{ONE, Served, TERM, names, start};
use crate::chain::follow;
use crate::harness::{KILL, Restored, Subject, criu, eventually, send};

pub fn is_gone(pid: i32) -> Option<()> {
    (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
}

fn goes_on(served: &Served) {
    let steps = || output(served, ONE).matches("step").count();
    let before = steps();
    eventually("more steps", || (steps() > before).then_some(()));
}

#[test]
fn a_program_ends_with_its_restorer_and_with_the_service() {
    for (by_the_service, signal) in [(false, KILL), (true, TERM), (true, KILL)] {
        let mut served = Served::new(&[]);
        let (checkpoint, pid) = checkpoint(&served, ONE);
        let mut restored = Restored { restorer: restore(&served, ONE, &checkpoint), pid };
        restored.restorer.wait_for("selfdump: restored");
        comes_back(&served, ONE);
        if by_the_service {
            served.service.signal(signal);
            assert_eq!(served.service.wait().success(), signal == TERM);
            assert!(!restored.restorer.wait().success());
            let said = restored.restorer.output();
            assert!(said.contains("is gone, and the program with it"), "{said}");
        } else {
            restored.restorer.signal(signal);
            restored.restorer.wait();
            eventually("nothing under way", || served.is_idle().then_some(()));
        }
        eventually("the end of the program", || is_gone(pid));
    }
}

/// Then nobody is left who knows of the program but the restorer's guard.
#[test]
fn a_program_ends_where_its_restorer_and_the_service_are_killed_together() {
    let mut served = Served::new(&[]);
    let (checkpoint, pid) = checkpoint(&served, ONE);
    let mut restored = Restored { restorer: restore(&served, ONE, &checkpoint), pid };
    comes_back(&served, ONE);
    for one in [&restored.restorer, &served.service] {
        one.stop();
    }
    for one in [&mut restored.restorer, &mut served.service] {
        one.signal(KILL);
        one.wait();
    }
    eventually("the end of the program", || is_gone(pid));
}

#[test]
fn a_program_that_is_left_to_itself_outlives_its_restorer_and_the_service() {
    let mut served = Served::new(&[]);
    let (checkpoint, pid) = checkpoint(&served, ONE);
    let mut restorer = selfdump(&served, ONE, &["restore", "--detach", checkpoint.to_str().unwrap()]);
    assert!(restorer.wait().success(), "{}", restorer.output());
    assert!(restorer.output().contains(&format!("as process {pid}")), "{}", restorer.output());
    let restored = Restored { restorer, pid };
    comes_back(&served, ONE);
    assert!(served.is_idle(), "it isn't the service's child");
    served.service.signal(KILL);
    served.service.wait();
    goes_on(&served);
    drop(restored);
    follow(&output(&served, ONE));
}

/// At moments that go through a whole restore. Whatever had come of it by then, nothing of it is left.
#[test]
fn whoever_is_killed_during_a_restore_leaves_nothing_of_it() {
    const ROUNDS: u64 = 12;
    let mut served = Served::new(&["--requests-each", "100000"]);
    let (checkpoint, pid) = checkpoint(&served, ONE);
    let took = {
        let since = std::time::Instant::now();
        let restored = Restored { restorer: restore(&served, ONE, &checkpoint), pid };
        restored.restorer.wait_for("selfdump: restored");
        since.elapsed()
    };
    for (by_the_service, signal) in [(false, KILL), (true, TERM), (true, KILL)] {
        let came = || served_count(&served, "restored process");
        let before = came();
        let mut began = 0;
        for round in 0..ROUNDS {
            eventually("the last program's end", || (served.is_idle().then_some(())).and(is_gone(pid)));
            let mut restorer = restore(&served, ONE, &checkpoint);
            std::thread::sleep(took.mul_f64(round as f64 / ROUNDS as f64) + Duration::from_millis(round % 5));
            began += 1;
            if by_the_service {
                served.service.signal(signal);
                served.service.wait();
                let ended = restorer.wait();
                assert!(!ended.success(), "{}", restorer.output());
                eventually("the end of the program", || is_gone(pid));
                served.service = start(&served.lab, &criu(), &["--requests-each", "100000"]);
            } else {
                restorer.signal(signal);
                restorer.wait();
            }
            eventually("nothing under way", || served.is_idle().then_some(()));
            eventually("the end of the program", || is_gone(pid));
            eventually("no copy", || names(&served.lab.path("state/restores")).is_empty().then_some(()));
        }
        let back = served_count(&served, "restored process") - before;
        println!("signal {signal}, the service's: {by_the_service}; {back} of {began} had come back");
    }
    let restored = Restored { restorer: restore(&served, ONE, &checkpoint), pid };
    restored.restorer.wait_for("selfdump: restored");
    goes_on(&served);
    drop(restored);
    follow(&output(&served, ONE));
}

fn served_count(served: &Served, result: &str) -> usize {
    served.service.output().matches(&format!("asked=restore result=\"{result}")).count()
}

/// A restore whose worker was stopped when there was half of the program; and that worker.
fn halfway(served: &Served, checkpoint: &Path, pid: i32) -> (Subject, i32) {
    for _ in 0..50 {
        let mut restorer = restore(served, ONE, checkpoint);
        let worker = eventually("a worker", || served.worker());
        while is_gone(pid).is_some() {
            std::hint::spin_loop();
        }
        send(worker, 19);
        // It has the program's own command line when it has become that.
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.contains("criu") {
            return (restorer, worker);
        }
        send(worker, 18);
        send(pid, KILL);
        restorer.wait();
        eventually("nothing under way", || served.is_idle().then_some(()).and(is_gone(pid)));
    }
    panic!("it always came too late");
}

#[test]
fn a_service_or_a_restorer_that_is_killed_halfway_leaves_no_half_of_a_program() {
    for by_the_service in [false, true] {
        let mut served = Served::new(&["--requests-each", "100000"]);
        let (checkpoint, pid) = checkpoint(&served, ONE);
        let (mut restorer, worker) = halfway(&served, &checkpoint, pid);
        if by_the_service {
            served.service.signal(KILL);
            served.service.wait();
            assert!(!restorer.wait().success());
        } else {
            restorer.signal(KILL);
            restorer.wait();
            eventually("nothing under way", || served.is_idle().then_some(()));
            served.service.wait_for("asked=restore result=\"refused: the program");
        }
        eventually("the end of the worker", || is_gone(worker));
        eventually("the end of the half", || is_gone(pid));
    }
}
