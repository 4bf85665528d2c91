//! The power fails, at any moment of a few checkpoints: what has been flushed to the disk is there, and what was written
//! since is there or not, write by write.
//!
//! Each of these disks is mounted, which has the file system's journal replayed, and then every checkpoint on it is
//! whole, and none is missing that had been reported.

use std::fs;
use std::path::Path;

use selfdump::restore::{find, newest_good};

use super::order::all_cases;
use super::recorder::{Event, Mounted, Recorder, formatted};
use super::victim::{self, Victim};
use crate::afterlife::bring_back;
use crate::dice::Dice;
use crate::failures::small_disk::Disk;
use crate::harness::{Lab, Launch, USR2, manifest, number};

const MEBIBYTES: usize = 24;

/// The same for checkpoints that build on each other: each is there as a whole for a moment.
const LARGE_MEBIBYTES: usize = 40;

/// Whether the program has so much memory that its checkpoints build on each other.
#[derive(Clone, Copy, PartialEq)]
enum Size {
    Small,
    Large,
}

/// How many disks are looked at where not all are asked for, and how many there are for each flush then.
const SOME: usize = 100;
const FOR_EACH_FLUSH: usize = 6;

/// Checkpoints that had been reported when the disk had been told so much.
struct Reported {
    length: usize,
    newest: u64,
}

/// A disk after the power has failed.
struct Wreck {
    /// How much the disk was told before, and which of the last writes are there.
    length: usize,
    kind: usize,
    contents: Vec<u8>,
}

fn survives_the_loss_of_power(options: &str, prepare: impl FnOnce(Launch) -> Launch, lab: &Lab, size: Size) {
    let mebibytes = if size == Size::Large { LARGE_MEBIBYTES } else { MEBIBYTES };
    let at_first = formatted(&lab.path("first.disk"), mebibytes);
    let (events, reported) = record(lab, at_first.clone(), options, prepare, size);
    let flushes = events.iter().filter(|event| matches!(event, Event::Flush)).count();
    let mut dice = Dice::throw();
    let every = if all_cases() { 1 } else { (flushes * FOR_EACH_FLUSH).div_ceil(SOME) as u64 };
    let (mut looked, mut last_restored) = (0, 0);
    wrecks(&at_first, &events, &mut dice, every, |wreck| {
        let expected = reported.iter().rev().find(|reported| reported.length <= wreck.length);
        let newest =
            look_at(lab, &wreck, expected.map_or(0, |reported| reported.newest), options, last_restored);
        last_restored = last_restored.max(newest);
        looked += 1;
    });
    println!("{options}: {flushes} flushes, {} writes, {looked} disks", events.len() - flushes);
    assert!(looked > 50 && last_restored > 3, "{looked} disks, to checkpoint {last_restored}");
}

/// Has a program make checkpoints on a disk; what the disk was told, and when checkpoints were reported.
fn record(
    lab: &Lab,
    at_first: Vec<u8>,
    options: &str,
    prepare: impl FnOnce(Launch) -> Launch,
    size: Size,
) -> (Vec<Event>, Vec<Reported>) {
    let folder = lab.path("recorder");
    fs::create_dir(&folder).expect("a folder");
    let recorder = Recorder::start(&folder, at_first);
    let mounted = Mounted::new(&recorder.file(), &lab.store(), options);
    let memory = if size == Size::Large { &[victim::MEBIBYTES][..] } else { &[] };
    let program = prepare(lab.program("chain").arg("2").args(memory).env("SELFDUMP_KEEP", "2")).start();
    program.wait_for("ready");
    let mut reported = Vec::new();
    for checkpoint in 1..=5 {
        program.signal(USR2);
        Victim::has_told(program.pid(), checkpoint);
        reported.push(Reported { length: recorder.length(), newest: checkpoint });
    }
    program.crash();
    let builds_on_others = manifest(&lab.wait_for_checkpoint(5))["chain"].is_array();
    assert_eq!(builds_on_others, size == Size::Large);
    let events = recorder.events();
    drop(mounted);
    drop(recorder);
    (events, reported)
}

