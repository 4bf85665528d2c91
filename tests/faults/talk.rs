//! Something goes wrong with each message between the program and CRIU: with the question for the version and the order
//! to dump, and with the answers to both.
//!
//! It goes wrong in the real CRIU, at the calls by which it reads and writes its socket: that socket has to stay the
//! program's own, or CRIU would take somebody else for the one that is to be dumped.

use super::order::{At, Fault, Faults};
use super::victim::{Outcome, Victim};
use crate::failures::Service;
use crate::failures::fake;
use crate::harness::Lab;

/// Beyond the deadline, and the second after it.
pub const TOO_LATE: u64 = 4000;

/// A fault, and what has to come of it where that is certain.
pub type Expected = (Fault, Option<Outcome>);

/// What can go wrong with a question, and what has to come of it where that is certain.
pub fn with_questions() -> Vec<Expected> {
    vec![
        (Fault::Delayed(200), Some(Outcome::Saved)),
        (Fault::Delayed(TOO_LATE), Some(Outcome::Failed)),
        (Fault::Cut, Some(Outcome::Failed)),
        (Fault::Closed, Some(Outcome::Failed)),
        (Fault::KilledBefore, Some(Outcome::Failed)),
        (Fault::KilledAfter, Some(Outcome::Failed)),
        (Fault::Garbled(0), Some(Outcome::Failed)),
        (Fault::Says(fake::refusal(1)), Some(Outcome::Failed)),
        (Fault::Twice, None),
        (Fault::Silence, Some(Outcome::Failed)),
    ]
}

/// The same of an answer. Some bits of it may be others without anybody noticing; what it comes to is seen in the end.
pub fn with_answers() -> Vec<Expected> {
    let mut all = vec![
        (Fault::Delayed(200), Some(Outcome::Saved)),
        (Fault::Delayed(TOO_LATE), Some(Outcome::Failed)),
        (Fault::Cut, Some(Outcome::Failed)),
        (Fault::Closed, Some(Outcome::Failed)),
        (Fault::KilledBefore, Some(Outcome::Failed)),
        (Fault::KilledAfter, None),
        (Fault::Says(vec![]), Some(Outcome::Failed)),
        (Fault::Says(vec![0xff; 40]), Some(Outcome::Failed)),
        (Fault::Says(fake::refusal(1)), Some(Outcome::Failed)),
        (Fault::Says(restored()), Some(Outcome::Failed)),
        (Fault::Extra(fake::refusal(1)), Some(Outcome::Failed)),
        (Fault::Extra(vec![0x5a; 7]), Some(Outcome::Failed)),
        (Fault::Twice, None),
        (Fault::Silence, Some(Outcome::Failed)),
    ];
    all.extend((1..=12).map(|seed| (Fault::Garbled(seed), None)));
    all
}

/// The answer to a dump that only the process gets which comes back (dump = 3, restored = 1).
fn restored() -> Vec<u8> {
    vec![1 << 3, 1, 2 << 3, 1, 3 << 3 | 2, 2, 1 << 3, 1]
}

/// Both questions and both answers.
fn places() -> [(At, u64, Vec<Expected>); 4] {
    [
        (At::Requests, 1, with_questions()),
        (At::Answers, 1, with_answers()),
        (At::Requests, 2, with_questions()),
        (At::Answers, 2, with_answers()),
    ]
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Worker,
    Service,
}

/// Each place by itself, with a program of its own: most of the time is spent waiting for deadlines.
fn survives_everything(peer: Peer) {
    std::thread::scope(|scope| {
        for (at, number, faults) in places() {
            scope.spawn(move || survives(peer, at, number, &faults));
        }
    });
}

fn survives(peer: Peer, at: At, number: u64, all: &[Expected]) {
    let mut lab = Lab::new();
    let faults = Faults::new(&lab, "criu");
    lab.criu = faults.in_criu(&lab);
    let socket = lab.path("criu.socket");
    let _service = (peer == Peer::Service).then(|| Service::start(&lab, &socket));
    let mut victim = Victim::start(&lab, |launch| match peer {
        Peer::Worker => launch,
        Peer::Service => launch.env("SELFDUMP_SERVICE", &socket),
    });
    // A worker that is stopped is ended by its leash. A service's is nobody's to end but its own.
    let stopped = (peer == Peer::Worker).then_some((Fault::Stopped, Some(Outcome::Failed)));
    let all: Vec<_> = all.iter().chain(&stopped).collect();
    for (fault, expected) in &all {
        let outcome = victim.meets(&faults, (at, number), fault);
        assert!(outcome != Outcome::NotMet, "{fault} at {at:?} {number}");
        assert!(expected.as_ref().is_none_or(|expected| *expected == outcome), "{fault} at {at:?} {number}");
        if outcome == Outcome::Saved {
            victim = victim.comes_back();
        }
        victim.saves();
    }
    victim.comes_back();
    println!("{at:?} {number}: {} faults survived", all.len());
}

#[test]
fn whatever_goes_wrong_with_a_worker_s_messages_is_told_in_time_and_survived() {
    survives_everything(Peer::Worker);
}

#[test]
fn whatever_goes_wrong_with_a_service_s_messages_is_told_in_time_and_survived() {
    survives_everything(Peer::Service);
}
