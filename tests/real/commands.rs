//! The command line tool, as a user meets it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use selfdump::{ErrorKind, listing};
use serde_json::Value;

use crate::afterlife::{Alone, bring_back, is_there};
use crate::harness::{
    Lab, Restored, Subject, USR2, died_of, eventually, manifest, number, program, succeeds,
};

const TERM: i32 = libc::SIGTERM;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// It failed with this status, and its error says all of this.
fn assert_fails(output: &Output, status: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let error = text(&output.stderr);
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

/// `chain`, with this many checkpoints.
fn chain_with(lab: &Lab, checkpoints: u64) -> Subject {
    let program = lab.program("chain").start();
    program.wait_for("ready");
    for number in 1..=checkpoints {
        program.signal(USR2);
        lab.wait_for_checkpoint(number);
    }
    lab.status_when("its status", |status| {
        status["last"]["checkpoint"].as_str().is_some_and(|id| id.ends_with(&format!("{checkpoints:06}")))
    });
    program
}

#[test]
fn list_shows_what_there_is_newest_first() {
    let lab = Lab::new();
    let program = chain_with(&lab, 2);
    program.crash();
    let [older, newer]: [PathBuf; 2] = lab.checkpoints().try_into().unwrap();
    let id = |path: &Path| path.strip_prefix(lab.store()).unwrap().to_str().unwrap().to_owned();

    let table = text(&lab.run(["list"]).stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines[0].contains("CAUSE"), "{table}");
    assert!(lines[1].starts_with(&id(&newer)) && lines[2].starts_with(&id(&older)), "{table}");
    assert!(lines[1].contains("SIGUSR2") && lines[1].ends_with("good"), "{table}");
    assert!(lines[3].starts_with("2 checkpoints in all: "), "{table}");

    let all = json(&lab.run(["list", "--json"]));
    let ids = |listing: &Value| -> Vec<String> {
        let rows = listing["checkpoints"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&all), [id(&newer), id(&older)]);
    let (row, written) = (&all["checkpoints"][0], manifest(&newer));
    assert_eq!((&row["pid"], &row["state"]), (&written["life"]["pid"], &Value::from("good")));
    assert_eq!(row["taken_unix_us"], written["taken_unix_us"]);

    let folder = older.to_str().unwrap();
    assert_eq!(ids(&json(&lab.run(["list", folder, "--json"]))), [id(&older)], "one checkpoint's folder");
    assert_eq!(ids(&json(&lab.run(["list", "chain", "--json"]))).len(), 2, "a name");

    std::fs::remove_file(newer.join("images/inventory.img")).unwrap();
    let damaged = json(&lab.run(["list", "--json"]));
    assert_eq!(damaged["checkpoints"][0]["state"], "damaged");
    assert!(damaged["checkpoints"][0]["problem"].as_str().unwrap().contains("inventory.img"));
}

#[test]
fn of_very_many_a_list_looks_at_the_largest_file_alone_and_says_so() {
    let lab = Lab::new();
    drop(chain_with(&lab, 1));
    let original = lab.checkpoints().pop().unwrap();
    let instance = original.parent().unwrap().to_owned();
    let copy = |number: usize| instance.join(format!("{number:06}"));
    for number in 2..=listing::EACH_FILE_UP_TO + 1 {
        succeeds(Command::new("cp").arg("-al").args([&original, &copy(number)]));
    }
    // The copies are links, so a file is cut in one place alone by putting another one there.
    let cut = |file: PathBuf| {
        let half = std::fs::read(&file).map(|bytes| bytes[..bytes.len() / 2].to_owned()).unwrap();
        std::fs::remove_file(&file).unwrap();
        std::fs::write(file, half).unwrap();
    };
    cut(copy(2).join("images/pages-1.img"));
    cut(copy(3).join("images/inventory.img"));
    let state = |listing: &Value, number: usize| -> String {
        let rows = listing["checkpoints"].as_array().unwrap().iter();
        let row = rows.clone().find(|row| row["path"] == copy(number).to_str().unwrap());
        row.unwrap()["state"].as_str().unwrap().to_owned()
    };
    let all = json(&lab.run(["list", "--json"]));
    assert_eq!([2, 3, 4].map(|number| state(&all, number)), ["damaged", "good", "good"]);
    assert_eq!(all["files_looked_at"], "largest");
    assert!(text(&lab.run(["list"]).stdout).contains("only the largest file of each was looked at"));

    let one = json(&lab.run(["list", copy(3).to_str().unwrap(), "--json"]));
    assert_eq!(state(&one, 3), "damaged", "a short list looks at all");
    assert_eq!(one["files_looked_at"], "each");
    let pruned = json(&lab.run(["prune", "--keep", "1", "--dry-run", "--json"]));
    let rows = pruned["checkpoints"].as_array().unwrap();
    let kept_as_damaged = rows.iter().filter(|row| row["reason"] == "damaged").count();
    assert_eq!(kept_as_damaged, 2, "what is deleted is decided by all files");
}

#[test]
fn an_empty_store_and_a_wrong_target_are_told_apart() {
    let lab = Lab::new();
    let empty = lab.run(["list"]);
    assert!(empty.status.success());
    assert!(text(&empty.stdout).contains("kill -USR2 PID"), "{empty:?}");
    assert_eq!(json(&lab.run(["list", "--json"]))["checkpoints"], Value::Array(Vec::new()));
    assert_fails(
        &lab.run(["list", "nobody"]),
        1,
        &["no checkpoints of nobody", "selfdump list", "SELFDUMP_DIR"],
    );
    assert_fails(&lab.run(["restore", "nobody"]), 125, &["no checkpoints of nobody", "selfdump list"]);
    assert_fails(&lab.run(["restore"]), 125, &["holds no checkpoint", "SIGUSR2"]);
    assert_fails(&lab.run(["status", "nobody"]), 1, &["no checkpoints of nobody"]);
}

#[test]
fn usage_errors_end_with_status_two() {
    let lab = Lab::new();
    let misspelt = ["run", "--evry", "5m", "--", "true"];
    for wrong in [&["frobnicate"][..], &["restore", "--nope"], &["trigger"], &misspelt, &[]] {
        let output = lab.run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(text(&output.stderr).contains("Usage: selfdump"), "{wrong:?}: {output:?}");
    }
}

#[test]
fn status_tells_of_a_process_a_name_and_a_folder() {
    let lab = Lab::new();
    let program = chain_with(&lab, 1);
    let pid = program.pid().to_string();
    let checkpoint = lab.checkpoints().pop().unwrap();
    for target in [&*pid, "chain", lab.store().to_str().unwrap(), checkpoint.to_str().unwrap()] {
        let said = text(&lab.run(["status", target]).stdout);
        assert!(said.starts_with(&format!("chain: process {pid} runs, generation 0")), "{target}: {said}");
        assert!(
            said.contains("by SIGUSR2") && said.contains("schedule     only when asked"),
            "{target}: {said}"
        );
        let status = json(&lab.run(["status", target, "--json"]));
        assert_eq!(status["programs"][0]["running"], true);
        assert_eq!(status["programs"][0]["last"]["saved"], true);
    }
    program.crash();
    assert_fails(
        &lab.run(["status", &pid]),
        1,
        &[&format!("there is no process {pid}"), "selfdump status NAME"],
    );
    let said = text(&lab.run(["status", "chain"]).stdout);
    assert!(said.starts_with(&format!("chain: process {pid} has ended")), "{said}");
    let other = lab.launch(sleep(), "sleep").start();
    let other = other.pid().to_string();
    assert_fails(&lab.run(["status", &other]), 1, &["runs without selfdump", "selfdump::install()"]);
}

/// A program that knows nothing of selfdump.
fn sleep() -> std::process::Command {
    let mut command = std::process::Command::new("sleep");
    command.arg("600");
    command
}

/// `ender`, checkpointed and killed: its lines go to the pipe of whoever restores it.
fn a_killed_ender(lab: &Lab) -> i32 {
    let mut command = std::process::Command::new(program("ender"));
    let store = lab.store();
    command.arg(lab.path("flag")).env("SELFDUMP_DIR", &store).env("SELFDUMP_CRIU", &lab.criu);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let pid = child.id() as i32;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap() == "line 10").expect("its lines").unwrap();
    crate::harness::send(pid, USR2);
    lab.wait_for_checkpoint(1);
    let _ = child.kill();
    let _ = child.wait();
    pid
}

