//! Where a program stands among others: it leads a session, or a group of processes, or neither.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{copied, output, ready, saved};
use crate::afterlife::bring_back;
use crate::chain::follow;
use crate::harness::{Lab, eventually, program};

/// The group of processes and the session that a process belongs to.
fn place(pid: i32) -> (i32, i32) {
    // SAFETY: plain numbers.
    unsafe { (libc::getpgid(pid), libc::getsid(pid)) }
}

fn comes_back_to_its_place(lab: &Lab, command: Command, expected: impl Fn(i32) -> (i32, i32)) {
    let program = ready(copied(lab.launch(command, "chain")));
    let pid = program.pid();
    assert_eq!(place(pid), expected(pid));
    saved(lab, pid, 1);
    saved(lab, pid, 2);
    let before = follow(&program.output());
    program.crash();
    for number in 3..=4 {
        let back = bring_back(lab, "chain");
        let goes_on = || {
            let now = follow(&output(lab, "chain"));
            now.iter().all(|(thread, step)| *step > before[thread] + 100).then_some(())
        };
        eventually("every thread goes on beyond where it was", goes_on);
        if expected(pid) == (pid, pid) || expected(pid).0 == pid {
            assert_eq!(place(pid), expected(pid), "in life {number}");
        }
        saved(lab, back.program.pid, number);
        back.program.crash();
    }
}

#[test]
fn a_leader_of_a_session_without_a_terminal_comes_back_as_one() {
    let lab = Lab::new();
    let mut command = Command::new("setsid");
    // It is no leader of a group, so no child is made of it.
    command.arg(program("chain")).arg("3");
    comes_back_to_its_place(&lab, command, |pid| (pid, pid));
}

#[test]
fn a_leader_of_a_group_of_processes_comes_back_as_one() {
    let lab = Lab::new();
    let mut command = Command::new(program("chain"));
    command.arg("3").process_group(0);
    // SAFETY: plain numbers.
    let session = unsafe { libc::getsid(0) };
    comes_back_to_its_place(&lab, command, |pid| (pid, session));
}

#[test]
fn one_that_leads_nothing_comes_back_where_its_restorer_is() {
    let lab = Lab::new();
    let mut command = Command::new(program("chain"));
    command.arg("3");
    // SAFETY: plain numbers.
    let ours = unsafe { (libc::getpgid(0), libc::getsid(0)) };
    comes_back_to_its_place(&lab, command, |_| ours);
}