/// Every `every`th of the disks that the power can leave.
fn wrecks(at_first: &[u8], events: &[Event], dice: &mut Dice, every: u64, mut look: impl FnMut(Wreck)) {
    let mut kept = at_first.to_vec();
    let mut since: Vec<(usize, &[u8])> = Vec::new();
    for (length, event) in events.iter().enumerate() {
        match event {
            Event::Write(at, bytes) => since.push((*at, bytes)),
            Event::Flush => {
                for kind in 0..FOR_EACH_FLUSH {
                    if dice.below(every) == 0 {
                        look(Wreck { length, kind, contents: after(&kept, &since, kind, dice) });
                    }
                }
                since.drain(..).for_each(|(at, bytes)| kept[at..at + bytes.len()].copy_from_slice(bytes));
            }
        }
    }
}

/// What was kept, and of what was written since nothing, all, the first ones, or any.
fn after(kept: &[u8], since: &[(usize, &[u8])], kind: usize, dice: &mut Dice) -> Vec<u8> {
    // The physical sector of today's disks; a write of one is there or not.
    const SECTOR: usize = 4096;
    let mut contents = kept.to_vec();
    let first = dice.below(since.len() as u64 + 1) as usize;
    for (index, (at, bytes)) in since.iter().enumerate() {
        for (sector, part) in bytes.chunks(SECTOR).enumerate() {
            let is_there = match kind {
                0 => false,
                1 => true,
                2 => index < first,
                // A write of many sectors need not come whole.
                3 => dice.below(2) == 0,
                4 => dice.below(8) == 0,
                _ => dice.below(8) != 0,
            };
            if is_there {
                let at = at + sector * SECTOR;
                contents[at..at + part.len()].copy_from_slice(part);
            }
        }
    }
    contents
}

/// Every checkpoint is whole, and the newest is `expected` or a later one; that is restored if it is later than any that
/// was. Its number.
fn look_at(lab: &Lab, wreck: &Wreck, expected: u64, options: &str, last_restored: u64) -> u64 {
    // Another file for each: a loop device that goes by and by is not to have a hand in the next.
    let name = format!("wreck-{}-{}", wreck.length, wreck.kind);
    let (file, at) = (lab.path(&name), lab.path("wreck"));
    fs::write(&file, &wreck.contents).expect("a disk");
    let mounted = Mounted::new(&file, &at, options);
    let what = format!("after {} events, {}", wreck.length, wreck.kind);
    let newest = newest_whole(&at, &what);
    assert!(newest >= expected, "{what}: checkpoint {expected} was reported, and {newest} is the newest");
    if newest > last_restored {
        let back = bring_back(lab, &at);
        assert_eq!((number(&back.path), back.skipped.len()), (newest, 0), "{what}");
    }
    drop(mounted);
    fs::remove_file(file).expect("the disk");
    newest
}

fn newest_whole(store: &Path, what: &str) -> u64 {
    let entries = find(store, None).expect("a store");
    for entry in &entries {
        entry.verify().unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    let newest = newest_good(store, None, &mut |entry, error| panic!("{what}: {}: {error:?}", entry.id()));
    newest.map_or(0, |newest| number(&newest.path))
}

#[test]
fn whatever_the_loss_of_power_leaves_on_an_ext4_is_a_store_with_all_that_was_reported() {
    survives_the_loss_of_power("data=ordered", |launch| launch, &Lab::new(), Size::Small);
}

#[test]
fn the_same_holds_where_the_file_system_writes_names_before_contents() {
    survives_the_loss_of_power("data=writeback,noauto_da_alloc", |launch| launch, &Lab::new(), Size::Small);
}

#[test]
fn and_where_checkpoints_go_by_way_of_memory() {
    let lab = Lab::new();
    let memory = Disk::at(lab.path("memory"), "huge=always,size=400m");
    let prepare = |launch: Launch| launch.env("SELFDUMP_STAGING", memory.path());
    survives_the_loss_of_power("data=writeback,noauto_da_alloc", prepare, &lab, Size::Small);
}

#[test]
fn and_where_checkpoints_build_on_each_other() {
    survives_the_loss_of_power("data=writeback,noauto_da_alloc", |launch| launch, &Lab::new(), Size::Large);
}
