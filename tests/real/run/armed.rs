//! Of all that inherit the preloaded library, only the program itself is armed.

use super::*;
use crate::failures::small_disk::Disk;
use crate::harness::{library, write_script};
use crate::staging::copier::copiers;

/// As pyenv has them: a script that asks helpers which python it is to be, and then is that.
const SHIM: &str = r#"#!/usr/bin/env bash
helper() {
    cat /proc/$BASHPID/task/*/comm
    echo from the helper
}
echo helper: $(helper | tr '\n' ' ')
sleep 60 &
exec "$(command -v /usr/bin/python3)" "$@"
"#;

/// Tells with each step which threads a helper of its own has.
const PROGRAM: &str = r#"
import subprocess, time
for step in range(100000):
    helper = subprocess.run(['sh', '-c', 'cat /proc/$$/task/*/comm'], capture_output=True, text=True)
    print('step', step, *helper.stdout.split(), flush=True)
    time.sleep(0.05)
"#;

#[test]
fn behind_a_shim_only_the_program_is_armed_and_stays_so_when_it_is_restored() {
    let lab = Lab::new();
    let shim = lab.path("python");
    write_script(&shim, SHIM);
    let mut command = runner(&lab, &["--name", "shim", "--backoff", "10ms"]);
    command.arg(shim).args(["-c", PROGRAM]);
    let run = Runner::start(&lab, command);
    run.runner.wait_for("step 3");
    let pid = run.pid();
    let helper = run.runner.wait_for("helper: ");
    assert!(helper.contains("from the helper") && !helper.contains("selfdump"), "{helper}");
    let program = fs::read_link(format!("/proc/{pid}/exe")).expect("the program");
    assert!(program.to_string_lossy().contains("python3"), "{}", program.display());
    assert_eq!(agents(pid), 1, "{:?}", threads(pid));
    // The helper that is still there, and inherits all that the program does.
    let helper = sleeping_child(pid);
    assert_eq!(threads(helper), ["sleep"]);
    assert!(maps(helper).contains("libselfdump.so"), "it is there, and inert");

    run.runner.signal(USR2);
    run.wait_for("saved", 1);
    send(pid, KILL);
    run.wait_for("restored", 1);
    let before = run.runner.output().len();
    let after = eventually("what it starts when it is back", || {
        let output = run.runner.output();
        let new = output[before..].lines().filter(|line| line.starts_with("step ")).map(str::to_owned);
        Some(new.collect::<Vec<_>>()).filter(|new| new.len() > 3)
    });
    assert_eq!(agents(pid), 1);
    for line in after {
        assert!(!line.contains("selfdump"), "{line}");
    }
    send(sleeping_child(pid), KILL);
}

fn sleeping_child(pid: i32) -> i32 {
    let sleeps = |pid: &i32| threads(*pid) == ["sleep"];
    children(pid).into_iter().find(sleeps).expect("the helper of the shim")
}

fn maps(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default()
}

#[test]
fn what_is_preloaded_already_stays() {
    let lab = Lab::new();
    let ours = library();
    let mut command = runner(&lab, &["--name", "sh"]);
    command
        .args(["sh", "-c", "echo $LD_PRELOAD"])
        .env("LD_PRELOAD", crate::harness::built("examples/libplugin.so".as_ref()));
    command.env("SELFDUMP", "off");
    let done = to_the_end(&lab, command);
    let (theirs, last) =
        text(&done.stdout).trim().split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("two");
    assert!(theirs.ends_with("libplugin.so"), "{done:?}");
    assert_eq!(fs::canonicalize(last).ok(), fs::canonicalize(&ours).ok());

    let mut command = runner(&lab, &["--name", "sh", "--preload", "off"]);
    command.args(["sh", "-c", "echo \"<$LD_PRELOAD>\""]);
    assert_eq!(text(&to_the_end(&lab, command).stdout), "<>\n");
}

#[test]
fn a_wrapper_that_clears_the_environment_disarms_the_program() {
    let lab = Lab::new();
    for (wrapper, agent) in [(&["env"][..], true), (&["env", "-i"], false)] {
        let mut command = runner(&lab, &["--name", "sh"]);
        command.args(wrapper).args(["sh", "-c", "sleep 0.2; cat /proc/$$/task/*/comm"]);
        let done = to_the_end(&lab, command);
        assert_eq!(text(&done.stdout).contains("selfdump"), agent, "{done:?}");
    }
}

#[test]
fn preloaded_by_hand_it_is_inert() {
    let script = "cat /proc/$$/task/*/comm; kill -USR2 $$; echo still here";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).env("LD_PRELOAD", library()).env("SELFDUMP_EVERY", "1s");
    let ended = shell.output().expect("a shell");
    assert!(
        died_of(ended.status, USR2) && text(&ended.stdout).trim() == "sh",
        "built together with the examples? build it with `cargo build -p selfdump-preload`: {ended:?}"
    );
}

/// Its own file isn't the library's.
#[test]
fn what_copies_its_pages_executes_a_program_that_does_nothing_else() {
    let lab = Lab::new();
    let memory = Disk::at(lab.path("memory"), "huge=always,size=500m");
    let mut command = runner(&lab, &[]);
    // Large enough to be seen while it is copied.
    let program = "$| = 1; my $memory = 'x' x (100 << 20); print \"ready\\n\"; sleep 1 while 1";
    command.args(["/usr/bin/perl", "-e", program]).env("SELFDUMP_STAGING", memory.path());
    let run = Runner::start(&lab, command);
    let pid = run.pid();
    run.runner.wait_for("ready");
    run.runner.signal(USR2);
    let (_, executed) = eventually("a process that copies", || copiers(memory.path()).pop());
    assert_eq!(executed.file_name().unwrap(), "true");
    run.wait_for("saved", 1);
    assert_eq!(manifest(&lab.wait_for_checkpoint(1))["staged"]["where"], "folder");
    eventually("its end", || copiers(memory.path()).is_empty().then_some(()));
    send(pid, KILL);
    assert_eq!(run.wait_for("restored", 1)["pid"], pid);
}
