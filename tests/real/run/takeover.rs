//! A runner that was killed, and the next one.

use super::*;

#[test]
fn a_runner_that_is_killed_leaves_a_program_that_the_next_one_takes_over() {
    let lab = Lab::new();
    let every = ["--every", "200ms", "--backoff", "10ms"];
    let run = Runner::start(&lab, errand(&lab, &every));
    lab.wait_for_checkpoint(1);
    let pid = run.crash();
    let left = Left(pid);
    goes_on(&lab);

    let refused = to_the_end(&lab, errand(&lab, &every));
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    let said = text(&refused.stderr);
    assert!(said.contains(&format!("errand runs already, as process {pid}")), "{said}");
    assert!(said.contains("--resume"), "{said}");

    let mut run = Runner::start(&lab, errand(&lab, &[&every[..], &["--resume"]].concat()));
    assert_eq!(run.wait_for("taken-over", 1)["pid"], pid);
    run.wait_for("saved", 1);
    send(pid, KILL);
    assert_eq!(run.wait_for("restored", 1)["pid"], pid);
    goes_on(&lab);
    assert_eq!(children(run.runner.pid()), [pid], "it is the runner's own now");
    order(&lab, "exit 3");
    assert_eq!(run.runner.wait().code(), Some(3));
    assert_unbroken(&lab);
    drop(left);
}

#[test]
fn the_exit_status_of_a_program_that_was_taken_over_is_passed_on() {
    let lab = Lab::new();
    let run = Runner::start(&lab, errand(&lab, &["--every", "200ms", "--backoff", "10ms"]));
    lab.wait_for_checkpoint(1);
    let left = Left(run.crash());
    let mut run = Runner::start(&lab, errand(&lab, &["--resume", "--backoff", "10ms"]));
    run.wait_for("taken-over", 1);
    order(&lab, "exit 3");
    // A kernel that doesn't tell has it brought back, and end once more as the runner's child.
    assert_eq!(run.runner.wait().code(), Some(3), "{}", run.runner.output());
    drop(left);
}

/// Whoever was about to end it was killed half-way.
#[test]
fn a_program_that_is_stopped_when_it_is_taken_over_leaves_all_the_same() {
    for options in [&["--resume"][..], &["--resume", "--on-term", "pass"]] {
        let lab = Lab::new();
        let run = Runner::start(&lab, errand(&lab, &["--every", "200ms"]));
        lab.wait_for_checkpoint(1);
        let left = Left(run.crash());
        stop(left.0);
        let mut run = Runner::start(&lab, errand(&lab, options));
        run.wait_for("taken-over", 1);
        run.runner.signal(TERM);
        let status = run.runner.wait();
        assert!(status.code() == Some(75) || died_of(status, TERM), "{status}: {}", run.runner.output());
    }
}

#[test]
fn a_program_that_knows_no_signal_to_leave_by_is_ended_when_its_checkpoint_is_made() {
    let lab = Lab::new();
    let launch = lab.program("errand").arg(lab.path("errand.txt")).arg(lab.path("order"));
    let mut program = launch.start();
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    let mut run = Runner::start(&lab, errand(&lab, &["--resume"]));
    run.wait_for("taken-over", 1);
    run.runner.signal(TERM);
    assert!(died_of(program.wait(), KILL));
    assert_eq!(run.runner.wait().code(), Some(75), "{}", run.runner.output());
    assert_eq!(run.wait_for("asked-to-leave", 1)["signal"], "SIGUSR2");
    let left = run.wait_for("left", 1)["checkpoint"].as_str().unwrap().to_owned();
    assert!(lab.checkpoints().pop().is_some_and(|newest| newest.ends_with(left)));
    drop(run);

    let mut run = Runner::start(&lab, errand(&lab, &["--resume"]));
    run.wait_for("restored", 1);
    order(&lab, "exit 0");
    assert_eq!(run.runner.wait().code(), Some(0));
    assert_unbroken(&lab);
}
