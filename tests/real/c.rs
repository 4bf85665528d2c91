//! libselfdump.so as C programs have it: against the header, under valgrind, and with what the two say of each other.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::afterlife::bring_back_with;
use crate::harness::{Lab, eventually, library, succeeds};

/// What a careful project compiles with.
const STRICT: [&str; 9] =
    ["-std=c11", "-D_GNU_SOURCE", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fanalyzer", "-O1", "-g"];

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn header() -> String {
    fs::read_to_string(source("preload/include/selfdump.h")).expect("the header")
}

/// Compiles a C program, which finds the library in the lab.
pub fn compiled(lab: &Lab, path: &str) -> PathBuf {
    let source = source(path);
    let program = lab.path(source.file_stem().and_then(|name| name.to_str()).expect("a name"));
    for name in ["libselfdump.so", "libselfdump.so.0"] {
        // Another program of this lab may have had it made.
        let _ = symlink(library(), lab.path(name));
    }
    let mut compile = Command::new("gcc");
    compile.args(STRICT).arg("-I").arg(header_folder()).arg("-o").arg(&program).arg(source);
    let folder = lab.path("");
    compile.arg("-L").arg(&folder).arg("-lselfdump").arg(format!("-Wl,-rpath,{}", folder.display()));
    succeeds(&mut compile);
    program
}

fn header_folder() -> PathBuf {
    source("preload/include")
}

#[test]
fn a_c_program_checkpoints_itself_is_killed_and_comes_back() {
    let lab = Lab::new();
    let program = lab.launch(Command::new(compiled(&lab, "preload/examples/counter.c")), "counter").start();
    let id = program.wait_for("saved ").replace("saved ", "");
    program.wait_for("step 60");
    program.crash();
    let before = fs::read_to_string(lab.path("counter.out")).expect("its output");
    let back = bring_back_with(&lab, "counter", &[]);
    assert_eq!((back.id.as_str(), back.generation), (id.as_str(), 1));
    let after = eventually("its end", || {
        let output = fs::read_to_string(lab.path("counter.out")).ok()?;
        Some(output.strip_prefix(&before)?.to_owned()).filter(|after| after.contains("sum "))
    });
    let sum = (1..=100_u64).fold(0, |sum, step| (sum * 31 + step) % 1_000_003);
    let lines: Vec<&str> = after.lines().collect();
    assert_eq!(lines[0], "step 50", "what stood in its buffer");
    assert_eq!(lines[1], format!("counter: back from {id}"), "the callback comes before the return");
    assert_eq!(lines[2], format!("restored {id}, generation 1"));
    assert_eq!(lines.last(), Some(&format!("sum {sum}").as_str()));
}

#[test]
fn every_function_is_as_the_header_says_before_and_after_a_restore() {
    let lab = Lab::new();
    let program = compiled(&lab, "tests/programs/boundary.c");
    let mut command = Command::new(&program);
    command.arg("checkpoint");
    let mut first = lab.launch(command, "boundary").start();
    assert!(first.wait().success(), "{}", first.output());
    assert_eq!(first.output(), "saved\ndone\n");
    let _back = bring_back_with(&lab, "boundary", &["--set", "key=value"]);
    eventually("the end of the restored one", || {
        let output = fs::read_to_string(lab.path("boundary.out")).ok()?;
        (output == "saved\ndone\nrestored\ndone\n").then_some(())
    });
}

#[test]
fn valgrind_finds_no_leak_and_no_invalid_access_be_there_a_checkpoint_or_none() {
    let lab = Lab::new();
    let program = compiled(&lab, "tests/programs/boundary.c");
    for (argument, said) in [("none", "done\n"), ("checkpoint", "saved\ndone\n")] {
        let mut valgrind = Command::new("valgrind");
        valgrind.args([
            "--quiet",
            "--child-silent-after-fork=yes",
            "--error-exitcode=9",
            "--leak-check=full",
        ]);
        valgrind.args(["--show-leak-kinds=definite,indirect,possible"]);
        valgrind.args(["--errors-for-leak-kinds=definite,indirect,possible"]);
        valgrind.arg(format!("--suppressions={}", source("tests/real/c/valgrind.supp").display()));
        valgrind.arg(&program).arg(argument).envs(lab.environment()).stdin(Stdio::null());
        assert_eq!(succeeds(&mut valgrind), said);
    }
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let listed = succeeds(Command::new("nm").args(["-D", "--defined-only", "-P"]).arg(library()));
    let exported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let header = header();
    let code = without_comments(&header);
    let declared: BTreeSet<&str> = code
        .match_indices("selfdump_")
        .map(|(at, _)| {
            code[at..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
        })
        .filter(|name| code.contains(&format!("{name}(")))
        .collect();
    assert!(declared.len() > 10, "{declared:?}");
    assert_eq!(exported, declared);
}

#[test]
fn the_numbers_of_the_header_are_those_of_the_library() {
    let header = header();
    let numbers = |line: &str| {
        let rest = line.strip_prefix("#define SELFDUMP_E_")?;
        let mut words = rest.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse::<u32>().ok()?))
    };
    let in_header: BTreeSet<(String, u32)> =
        header.lines().filter_map(numbers).filter(|(name, _)| name != "PANIC").collect();
    let errors = fs::read_to_string(source("src/error.rs")).expect("the source");
    let kinds = errors.split("pub enum ErrorKind {").nth(1).and_then(|rest| rest.split("\n}").next());
    let in_library: BTreeSet<(String, u32)> = kinds
        .expect("the kinds")
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
        .map(|(name, number)| (shouted(name), number.parse().expect("a number")))
        .collect();
    assert!(in_library.len() > 20, "{in_library:?}");
    assert_eq!(in_header, in_library);
}

/// `NoCriu` as `NO_CRIU`.
fn shouted(name: &str) -> String {
    let mut shouted = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !shouted.is_empty() {
            shouted.push('_');
        }
        shouted.push(character.to_ascii_uppercase());
    }
    shouted
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |code, part| code + part.split_once("*/").map_or("", |(_, after)| after))
}

#[test]
fn the_header_is_one_for_cpp_as_well() {
    let mut compile = Command::new("gcc");
    compile.args(["-x", "c++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-"]);
    compile.arg("-I").arg(header_folder()).stdin(Stdio::piped());
    let mut child = compile.spawn().expect("gcc");
    let source = b"#include <selfdump.h>\nint main() { return selfdump_install() < 0; }\n";
    std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), source).expect("the program");
    assert!(child.wait().expect("gcc").success());
}
