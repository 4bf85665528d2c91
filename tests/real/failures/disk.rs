//! A store that is full, or that can't be written to.

use std::fs;

use super::asker::{Asker, Failure};
use super::small_disk::Disk;
use crate::harness::Lab;

#[test]
fn a_disk_without_room_for_the_memory_is_told_before_anything_is_dumped() {
    let lab = Lab::new();
    let disk = Disk::of(&lab, 64);
    let asker = Asker::start(&lab, lab.program("asker").arg("16"));
    asker.saves();
    let filler = disk.is_filled_but_for(8 << 20);
    let failure = Failure {
        kind: "no-space",
        cause: "a checkpoint takes about",
        remedy: "free space, keep fewer checkpoints (SELFDUMP_KEEP), or name another folder with SELFDUMP_DIR",
    };
    asker.fails(&failure);
    asker.fails(&failure);
    fs::remove_file(filler).expect("the filler");
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_disk_that_runs_full_in_mid_dump_is_named_by_criu() {
    let lab = Lab::new();
    let disk = Disk::of(&lab, 48);
    let asker = Asker::start(&lab, lab.program("asker").arg("1").arg("shared=32"));
    asker.saves();
    let failure = Failure { kind: "no-space", cause: "the disk is full", remedy: "free space" };
    asker.fails(&failure);
    asker.fails(&failure);
    disk.grows_to(256);
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_leaves_the_word_to_the_process() {
    let lab = Lab::new();
    let disk = Disk::of(&lab, 16);
    let asker = Asker::plain(&lab, &[]);
    asker.saves();
    let filler = disk.is_filled_but_for(0);
    let failure =
        Failure { kind: "no-space", cause: "can't write", remedy: "free space on that file system" };
    asker.fails_without_a_store(&failure);
    asker.fails_without_a_store(&failure);
    fs::remove_file(filler).expect("the filler");
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_store_that_is_read_only_leaves_the_word_to_the_process() {
    let lab = Lab::new();
    let disk = Disk::of(&lab, 64);
    let asker = Asker::plain(&lab, &[]);
    asker.saves();
    disk.becomes_read_only();
    let failure = Failure { kind: "permission", cause: "Read-only file system", remedy: "SELFDUMP_DIR" };
    asker.fails_without_a_store(&failure);
    asker.fails_without_a_store(&failure);
    disk.becomes_writable();
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_store_below_a_file_can_not_be_made() {
    let lab = Lab::new();
    fs::write(lab.store(), "not a folder").expect("a file");
    let asker = Asker::plain(&lab, &[]);
    let failure = Failure { kind: "io", cause: "can't make", remedy: "SELFDUMP_DIR" };
    asker.fails_without_a_store(&failure);
    asker.fails_without_a_store(&failure);
    fs::remove_file(lab.store()).expect("the file");
    asker.saves();
    asker.comes_back();
}
