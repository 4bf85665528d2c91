//! `selfdump doctor`: what it finds is so, by the word of the real CRIU.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use selfdump::doctor::{self, Verdict};
use serde_json::Value;

use super::{assert_fails, json, printed, told};
use crate::failures::Service;
use crate::harness::{Lab, Subject, oldest_criu};

/// What was found in a check: verdict, message, remedy.
fn found<'a>(report: &'a Value, check: &str) -> (&'a str, &'a str, &'a str) {
    let all = report["machine"]
        .as_array()
        .unwrap()
        .iter()
        .chain(report["program"].as_array().into_iter().flatten());
    let finding = all
        .into_iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("{check}: {report}"));
    let text = |field: &str| finding[field].as_str().unwrap_or_default();
    (text("verdict"), text("message"), text("remedy"))
}

#[test]
fn a_criu_that_works_is_proved_by_a_dump_that_leaves_nothing() {
    let lab = Lab::new();
    let report = json(&lab.run(["doctor", "--json"]), 0);
    let (verdict, message, _) = found(&report, "criu");
    assert!(verdict == "ok" && message.contains("has dumped this process"), "{report}");
    let (verdict, message, _) = found(&report, "store");
    assert!(verdict == "ok" && message.contains("is not there yet"), "{report}");
    assert_eq!(fs::read_dir(lab.path("")).unwrap().count(), 0, "no folder is left, and no store made");
    let said = printed(&lab.run(["doctor"]), 0);
    assert!(said.lines().all(|line| line.contains("help: ") || line.chars().count() <= 80), "{said}");
    assert!(!said.contains('\x1b'), "no colours in a pipe: {said}");
}

#[test]
fn a_criu_that_is_too_old_or_none_at_all_is_told_apart() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    let report = json(&lab.run(["doctor", "--json"]), 0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = kernel.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let refuses = (numbers.next(), numbers.next()) >= (Some(6), Some(16));
    let (verdict, message, remedy) = found(&report, "criu");
    assert_eq!(verdict, if refuses { "warning" } else { "ok" }, "{report}");
    assert!(!refuses || message.contains("internet socket") && remedy.contains("selfdump setup"), "{report}");

    lab.criu = "/bin/true".into();
    let said = printed(&lab.run(["doctor"]), 1);
    assert!(said.starts_with("failed    criu: /bin/true"), "{said}");
    assert!(said.contains("help: run `selfdump setup`") && said.contains("1 failed, "), "{said}");
}

#[test]
fn a_store_that_can_not_be_and_a_service_that_everybody_reaches_are_named() {
    let mut lab = Lab::new();
    let report = json(&lab.run(["doctor", "--json", "--dir", "/proc/store"]), 1);
    assert_eq!(found(&report, "store").0, "failed", "{report}");

    lab.criu = oldest_criu();
    fs::set_permissions(lab.path(""), Permissions::from_mode(0o755)).unwrap();
    let socket = lab.path("criu.socket");
    let service = Service::start(&lab, &socket);
    let look = || {
        let output = lab.selfdump(["doctor", "--json"]).env("SELFDUMP_SERVICE", &socket).output().unwrap();
        json(&output, 0)
    };
    let report = look();
    assert!(found(&report, "criu").1.contains("the service at"), "{report}");
    let (verdict, message, remedy) = found(&report, "service");
    assert!(
        verdict == "warning" && message.contains("a danger") && remedy.starts_with("chmod 600"),
        "{report}"
    );
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(found(&look(), "service").0, "ok");
    drop(service);
}

/// A Python program that does this, and then sleeps.
fn python(lab: &Lab, does: &str) -> Subject {
    let mut command = Command::new("python3");
    let prelude = "import ctypes, mmap, os, select, socket, struct, time\nlibc = ctypes.CDLL(None)\n";
    command.arg("-c").arg(format!("{prelude}{does}\nprint('ready', flush=True)\ntime.sleep(600)"));
    let subject = lab.launch(command, &format!("python-{}", does.len())).start();
    subject.wait_for("ready");
    subject
}