/// A restorer whose output is ours to read, and which is ended together with its program.
struct Piped {
    restorer: Child,
    program: i32,
}

impl Drop for Piped {
    fn drop(&mut self) {
        crate::harness::send(self.program, crate::harness::KILL);
        let _ = self.restorer.wait();
    }
}

#[test]
fn a_pipe_and_the_exit_status_of_a_restored_program_are_those_of_the_command() {
    let lab = Lab::new();
    let program = a_killed_ender(&lab);
    let mut command = lab.selfdump(["restore", "ender", "--json"]);
    let restorer = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut piped = Piped { restorer, program };
    let mut lines = BufReader::new(piped.restorer.stdout.take().unwrap()).lines();
    let first = lines.next().expect("a line").unwrap();
    let count: u64 = first.strip_prefix("line ").unwrap_or_else(|| panic!("{first:?}")).parse().unwrap();
    assert!(count > 10, "it goes on where it was: {first}");
    assert_eq!(lines.nth(20).unwrap().unwrap(), format!("line {}", count + 21));

    std::fs::write(lab.path("flag"), "").unwrap();
    assert_eq!(lines.map(Result::unwrap).filter(|line| !line.starts_with("line ")).count(), 0);
    let mut report = String::new();
    BufReader::new(piped.restorer.stderr.take().unwrap()).read_line(&mut report).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
    assert_eq!((&report["pid"], &report["generation"]), (&Value::from(program), &Value::from(1)));
    let status = eventually("its end", || piped.restorer.try_wait().unwrap());
    assert_eq!(status.code(), Some(7));
}

