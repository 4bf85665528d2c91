//! The exit signal: a checkpoint, and then the end.

use crate::afterlife::bring_back;
use crate::failures::small_disk::Disk;
use crate::harness::{Lab, Subject, USR2, died_of, eventually, manifest, send};

const TERM: i32 = libc::SIGTERM;

fn leaver(lab: &Lab, situations: &[&str]) -> Subject {
    let launch = situations.iter().fold(lab.program("leaver"), |launch, situation| launch.arg(situation));
    let program = launch.start();
    program.wait_for("tick 10");
    program
}

fn ticks(output: &str) -> Vec<u64> {
    output.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect()
}

#[test]
fn it_leaves_with_a_checkpoint_and_goes_on_without_a_line_lost() {
    for (situations, status) in [(&[][..], 0), (&["status=85"], 85), (&["handler"], 0)] {
        let lab = Lab::new();
        let mut program = leaver(&lab, situations);
        program.signal(TERM);
        assert_eq!(program.wait().code(), Some(status), "{situations:?}");
        let checkpoints = lab.checkpoints();
        assert_eq!(checkpoints.len(), 1);
        let manifest = manifest(&checkpoints[0]);
        assert_eq!(manifest["cause"], serde_json::json!({"kind": "signal", "signal": TERM}));
        assert!(!program.output().contains("old handler"), "the old action didn't happen");
        assert_eq!(lab.status().unwrap()["last"]["saved"], true);

        // With its last tenth tick: nothing was flushed on the way out.
        let first_life = ticks(&program.output());
        assert!(first_life.iter().enumerate().all(|(at, &tick)| tick == at as u64), "{first_life:?}");
        assert_eq!(first_life.last().unwrap() % 10, 0, "{situations:?}");

        let back = bring_back(&lab, "leaver");
        let output = || std::fs::read_to_string(lab.path("leaver.out")).unwrap();
        eventually("it goes on", || (ticks(&output()).len() > first_life.len() + 50).then_some(()));
        assert!(output().contains("restored generation 1"));
        // It goes on with the tick that stood first in its buffer: none is lost, and until the end of the first
        // life, which went on until its checkpoint was on disk, they are the same.
        let second_life = ticks(&output()).split_off(first_life.len());
        let begin = second_life[0];
        assert!(begin % 10 == 1 && begin <= first_life.len() as u64, "{begin} after {}", first_life.len());
        assert!(second_life.iter().zip(begin..).all(|(&tick, expected)| tick == expected), "{second_life:?}");
        // The next notice is answered as well.
        back.program.signal(TERM);
        eventually("it has left again", || (lab.checkpoints().len() == 2).then_some(()));
    }
}

#[test]
fn the_program_can_decide_how_it_leaves() {
    let lab = Lab::new();
    let mut program = leaver(&lab, &["closure"]);
    program.signal(TERM);
    assert_eq!(program.wait().code(), Some(77));
    assert!(program.output().contains("leaving with leaver/"), "{}", program.output());
    assert_eq!(lab.checkpoints().len(), 1);
}

#[test]
fn where_the_checkpoint_fails_the_old_action_happens_and_the_reason_is_told() {
    for (situations, old_handler) in [(&[][..], false), (&["handler"], true)] {
        let lab = Lab::new();
        // There is room for the word about it, but not for the memory.
        let _disk = Disk::of(&lab, 1);
        let launch = situations.iter().fold(lab.program("leaver"), |launch, situation| launch.arg(situation));
        let mut program = launch.start();
        program.wait_for("tick 10");
        program.signal(TERM);
        if old_handler {
            program.wait_for("old handler");
            let ticks_then = ticks(&program.output()).len();
            eventually("it goes on", || (ticks(&program.output()).len() > ticks_then).then_some(()));
            program.signal(libc::SIGKILL);
        }
        let expected = if old_handler { libc::SIGKILL } else { TERM };
        assert!(died_of(program.wait(), expected), "{situations:?}");
        let failure = lab.status().expect("a status");
        assert_eq!(failure["last"]["error"]["kind"], "no-space", "{failure}");
        assert!(failure["last"]["error"]["hint"].as_str().unwrap().contains("free space"));
        assert!(lab.checkpoints().is_empty());
    }
}

#[test]
fn a_forked_child_ends_by_the_signal_as_it_always_did() {
    let lab = Lab::new();
    let mut program = leaver(&lab, &["child"]);
    let child: i32 = program.wait_for("child ").split(' ').nth(1).unwrap().parse().unwrap();
    send(child, TERM);
    let state = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    eventually("the child's end", || (state().is_empty() || state().contains(") Z ")).then_some(()));
    assert!(program.is_running() && lab.checkpoints().is_empty());
}

#[test]
fn an_exit_that_was_asked_for_during_a_dump_is_not_for_the_process_that_comes_back() {
    let lab = Lab::new();
    let mut program = leaver(&lab, &["memory=200"]);
    program.signal(USR2);
    let draft = eventually("the folder of the instance", || {
        let folder = lab.store().join("leaver");
        Some(std::fs::read_dir(folder).ok()?.next()?.ok()?.path().join("000001.partial"))
    });
    // CRIU itself is at work: what comes now is in the pipe that it dumps.
    eventually("the dump", || draft.join("images/dump.log").exists().then_some(()));
    program.signal(TERM);
    assert!(draft.exists(), "the dump was over before the signal; it needs more memory");
    assert_eq!(program.wait().code(), Some(0), "the program itself leaves");
    let checkpoints = lab.checkpoints();
    assert_eq!(checkpoints.len(), 2);
    let before = ticks(&std::fs::read_to_string(lab.path("leaver.out")).unwrap()).len();
    let back = bring_back(&lab, checkpoints[0].strip_prefix(lab.store()).unwrap());
    eventually("it goes on", || {
        let now = ticks(&std::fs::read_to_string(lab.path("leaver.out")).unwrap()).len();
        (now > before + 200).then_some(())
    });
    back.program.crash();
}

#[test]
fn a_handler_that_the_program_puts_in_our_place_is_noticed() {
    let lab = Lab::new();
    // A look comes with each wake-up: here with those of the schedule.
    let fresh = lab.program("leaver").arg("overwrite").env("SELFDUMP_EVERY", "1s").start();
    fresh.wait_for("tick 10");
    fresh.signal(USR2);
    fresh.wait_for("old handler");
    let told = |pid: i32| {
        let status = lab.run(["status", &pid.to_string()]);
        String::from_utf8_lossy(&status.stdout).into_owned()
    };
    eventually("status says so", || {
        told(fresh.pid()).contains("SIGUSR2 (the program has a handler of its own").then_some(())
    });
    let json = lab.run(["status", "--json", &fresh.pid().to_string()]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["programs"][0]["overwritten_signals"], serde_json::json!(["SIGUSR2"]));
}

#[test]
fn another_signal_can_ask_and_the_usual_one_is_then_free() {
    let real_time = libc::SIGRTMIN() + 3;
    for (name, number) in [("RTMIN+3", real_time), ("usr1", libc::SIGUSR1), ("28", 28)] {
        let lab = Lab::new();
        let mut program =
            lab.program("linked").env("SELFDUMP_SIGNAL", name).env("SELFDUMP_NAME", "x").start();
        program.wait_for("step 3");
        program.signal(number);
        lab.wait_for_checkpoint(1);
        program.signal(USR2);
        assert!(died_of(program.wait(), USR2));
    }
}
