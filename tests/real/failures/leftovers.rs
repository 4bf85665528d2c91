//! What failures leave behind in the program: nothing.

use std::fs;
use std::os::unix::fs::symlink;

use super::asker::{Asker, Failure};
use super::criu::{Service, children, held_by};
use super::fake::{self, Answer, Fake};
use crate::harness::{Lab, write_script};

fn after_it_holds_what_it_held(asker: &Asker<'_>, fails: impl FnOnce()) {
    asker.saves();
    let before = held_by(asker.pid());
    fails();
    asker.saves();
    assert_eq!(held_by(asker.pid()), before, "descriptors and threads");
    assert_eq!(children(asker.pid()), Vec::<i32>::new(), "children, ended or not");
}

fn any(kind: &str) -> Failure<'_> {
    Failure { kind, cause: "", remedy: "" }
}

#[test]
fn ten_failures_of_workers_leave_no_descriptor_no_thread_and_no_child() {
    let lab = Lab::new();
    let named = lab.path("criu");
    symlink(&lab.criu, &named).expect("a link");
    let asker = Asker::plain(&lab, &[("SELFDUMP_CRIU", named.clone()), ("SELFDUMP_TIMEOUT", "3s".into())]);
    let in_its_place = |script: &str, kind: &str| {
        fs::remove_file(&named).expect("the one before");
        write_script(&named, script);
        asker.fails(&any(kind));
    };
    after_it_holds_what_it_held(&asker, || {
        for _ in 0..3 {
            in_its_place("neither a binary nor a script", "no-criu");
            in_its_place("#!/bin/sh\nexit 1\n", "no-criu");
            in_its_place("#!/bin/sh\nkill -9 $$\n", "no-criu");
        }
        in_its_place("#!/bin/sh\nexec sleep 600\n", "deadline");
        fs::remove_file(&named).expect("the script");
        symlink(&lab.criu, &named).expect("a link");
    });
}

#[test]
fn ten_failures_of_services_leave_no_descriptor_no_thread_and_no_child() {
    let lab = Lab::new();
    let socket = lab.path("criu.socket");
    let mut service = Some(Service::start(&lab, &socket));
    let asker =
        Asker::plain(&lab, &[("SELFDUMP_SERVICE", socket.clone()), ("SELFDUMP_TIMEOUT", "3s".into())]);
    after_it_holds_what_it_held(&asker, || {
        let _ = service.take();
        asker.fails(&any("no-service"));
        let (version, success) = (fake::version(4, 2, 1), Answer::Message(fake::success()));
        for (script, kind) in [
            (vec![], "service-died"),
            (vec![version.clone()], "service-died"),
            (vec![Answer::Message(vec![]), Answer::Silence], "protocol"),
            (vec![Answer::Message(vec![0xff; 40])], "protocol"),
            (vec![success.clone()], "protocol"),
            (vec![version.clone(), Answer::Message(fake::refusal(56))], "refused"),
            (vec![version.clone(), success], "damaged"),
            (vec![fake::version(3, 17, 1)], "criu-too-old"),
            (vec![version, Answer::Silence], "deadline"),
        ] {
            let fake = Fake::start(&socket, script);
            asker.fails(&any(kind));
            drop(fake);
        }
        service = Some(Service::start(&lab, &socket));
    });
}
