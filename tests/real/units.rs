//! The ready-made files in `contrib`: the service under a real systemd, the entry point in a container of a real
//! runtime, and the job in the queue of a real Slurm.

mod container;
mod machine;
mod slurm;
mod systemd;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Lab, eventually, program, selfdump};

fn ready_made(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(path)
}

/// PATH, with the command that is tested before any other.
fn path() -> OsString {
    let mut path =
        PathBuf::from(selfdump().get_program()).parent().expect("its folder").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// Every line of the program's output is there once, in order; returns how many there are.
fn unbroken(file: &Path) -> usize {
    let text = fs::read_to_string(file).expect("its output");
    for (number, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {number}"));
    }
    text.lines().count()
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

/// Tells `errand` how to end: whole or not at all.
fn order(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("an order");
    fs::rename(&new, file).expect("an order");
}

/// What systemd has to say of this service, in a root of its own where the command is installed.
fn verified(service: &str) -> (bool, String) {
    verified_units("selfdump@train.service", &[("selfdump@train.service", service)])
}

/// The same of one of several units.
fn verified_units(unit: &str, all: &[(&str, &str)]) -> (bool, String) {
    let lab = Lab::new();
    let (units, bin) = (lab.path("root/etc/systemd/system"), lab.path("root/usr/bin"));
    fs::create_dir_all(&units).and_then(|()| fs::create_dir_all(&bin)).expect("a root");
    for (name, text) in all {
        fs::write(units.join(name), text).expect("a unit");
    }
    // Every service depends on them, and systemd's own would draw in all of the machine.
    for target in ["sysinit", "basic", "shutdown", "multi-user", "sockets"] {
        let target = units.join(format!("{target}.target"));
        fs::write(target, "[Unit]\nDefaultDependencies=no\n").expect("a target");
    }
    for command in ["selfdump", "install"] {
        fs::write(bin.join(command), "").expect("the command");
        fs::set_permissions(bin.join(command), PermissionsExt::from_mode(0o755)).expect("a mode");
    }
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no", unit, "--root"]).arg(lab.path("root"));
    let output = analyze.output().expect("systemd-analyze: run `cargo xtask setup`, which gets it");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn systemd_understands_every_line_of_the_service() {
    let service = fs::read_to_string(ready_made("systemd/selfdump@.service")).expect("the service");
    assert_eq!(verified(&service), (true, String::new()));

    // What it doesn't know it only warns of.
    let (_, said) = verified(&service.replace("KillMode=", "KilMode="));
    assert!(said.contains("Unknown key"), "{said}");
}

#[test]
fn systemd_understands_every_line_of_the_service_for_many_users() {
    let text = |name: &str| fs::read_to_string(ready_made("systemd").join(name)).expect("a unit");
    let (service, socket) = (text("selfdump.service"), text("selfdump.socket"));
    let verified = |service: &str| {
        verified_units("selfdump.service", &[("selfdump.service", service), ("selfdump.socket", &socket)])
    };
    assert_eq!(verified(&service), (true, String::new()));
    let (_, said) = verified(&service.replace("KillMode=", "KilMode="));
    assert!(said.contains("Unknown key"), "{said}");
}

#[test]
fn the_scripts_are_such_for_their_shells() {
    for (shell, script) in [("bash", "slurm/selfdump.sbatch"), ("sh", "container/entrypoint.sh")] {
        let output = Command::new(shell).arg("-n").arg(ready_made(script)).output().expect("a shell");
        assert!(output.status.success(), "{output:?}");
    }
}
