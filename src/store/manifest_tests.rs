use super::*;
use serde_json::{Value, json};

/// What a manifest has that was written before there were copies of programs.
fn plain() -> Value {
    let life = json!({
        "id": "one", "generation": 0, "pid": 40, "start_ticks": 7, "pid_namespace": 1, "boot_id": "boot", "machine": "here",
    });
    let program = json!({
        "name": "app", "executable": "/app", "selfdump": "0.1.0", "file_rules": [], "mapped": [],
        "cpu_features": [], "runtime": "/run", "copy_files": [],
    });
    let stats = json!({
        "freezing_us": 1, "frozen_us": 2, "memdump_us": 1, "memwrite_us": 1, "pages_scanned": 3, "pages_written": 3,
    });
    json!({
        "format_version": FORMAT_VERSION, "id": "app/1/1", "cause": {"kind": "call"}, "forensic": false,
        "taken_unix_us": 1, "answered_unix_us": 2, "life": life, "program": program,
        "criu": {"version": "4.1.1", "peer": "criu", "needs": Needs::default()}, "stats": stats,
        "processes": [], "copies": [], "files": [], "parent": null,
    })
}

#[test]
fn a_manifest_says_by_which_way_it_came_only_where_it_was_not_the_plain_one() {
    let manifest: Manifest = serde_json::from_value(plain()).unwrap();
    assert_eq!((&manifest.staged, &manifest.technique), (&Staged::Disk, &Technique::Freeze));
    assert_eq!(serde_json::to_value(&manifest).unwrap(), plain());

    let why = "the program has a child".to_owned();
    for technique in [Technique::Cow, Technique::FellBack { why }] {
        let manifest = Manifest { technique, staged: Staged::Memory, ..manifest.clone() };
        let text = serde_json::to_string(&manifest).and_then(enveloped).unwrap();
        assert_eq!(parse::<Manifest>(Path::new("/checkpoint"), &text).unwrap(), manifest);
    }
}
