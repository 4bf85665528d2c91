//! Programs that go wrong by an exception: a forensic checkpoint, and then what happens without selfdump.

use serde_json::Value;

use super::{lines, start};
use crate::harness::{Lab, manifest};

fn causes(lab: &Lab) -> Vec<Value> {
    lab.checkpoints().iter().map(|checkpoint| manifest(checkpoint)["cause"].clone()).collect()
}

#[test]
fn an_exception_that_nobody_catches_leaves_one_and_ends_the_program_as_before() {
    let lab = Lab::new();
    let mut program = start(&lab, "situations", &["uncaught"]).start();
    assert_eq!(program.wait().code(), Some(1));
    let output = program.output();
    assert!(output.contains("LookupError: in the main thread") && output.contains("KeyError"), "{output}");
    let causes = causes(&lab);
    // That of the main thread passes a block and the hook, and makes one.
    assert_eq!(causes.len(), 2, "{causes:?}");
    let of = |cause: &Value| (cause["kind"].clone(), cause["message"].clone());
    assert_eq!(of(&causes[0]), ("exception".into(), "KeyError: 'in a thread'".into()));
    assert_eq!(of(&causes[1]), ("exception".into(), "LookupError: in the main thread".into()));
    let location = causes[1]["location"].as_str().unwrap();
    let (file, number) = location.rsplit_once(':').unwrap();
    assert!(file.ends_with("situations.py"), "{location}");
    let source = std::fs::read_to_string(super::script("situations")).unwrap();
    let raised = source.lines().nth(number.parse::<usize>().unwrap() - 1).unwrap();
    assert!(raised.contains("raise LookupError"), "{raised}");

    let list = lab.run(["list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let rows = list["checkpoints"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["state"] == "forensic"), "{rows:?}");
    let table = lab.run(["list"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("exception"), "{table:?}");
}

#[test]
fn one_that_leaves_a_block_goes_on_and_what_is_no_failure_leaves_none() {
    let lab = Lab::new();
    let mut program = start(&lab, "situations", &["caught"]).start();
    assert!(program.wait().success(), "{}", program.output());
    assert_eq!(lines(&program.output(), "caught"), ["True", "True", "True"]);
    let kinds: Vec<Value> = causes(&lab).iter().map(|cause| cause["kind"].clone()).collect();
    assert_eq!(kinds, ["exception", "call"]);
}
