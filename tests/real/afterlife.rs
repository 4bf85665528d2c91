//! Restored programs, for tests that bring one back again and again.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::harness::{KILL, Lab, eventually, send};

/// A process that isn't our child. It is ended by its process id when it is dropped.
pub struct Alone {
    pub pid: i32,
    /// Its parent, which reaps it at once and then ends as it did; nobody's where init does that in its own
    /// time.
    restorer: Option<Child>,
}

impl Alone {
    pub fn new(pid: i32) -> Alone {
        Alone { pid, restorer: None }
    }

    pub fn signal(&self, signal: i32) {
        send(self.pid, signal);
    }

    /// The process id of who has brought it back, and attends to it.
    pub fn restorer(&self) -> i32 {
        self.restorer.as_ref().expect("a restorer").id() as i32
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub fn crash(self) {}
}

impl Drop for Alone {
    fn drop(&mut self) {
        send(self.pid, KILL);
        if let Some(restorer) = &mut self.restorer {
            let _ = restorer.wait();
        }
        if !std::thread::panicking() {
            eventually("the end of a restored program", || (!is_there(self.pid)).then_some(()));
        }
    }
}

/// Whether there is such a process, be it only one that nobody has reaped.
pub fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A program that `selfdump restore --json` has brought back.
pub struct Return {
    pub program: Alone,
    pub id: String,
    pub path: PathBuf,
    pub generation: u64,
    /// What was passed over, and why.
    pub skipped: Vec<String>,
    /// All that `--json` says.
    pub report: Value,
}

/// Brings back the newest good checkpoint of a target.
pub fn bring_back(lab: &Lab, target: impl AsRef<Path>) -> Return {
    bring_back_with(lab, target, &[])
}

/// The same, with further options. The restorer leads a process group of its own, as a shell's job does.
pub fn bring_back_with(lab: &Lab, target: impl AsRef<Path>, options: &[&str]) -> Return {
    let target = target.as_ref().to_str().expect("a path in UTF-8");
    let mut command = lab.selfdump(["restore", target, "--json"].iter().chain(options));
    command.process_group(0);
    let mut restorer = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("selfdump runs");
    let errors =
        BufReader::new(restorer.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let mut said = Vec::new();
    let report = errors.inspect(|line| said.push(line.clone())).find(|line| line.starts_with('{'));
    let report = report.unwrap_or_else(|| panic!("{target} is not restored: {said:#?}"));
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let skipped = report["skipped"].as_array().expect("a list").iter();
    Return {
        program: Alone { pid: report["pid"].as_i64().expect("a pid") as i32, restorer: Some(restorer) },
        id: text(&report["restored"]),
        path: text(&report["path"]).into(),
        generation: report["generation"].as_u64().expect("a number"),
        skipped: skipped.map(|one| text(&one["problem"])).collect(),
        report: report.clone(),
    }
}
