//! A restorer that is killed leaves nothing behind.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::afterlife::{Alone, is_there};
use crate::harness::{KILL, Lab, Subject, eventually, manifest, selfdump, send};

/// `forker` and its four children, checkpointed and gone: their process ids.
fn gone_family(lab: &Lab) -> Vec<i32> {
    let parent = lab.program("forker").start();
    parent.wait_for("ready");
    eventually("its children", || (parent.output().matches("child ").count() >= 4).then_some(()));
    parent.signal(crate::harness::USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let processes = manifest(&checkpoint)["processes"].as_array().unwrap().clone();
    let pids: Vec<i32> = processes.iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect();
    assert_eq!(pids.len(), 5);
    parent.crash();
    let children = pids[1..].iter().map(|&pid| Alone::new(pid));
    children.for_each(Alone::crash);
    pids
}

/// Whoever is left is ended, so that a test that fails leaves nothing behind either.
struct Left<'a>(&'a [i32]);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.iter().filter(|&&pid| is_there(pid)).for_each(|&pid| send(pid, KILL));
    }
}

fn none_is_left(pids: &[i32]) {
    let _left = Left(pids);
    let runs = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    eventually("the end of all processes", || (!pids.iter().any(|&pid| runs(pid))).then_some(()));
}

/// The commands of a process's children.
fn children(pid: i32) -> Vec<(i32, PathBuf)> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter_map(|pid| Some((pid, fs::read_link(format!("/proc/{pid}/exe")).ok()?))).collect()
}

fn guard_of(restorer: &Subject) -> i32 {
    eventually("a guard", || {
        let found = children(restorer.pid()).into_iter().find(|(_, program)| program.ends_with("selfdump"));
        found.map(|(pid, _)| pid)
    })
}

#[test]
fn the_program_and_its_children_end_with_a_restorer_that_is_killed() {
    let lab = Lab::new();
    let pids = gone_family(&lab);
    let restorer = lab.restore("forker");
    restorer.wait_for("selfdump: restored forker/");
    let guard = guard_of(&restorer);
    restorer.crash();
    none_is_left(&pids);
    eventually("the end of the guard", || (!is_there(guard)).then_some(()));
}

#[test]
fn so_does_what_there_is_of_it_in_the_middle_of_a_restore() {
    let lab = Lab::new();
    let pids = gone_family(&lab);
    for moment in 0..8 {
        let restorer = lab.restore("forker");
        // On a busy machine it may be done before it was seen.
        eventually("CRIU", || {
            let is_at_work = children(restorer.pid()).iter().any(|(_, program)| program.ends_with("criu"));
            (is_at_work || restorer.output().contains("selfdump: restored")).then_some(())
        });
        std::thread::sleep(Duration::from_millis(5 * moment));
        restorer.crash();
        none_is_left(&pids);
    }
}

/// The one before may be at its end only now, and the same process id is another's again.
#[test]
fn the_guard_of_a_restore_before_leaves_the_program_alone() {
    let lab = Lab::new();
    let pids = gone_family(&lab);
    let restorer = lab.restore("forker");
    restorer.wait_for("selfdump: restored forker/");
    let guard = guard_of(&restorer);
    // It is to tell its guard nothing of the end.
    restorer.stop();
    pids.iter().for_each(|&pid| send(pid, KILL));
    restorer.crash();
    let mut command = selfdump();
    command.args(["restore", "forker"]);
    let again = lab.launch(command, "again").start();
    again.wait_for("selfdump: restored forker/");
    eventually("the end of the guard", || (!is_there(guard)).then_some(()));
    assert!(pids.iter().all(|&pid| is_there(pid)), "{}", again.output());
    again.crash();
    none_is_left(&pids);
}

#[test]
fn a_program_that_ends_by_itself_leaves_its_children_alone_and_no_guard() {
    let lab = Lab::new();
    let pids = gone_family(&lab);
    let mut restorer = lab.restore("forker");
    restorer.wait_for("selfdump: restored forker/");
    let guard = guard_of(&restorer);
    send(pids[0], KILL);
    restorer.wait();
    eventually("the end of the guard", || (!is_there(guard)).then_some(()));
    let _left = Left(&pids);
    assert!(pids[1..].iter().all(|&pid| is_there(pid)), "they go on, as they would without a restorer");
}

#[test]
fn a_restorer_goes_on_without_its_guard() {
    let lab = Lab::new();
    let pids = gone_family(&lab);
    let mut restorer = lab.restore("forker");
    restorer.wait_for("selfdump: restored forker/");
    send(guard_of(&restorer), KILL);
    let _left = Left(&pids);
    restorer.signal(libc::SIGTERM);
    assert!(crate::harness::died_of(restorer.wait(), libc::SIGTERM));
}
