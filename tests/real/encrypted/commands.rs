//! The commands that look into checkpoints, with and without the identity.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Key, encrypted_chain, plain_folders};
use crate::harness::{Lab, USR2, succeeds};

/// Two checkpoints of `chain`, which has gone.
fn scene() -> (Lab, Key) {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let (program, _) = encrypted_chain(&lab, &key.recipient);
    program.signal(USR2);
    lab.wait_for_checkpoint(2);
    program.crash();
    (lab, key)
}

#[test]
fn what_the_tool_age_decrypts_is_what_the_library_does() {
    let (lab, key) = scene();
    let entry = &selfdump::restore::find(&lab.store(), None).unwrap()[0];
    assert_eq!(entry.contents().unwrap_err().kind(), selfdump::ErrorKind::Encrypted);
    let opened = entry.open(&selfdump::Identities::read([&key.file]).unwrap()).unwrap();
    let contents = opened.contents().unwrap().to_owned();
    let encrypted: Vec<_> = fs::read_dir(entry.path.join("images")).unwrap().flatten().collect();
    assert!(encrypted.len() > 10);
    for file in encrypted {
        let name = file.file_name().into_string().unwrap();
        let mut age = Command::new("age");
        let by_the_tool = age.arg("-d").arg("-i").arg(&key.file).arg(file.path()).output().unwrap().stdout;
        let ours = fs::read(contents.join("images").join(name.strip_suffix(".age").unwrap())).unwrap();
        assert!(by_the_tool == ours, "{name}");
    }
    let again = opened.open(&selfdump::Identities::default()).unwrap();
    drop(opened);
    assert!(contents.exists(), "somebody still has it");
    drop(again);
    assert!(!contents.exists(), "it goes with the last");
}

#[test]
fn commands_that_look_inside_want_the_identity_and_leave_nothing_behind() {
    let (lab, key) = scene();
    let core = lab.path("core");
    let picture = lab.path("map.svg");
    let (core, picture) = (core.to_str().unwrap(), picture.to_str().unwrap());
    for command in [
        &["show", "chain"][..],
        &["show", "chain", "--json"],
        &["images", "chain"],
        &["diff", "chain"],
        &["map", "chain", "-o", picture],
        &["core", "chain", "-o", core],
        &["restore", "chain", "--dry-run"],
    ] {
        let refused = lab.run(command);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(&key.recipient), "{command:?}: {said}");
        let mut with = lab.selfdump([command, &key.identity()].concat());
        let mut child = with.stdout(Stdio::null()).spawn().unwrap();
        assert!(child.wait().unwrap().success(), "{command:?}");
        assert!(plain_folders(&lab, child.id() as i32).is_empty(), "{command:?}");
    }
    assert!(fs::metadata(core).unwrap().len() > 4096 && fs::metadata(picture).unwrap().len() > 100);
}

#[test]
fn what_the_manifest_tells_is_told_without_the_identity() {
    let (lab, key) = scene();
    let listed: Value = serde_json::from_slice(&lab.run(["list", "--json"]).stdout).unwrap();
    let all = listed["checkpoints"].as_array().unwrap();
    assert!(all.len() == 2 && all.iter().all(|one| one["state"] == "good" && one["encrypted"] == true));
    let shown = lab.run(["show", "chain"]);
    let told = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(told.contains(&key.recipient) && told.contains("pages written"), "{told}");
    let verified = |options: &[&str]| {
        let output = lab.run([&["verify", "chain", "--json"][..], options].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let results = report["checkpoints"][0]["results"].as_array().unwrap().clone();
        let results: Vec<String> =
            results.iter().map(|one| one["result"].as_str().unwrap().to_owned()).collect();
        (output.status.success(), results)
    };
    let (good, results) = verified(&[]);
    assert_eq!(results, ["good", "good", "encrypted", "encrypted", "encrypted", "good", "good", "good"]);
    assert!(!good, "not all of it could be checked");
    let (good, results) = verified(&key.identity());
    assert!(good && results.iter().all(|result| result == "good"), "{results:?}");
    succeeds(&mut lab.selfdump(["prune", "chain", "--keep", "1"]));
    assert_eq!(lab.checkpoints().len(), 1);
}
