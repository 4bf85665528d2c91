//! What a failure says: its class, kind and remedy.

use super::{lines, start};
use crate::harness::Lab;

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
    let disk = crate::failures::disk::Disk::of(&lab, 1);
    let said = errors(&lab, &[]);
    assert!(said[3].starts_with("NoSpaceError no-space free space"), "{}", said[3]);
    drop(disk);

    let lab = Lab::new();
    let disk = crate::failures::disk::Disk::of(&lab, 64);
    disk.becomes_read_only();
    let said = errors(&lab, &[]);
    assert!(said[3].starts_with("PermissionDeniedError permission "), "{}", said[3]);
}
