//! Programs that the loader puts no library into: said before they start, with the remedy. They run all the same.

use std::os::unix::fs::{PermissionsExt, chown};

use super::any::row;
use super::*;
use crate::harness::{static_program, succeeds, write_script};

/// What is said of a program that runs to its end.
fn said_of(lab: &Lab, command: &str) -> String {
    let mut runner = runner(lab, &[]);
    runner.arg(command).current_dir(lab.path(""));
    let done = to_the_end(lab, runner);
    assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(7), "ran\n"), "{done:?}");
    let events = read(&lab.path("events"));
    let begun = events.iter().rev().take(3).any(|event| event["event"] == "not-preloaded");
    assert_eq!(begun, !done.stderr.is_empty(), "{events:?}");
    text(&done.stderr)
}

fn compile(lab: &Lab, name: &str, option: &str) {
    fs::write(lab.path("ran.c"), "#include <stdio.h>\nint main(void) { puts(\"ran\"); return 7; }\n")
        .expect("a file");
    succeeds(Command::new("gcc").args([option, "-o", name, "ran.c"]).current_dir(lab.path("")));
}

#[test]
fn a_static_program_is_named_with_the_remedy_be_it_behind_a_script() {
    let lab = Lab::new();
    for option in ["-static", "-static-pie"] {
        compile(&lab, "static", option);
        let said = said_of(&lab, "./static");
        assert!(
            said.contains("no checkpoints will be made of static: ")
                && said.contains("./static is statically linked"),
            "{said}"
        );
        assert!(said.contains("  help: build it with shared libraries, or link selfdump"), "{said}");
    }
    write_script(&lab.path("script"), format!("#!{}\n", lab.path("static").display()));
    assert!(said_of(&lab, "./script").contains("/static is statically linked"));
    compile(&lab, "shared", "-O");
    assert_eq!(said_of(&lab, "./shared"), "");
    row(
        "a static program",
        "| a static program | runs without checkpoints, which is said | to link selfdump in it |",
    );
}

/// Its runtime has to be the first library of all, or ends the program.
#[test]
fn a_program_with_the_address_sanitizer_runs_without_the_library() {
    let lab = Lab::new();
    compile(&lab, "sanitized", "-fsanitize=address");
    let run = |options: &[&str]| {
        let mut command = runner(&lab, options);
        command.arg("./sanitized").current_dir(lab.path(""));
        to_the_end(&lab, command)
    };
    let first = run(&[]);
    assert!(text(&first.stderr).contains("ASan runtime does not come first"), "{first:?}");
    let without = run(&["--preload", "off"]);
    assert_eq!((without.status.code(), text(&without.stdout).as_str()), (Some(7), "ran\n"), "{without:?}");
    let name = "a program with gcc's address sanitizer";
    row(
        name,
        &format!("| {name} | ends at once: its runtime has to be loaded first | `SELFDUMP_PRELOAD=off` |"),
    );
}

#[test]
fn a_program_with_more_rights_than_its_user_is_named() {
    let lab = Lab::new();
    compile(&lab, "setuid", "-O");
    // To somebody whom we are not.
    chown(lab.path("setuid"), Some(65534), None).expect("another owner");
    fs::set_permissions(lab.path("setuid"), PermissionsExt::from_mode(0o4755)).expect("a mode");
    let said = said_of(&lab, "./setuid");
    assert!(
        said.contains("more rights than its user") && said.contains("  help: run it as the user"),
        "{said}"
    );
}

#[test]
fn a_static_program_that_links_selfdump_needs_no_library() {
    let lab = Lab::new();
    let mut command = runner(&lab, &[]);
    command.arg(static_program("static"));
    let run = Runner::start(&lab, command);
    run.runner.wait_for("step 3");
    send(run.pid(), USR2);
    run.wait_for("saved", 1);
    assert!(run.all("not-preloaded").is_empty());
}

#[test]
fn a_library_that_is_not_there_is_an_error() {
    let lab = Lab::new();
    let mut command = runner(&lab, &["--preload", "/no/such/library"]);
    command.arg("true");
    let done = to_the_end(&lab, command);
    assert_eq!(done.status.code(), Some(125));
    assert!(text(&done.stderr).contains("can't preload /no/such/library"), "{done:?}");
}
