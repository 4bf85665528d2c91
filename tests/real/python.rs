//! The Python package, from the virtualenv that `cargo xtask wheel` has installed its wheel into: nothing is imported
//! from the source. The scripts are in `tests/programs/python`.

mod ends;
mod jobs;
mod run;
mod says;
mod situations;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Lab, Launch, target};

/// The interpreter of the virtualenv.
fn python() -> Command {
    let python = target().join("python/venv/bin/python");
    assert!(python.is_file(), "{} isn't there: run `cargo xtask wheel`", python.display());
    let mut command = Command::new(python);
    // Bytecode beside the scripts would be in the source.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/python").join(format!("{name}.py"))
}

/// A script, to be started in a lab; its output is appended to `NAME.out`.
pub fn start(lab: &Lab, name: &str, arguments: &[&str]) -> Launch {
    let mut command = python();
    command.arg(script(name)).args(arguments);
    lab.launch(command, name)
}

/// The line of a script's output that begins with this word, without it.
fn line(output: &str, word: &str) -> Option<String> {
    output.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).map(str::to_owned)
}

/// All lines that begin with this word, without it.
fn lines(output: &str, word: &str) -> Vec<String> {
    let of_the_word = |line: &str| Some(line.strip_prefix(word)?.strip_prefix(' ')?.to_owned());
    output.lines().filter_map(of_the_word).collect()
}
