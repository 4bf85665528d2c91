//! Threads in each kind of wait go on rightly, in the program that was copied and in the one that comes back.

use std::collections::BTreeMap;
use std::process::Command;

use super::{copied, output, ready, saved};
use crate::afterlife::bring_back;
use crate::c::compiled;
use crate::harness::{Lab, eventually};

/// How many kinds there are, with locks of files and without.
const KINDS: usize = 31;
const WITHOUT_A_FOLDER: usize = 28;

/// What must not be interrupted by a halt: these calls the kernel makes again, or goes on with (signal(7)).
const GO_ON: [&str; 7] = ["futex", "semaphore", "sleep", "poll", "pipe", "signalfd", "timerfd"];

/// The last count of each kind; `interrupted KIND` are kinds of their own.
fn counts(said: &str) -> BTreeMap<String, u64> {
    assert!(
        !said.contains("wrong"),
        "{}",
        said.lines().filter(|line| line.contains("wrong")).collect::<String>()
    );
    // A line that is cut by a kill is followed by no other of its life.
    let lines = said.lines().filter_map(|line| line.rsplit_once(' '));
    lines.filter_map(|(kind, count)| Some((kind.to_owned(), count.parse().ok()?))).collect()
}

/// Each kind is right ten times more, from here on.
fn all_go_on(lab: &Lab, kinds: usize, from: usize) {
    let said = || output(lab, "waits")[from..].to_owned();
    let before = eventually("a word of all", || Some(counts(&said())).filter(|now| now.len() >= kinds));
    let is_on = |now: &BTreeMap<String, u64>, kind: &str| now[kind] > before[kind] + 10;
    let kinds = before.keys().filter(|kind| !kind.starts_with("interrupted "));
    for kind in kinds {
        eventually(&format!("{kind} goes on"), || is_on(&counts(&said()), kind).then_some(()));
    }
}

fn in_each_kind_of_wait(lab: &Lab, mut command: Command, kinds: usize) {
    // Its output is a file that is appended to.
    command.current_dir(lab.path(""));
    let program = ready(copied(lab.launch(command, "waits")));
    let pid = program.pid();
    all_go_on(lab, kinds, 0);
    for number in 1..=6 {
        saved(lab, pid, number);
        all_go_on(lab, kinds, 0);
    }
    let now = counts(&program.output());
    for kind in GO_ON {
        assert_eq!(
            now.get(&format!("interrupted {kind}")),
            None,
            "the program isn't a restored one: {now:?}"
        );
    }
    program.crash();

    for number in 7..=8 {
        let from = output(lab, "waits").len();
        let back = bring_back(lab, "waits");
        all_go_on(lab, kinds, from);
        saved(lab, back.program.pid, number);
        all_go_on(lab, kinds, from);
        back.program.crash();
    }
}

#[test]
fn whatever_a_thread_waits_for_it_goes_on_rightly_in_the_program_and_in_the_restored_one() {
    let lab = Lab::new();
    let command = Command::new(compiled(&lab, "tests/programs/waits.c"));
    in_each_kind_of_wait(&lab, command, WITHOUT_A_FOLDER);
}

#[test]
fn so_it_does_where_it_holds_locks_of_files() {
    let lab = Lab::new();
    let mut command = Command::new(compiled(&lab, "tests/programs/waits.c"));
    command.arg(lab.path(""));
    in_each_kind_of_wait(&lab, command, KINDS);
}
