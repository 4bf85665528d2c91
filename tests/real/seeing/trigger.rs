//! `selfdump trigger` and `selfdump status` without a target.

use std::process::Command;

use super::{assert_fails, json, printed, told};
use crate::harness::{KILL, Lab, Subject, eventually, send};

const CONTINUE: i32 = libc::SIGCONT;

/// `chain`, once it has said how it is doing.
fn chain(lab: &Lab) -> Subject {
    told(lab, lab.program("chain").start())
}

#[test]
fn a_program_is_asked_by_pid_or_name_and_what_comes_of_it_is_told() {
    let lab = Lab::new();
    let program = chain(&lab);
    let pid = program.pid().to_string();

    let status = printed(&lab.run(["status", "chain"]), 0);
    assert!(
        status.contains("last         none tried yet"),
        "known by its name before it has a folder: {status}"
    );
    let said = printed(&lab.run(["trigger", "chain", "--wait"]), 0);
    assert!(said.starts_with("chain/") && said.contains("/000001, ") && said.contains("iB, "), "{said}");
    assert!(said.contains("stood still for "), "{said}");

    let answer = json(&lab.run(["trigger", &pid, "--wait", "--json"]), 0);
    assert_eq!((&answer["name"], &answer["signal"]), (&"chain".into(), &"SIGUSR2".into()));
    assert_eq!(answer["attempt"]["saved"], true);
    assert!(answer["attempt"]["checkpoint"].as_str().unwrap().ends_with("/000002"), "{answer}");

    let said = printed(&lab.run(["trigger", "chain"]), 0);
    assert_eq!(said, format!("asked process {pid} (chain) for a checkpoint by SIGUSR2\n"));
    lab.wait_for_checkpoint(3);
}

#[test]
fn who_has_no_handler_is_not_signalled() {
    let lab = Lab::new();
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let mut without = lab.launch(sleep, "sleep").start();
    let pid = without.pid().to_string();
    assert_fails(&lab.run(["trigger", &pid, "--wait"]), 3, &["runs without selfdump", "selfdump::install()"]);
    assert!(without.is_running(), "it was not ended");

    // What is installed goes with an exec, though process id, start and status file stay.
    let mut program = told(&lab, lab.program("metered").start());
    let pid = program.pid().to_string();
    program.signal(libc::SIGHUP);
    eventually("the other program", || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", program.pid())).ok()?;
        (name.trim() == "sleep").then_some(())
    });
    assert_fails(&lab.run(["trigger", &pid]), 3, &["would be ended by it", "runs another program by now"]);
    assert!(program.is_running(), "it was not ended");

    let gone = chain(&lab);
    let pid = gone.pid().to_string();
    gone.crash();
    assert_fails(&lab.run(["trigger", &pid]), 3, &[&format!("there is no process {pid}")]);
    assert_fails(&lab.run(["trigger", "nobody"]), 3, &["no checkpoints of nobody"]);
}

#[test]
fn a_failure_and_an_answer_that_does_not_come_have_statuses_of_their_own() {
    let mut lab = Lab::new();
    lab.criu = lab.path("no-criu");
    let program = chain(&lab);
    let pid = program.pid().to_string();
    assert_fails(
        &lab.run(["trigger", &pid, "--wait"]),
        1,
        &["made no checkpoint", "no-criu is not a program", "help: set SELFDUMP_CRIU"],
    );
    let answer = json(&lab.run(["trigger", &pid, "--wait", "--json"]), 1);
    assert_eq!(answer["attempt"]["error"]["kind"], "no-criu");

    let said = printed(&lab.run(["status"]), 0);
    let line = said.lines().find(|line| line.contains(&pid)).unwrap_or_else(|| panic!("{said}"));
    assert!(line.starts_with("chain ") && line.contains("failed") && line.ends_with(" 2"), "{said}");
    assert!(said.contains("no-criu is not a program") && said.contains("help: set SELFDUMP_CRIU"), "{said}");

    program.stop();
    assert_fails(
        &lab.run(["trigger", &pid, "--wait", "--timeout", "300ms"]),
        4,
        &["no checkpoint after 300ms", &format!("kill -CONT {pid}")],
    );
    let waiting = lab.selfdump(["trigger", &pid, "--wait"]).stderr(std::process::Stdio::piped()).spawn();
    send(program.pid(), KILL);
    // It may have been asked already, or not.
    let ended = waiting.unwrap().wait_with_output().unwrap();
    assert!(matches!(ended.status.code(), Some(3 | 4)), "{ended:?}");
    send(program.pid(), CONTINUE);
}

#[test]
fn status_tells_when_the_next_checkpoint_is_due() {
    let lab = Lab::new();
    let program = told(&lab, lab.program("chain").env("SELFDUMP_EVERY", "1h").start());
    let pid = program.pid().to_string();
    lab.run(["trigger", &pid, "--wait"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    let next = eventually("the next one", || {
        json(&lab.run(["status", &pid, "--json"]), 0)["programs"][0]["next_unix_us"].as_u64()
    });
    let hour = 3_600_000_000;
    assert!(next > now + hour - 60_000_000 && next < now + hour + 60_000_000, "{next} {now}");
    let said = printed(&lab.run(["status", &pid]), 0);
    assert!(said.contains("next         in 59m "), "{said}");
    let all = json(&lab.run(["status", "--json"]), 0);
    let pids: Vec<i64> = all["programs"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|program| program["life"]["pid"].as_i64())
        .collect();
    assert!(pids.contains(&i64::from(program.pid())), "{all}");
}
