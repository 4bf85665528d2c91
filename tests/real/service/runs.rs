//! `selfdump run` of a user who has nothing but the service.

use std::fs;
use std::os::unix::fs::chown;

use super::ends::is_gone;
use super::restores::start;
use super::{ONE, Served, TERM};
use crate::chain::follow;
use crate::harness::{KILL, Subject, criu, eventually, patiently, send};

/// A runner, and its program.
struct Run {
    runner: Subject,
    events: std::path::PathBuf,
}

impl Run {
    fn of_chain(served: &Served, options: &[&str]) -> Run {
        let events = served.lab.path(&format!("run-{ONE}/events"));
        let (json, chain) = (format!("--json={}", events.display()), served.lab.path("chain"));
        let words = [&["run", &json], options, &["--", chain.to_str().unwrap(), "3"]].concat();
        let runner = start(served, ONE, &words);
        // What the program prints goes on in a file that its user can open again.
        chown(served.lab.path(&format!("selfdump-{ONE}.out")), Some(ONE), None).unwrap();
        Run { runner, events }
    }

    fn all(&self, kind: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&self.events).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let events = whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
        events.filter(|event: &serde_json::Value| event["event"] == kind).collect()
    }

    /// Waits for the `count`th event of a kind.
    fn wait_for(&self, kind: &str, count: usize) -> serde_json::Value {
        let event = patiently(|| self.all(kind).into_iter().nth(count - 1));
        event.unwrap_or_else(|| panic!("never came: {kind} {count}, in {}", self.runner.output()))
    }

    fn pid(&self) -> i32 {
        self.wait_for("started", 1)["pid"].as_i64().unwrap() as i32
    }

    /// Kills the program, and waits for a checkpoint of its next life.
    fn has_brought_back(&self, pid: i32) {
        self.wait_for("saved", 1);
        send(pid, KILL);
        self.wait_for("restored", 1);
        let saved = self.all("saved").len();
        self.wait_for("saved", saved + 1);
    }

    /// Ends the runner, with which the program ends, whose chain is whole.
    fn ends_with(mut self, pid: i32) {
        self.runner.signal(TERM);
        self.runner.wait();
        eventually("the end of the program", || is_gone(pid));
        follow(&self.runner.output());
    }
}

#[test]
fn a_program_that_is_killed_comes_back_by_the_service_each_time() {
    let served = Served::new(&["--requests-each", "100000"]);
    let run = Run::of_chain(&served, &["--every", "200ms", "--restarts", "unlimited", "--backoff", "0"]);
    let pid = run.pid();
    for round in 1..=10 {
        let before = run.all("saved").len();
        run.wait_for("saved", before + 1);
        send(pid, KILL);
        let ended = run.wait_for("ended", round);
        assert_eq!(ended["life"]["end"]["signaled"], KILL, "{ended}");
        assert_eq!(run.wait_for("restored", round)["pid"], pid, "{}", run.runner.output());
    }
    let said = served.service.output();
    assert_eq!(said.matches("asked=restore result=\"restored process").count(), 10, "{said}");
    run.ends_with(pid);
}

/// A runner isn't the parent of a life that the service has brought back, which ends with it. The next runner goes on from
/// the last checkpoint.
#[test]
fn a_life_that_the_service_has_brought_back_ends_with_its_runner_and_the_next_one_goes_on() {
    let served = Served::new(&["--requests-each", "100000"]);
    let options = ["--every", "200ms", "--backoff", "0", "--resume"];
    let mut run = Run::of_chain(&served, &options);
    let pid = run.pid();
    run.has_brought_back(pid);
    run.runner.signal(KILL);
    run.runner.wait();
    eventually("the end of the program", || is_gone(pid));

    let next = Run::of_chain(&served, &options);
    assert_eq!(next.wait_for("restored", 2)["pid"], pid);
    next.ends_with(pid);
}

#[test]
fn a_runner_brings_its_program_back_by_the_service_that_follows_one_that_was_killed() {
    let mut served = Served::new(&["--requests-each", "100000"]);
    let run = Run::of_chain(&served, &["--every", "200ms", "--backoff", "2s"]);
    let pid = run.pid();
    run.has_brought_back(pid);
    served.service.signal(KILL);
    served.service.wait();
    served.service = super::start(&served.lab, &criu(), &["--requests-each", "100000"]);
    run.wait_for("ended", 2);
    assert_eq!(run.wait_for("restored", 2)["pid"], pid, "{}", run.runner.output());
    run.ends_with(pid);
}

#[test]
fn a_program_goes_on_where_its_runner_and_the_service_are_killed_together_and_is_taken_over() {
    let mut served = Served::new(&[]);
    let options = ["--every", "200ms", "--backoff", "0", "--resume"];
    let mut run = Run::of_chain(&served, &options);
    let pid = run.pid();
    run.has_brought_back(pid);
    for one in [&run.runner, &served.service] {
        one.stop();
    }
    for one in [&mut run.runner, &mut served.service] {
        one.signal(KILL);
        one.wait();
    }
    let next = Run::of_chain(&served, &options);
    assert_eq!(next.wait_for("taken-over", 1)["pid"], pid);
    next.ends_with(pid);
}
