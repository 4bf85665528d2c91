//! Programs in a state that keeps CRIU out.

use std::fs;

use super::asker::{Asker, Failure};
use super::criu::Service;
use crate::harness::{Lab, Subject};

const HANG_UP: i32 = 1;

#[test]
fn an_open_io_uring_is_named_with_its_descriptor_until_it_is_closed() {
    let lab = Lab::new();
    let asker = Asker::start(&lab, lab.program("asker").arg("1").arg("io-uring"));
    let failure = Failure {
        kind: "descriptor",
        cause: "has an io_uring open as descriptor",
        remedy: "close it before the checkpoint",
    };
    asker.fails(&failure);
    asker.fails(&failure);
    asker.signal(HANG_UP);
    asker.wait_for("relieved");
    asker.saves();
    asker.comes_back();
}

/// A process that traces this thread until it is dropped.
fn tracer(lab: &Lab, thread: i32) -> Subject {
    let tracer = lab.program("tracer").arg(thread.to_string()).start();
    tracer.wait_for("tracing");
    tracer
}

#[test]
fn a_process_that_another_traces_names_it() {
    let lab = Lab::new();
    let asker = Asker::plain(&lab, &[]);
    asker.saves();
    let debugger = tracer(&lab, asker.pid());
    let cause = format!("process {} is traced by process {} (tracer)", asker.pid(), debugger.pid());
    let failure = Failure { kind: "traced", cause: &cause, remedy: "detach the debugger or strace" };
    asker.fails(&failure);
    asker.fails(&failure);
    drop(debugger);
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_thread_that_another_process_traces_is_met_as_well() {
    let lab = Lab::new();
    let asker = Asker::plain(&lab, &[]);
    asker.saves();
    let tasks = fs::read_dir(format!("/proc/{}/task", asker.pid())).expect("threads").flatten();
    let threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
    let debugger = tracer(&lab, threads.max().expect("a thread"));
    let failure = Failure { kind: "traced", cause: "trace", remedy: "detach the debugger or strace" };
    asker.fails(&failure);
    asker.fails(&failure);
    drop(debugger);
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_subreaper_is_told_that_it_needs_a_service() {
    let lab = Lab::new();
    let asker = Asker::start(&lab, lab.program("asker").arg("1").arg("subreaper"));
    let failure = Failure {
        kind: "inside-tree",
        cause: "this process adopts its orphans",
        remedy: "start a service outside of it (`criu service --address SOCKET`) and name it with SELFDUMP_SERVICE",
    };
    asker.fails(&failure);
    asker.fails(&failure);
}

#[test]
fn a_subreaper_with_a_service_is_checkpointed_and_comes_back() {
    let lab = Lab::new();
    let socket = lab.path("criu.socket");
    let _service = Service::start(&lab, &socket);
    let launch = lab.program("asker").arg("1").arg("subreaper").env("SELFDUMP_SERVICE", &socket);
    let asker = Asker::start(&lab, launch);
    asker.saves();
    asker.saves();
    asker.comes_back();
}
