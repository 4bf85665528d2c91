//! The Debian package of the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::VERSION;
use crate::cargo;

/// Makes the package in `folder`, with the tree as its /usr.
pub fn make(tree: &Path, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("deb");
    fs::create_dir_all(root.join("DEBIAN")).context("can't make a folder")?;
    cargo::run(Command::new("cp").arg("-a").arg(tree).arg(root.join("usr")))?;
    let architecture = cargo::read(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let needs = libc(&[root.join("usr/bin/selfdump"), root.join("usr/lib/libselfdump.so.0")])?;
    let size = cargo::read(Command::new("du").arg("-sk").arg(root.join("usr")))?;
    let size = size.split_whitespace().next().context("du names no size")?;
    let control = format!(
        "Package: selfdump\nVersion: {VERSION}\nArchitecture: {architecture}\nMaintainer: the selfdump project\n\
         Installed-Size: {size}\nSection: utils\nPriority: optional\nDepends: libc6 (>= {needs}), libgcc-s1\n\
         Recommends: iptables\nSuggests: criu (>= 4.1.1)\n\
         Description: checkpoints of running programs, by CRIU\n \
         Runs any program with shared libraries so that it is checkpointed, and brought\n \
         back when it crashes; and a library by which C programs checkpoint themselves.\n \
         Where the system has no CRIU that works, `selfdump setup` gets one.\n"
    );
    let write = |name: &str, text: &str| {
        fs::write(root.join("DEBIAN").join(name), text).with_context(|| format!("can't write {name}"))
    };
    write("control", &control)?;
    write("triggers", "activate-noawait ldconfig\n")?;
    let package = folder.join(format!("selfdump_{VERSION}_{architecture}.deb"));
    cargo::run(Command::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(&root).arg(&package))?;
    fs::remove_dir_all(&root).context("can't remove what the package was made from")?;
    Ok(package)
}

/// The oldest C library that has all that these files need.
fn libc(files: &[PathBuf]) -> Result<String> {
    let needs = cargo::read(Command::new("readelf").args(["--wide", "--version-info"]).args(files))?;
    let newest = newest_glibc(&needs).context("readelf names no version of glibc")?;
    Ok(format!("{}.{}", newest.0, newest.1))
}

/// The newest of all `GLIBC_2.34` in a text.
fn newest_glibc(text: &str) -> Option<(u32, u32)> {
    let versions = text.split("GLIBC_").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let mut numbers = rest[..end].split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_that_of_the_higher_number() {
        let text = "Name: GLIBC_2.9  Flags\nName: GLIBC_2.34\n 5 (GLIBC_2.2.5)  Name: GLIBC_PRIVATE";
        assert_eq!(newest_glibc(text), Some((2, 34)));
        assert_eq!(newest_glibc("none"), None);
    }
}
