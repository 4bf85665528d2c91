//! The signal, the timer and the thread: what a program notices of selfdump.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::{Lab, USR2, eventually, manifest};

#[test]
fn the_handler_allocates_nothing_keeps_errno_and_runs_the_handler_that_was_there_before() {
    let lab = Lab::new();
    let program = lab.program("handler").start();
    let line = program.wait_for("raised ");
    assert_eq!(line, "raised 100000 allocated 0 errno changed 0 earlier handler ran 100000");
    lab.wait_for_checkpoint(1);
    program.crash();
}

#[test]
fn a_thousand_signals_during_a_dump_make_exactly_one_more() {
    let lab = Lab::new();
    let mut program = lab.program("family").arg("200").start();
    program.wait_for("ready");
    program.signal(USR2);
    let instance = eventually("the folder of the instance", || {
        let folder = lab.store().join("family");
        fs::read_dir(folder).ok()?.next()?.ok().map(|entry| entry.path())
    });
    let draft = instance.join("000001.partial");
    // CRIU itself has begun: whatever comes now, comes while it is at work.
    eventually("the dump", || draft.join("images/dump.log").exists().then_some(()));
    for _ in 0..1000 {
        program.signal(USR2);
    }
    assert!(draft.exists(), "the dump was over before the burst was; it needs more memory");

    lab.wait_for_checkpoint(2);
    // A third would begin at once.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(numbers(&instance), ["000001", "000002"]);
    program.signal(USR2);
    lab.wait_for_checkpoint(3);
    assert!(program.is_running());
    program.crash();
}

/// The names of checkpoints and drafts.
fn numbers(instance: &PathBuf) -> Vec<String> {
    let entries =
        fs::read_dir(instance).expect("the instance").map(|entry| entry.expect("an entry").file_name());
    let names = entries.map(|name| name.to_string_lossy().into_owned());
    let mut numbers: Vec<String> = names.filter(|name| name.starts_with('0')).collect();
    numbers.sort();
    numbers
}

#[test]
fn a_period_makes_checkpoints_by_itself() {
    let lab = Lab::new();
    let program = lab.program("family").env("SELFDUMP_EVERY", "1s").start();
    program.wait_for("ready");
    let first = lab.wait_for_checkpoint(1);
    assert_eq!(manifest(&first)["cause"]["kind"], "timer");
    let second = lab.wait_for_checkpoint(2);
    let between = manifest(&second)["taken_unix_us"].as_u64().unwrap()
        - manifest(&first)["taken_unix_us"].as_u64().unwrap();
    assert!(between >= 900_000, "{between} µs after the first");
    program.crash();
}

#[test]
fn the_thread_has_a_name_and_takes_no_signal_of_the_program() {
    let lab = Lab::new();
    let program = lab.program("family").start();
    program.wait_for("ready");
    let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "selfdump\n");
    // It gives itself its name when it begins to run.
    let thread = eventually("the thread", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", program.pid())).expect("its threads");
        let threads: Vec<PathBuf> = tasks.map(|task| task.expect("a thread").path()).filter(named).collect();
        assert!(threads.len() < 2, "{threads:?}");
        threads.into_iter().next()
    });
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask");
    let blocked = u64::from_str_radix(mask.trim(), 16).unwrap();
    // SIGKILL and SIGSTOP can't be blocked; 32 and 33 are the C library's own; those of a crash are everybody's.
    let left = [9, 19, 32, 33, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];
    for signal in (1..=64).filter(|signal| !left.contains(signal)) {
        assert!(blocked & (1 << (signal - 1)) != 0, "signal {signal} is not blocked: {mask}");
    }
    program.crash();
}

#[test]
fn no_descriptor_on_the_store_is_in_the_checkpoint() {
    let lab = Lab::new();
    let program = lab.program("family").start();
    program.wait_for("ready");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let manifest = manifest(&checkpoint);
    let descriptors = manifest["processes"][0]["descriptors"].as_array().unwrap();
    assert!(descriptors.len() >= 3, "{descriptors:?}");
    let store = lab.store().to_str().unwrap().to_owned();
    for descriptor in descriptors {
        let path = descriptor["path"].as_str().unwrap_or_default();
        assert!(!path.starts_with(&store), "{descriptor}");
    }
    program.crash();
}
