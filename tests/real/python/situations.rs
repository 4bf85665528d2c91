//! One situation after the other, in `situations.py`: hooks, holds, interrupts, forks, and the interpreter's lock.

use std::fs;

use super::{line, lines, python, start};
use crate::afterlife::{Alone, bring_back};
use crate::failures::small_disk::Disk;
use crate::harness::{Lab, USR2, eventually, manifest};
use crate::staging::copier::copiers;

/// A situation that comes to its end well.
fn output_of(lab: &Lab, situation: &str) -> String {
    let mut program = start(lab, "situations", &[situation]).start();
    let status = program.wait();
    assert!(status.success(), "{situation}: {status}: {}", program.output());
    program.output()
}

#[test]
fn an_outcome_knows_which_return_it_is_and_hooks_run_before_it() {
    let lab = Lab::new();
    let program = start(&lab, "situations", &["attributes"]).start();
    let saved = program.wait_for("outcome");
    assert_eq!(saved, "outcome False 0 True True False False 0");
    program.crash();
    let report = lab.run(["restore", "situation", "--detach", "--json", "--set", "role=replica"]);
    let report: serde_json::Value =
        serde_json::from_slice(&report.stdout).unwrap_or_else(|_| panic!("{report:?}"));
    let _back = Alone::new(report["pid"].as_i64().unwrap() as i32);
    let output = || fs::read_to_string(lab.path("situations.out")).unwrap();
    let outcome = eventually("its second return", || lines(&output(), "outcome").into_iter().nth(1));
    assert_eq!(outcome, "True 1 True True True True 1");
    assert_eq!(lines(&output(), "back"), ["True 1 True {'role': 'replica'}"]);
}

#[test]
fn hooks_may_refuse_and_fail_and_can_not_wait_for_themselves() {
    let lab = Lab::new();
    let output = output_of(&lab, "hooks");
    let said: Vec<&str> = output
        .lines()
        .filter(|line| ["before", "after", "error", "outcome"].iter().any(|word| line.starts_with(word)))
        .collect();
    let refused =
        "error vetoed the program doesn't want a checkpoint now: RuntimeError: a transfer is under way";
    assert_eq!(
        said,
        [
            "before call inside-hook False",
            "after failed",
            refused,
            "before call inside-hook False",
            "after saved",
            "outcome False"
        ]
    );
    assert!(output.contains("ValueError: after all"), "it is logged: {output}");
    assert_eq!(lab.checkpoints().len(), 1);
}

#[test]
fn a_hook_has_the_stack_of_a_thread() {
    let output = output_of(&Lab::new(), "deep_hook");
    assert_eq!(
        (lines(&output, "depth"), lines(&output, "outcome")),
        (vec!["900".into()], vec!["False".into()])
    );
}

#[test]
fn an_interrupt_ends_the_wait_and_the_checkpoint_is_made_all_the_same() {
    let lab = Lab::new();
    let output = output_of(&lab, "interrupt");
    assert_eq!(line(&output, "interrupted").as_deref(), Some("True"));
    assert_eq!(line(&output, "outcome").as_deref(), Some("False"));
    assert!(!lab.checkpoints().is_empty());
}

#[test]
fn a_hold_keeps_a_checkpoint_from_beginning() {
    let lab = Lab::new();
    let output = output_of(&lab, "hold");
    assert_eq!(line(&output, "error").as_deref(), Some("held"));
    assert_eq!(line(&output, "other").as_deref(), Some("['held']"));
    assert_eq!(line(&output, "outcome").as_deref(), Some("False"));
    assert_eq!(lab.checkpoints().len(), 1);
}

#[test]
fn a_forked_child_is_inert_until_it_installs_selfdump_itself() {
    let lab = Lab::new();
    let output = output_of(&lab, "forked");
    assert_eq!(lines(&output, "child"), ["not-installed", "True"]);
    assert_eq!(line(&output, "status").as_deref(), Some("5"));
    assert_eq!(line(&output, "outcome").as_deref(), Some("False"));
}

#[test]
fn a_checkpoint_needs_no_lock_of_the_interpreter() {
    let lab = Lab::new();
    let program = start(&lab, "situations", &["locked"]).start();
    program.wait_for("locked");
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    assert!(!program.output().contains("unlocked"), "the lock was given back only after it");
}

