//! Forensic checkpoints: the program in the moment in which it went wrong, for a debugger.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use serde_json::Value;

use crate::afterlife::{Alone, bring_back_with};
use crate::harness::{KILL, Lab, Subject, USR2, eventually, manifest, read_json};

const USR1: i32 = libc::SIGUSR1;

fn crasher(lab: &Lab, how: &str) -> Subject {
    crasher_with(lab, how, "on")
}

fn crasher_with(lab: &Lab, how: &str, forensic: &str) -> Subject {
    let mut command = Command::new(crate::harness::program("crasher"));
    // Where a core goes.
    command.current_dir(lab.path("."));
    let launch = lab.launch(command, "crasher").arg(how);
    let program = launch.env("SELFDUMP_ON_PANIC", forensic).env("SELFDUMP_ON_FATAL_SIGNAL", forensic).start();
    program.wait_for("ready");
    program
}

/// The program goes wrong; its end.
fn go_wrong(program: &mut Subject) -> ExitStatus {
    program.signal(USR1);
    program.wait()
}

/// Signal and core dump of the program's end without selfdump's doing: whether there is a core is the machine's to say.
fn end_without_us(how: &str) -> (Option<i32>, bool) {
    let lab = Lab::new();
    let end = go_wrong(&mut crasher_with(&lab, how, "off"));
    assert!(lab.checkpoints().is_empty());
    (end.signal(), end.core_dumped())
}