#[test]
fn a_signal_is_passed_on_and_so_is_the_death_by_it() {
    let lab = Lab::new();
    let program = chain_with(&lab, 1);
    let pid = program.pid();
    program.crash();
    let mut restored = Restored { restorer: lab.restore("chain"), pid };
    restored.restorer.wait_for("selfdump: restored chain/");
    restored.restorer.signal(USR2);
    lab.wait_for_checkpoint(2);
    restored.restorer.signal(TERM);
    let status = restored.restorer.wait();
    assert!(died_of(status, TERM), "{status:?}");
    assert!(!is_there(pid), "the program has ended as well");
}

#[test]
fn a_detached_restore_returns_and_the_program_runs_on() {
    let lab = Lab::new();
    let program = chain_with(&lab, 1);
    let pid = program.pid();
    program.crash();
    let done = lab.run(["restore", "chain", "--detach"]);
    let restored = Alone::new(pid);
    assert!(done.status.success(), "{done:?}");
    assert!(text(&done.stdout).starts_with("restored chain/"), "{done:?}");
    assert!(text(&done.stdout).ends_with(&format!("000001 as process {pid}\n")), "{done:?}");
    restored.signal(USR2);
    assert_eq!(number(&lab.wait_for_checkpoint(2)), 2);
}

#[test]
fn a_process_id_that_is_just_being_reaped_is_waited_for() {
    let lab = Lab::new();
    let mut program = chain_with(&lab, 1);
    let pid = program.pid();
    program.signal(crate::harness::KILL);
    let mut restorer = lab.selfdump(["restore", "chain", "--detach"]);
    let mut restorer = restorer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The zombie is ours, and we take our time.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(restorer.try_wait().unwrap().is_none(), "it gave up");
    assert!(program.wait().signal().is_some());
    let status = eventually("the restore", || restorer.try_wait().unwrap());
    assert!(status.success(), "{status:?}");
    drop(Alone::new(pid));
}

#[test]
fn a_program_that_still_runs_is_not_restored_beside_itself() {
    let lab = Lab::new();
    let mut program = chain_with(&lab, 1);
    let pid = program.pid();
    let running = format!("the program still runs, as process {pid} (chain)");
    assert_fails(&lab.run(["restore", "chain"]), 125, &[&running, &format!("kill {pid}")]);
    let (store, options) = selfdump::restore::from_environment(Some(&lab.store())).unwrap();
    let entry = selfdump::restore::newest_good(&store, None, &mut |_, _| {}).unwrap();
    let error = selfdump::restore::restore(&entry, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PidTaken, "{error:?}");
    assert!(program.is_running());
    program.crash();

    let back = bring_back(&lab, "chain");
    assert_fails(&lab.run(["restore", "chain"]), 125, &[&format!("process {pid} (chain)"), "then restore"]);
    back.program.crash();
}

/// A `sleep` with a process id of our choice.
fn sleep_as(pid: i32) -> Subjected {
    let arguments = [c"/bin/sleep".as_ptr(), c"600".as_ptr(), std::ptr::null()];
    eventually("the process id", || {
        // struct clone_args (clone3(2)): only the signal at its end, and the list of ids for it, are set.
        let mut request = [0_u64; 10];
        request[4] = libc::SIGCHLD as u64;
        request[8] = (&raw const pid) as u64;
        request[9] = 1;
        // SAFETY: the request and the id live until the call returns. The child has a copy of our memory
        // and only calls execv and _exit, which may follow a fork of a process with threads.
        let child = unsafe {
            let child = libc::syscall(libc::SYS_clone3, request.as_ptr(), size_of_val(&request));
            if child == 0 {
                libc::execv(arguments[0], arguments.as_ptr());
                libc::_exit(127);
            }
            child
        };
        (child == i64::from(pid)).then_some(Subjected { pid })
    })
}

/// A child that std doesn't know of.
struct Subjected {
    pid: i32,
}

impl Drop for Subjected {
    fn drop(&mut self) {
        crate::harness::send(self.pid, crate::harness::KILL);
        // SAFETY: no status is asked for, so nothing is written.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

#[test]
fn a_process_id_that_another_has_is_named_with_its_holder() {
    let lab = Lab::new();
    let program = chain_with(&lab, 1);
    let pid = program.pid();
    program.crash();
    let other = sleep_as(pid);
    eventually("the other program", || {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "sleep")
            .then_some(())
    });
    let holder = format!("the program needs the process id {pid}, which process {pid} (sleep) has now");
    assert_fails(&lab.run(["restore", "chain"]), 125, &[&holder, "then restore again"]);
    drop(other);
    bring_back(&lab, "chain").program.crash();
}
