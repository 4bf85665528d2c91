//! The files of a small machine with systemd, which the tests boot and run containers of.
//!
//! They are Debian's packages, unpacked and no more: none of their scripts is run, so it takes a quarter of a minute and
//! nothing but apt. What those scripts would have made, and the machine can't be without, is written here.

use std::fs;
use std::io::stdout;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use selfdump_cli::setup::{download_packages, unpack_package};

use crate::cargo;

/// Its libc is new enough for programs that were built on the machines that this is developed on.
pub const RELEASE: &str = "trixie";

/// systemd, what boots it in a container, and a shell for the container's entry point.
const PACKAGES: [&str; 4] = ["systemd", "systemd-sysv", "systemd-container", "dash"];

/// With an id of its own it isn't the first boot, at which systemd would turn on all that it brings.
const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/machine-id", "5e1fd09000000000000000000000abcd\n"),
];

/// Makes it.
pub fn ensure() -> Result<()> {
    once("machine", "a machine with systemd for the tests", make).map(drop)
}

/// Makes a folder of files, once, in the target folder. It is there as a whole or not at all. What is needed to make it
/// may lie beside the folder that is to be filled.
pub fn once(name: &str, what: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = cargo::target()?.join(name);
    if root.is_dir() {
        return Ok(root);
    }
    println!("making {what} in {}", root.display());
    let partial = root.with_extension("partial");
    remove(&partial)?;
    let filled = partial.join("root");
    fs::create_dir_all(&filled).with_context(|| format!("can't make {}", filled.display()))?;
    make(&filled).with_context(|| format!("can't make {what}"))?;
    fs::rename(&filled, &root).with_context(|| format!("can't make {}", root.display()))?;
    remove(&partial)?;
    Ok(root)
}

fn make(root: &Path) -> Result<()> {
    for package in download_packages(&root.with_file_name("apt"), RELEASE, &PACKAGES, &mut stdout())? {
        unpack_package(&package, root)?;
    }
    FILES.iter().try_for_each(|(file, content)| {
        let file = root.join(file);
        fs::write(&file, content).with_context(|| format!("can't write {}", file.display()))
    })
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("can't remove {}", folder.display()))
}
