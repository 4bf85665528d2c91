//! `selfdump verify`: what is whole is good, and nothing that isn't is ever called so.

use std::fs;
use std::path::{Path, PathBuf};

use selfdump::{inspect, restore};
use serde_json::Value;

use crate::harness::{Lab, USR2};

/// A checkpoint of a small program that has ended since.
fn checkpoint(lab: &Lab) -> PathBuf {
    let program = lab.program("chain").start();
    program.wait_for("ready");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    lab.status_when("its status", |status| status["last"]["saved"] == true);
    program.crash();
    checkpoint
}

fn is_good(lab: &Lab, checkpoint: &Path) -> bool {
    lab.run(["verify".as_ref(), checkpoint.as_os_str()]).status.success()
}

/// The same without a process of its own, for who asks often.
fn is_good_from_here(checkpoint: &Path) -> bool {
    let (store, options) = restore::from_environment(None).expect("settings");
    let entries = restore::find(&store, Some(checkpoint)).expect("a checkpoint");
    inspect::verify(&entries[0], &options).is_good()
}

/// The checks that didn't go well, by name.
fn failed(lab: &Lab, checkpoint: &Path) -> Vec<String> {
    let output = lab.run(["verify".as_ref(), "--json".as_ref(), checkpoint.as_os_str()]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let results = report["checkpoints"][0]["results"].as_array().expect("results").clone();
    let failed = results.iter().filter(|checked| checked["result"] == "failed");
    failed.map(|checked| checked["check"].as_str().expect("a name").to_owned()).collect()
}

/// Every file of a checkpoint.
fn files(checkpoint: &Path) -> Vec<PathBuf> {
    [files_in(checkpoint), files_in(&checkpoint.join("images"))].concat()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Numbers that are the same in every run (Marsaglia's xorshift64).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let lab = Lab::new();
    let checkpoint = checkpoint(&lab);
    assert!(is_good_from_here(&checkpoint));
    let files: Vec<(PathBuf, Vec<u8>)> =
        files(&checkpoint).into_iter().map(|path| (path.clone(), fs::read(path).expect("bytes"))).collect();
    let mut seeded = Seeded(0x5e1f_d09e);
    for round in 0..1000 {
        // Each file in turn, so that the small ones aren't lost beside the memory.
        let (path, bytes) = &files[round % files.len()];
        let (position, bit) = (seeded.below(bytes.len()), seeded.below(8));
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << bit;
        fs::write(path, &flipped).expect("it is ours");
        assert!(
            !is_good_from_here(&checkpoint),
            "bit {bit} of byte {position} of {} is flipped",
            path.display()
        );
        fs::write(path, bytes).expect("it is ours");
    }
    assert!(is_good(&lab, &checkpoint));
}

#[test]
fn a_file_that_is_cut_or_gone_or_has_come_is_found() {
    let lab = Lab::new();
    let checkpoint = checkpoint(&lab);
    for path in files(&checkpoint) {
        let bytes = fs::read(&path).expect("bytes");
        for length in [0, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).expect("it is ours");
            assert!(!is_good_from_here(&checkpoint), "{} is cut after {length}", path.display());
        }
        fs::remove_file(&path).expect("it is ours");
        assert!(!is_good_from_here(&checkpoint), "{} is gone", path.display());
        fs::write(&path, &bytes).expect("it is ours");
    }
    let stranger = checkpoint.join("images/core-1.img");
    fs::write(&stranger, "").expect("it is ours");
    assert!(!is_good(&lab, &checkpoint));
    fs::remove_file(&stranger).expect("it is ours");
    assert!(is_good(&lab, &checkpoint));
}

#[test]
fn images_that_do_not_fit_each_other_are_found_without_checksums() {
    let lab = Lab::new();
    let checkpoint = checkpoint(&lab);
    let images = checkpoint.join("images");
    let pages = images.join("pages-1.img");
    let bytes = fs::read(&pages).expect("bytes");
    fs::write(&pages, &bytes[4096..]).expect("it is ours");
    assert_eq!(failed(&lab, &checkpoint), ["files", "pages"]);
    fs::write(&pages, &bytes).expect("it is ours");

    let core = files_in(&images).into_iter().find(|path| path.to_str().unwrap().contains("core-")).unwrap();
    let aside = lab.path("core");
    fs::rename(&core, &aside).expect("it is ours");
    assert_eq!(failed(&lab, &checkpoint), ["files", "references"]);
    fs::rename(&aside, &core).expect("it is ours");
    fs::copy(&core, images.join("core-1.img")).expect("it is ours");
    assert_eq!(failed(&lab, &checkpoint), ["files", "references"]);
    fs::remove_file(images.join("core-1.img")).expect("it is ours");
    assert!(is_good(&lab, &checkpoint));
}

#[test]
fn a_restore_that_would_be_refused_is_not_good() {
    let lab = Lab::new();
    let checkpoint = checkpoint(&lab);
    let output = lab.path("chain.out");
    fs::remove_file(&output).expect("it is ours");
    assert_eq!(failed(&lab, &checkpoint), ["open-files"]);
    let verify = lab.run(["verify".as_ref(), checkpoint.as_os_str()]);
    let text = String::from_utf8_lossy(&verify.stdout).into_owned();
    assert!(text.contains("NOT good") && text.contains("chain.out") && text.contains("help:"), "{text}");
}
