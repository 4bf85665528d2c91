//! What keeps a program from being copied: with `cow` it is named, with `auto` the program stands still, and it is told why.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::{caught, copied, ready, saved};
use crate::afterlife::bring_back;
use crate::aftermath::drafts;
use crate::harness::{Lab, Launch, USR2, eventually, program, succeeds};

/// What is in the way, the kind of the error, and what names it.
const OBSTACLES: [(&str, &str, &[&str]); 14] = [
    ("child", "dump", &["the program has a child (process "]),
    ("shared-mapping", "dump", &["writable memory that it may share", "/dev/zero"]),
    ("timer", "dump", &["the program has 1 of its own timers (timer_create)"]),
    ("locked", "dump", &["the program has 64.0 KiB of its memory locked (mlock)"]),
    ("not-inherited", "dump", &["MADV_DONTFORK"]),
    ("connection", "descriptor", &["a socket that doesn't listen", "descriptor ", "(socket:["]),
    ("datagrams", "descriptor", &["a socket that doesn't listen"]),
    ("pair", "descriptor", &["a socket that doesn't listen"]),
    ("without-a-name", "descriptor", &["a file without a name", "nameless (deleted)"]),
    ("named-pipe", "descriptor", &["a named pipe", "/named-pipe)"]),
    ("inotify", "descriptor", &["what can't be copied", "anon_inode:inotify"]),
    ("memfd", "descriptor", &["memory that is a file (memfd)", "/memfd:some"]),
    ("adopts", "config", &["adopts orphans"]),
    ("thread-of-other-rights", "dump", &["has other rights than the main thread"]),
];

/// Where orphans come to, a CRIU can't be started at all.
const NEVER: &str = "adopts";

/// `hindered`, run to its end; what it says of each.
fn said(lab: &Lab, snapshot: &str, arguments: &[&str]) -> BTreeMap<String, String> {
    let mut command = Command::new(program("hindered"));
    command.args(arguments).current_dir(lab.path(""));
    let launch = lab.launch(command, "hindered").env("SELFDUMP_SNAPSHOT", snapshot);
    let mut program = launch.env("SELFDUMP_KEEP", "100").start();
    assert!(program.wait().success(), "{}", program.output());
    let output = program.output();
    output
        .lines()
        .filter_map(|line| line.split_once(" | "))
        .map(|(id, said)| (id.to_owned(), said.to_owned()))
        .collect()
}

#[test]
fn with_cow_each_obstacle_is_named_and_there_is_no_checkpoint() {
    let lab = Lab::new();
    let said = said(&lab, "cow", &[]);
    for (id, kind, words) in OBSTACLES {
        let of_it = &said[id];
        assert!(of_it.starts_with(&format!("{kind} | ")), "{id}: {of_it}");
        words.iter().for_each(|word| assert!(of_it.contains(word), "{word:?} is not in {id}: {of_it}"));
        assert!(of_it.contains("SELFDUMP_SNAPSHOT="), "the way out: {of_it}");
    }
    assert_eq!(said["nothing"], "saved | a copy of the program, which ran on");
    assert_eq!(lab.checkpoints().len(), 1, "of the program with nothing in the way");
    assert!(drafts(&lab).is_empty(), "nothing is left of those that failed");
}

#[test]
fn with_auto_the_program_itself_is_dumped_and_the_report_says_why() {
    let lab = Lab::new();
    let said = said(&lab, "auto", &[]);
    for (id, _, words) in OBSTACLES.into_iter().filter(|(id, ..)| *id != NEVER) {
        let of_it = &said[id];
        assert!(of_it.starts_with("saved | the program itself: "), "{id}: {of_it}");
        words.iter().for_each(|word| assert!(of_it.contains(word), "{word:?} is not in {id}: {of_it}"));
    }
    assert_eq!(said["nothing"], "saved | a copy of the program, which ran on");
    assert_eq!(lab.checkpoints().len(), OBSTACLES.len());
    for checkpoint in lab.checkpoints() {
        succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
    }
}

#[test]
fn with_freeze_nothing_is_said_of_copies() {
    let lab = Lab::new();
    let said = said(&lab, "freeze", &[]);
    assert_eq!(said.len(), OBSTACLES.len() + 1);
    for (id, said) in said.iter().filter(|(id, _)| *id != NEVER) {
        assert_eq!(said, "saved | the program itself", "{id}");
    }
}

