//! The probe against a real CRIU, and against programs that fail in the ways that CRIU does.

use std::path::PathBuf;

use super::*;

/// The CRIU to test with: the variable that `cargo xtask test` sets, or what `cargo xtask setup` made.
fn real_criu() -> PathBuf {
    let made = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("criu/bin/criu")
    };
    let criu = std::env::var_os("SELFDUMP_CRIU").map_or_else(made, PathBuf::from);
    assert!(criu.exists(), "no CRIU at {}: run `cargo xtask setup`, or set SELFDUMP_CRIU", criu.display());
    criu
}

/// A program of this text in a folder of its own.
///
/// A shell writes it: a test that starts a process at the same time would otherwise hand the open file to its child
/// for a moment, and the kernel runs no file that is open for writing.
fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("criu");
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 755 "$2""#;
    let status = Command::new("sh").args(["-c", write, "sh", text]).arg(&path).status().unwrap();
    assert!(status.success());
    (folder, path)
}

#[test]
fn a_real_criu_passes() {
    let version = probe(&real_criu()).unwrap();
    assert!(version >= Version { major: 4, minor: 1, patch: 1 }, "{version}");
}

#[test]
fn a_program_that_only_fails_is_named_so() {
    assert_eq!(probe(Path::new("/bin/false")).unwrap_err().stage, Stage::Version);
    let (_folder, silent) = script("exit 1");
    let failure = probe(&silent).unwrap_err();
    assert_eq!((failure.stage, failure.reason.as_str()), (Stage::Version, "no output, exit status: 1"));
}

#[test]
fn a_program_that_is_not_there_cannot_be_started() {
    let failure = probe(Path::new("/nonexistent/criu")).unwrap_err();
    assert!(failure.reason.contains("can't be started"), "{failure}");
}

#[test]
fn a_program_that_is_no_criu_is_recognised() {
    let (_folder, other) = script("echo 'other 1.0'");
    let failure = probe(&other).unwrap_err();
    assert_eq!(failure.stage, Stage::Version);
    assert_eq!(failure.reason, "it answers `other 1.0`, which is no version of CRIU");
}

#[test]
fn a_check_that_hangs_ends_at_the_deadline() {
    let (_folder, criu) =
        script("case $1 in --version) echo 'Version: 4.2.1';; *) echo busy; sleep 600;; esac");
    let started = Instant::now();
    let failure = probe_within(&criu, Duration::from_millis(500)).unwrap_err();
    assert_eq!(failure.stage, Stage::Check);
    assert_eq!(failure.reason, "no answer within 0.5 s");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_check_that_fails_gives_its_cause_not_the_harmless_line() {
    let (_folder, criu) = script(
        "case $1 in --version) echo 'Version: 3.17.1';; *)
         echo \"Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\"
         echo 'Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds'
         echo 'Error (criu/crtools.c:260): Could not initialize kernel features detection.'
         exit 1;; esac",
    );
    let failure = probe(&criu).unwrap_err();
    assert_eq!(
        (failure.stage, failure.reason.as_str()),
        (Stage::Check, "vdso: Unexpected rt vDSO area bounds")
    );
    assert!(failure.is_too_old() && !failure.is_permission());
}

#[test]
fn a_dump_that_fails_gives_the_line_of_its_log() {
    let (_folder, criu) = script(
        "case $1 in --version) echo 'Version: 4.1.1';; check) echo 'Looks good.';; *)
         for folder; do :; done
         cat > $folder/dump.log <<'LOG'
(00.000001) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.000002) Warn  (criu/kerndat.c:1103): Can't keep kdat cache on non-tempfs
(00.000003) Error (criu/image.c:1): Can't write: No space left on device
(00.000004) Error (criu/cr-dump.c:2): Dumping FAILED.
LOG
         exit 1;; esac",
    );
    let failure = probe(&criu).unwrap_err();
    assert_eq!(failure.stage, Stage::Dump);
    assert_eq!(failure.reason, "Can't write: No space left on device");
}

#[test]
fn missing_capabilities_are_told_from_other_failures() {
    let text = "CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE capability: \nsetcap cap_checkpoint_restore+eip /x/criu\n";
    let failure = Failure { stage: Stage::Check, reason: telling_line(text).unwrap() };
    assert!(failure.is_permission());
    assert!(failure.reason.starts_with("CRIU needs to have"), "{failure}");
}

#[test]
fn versions_are_read_and_compared() {
    let of = |text: &str| Version::parse(text).map(|version| version.to_string());
    assert_eq!(of("Version: 4.2.1\nGitID: v4.2.1\n").as_deref(), Some("4.2.1"));
    assert_eq!(of("Version: 4.3\n").as_deref(), Some("4.3"));
    assert_eq!(of("Version: 4.2-rc1\n").as_deref(), Some("4.2"));
    assert_eq!(of("4.2.1\n"), None);
    assert!(Version::parse("Version: 4.10") > Version::parse("Version: 4.9.3"));
}
