//! What follows from a program's own state is found out by itself, and told to CRIU at both ends.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use crate::harness::{Lab, Restored, USR2, copy_program, eventually, manifest, program};

/// Whether somebody else holds the lock on a file.
fn is_locked(path: &std::path::Path) -> bool {
    let file = File::open(path).unwrap();
    // SAFETY: flock(2) on a descriptor that is open; it is given back when the file is closed.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) != 0 }
}

#[test]
fn a_lock_a_large_unnamed_file_and_a_datagram_socket_survive() {
    let lab = Lab::new();
    let (locked, unnamed, socket) = (lab.path("locked"), lab.path("unnamed"), lab.path("socket"));
    let outside = UnixDatagram::bind(&socket).unwrap();
    outside.set_nonblocking(true).unwrap();
    let received = || {
        let (mut last, mut buffer) = (None, [0; 64]);
        while let Ok(count) = outside.recv(&mut buffer) {
            last = Some(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        last
    };
    let program = lab.program("holder").arg(&locked).arg(&unnamed).arg(&socket).start();
    // Started from here, its session leader is another process.
    program.wait_for("still 3");
    program.signal(USR2);
    let needs = manifest(&lab.wait_for_checkpoint(1))["criu"]["needs"].clone();
    for need in ["shell_job", "file_locks", "ext_unix_sk"] {
        assert_eq!(needs[need], true, "{need}: {needs}");
    }
    assert_eq!(needs["tcp_established"], false, "{needs}");
    assert!(needs["ghost_limit_bytes"].as_u64().unwrap() >= 8 << 20, "{needs}");
    let _ = received();
    eventually("it goes on", received);

    let pid = program.pid();
    program.crash();
    assert!(!is_locked(&locked), "the crash gives the lock back");
    let _ = received();
    let _restored = Restored { restorer: lab.restore("holder"), pid };
    let word = eventually("it sends again", received);
    assert!(word.starts_with("still "), "{word}");
    assert!(is_locked(&locked), "the restored program holds its lock again");
    assert!(!unnamed.exists(), "the unnamed file has no name after the restore either");
}

#[test]
fn a_program_whose_executable_was_replaced_is_checkpointed_and_comes_back() {
    let lab = Lab::new();
    let executable = lab.path("chain");
    copy_program(program("chain"), &executable);
    let running = lab.launch(Command::new(&executable), "chain").start();
    running.wait_for("ready");
    std::fs::remove_file(&executable).unwrap();
    std::fs::write(&executable, "a later build").unwrap();
    running.signal(USR2);
    let needs = manifest(&lab.wait_for_checkpoint(1))["criu"]["needs"].clone();
    assert!(needs["ghost_limit_bytes"].as_u64().unwrap() > 1 << 20, "{needs}");
    let pid = running.pid();
    running.crash();
    let restored = Restored { restorer: lab.restore("chain"), pid };
    restored.restorer.wait_for("selfdump: restored chain/");
    assert_eq!(std::fs::read(&executable).unwrap(), b"a later build");
}

#[test]
fn a_program_without_standard_streams_gets_none_of_our_descriptors_for_them() {
    let lab = Lab::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" 1 <&- >&- 2>&-"]).arg(program("chain"));
    let running = lab.launch(shell, "closed").start();
    let folder = std::path::PathBuf::from(format!("/proc/{}", running.pid()));
    eventually("selfdump's thread", || {
        (std::fs::read_dir(folder.join("task")).ok()?.count() == 2).then_some(())
    });
    running.signal(USR2);
    lab.wait_for_checkpoint(1);
    let ours = |fd: i32| std::fs::read_link(folder.join(format!("fd/{fd}"))).ok();
    // The standard library opens /dev/null in the place of missing streams; a pipe or socket would be ours.
    for fd in 0..=2 {
        let is_ours = ours(fd).is_some_and(|target| !target.starts_with("/dev"));
        assert!(!is_ours, "descriptor {fd} is {:?}", ours(fd));
    }
}