#[test]
fn a_filter_of_system_calls_is_an_obstacle_too() {
    let lab = Lab::new();
    let strict = said(&lab, "cow", &["seccomp"]);
    assert!(strict["seccomp"].starts_with("dump | a seccomp filter judges"), "{strict:?}");
    assert!(lab.checkpoints().is_empty());
    let lab = Lab::new();
    let lenient = said(&lab, "auto", &["seccomp"]);
    // In a container, which is under a filter itself, CRIU can't dump such a program at all.
    let expected = match said(&Lab::new(), "freeze", &["seccomp"])["seccomp"].as_str() {
        "saved | the program itself" => "saved | the program itself: a seccomp filter judges",
        _ => "capability-missing | CRIU: the dump failed",
    };
    assert!(lenient["seccomp"].starts_with(expected), "{lenient:?}");
}

#[test]
fn a_thread_that_the_kernel_lets_nobody_halt_is_named_and_all_go_on() {
    let lab = Lab::new();
    let said = said(&lab, "cow", &["uninterruptible"]);
    let of_it = &said["uninterruptible"];
    assert!(of_it.starts_with("io | can't make a copy of the program: thread "), "{of_it}");
    for word in ["state D", "vfork()", "SELFDUMP_SNAPSHOT=auto"] {
        assert!(of_it.contains(word), "{word:?} is not in {of_it}");
    }
    assert_eq!(said["nothing"], "saved | a copy of the program, which ran on");
    assert_eq!(lab.checkpoints().len(), 1);
    assert!(drafts(&lab).is_empty());
}

/// The error of a status, once there is one.
fn failure(lab: &Lab) -> Value {
    lab.status_when("a failure", |status| !status["last"]["error"].is_null())["last"]["error"].clone()
}

fn asker(lab: &Lab, arguments: &[&str]) -> Launch {
    lab.program("asker").arg("4").args(arguments)
}

#[test]
fn from_outside_it_is_seen_what_is_in_the_way_and_that_the_program_goes_on() {
    let lab = Lab::new();
    let program = ready(copied(asker(&lab, &["shared=4"])));
    program.signal(USR2);
    let error = failure(&lab);
    assert!(error["message"].as_str().unwrap().contains("writable memory that it may share"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("SELFDUMP_SNAPSHOT=auto"), "{error}");
    let shown = succeeds(&mut lab.selfdump(["status", &program.pid().to_string()]));
    assert!(shown.contains("writable memory that it may share"), "{shown}");
    let ticks = || program.output().matches("tick").count();
    let before = ticks();
    eventually("it goes on", || (ticks() > before + 20).then_some(()));
    assert!(lab.checkpoints().is_empty());
}

#[test]
fn where_it_falls_back_status_and_show_say_why_and_the_program_comes_back() {
    let lab = Lab::new();
    let program = ready(asker(&lab, &["shared=4"]).env("SELFDUMP_SNAPSHOT", "auto"));
    let (checkpoint, technique) = caught(&lab, program.pid(), 1);
    assert_eq!(technique["how"], "fell-back", "{technique}");
    assert!(technique["why"].as_str().unwrap().contains("writable memory that it may share"), "{technique}");
    let pid = program.pid().to_string();
    for command in [["status", &pid], ["show", checkpoint.to_str().unwrap()]] {
        let shown = succeeds(&mut lab.selfdump(command));
        assert!(shown.contains("the program itself: the program has writable memory"), "{shown}");
    }
    assert!(program.output().contains("no copy of the program can be made"), "it is logged");
    program.crash();
    let back = bring_back(&lab, "asker");
    assert_eq!(caught(&lab, back.program.pid, 2).1["how"], "fell-back");
}

#[test]
fn an_obstacle_that_goes_away_is_none_for_the_next_checkpoint() {
    let lab = Lab::new();
    let program = ready(copied(asker(&lab, &["io-uring"])));
    program.signal(USR2);
    let error = failure(&lab);
    assert!(error["message"].as_str().unwrap().contains("io_uring"), "{error}");
    program.signal(libc::SIGHUP);
    program.wait_for("relieved");
    saved(&lab, program.pid(), 1);
}
