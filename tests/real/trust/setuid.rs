//! A program with more rights than who starts it does nothing of what that one's environment says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{STRANGER, set_mode};
use crate::harness::{Lab, copy_program, program, read_json, write_script};

/// What was written to the standard store, which goes when the test is over.
struct InTheStandardStore(PathBuf);

impl Drop for InTheStandardStore {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Only if it is empty now.
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

#[test]
fn a_setuid_program_ignores_what_its_user_sets() {
    let lab = Lab::new();
    let (users, roots) = (lab.path("users"), lab.path("roots"));
    for folder in [&users, &roots] {
        fs::create_dir(folder).expect("a folder");
    }
    set_mode(&lab.path(""), 0o755);
    set_mode(&roots, 0o755);
    // All of this is the user's, and would be run or written to if it were believed.
    set_mode(&users, 0o777);
    let trap = users.join("criu");
    write_script(&trap, format!("#!/bin/sh\ntouch {}/trapped\n", users.display()));
    // The program's own CRIU says what it was given. Shells give up rights that their user hasn't.
    let (criu, said) = (roots.join("criu"), roots.join("said"));
    write_script(&criu, format!("#!/bin/sh\nenv > {}\nexit 1\n", said.display()));
    fs::write(&said, "").expect("a file");
    set_mode(&said, 0o666);
    let elevated = roots.join("elevated");
    copy_program(program("elevated"), &elevated);
    set_mode(&elevated, 0o4755);

    let name = format!("elevated-{}", std::process::id());
    let store = InTheStandardStore(Path::new("/var/lib/selfdump").join(&name));
    let mut command = Command::new("/usr/bin/setpriv");
    command.args([&format!("--reuid={STRANGER}"), &format!("--regid={STRANGER}"), "--clear-groups"]);
    command.arg(&elevated).arg(&criu).arg(&name).env_clear();
    for (variable, value) in [
        ("SELFDUMP", Path::new("off")),
        ("SELFDUMP_HELPER", Path::new("copier")),
        ("SELFDUMP_DIR", &users.join("store")),
        ("SELFDUMP_SERVICE", &users.join("criu.socket")),
        ("SELFDUMP_METRICS_TEXTFILE", &users.join("metrics.prom")),
        ("SELFDUMP_COPY_FILES", Path::new("/etc/shadow")),
        ("XDG_STATE_HOME", &users),
        ("XDG_DATA_HOME", &users),
        ("XDG_RUNTIME_DIR", &users),
        ("HOME", &users),
        ("TMPDIR", &users),
        ("CRIU_CONFIG_FILE", &users.join("criu.conf")),
        ("LD_PRELOAD", &users.join("trap.so")),
        ("PATH", &users),
    ] {
        command.env(variable, value);
    }
    let output = command.output().expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.starts_with("installed\n"), "{output:?}");
    assert!(out.contains(&criu.display().to_string()), "it asked its own CRIU, and no service: {out}");

    let mut left: Vec<_> =
        fs::read_dir(&users).expect("the folder").flatten().map(|entry| entry.path()).collect();
    left.retain(|path| *path != trap);
    assert_eq!(left, Vec::<PathBuf>::new(), "nothing was run or written where the user says");
    let given = fs::read_to_string(&said).expect("what CRIU was given");
    let variables: Vec<&str> =
        given.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name)).collect();
    assert!(given.contains("PATH=/usr/sbin:/usr/local/sbin:"), "{given}");
    assert!(variables.iter().all(|name| ["PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)), "{given}");
    let status =
        fs::read_dir(&store.0).expect("root's own store").flatten().next().expect("an instance").path();
    assert_eq!(fs::metadata(&status).expect("a folder").permissions().mode() & 0o7777, 0o700);
    let status = read_json(&status.join("status.json")).expect("what came of it");
    assert_eq!(status["last"]["saved"], false, "{status:#}");
}
