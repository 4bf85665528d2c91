//! What can be carried without root is the table of docs/rootless.md: each row is a program that is checkpointed, killed
//! and brought back, or whose checkpoint fails with that cause.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Installed, USER};
use crate::chain::follow;
use crate::harness::{KILL, Lab, Restored, Subject, USR2, eventually, send};

/// What each situation of `rootless.py` is called, and what becomes of it.
const TABLE: [(&str, &str, &str); 16] = [
    ("plain", "memory, registers, signals", CARRIED),
    ("threads", "threads", CARRIED),
    ("children", "children, and pipes between them", CARRIED),
    ("shared_memory", "memory that processes share", CARRIED),
    ("files", "open files of the user's", CARRIED),
    ("mapped_file", "mapped files", CARRIED),
    ("unlinked_file", "open files without a name", CARRIED),
    ("locked_file", "locks on files", CARRIED),
    ("named_pipe", "named pipes", CARRIED),
    ("unix_sockets", "unix sockets", CARRIED),
    ("udp_socket", "UDP sockets", CARRIED),
    ("tcp_listener", "TCP sockets that listen", CARRIED),
    ("own_terminal", "pseudoterminals of its own", CARRIED),
    ("lowered_limits", "resource limits that were lowered", CARRIED),
    ("tcp_connection", "TCP connections, closed", CARRIED),
    ("watched_folder", "folders watched by inotify", "can't be found by its handle"),
];

const CARRIED: &str = "comes back";

fn row_of(what: &str, outcome: &str) -> String {
    match outcome {
        CARRIED => format!("| {what} | yes |"),
        cause => format!("| {what} | no: `{cause}` |"),
    }
}

#[test]
fn the_page_has_the_rows_that_are_tried_here_and_no_others() {
    let page = include_str!("../../../docs/rootless.md");
    let (_, table) = page.split_once("|---|---|\n").expect("a table");
    let found: Vec<&str> = table.lines().take_while(|line| line.starts_with("| ")).collect();
    let expected: Vec<String> = TABLE.iter().map(|(_, what, outcome)| row_of(what, outcome)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_carried_comes_back_and_what_is_not_is_named() {
    let installed = Installed::with(&[], &[]);
    for (situation, what, outcome) in TABLE {
        eprintln!("{what}: {outcome}");
        let situation = Situation::start(&installed, situation);
        match outcome {
            CARRIED => situation.comes_back(),
            cause => situation.fails(cause),
        }
    }
}

/// A run of one situation, with its runner.
struct Situation {
    lab: Lab,
    runner: Subject,
    pid: i32,
}

impl Situation {
    fn start(installed: &Installed, situation: &str) -> Situation {
        let lab = installed.lab(&["runner"]);
        let script = installed.file("rootless.py");
        let mut command = installed.run("selfdump", &["run", "--name", "situation", "--"]);
        command.arg("/usr/bin/python3").arg(script).arg(situation).current_dir(lab.path(""));
        let runner = lab.launch(command, "runner").start();
        let ready = runner.wait_for("ready ");
        let pid = ready.trim_start_matches("ready ").parse().expect("a process id");
        runner.wait_for("tick 3");
        send(pid, USR2);
        Situation { lab, runner, pid }
    }

    fn ticks(&self) -> usize {
        self.runner.output().matches("\ntick ").count()
    }

    fn comes_back(self) {
        self.lab.status_when("a checkpoint", |status| {
            assert_eq!(status["last"]["error"], Value::Null, "{status:#}");
            status["last"]["saved"] == true
        });
        let ticks = self.ticks();
        send(self.pid, KILL);
        self.runner.wait_for("selfdump: restored situation/");
        eventually("it goes on", || (self.ticks() > ticks + 5).then_some(()));
        let output = self.runner.output();
        assert_eq!(output.matches("ready ").count(), 1, "from its checkpoint: {output}");
        assert!(!output.contains("wrong"), "{output}");
    }

    fn fails(self, cause: &str) {
        let status = self.lab.status_when("a failure", |status| status["last"]["saved"] == false);
        let message = status["last"]["error"]["message"].as_str().expect("a message");
        assert!(message.contains(cause), "{message}");
        let ticks = self.ticks();
        eventually("it runs on", || (self.ticks() > ticks + 5).then_some(()));
    }
}

impl Drop for Situation {
    fn drop(&mut self) {
        // The runner would bring it back.
        self.runner.signal(KILL);
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            let folder = fs::read_link(process.path().join("cwd")).unwrap_or_default();
            if let Some(pid) = pid.filter(|_| folder.starts_with(self.lab.path(""))) {
                send(pid, KILL);
            }
        }
    }
}

/// The hash chain: not a step is lost or doubled.
fn a_chain_comes_back(umask: &str, options: &[&str]) {
    let installed = Installed::with(options, &["chain"]);
    let lab = installed.lab(&["chain", "restore"]);
    let mut command = super::as_user(USER, "/bin/sh");
    command.args(["-c", "umask $0; exec \"$@\"", umask]).arg(installed.file("chain")).arg("8");
    let program = lab.launch(command, "chain").start();
    program.wait_for("ready");
    for number in 1..=5 {
        program.signal(USR2);
        lab.wait_for_checkpoint(number);
    }
    lab.status_when("the fifth", |status| {
        status["metrics"]["checkpoints"] == 5 || status["last"]["saved"] == true
    });
    let before = follow(&program.output());
    let pid = program.pid();
    program.crash();
    let restorer = lab.launch(installed.run("selfdump", &["restore", "chain"]), "restore").start();
    let restored = Restored { restorer, pid };
    restored.restorer.wait_for("selfdump: restored chain/");
    eventually("every thread goes on beyond where it was", || {
        let now = follow(&fs::read_to_string(lab.path("chain.out")).ok()?);
        (now.len() == 8 && now.iter().all(|(thread, step)| *step > before[thread] + 100)).then_some(())
    });
    let uid = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).expect("it runs");
    assert!(uid.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}")), "{uid}");
}

#[test]
fn the_chains_of_an_ordinary_user_s_threads_are_unbroken_after_checkpoints_and_a_crash() {
    a_chain_comes_back("022", &[]);
}

#[test]
fn they_are_under_a_umask_that_takes_everything_away() {
    a_chain_comes_back("0777", &[]);
}
