//! Lives of one program: one after the other, two at a time, and with a family.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use selfdump::restore::find;
use serde_json::Value;

use crate::afterlife::{Alone, bring_back, is_there};
use crate::chain::follow;
use crate::harness::{Lab, USR2, eventually, manifest, send};

const USR1: i32 = libc::SIGUSR1;

/// Waits for a line of a lab's output file that `accepted` likes.
fn line_of(lab: &Lab, output: &str, what: &str, accepted: impl Fn(&str) -> bool) -> String {
    let path = lab.path(output);
    eventually(what, || {
        fs::read_to_string(&path).unwrap_or_default().lines().find(|line| accepted(line)).map(str::to_owned)
    })
}

/// Everything in a folder, with size, time of the last change and content.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).expect("it is there");
        let content = if about.is_file() { fs::read(&path).expect("readable") } else { Vec::new() };
        found.insert(path.clone(), (about.len(), about.modified().expect("a time"), content));
        if about.is_dir() {
            left.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("an entry").path()));
        }
    }
    found
}

#[test]
fn a_call_returns_saved_in_one_process_and_restored_in_the_next_which_changes_nothing_on_disk() {
    let lab = Lab::new();
    let program = lab.program("family").start();
    program.wait_for("ready");
    program.signal(USR1);
    let saved = program.wait_for("saved family/");
    let mut id = saved.strip_prefix("saved ").unwrap().to_owned();
    lab.status_when("status.json tells of it", |status| status["last"]["checkpoint"] == *id);
    program.crash();
    for generation in 1..=3 {
        let before = listing(&lab.store());
        let back = bring_back(&lab, "family");
        assert_eq!((&back.id, back.generation), (&id, generation));
        let start = format!("restored {id} generation {generation} age ");
        let line = line_of(&lab, "family.out", &start, |line| line.starts_with(&start));
        let age: u128 = line.rsplit(' ').next().unwrap().parse().unwrap();
        let taken = manifest(&back.path)["taken_unix_us"].as_u64().unwrap();
        let oldest =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
        assert!(age > 0 && age <= u128::from((oldest - taken) / 1000), "age {age} ms");
        assert!(listing(&lab.store()) == before, "the restored process changed the store");

        // This life's own checkpoint, from which the next one comes.
        back.program.signal(USR1);
        let earlier = id.clone();
        let newer = |line: &str| line.starts_with("saved ") && line["saved ".len()..] > *earlier;
        id = line_of(&lab, "family.out", "a checkpoint of the new life", newer)["saved ".len()..].to_owned();
        let newest = lab.store().join(&id);
        assert_eq!(manifest(&newest)["life"]["generation"], Value::from(generation));
        let status = lab.status_when("its status", |status| status["last"]["checkpoint"] == *id);
        assert_eq!(status["life"]["generation"], Value::from(generation));
        let seen = lab.run(["status", &back.program.pid.to_string()]);
        let text = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert!(text.contains(&format!("runs, generation {generation}")), "{seen:?}");
        back.program.crash();
    }
}

/// A program that was restored in a pid namespace of its own, together with its restorer.
struct Elsewhere {
    /// `unshare`, whose end is the end of the namespace.
    unshare: Child,
}

impl Elsewhere {
    fn restore(lab: &Lab, target: &str) -> Elsewhere {
        let inside = lab.selfdump(["restore", target]);
        let mut unshare = Command::new("unshare");
        // A session whose leader is outside of the pid namespace is one that CRIU doesn't dump.
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", "setsid"]);
        unshare.arg(inside.get_program()).args(inside.get_args());
        unshare.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        unshare.stdin(Stdio::null()).stdout(Stdio::null());
        Elsewhere { unshare: unshare.spawn().expect("unshare, of util-linux") }
    }

    /// The program as it is seen from outside: a child of the restorer, which is unshare's, and which may
    /// still have CRIU for another.
    fn pid(&self) -> i32 {
        let is_chain =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "chain\n");
        eventually("the program in the other namespace", || {
            let restorer = children_of(self.unshare.id() as i32).pop()?;
            children_of(restorer).into_iter().find(is_chain)
        })
    }
}

