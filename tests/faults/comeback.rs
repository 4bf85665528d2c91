//! Something goes wrong with each message between `selfdump restore` and CRIU.

use super::order::{At, Fault, Faults};
use super::talk::{with_answers, with_questions};
use super::victim::Victim;
use crate::failures::fake;
use crate::harness::Lab;

/// The answer that some other process was restored (restore = 4, pid = 1): one beyond the largest number there is.
fn another() -> Vec<u8> {
    vec![1 << 3, 2, 2 << 3, 1, 4 << 3 | 2, 5, 1 << 3, 0x80, 0x80, 0x80, 4]
}

fn survives(at: At, number: u64, all: impl IntoIterator<Item = Fault>) {
    let mut lab = Lab::new();
    let faults = Faults::new(&lab, "criu");
    lab.criu = faults.in_criu(&lab);
    let mut victim = Victim::start(&lab, |launch| launch);
    let mut survived = 0;
    for fault in all {
        let pid = victim.pid();
        let there = victim.has_ended();
        assert!(
            Victim::comes_back_meeting(there, pid, &faults, at, number, &fault),
            "{fault} at {at:?} {number}"
        );
        victim = Victim::from_the_store(there);
        survived += 1;
    }
    victim.runs_on("all of it");
    println!("a restore, {at:?} {number}: {survived} faults survived");
}

#[test]
fn whatever_goes_wrong_with_a_restore_s_messages_is_told_in_time_and_the_next_one_works() {
    std::thread::scope(|scope| {
        // The version and the restore are asked for.
        for number in [1, 2] {
            let questions = with_questions().into_iter().map(|(fault, _)| fault);
            scope.spawn(move || survives(At::Requests, number, questions));
            let answers = with_answers().into_iter().map(|(fault, _)| fault);
            let others = [Fault::Says(another()), Fault::Extra(fake::success())];
            scope.spawn(move || survives(At::Answers, number, answers.chain(others)));
        }
    });
}
