//! Limits for pauses. What takes a kernel that tells which pages have changed is shown in a guest (`cargo xtask vm-test`);
//! here it is what holds on every kernel.

use std::fs;

use serde_json::Value;

use crate::harness::{Lab, Subject, USR2, manifest, succeeds};

/// A limit that no pause keeps.
const NEVER: &str = "1us";

fn asker(lab: &Lab, variables: &[(&str, &str)]) -> Subject {
    let launch = lab.program("asker").arg("16");
    let program = variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).start();
    program.wait_for("ready");
    program
}

/// Has a checkpoint made, of this number; what became of the limit.
fn budget(lab: &Lab, program: &Subject, number: u64) -> Value {
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(number);
    lab.status_when("the word about it", |status| {
        status["last"]["checkpoint"].as_str().is_some_and(|id| id.ends_with(&format!("/{number:06}")))
    });
    manifest(&checkpoint)["pause_budget"].clone()
}

#[test]
fn a_limit_that_cannot_be_kept_fails_no_checkpoint_and_is_told_once() {
    let lab = Lab::new();
    let tracks = !String::from_utf8_lossy(&lab.run(["doctor"]).stdout).contains("doesn't track which pages");
    let program = asker(&lab, &[("SELFDUMP_MAX_PAUSE", NEVER)]);
    for number in 1..=3 {
        let budget = budget(&lab, &program, number);
        assert_eq!(budget["limit_us"], 1);
        assert!(budget["longest_us"].as_u64().unwrap() > 1, "{budget}");
        assert_eq!(budget["rounds"].as_u64().unwrap() > 0, tracks, "{budget}");
        let why = budget["why_not"].as_str().unwrap_or_default();
        assert_eq!(why.contains("CONFIG_MEM_SOFT_DIRTY"), !tracks, "{budget}");
    }
    let output = program.output();
    assert_eq!(output.matches("for longer than SELFDUMP_MAX_PAUSE allows").count(), 1, "{output}");
    let status = lab.status().unwrap();
    assert_eq!(status["last"]["pause_budget"]["limit_us"], 1);
    let said = succeeds(&mut lab.selfdump(["status", &program.pid().to_string()]));
    assert!(said.contains("ms of 0.0 ms at most"), "{said}");
    let checkpoint = lab.wait_for_checkpoint(3);
    let shown = succeeds(&mut lab.selfdump(["show", checkpoint.to_str().unwrap()]));
    assert!(shown.contains("budget") && shown.contains("ms of 0.0 ms at most"), "{shown}");
    succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
}

#[test]
fn one_that_is_kept_is_told_once_as_well_and_without_one_nothing_is() {
    let lab = Lab::new();
    let program = asker(&lab, &[("SELFDUMP_MAX_PAUSE", "1h")]);
    (1..=2).for_each(|number| drop(budget(&lab, &program, number)));
    assert_eq!(program.output().matches("pauses are kept under the limit").count(), 1);
    drop(program);
    let lab = Lab::new();
    let program = asker(&lab, &[]);
    assert_eq!(budget(&lab, &program, 1), Value::Null);
    assert!(!program.output().contains("limit"), "{}", program.output());
}

#[test]
fn what_is_to_be_encrypted_is_not_written_ahead() {
    let lab = Lab::new();
    let recipient = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    let program = asker(&lab, &[("SELFDUMP_MAX_PAUSE", NEVER), ("SELFDUMP_ENCRYPT_TO", recipient)]);
    let budget = budget(&lab, &program, 1);
    assert_eq!(budget["why_not"], "checkpoints are encrypted");
}

#[test]
fn the_kernel_is_asked_for_no_huge_pages_only_where_that_is_said() {
    for (variables, expected) in [(&[][..], "1"), (&[("SELFDUMP_HUGE_PAGES", "off")], "0")] {
        let lab = Lab::new();
        let program = asker(&lab, variables);
        let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
        let enabled = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).map(str::trim);
        assert_eq!(enabled, Some(expected));
    }
}
