//! What is read of images is what CRIU's own decoder reads of them: each field of each message of every image, of
//! programs that between them have everything a program has. And what is written back of each image is that image, byte
//! by byte (`back.rs`).
//!
//! The decoder is crit's library, of the same version as CRIU; `selfdump images --json` is compared with what it
//! returns. Nothing is left out: what only one of them has is a difference.

mod apart;
mod back;
mod crit;
mod programs;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use back::written_back;
use crit::compare_all;
pub use crit::crit;
use programs::*;

use crate::afterlife::bring_back;
use crate::harness::{Lab, Launch, USR2, built, eventually, oldest_criu};

/// Loads the library that makes a program one of ours, has things open, and waits.
const PYTHON: &str = r#"
import ctypes, os, sys, time, signal, socket, select, mmap, threading, tempfile, fcntl
libc = ctypes.CDLL(None, use_errno=True)
folder = sys.argv[2]
kept = []
def ends_with_us(): libc.prctl(1, signal.SIGKILL, 0, 0, 0)
def forked():
    if os.fork(): return False
    ends_with_us(); return True
exec(sys.argv[3])
ctypes.CDLL(sys.argv[1])
print("ready", flush=True)
while True: time.sleep(0.05)
"#;

fn python(lab: &Lab, body: &str) -> Launch {
    let mut python = Command::new("python3");
    let folder = lab.path("folder");
    fs::create_dir(&folder).expect("a folder");
    python.args(["-c", PYTHON]).arg(built("examples/libplugin.so".as_ref())).arg(folder).arg(body);
    lab.launch(python, "python3")
}

/// Checkpoints a program, and compares all that is in the images. How many fields were compared, by image.
fn agree(lab: &Lab, program: Launch) -> BTreeMap<String, usize> {
    agree_once(lab, program, "ready")
}

/// The same, once the program has said this.
fn agree_once(lab: &Lab, program: Launch, word: &str) -> BTreeMap<String, usize> {
    let program = program.start();
    program.wait_for(word);
    program.signal(USR2);
    let checkpoint = eventually("the first checkpoint", || {
        let failed =
            lab.status().and_then(|status| status["last"]["error"]["message"].as_str().map(str::to_owned));
        assert_eq!(failed, None);
        lab.checkpoints().pop()
    });
    program.crash();
    agree_on(lab, &checkpoint)
}

fn agree_on(lab: &Lab, checkpoint: &Path) -> BTreeMap<String, usize> {
    // Whatever a program has, a checkpoint that is whole is called good.
    let verify = lab.run(["verify".as_ref(), checkpoint.as_os_str()]);
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stdout));
    let output = lab.run(["images".as_ref(), "--json".as_ref(), checkpoint.as_os_str()]);
    assert!(output.status.success(), "{output:?}");
    let listing: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let images = listing["images"].as_array().expect("images");
    written_back(&checkpoint.join("images"));
    compare_all(images, &checkpoint.join("images"))
}

/// Each of these images is among those that were compared.
fn assert_has(compared: &BTreeMap<String, usize>, images: &[&str]) {
    for image in images {
        assert!(compared.get(*image).is_some_and(|fields| *fields > 0), "no {image} in {compared:?}");
    }
}

#[test]
fn of_a_program_with_threads() {
    let lab = Lab::new();
    let compared = agree(&lab, lab.program("chain").arg("4"));
    let always = [
        "core",
        "cpuinfo",
        "fdinfo",
        "files",
        "fs",
        "ids",
        "inventory",
        "mm",
        "pagemap",
        "pstree",
        "stats",
        "timens",
    ];
    assert_has(&compared, &always);
    assert!(compared["core"] > 2000, "{compared:?}");
}

#[test]
fn of_a_program_that_the_oldest_criu_dumped() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    agree(&lab, lab.program("chain"));
}

