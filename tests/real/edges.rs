//! Programs that do what selfdump can't foresee: they close what they don't know, crash with locks held, panic in
//! hooks and loggers, fork in the middle of things. None of them hangs, and none loses what is its own.

use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::afterlife::bring_back;
use crate::harness::{Lab, USR2, died_of, eventually, manifest, program};

/// Runs a situation to its end; what it said, and how it ended.
fn end_of(lab: &Lab, situation: &str) -> (String, ExitStatus) {
    let mut program = lab.program("edges").arg(situation).env("SELFDUMP_TIMEOUT", "20s").start();
    let status = program.wait();
    (program.output(), status)
}

fn ends_well(lab: &Lab, situation: &str, lines: &[&str]) {
    let (said, status) = end_of(lab, situation);
    assert!(status.success(), "{situation}: {status} {said}");
    for line in lines {
        assert!(said.lines().any(|known| known == *line), "{situation}: {line:?} is not in {said}");
    }
}

/// The ticks of a second that the agent used while nothing happened.
fn busy(said: &str) -> u64 {
    said.lines().find_map(|line| line.strip_prefix("busy ")?.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn a_panic_while_checkpoints_are_held_up_does_not_keep_the_agent_busy() {
    let (said, status) = end_of(&Lab::new(), "held-and-panicking");
    assert!(status.success() && busy(&said) < 30, "{said}");
}

#[test]
fn panics_do_not_put_off_what_is_scheduled() {
    ends_well(&Lab::new(), "panicking-often", &["ordinary attempts 1"]);
}

#[test]
fn a_panic_that_holds_what_the_agent_waits_for_goes_on() {
    let lab = Lab::new();
    ends_well(&lab, "stderr-locked", &["the panic went on"]);
    assert_eq!(lab.checkpoints().len(), 1);
    ends_well(&Lab::new(), "hook-waits-for-the-panic", &["the panic went on", "then saved"]);
}

#[test]
fn a_logger_that_panics_keeps_nobody_waiting_and_the_exit_signal_ends_the_program() {
    let lab = Lab::new();
    let (said, status) = end_of(&lab, "logger-panics");
    assert!(said.contains("first saved") && said.contains("second saved"), "{said}");
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(lab.checkpoints().len(), 3);
}

#[test]
fn a_child_that_closes_everything_keeps_its_own_files_and_threads() {
    let expected =
        ["6 of 6 files are as they were", "its thread ended well: true", "its own checkpoint: true"];
    ends_well(&Lab::new(), "child-closes-all", &expected);
}

#[test]
fn a_program_that_closes_everything_keeps_its_data_and_is_checkpointed_still() {
    let lab = Lab::new();
    let (said, status) = end_of(&lab, "closes-all");
    assert!(status.success() && busy(&said) < 30, "{said}");
    assert!(said.contains("7 of 7 bytes are there") && said.contains("a checkpoint: true"), "{said}");
    assert_eq!(lab.checkpoints().len(), 1, "their data is no wake-up");
}

#[test]
fn a_child_that_is_forked_while_selfdump_goes_can_have_its_own() {
    let expected = ["the child has installed it: true", "uninstalled during a checkpoint: true"];
    ends_well(&Lab::new(), "child-and-uninstall", &expected);
}

#[test]
fn a_checkpoint_in_which_a_thread_has_crashed_is_not_one_to_go_on_from() {
    let lab = Lab::new();
    let (said, status) = end_of(&lab, "crash-in-a-hook's-time");
    assert!(died_of(status, libc::SIGSEGV), "{status} {said}");
    let all: Vec<Value> = lab.checkpoints().iter().map(|path| manifest(path)["forensic"].clone()).collect();
    assert_eq!(all, [true], "{said}");
}

#[test]
fn a_crash_that_holds_the_allocators_lock_ends_in_bounded_time() {
    let started = Instant::now();
    let (said, status) = end_of(&Lab::new(), "allocator-locked");
    assert!(died_of(status, libc::SIGSEGV), "{status} {said}");
    // Ten seconds, and not CRIU's time.
    assert!(started.elapsed() < Duration::from_secs(50), "{:?}", started.elapsed());
}

#[test]
fn agents_of_one_process_prune_each_others_checkpoints() {
    let lab = Lab::new();
    ends_well(&lab, "installs-again", &["done"]);
    assert_eq!(lab.checkpoints().len(), 1);
}

#[test]
fn the_generation_outlives_the_agent() {
    let lab = Lab::new();
    let program = lab.program("edges").arg("generation").start();
    let checkpoint = lab.wait_for_checkpoint(1);
    program.crash();
    let back = bring_back(&lab, "edges");
    let output = || std::fs::read_to_string(lab.path("edges.out")).unwrap();
    eventually("its second checkpoint", || output().contains("generation 1 then 1 saved true").then_some(()));
    let newest = lab.checkpoints().pop().unwrap();
    assert_eq!(manifest(&newest)["life"]["generation"], 1);
    assert_eq!(newest.parent(), checkpoint.parent(), "it is the same instance");
    back.program.crash();
}

#[test]
fn a_handler_that_interrupts_reads_goes_on_doing_so() {
    ends_well(&Lab::new(), "read-interrupted", &["the read was interrupted: true"]);
}

#[test]
fn an_exit_signal_is_never_lost() {
    for situation in ["exit-and-uninstall", "exit-panics"] {
        let (said, status) = end_of(&Lab::new(), situation);
        assert!(died_of(status, libc::SIGTERM), "{situation}: {status} {said}");
    }
}

#[test]
fn an_abort_in_a_hook_does_not_wait_for_itself() {
    let (said, status) = end_of(&Lab::new(), "abort-in-a-hook");
    assert!(died_of(status, libc::SIGABRT), "{status} {said}");
}

#[test]
fn linking_survives_a_wrong_value_that_nobody_can_be_told_of() {
    let lab = Lab::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(program("linked"));
    command.envs(lab.environment()).env("SELFDUMP_EVERY", "bogus").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(full).spawn().unwrap();
    let mut first = [0; 7];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"step 0\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_program_leaves_with_its_children_and_comes_back_with_them() {
    let lab = Lab::new();
    let mut program = lab.program("leaver").arg("child").start();
    let child: i32 = program.wait_for("child ").split(' ').nth(1).unwrap().parse().unwrap();
    program.wait_for("tick 10");
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().code(), Some(0));
    eventually("the child's end", || (!crate::afterlife::is_there(child)).then_some(()));
    let back = bring_back(&lab, "leaver");
    let child = crate::afterlife::Alone::new(child);
    assert!(crate::afterlife::is_there(child.pid), "it is back");
    back.program.crash();
    drop(child);
}

#[test]
fn settings_of_a_restore_that_never_ran_are_not_the_next_ones() {
    let lab = Lab::new();
    let program = lab.program("hooked").start();
    program.wait_for("ready");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    program.crash();
    let stopped = ["--stopped", "--set", "role=replica"];
    crate::afterlife::bring_back_with(&lab, &checkpoint, &stopped).program.crash();
    let back = bring_back(&lab, "hooked");
    let output = || std::fs::read_to_string(lab.path("hooked.out")).unwrap();
    eventually("it comes back", || {
        output().contains("on restore generation 1 (true, true, true) {}").then_some(())
    });
    back.program.crash();
}
