//! A worker of our own that can't be had, or fails.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::asker::{Asker, Failure};
use super::criu::{CONTINUE, STOP, held_by, worker};
use crate::harness::{KILL, Lab, eventually, send, write_script};

#[test]
fn a_criu_that_is_not_there_is_named() {
    let lab = Lab::new();
    let named = lab.path("criu");
    let asker = Asker::plain(&lab, &[("SELFDUMP_CRIU", named.clone())]);
    let failure = Failure { kind: "no-criu", cause: "is not a program", remedy: "set SELFDUMP_CRIU" };
    asker.wait_for("tick 9");
    assert!(!lab.store().exists(), "a program that tries nothing leaves nothing");
    asker.fails(&failure);
    symlink(&lab.criu, &named).expect("a link");
    asker.saves();
    fs::remove_file(&named).expect("the link");
    asker.fails(&failure);
    asker.fails(&failure);
    symlink(&lab.criu, &named).expect("a link");
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_machine_without_any_criu_is_told_how_to_get_one() {
    let lab = Lab::new();
    let launch =
        lab.program("asker").arg("1").arg("bare").env_remove("SELFDUMP_CRIU").env_remove("XDG_DATA_HOME");
    let asker = Asker::start(&lab, launch.env("PATH", lab.path("none")).env("HOME", lab.path("home")));
    let failure = Failure {
        kind: "no-criu",
        cause: "no criu was found, neither on PATH nor as a private copy",
        remedy: "run `selfdump setup`",
    };
    asker.fails(&failure);
    asker.fails(&failure);
}

#[test]
fn a_program_that_is_no_criu_is_named() {
    let lab = Lab::new();
    let named = lab.path("criu");
    symlink(&lab.criu, &named).expect("a link");
    let asker = Asker::plain(&lab, &[("SELFDUMP_CRIU", named.clone())]);
    asker.saves();
    fs::remove_file(&named).expect("the link");
    symlink("/bin/false", &named).expect("a link");
    let failure =
        Failure { kind: "no-criu", cause: "does not run as a worker", remedy: "run `selfdump setup`" };
    asker.fails(&failure);
    asker.fails(&failure);
    fs::remove_file(&named).expect("the link");
    write_script(&named, "neither a binary nor a script");
    asker.fails(&Failure { kind: "no-criu", cause: "can't start", remedy: "run `selfdump setup`" });
    fs::remove_file(&named).expect("the file");
    symlink(&lab.criu, &named).expect("a link");
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_worker_that_hangs_is_ended_at_the_deadline() {
    let lab = Lab::new();
    let named = lab.path("criu");
    symlink(&lab.criu, &named).expect("a link");
    let asker = Asker::plain(&lab, &[("SELFDUMP_CRIU", named.clone()), ("SELFDUMP_TIMEOUT", "3s".into())]);
    asker.saves();
    fs::remove_file(&named).expect("the link");
    write_script(&named, "#!/bin/sh\nexec sleep 600\n");
    let before = asker.whole_checkpoints();
    let request = asker.asks();
    let hanging = eventually("the worker", || worker(&lab));
    let failure = Failure {
        kind: "deadline",
        cause: "did not answer the question for its version within 3s",
        remedy: "look whether it hangs",
    };
    asker.failed(request, &failure, &before);
    eventually("the end of the worker", || {
        (!Path::new(&format!("/proc/{hanging}/exe")).exists()).then_some(())
    });
    fs::remove_file(&named).expect("the script");
    symlink(&lab.criu, &named).expect("a link");
    asker.saves();
    asker.comes_back();
}

#[test]
fn a_worker_that_is_killed_in_mid_dump_leaves_the_program_running() {
    let lab = Lab::new();
    let asker = Asker::start(&lab, lab.program("asker").arg("128"));
    runs_on_when_its_workers_are_killed(&lab, asker);
}

#[test]
fn a_worker_that_is_killed_is_missed_though_a_helper_of_its_own_lives_on() {
    let lab = Lab::new();
    let with_helper = lab.path("criu");
    let script =
        format!("#!/bin/sh\nsleep 600 </dev/null >/dev/null 2>&1 &\nexec {} \"$@\"\n", lab.criu.display());
    write_script(&with_helper, script);
    let asker = Asker::start(&lab, lab.program("asker").arg("128").env("SELFDUMP_CRIU", with_helper));
    runs_on_when_its_workers_are_killed(&lab, asker);
}

#[test]
fn a_worker_that_is_killed_in_mid_dump_leaves_connections_alone() {
    let lab = Lab::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard = Arc::new(AtomicU64::new(0));
    let hears = {
        let heard = Arc::clone(&heard);
        move || {
            let (mut connection, _) = listener.accept().expect("a connection");
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = connection.read(&mut bytes) {
                heard.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    };
    let peer = thread::spawn(hears);
    let asker = Asker::start(&lab, lab.program("asker").arg("128").arg(format!("connected={port}")));
    let goes_on = |when: &str| {
        let before = heard.load(Ordering::Relaxed);
        eventually(when, || (heard.load(Ordering::Relaxed) > before + 5).then_some(()));
    };
    asker.saves();
    goes_on("what is said after a checkpoint");
    the_worker_is_killed_three_times(&lab, &asker);
    goes_on("what is said after CRIU was killed");
    let rules = Command::new("iptables-save").output().expect("iptables-save");
    let rules = String::from_utf8(rules.stdout).expect("text");
    assert!(!rules.contains(&format!(" {port} ")), "nothing is left in the firewall: {rules}");
    asker.saves();
    goes_on("what is said after the next checkpoint");
    asker.comes_back();
    peer.join().expect("a peer whose connection has ended");
}

fn runs_on_when_its_workers_are_killed(lab: &Lab, asker: Asker<'_>) {
    asker.saves();
    let held = held_by(asker.pid());
    the_worker_is_killed_three_times(lab, &asker);
    assert_eq!(held_by(asker.pid()), held, "descriptors and threads");
    asker.saves();
    asker.comes_back();
}

fn the_worker_is_killed_three_times(lab: &Lab, asker: &Asker<'_>) {
    let mut killed = 0;
    // A dump that was over before the test got to run is followed by another.
    for _ in 0..10 {
        let before = asker.whole_checkpoints();
        let request = asker.asks();
        eventually("a worker", || worker(lab).or_else(|| asker.has_answer(request).then_some(0)));
        kill_in_mid_dump(lab);
        if asker.outcome(request).contains(" saved ") {
            asker.has_saved(request);
            continue;
        }
        let failure = Failure {
            kind: "service-died",
            cause: "ended before it had answered the dump",
            remedy: "look for the out-of-memory killer",
        };
        asker.failed(request, &failure, &before);
        killed += 1;
        if killed == 3 {
            break;
        }
    }
    assert_eq!(killed, 3, "the worker was killed in mid-dump three times");
}

/// Lets the worker go on by small steps until it has written some of the program's memory, and kills it. By then what it
/// has put into the program waits for its word, and takes itself away when it is gone. Between two steps of putting it
/// there the program would die with it (docs/reliability.md).
fn kill_in_mid_dump(lab: &Lab) {
    let Some(worker) = worker(lab) else { return };
    send(worker, STOP);
    let still_there = eventually("the program's memory in a draft", || {
        if self::worker(lab) != Some(worker) || pages_in_drafts(lab) > 4 << 20 {
            return Some(self::worker(lab));
        }
        send(worker, CONTINUE);
        thread::sleep(Duration::from_millis(1));
        send(worker, STOP);
        None
    });
    still_there.inspect(|&worker| send(worker, KILL));
}

/// How many bytes of the program's memory are in drafts.
fn pages_in_drafts(lab: &Lab) -> u64 {
    let below =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let drafts = below(&lab.store().join("asker"))
        .flat_map(|instance| below(&instance))
        .filter(|folder| folder.extension().is_some_and(|partial| partial == "partial"));
    // A worker that was killed leaves a piece of its own in the program, which the next dump has as pages-1.img.
    let pages = drafts
        .flat_map(|draft| below(&draft.join("images")))
        .filter(|image| image.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pages-")));
    pages.map(|image| fs::metadata(image).map_or(0, |image| image.len())).sum()
}