#[test]
fn of_a_program_that_was_restored_and_builds_on_an_earlier_checkpoint() {
    let lab = Lab::new();
    agree(&lab, lab.program("chain").arg("2"));
    let back = bring_back(&lab, "chain");
    for number in [2, 3] {
        back.program.signal(USR2);
        agree_on(&lab, &lab.wait_for_checkpoint(number));
    }
    back.program.crash();
}

#[test]
fn of_a_server() {
    let lab = Lab::new();
    agree_once(&lab, lab.program("server"), "listens");
}

#[test]
fn of_pipes() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, PIPES)), &["pipes", "fifo"]);
}

#[test]
fn of_unix_sockets() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, UNIX_SOCKETS)), &["sk"]);
}

#[test]
fn of_internet_sockets() {
    let lab = Lab::new();
    agree(&lab, python(&lab, INTERNET_SOCKETS));
    // What there is of a connection is dumped where it is to be kept.
    let lab = Lab::new();
    let kept = python(&lab, INTERNET_SOCKETS).env("SELFDUMP_KEEP_TCP", "on");
    assert_has(&agree(&lab, kept), &["tcp"]);
}

#[test]
fn of_timers_and_signals() {
    let lab = Lab::new();
    agree(&lab, python(&lab, TIMERS));
}

#[test]
fn of_events() {
    let lab = Lab::new();
    agree(&lab, python(&lab, EVENTS));
}

#[test]
fn of_files() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, FILES)), &["memfd", "remap", "ghost", "filelocks"]);
}

#[test]
fn of_a_terminal() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, TERMINAL)), &["tty"]);
}

#[test]
fn of_children_and_a_zombie() {
    let lab = Lab::new();
    agree(&lab, python(&lab, CHILDREN));
}

#[test]
fn of_limits_and_places() {
    let lab = Lab::new();
    agree(&lab, python(&lab, LIMITS));
}

#[test]
fn of_sockets_with_all_their_options() {
    let lab = Lab::new();
    agree(&lab, python(&lab, SOCKET_OPTIONS));
}

#[test]
fn of_unix_sockets_that_are_half_closed_or_carry_descriptors() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, UNIX_ENDS)), &["sk"]);
}

#[test]
fn of_packets() {
    let lab = Lab::new();
    agree(&lab, python(&lab, PACKETS));
}

#[test]
fn of_watches() {
    let lab = Lab::new();
    agree(&lab, python(&lab, WATCHES));
}

#[test]
fn of_files_without_names() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, GHOSTS)), &["ghost", "remap"]);
}

#[test]
fn of_locks() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, LOCKS)), &["filelocks"]);
}

#[test]
fn of_rights() {
    let lab = Lab::new();
    agree(&lab, python(&lab, RIGHTS));
}

#[test]
fn of_filters_for_system_calls() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, FILTERED)), &["seccomp"]);
}

#[test]
fn of_areas_of_every_kind() {
    let lab = Lab::new();
    agree(&lab, python(&lab, AREAS));
}

#[test]
fn of_terminals_of_every_kind() {
    let lab = Lab::new();
    assert_has(&agree(&lab, python(&lab, TERMINALS)), &["tty"]);
}

#[test]
fn of_every_program_that_the_tests_have_and_that_waits_to_be_asked() {
    let programs: [(&str, &[&str], &str); 13] = [
        ("family", &["1"], "ready"),
        ("memory", &["8", "2", "0"], "ready"),
        ("shown", &["FILE"], "ready"),
        ("standing", &[], "ready"),
        ("crowd", &[], "ready"),
        ("hooked", &[], "ready"),
        ("metered", &[], "ready"),
        ("linked", &[], "step"),
        ("talker", &["terminal"], "heard 1"),
        ("asker", &["4"], "ready"),
        ("changer", &["8", "10"], "ready"),
        ("ender", &["FILE"], "line 2"),
        ("leaver", &[], "tick"),
    ];
    for (name, arguments, word) in programs {
        let lab = Lab::new();
        let file = lab.path("file");
        let named = |argument: &&str| if *argument == "FILE" { file.clone() } else { argument.into() };
        agree_once(&lab, lab.program(name).args(arguments.iter().map(named)), word);
    }
}
