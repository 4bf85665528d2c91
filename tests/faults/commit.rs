//! The program is killed before and after every single step of a checkpoint, and comes back each time.
//!
//! A step is an operation that changes something in the store: from the folder of the draft to the deletion of old
//! checkpoints and the word about it all. The program that comes back is the one that is killed next, so that one chain
//! goes through all of its lives.

use super::memory::Memory;
use super::order::{At, Fault, Faults, Step, cases};
use super::victim::Victim;
use crate::aftermath::assert_everything_committed_is_whole;
use crate::harness::{Lab, manifest, number};

/// The checkpoint that was committed by these steps, of which the last was done or not.
fn committed(steps: &[Step], last_is_done: bool) -> Option<u64> {
    let done = if last_is_done { steps } else { &steps[..steps.len() - 1] };
    done.iter().find_map(|step| {
        let from_a_draft = step.operation == "rename" && step.path.extension()? == "partial";
        from_a_draft.then_some(step.to.as_ref()).flatten().map(|to| number(to))
    })
}

/// Kills it at this step of a checkpoint, and brings it back. Whether the checkpoint has such a step.
fn killed_at<'a>(faults: &Faults, victim: Victim<'a>, step: u64, fault: &Fault) -> (Victim<'a>, bool) {
    let before = victim.newest();
    faults.order(At::Changes, step, fault);
    if victim.asks().is_some() {
        return (victim, false);
    }
    let lab = victim.has_ended();
    let steps: Vec<Step> = faults.trace().into_iter().filter(Step::is_change).collect();
    let last = steps.last().expect("a step");
    let what = format!("step {step}, {fault}: {last:?}");
    assert!(last.is_struck() && steps.len() as u64 == step, "{what}");
    assert_everything_committed_is_whole(lab, &what);
    faults.none();
    let back = Victim::from_the_store(lab);
    assert_eq!(
        back.comes_from(),
        committed(&steps, *fault == Fault::KilledAfter).unwrap_or(before),
        "{what}"
    );
    (back, true)
}

/// Kills it at steps of these numbers, until there is none of a number.
fn survives(
    faults: &Faults,
    mut victim: Victim<'_>,
    fault: &Fault,
    numbers: impl IntoIterator<Item = u64>,
) -> u64 {
    let mut steps = 0;
    for number in numbers {
        let (back, is_there) = killed_at(faults, victim, number, fault);
        if !is_there {
            back.runs_on("all of it");
            break;
        }
        back.saves();
        victim = back;
        steps += 1;
    }
    println!("{fault}: killed at {steps} steps, came back {steps} times");
    steps
}

fn survives_every_step(fault: &Fault) {
    let lab = Lab::new();
    let faults = Faults::new(&lab, "program");
    let victim = Victim::start(&lab, |launch| faults.in_program(launch));
    let steps = survives(&faults, victim, fault, 1..);
    assert!(steps > 60, "a checkpoint has more steps than {steps}");
}

/// There are more steps, since each file is written by the program as well.
fn survives_steps_by_way_of_memory(fault: &Fault) {
    let lab = Lab::new();
    let memory = Memory::of(&lab);
    let faults = Faults::new(&lab, "program");
    let victim = Victim::start(&lab, |launch| faults.in_program(memory.for_program(launch)));
    let steps = survives(&faults, victim, fault, cases(8));
    assert!(steps > 10, "a checkpoint by way of memory has more steps than {steps}");
    assert!(memory.is_nobodys(), "what was left there is gone");
}

/// There are more steps here too: links to what was stored before, and what has changed since is written anew.
fn survives_steps_of_building_on_another(fault: &Fault) {
    let lab = Lab::new();
    let faults = Faults::new(&lab, "program");
    let victim = Victim::start_large(&lab, |launch| faults.in_program(launch));
    let steps = survives(&faults, victim, fault, cases(8));
    assert!(steps > 10, "a checkpoint that builds on another has more steps than {steps}");
    let built = lab.checkpoints().iter().all(|checkpoint| manifest(checkpoint)["chain"].is_array());
    assert!(built, "they build on others");
}

#[test]
fn a_program_that_is_killed_before_any_step_of_a_commit_comes_back() {
    survives_every_step(&Fault::KilledBefore);
}

#[test]
fn a_program_that_is_killed_after_any_step_of_a_commit_comes_back() {
    survives_every_step(&Fault::KilledAfter);
}

#[test]
fn so_does_one_whose_checkpoints_go_by_way_of_memory() {
    survives_steps_by_way_of_memory(&Fault::KilledBefore);
}

#[test]
fn so_does_that_one_when_it_is_killed_after_any_step() {
    survives_steps_by_way_of_memory(&Fault::KilledAfter);
}

#[test]
fn so_does_one_whose_checkpoints_build_on_each_other() {
    survives_steps_of_building_on_another(&Fault::KilledBefore);
}

#[test]
fn so_does_that_one_as_well_when_it_is_killed_after_any_step() {
    survives_steps_of_building_on_another(&Fault::KilledAfter);
}
