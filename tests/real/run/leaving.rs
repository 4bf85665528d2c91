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
    let mut command = runner(&lab, &["--grace", "200ms", "--name", "deaf", "--preload", "off"]);
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

#[test]
fn sigterm_at_any_moment_of_a_return_leaves_with_a_checkpoint() {
    let lab = Lab::new();
    let mut run = Runner::start(&lab, errand(&lab, &[]));
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    run.runner.signal(TERM);
    assert_eq!(run.runner.wait().code(), Some(75));
    for round in 0..10 {
        drop(run);
        run = Runner::start(&lab, errand(&lab, &["--resume"]));
        // From before the restore to after it.
        let lock = lab.store().join("errand/runner.lock");
        let pid = run.runner.pid().to_string();
        eventually("a runner", || fs::read_to_string(&lock).ok().filter(|text| text.starts_with(&pid)));
        std::thread::sleep(Duration::from_millis(15 * round));
        run.runner.signal(TERM);
        assert_eq!(run.runner.wait().code(), Some(75), "{round}: {}", run.runner.output());
        assert_eq!(run.all("left").len(), 1, "{round}");
    }
    order(&lab, "exit 0");
    drop(run);
    assert_eq!(to_the_end(&lab, errand(&lab, &["--resume"])).status.code(), Some(0));
    assert_unbroken(&lab);
}

#[test]
fn a_sigterm_more_does_not_change_how_it_leaves() {
    let lab = Lab::new();
    let mut run = Runner::start(&lab, errand(&lab, &[]));
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    while run.runner.is_running() {
        run.runner.signal(TERM);
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(run.runner.wait().code(), Some(75), "{}", run.runner.output());
    assert_eq!((run.all("asked-to-leave").len(), run.all("left").len()), (1, 1));
}
