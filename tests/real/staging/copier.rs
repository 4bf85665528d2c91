//! The process that copies the program's pages into memory while CRIU takes the next.

use super::*;
use crate::dice::Dice;
use crate::harness::{KILL, send};

const ROOM: &str = "huge=always,size=700m";

/// The processes that copy pages into a folder in memory, with the programs that they execute.
pub fn copiers(memory: &Path) -> Vec<(i32, PathBuf)> {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let is_in_memory = fs::read_link(process.join("cwd")).ok()?.starts_with(memory);
        let variables = fs::read(process.join("environ")).ok()?;
        let is_one = variables.split(|&byte| byte == 0).any(|variable| variable == b"SELFDUMP_HELPER=copier");
        (is_in_memory && is_one).then(|| Some((pid, fs::read_link(process.join("exe")).ok()?)))?
    });
    processes.collect()
}

fn nothing_is_left(memory: &Path) {
    eventually("nothing left in memory, and nobody who copies", || {
        (folders(memory).is_empty() && copiers(memory).is_empty()).then_some(())
    });
}

#[test]
fn what_it_copies_of_a_program_that_writes_without_pause_is_all_of_one_moment() {
    let lab = Lab::new();
    let memory = Disk::at(lab.path("memory"), ROOM);
    let launch = lab.program("scribbler").args(["256", "300", "4"]);
    let program = staging(launch, memory.path()).env("SELFDUMP_KEEP", "9").start();
    let (_, executed) = eventually("a process that copies", || copiers(memory.path()).pop());
    assert_eq!(executed, crate::harness::program("scribbler").canonicalize().unwrap());
    program.wait_for("done");
    nothing_is_left(memory.path());
    program.crash();
    let checkpoints = lab.checkpoints();
    assert_eq!(checkpoints.len(), 4);
    let output = || fs::read_to_string(lab.path("scribbler.out")).unwrap();
    for checkpoint in checkpoints {
        assert_eq!(manifest(&checkpoint)["staged"], in_folder(&memory));
        succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
        let before = output().matches("came back").count();
        let back = bring_back(&lab, &checkpoint);
        eventually("a look at all memory", || (output().matches("came back").count() > before).then_some(()));
        let all = output();
        let said = all.lines().rfind(|line| line.starts_with("came back")).unwrap();
        assert!(said.contains("all 65536 pages are right"), "{}: {said}", checkpoint.display());
        drop(back);
    }
}

/// Whoever is killed, the program goes on, or its next life does; and nobody stays behind.
#[test]
fn that_it_is_killed_at_any_moment_costs_no_more_than_a_checkpoint() {
    let lab = Lab::new();
    let memory = Disk::at(lab.path("memory"), ROOM);
    let program = ready(staging(lab.program("asker").arg("256"), memory.path()).env("SELFDUMP_KEEP", "20"));
    let mut dice = Dice::throw();
    let mut failures = 0;
    for round in 1..=10 {
        let last = |status: &Value| status["last"].clone();
        let before = lab.status().map_or(Value::Null, |status| last(&status));
        program.signal(USR2);
        let (copier, _) = eventually("a process that copies", || copiers(memory.path()).pop());
        std::thread::sleep(std::time::Duration::from_millis(dice.below(150)));
        send(copier, KILL);
        let last = last(&lab.status_when("the word about it", |status| last(status) != before));
        nothing_is_left(memory.path());
        ticks_on(&lab);
        let text = last["error"].to_string();
        assert!(
            last["error"].is_null() || text.contains("process that copies the program's pages"),
            "{round}: {last}"
        );
        failures += usize::from(!last["error"].is_null());
    }
    assert!(failures > 0, "it always came too late");
    program.signal(USR2);
    let checkpoint = eventually("one that is left alone", || {
        lab.checkpoints().pop().filter(|_| lab.checkpoints().len() > 10 - failures)
    });
    succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
    program.crash();
    let _back = bring_back(&lab, "asker");
    ticks_on(&lab);
}

#[test]
fn where_it_may_have_too_few_descriptors_there_is_a_checkpoint_all_the_same() {
    let lab = Lab::new();
    let memory = Disk::at(lab.path("memory"), ROOM);
    let program = ready(staging(lab.program("asker").arg("256"), memory.path()));
    let limit = ["--nofile=38:38", "--pid", &program.pid().to_string()];
    succeeds(std::process::Command::new("prlimit").args(limit));
    assert_eq!(staged(&lab, &program, 1), in_folder(&memory));
    nothing_is_left(memory.path());
    program.crash();
    let _back = bring_back(&lab, "asker");
    ticks_on(&lab);
}

#[test]
fn it_ends_with_the_program() {
    let lab = Lab::new();
    let memory = Disk::at(lab.path("memory"), ROOM);
    let program = ready(staging(lab.program("asker").arg("256"), memory.path()));
    program.signal(USR2);
    eventually("a process that copies", || copiers(memory.path()).pop());
    program.crash();
    eventually("its end", || copiers(memory.path()).is_empty().then_some(()));
}

#[test]
fn a_program_for_which_somebody_has_set_its_variable_says_so_and_ends() {
    let lab = Lab::new();
    for role in ["copier", "", "something else"] {
        let mut program = std::process::Command::new(crate::harness::program("scribbler"));
        let output = program.env("SELFDUMP_HELPER", role).current_dir(lab.path("")).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{role}: {output:?}");
        assert!(output.stdout.is_empty(), "main isn't reached: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, "selfdump: SELFDUMP_HELPER is set, which is for selfdump itself alone; unset it\n");
    }
}