/// Whether the real CRIU dumps it.
fn is_dumped(lab: &Lab, pid: i32) -> bool {
    let images = lab.path(&format!("images-{pid}"));
    fs::create_dir(&images).unwrap();
    let mut command = Command::new(&lab.criu);
    command.args(["dump", "--leave-running", "--shell-job", "-o", "dump.log", "-t"]).arg(pid.to_string());
    command.arg("-D").arg(&images).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn what_it_warns_of_criu_refuses_and_what_it_does_not_criu_dumps() {
    let lab = Lab::new();
    let refused = [
        ("a timer that wakes the machine", "libc.timerfd_create(8, 0)"),
        (
            "a socket of the protocol MPTCP",
            "s = socket.socket(2, 1, 262); s.bind(('127.0.0.1', 0)); s.listen()",
        ),
        (
            "System V shared memory",
            "i = libc.shmget(0, 65536, 0o1600); libc.shmat.restype = ctypes.c_void_p; libc.shmat(i, None, 0); libc.shmctl(i, 0, None)",
        ),
        ("a file system that is being set up", "assert libc.syscall(430, b'tmpfs', 0) > 0"),
        (
            "a perf event",
            "b = ctypes.create_string_buffer(struct.pack('IIQ', 1, 64, 0) + b'\\0' * 48); assert libc.syscall(298, b, 0, -1, -1, 0) > 0",
        ),
    ];
    let dumped = [
        "k = [select.epoll(), os.open('/dev/null', 2), os.open('/dev/urandom', 0), os.pidfd_open(os.getpid())]",
        "k = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0), socket.socket(16, socket.SOCK_RAW, 0), socket.socket(2, 2)]; libc.timerfd_create(1, 0)",
    ];
    let obstacles = |pid: i32| -> Vec<String> {
        let found = doctor::program(pid).unwrap().into_iter();
        let wrong = found.filter(|finding| finding.check == "obstacles" && finding.verdict != Verdict::Ok);
        wrong.map(|finding| finding.message).collect()
    };
    for (what, does) in refused {
        let program = python(&lab, does);
        let found = obstacles(program.pid());
        assert!(found.len() == 1 && found[0].contains(what), "{what}: {found:?}");
        assert!(!is_dumped(&lab, program.pid()), "{what} is dumped after all");
    }
    for does in dumped {
        let program = python(&lab, does);
        assert_eq!(obstacles(program.pid()), [""; 0], "{does}");
        assert!(is_dumped(&lab, program.pid()), "{does} is not dumped");
    }
}

#[test]
fn a_program_is_looked_at_with_its_handler_its_failure_and_its_obstacles() {
    let lab = Lab::new();
    let program = told(&lab, lab.program("asker").arg("1").arg("io-uring").start());
    let pid = program.pid().to_string();
    let report = json(&lab.run(["doctor", &pid, "--json"]), 1);
    assert_eq!(found(&report, "handler").0, "ok", "{report}");
    assert_eq!(found(&report, "space").0, "ok", "{report}");
    let (verdict, message, remedy) = found(&report, "obstacles");
    assert!(verdict == "failed" && message.contains("an io_uring open as descriptor "), "{report}");
    assert!(remedy.contains("epoll"), "{report}");
    assert_eq!(found(&report, "last checkpoint").1, "none tried yet");

    assert_eq!(lab.run(["trigger", "asker", "--wait"]).status.code(), Some(1));
    let said = printed(&lab.run(["doctor", "asker"]), 1);
    assert!(said.contains("failed    last checkpoint: failed, 1 in a row: "), "{said}");

    let other = python(&lab, "pass");
    let report = json(&lab.run(["doctor", &other.pid().to_string(), "--json"]), 1);
    let (verdict, message, _) = found(&report, "selfdump");
    assert!(verdict == "failed" && message.contains("runs without selfdump"), "{report}");
    let gone = other.pid().to_string();
    other.crash();
    assert_fails(&lab.run(["doctor", &gone]), 1, &[&format!("there is no process {gone}")]);
}