fn children_of(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// Life, number and cause of each committed checkpoint; none where one vanished while it was read.
fn snapshot(lab: &Lab) -> Option<BTreeSet<(u64, PathBuf, String)>> {
    let describe = |path: PathBuf| {
        let manifest = crate::harness::read_json(&path.join("manifest.json"))?["manifest"].clone();
        let cause = manifest["cause"]["kind"].as_str()?.to_owned();
        Some((manifest["life"]["generation"].as_u64()?, path, cause))
    };
    lab.checkpoints().into_iter().map(describe).collect()
}

#[test]
fn two_lives_at_a_time_neither_overwrite_nor_prune_each_other() {
    let lab = Lab::new();
    let start = lab.program("chain").arg("2").env("SELFDUMP_KEEP", "2").env("SELFDUMP_EVERY", "1s");
    let original = start.start();
    original.wait_for("ready");
    original.signal(USR2);
    lab.wait_for_checkpoint(1);
    let copy = Elsewhere::restore(&lab, "chain");
    original.wait_for("generation 1");
    let (one, other) = (original.pid(), copy.pid());
    assert_ne!(one, other, "two processes");

    let mut seen: BTreeSet<(u64, PathBuf, String)> = BTreeSet::new();
    for round in 1..=3 {
        send(one, USR2);
        send(other, USR2);
        for cause in ["signal", "timer"] {
            eventually(&format!("checkpoint {round} of both lives by {cause}"), || {
                let now = snapshot(&lab)?;
                for life in [0, 1] {
                    let left = now.iter().filter(|(generation, ..)| *generation == life).count();
                    let ever = seen.iter().filter(|(generation, ..)| *generation == life).count();
                    assert!(left >= ever.min(2), "life {life} has {left} checkpoints left: {now:?}");
                }
                seen.extend(now);
                let by = |life| seen.iter().filter(|(of, _, why)| *of == life && why == cause).count();
                (by(0) >= round && by(1) >= round).then_some(())
            });
        }
    }
    let paths: BTreeSet<&PathBuf> = seen.iter().map(|(_, path, _)| path).collect();
    assert_eq!(paths.len(), seen.len(), "no number was given twice");
    for (at, life) in [(one, "original"), (other, "copy")] {
        assert!(is_there(at), "the {life} still runs");
    }
    original.crash();
    drop(copy);

    for entry in find(&lab.store(), None).unwrap() {
        entry.verify().unwrap_or_else(|error| panic!("{error:?}"));
    }
    let left = snapshot(&lab).expect("nobody writes any more");
    for life in [0, 1] {
        let count = left.iter().filter(|(generation, ..)| *generation == life).count();
        // One more where the end came between a commit and its pruning.
        assert!((2..=3).contains(&count), "life {life} leaves {count}");
    }
    let back = bring_back(&lab, "chain");
    let line = format!("restored {} generation {}", back.id, back.generation);
    line_of(&lab, "chain.out", &line, |found| found == line);
    follow(&fs::read_to_string(lab.path("chain.out")).unwrap());
}

#[test]
fn a_forked_child_does_nothing_on_its_parents_behalf_and_comes_back_with_it() {
    let lab = Lab::new();
    let program = lab.program("family").arg("1").arg("fork").start();
    program.wait_for("ready");
    let said = program.wait_for(" asked and got ");
    let child = Alone::new(said.split(' ').nth(1).unwrap().parse().unwrap());
    assert!(said.ends_with(" asked and got not-installed"), "{said}");
    child.signal(USR2);
    program.signal(USR1);
    program.wait_for("saved family/");
    let checkpoints = lab.checkpoints();
    assert_eq!(checkpoints.len(), 1, "the child's signal made none");
    let manifest = manifest(&checkpoints[0]);
    assert_eq!(manifest["cause"]["kind"], "call");
    let processes = manifest["processes"].as_array().unwrap();
    let pids: Vec<i64> = processes.iter().map(|process| process["pid"].as_i64().unwrap()).collect();
    assert_eq!(pids, [i64::from(program.pid()), i64::from(child.pid)]);
    assert_eq!(processes[1]["parent"], processes[0]["pid"]);

    let pid = child.pid;
    program.crash();
    child.crash();
    let before = steps(&lab);
    let back = bring_back(&lab, "family");
    let child = Alone::new(pid);
    eventually("the child counts on", || (steps(&lab) > before + 10).then_some(()));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap();
    assert_eq!(parent, back.program.pid.to_string(), "it is its parent's again");
    drop((back, child));
}

/// How many lines the child has written.
fn steps(lab: &Lab) -> usize {
    fs::read_to_string(lab.path("family.out")).unwrap().matches("child step").count()
}
