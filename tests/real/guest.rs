//! selfdump as a guest: when it goes nothing of it is left.

use crate::harness::Lab;

#[test]
fn after_uninstall_descriptors_threads_and_signals_are_those_from_before_install() {
    let lab = Lab::new();
    let mut guest = lab.program("guest").start();
    let ended = guest.wait();
    let said = guest.output();
    assert!(ended.success(), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["nothing is left", "the handler is back"], "{said}");
    assert_eq!(lab.checkpoints().len(), 1);
    // A program that it starts gets its streams and nothing of ours; 3 is the folder that is listed. What the test
    // itself has inherited is none of ours either.
    let inherited = std::process::Command::new("ls").arg("/proc/self/fd").output().expect("ls");
    let inherited = String::from_utf8(inherited.stdout).expect("numbers");
    let inherited: Vec<&str> = inherited.split_whitespace().collect();
    assert_eq!(lines[2], format!("exec has {}", inherited.join(" ")));
}
