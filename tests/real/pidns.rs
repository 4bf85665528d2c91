//! Back in a pid namespace of its own, where nobody else has the program's process ids.

use std::fs;
use std::process::Stdio;

use crate::chain::follow;
use crate::harness::{KILL, Lab, Subject, USR2, eventually};

/// A program that was checkpointed and killed, and whose process id isn't free: nobody has reaped it.
fn zombie(lab: &Lab, name: &str, arguments: &[&str]) -> Subject {
    let program = arguments.iter().fold(lab.program(name), |launch, argument| launch.arg(argument)).start();
    eventually("its first lines", || (program.output().len() > 200).then_some(()));
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    program.signal(KILL);
    let stat = format!("/proc/{}/stat", program.pid());
    eventually("its end", || fs::read_to_string(&stat).unwrap().contains(") Z ").then_some(()));
    program
}

fn restore(lab: &Lab, name: &str) -> Subject {
    let mut command = crate::harness::selfdump();
    command.args(["restore", name, "--pidns"]);
    lab.launch(command, "restore").start()
}

#[test]
fn a_program_whose_process_id_is_taken_comes_back_and_a_signal_reaches_it() {
    let lab = Lab::new();
    let program = zombie(&lab, "chain", &["8"]);
    let before = follow(&program.output());
    let mut restorer = restore(&lab, "chain");
    eventually("all its threads go on", || {
        let now = follow(&program.output());
        now.iter().all(|(thread, step)| *step > before[thread] + 100).then_some(())
    });
    restorer.signal(libc::SIGTERM);
    assert_eq!(restorer.wait().code(), Some(128 + libc::SIGTERM));
}

#[test]
fn its_exit_status_is_passed_on() {
    let lab = Lab::new();
    let flag = lab.path("flag");
    let _zombie = zombie(&lab, "ender", &[flag.to_str().unwrap()]);
    let mut restorer = restore(&lab, "ender");
    restorer.wait_for("selfdump: restored ender/");
    fs::write(&flag, "").unwrap();
    assert_eq!(restorer.wait().code(), Some(7));
}

#[test]
fn its_files_are_cut_back_as_without() {
    let lab = Lab::new();
    let file = lab.path("out [1].txt");
    let numbers = || -> Vec<u64> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| line["line ".len()..].parse().unwrap()).collect()
    };
    let writer = lab.program("writer").arg("plain").arg(&file).start();
    eventually("some lines", || (numbers().len() > 50).then_some(()));
    writer.signal(USR2);
    lab.wait_for_checkpoint(1);
    let then = numbers().len();
    eventually("more lines", || (numbers().len() > then + 50).then_some(()));
    writer.crash();
    let before = numbers().len();
    let mut restorer = restore(&lab, "writer");
    eventually("it writes on", || (numbers().len() > before + 20).then_some(()));
    assert!(restorer.output().contains("cut "), "{}", restorer.output());
    restorer.signal(libc::SIGTERM);
    restorer.wait();
    assert!(numbers().iter().enumerate().all(|(at, &number)| at as u64 == number), "each line is there once");
}

#[test]
fn it_ends_with_its_restorer_however_that_ends() {
    let lab = Lab::new();
    let program = zombie(&lab, "chain", &["1"]);
    let restorer = restore(&lab, "chain");
    restorer.wait_for("selfdump: restored chain/");
    let before = follow(&program.output())[&0];
    eventually("it goes on", || (follow(&program.output())[&0] > before + 100).then_some(()));
    restorer.crash();
    let mut last = 0;
    eventually("nothing is left behind", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = program.output().len();
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
}

#[test]
fn a_restore_that_nobody_attends_to_can_not_have_a_namespace() {
    let lab = Lab::new();
    let said =
        lab.selfdump(["restore", "chain", "--pidns", "--detach"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("cannot be used with"), "{said:?}");
}
