//! Seeing inside from outside: how programs are doing, what there is, what a machine lacks, and asking for a checkpoint.

mod doctor;
mod list;
mod metrics;
mod prune;
mod trigger;

use std::process::Output;

use serde_json::Value;

use crate::harness::{Lab, Subject, eventually};

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command printed, which ended with this status.
pub fn printed(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    text(&output.stdout)
}

/// The JSON that a command printed, which ended with this status.
pub fn json(output: &Output, status: i32) -> Value {
    let printed = printed(output, status);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// It failed with this status, and its error says all of this.
pub fn assert_fails(output: &Output, status: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let error = text(&output.stderr);
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

/// A program that has just been started, once it has said how it is doing.
pub fn told(lab: &Lab, program: Subject) -> Subject {
    let pid = program.pid().to_string();
    eventually("its word about itself", || lab.run(["status", &pid]).status.success().then_some(()));
    program
}
