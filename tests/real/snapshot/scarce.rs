//! A copy takes memory for each page that is written to while it is there: where there is too little, it isn't made, or
//! is given up before the program is harmed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{copied, output, ready, saved};
use crate::harness::{Lab, Subject, USR2, eventually, program, write_script};

/// A control group of memory, which goes when it is dropped; those in it have gone before.
struct Group(PathBuf);

impl Group {
    /// Below that of this test.
    fn of(lab: &Lab) -> Group {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let name = lab.path("").file_name().unwrap().to_string_lossy().into_owned();
        let ours = |kind: &str| groups.lines().find_map(|line| line.split_once(kind).map(|(_, path)| path));
        let folder = match ours(":memory:") {
            Some(path) => Path::new("/sys/fs/cgroup/memory").join(&path[1..]),
            None => Path::new("/sys/fs/cgroup").join(&ours("0::").expect("a group")[1..]),
        };
        let folder = folder.join(format!("selfdump{name}"));
        fs::create_dir(&folder).unwrap();
        Group(folder)
    }

    /// Leaves those in it so much more than they have of their own. Of files they have none in memory then.
    fn leave(&self, mebibytes: u64) {
        let stat = fs::read_to_string(self.0.join("memory.stat")).unwrap();
        let number =
            |key: &str| stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        let used = number("total_rss ").or_else(|| number("anon ")).expect("what is used");
        let _ = fs::write(self.0.join("memory.force_empty"), "0");
        let limit = if self.0.join("memory.max").exists() { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(self.0.join(limit), (used + (mebibytes << 20)).to_string()).unwrap();
    }

    /// A command that begins in it.
    fn command(&self, program: &Path) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg("echo $$ >\"$0\" && exec \"$@\"").arg(self.0.join("cgroup.procs")).arg(program);
        shell
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Those that were killed are counted until somebody has waited for them.
        let _ = crate::harness::patiently(|| fs::remove_dir(&self.0).ok());
    }
}

/// A program that writes to 256 MiB without pause.
fn writes(lab: &Lab, group: &Group) -> Subject {
    let launch = lab.launch(group.command(&program("invariants")), "invariants").args(["256", "2"]);
    ready(copied(launch))
}

/// Asks for a checkpoint that can't be; why.
fn refused(lab: &Lab, pid: i32) -> Value {
    let last = |lab: &Lab| lab.status().map_or(Value::Null, |status| status["last"].clone());
    let before = last(lab);
    crate::harness::send(pid, USR2);
    let last = eventually("the word about it", || Some(last(lab)).filter(|last| *last != before));
    assert_eq!((&last["saved"], &last["error"]["kind"]), (&false.into(), &"no-space".into()), "{last}");
    last["error"]["message"].clone()
}

fn goes_on(lab: &Lab) {
    let right = || output(lab, "invariants").matches("sum right").count();
    let before = right();
    eventually("it goes on", || (right() > before + 2).then_some(()));
    assert!(!output(lab, "invariants").contains("wrong"));
}

#[test]
fn where_there_is_little_memory_there_is_no_copy_and_then_there_is_one() {
    let lab = Lab::new();
    let group = Group::of(&lab);
    let program = writes(&lab, &group);
    goes_on(&lab);
    group.leave(100);
    let why = refused(&lab, program.pid());
    assert!(why.as_str().unwrap().contains("too little memory"), "{why}");
    goes_on(&lab);
    group.leave(1000);
    // What it has changed since is known from the second checkpoint on: all of it.
    saved(&lab, program.pid(), 1);
    goes_on(&lab);
    saved(&lab, program.pid(), 2);
    group.leave(300);
    let why = refused(&lab, program.pid());
    assert!(why.as_str().unwrap().contains("it has changed of its memory"), "{why}");
    goes_on(&lab);
}

#[test]
fn a_copy_is_given_up_when_what_is_written_meanwhile_leaves_too_little() {
    let mut lab = Lab::new();
    let slow = lab.path("criu");
    let script = format!("#!/bin/sh\n[ \"$1\" != swrk ] || sleep 5\nexec {} \"$@\"\n", lab.criu.display());
    write_script(&slow, script);
    lab.criu = slow;
    let group = Group::of(&lab);
    let program = writes(&lab, &group);
    goes_on(&lab);
    group.leave(250);
    let why = refused(&lab, program.pid());
    assert!(why.as_str().unwrap().contains("was ended before CRIU had dumped it"), "{why}");
    goes_on(&lab);
}
