//! The disk fails at each operation of a checkpoint, once for the program and once for CRIU.
//!
//! Whatever it was, one sentence holds: a checkpoint was saved that is whole and comes back, or the reason is told with
//! a remedy; older ones are whole, the program runs on, and the next checkpoint is made.

use super::memory::Memory;
use super::order::{At, Fault, Faults, cases};
use super::victim::{Outcome, Victim};
use crate::harness::Lab;

/// Which operations of a checkpoint fail, where not all are asked for: every so manyth.
const STRIDE: u64 = 16;

fn survives(faults: &Faults, mut victim: Victim<'_>, fault: &Fault) {
    let (mut failed, mut saved) = (0, 0);
    for number in cases(STRIDE) {
        victim.saves();
        match victim.meets(faults, (At::Disk, number), fault) {
            Outcome::NotMet => break,
            Outcome::Failed => failed += 1,
            Outcome::Saved => saved += 1,
        }
        // A CRIU that ends in mid-dump leaves a piece of itself in the program, which the next dump has to write as well,
        // and the one after that. So it goes on from where that wasn't there yet; or from what was just saved.
        let good = victim.newest();
        victim.saves();
        victim = victim.goes_back_to(good);
    }
    println!("{fault}: {} operations struck, {saved} checkpoints were saved all the same", failed + saved);
    assert!(failed + saved > 2, "only {failed} and {saved}");
    victim.comes_back();
}

fn survives_in_the_program(fault: &Fault) {
    let lab = Lab::new();
    let faults = Faults::new(&lab, "program");
    survives(&faults, Victim::start(&lab, |launch| faults.in_program(launch)), fault);
}

fn survives_by_way_of_memory(fault: &Fault) {
    let lab = Lab::new();
    let memory = Memory::of(&lab);
    let faults = Faults::new(&lab, "program");
    survives(&faults, Victim::start(&lab, |launch| faults.in_program(memory.for_program(launch))), fault);
    assert!(memory.is_nobodys(), "what was left there is gone");
}

fn survives_in_criu(fault: &Fault) {
    let mut lab = Lab::new();
    let faults = Faults::new(&lab, "criu");
    lab.criu = faults.in_criu(&lab);
    survives(&faults, Victim::start(&lab, |launch| launch), fault);
}

#[test]
fn an_error_of_the_disk_at_any_operation_of_the_program_is_told_and_survived() {
    survives_in_the_program(&Fault::Fails(libc::EIO));
}

#[test]
fn a_disk_that_is_full_at_any_operation_of_the_program_is_told_and_survived() {
    survives_in_the_program(&Fault::Fails(libc::ENOSPC));
}

#[test]
fn a_disk_that_is_read_only_at_any_operation_of_the_program_is_told_and_survived() {
    survives_in_the_program(&Fault::Fails(libc::EROFS));
}

#[test]
fn a_write_of_the_program_that_is_cut_short_goes_on() {
    survives_in_the_program(&Fault::Short);
}

#[test]
fn an_error_is_told_and_survived_by_way_of_memory_too() {
    survives_by_way_of_memory(&Fault::Fails(libc::EIO));
}

#[test]
fn no_room_is_told_and_survived_by_way_of_memory_too() {
    survives_by_way_of_memory(&Fault::Fails(libc::ENOSPC));
}

#[test]
fn a_write_that_is_cut_short_goes_on_by_way_of_memory_too() {
    survives_by_way_of_memory(&Fault::Short);
}

#[test]
fn an_error_of_the_disk_at_any_operation_of_criu_is_told_and_survived() {
    survives_in_criu(&Fault::Fails(libc::EIO));
}

#[test]
fn a_disk_that_is_full_at_any_operation_of_criu_is_told_and_survived() {
    survives_in_criu(&Fault::Fails(libc::ENOSPC));
}

#[test]
fn a_write_of_criu_that_is_cut_short_is_told_or_goes_on() {
    survives_in_criu(&Fault::Short);
}

#[test]
fn a_criu_that_is_killed_before_any_operation_leaves_the_program_running() {
    survives_in_criu(&Fault::KilledBefore);
}

#[test]
fn a_criu_that_hangs_before_any_operation_is_ended_at_the_deadline() {
    survives_in_criu(&Fault::Stopped);
}
