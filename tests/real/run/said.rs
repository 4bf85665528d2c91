//! What a runner says.

use super::*;

#[test]
fn json_lines_tell_the_story() {
    let lab = Lab::new();
    let mut run = Runner::start(&lab, errand(&lab, &["--backoff", "10ms"]));
    let pid = run.pid();
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    send(pid, USR2);
    let saved = run.wait_for("saved", 1);
    assert!(saved["size_bytes"].as_u64() > Some(0) && saved["frozen_us"].as_u64() > Some(0), "{saved}");
    send(pid, KILL);
    run.wait_for("restored", 1);
    order(&lab, "exit 0");
    assert_eq!(run.runner.wait().code(), Some(0));
    let events = run.events();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["started", "saved", "ended", "waiting", "restored", "ended"]);
    let mut last = 0;
    for event in &events {
        assert_eq!((&event["format_version"], &event["name"]), (&1.into(), &"errand".into()));
        let at = event["at_unix_us"].as_u64().unwrap();
        assert!(at >= last, "{events:?}");
        last = at;
    }
    assert_eq!(events[4]["checkpoint"], saved["checkpoint"]);
    assert_eq!(events[5]["life"]["end"]["exited"], 0);

    // Without a file they take the place of the words.
    let mut command = selfdump();
    command.args(["run", "--json", "--", "sh", "-c", "exit 3"]);
    let done = to_the_end(&lab, command);
    let kinds: Vec<Value> = text(&done.stderr)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON and nothing else")["event"].clone())
        .collect();
    assert_eq!(kinds, ["started", "ended"]);
}

#[test]
fn a_line_shows_how_it_is_doing_and_is_taken_away_at_the_end() {
    let lab = Lab::new();
    let mut run = Runner::start(&lab, errand(&lab, &["--progress", "always"]));
    let pid = run.pid();
    eventually("the line", || {
        let line = format!("\r\x1b[Kselfdump: errand ({pid}) runs for ");
        run.runner.output().contains(&line).then_some(())
    });
    order(&lab, "exit 0");
    run.runner.wait();
    assert!(run.runner.output().ends_with("\r\x1b[K"), "{:?}", run.runner.output());
}

#[test]
fn a_program_that_names_itself_is_found_where_it_is_and_that_is_said() {
    let lab = Lab::new();
    let mut command = runner(&lab, &["--backoff", "10ms"]);
    command.args(["env", "SELFDUMP_NAME=itself"]);
    command.arg(program("errand")).arg(lab.path("errand.txt")).arg(lab.path("order"));
    let mut run = Runner::start(&lab, command);
    let folder = run.wait_for("elsewhere", 1)["folder"].as_str().unwrap().to_owned();
    assert!(folder.starts_with(lab.store().join("itself").to_str().unwrap()), "{folder}");
    run.runner.wait_for("env has its checkpoints in ");
    let pid = run.pid();
    send(pid, USR2);
    run.wait_for("saved", 1);
    send(pid, KILL);
    let restored = run.wait_for("restored", 1);
    assert!(restored["checkpoint"].as_str().unwrap().starts_with("itself/"), "{restored}");
    order(&lab, "exit 0");
    assert_eq!(run.runner.wait().code(), Some(0));
    assert_unbroken(&lab);
}

#[test]
fn a_checkpoint_that_fails_in_each_period_for_the_same_reason_is_spoken_of_once() {
    let lab = Lab::new();
    let command = errand(&lab, &["--every", "100ms"]);
    let mut runner = lab.launch(command, "runner").env("SELFDUMP_CRIU", "/no/such/criu").start();
    let failures = || read(&lab.path("events")).iter().filter(|event| event["event"] == "not-saved").count();
    eventually("three failures", || (failures() >= 3).then_some(()));
    order(&lab, "exit 0");
    assert_eq!(runner.wait().code(), Some(0));
    assert_eq!(
        runner.output().matches("selfdump: no checkpoint of errand: ").count(),
        1,
        "{}",
        runner.output()
    );
}
