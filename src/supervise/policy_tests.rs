use super::*;

const SEGV: End = End::Signaled(11);
const KILL: End = End::Signaled(9);

/// A life that ended at `place` seconds of the program's own time, after `ran` seconds.
fn life(start: Start, end: End, ran: u64, place: u64) -> Life {
    Life { start, end, asked: false, ran: Duration::from_secs(ran), place: Some(Duration::from_secs(place)) }
}

fn started(end: End, ran: u64) -> Life {
    life(Start::Command, end, ran, ran)
}

fn from(number: u64, end: End, ran: u64, place: u64) -> Life {
    life(checkpoint(number), end, ran, place)
}

fn checkpoint(number: u64) -> Start {
    Start::Checkpoint(number.to_string())
}

fn refused(number: u64, lasting: bool) -> Life {
    Life { place: None, ..from(number, End::NotRestored { lasting }, 0, 0) }
}

fn candidates(numbers: &[u64]) -> Vec<Candidate> {
    numbers.iter().map(|number| Candidate { id: number.to_string() }).collect()
}

fn restore(number: u64) -> Decision {
    Decision::Restore(number.to_string())
}

#[test]
fn what_comes_after_a_life() {
    let by_default = Policy::default();
    let on_failure = Policy { on_failure: true, ..by_default };
    let asked = Life { asked: true, ..started(End::Signaled(15), 5) };
    for (what, policy, lives, checkpoints, expected) in [
        ("it was never started", by_default, vec![], &[][..], Decision::Start),
        ("it is done", by_default, vec![started(End::Exited(0), 5)], &[1], Decision::Done),
        ("a status is its own", by_default, vec![started(End::Exited(3), 5)], &[1], Decision::Done),
        ("a status is a failure", on_failure, vec![started(End::Exited(3), 5)], &[1], restore(1)),
        ("it is done all the same", on_failure, vec![started(End::Exited(0), 5)], &[1], Decision::Done),
        ("it was told to end", by_default, vec![asked], &[1], Decision::Done),
        ("somebody else told it to", by_default, vec![started(End::Signaled(15), 5)], &[1], restore(1)),
        ("it crashed", by_default, vec![started(SEGV, 5)], &[2, 1], restore(2)),
        ("before any checkpoint", by_default, vec![started(SEGV, 5)], &[], Decision::Start),
        ("nobody knows how it ended", by_default, vec![started(End::Unknown, 5)], &[2, 1], restore(2)),
    ] {
        assert_eq!(policy.decide(&lives, &candidates(checkpoints)), expected, "{what}");
    }
}

#[test]
fn a_crash_at_the_same_place_goes_back_further_each_time_and_then_no_more() {
    let policy = Policy::default();
    let mut lives = vec![started(SEGV, 100)];
    let mut next = |life: Option<Life>, checkpoints: &[u64]| {
        lives.extend(life);
        policy.decide(&lives, &candidates(checkpoints))
    };
    assert_eq!(next(None, &[3, 2, 1]), restore(3));
    assert_eq!(next(Some(from(3, SEGV, 1, 101)), &[3, 2, 1]), restore(3), "it may have been chance");
    assert_eq!(next(Some(from(3, SEGV, 2, 102)), &[3, 2, 1]), restore(2));
    // That life made a checkpoint on its way to the same crash, which is as bad as number 3.
    assert_eq!(next(Some(from(2, SEGV, 30, 100)), &[4, 3, 2, 1]), restore(1));
    assert_eq!(next(Some(from(1, SEGV, 60, 104)), &[4, 3, 2, 1]), Decision::GiveUp(Reason::SamePlace));
}

#[test]
fn a_crash_elsewhere_or_otherwise_or_from_outside_is_not_the_same() {
    let policy = Policy::default();
    let end_of = |last: Life| {
        let lives = [started(SEGV, 100), from(2, SEGV, 1, 100), last];
        policy.decide(&lives, &candidates(&[2, 1]))
    };
    assert_eq!(end_of(from(2, SEGV, 1, 100)), restore(1), "the same");
    assert_eq!(end_of(from(2, SEGV, 30, 150)), restore(2), "further on");
    assert_eq!(end_of(from(2, End::Signaled(6), 1, 100)), restore(2), "another signal");
    let lost = Life { place: None, ..from(2, SEGV, 1, 0) };
    assert_eq!(end_of(lost), restore(2), "a place that nobody knows");
    let killed: Vec<Life> = (0..9).map(|_| from(2, KILL, 1, 100)).collect();
    assert_eq!(policy.decide(&killed, &candidates(&[2, 1])), restore(2), "killed from outside");
}

#[test]
fn an_exit_status_that_counts_as_a_crash_can_be_the_same_as_well() {
    let policy = Policy { on_failure: true, ..Policy::default() };
    let lives: Vec<Life> = (0..3).map(|_| from(2, End::Exited(1), 1, 100)).collect();
    assert_eq!(policy.decide(&lives, &candidates(&[2, 1])), restore(1));
}

#[test]
fn a_restore_that_fails_leads_to_an_older_checkpoint_or_is_tried_again() {
    let policy = Policy::default();
    let after = |refusals: &[(u64, bool)]| {
        let mut lives = vec![started(KILL, 5)];
        lives.extend(refusals.iter().map(|&(number, lasting)| refused(number, lasting)));
        policy.decide(&lives, &candidates(&[2, 1]))
    };
    assert_eq!(after(&[(2, true)]), restore(1));
    assert_eq!(after(&[(2, true), (1, true)]), Decision::GiveUp(Reason::NoneRestorable));
    assert_eq!(after(&[(2, false)]), restore(2), "somebody had its process id");
    assert_eq!(after(&[(2, false); 4]), restore(2));
    assert_eq!(after(&[(2, false); 5]), Decision::GiveUp(Reason::NoneRestorable));
    // What was deleted in between is no reason to lose all work by starting anew.
    let lives = [started(KILL, 5), refused(1, true)];
    assert_eq!(policy.decide(&lives, &[]), Decision::GiveUp(Reason::NoneRestorable));
}

#[test]
fn it_is_brought_back_so_often_in_a_row_and_a_settled_life_begins_a_new_one() {
    let often =
        |restarts, lives: &[Life]| Policy { restarts, on_failure: false }.decide(lives, &candidates(&[1]));
    let crashes = |count: u64| -> Vec<Life> { (0..count).map(|at| from(1, KILL, 1, at)).collect() };
    assert_eq!(often(Some(0), &crashes(1)), Decision::GiveUp(Reason::Restarts));
    assert_eq!(often(Some(2), &crashes(2)), restore(1));
    assert_eq!(often(Some(2), &crashes(3)), Decision::GiveUp(Reason::Restarts));
    assert_eq!(often(None, &crashes(1000)), restore(1));
    let mut settled = crashes(9);
    settled.push(from(1, KILL, 600, 700));
    settled.extend(crashes(1));
    assert_eq!(row(&settled), 2);
    assert_eq!(often(Some(2), &settled), restore(1));
    settled.push(refused(1, false));
    assert_eq!(row(&settled), 2, "a restore that failed was no life");
}
