//! A name is given only to what is on the disk, and taken away on the disk before what it was the name of.
//!
//! That is asked of the operations themselves, and so holds for every file system that keeps what fsync(2) promises,
//! however much it puts off otherwise: `power` shows it for one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::order::{Faults, Step};
use super::victim::Victim;
use crate::harness::Lab;

/// What was changed and not flushed since: files, and folders for their entries.
#[derive(Default)]
struct Unsafe(BTreeSet<PathBuf>);

impl Unsafe {
    fn take(&mut self, step: &Step) {
        match step.operation.as_str() {
            "fsync" => {
                self.0.remove(&step.path);
            }
            "write" | "truncate" | "chmod" => {
                self.0.insert(step.path.clone());
            }
            "create" => {
                self.0.insert(step.path.clone());
                self.changes_an_entry(&step.path);
            }
            "remove" => {
                self.0.remove(&step.path);
                self.changes_an_entry(&step.path);
            }
            "rename" => {
                let to = step.to.as_ref().expect("a new path");
                if self.0.remove(&step.path) {
                    self.0.insert(to.clone());
                }
                [&step.path, to].into_iter().for_each(|path| self.changes_an_entry(path));
            }
            _ => self.changes_an_entry(&step.path),
        }
    }

    fn changes_an_entry(&mut self, path: &Path) {
        self.0.extend(path.parent().map(Path::to_owned));
    }

    fn below(&self, folder: &Path) -> Vec<&PathBuf> {
        self.0.iter().filter(|path| path.starts_with(folder)).collect()
    }
}

fn is_draft(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "partial")
}

#[test]
fn a_checkpoint_gets_its_name_when_it_is_on_the_disk_and_loses_it_before_it_is_deleted() {
    names_come_last_and_go_first(|lab, faults| Victim::start(lab, |launch| faults.in_program(launch)));
}

#[test]
fn so_does_one_that_builds_on_another() {
    names_come_last_and_go_first(|lab, faults| Victim::start_large(lab, |launch| faults.in_program(launch)));
}

fn names_come_last_and_go_first(start: impl for<'a> FnOnce(&'a Lab, &Faults) -> Victim<'a>) {
    let mut lab = Lab::new();
    let (in_program, in_criu) = (Faults::new(&lab, "program"), Faults::new(&lab, "criu"));
    lab.criu = in_criu.in_criu(&lab);
    let victim = start(&lab, &in_program);
    in_program.none();
    in_criu.none();
    victim.saves();
    let changes = |faults: &Faults| faults.trace().into_iter().filter(Step::is_change);
    let (mut left, mut committed, mut deleted) = (Unsafe::default(), 0, 0);
    // CRIU has ended before anything is flushed.
    changes(&in_criu).for_each(|step| left.take(&step));
    assert!(left.0.len() > 15, "CRIU has written files");
    for step in changes(&in_program) {
        let folder = step.path.parent().expect("a folder");
        if step.operation == "rename" && is_draft(&step.path) {
            assert_eq!(left.below(&step.path), Vec::<&PathBuf>::new(), "named before it is on the disk");
            committed += 1;
        }
        let instance = folder.ancestors().find(|above| is_draft(above)).and_then(Path::parent);
        if let Some(instance) = instance.filter(|_| step.operation == "remove" && committed > 0) {
            assert!(!left.0.contains(instance), "deleted before its name: {step:?}");
        }
        deleted += u32::from(step.operation == "rename" && step.to.as_ref().is_some_and(|to| is_draft(to)));
        left.take(&step);
    }
    assert_eq!((committed, deleted), (1, 1));
    victim.comes_back();
}