/// What gdb shows of the threads of a checkpoint that is brought back and left stopped.
fn backtraces(lab: &Lab, checkpoint: &Path) -> String {
    let back = bring_back_with(lab, checkpoint, &["--stopped"]);
    let pid = back.program.pid.to_string();
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-p", &pid, "-ex", "thread apply all backtrace"]);
    let shown = gdb.env("DEBUGINFOD_URLS", "").output().expect("gdb, of the package gdb");
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

/// The frames of the thread that went wrong, innermost first.
fn frames_of_the_worker(backtraces: &str) -> Vec<&str> {
    let worker = backtraces.split("\nThread ").find(|thread| thread.contains("deep_in_trouble"));
    let worker = worker.unwrap_or_else(|| panic!("no thread stands where it failed: {backtraces}"));
    worker.lines().filter(|line| line.starts_with('#')).collect()
}

fn stands_in_the_function_that_failed(lab: &Lab, checkpoint: &Path) {
    let shown = backtraces(lab, checkpoint);
    let frames = frames_of_the_worker(&shown);
    let at = |function: &str| frames.iter().position(|frame| frame.contains(function));
    let (trouble, way) = (at("deep_in_trouble"), at("on_the_way"));
    assert!(trouble.is_some() && trouble < way, "{frames:#?}");
}

#[test]
fn a_panic_leaves_one_that_stands_in_the_function_that_panicked() {
    let lab = Lab::new();
    let mut program = crasher(&lab, "panic");
    program.signal(USR1);
    program.wait_for("the worker ended, panicked: true");
    // The program itself goes on, as after any panic of a thread.
    assert!(program.is_running());
    let said = program.output();
    assert!(said.contains("in trouble: 42"), "the hook that was there before has run: {said}");
    let checkpoints = lab.checkpoints();
    assert_eq!(checkpoints.len(), 1);
    let manifest = manifest(&checkpoints[0]);
    assert_eq!(manifest["forensic"], true);
    let cause = &manifest["cause"];
    assert_eq!(
        (&cause["kind"], &cause["message"], &cause["thread"]),
        (&"panic".into(), &"in trouble: 42".into(), &"worker".into())
    );
    assert!(cause["location"].as_str().unwrap().contains("crasher.rs:"), "{cause}");
    program.crash();
    stands_in_the_function_that_failed(&lab, &checkpoints[0]);
}

#[test]
fn a_null_dereference_leaves_one_and_the_program_dies_as_before() {
    let lab = Lab::new();
    let mut program = crasher(&lab, "segv");
    let end = go_wrong(&mut program);
    assert_eq!((end.signal(), end.core_dumped()), end_without_us("segv"));
    assert_eq!(end.signal(), Some(libc::SIGSEGV));
    let checkpoints = lab.checkpoints();
    assert_eq!(checkpoints.len(), 1);
    let manifest = manifest(&checkpoints[0]);
    let cause = &manifest["cause"];
    assert_eq!(manifest["forensic"], true);
    assert_eq!(
        (&cause["kind"], &cause["signal"], &cause["address"]),
        (&"fatal-signal".into(), &libc::SIGSEGV.into(), &0.into())
    );
    let threads = manifest["processes"][0]["threads"].as_array().unwrap();
    assert!(threads.contains(&cause["thread"]), "{cause} of {threads:?}");
    drop(program);
    stands_in_the_function_that_failed(&lab, &checkpoints[0]);
}

#[test]
fn each_signal_of_a_crash_leaves_one_and_kills_the_program_as_before() {
    let ends = [
        ("abort", libc::SIGABRT, None),
        ("fpe", libc::SIGFPE, None),
        ("ill", libc::SIGILL, None),
        ("bus", libc::SIGBUS, None),
        // The Rust runtime's own handler comes after ours: it says what it always said.
        ("overflow", libc::SIGABRT, Some("has overflowed its stack")),
    ];
    for (how, signal, said) in ends {
        let lab = Lab::new();
        let mut program = crasher(&lab, how);
        let end = go_wrong(&mut program);
        let expected = end_without_us(how);
        assert_eq!((end.signal(), end.core_dumped()), expected, "{how}: {}", program.output());
        assert_eq!(end.signal(), Some(signal), "{how}");
        if let Some(said) = said {
            assert!(program.output().contains(said), "{}", program.output());
        }
        let causes: Vec<Value> =
            lab.checkpoints().iter().map(|path| manifest(path)["cause"].clone()).collect();
        let of_crashes = causes.iter().filter(|cause| cause["kind"] == "fatal-signal").count();
        assert!(of_crashes >= 1 && of_crashes == causes.len(), "{how}: {causes:?}");
    }
}

#[test]
fn without_a_criu_a_crash_is_what_it_always_was() {
    let mut lab = Lab::new();
    lab.criu = "/no/such/criu".into();
    let mut program = crasher(&lab, "segv");
    let end = go_wrong(&mut program);
    assert_eq!((end.signal(), end.core_dumped()), end_without_us("segv"));
    let status = lab.status().expect("a status");
    assert_eq!(status["last"]["cause"]["kind"], "fatal-signal");
    assert_eq!(status["last"]["error"]["kind"], "no-criu");
}

#[test]
fn a_panic_is_not_held_up_and_one_that_is_caught_lets_the_program_go_on() {
    let lab = Lab::new();
    let program = crasher(&lab, "hold");
    program.signal(USR1);
    program.wait_for("the worker ended, panicked: true");
    assert_eq!(lab.checkpoints().len(), 1);
    program.signal(USR2);
    eventually("an ordinary one after it", || (lab.checkpoints().len() == 2).then_some(()));

    let lab = Lab::new();
    let program = crasher(&lab, "caught");
    program.signal(USR1);
    program.wait_for("caught true");
    assert_eq!(lab.checkpoints().len(), 1);
}

#[test]
fn forensic_ones_are_listed_counted_by_themselves_and_never_chosen() {
    let lab = Lab::new();
    let program = crasher(&lab, "panic");
    program.signal(USR2);
    let ordinary = lab.wait_for_checkpoint(1);
    program.signal(USR1);
    program.wait_for("the worker ended");
    let forensic = lab.wait_for_checkpoint(2);
    let latest = fs::read_link(ordinary.with_file_name("latest")).expect("a link");
    assert_eq!(latest.to_str(), Some("000001"));
    program.crash();

    let list = lab.run(["list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let states: Vec<&str> =
        list["checkpoints"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["forensic", "good"]);
    let table = lab.run(["list"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("panic"), "{table:?}");

    let said = lab.run(["restore", "crasher", "--detach", "--json"]);
    let report: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    let back = Alone::new(report["pid"].as_i64().unwrap() as i32);
    assert!(ordinary.ends_with(report["restored"].as_str().unwrap()), "{report}");
    back.crash();

    // What is left is only to look at.
    fs::remove_dir_all(&ordinary).unwrap();
    let refused = lab.run(["restore", "crasher", "--detach"]);
    assert_eq!(refused.status.code(), Some(125));
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(errors.contains("only forensic checkpoints") && errors.contains("--stopped"), "{errors}");
    assert!(read_json(&forensic.join("manifest.json")).is_some(), "it is still there");
}

#[test]
fn a_process_that_is_left_stopped_goes_on_when_it_is_told() {
    let lab = Lab::new();
    let program = lab.program("chain").start();
    program.wait_for("thread 0 step 100");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    program.crash();
    let back = bring_back_with(&lab, &checkpoint, &["--stopped"]).program;
    let pid = back.pid;
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(state().contains(") T "), "{}", state());
    let before = fs::read_to_string(lab.path("chain.out")).unwrap();
    back.signal(libc::SIGCONT);
    eventually("it goes on", || (fs::read_to_string(lab.path("chain.out")).unwrap() != before).then_some(()));
    back.signal(KILL);
}