#[test]
fn a_checkpoint_at_the_end_of_the_interpreter_does_it_no_harm() {
    let lab = Lab::new();
    for delay in 0..10 {
        let mut program =
            start(&lab, "situations", &["ending", &format!("{:.3}", f64::from(delay) * 0.02)]).start();
        let status = program.wait();
        let output = program.output();
        assert!(
            status.success() && !output.contains("Fatal") && !output.contains("panicked"),
            "{delay}: {output}"
        );
    }
}

#[test]
fn a_subinterpreter_is_refused() {
    let code = "import sys\n\
        interpreters = __import__('_interpreters' if sys.version_info >= (3, 13) else '_xxsubinterpreters')\n\
        try:\n    refused = interpreters.run_string(interpreters.create(), 'import selfdump')\n\
        except Exception as error:\n    refused = error\n\
        print(repr(refused))\n";
    let said = python().args(["-c", code]).output().expect("python");
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("ImportError") && text.contains("subinterpreter"), "{text}");
}

#[test]
fn durations_are_taken_as_numbers_timedeltas_and_text() {
    let lab = Lab::new();
    let mut command = python();
    command.arg(super::script("situations")).arg("settings").envs(lab.environment());
    command.stdin(std::process::Stdio::piped());
    let mut program = lab.launch_piped(command, "situations");
    let output = || fs::read_to_string(lab.path("situations.out")).unwrap();
    for number in 0..4 {
        let seconds = eventually("an installation", || lines(&output(), "installed").into_iter().nth(number));
        let status = eventually("its status", || {
            let status = lab.run(["status", &program.id().to_string(), "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
            let period = status["programs"][0]["schedule"]["period_seconds"].as_f64()?;
            (period == seconds.parse::<f64>().unwrap()).then(|| status["programs"][0].clone())
        });
        assert_eq!(status["signal"], "SIGUSR1");
        use std::io::Write;
        program.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
    assert!(eventually("its end", || program.try_wait().unwrap()).success());
    assert_eq!(line(&output(), "error").as_deref(), Some("not-installed"));
}

#[test]
fn numbers_are_drawn_anew_after_a_restore_where_that_is_asked_for_and_else_are_not() {
    for (how, differ) in [("reseed", true), ("go-on", false)] {
        let lab = Lab::new();
        let mut program = start(&lab, "draws", &[how]).start();
        assert!(program.wait().success(), "{}", program.output());
        drop(program);
        let output = lab.path("draws.out");
        let draw = |count: usize| -> Vec<String> {
            let back = bring_back(&lab, "draws.py");
            let drawn = eventually("its numbers", || {
                lines(&fs::read_to_string(&output).unwrap(), "drawn").into_iter().nth(count)
            });
            drop(back);
            drawn.split(' ').map(str::to_owned).collect()
        };
        let (first, second) = (draw(0), draw(1));
        let same = first.iter().zip(&second).filter(|(one, other)| one == other).count();
        assert_eq!(same, if differ { 0 } else { 4 }, "{how}: {first:?} {second:?}");
    }
}

/// Its extension module can be loaded into nothing but Python.
#[test]
fn the_pages_of_a_checkpoint_by_way_of_memory_are_copied_by_an_interpreter_that_runs_nothing() {
    let lab = Lab::new();
    let memory = Disk::at(lab.path("memory"), "huge=always,size=500m");
    let program = "
import time, selfdump
selfdump.install()
memory = b'x' * (256 << 20)
print('ready', flush=True)
while True:
    print('alive', memory.count(b'x') >> 20, flush=True)
    time.sleep(0.05)
";
    let mut command = python();
    command.args(["-c", program]).env("SELFDUMP_STAGING", memory.path()).env("SELFDUMP_NAME", "large");
    let program = lab.launch(command, "large").start();
    program.wait_for("ready");
    program.signal(USR2);
    let (_, executed) = eventually("a process that copies", || copiers(memory.path()).pop());
    assert!(executed.file_name().unwrap().to_string_lossy().starts_with("python"), "{}", executed.display());
    let checkpoint = lab.wait_for_checkpoint(1);
    assert_eq!(manifest(&checkpoint)["staged"]["where"], "folder");
    eventually("its end", || copiers(memory.path()).is_empty().then_some(()));
    program.crash();
    let output = || fs::read_to_string(lab.path("large.out")).unwrap();
    let before = output().len();
    let _back = bring_back(&lab, &checkpoint);
    eventually("all of its memory, when it is back", || {
        output()[before..].contains("alive 256\n").then_some(())
    });
}
