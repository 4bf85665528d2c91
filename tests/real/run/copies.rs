//! A program that has selfdump of its own is not served by the preloaded library as well: there is one agent in it.

use super::*;
use crate::harness::{built, library};

/// Waits for `line`, and for the one agent that there is to be then.
fn has_one_agent(run: &Runner, line: &str) -> i32 {
    run.runner.wait_for(line);
    let pid = run.pid();
    eventually("one agent", || (agents(pid) == 1).then_some(()));
    pid
}

#[test]
fn a_program_that_links_it_has_its_own() {
    for (name, line) in [("linked", "step 3"), ("leaver", "tick")] {
        let lab = Lab::new();
        let mut command = runner(&lab, &[]);
        command.arg(program(name));
        let run = Runner::start(&lab, command);
        let pid = has_one_agent(&run, line);
        send(pid, USR2);
        assert_eq!(manifest(&lab.wait_for_checkpoint(1))["program"]["name"], name);
    }
}

/// Python, which loads a library with a copy of selfdump in it, and calls `call` of it; `step N` from then on.
fn loads_a_copy(lab: &Lab, call: &str) -> Runner {
    let script = format!(
        "import ctypes, itertools, time\n\
         print('before', flush=True)\n\
         plugin = ctypes.CDLL({:?})\n\
         ours = ctypes.CDLL({:?})\n\
         print('called', {call}, flush=True)\n\
         for step in itertools.count():\n    print('step', step, flush=True)\n    time.sleep(0.01)\n",
        built("examples/libplugin.so".as_ref()),
        library()
    );
    let mut command = runner(lab, &["--name", "python", "--backoff", "10ms"]);
    command.args(["/usr/bin/python3", "-c", &script]);
    Runner::start(lab, command)
}

#[test]
fn one_that_is_loaded_later_leaves_it_at_the_preloaded_one() {
    let lab = Lab::new();
    let run = loads_a_copy(&lab, "plugin.plugged()");
    run.runner.wait_for("called 42");
    let pid = has_one_agent(&run, "step 30");
    send(pid, USR2);
    assert_eq!(manifest(&lab.wait_for_checkpoint(1))["program"]["name"], "python");
}

#[test]
fn one_that_is_loaded_and_installed_later_takes_over_and_comes_back() {
    let lab = Lab::new();
    let run = loads_a_copy(&lab, "plugin.plug_in()");
    run.runner.wait_for("called 0");
    let pid = has_one_agent(&run, "step 30");
    run.wait_for("elsewhere", 1);
    send(pid, USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    assert_eq!(manifest(&checkpoint)["program"]["name"], "plugged");
    run.wait_for("saved", 1);
    send(pid, KILL);
    run.wait_for("restored", 1);
    assert_eq!(agents(pid), 1);
    let restored = run.runner.output().len();
    eventually("it goes on", || run.runner.output()[restored..].contains("step ").then_some(()));
    // The signal wakes the new one alone.
    send(pid, USR2);
    run.wait_for("saved", 2);
    assert_eq!(lab.checkpoints().len(), 2);
    // What happens at the exit signal is the new one's business as well.
    run.runner.signal(TERM);
    assert_eq!(
        run.wait_for("left", 1)["checkpoint"].as_str().map(|id| id.starts_with("plugged/")),
        Some(true)
    );
}

/// Without a handler one of these signals would end it.
#[test]
fn signals_that_come_while_one_takes_over_end_nothing() {
    let lab = Lab::new();
    let script = format!(
        "import ctypes, os, signal, threading, time\n\
         plugin = ctypes.CDLL({:?})\n\
         def storm():\n    for _ in range(2000):\n        os.kill(os.getpid(), signal.SIGUSR2)\n        \
         time.sleep(0.0005)\n\
         thread = threading.Thread(target=storm)\nthread.start()\ntime.sleep(0.1)\n\
         print('called', plugin.plug_in(), flush=True)\nthread.join()\nprint('calm', flush=True)\ntime.sleep(600)\n",
        built("examples/libplugin.so".as_ref())
    );
    let mut command = runner(&lab, &["--name", "python"]);
    command.args(["/usr/bin/python3", "-c", &script]);
    let run = Runner::start(&lab, command);
    run.runner.wait_for("called 0");
    run.runner.wait_for("calm");
    let pid = run.pid();
    assert_eq!(agents(pid), 1);
    eventually("a checkpoint by the new one", || lab.store().join("plugged").exists().then_some(()));
    assert!(run.all("ended").is_empty());
}

#[test]
fn a_second_one_by_a_call_is_an_error() {
    let lab = Lab::new();
    let run = loads_a_copy(&lab, "ours.selfdump_install(), plugin.plug_in()");
    run.runner.wait_for("called 0 1");
    let pid = has_one_agent(&run, "step 3");
    run.runner.wait_for("another copy of selfdump is installed in this process");
    send(pid, USR2);
    lab.wait_for_checkpoint(1);
}
