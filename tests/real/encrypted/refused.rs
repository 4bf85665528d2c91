//! What is refused, and what is said about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::{Key, encrypted_chain};
use crate::afterlife::bring_back_with;
use crate::harness::{Lab, USR2, eventually, manifest, program, static_program};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A checkpoint of `chain` whose program is gone.
fn left_behind(lab: &Lab, key: &Key) {
    encrypted_chain(lab, &key.recipient).0.crash();
}

#[test]
fn without_the_identity_nothing_comes_back_and_it_is_said_who_has_it() {
    let lab = Lab::new();
    let [key, stranger] = ["key", "stranger"].map(|name| Key::make(&lab, name));
    left_behind(&lab, &key);
    let none = lab.run(["restore", "chain"]);
    let wrong = lab.run([&["restore", "chain"][..], &stranger.identity()].concat());
    for output in [&none, &wrong] {
        assert_eq!(output.status.code(), Some(125));
        let said = said(output);
        assert!(said.contains(&key.recipient) && said.contains("there is no way around"), "{said}");
    }
    assert!(said(&none).contains("--identity FILE"));
    assert!(said(&wrong).contains(&stranger.recipient), "{}", said(&wrong));
}

#[test]
fn no_older_checkpoint_is_taken_for_the_want_of_an_identity() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let plain = lab.program("chain").arg("1").start();
    plain.wait_for("ready");
    plain.signal(USR2);
    lab.wait_for_checkpoint(1);
    plain.crash();
    let command = Command::new(program("chain"));
    let encrypted = lab.launch(command, "second").env("SELFDUMP_ENCRYPT_TO", &key.recipient).start();
    encrypted.wait_for("ready");
    encrypted.signal(USR2);
    eventually("another one", || (lab.checkpoints().len() == 2).then_some(()));
    encrypted.crash();
    let output = lab.run(["restore", "chain"]);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(
        said(&output).contains("is encrypted to") && !said(&output).contains("passed over"),
        "{output:?}"
    );
}

#[test]
fn an_identity_that_others_can_read_is_refused_and_so_is_a_file_without_one() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    left_behind(&lab, &key);
    fs::set_permissions(&key.file, fs::Permissions::from_mode(0o640)).unwrap();
    let output = lab.run([&["restore", "chain"][..], &key.identity()].concat());
    assert_eq!(output.status.code(), Some(125));
    let text = said(&output);
    assert!(text.contains("others can read it (mode 640)") && text.contains("chmod 600"), "{text}");
    fs::set_permissions(&key.file, fs::Permissions::from_mode(0o600)).unwrap();
    for (name, text, hint) in [
        ("empty", "# nothing\n", "AGE-SECRET-KEY-1"),
        ("ssh", "-----BEGIN OPENSSH PRIVATE KEY-----\n", "keys of ssh"),
        ("locked", "age-encryption.org/v1\n-> scrypt x\n", "it is itself encrypted"),
    ] {
        let path = lab.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let output = lab.run(["restore", "chain", "--identity", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(125));
        let said = said(&output);
        assert!(said.contains("there is no identity in") && said.contains(hint), "{name}: {said}");
    }
}

#[test]
fn a_recipient_that_is_none_keeps_a_program_from_being_installed() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let secret = fs::read_to_string(&key.file).unwrap().lines().last().unwrap().to_owned();
    let missing = lab.path("missing.txt");
    for (recipient, named) in [
        ("age1nobody", "age1nobody"),
        ("team.txt", "team.txt"),
        (missing.to_str().unwrap(), "missing.txt"),
        (&secret, "a secret key was named as a recipient"),
        (" ", "SELFDUMP_ENCRYPT_TO"),
    ] {
        let mut chain = lab.program("chain").env("SELFDUMP_ENCRYPT_TO", recipient).start();
        assert!(!chain.wait().success(), "{recipient}");
        let output = chain.output();
        assert!(output.contains(named) && !output.contains("ready"), "{recipient}: {output}");
        assert!(!output.contains(&secret), "a secret is not said again");
        fs::write(lab.path("chain.out"), "").unwrap();
    }
    assert!(lab.checkpoints().is_empty());
}

#[test]
fn a_program_without_the_feature_makes_no_checkpoint_instead_of_one_that_can_be_read() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let command = Command::new(static_program("static-pie"));
    let linked = lab.launch(command, "linked").env("SELFDUMP_ENCRYPT_TO", &key.recipient).start();
    linked.wait_for("was built without the feature `encrypt`");
    assert!(!lab.store().exists(), "it has no checkpoints");
}

/// Changes one bit in the middle of a file.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_flipped_bit_has_the_next_older_one_taken_as_with_others() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let (chain, _) = encrypted_chain(&lab, &key.recipient);
    chain.signal(USR2);
    let newest = lab.wait_for_checkpoint(2);
    chain.crash();
    flip(&newest.join("images/pages-1.img.age"));
    // What only looks inside compares no checksums, and is told by age itself.
    let output = lab.run([&["images", newest.to_str().unwrap()][..], &key.identity()].concat());
    assert!(said(&output).contains("pages-1.img.age is not what was encrypted"), "{output:?}");
    let back = bring_back_with(&lab, "chain", &key.identity());
    assert!(back.id.ends_with("000001") && back.skipped.len() == 1, "{:?}", back.skipped);
    assert!(back.skipped[0].contains("pages-1.img.age has another checksum"), "{:?}", back.skipped);
    assert_eq!(manifest(&newest)["encrypted_to"].as_array().map(Vec::len), Some(1));
}
