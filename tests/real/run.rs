//! `selfdump run`: programs with somebody who is there for them.
//!
//! What a runner does is read from its JSON lines. A runner that is killed leaves its program running, so each program
//! is ended by its process id as well, if that still is the one.

pub mod any;
mod armed;
mod container;
mod copies;
mod crashes;
mod ends;
mod leaving;
mod refused;
mod said;
mod takeover;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::afterlife::is_there;
use crate::harness::{
    KILL, Lab, Subject, USR2, died_of, eventually, is_stopped, manifest, patiently, program, selfdump, send,
    stop,
};

const SEGV: i32 = libc::SIGSEGV;
const TERM: i32 = libc::SIGTERM;

/// `errand`, to be run with these options. It writes to `errand.txt`, and takes its order from `order`.
fn errand(lab: &Lab, options: &[&str]) -> Command {
    let mut command = runner(lab, options);
    command.arg(program("errand")).arg(lab.path("errand.txt")).arg(lab.path("order"));
    command
}

/// `selfdump run` with these options, up to the command.
pub fn runner(lab: &Lab, options: &[&str]) -> Command {
    let mut json = std::ffi::OsString::from("--json=");
    json.push(lab.path("events"));
    let mut command = selfdump();
    command.arg("run").arg(json).args(options).arg("--");
    command
}

/// A runner that runs.
pub struct Runner {
    pub runner: Subject,
    /// How many events there were before.
    seen: usize,
    events: PathBuf,
}

impl Runner {
    pub fn start(lab: &Lab, command: Command) -> Runner {
        let events = lab.path("events");
        let seen = read(&events).len();
        Runner { runner: lab.launch(command, "runner").start(), seen, events }
    }

    /// What has happened, each thing with its kind.
    fn events(&self) -> Vec<Value> {
        read(&self.events).split_off(self.seen)
    }

    fn all(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// Waits for the `count`th event of a kind.
    pub fn wait_for(&self, kind: &str, count: usize) -> Value {
        let event = patiently(|| self.all(kind).into_iter().nth(count - 1));
        event.unwrap_or_else(|| panic!("never came: {kind} {count}, in {}", self.runner.output()))
    }

    pub fn pid(&self) -> i32 {
        eventually("a program", || self.last_pid())
    }

    fn last_pid(&self) -> Option<i32> {
        self.events().iter().rev().find_map(|event| event["pid"].as_i64()).map(|pid| pid as i32)
    }

    /// Ends the runner as a crash would; the program goes on.
    fn crash(mut self) -> i32 {
        let pid = self.pid();
        self.runner.signal(KILL);
        self.runner.wait();
        // Nothing is left for us to end.
        self.events = PathBuf::new();
        pid
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.runner.signal(KILL);
        if let Some(pid) = self.last_pid().filter(|&pid| is_ours(pid)) {
            send(pid, KILL);
        }
    }
}

/// Whether a process is one that a runner has started: it has its own process id in its environment.
fn is_ours(pid: i32) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let named = format!("SELFDUMP_ARM={pid:010}");
    environment.split(|byte| *byte == 0).any(|variable| variable == named.as_bytes())
}

/// The names of a process's threads.
fn threads(pid: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| Some(fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned()))
        .collect()
}

/// How many copies of selfdump make checkpoints of a process.
fn agents(pid: i32) -> usize {
    threads(pid).iter().filter(|name| *name == "selfdump").count()
}

/// A program that has lost its runner, ended when it is dropped.
struct Left(i32);

impl Drop for Left {
    fn drop(&mut self) {
        if is_ours(self.0) {
            send(self.0, KILL);
        }
    }
}

/// The whole lines of a file of events.
fn read(events: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(events).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn lines(lab: &Lab) -> usize {
    fs::read_to_string(lab.path("errand.txt")).unwrap_or_default().lines().count()
}

/// Every line is there once, in order.
fn assert_unbroken(lab: &Lab) {
    let text = fs::read_to_string(lab.path("errand.txt")).expect("its output");
    for (number, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {number}"));
    }
}

fn order(lab: &Lab, text: &str) {
    // Whole or not at all.
    fs::write(lab.path("order.new"), text).expect("an order");
    fs::rename(lab.path("order.new"), lab.path("order")).expect("an order");
}

fn goes_on(lab: &Lab) {
    let before = lines(lab);
    eventually("its next lines", || (lines(lab) > before + 3).then_some(()));
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn to_the_end(lab: &Lab, mut command: Command) -> Output {
    command.envs(lab.environment()).stdin(Stdio::null()).output().expect("selfdump runs")
}
