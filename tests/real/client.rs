//! Every request of the client, asked of real CRIUs.

use std::path::Path;
use std::process::Command;

use crate::harness::{criu, oldest_criu, program};

/// What the program `client` prints when it asks this CRIU: one line for each question.
fn answers(criu: &Path) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    // In a session of its own, so that the dump of it needs no terminal.
    let output = Command::new("setsid")
        .arg("--wait")
        .arg(program("client"))
        .arg(criu)
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(str::to_owned).collect()
}

fn every_request_is_answered(criu: &Path, version: &str) {
    let answers = answers(criu);
    let answer = |to: &str| {
        let line = answers.iter().find_map(|line| line.strip_prefix(to)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no answer to {to}: {answers:?}"))
    };
    assert_eq!(answer("version"), version);
    assert_eq!(answer("check"), "good");
    assert!(answer("features").contains("lazy_pages: true"), "{}", answer("features"));
    assert_eq!(answer("dump"), "Original");
    for request in ["pre-dump", "single-pre-dump"] {
        if answers.iter().any(|line| line == "tracking true") {
            assert_eq!(answer(request), "done");
        } else {
            let refused = answer(request);
            assert!(
                refused.starts_with("error refused") && refused.contains("CONFIG_MEM_SOFT_DIRTY"),
                "{refused}"
            );
        }
    }
}

#[test]
fn every_request_is_answered_by_the_current_criu() {
    every_request_is_answered(&criu(), "4.2.1");
}

#[test]
fn every_request_is_answered_by_the_oldest_supported_criu() {
    every_request_is_answered(&oldest_criu(), "4.1.1");
}
