//! What the package offers, and what a failure says: its class, kind and remedy.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{lines, python, start};
use crate::harness::Lab;

/// What a line of Python prints.
fn printed(code: &str) -> String {
    let done = python().args(["-c", code]).output().expect("python");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).expect("text")
}

#[test]
fn importing_the_package_installs_nothing() {
    let code = "import os, signal, selfdump; print(len(os.listdir('/proc/self/task')), signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL)";
    assert_eq!(printed(code).trim(), "1 True");
}

#[test]
fn install_takes_every_setting_by_its_name() {
    let code = "import inspect, selfdump; print(*inspect.signature(selfdump.install).parameters)";
    let taken = printed(code);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = fs::read_to_string(page).expect("the page about settings");
    let variables = page.lines().filter_map(|line| line.split_once("| `SELFDUMP_")?.1.split_once('`'));
    let mut settings: BTreeSet<String> = variables.map(|(name, _)| name.to_ascii_lowercase()).collect();
    // It is Python's own.
    settings.insert("on_exception".to_owned());
    assert_eq!(taken.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>(), settings);
}

/// What `errors` says where this is set.
fn errors(lab: &Lab, variables: &[(&str, &str)]) -> Vec<String> {
    let launch = start(lab, "situations", &["errors"]);
    let launch = variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
    let mut program = launch.start();
    assert!(program.wait().success(), "{}", program.output());
    lines(&program.output(), "error")
}

#[test]
fn errors_have_a_kind_and_a_remedy() {
    let mut lab = Lab::new();
    lab.criu = "/no/such/criu".into();
    let said = errors(&lab, &[]);
    assert_eq!(said[0], "Error not-installed call selfdump.install() first");
    assert!(said[1].starts_with("Error config SELFDUMP_EVERY takes a duration"), "{}", said[1]);
    assert!(said[2].starts_with("Error already-installed "), "{}", said[2]);
    assert!(said[3].starts_with("NoServiceError no-criu "), "{}", said[3]);
}

#[test]
fn no_service_no_permission_and_no_space_are_classes_of_their_own() {
    let lab = Lab::new();
    let said = errors(&lab, &[("SELFDUMP_SERVICE", "/no/such/socket")]);
    assert!(said[3].starts_with("NoServiceError no-service "), "{}", said[3]);

    let lab = Lab::new();
    let disk = crate::failures::small_disk::Disk::of(&lab, 1);
    let said = errors(&lab, &[]);
    assert!(said[3].starts_with("NoSpaceError no-space free space"), "{}", said[3]);
    drop(disk);

    let lab = Lab::new();
    let disk = crate::failures::small_disk::Disk::of(&lab, 64);
    disk.becomes_read_only();
    let said = errors(&lab, &[]);
    assert!(said[3].starts_with("PermissionDeniedError permission "), "{}", said[3]);
}
