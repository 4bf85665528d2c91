//! Children: nothing of the parent's happens in them, they come back with it, and they may have their own.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::afterlife::{Alone, bring_back};
use crate::chain::follow;
use crate::harness::{Lab, Subject, USR2, eventually, manifest, send};

const CHILDREN: usize = 4;

/// A running `forker` and its children.
fn family(lab: &Lab) -> (Subject, Vec<Alone>) {
    let parent = lab.program("forker").start();
    parent.wait_for("ready");
    let children = eventually("all children", || {
        let output = parent.output();
        let said = output.lines().filter_map(|line| line.strip_prefix("child ")?.split_once(" is "));
        let pid = |rest: &str| rest.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        // They speak in no order; child 1 is the first.
        let by_number: BTreeMap<&str, i32> = said.map(|(number, rest)| (number, pid(rest))).collect();
        (by_number.len() == CHILDREN).then(|| by_number.into_values().collect::<Vec<i32>>())
    });
    (parent, children.into_iter().map(Alone::new).collect())
}

#[test]
fn a_tree_of_five_comes_back_and_each_of_its_chains_is_unbroken() {
    let lab = Lab::new();
    let (parent, children) = family(&lab);
    for child in &children {
        child.signal(USR2);
    }
    eventually("they all go on", || (follow(&parent.output()).len() == CHILDREN + 1).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    assert!(lab.checkpoints().is_empty(), "a signal to a child does nothing to its parent");
    assert!(children.iter().all(|child| crate::afterlife::is_there(child.pid)), "nor to the child");

    parent.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    assert_eq!(lab.checkpoints().len(), 1, "it is the only one: that of the parent's own signal");
    assert_eq!(manifest(&checkpoint)["life"]["pid"], parent.pid());
    let processes = manifest(&checkpoint)["processes"].as_array().unwrap().len();
    assert_eq!(processes, CHILDREN + 1);
    let before = follow(&parent.output());
    let pids: Vec<i32> = children.iter().map(|child| child.pid).collect();
    parent.crash();
    drop(children);

    let back = bring_back(&lab, "forker");
    let _children: Vec<Alone> = pids.into_iter().map(Alone::new).collect();
    eventually("all five go on beyond where they were", || {
        let now = follow(&fs::read_to_string(lab.path("forker.out")).unwrap());
        now.iter().all(|(thread, step)| *step > before[thread] + 100).then_some(())
    });
    drop(back);
}

#[test]
fn a_child_that_installs_it_has_an_instance_of_its_own() {
    let lab = Lab::new();
    let (parent, children) = family(&lab);
    let child = &children[2];
    send(child.pid, libc::SIGUSR1);
    let said = parent.wait_for("child 3: its parent's handle");
    assert_eq!(said, "child 3: its parent's handle is not-installed, its own installed");
    child.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let manifest = manifest(&checkpoint);
    assert_eq!(
        (&manifest["program"]["name"], &manifest["life"]["pid"]),
        (&"forked".into(), &child.pid.into())
    );
    assert_eq!(manifest["processes"].as_array().unwrap().len(), 1, "the parent is not in it");
    assert_eq!(lab.checkpoints().len(), 1, "the parent made none");

    // Both go on by themselves.
    parent.signal(USR2);
    eventually("the parent's own", || (lab.checkpoints().len() == 2).then_some(()));
    child.signal(USR2);
    eventually("the child's second", || (lab.checkpoints().len() == 3).then_some(()));
    // Nobody else would reap the children.
    parent.crash();
}

#[test]
fn a_child_with_a_runtime_of_its_own_knows_that_it_came_back_with_its_parent() {
    let lab = Lab::new();
    let (parent, children) = family(&lab);
    let child = children[2].pid;
    send(child, libc::SIGUSR1);
    parent.wait_for("child 3: its parent's handle");
    parent.signal(USR2);
    lab.wait_for_checkpoint(1);
    let pids: Vec<i32> = children.iter().map(|child| child.pid).collect();
    parent.crash();
    drop(children);

    let back = bring_back(&lab, "forker");
    let _children: Vec<Alone> = pids.into_iter().map(Alone::new).collect();
    send(child, USR2);
    let generation = || {
        let of_the_child =
            lab.checkpoints().into_iter().find(|path| path.to_string_lossy().contains("/forked/"))?;
        Some(manifest(&of_the_child)["life"]["generation"].clone())
    };
    assert_eq!(eventually("its checkpoint", generation), 1);
    drop(back);
}

#[test]
fn a_child_that_is_forked_during_a_checkpoint_has_nothing_of_it() {
    for staging in ["off", "auto"] {
        let lab = Lab::new();
        let nursery = lab.program("nursery").arg("100").env("SELFDUMP_STAGING", staging).start();
        nursery.wait_for("ready");
        for number in 1..=3 {
            nursery.signal(USR2);
            lab.wait_for_checkpoint(number);
        }
        let forked = nursery.output().matches("forked ").count();
        eventually("more children", || (nursery.output().matches("forked ").count() > forked).then_some(()));
        let output = nursery.output();
        let kinds =
            ["pipe:", "socket:", "anon_inode:", "pidfd:", "/memfd:", "/run/selfdump/", "selfdump-plain-"];
        let is_of_it = |link: &str| {
            kinds.iter().any(|kind| link.contains(kind)) || link.starts_with(lab.store().to_str().unwrap())
        };
        let links = output.lines().filter_map(|line| line.strip_prefix("child has "));
        let kept: Vec<&str> = links.filter(|link| is_of_it(link)).collect();
        assert!(kept.is_empty(), "{staging}: {kept:?}");
        nursery.crash();
    }
}
