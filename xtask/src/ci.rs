//! `cargo xtask ci`: everything that has to hold before a change goes in.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{bench, cargo, chaos, codegen, crates, demo, fuzz, guest, miri, test};

/// How many crates the library may pull in with its default features.
const MOST_CRATES: usize = 30;

struct Step {
    name: &'static str,
    action: Action,
}

enum Action {
    /// A call of cargo, with a variable set or none.
    Cargo(&'static [&'static str], Option<(&'static str, &'static str)>),
    /// Something that xtask does itself.
    Own(fn() -> Result<()>),
}

use Action::{Cargo, Own};

/// In this order: what is quick to fail first, and the tests last, so that the output ends with their summary.
const STEPS: [Step; 16] = [
    Step { name: "rustfmt and clippy are here", action: Own(components) },
    Step { name: "formatting", action: Cargo(&["fmt", "--all", "--check"], None) },
    Step {
        name: "lints",
        action: Cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], None),
    },
    Step { name: "formatting of the bench house", action: Own(bench::format) },
    Step { name: "lints of the bench house", action: Own(bench::lint) },
    Step {
        name: "documentation",
        action: Cargo(&["doc", "--workspace", "--no-deps"], Some(("RUSTDOCFLAGS", "-D warnings"))),
    },
    Step { name: "generated code is what proto/ says", action: Own(|| codegen::run(true)) },
    Step { name: "few dependencies", action: Own(few_dependencies) },
    Step { name: "licences and origins of dependencies", action: Own(crates::check) },
    Step { name: "the pure modules under Miri", action: Own(miri::run) },
    Step { name: "what nobody would write", action: Own(fuzz::briefly) },
    Step { name: "the bench house, briefly", action: Own(bench::briefly) },
    Step { name: "the demo", action: Own(demo::run) },
    Step { name: "chaos, briefly", action: Own(chaos::briefly) },
    Step { name: "what takes a guest's kernel", action: Own(guest::run) },
    Step { name: "the tests", action: Own(|| test::run(&[])) },
];

pub fn run() -> Result<()> {
    let started = Instant::now();
    for (index, step) in STEPS.iter().enumerate() {
        println!("\n== {}/{} {} ({} s)", index + 1, STEPS.len(), step.name, started.elapsed().as_secs());
        take(step).with_context(|| format!("ci stops at step {}: {}", index + 1, step.name))?;
    }
    Ok(())
}

fn take(step: &Step) -> Result<()> {
    match step.action {
        Cargo(arguments, variable) => cargo::run(cargo::cargo(arguments)?.envs(variable)),
        Own(action) => action(),
    }
}

fn components() -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let version = cargo::read(&mut cargo::cargo(&[command, "--version"])?);
        let version = version.with_context(|| {
            format!(
                "{component} is missing: run `rustup component add {component}`, or install it as a package"
            )
        })?;
        println!("{}", version.trim());
    }
    Ok(())
}

/// The library goes into other people's programs, so what it brings along is counted.
fn few_dependencies() -> Result<()> {
    let tree =
        cargo::read(&mut cargo::cargo(&["tree", "-e", "normal", "-p", "selfdump", "--prefix", "none"])?)?;
    let crates = crates_of(&tree);
    println!("{} crates, {MOST_CRATES} at most", crates.len());
    let names = || crates.iter().copied().collect::<Vec<_>>().join(", ");
    ensure!(crates.len() <= MOST_CRATES, "the library pulls in too many crates: {}", names());
    Ok(())
}

/// The crates of a tree, each with its version once: cargo lists one again wherever it is needed.
fn crates_of(tree: &str) -> BTreeSet<&str> {
    tree.lines().map(|line| line.trim_end_matches(" (*)").trim()).filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_is_listed_twice_counts_once() {
        let tree = "selfdump v0.1.0 (/x)\nlibc v0.2.1\nnix v0.31.0\nlibc v0.2.1\nnix v0.31.0 (*)\n\nsyn v1.0.0\nsyn v2.0.0\n";
        assert_eq!(crates_of(tree).len(), 5);
    }

    #[test]
    fn the_tests_come_last() {
        assert_eq!(STEPS.last().unwrap().name, "the tests");
    }
}
