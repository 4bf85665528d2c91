//! `python -m selfdump`: the whole command, and scripts that it runs with nothing changed in them.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{line, lines, python, script};
use crate::harness::{KILL, Lab, eventually, read_json, send, target, write_script};

/// `python -m selfdump` with these arguments.
fn command(arguments: &[&str]) -> Command {
    let mut command = python();
    command.args(["-m", "selfdump"]).args(arguments);
    command
}

/// What a script prints when it runs by itself.
fn by_itself(arguments: &[&str]) -> (Option<i32>, String) {
    let done = python().arg(script("plain")).args(arguments).output().expect("python");
    (done.status.code(), String::from_utf8(done.stdout).unwrap())
}

/// Runs `plain` through a runner, kills it in between, and holds what it printed against a run by itself.
fn comes_back_by_itself(mut command: Command) {
    let lab = Lab::new();
    command.args(["run", "--every", "300ms", "--backoff", "100ms", "--dir"]).arg(lab.store());
    command.arg(script("plain")).args(["120", "--every", "x"]);
    let mut runner = lab.launch(command, "plain").start();
    runner.wait_for("step 3 ");
    let checkpoint = lab.wait_for_checkpoint(1);
    let manifest = crate::harness::manifest(&checkpoint);
    assert_eq!(manifest["program"]["name"], "plain.py");
    let pid = manifest["life"]["pid"].as_i64().unwrap() as i32;
    let runs = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let runs = String::from_utf8_lossy(&runs).replace('\0', " ");
    assert!(runs.contains("-m selfdump._script"), "it is Python itself that is armed: {runs}");
    send(pid, KILL);
    let status = runner.wait();
    let (expected, printed) = by_itself(&["120", "--every", "x"]);
    assert_eq!(status.code(), expected, "{}", runner.output());
    assert_eq!(expected, Some(3));
    let output = runner.output();
    assert!(output.contains("plain.py crashed") && output.contains("restored plain.py/"), "{output}");
    // The file that it appends to has what it did after the checkpoint twice.
    let of_the_script = |text: &str| {
        let words = ["started", "result"].map(|word| line(text, word).expect(word));
        // Of a line that was begun as the program was killed the runner's own word is the end.
        let whole = lines(text, "step").into_iter().filter(|line| !line.contains("selfdump:"));
        (words, whole.collect::<BTreeSet<_>>())
    };
    assert_eq!(of_the_script(&output), of_the_script(&printed));
}

#[test]
fn a_script_with_nothing_changed_in_it_runs_as_by_itself_and_comes_back_from_a_crash() {
    comes_back_by_itself(command(&[]));
}

#[test]
fn so_it_does_under_a_shim_that_executes_the_interpreter() {
    let lab = Lab::new();
    let shim = lab.path("python");
    let interpreter = target().join("python/venv/bin/python");
    write_script(&shim, format!("#!/bin/sh\nexec \"{}\" \"$@\"\n", interpreter.display()));
    let mut command = Command::new(shim);
    command.args(["-m", "selfdump"]).env("PYTHONDONTWRITEBYTECODE", "1");
    comes_back_by_itself(command);
}

#[test]
fn a_script_leaves_with_a_checkpoint_and_the_same_line_goes_on_from_there() {
    let lab = Lab::new();
    let line_of = || {
        let mut command = command(&["run", "--resume", "--dir"]);
        command.arg(lab.store()).arg(script("plain")).arg("120");
        lab.launch(command, "plain").start()
    };
    let mut runner = line_of();
    runner.wait_for("step 10 ");
    runner.signal(libc::SIGTERM);
    assert_eq!(runner.wait().code(), Some(75), "{}", runner.output());
    assert_eq!(line(&runner.output(), "result"), None);
    let mut runner = line_of();
    let (expected, printed) = by_itself(&["120"]);
    assert_eq!(runner.wait().code(), expected, "{}", runner.output());
    let output = runner.output();
    assert_eq!(lines(&output, "started").len(), 1, "it was never started anew: {output}");
    assert_eq!(line(&output, "result"), line(&printed, "result"));
}

#[test]
fn a_module_is_run_as_python_runs_it() {
    let lab = Lab::new();
    let package = lab.path("work/jobs");
    fs::create_dir_all(&package).unwrap();
    fs::write(package.join("__init__.py"), "").unwrap();
    fs::write(
        package.join("__main__.py"),
        "import sys\nfrom . import sums\nprint('main', __name__, __package__, __spec__.name, sys.argv, sums.total())\n",
    )
    .unwrap();
    fs::write(package.join("sums.py"), "def total() -> int:\n    return sum(range(10))\n").unwrap();
    let ran = |mut command: Command| {
        command.args(["-m", "jobs", "7"]).current_dir(lab.path("work")).envs(lab.environment());
        let done = command.output().expect("python");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let by_itself = ran(python());
    assert!(by_itself.starts_with("main __main__ jobs jobs.__main__"), "{by_itself}");
    assert_eq!(ran(command(&["run"])), by_itself);
}

#[test]
fn a_script_that_installs_selfdump_itself_takes_over_from_the_runner_s() {
    let lab = Lab::new();
    let mut runner = lab.launch_piped(
        {
            let mut command = command(&["run"]);
            command.arg(script("taken_over")).envs(lab.environment()).stdin(Stdio::piped());
            command
        },
        "taken_over",
    );
    lab.wait_for_checkpoint(1);
    drop(runner.stdin.take());
    let status = eventually("its end", || runner.try_wait().expect("a child"));
    assert!(status.success());
    let output = fs::read_to_string(lab.path("taken_over.out")).unwrap();
    assert_eq!(line(&output, "outcome").as_deref(), Some("False 0"), "{output}");
}

#[test]
fn what_can_not_be_run_is_said() {
    let lab = Lab::new();
    for (words, said, status) in [
        (vec!["no_such.py"], "can't open '", 2),
        (vec!["-m", "no_such_module"], "there is no module 'no_such_module' that can be run", 2),
        (vec!["no-such-program"], "can't start no-such-program", 127),
    ] {
        let mut run = command(&["run", "--name", "nothing"]);
        let done = run.args(&words).envs(lab.environment()).output().expect("python");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(errors.contains(said), "{words:?}: {errors}");
        assert_eq!(done.status.code(), Some(status), "{words:?}");
    }
}

#[test]
fn the_whole_command_is_there() {
    let lab = Lab::new();
    let mut program = super::start(&lab, "own", &[]).start();
    assert!(program.wait().success(), "{}", program.output());
    let run = |arguments: &[&str]| {
        let done = command(arguments).envs(lab.environment()).stdin(Stdio::null()).output().expect("python");
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let list: Value = serde_json::from_str(&run(&["list", "--json"])).unwrap();
    assert_eq!(list["checkpoints"][0]["name"], "own.py");
    assert!(run(&["--version"]).starts_with("selfdump "));
    assert!(run(&["setup", "--help"]).contains("CRIU"));
    // In a pid namespace of its own the command is started once more, which takes the interpreter to do.
    run(&["restore", "own.py", "--pidns"]);
    let output = fs::read_to_string(lab.path("own.out")).unwrap();
    assert_eq!(output.lines().collect::<Vec<_>>(), ["saved", "restored"]);
    run(&["restore", "own.py"]);
    assert!(read_json(&lab.checkpoints()[0].join("manifest.json")).is_some());
}
