//! Checkpoints of a copy: the program stands still only while that is made, and what comes back is the program all the
//! same, as it was in one moment.

mod deaths;
mod files;
mod hindered;
mod inside;
mod moments;
mod places;
mod programs;
mod scarce;
mod unchanged;
mod waits;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Lab, Launch, Subject, USR2, manifest};

/// A program that is to be copied for its checkpoints.
fn copied(launch: Launch) -> Launch {
    launch.env("SELFDUMP_SNAPSHOT", "cow")
}

fn ready(launch: Launch) -> Subject {
    let program = launch.start();
    program.wait_for("ready");
    program
}

/// Has a checkpoint of this number made; how its moment was caught.
fn caught(lab: &Lab, pid: i32, number: u64) -> (PathBuf, Value) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_micros() as u64;
    crate::harness::send(pid, USR2);
    let ends = format!("/{number:06}");
    let said = lab.status_when("the word about it", |status| {
        let last = &status["last"];
        let is_this_one = last["started_unix_us"].as_u64().is_some_and(|started| started >= now);
        assert!(!is_this_one || last["error"].is_null(), "{last}");
        last["checkpoint"].as_str().is_some_and(|id| id.ends_with(&ends))
    });
    let checkpoint = lab.store().join(said["last"]["checkpoint"].as_str().expect("an id"));
    let technique = manifest(&checkpoint)["technique"].clone();
    (checkpoint, technique)
}

/// The same, of a copy.
fn saved(lab: &Lab, pid: i32, number: u64) -> PathBuf {
    let (checkpoint, technique) = caught(lab, pid, number);
    assert_eq!(technique, by_a_copy());
    checkpoint
}

fn by_a_copy() -> Value {
    json!({"how": "cow"})
}

/// All that a program has said so far, in all its lives.
fn output(lab: &Lab, program: &str) -> String {
    fs::read_to_string(lab.path(&format!("{program}.out"))).unwrap_or_default()
}

/// The ids of a process's threads.
fn threads(pid: i32) -> Vec<i32> {
    numbers(Path::new(&format!("/proc/{pid}/task")))
}

/// The names in a folder that are numbers.
fn numbers(folder: &Path) -> Vec<i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found
}
