//! What the program may do around a checkpoint: hooks, holds, and what it is told when it comes back.

use std::time::{Duration, Instant};

use crate::afterlife::Alone;
use crate::harness::{Lab, Subject, USR2, eventually};

const USR1: i32 = libc::SIGUSR1;

fn hooked(lab: &Lab, situations: &[&str]) -> Subject {
    let launch = situations.iter().fold(lab.program("hooked"), |launch, situation| launch.arg(situation));
    let program = launch.env("SELFDUMP_HOLD_TIMEOUT", "2s").start();
    program.wait_for("ready");
    program
}

/// What it says after `ready`, once a line with `last` is there.
fn said(program: &Subject, last: &str) -> Vec<String> {
    program.wait_for(last);
    program.output().lines().skip_while(|line| *line != "ready").skip(1).map(str::to_owned).collect()
}

#[test]
fn hooks_run_in_order_around_a_checkpoint_and_in_the_process_that_comes_back() {
    let lab = Lab::new();
    let program = hooked(&lab, &[]);
    program.signal(USR1);
    let lines = said(&program, "outcome");
    assert_eq!(lines[..3], ["first before call", "second before call", "after call saved"]);
    assert!(lines[3].starts_with("outcome saved hooked/"), "{lines:?}");
    program.crash();

    let restore =
        ["restore", "hooked", "--detach", "--json", "--set", "role=replica", "--set", "peers=a=1,b=2"];
    let report = lab.run(restore);
    let report: serde_json::Value =
        serde_json::from_slice(&report.stdout).unwrap_or_else(|_| panic!("{report:?}"));
    let back = Alone::new(report["pid"].as_i64().unwrap() as i32);
    let output = || std::fs::read_to_string(lab.path("hooked.out")).unwrap();
    eventually("it comes back", || output().contains("outcome restored").then_some(()));
    let after: Vec<String> = output().lines().skip(5).map(str::to_owned).collect();
    let settings = r#"{"peers": "a=1,b=2", "role": "replica"}"#;
    assert_eq!(after[0], format!("on restore generation 1 (true, true, true) {settings}"));
    assert!(after[1].starts_with("outcome restored hooked/"), "{after:?}");

    // What was passed in was for that life alone.
    back.signal(USR1);
    eventually("a checkpoint of the second life", || (lab.checkpoints().len() == 2).then_some(()));
    back.crash();
    let back = crate::afterlife::bring_back(&lab, "hooked");
    eventually("it comes back again", || {
        output().contains("on restore generation 2 (true, true, true) {}").then_some(())
    });
    back.program.crash();
}

#[test]
fn a_setting_without_a_value_is_refused_with_the_form() {
    let lab = Lab::new();
    let refused = lab.run(["restore", "hooked", "--set", "role"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("KEY=VALUE"), "{refused:?}");
}

#[test]
fn a_hook_can_say_no_and_one_that_panics_says_no() {
    for (situation, reason) in [
        ("veto", "outcome error vetoed | the program doesn't want a checkpoint now: a transfer is under way"),
        ("panic", "outcome error vetoed | a hook of the program for the time before a checkpoint panicked"),
    ] {
        let lab = Lab::new();
        let mut program = hooked(&lab, &[situation]);
        for _ in 0..2 {
            program.signal(USR1);
            let lines = said(&program, "outcome");
            assert!(lines.contains(&reason.to_owned()), "{lines:?}");
            assert!(lines.contains(&"after call failed".to_owned()), "{lines:?}");
        }
        assert!(program.is_running() && lab.checkpoints().is_empty());
        let status = lab.status_when("its status", |status| status["last"]["error"]["kind"] == "vetoed");
        assert_eq!(status["last"]["saved"], false);
    }
}

#[test]
fn a_hook_may_add_another_and_can_not_wait_for_itself() {
    let lab = Lab::new();
    let program = hooked(&lab, &["nested"]);
    program.signal(USR1);
    let lines = said(&program, "outcome");
    for line in [
        "asking in a hook: inside-hook",
        "holding in a hook: inside-hook",
        "uninstalling in a hook: inside-hook",
    ] {
        assert!(lines.contains(&line.to_owned()), "{lines:?}");
    }
    program.signal(USR1);
    program.wait_for("added by a hook");
}

#[test]
fn a_checkpoint_waits_for_the_last_hold_and_comes_then() {
    let lab = Lab::new();
    let program = hooked(&lab, &["hold=700"]);
    program.signal(USR1);
    let lines = said(&program, "outcome");
    let at = |text: &str| lines.iter().position(|line| line.starts_with(text)).expect(text);
    assert!(
        at("hold ends") < at("first before call") && at("first before") < at("outcome saved"),
        "{lines:?}"
    );
}

#[test]
fn one_that_is_held_up_for_too_long_says_by_whom() {
    let lab = Lab::new();
    let program = hooked(&lab, &["hold=8000"]);
    let started = Instant::now();
    program.signal(USR1);
    let lines = said(&program, "outcome");
    let outcome = lines.iter().find(|line| line.starts_with("outcome")).unwrap();
    assert!(
        outcome.starts_with("outcome error held | checkpoints were held up for 2s, by holder (for "),
        "{outcome}"
    );
    assert!(started.elapsed() >= Duration::from_secs(2));
    // The agent is as good as before.
    program.wait_for("hold ends");
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
}

#[test]
fn a_thread_that_holds_checkpoints_up_can_not_ask_for_one() {
    let lab = Lab::new();
    let program = hooked(&lab, &["own-hold"]);
    program.signal(USR1);
    let lines = said(&program, "outcome");
    assert!(
        lines[0].starts_with("outcome error held | this thread holds up checkpoints itself"),
        "{lines:?}"
    );
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
}

#[test]
fn a_signal_that_comes_too_early_is_acted_upon_when_it_may_be() {
    let lab = Lab::new();
    let program = lab.program("chain").env("SELFDUMP_MIN_INTERVAL", "2s").start();
    program.wait_for("ready");
    program.signal(USR2);
    let first = lab.wait_for_checkpoint(1);
    for _ in 0..20 {
        program.signal(USR2);
    }
    let second = lab.wait_for_checkpoint(2);
    let time = |path, field: &str| crate::harness::manifest(path)[field].as_u64().unwrap();
    let between = time(&second, "taken_unix_us") - time(&first, "answered_unix_us");
    assert!(between >= 1_900_000, "{between} µs");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(lab.checkpoints().len(), 2, "many early ones are one");
}

#[test]
fn each_schedule_makes_checkpoints_by_itself_and_tells_so() {
    for (variable, value, told) in [
        ("SELFDUMP_OVERHEAD", "5%", "stands still for at most 5 % of the time"),
        ("SELFDUMP_MTBF", "20s", "best for a failure in each 20s"),
        ("SELFDUMP_EVERY", "1s", "every 1s"),
    ] {
        let lab = Lab::new();
        let program = lab.program("chain").env(variable, value).env("SELFDUMP_FIRST_AFTER", "1s").start();
        program.wait_for("ready");
        let checkpoint = lab.wait_for_checkpoint(2);
        assert_eq!(crate::harness::manifest(&checkpoint)["cause"]["kind"], "timer");
        let status = lab.run(["status", &program.pid().to_string()]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(text.contains(told), "{text}");
    }
}
