//! Whoever is killed, at whatever moment, the program goes on, and what is in the store is whole.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{copied, numbers, output, ready, unchanged};
use crate::afterlife::bring_back;
use crate::chain::follow;
use crate::dice::Dice;
use crate::harness::{KILL, Lab, Subject, USR2, eventually, send, stop, succeeds};

/// Who takes part in a checkpoint of a copy, besides the program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// Who halts the program.
    Halter,
    Copy,
    Criu,
}

/// The processes of a part in a program's checkpoint.
fn who(lab: &Lab, pid: i32, part: Part) -> Vec<i32> {
    match part {
        Part::Copy => unchanged::of_the_lab(lab).into_iter().filter(|&other| other != pid).collect(),
        Part::Halter => with(|process| {
            let variables = fs::read(process.join("environ")).unwrap_or_default();
            let ours = format!("SELFDUMP_HELPER=halter {pid} ");
            variables.split(|&byte| byte == 0).any(|variable| variable.starts_with(ours.as_bytes()))
        }),
        // What it says before it has a log goes to the store.
        Part::Criu => with(|process| {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            let output = fs::read_link(process.join("fd/1")).unwrap_or_default();
            command.windows(4).any(|part| part == b"swrk") && output.starts_with(lab.store())
        }),
    }
}

fn with(is_one: impl Fn(&Path) -> bool) -> Vec<i32> {
    let is_one = |pid: &i32| is_one(Path::new(&format!("/proc/{pid}")));
    numbers("/proc".as_ref()).into_iter().filter(is_one).collect()
}

/// Who traces a process, if anybody does.
fn tracer(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    tracer.trim().parse().ok().filter(|&tracer| tracer != 0)
}

fn nobody_is_left(lab: &Lab, pid: i32) {
    eventually("nobody left but the program", || {
        let left = [Part::Halter, Part::Copy, Part::Criu].into_iter().flat_map(|part| who(lab, pid, part));
        (left.count() == 0).then_some(())
    });
}

/// Every thread takes a hundred steps more.
fn goes_on(lab: &Lab) {
    let steps = || follow(&output(lab, "chain"));
    let before = steps();
    eventually("all threads go on", || {
        let now = steps();
        before.iter().all(|(thread, step)| now[thread] > step + 100).then_some(())
    });
}

fn last(lab: &Lab) -> Value {
    lab.status().map_or(Value::Null, |status| status["last"].clone())
}

/// Asks for a checkpoint, does something to who takes part in it, and waits for what is said of it.
fn meanwhile(lab: &Lab, program: &Subject, part: Part, deed: impl FnOnce(i32)) -> Value {
    let before = last(lab);
    program.signal(USR2);
    let found = eventually("whoever takes part, or a word", || match who(lab, program.pid(), part).pop() {
        Some(pid) => Some(Some(pid)),
        None => (last(lab) != before).then_some(None),
    });
    if let Some(pid) = found {
        deed(pid);
    }
    eventually("the word about it", || Some(last(lab)).filter(|last| *last != before))
}

/// 150 MiB take long enough to be met at each step.
fn started(lab: &Lab) -> Subject {
    ready(copied(lab.program("chain").args(["8", "150"]).env("SELFDUMP_KEEP", "4")))
}

#[test]
fn whoever_is_killed_costs_no_more_than_a_checkpoint() {
    let lab = Lab::new();
    let program = started(&lab);
    let mut dice = Dice::throw();
    let rounds = std::env::var("SELFDUMP_TEST_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number"));
    let mut failures = 0;
    for _ in 0..rounds {
        for part in [Part::Halter, Part::Copy, Part::Criu] {
            let pause = Duration::from_millis(dice.below(100));
            let last = meanwhile(&lab, &program, part, |pid| {
                std::thread::sleep(pause);
                send(pid, KILL);
            });
            failures += usize::from(!last["error"].is_null());
            nobody_is_left(&lab, program.pid());
            goes_on(&lab);
        }
    }
    assert!(failures > 0, "it always came too late");
    let number = lab.checkpoints().last().map_or(0, |newest| crate::harness::number(newest));
    let checkpoint = lab.wait_for_checkpoint(number);
    succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
    program.crash();
    let back = bring_back(&lab, "chain");
    goes_on(&lab);
    back.program.crash();
}

/// CRIU can hang in the handler that sees its copy's end; here it is stopped, so that it does each time.
#[test]
fn a_criu_that_hangs_since_its_copy_was_killed_is_not_waited_for() {
    let lab = Lab::new();
    let program = started(&lab);
    // Before it seizes the copy, there may be more of it than one.
    let last = meanwhile(&lab, &program, Part::Criu, |_| {
        let seized =
            || who(&lab, program.pid(), Part::Copy).into_iter().find_map(|copy| Some((copy, tracer(copy)?)));
        let (copy, criu) = eventually("a copy that CRIU has seized", seized);
        stop(criu);
        send(copy, KILL);
    });
    let error = last["error"]["message"].as_str().expect("an error");
    assert!(error.contains("has ended while it was dumped"), "{error}");
    nobody_is_left(&lab, program.pid());
    goes_on(&lab);
    let next = meanwhile(&lab, &program, Part::Copy, |_| ());
    assert!(next["saved"] == true, "{next}");
}

#[test]
fn nobody_outlives_the_program() {
    let mut dice = Dice::throw();
    for part in [Part::Halter, Part::Copy, Part::Criu] {
        let lab = Lab::new();
        let program = started(&lab);
        let pid = program.pid();
        program.signal(USR2);
        eventually("whoever takes part", || who(&lab, pid, part).pop());
        std::thread::sleep(Duration::from_millis(dice.below(60)));
        program.crash();
        nobody_is_left(&lab, pid);
    }
}

#[test]
fn one_who_halts_and_stops_himself_holds_up_nobody_for_long() {
    let lab = Lab::new();
    let program = started(&lab);
    let last = meanwhile(&lab, &program, Part::Halter, stop);
    assert!(last["saved"] == true || !last["error"].is_null(), "{last}");
    nobody_is_left(&lab, program.pid());
    goes_on(&lab);
    let next = meanwhile(&lab, &program, Part::Copy, |_| ());
    assert!(next["saved"] == true, "{next}");
}
