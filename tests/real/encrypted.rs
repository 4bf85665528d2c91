//! Encrypted checkpoints: who can read them, who can't, and that nothing of them lies anywhere else.
//!
//! The keys are made by `age-keygen`, and what is written is opened by `age`, both of the package `age`.

mod commands;
mod disk;
mod programs;
mod refused;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Lab, Subject, USR2, read_json, succeeds};

/// An identity in a file, and its recipient.
struct Key {
    file: PathBuf,
    recipient: String,
}

impl Key {
    fn make(lab: &Lab, name: &str) -> Key {
        let file = lab.path(name);
        succeeds(Command::new("age-keygen").arg("-o").arg(&file));
        let recipient = succeeds(Command::new("age-keygen").arg("-y").arg(&file)).trim().to_owned();
        Key { file, recipient }
    }

    fn path(&self) -> &str {
        self.file.to_str().expect("a path in UTF-8")
    }

    /// The option that names it.
    fn identity(&self) -> [&str; 2] {
        ["--identity", self.path()]
    }
}

/// `chain` with one checkpoint that is encrypted to somebody; it runs on.
fn encrypted_chain(lab: &Lab, recipients: &str) -> (Subject, PathBuf) {
    let program = lab.program("chain").arg("2").env("SELFDUMP_ENCRYPT_TO", recipients).start();
    program.wait_for("ready");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    (program, checkpoint)
}

/// `asker` with a secret in so much memory.
fn keeper(lab: &Lab, mebibytes: u64, recipient: &str) -> Subject {
    // What an earlier one has said isn't this one's word.
    let _ = fs::remove_file(lab.path("asker.out"));
    let launch = lab.program("asker").arg(mebibytes.to_string()).arg("secret");
    let program = launch.env("SELFDUMP_ENCRYPT_TO", recipient).start();
    program.wait_for("ready");
    program
}

/// The files in a folder and in those below.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = |path: PathBuf| if path.is_dir() { all_files(&path) } else { vec![path] };
    entries.flat_map(below).collect()
}

/// The folders for what can be read, of one process.
fn plain_folders(lab: &Lab, pid: i32) -> Vec<PathBuf> {
    let above = [PathBuf::from("/run/selfdump"), PathBuf::from("/dev/shm"), lab.path("")];
    let all = above.iter().flat_map(|above| fs::read_dir(above).into_iter().flatten().flatten());
    let named = all.filter(|entry| entry.file_name().to_string_lossy().starts_with("selfdump-plain-"));
    let is_its_own = |folder: &PathBuf| {
        read_json(&folder.join("owner.json"))
            .is_some_and(|owner: Value| owner["pid"].as_i64() == Some(pid.into()))
    };
    named.map(|entry| entry.path()).filter(is_its_own).collect()
}
