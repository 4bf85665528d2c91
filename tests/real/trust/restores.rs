//! A restore runs what stands in a checkpoint with the rights of who restores it: so nobody else may have written that,
//! unless it is said so. Looking at it is allowed.

use std::path::{Path, PathBuf};

use super::{STRANGER, give_away, set_mode};
use crate::afterlife::bring_back_with;
use crate::harness::{Lab, USR2};

/// A checkpoint of a program that was killed.
fn left_by_a_crash(lab: &Lab) -> PathBuf {
    let program = lab.program("chain").arg("2").start();
    program.wait_for("ready");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    program.crash();
    checkpoint
}

/// `selfdump restore` refuses; everything that only looks goes on.
fn is_refused(lab: &Lab, cause: &str) {
    let output = lab.run(["restore", "chain"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("runs what others may have written") && said.contains(cause), "{cause}: {said}");
    assert!(said.contains("--trust"), "{said}");
    let listed = lab.run(["list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("good"), "{listed:?}");
    assert!(lab.run(["show", "chain"]).status.success());
    let planned = lab.run(["restore", "chain", "--dry-run"]);
    assert!(String::from_utf8_lossy(&planned.stdout).contains(cause), "{planned:?}");
    let verified = lab.run(["verify", "chain"]);
    assert!(!verified.status.success(), "{verified:?}");
    assert!(String::from_utf8_lossy(&verified.stdout).contains("only ours"), "{verified:?}");
}

/// Something about a checkpoint that gives others a hand in it, and how that is put right.
type Wrong = (&'static str, fn(&Path), fn(&Path), &'static str);

#[test]
fn a_checkpoint_that_others_can_have_written_is_only_restored_if_that_is_said() {
    let lab = Lab::new();
    let checkpoint = left_by_a_crash(&lab);
    let give: fn(&Path) = |path| give_away(path, STRANGER);
    let take: fn(&Path) = |path| give_away(path, 0);
    let wrong: [Wrong; 6] = [
        (".", give, take, "is user 54321's"),
        ("manifest.json", give, take, "is user 54321's"),
        ("images", give, take, "is user 54321's"),
        ("images/pstree.img", give, take, "is user 54321's"),
        ("images/pstree.img", |path| set_mode(path, 0o666), |path| set_mode(path, 0o600), "(mode 0666)"),
        ("..", |path| set_mode(path, 0o777), |path| set_mode(path, 0o700), "(mode 0777)"),
    ];
    for (what, go_wrong, put_right, cause) in wrong {
        let path = checkpoint.join(what);
        go_wrong(&path);
        is_refused(&lab, cause);
        put_right(&path);
    }
    assert!(lab.run(["verify", "chain"]).status.success());
    give(&checkpoint.join("images"));
    drop(bring_back_with(&lab, "chain", &["--trust"]));
    take(&checkpoint.join("images"));
    drop(bring_back_with(&lab, "chain", &[]));
}
