//! A service that is named by SELFDUMP_SERVICE, and fails.

use std::path::Path;
use std::time::Duration;

use super::asker::{Asker, Failure};
use super::criu::Service;
use super::fake::{self, Answer, Fake};
use crate::harness::Lab;

/// What anything that waits in these tests is given. Long enough for a real dump on a busy machine.
const TIMEOUT: &str = "3s";

/// The service works; then something else is in its place, and `failure` is what comes of that; then it is
/// there again.
fn fails_while_in_its_place<T>(is: impl FnOnce(&Path) -> T, failure: &Failure<'_>) {
    let lab = Lab::new();
    let socket = lab.path("criu.socket");
    let settings = [("SELFDUMP_SERVICE", socket.clone()), ("SELFDUMP_TIMEOUT", TIMEOUT.into())];
    let service = Service::start(&lab, &socket);
    let asker = Asker::plain(&lab, &settings);
    asker.saves();
    drop(service);
    let other = is(&socket);
    asker.fails(failure);
    asker.fails(failure);
    drop(other);
    let service = Service::start(&lab, &socket);
    asker.saves();
    asker.comes_back();
    drop(service);
}

fn fails_with_a_service_that_answers(script: Vec<Answer>, failure: &Failure<'_>) {
    fails_while_in_its_place(|socket| Fake::start(socket, script), failure);
}

const NOBODY_THERE: Failure<'static> = Failure {
    kind: "no-service",
    cause: "no CRIU service can be reached at",
    remedy: "start `criu service --address SOCKET`",
};

#[test]
fn a_socket_that_is_not_there_is_named() {
    fails_while_in_its_place(|_| (), &NOBODY_THERE);
}

#[test]
fn a_socket_that_nobody_listens_to_is_named() {
    fails_while_in_its_place(|socket| drop(fake::bind(socket)), &NOBODY_THERE);
}

#[test]
fn a_file_that_is_no_socket_is_named() {
    fails_while_in_its_place(|socket| std::fs::write(socket, "").expect("a file"), &NOBODY_THERE);
}

#[test]
fn a_service_that_takes_no_connections_is_waited_for_until_the_deadline() {
    let full = |socket: &Path| {
        let listener = fake::bind(socket);
        fake::listen(&listener, 0);
        let waiting = fake::connect(socket).expect("the one connection that there is room for");
        (listener, waiting)
    };
    let failure = Failure {
        kind: "deadline",
        cause: "no CRIU service can be reached at",
        remedy: "look whether it hangs",
    };
    fails_while_in_its_place(full, &failure);
}

#[test]
fn a_service_that_hangs_is_waited_for_until_the_deadline() {
    let lab = Lab::new();
    let socket = lab.path("criu.socket");
    let service = Service::start(&lab, &socket);
    let asker = Asker::plain(&lab, &[("SELFDUMP_SERVICE", socket), ("SELFDUMP_TIMEOUT", TIMEOUT.into())]);
    asker.saves();
    service.hangs();
    asker.fails(&Failure {
        kind: "deadline",
        cause: "did not answer the question for its version within 3s",
        remedy: "look whether it hangs",
    });
    service.goes_on();
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_service_that_hangs_in_the_dump_is_waited_for_until_the_deadline() {
    let failure =
        Failure { kind: "deadline", cause: "did not answer the dump within 3s", remedy: "SELFDUMP_TIMEOUT" };
    fails_with_a_service_that_answers(vec![fake::version(4, 2, 1), Answer::Silence], &failure);
}

#[test]
fn an_answer_that_comes_after_the_deadline_changes_nothing() {
    let failure =
        Failure { kind: "deadline", cause: "did not answer the dump within 3s", remedy: "SELFDUMP_TIMEOUT" };
    // One second more is given to who was frozen.
    let late = Answer::Late(Duration::from_secs(5), fake::success());
    fails_with_a_service_that_answers(vec![fake::version(4, 2, 1), late], &failure);
}

#[test]
fn a_service_that_talks_garbage_is_no_criu() {
    let failure = Failure {
        kind: "protocol",
        cause: "answered with 40 bytes that are no answer",
        remedy: "look whether it is a CRIU that listens there",
    };
    fails_with_a_service_that_answers(vec![Answer::Message(vec![0xff; 40])], &failure);
}

#[test]
fn an_empty_message_is_no_answer() {
    let failure = Failure {
        kind: "protocol",
        cause: "answered with an empty message",
        remedy: "look whether it is a CRIU that listens there",
    };
    fails_with_a_service_that_answers(vec![Answer::Message(vec![]), Answer::Silence], &failure);
}

#[test]
fn an_answer_to_another_question_is_none() {
    let failure = Failure {
        kind: "protocol",
        cause: "an answer to another question",
        remedy: "look whether it is a CRIU that listens there",
    };
    fails_with_a_service_that_answers(vec![Answer::Message(fake::success())], &failure);
}

const DIED: Failure<'static> = Failure {
    kind: "service-died",
    cause: "ended before it had answered",
    remedy: "it was killed or has crashed",
};

#[test]
fn a_service_that_hangs_up_at_once_has_died() {
    fails_with_a_service_that_answers(vec![], &DIED);
}

#[test]
fn a_service_that_hangs_up_instead_of_dumping_has_died() {
    fails_with_a_service_that_answers(vec![fake::version(4, 2, 1)], &DIED);
}

#[test]
fn a_service_that_refuses_leads_to_its_log() {
    let failure = Failure {
        kind: "refused",
        cause: "refused the request for the dump (errno 56)",
        remedy: "the log of the CRIU that was asked",
    };
    fails_with_a_service_that_answers(
        vec![fake::version(4, 2, 1), Answer::Message(fake::refusal(56))],
        &failure,
    );
}

#[test]
fn a_service_that_is_too_old_is_told_from_its_version() {
    let failure = Failure {
        kind: "criu-too-old",
        cause: "is version 3.17.1; 4.1.1 is the oldest",
        remedy: "install criu 4.2 or later",
    };
    fails_with_a_service_that_answers(vec![fake::version(3, 17, 1)], &failure);
}

#[test]
fn a_success_without_images_is_no_checkpoint() {
    let failure = Failure {
        kind: "damaged",
        cause: "stats-dump is missing",
        remedy: "look whether it is a CRIU that answered",
    };
    let lie = Answer::Message(fake::success());
    fails_with_a_service_that_answers(vec![fake::version(4, 2, 1), lie], &failure);
}
