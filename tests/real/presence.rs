//! That it is there costs a program nothing between checkpoints.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::{Lab, Subject, USR2, eventually};

/// How long a program is watched that nothing happens to.
const IDLE: Duration = Duration::from_secs(10);

/// The threads of a process, with their names.
fn threads(program: &Subject) -> Vec<(PathBuf, String)> {
    let folders = fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
    let named = |folder: PathBuf| {
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        Some((folder, name.trim().to_owned()))
    };
    folders.filter_map(|entry| named(entry.unwrap().path())).collect()
}

/// How often the kernel has put selfdump's thread to sleep, or others in its place.
fn switches(program: &Subject) -> Vec<String> {
    let ours = threads(program).into_iter().filter(|(_, name)| name == "selfdump");
    let [(folder, _)] = ours.collect::<Vec<_>>().try_into().expect("one thread");
    let status = fs::read_to_string(folder.join("status")).unwrap();
    status.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect()
}

/// Waits until its thread has nothing more to do, and holds it to that.
fn sleeps(program: &Subject) {
    eventually("a second without a wake-up", || {
        let before = switches(program);
        std::thread::sleep(Duration::from_secs(1));
        (switches(program) == before).then_some(())
    });
    let before = switches(program);
    std::thread::sleep(IDLE);
    assert_eq!(switches(program), before, "it was woken");
}

#[test]
fn its_one_thread_is_not_woken_in_ten_seconds_neither_before_a_checkpoint_nor_after_one() {
    let lab = Lab::new();
    let program = lab.program("asker").arg("1").env("SELFDUMP_EVERY", "1h").start();
    program.wait_for("ready");
    sleeps(&program);
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    sleeps(&program);
}
