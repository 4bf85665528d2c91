//! How a program ends, and who may run it.

use std::os::unix::process::CommandExt;

use super::*;

#[test]
fn the_end_of_the_program_is_that_of_the_runner() {
    for (ends, status) in [("exit 0", 0), ("exit 3", 3)] {
        let lab = Lab::new();
        order(&lab, ends);
        let done = to_the_end(&lab, errand(&lab, &[]));
        assert_eq!(done.status.code(), Some(status), "{done:?}");
        assert!(done.stderr.is_empty(), "what goes as it should is not spoken of: {done:?}");
    }
    let lab = Lab::new();
    order(&lab, "segv");
    let done = to_the_end(&lab, errand(&lab, &["--restarts", "0"]));
    assert!(died_of(done.status, SEGV), "{done:?}");
    let tried = to_the_end(&lab, runner_of(&lab, "/no/such/program"));
    assert_eq!(tried.status.code(), Some(127), "{tried:?}");
    assert!(text(&tried.stderr).contains("can't start /no/such/program"), "{tried:?}");
    let tried = to_the_end(&lab, runner_of(&lab, "/etc/passwd"));
    assert_eq!(tried.status.code(), Some(126), "{tried:?}");
}

fn runner_of(lab: &Lab, program: &str) -> Command {
    let mut command = runner(lab, &[]);
    command.arg(program);
    command
}

#[test]
fn a_second_runner_is_refused_and_told_who_is_the_first() {
    let lab = Lab::new();
    let run = Runner::start(&lab, errand(&lab, &[]));
    run.pid();
    for options in [&[][..], &["--resume"]] {
        let second = to_the_end(&lab, errand(&lab, options));
        assert_eq!(second.status.code(), Some(125), "{second:?}");
        let said = text(&second.stderr);
        let first = format!("errand has a runner already: process {} (selfdump)", run.runner.pid());
        assert!(said.contains(&first) && said.contains("--name"), "{said}");
    }
    let other = ["--name", "other", "--restarts", "0"];
    let mut other = lab.launch(errand_elsewhere(&lab, &other), "other").start();
    eventually("one of another name", || lab.path("other.txt").exists().then_some(()));
    order(&lab, "exit 0");
    assert_eq!(other.wait().code(), Some(0), "{}", other.output());
}

fn errand_elsewhere(lab: &Lab, options: &[&str]) -> Command {
    let mut command = selfdump();
    command.arg("run").args(options).arg("--");
    command.arg(program("errand")).arg(lab.path("other.txt")).arg(lab.path("order"));
    command
}

#[test]
fn signals_are_passed_on_and_a_death_by_one_of_them_is_no_crash() {
    let lab = Lab::new();
    let run = errand(&lab, &[]);
    // A group of its own and signals that aren't ignored, as a shell gives them: SIGTSTP stops nothing in a group that
    // no process of its session looks after, which that of the tests may be, and what the tests ignore is passed on.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TSTP").arg(run.get_program()).args(run.get_args()).process_group(0);
    let mut run = Runner::start(&lab, command);
    let pid = run.pid();
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    run.runner.signal(USR2);
    lab.wait_for_checkpoint(1);
    run.wait_for("saved", 1);

    run.runner.signal(libc::SIGTSTP);
    eventually("both stop", || (is_stopped(pid) && is_stopped(run.runner.pid())).then_some(()));
    run.runner.signal(libc::SIGCONT);
    goes_on(&lab);

    run.runner.signal(libc::SIGINT);
    assert!(died_of(run.runner.wait(), libc::SIGINT));
    let ended = run.wait_for("ended", 1);
    assert_eq!((&ended["crashed"], &ended["life"]["asked"]), (&false.into(), &true.into()));
}

#[test]
fn a_program_without_selfdump_is_run_all_the_same_and_that_is_said() {
    let lab = Lab::new();
    let mut command = runner(&lab, &["--preload", "off"]);
    command.args(["sleep", "600"]);
    let mut run = Runner::start(&lab, command);
    let pid = run.pid();
    assert_eq!(run.wait_for("not-checkpointed", 1)["pid"], pid);
    let said = format!("process {pid} has not installed selfdump: no checkpoints are made of it");
    run.runner.wait_for(&said);
    assert!(run.runner.is_running() && is_there(pid));
    run.runner.signal(TERM);
    assert!(died_of(run.runner.wait(), TERM));
}

#[test]
fn what_can_not_be_is_refused_with_the_form_before_anything_starts() {
    let lab = Lab::new();
    for (options, status, words) in [
        (&["--every", "soon"][..], 2, &["--every", "30s, 10m or 1h 30m"][..]),
        (&["--grace", "soon"], 2, &["--grace", "30s, 10m or 1h 30m"]),
        (&["--overhead", "much"], 2, &["--overhead", "0.01 or 1%"]),
        (&["--overhead", "2"], 125, &["SELFDUMP_OVERHEAD", "0.01 or 1%"]),
        (&["--keep", "0"], 2, &["--keep", "a whole number from 1 up"]),
        (&["--restarts", "many"], 2, &["--restarts", "`unlimited`"]),
        (&["--files", "*.csv"], 2, &["--files", "rewind:*.csv"]),
        (&["--on-term", "ignore"], 2, &["--on-term", "checkpoint, pass"]),
        (&["--every", "1s", "--mtbf", "1h"], 2, &["--every", "--mtbf"]),
        (&["--jitter", "1s"], 125, &["a jitter without a period", "SELFDUMP_EVERY"]),
        (&["--name", "a/b"], 125, &["\"a/b\" can't be the name", "letters, digits"]),
    ] {
        let done = to_the_end(&lab, errand(&lab, options));
        assert_eq!(done.status.code(), Some(status), "{options:?}: {done:?}");
        let said = text(&done.stderr);
        words.iter().for_each(|word| assert!(said.contains(word), "{options:?}: {word:?} is not in {said}"));
    }
    assert!(!lab.path("errand.txt").exists());
}

#[test]
fn a_program_that_ends_as_soon_as_it_is_back_has_been_back() {
    let lab = Lab::new();
    let mut run = Runner::start(&lab, errand(&lab, &[]));
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    run.runner.signal(TERM);
    assert_eq!(run.runner.wait().code(), Some(75));
    order(&lab, "exit 3");
    // CRIU has not let go of all its threads yet when it ends; not each time, but often on a busy machine.
    for round in 0..10 {
        drop(run);
        run = Runner::start(&lab, errand(&lab, &["--resume"]));
        assert_eq!(run.runner.wait().code(), Some(3), "{round}: {}", run.runner.output());
        assert_eq!(run.all("restored").len(), 1, "{round}");
    }
}
