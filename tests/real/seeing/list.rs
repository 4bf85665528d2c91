//! `selfdump list`: the state of each.

use std::fs;

use super::{json, printed, told};
use crate::afterlife::Alone;
use crate::harness::Lab;

#[test]
fn what_is_half_written_or_damaged_is_listed_as_that() {
    let lab = Lab::new();
    let program = told(&lab, lab.program("forker").start());
    program.wait_for("ready");
    let pid = program.pid().to_string();
    for _ in 0..2 {
        printed(&lab.run(["trigger", &pid, "--wait"]), 0);
    }
    let [first, second]: [_; 2] = lab.checkpoints().try_into().unwrap();
    let instance = first.parent().unwrap();
    fs::create_dir(instance.join("000009.partial")).unwrap();
    let inventory = second.join("images/inventory.img");
    fs::write(&inventory, [fs::read(&inventory).unwrap(), vec![0]].concat()).unwrap();

    let listing = json(&lab.run(["list", "--json"]), 0);
    let row = |end: &str| {
        let rows = listing["checkpoints"].as_array().unwrap();
        rows.iter()
            .find(|row| row["id"].as_str().unwrap().ends_with(end))
            .unwrap_or_else(|| panic!("{end}: {listing}"))
    };
    assert_eq!(row("000001")["state"], "good");
    let pids = row("000001")["pids"].as_array().unwrap();
    assert!(pids.len() > 1 && pids[0] == program.pid(), "{listing}");
    assert_eq!(row("000002")["state"], "damaged");
    assert!(row("000002")["problem"].as_str().unwrap().contains("inventory.img has "), "{listing}");
    let draft = row("000009");
    assert_eq!((&draft["state"], &draft["size_bytes"]), (&"partial".into(), &serde_json::Value::Null));

    let said = printed(&lab.run(["list"]), 0);
    assert!(said.lines().take(4).all(|line| line.chars().count() <= 80), "{said}");
    assert!(said.contains("2 checkpoints in all: ") && said.contains(", and 1 partial"), "{said}");
    let words: Vec<&str> = said.lines().nth(3).unwrap().split_whitespace().collect();
    assert_eq!(words[words.len() - 2..], [&pids.len().to_string(), "good"], "{said}");
    assert!(said.contains("000009: being written"), "{said}");

    // A manifest of a later version isn't understood by half.
    let manifest = first.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("\"generation\": 0", "\"generation\": 1", 1)).unwrap();
    let said = printed(&lab.run(["list"]), 0);
    assert!(said.contains("manifest.json: its checksum is wrong"), "{said}");
    program.crash();
    let children = pids[1..].iter().map(|pid| Alone::new(pid.as_i64().unwrap() as i32));
    children.for_each(Alone::crash);
}
