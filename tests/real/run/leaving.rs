//! SIGTERM: the program leaves with a checkpoint, from which the next runner goes on.

use super::*;

#[test]
fn sigterm_leaves_with_a_checkpoint_from_which_resume_goes_on_until_it_is_done() {
    let lab = Lab::new();
    let mut run = Runner::start(&lab, errand(&lab, &[]));
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    run.runner.signal(TERM);
    assert_eq!(run.runner.wait().code(), Some(75), "{}", run.runner.output());
    let left = run.wait_for("left", 1)["checkpoint"].as_str().unwrap().to_owned();
    let checkpoint = lab.checkpoints().pop().expect("a checkpoint");
    assert!(checkpoint.ends_with(&left), "{left}");
    assert_eq!(manifest(&checkpoint)["cause"]["signal"], TERM);
    assert!(run.runner.output().contains("--resume goes on from there"));
    drop(run);

    let mut run = Runner::start(&lab, errand(&lab, &["--resume"]));
    assert_eq!(run.wait_for("restored", 1)["checkpoint"], *left);
    goes_on(&lab);
    order(&lab, "exit 0");
    assert_eq!(run.runner.wait().code(), Some(0));
    assert_unbroken(&lab);
    drop(run);

    // What is done is not resumed.
    let run = Runner::start(&lab, errand(&lab, &["--resume"]));
    assert_eq!(run.wait_for("started", 1)["anew"], true);
}

#[test]
fn where_the_checkpoint_fails_sigterm_ends_the_program() {
    let lab = Lab::new();
    let mut command = errand(&lab, &[]);
    command.env("SELFDUMP_CRIU", "/no/such/criu");
    let mut launch = lab.launch(command, "runner");
    launch = launch.env("SELFDUMP_CRIU", "/no/such/criu");
    let mut runner = launch.start();
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    runner.signal(TERM);
    assert!(died_of(runner.wait(), TERM), "{}", runner.output());
    let kinds: Vec<Value> = read(&lab.path("events")).iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["started", "asked-to-leave", "not-saved", "ended"]);
}

#[test]
fn a_program_that_does_not_leave_in_time_is_killed() {
    let lab = Lab::new();
    let mut command = runner(&lab, &["--grace", "200ms", "--name", "deaf"]);
    command.args(["sh", "-c", "trap '' TERM; touch ready; while :; do sleep 0.05; done"]);
    command.current_dir(lab.path(""));
    let mut run = Runner::start(&lab, command);
    eventually("its trap", || lab.path("ready").exists().then_some(()));
    let pid = run.pid();
    run.runner.signal(TERM);
    assert!(died_of(run.runner.wait(), TERM), "{}", run.runner.output());
    assert_eq!(run.wait_for("asked-to-leave", 1)["with_checkpoint"], false);
    run.wait_for("killed", 1);
    assert!(!is_there(pid));
}

#[test]
fn sigterm_is_the_programs_where_that_is_wanted() {
    let lab = Lab::new();
    let mut run = Runner::start(&lab, errand(&lab, &["--on-term", "pass"]));
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    run.runner.signal(TERM);
    assert!(died_of(run.runner.wait(), TERM));
    assert!(lab.checkpoints().is_empty());
}
