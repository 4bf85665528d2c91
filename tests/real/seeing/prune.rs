//! `selfdump prune`: what goes, what stays, and why.

use serde_json::Value;

use super::{assert_fails, json, printed, told};
use crate::afterlife::bring_back;
use crate::harness::{Lab, Subject, number};

/// `chain` with as many checkpoints.
fn chain(lab: &Lab, checkpoints: u64) -> Subject {
    let program = told(lab, lab.program("chain").env("SELFDUMP_KEEP", "9").start());
    let pid = program.pid().to_string();
    for _ in 0..checkpoints {
        printed(&lab.run(["trigger", &pid, "--wait"]), 0);
    }
    program
}

fn numbers(lab: &Lab) -> Vec<u64> {
    lab.checkpoints().iter().map(|checkpoint| number(checkpoint)).collect()
}

fn reasons(report: &Value) -> Vec<&str> {
    let rows = report["checkpoints"].as_array().unwrap().iter();
    rows.map(|row| row["reason"].as_str().unwrap()).collect()
}

#[test]
fn limits_take_the_oldest_of_a_running_program_and_it_comes_back_from_what_is_left() {
    let lab = Lab::new();
    let program = chain(&lab, 4);
    let plan = json(&lab.run(["prune", "chain", "--keep", "2", "--dry-run", "--json"]), 0);
    assert_eq!(reasons(&plan), ["last-of-instance", "within-limits", "beyond-count", "beyond-count"]);
    assert_eq!(numbers(&lab), [1, 2, 3, 4], "nothing is touched");

    let said = printed(&lab.run(["prune", "--keep", "2"]), 0);
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(
        said.contains("deleted  more than --keep") && said.contains("kept     the last good one"),
        "{said}"
    );
    assert!(said.contains("2 checkpoints deleted (") && said.contains("), 2 kept ("), "{said}");
    assert_eq!(numbers(&lab), [3, 4]);

    // The newest is damaged, so that the one before it is the last good one.
    std::fs::remove_file(lab.checkpoints()[1].join("images/inventory.img")).unwrap();
    let report = json(&lab.run(["prune", "--max-size", "1k", "--older-than", "0s", "--ended", "--json"]), 0);
    assert_eq!(reasons(&report), ["damaged", "last-of-instance"], "the program runs");
    assert_eq!(report["deleted_bytes"], 0);
    program.crash();
    bring_back(&lab, "chain").program.crash();
}

#[test]
fn instances_that_have_ended_go_only_when_that_is_said() {
    let lab = Lab::new();
    chain(&lab, 1).crash();
    chain(&lab, 1).crash();
    let draft = lab.checkpoints()[0].with_file_name("000007.partial");
    std::fs::create_dir(&draft).unwrap();
    std::fs::copy(lab.checkpoints()[0].join("manifest.json"), draft.join("manifest.json")).unwrap();
    let old = ["prune", "chain", "--older-than", "0s", "--json"];
    let mut kept = reasons(&json(&lab.run(old), 0)).join(" ");
    kept.insert(0, ' ');
    assert!(kept.contains(" abandoned") && kept.matches("last-of-instance").count() == 2, "{kept}");
    assert!(!draft.exists());
    let report = json(&lab.run(old.iter().chain(&["--ended"])), 0);
    assert_eq!(reasons(&report), ["last-of-instance", "too-old"]);
    assert_eq!(lab.checkpoints().len(), 1);
    bring_back(&lab, "chain").program.crash();
}

#[test]
fn without_a_limit_or_with_a_wrong_one_nothing_is_done() {
    let lab = Lab::new();
    let program = chain(&lab, 1);
    assert_fails(&lab.run(["prune"]), 2, &["--keep <COUNT>"]);
    assert_fails(&lab.run(["prune", "--max-size", "much"]), 2, &["500 MiB"]);
    assert_fails(&lab.run(["prune", "nobody", "--keep", "1"]), 1, &["no checkpoints of nobody"]);
    let id = lab.checkpoints()[0].strip_prefix(lab.store()).unwrap().to_owned();
    let output = lab.run([std::ffi::OsStr::new("prune"), id.as_os_str(), "--keep".as_ref(), "1".as_ref()]);
    assert_fails(&output, 1, &["one checkpoint has no older ones"]);
    assert_eq!(numbers(&lab), [1]);
    drop(program);
}
