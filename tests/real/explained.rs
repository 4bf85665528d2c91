//! What CRIU fails at is explained: the error of a checkpoint or of a restore has the cause and the remedy that the
//! dictionary has, and `selfdump explain` finds them in the log. The dictionary is held to the logs that it was made
//! from by `tests/dictionary.rs`; here the failures are provoked again.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use selfdump::criu::{DICTIONARY, Rule};
use serde_json::Value;

use crate::harness::{Lab, Restored, USR2, program};

fn rule(id: &str) -> &'static Rule {
    let mut rules = DICTIONARY.iter().flat_map(|chapter| chapter.rules);
    rules.find(|rule| rule.id == id).unwrap_or_else(|| panic!("no rule is called {id}"))
}

/// A program of ours, to be started in a folder of the lab.
fn in_folder(lab: &Lab, name: &str) -> (PathBuf, Command) {
    let folder = lab.path(name);
    fs::create_dir(&folder).unwrap();
    let mut command = Command::new(program(name));
    command.current_dir(&folder);
    (folder, command)
}

fn explained(lab: &Lab, target: &Path) -> Value {
    let output = lab.run([Path::new("explain"), target, Path::new("--json")]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn twelve_obstacles_to_a_dump_are_explained_and_it_is_made_once_they_are_gone() {
    let lab = Lab::new();
    let (_, command) = in_folder(&lab, "obstacles");
    let mut subject = lab.launch(command, "said").start();
    assert!(subject.wait().success(), "{}", subject.output());

    let said = subject.output();
    let lines: Vec<Vec<&str>> = said
        .lines()
        .filter(|line| line.contains(" | "))
        .map(|line| line.splitn(4, " | ").collect())
        .collect();
    let (last, failed) = lines.split_last().expect("lines");
    assert_eq!(last, &["nothing", "saved"], "{said}");
    assert_eq!(failed.len(), 12, "{said}");
    for line in failed {
        let rule = rule(line[0]);
        let expected = format!("CRIU: the dump failed: {}", rule.cause);
        assert_eq!(line[1..], [rule.kind.name(), &expected, rule.remedy], "{said}");
    }

    // The log of the last that failed is kept beside the checkpoint.
    let report = explained(&lab, Path::new("obstacles"));
    let rule = rule("nested-namespace");
    assert_eq!(report["explanation"]["id"], rule.id, "{report:#}");
    assert_eq!(report["explanation"]["remedy"], rule.remedy);
    assert_eq!(report["succeeded"], false);
    let line = report["cause_line"]["text"].as_str().unwrap();
    assert!(line.contains("Can't dump nested user namespace"), "{line}");
}

/// It failed as the rule says.
fn assert_explained(output: &Output, id: &str) {
    let (said, rule) = (String::from_utf8_lossy(&output.stderr), rule(id));
    assert_eq!(output.status.code(), Some(125), "{id}: {said}");
    let expected = [format!("CRIU: the restore failed: {}", rule.cause), format!("help: {}", rule.remedy)];
    assert!(expected.iter().all(|text| said.contains(text)), "{id}: {said}");
}

#[test]
fn what_a_restore_finds_taken_or_gone_is_explained_and_once_it_is_right_the_program_comes_back() {
    let lab = Lab::new();
    let (folder, command) = in_folder(&lab, "needy");
    let subject = lab.launch(command, "said").start();
    let port: u16 = subject.wait_for("port ").trim_start_matches("port ").parse().unwrap();
    subject.signal(USR2);
    lab.wait_for_checkpoint(1);
    let pid = subject.pid();
    subject.crash();
    let restore = || lab.run(["restore", "needy"]);

    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_explained(&restore(), "port-taken");
    drop(taken);
    let name = SocketAddr::from_abstract_name(format!("needy-{pid}")).unwrap();
    let taken = UnixListener::bind_addr(&name).unwrap();
    assert_explained(&restore(), "unix-name-taken");
    drop(taken);
    let aside = folder.join("aside");
    for (needed, id) in
        [("sockets", "unix-folder-gone"), ("watched", "watched-file-gone"), ("pipe", "fifo-gone")]
    {
        fs::rename(folder.join(needed), &aside).unwrap();
        assert_explained(&restore(), id);
        fs::rename(&aside, folder.join(needed)).unwrap();
    }
    let restored = Restored { restorer: lab.restore("needy"), pid };
    restored.restorer.wait_for("selfdump: restored needy/");
}

#[test]
fn explain_reads_a_log_from_standard_input_and_says_what_to_do_about_one_that_nobody_knows() {
    let lab = Lab::new();
    let log = lab.path("dump.log");
    let explain = |text: &str| {
        fs::write(&log, text).unwrap();
        let mut command = lab.selfdump(["explain", "-"]);
        let output = command.stdin(Stdio::from(fs::File::open(&log).unwrap())).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let known = "(00.1) Error (criu/image.c:563): Magic doesn't match for inventory.img\n";
    let said = explain(&format!("(00.0) Version: 4.2.1 (gitid 0)\n{known}"));
    assert!(
        said.starts_with("standard input, of CRIU 4.2.1: line 2 tells the cause (image-magic)\n"),
        "{said}"
    );
    assert!(said.contains("> 2") && said.contains("help  go back to an older checkpoint"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");

    let said = explain("(00.1) Error (criu/new.c:1): something new\n");
    assert!(said.contains("something new") && said.contains("report it there"), "{said}");
    assert!(explain("(00.1) Dumping finished successfully\n").contains("it went well"));
    assert!(explain("").contains("it tells of no error, and of no end"));

    for (missing, why) in [("none", "there are no checkpoints of none"), ("none.log", "can't read none.log")]
    {
        let output = lab.run(["explain", missing]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(why), "{said}");
    }
}
