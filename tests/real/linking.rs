//! Installed by linking alone: in programs of each kind, and in a library that somebody loads.

use std::process::Command;

use crate::afterlife::bring_back;
use crate::harness::{Lab, Subject, USR2, built, eventually, manifest, program, static_program};

fn step(program: &Subject) -> u64 {
    last_step(&program.output()).unwrap_or(0)
}

fn last_step(output: &str) -> Option<u64> {
    output.lines().rev().find_map(|line| line.strip_prefix("step ")?.parse().ok())
}

/// A program whose source asks for nothing is checkpointed, and comes back.
fn is_checkpointed_and_comes_back(lab: &Lab, command: Command) {
    let program = lab.launch(command, "linked").start();
    program.wait_for("step 3");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    assert_eq!(manifest(&checkpoint)["program"]["name"], "linked");
    let then = step(&program);
    eventually("it goes on", || (step(&program) > then + 20).then_some(()));
    program.crash();
    let output = lab.path("linked.out");
    let before = std::fs::read_to_string(&output).unwrap();
    let _back = bring_back(lab, "linked");
    let after = eventually("it comes back", || {
        let now = std::fs::read_to_string(&output).unwrap();
        last_step(now.strip_prefix(&before)?)
    });
    assert!(after < last_step(&before).unwrap(), "it goes on from its checkpoint");
}

#[test]
fn a_program_that_only_links_it_answers_the_signal_and_comes_back() {
    is_checkpointed_and_comes_back(&Lab::new(), Command::new(program("linked")));
}

#[test]
fn so_does_a_static_one_that_can_be_loaded_anywhere() {
    is_checkpointed_and_comes_back(&Lab::new(), Command::new(static_program("static-pie")));
}

#[test]
fn so_does_a_static_one_that_can_not() {
    is_checkpointed_and_comes_back(&Lab::new(), Command::new(static_program("static")));
}

#[test]
fn a_wrong_value_is_said_and_the_program_that_asked_for_nothing_runs_on_without_checkpoints() {
    let lab = Lab::new();
    let mut program = lab.program("linked").env("SELFDUMP_EVERY", "often").start();
    let said = program.wait_for("there will be no checkpoints");
    assert!(said.contains("SELFDUMP_EVERY can't be \"often\""), "{said}");
    program.wait_for("step 10");
    assert_eq!(threads(&program), 1, "it is inert");
    assert!(program.is_running());

    // Who asks for it is told.
    let mut asker = lab.program("chain").env("SELFDUMP_EVERY", "often").start();
    assert_eq!(asker.wait().code(), Some(1));
    assert!(asker.output().contains("SELFDUMP_EVERY takes a duration"), "{}", asker.output());
}

#[test]
fn switched_off_it_is_inert_by_linking_and_by_a_call() {
    let lab = Lab::new();
    let linked = lab.program("linked").env("SELFDUMP", "off").start();
    linked.wait_for("step 3");
    assert_eq!(threads(&linked), 1);
    let called = lab.program("chain").env("SELFDUMP", "off").start();
    called.wait_for("thread 0 step");
    assert_eq!(threads(&called), 1);
    for program in [linked, called] {
        program.signal(USR2);
        assert!(crate::harness::died_of(program_end(program), USR2), "the signal does what it always did");
    }
}

fn program_end(mut program: Subject) -> std::process::ExitStatus {
    program.wait()
}

fn threads(program: &Subject) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", program.pid())).expect("its threads").count()
}

#[test]
fn a_call_takes_over_from_linking_with_whatever_configuration() {
    let lab = Lab::new();
    // `leaver` names an exit signal that linking knows nothing of.
    let program = lab.program("leaver").start();
    program.wait_for("tick");
    let agents = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", program.pid())).expect("its threads");
        let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name == "selfdump\n").count()
    };
    eventually("one agent is left", || (agents() == 1).then_some(()));
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    let status = lab.status_when("status.json", |status| status["last"]["saved"] == true);
    assert_eq!((&status["signal"], &status["exit_signal"]), (&"SIGUSR2".into(), &"SIGTERM".into()));
}

#[test]
fn a_library_that_python_loads_has_python_checkpointed() {
    let lab = Lab::new();
    let library = built("examples/libplugin.so".as_ref());
    let script = format!(
        "import ctypes, itertools, time\n\
         print('plugged', ctypes.CDLL({library:?}).plugged(), flush=True)\n\
         for step in itertools.count():\n    print('step', step, flush=True)\n    time.sleep(0.01)\n"
    );
    let mut python = Command::new("python3");
    python.args(["-c", &script]);
    let program = lab.launch(python, "python").env("SELFDUMP_NAME", "python").start();
    program.wait_for("plugged 42");
    program.wait_for("step 3");
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    let then = step(&program);
    eventually("it goes on", || (step(&program) > then + 20).then_some(()));
}

#[test]
fn a_library_that_is_loaded_where_main_never_runs_does_no_harm() {
    let library = built("examples/libplugin.so".as_ref());
    // ld.so maps everything, and calls no constructor and no main.
    let listed = Command::new("ldd").arg(&library).output().expect("ldd");
    assert!(listed.status.success(), "{listed:?}");
    // `true` never calls the library, `no-such-program` is never reached.
    for (command, status) in [("exec true", 0), ("exec /no/such/program", 127)] {
        let lab = Lab::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("LD_PRELOAD", &library);
        let mut shell = lab.launch(shell, "shell").start();
        assert_eq!(shell.wait().code(), Some(status), "{command}: {}", shell.output());
    }
}

#[test]
fn the_command_itself_is_not_installed_in() {
    let lab = Lab::new();
    let said = lab.selfdump(["list"]).env("SELFDUMP_JITTER", "often").output().expect("selfdump runs");
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(errors.contains("SELFDUMP_JITTER"), "{errors}");
    assert!(
        !errors.contains("there will be no checkpoints"),
        "built together with the examples: build it with `cargo build -p selfdump-cli`"
    );
}
