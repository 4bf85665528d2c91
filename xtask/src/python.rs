//! `cargo xtask wheel`: the Python package as its users get it, with its types checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// What builds and checks the package, and what the tests' programs import.
const TOOLS: [&str; 2] = ["maturin>=1.7,<2", "mypy>=1.11,<3"];
const OF_THE_TESTS: &str = "numpy>=1.24,<3";

/// Builds the wheel, installs it into a fresh virtualenv (target/python/venv) and checks all types. Returns the folder
/// of the wheel. The tests run it from the virtualenv.
pub fn wheel() -> Result<PathBuf> {
    let folder = cargo::target()?.join("python");
    let tools = tools(&folder.join("tools"))?;
    let wheel = build(&tools, &folder.join("wheels"))?;
    let venv = fresh(&folder.join("venv"))?;
    pip(&venv, &[wheel.as_os_str().to_str().context("the wheel's path is no UTF-8")?, OF_THE_TESTS])?;
    check(&tools, &venv)?;
    // One wheel is for every Python: the tests run it with others from here.
    let any = folder.join("any");
    if any.exists() {
        fs::remove_dir_all(&any).with_context(|| format!("can't remove {}", any.display()))?;
    }
    let mut install = Command::new(tools.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&any).arg(&wheel);
    cargo::run(&mut install)?;
    Ok(wheel)
}

/// A virtualenv with what builds and checks the package; made once.
fn tools(folder: &Path) -> Result<PathBuf> {
    if !folder.join("bin/mypy").is_file() {
        fresh(folder)?;
        pip(folder, &TOOLS)?;
    }
    Ok(folder.to_owned())
}

fn fresh(folder: &Path) -> Result<PathBuf> {
    let mut python = Command::new("python3");
    cargo::run(python.args(["-m", "venv", "--clear"]).arg(folder))
        .context("can't make a virtualenv: is the package python3-venv there?")?;
    Ok(folder.to_owned())
}

fn pip(venv: &Path, packages: &[&str]) -> Result<()> {
    let mut pip = Command::new(venv.join("bin/python"));
    cargo::run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))
}

/// Builds what the tests take: it is stripped, since CRIU looks at all of it, and not optimized.
fn build(tools: &Path, wheels: &Path) -> Result<PathBuf> {
    if wheels.exists() {
        fs::remove_dir_all(wheels).with_context(|| format!("can't remove {}", wheels.display()))?;
    }
    let mut maturin = Command::new(tools.join("bin/maturin"));
    maturin
        .args(["build", "--locked", "--profile", "dev", "--strip", "--auditwheel", "skip", "--out"])
        .arg(wheels)
        .arg("--manifest-path")
        .arg(cargo::root().join("python/Cargo.toml"))
        .env("CARGO_TARGET_DIR", cargo::target()?);
    cargo::run(&mut maturin)?;
    let built = fs::read_dir(wheels)?.collect::<Result<Vec<_>, _>>()?;
    ensure!(built.len() == 1, "maturin has built {} wheels", built.len());
    Ok(built[0].path())
}

/// The package as it is installed, and the tests' programs.
fn check(tools: &Path, venv: &Path) -> Result<()> {
    let mut mypy = Command::new(tools.join("bin/mypy"));
    mypy.arg("--strict")
        .arg("--python-executable")
        .arg(venv.join("bin/python"))
        .arg("--cache-dir")
        .arg(venv.with_file_name("mypy"))
        // The package from where it is installed, not from the source.
        .current_dir(venv)
        .args(["--package", "selfdump"]);
    cargo::run(&mut mypy)?;
    let programs = cargo::root().join("tests/programs/python");
    let mut scripts: Vec<PathBuf> =
        fs::read_dir(&programs)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    let mut mypy = Command::new(tools.join("bin/mypy"));
    mypy.arg("--strict")
        .arg("--scripts-are-modules")
        .arg("--python-executable")
        .arg(venv.join("bin/python"))
        .arg("--cache-dir")
        .arg(venv.with_file_name("mypy"))
        .current_dir(&programs)
        .args(scripts);
    cargo::run(&mut mypy)
}
