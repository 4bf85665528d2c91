//! The program that is copied isn't changed by it, and finds nobody that it doesn't know.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{copied, numbers, output, ready, saved, threads};
use crate::afterlife::bring_back;
use crate::harness::{Lab, eventually};

/// What each thread's status says that has to stay as it is.
fn status(pid: i32) -> BTreeMap<i32, Vec<String>> {
    const STAYS: [&str; 11] = [
        "Name",
        "Tgid",
        "PPid",
        "TracerPid",
        "Uid",
        "SigPnd",
        "ShdPnd",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapEff",
    ];
    let of_thread = |tid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
        let stays = |line: &&str| line.split(':').next().is_some_and(|key| STAYS.contains(&key));
        (tid, text.lines().filter(stays).map(str::to_owned).collect())
    };
    threads(pid).into_iter().map(of_thread).collect()
}

/// What it has open, by number.
fn descriptors(pid: i32) -> Vec<(i32, PathBuf)> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let link = |fd: i32| Some((fd, fs::read_link(folder.join(fd.to_string())).ok()?));
    numbers(&folder).into_iter().filter_map(link).collect()
}

fn mappings(pid: i32) -> usize {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines().count()
}

/// The processes that are this program, or were started with its variables.
pub(super) fn of_the_lab(lab: &Lab) -> Vec<i32> {
    let store = format!("SELFDUMP_DIR={}\0", lab.store().display());
    let is_ours = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(store.len()).any(|part| part == store.as_bytes())
    };
    numbers("/proc".as_ref()).into_iter().filter(is_ours).collect()
}

fn children(pid: i32) -> String {
    let of_thread =
        |tid: i32| fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    threads(pid).into_iter().map(of_thread).collect()
}

fn looks_on(lab: &Lab) {
    let looked = || output(lab, "unchanged").matches("looked ").count();
    let before = looked();
    eventually("it looks on", || (looked() > before + 3).then_some(()));
    let said = output(lab, "unchanged");
    assert!(!said.contains("wrong"), "{said}");
}

#[test]
fn threads_masks_errno_descriptors_and_children_are_what_they_were_and_nobody_traces_it() {
    let lab = Lab::new();
    let program = ready(copied(lab.program("unchanged").arg("6")));
    let pid = program.pid();
    looks_on(&lab);
    let (before, open) = (status(pid), descriptors(pid));
    assert_eq!(before.len(), 9, "its main thread, one that waits, six that look, and selfdump's");
    for number in 1..=5 {
        saved(&lab, pid, number);
        looks_on(&lab);
        assert_eq!(status(pid), before, "after {number}");
        assert_eq!(descriptors(pid), open, "after {number}");
        assert_eq!(children(pid), "", "after {number}");
        program.signal(libc::SIGUSR1);
        program.wait_for(&format!("no child {number}"));
    }
    assert!(before.values().all(|lines| lines.contains(&"TracerPid:\t0".to_owned())), "{before:?}");
    eventually("nobody but the program", || (of_the_lab(&lab) == [pid]).then_some(()));
    program.crash();

    let back = bring_back(&lab, "unchanged");
    looks_on(&lab);
    assert_eq!(threads(back.program.pid), before.into_keys().collect::<Vec<_>>());
    saved(&lab, back.program.pid, 6);
    looks_on(&lab);
}

#[test]
fn what_each_copy_takes_of_the_program_s_memory_it_gives_back() {
    let lab = Lab::new();
    let program = ready(copied(lab.program("unchanged").arg("6")));
    let pid = program.pid();
    saved(&lab, pid, 1);
    saved(&lab, pid, 2);
    let then = mappings(pid);
    (3..=8).for_each(|number| drop(saved(&lab, pid, number)));
    let now = mappings(pid);
    assert!(now <= then, "{now} mappings, of which {then} were there before");
}

#[test]
fn a_program_that_is_killed_while_its_copy_is_dumped_leaves_nobody() {
    let lab = Lab::new();
    let program = ready(copied(lab.program("asker").arg("600")));
    let pid = program.pid();
    program.signal(crate::harness::USR2);
    eventually("somebody besides", || (of_the_lab(&lab).len() > 1).then_some(()));
    program.crash();
    eventually("nobody", || of_the_lab(&lab).is_empty().then_some(()));
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}
