//! The tree: what lies where below a prefix.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap_complete::Shell;

use super::VERSION;
use crate::cargo;

/// Files that are installed as they are: where they lie here, and there.
const FILES: [(&str, &str); 10] = [
    ("preload/include/selfdump.h", "include/selfdump.h"),
    ("preload/examples/counter.c", "share/doc/selfdump/examples/counter.c"),
    ("contrib/systemd/selfdump@.service", "lib/systemd/system/selfdump@.service"),
    ("contrib/slurm/selfdump.sbatch", "share/doc/selfdump/contrib/selfdump.sbatch"),
    ("contrib/container/Containerfile", "share/doc/selfdump/contrib/container/Containerfile"),
    ("contrib/container/entrypoint.sh", "share/doc/selfdump/contrib/container/entrypoint.sh"),
    ("README.md", "share/doc/selfdump/README.md"),
    ("CHANGELOG.md", "share/doc/selfdump/CHANGELOG.md"),
    ("LICENSE-MIT", "share/doc/selfdump/LICENSE-MIT"),
    ("LICENSE-APACHE", "share/doc/selfdump/LICENSE-APACHE"),
];

/// Puts what was built, and what belongs to it, below `tree`.
pub fn make(built: &Path, tree: &Path) -> Result<()> {
    stripped(&built.join("selfdump"), place(tree, "bin/selfdump")?, 0o755)?;
    // The name is the library's SONAME; the other is the one that programs are linked by.
    stripped(&built.join("libselfdump.so"), place(tree, "lib/libselfdump.so.0")?, 0o644)?;
    symlink("libselfdump.so.0", tree.join("lib/libselfdump.so")).context("can't make a link")?;
    for (from, to) in FILES {
        let to = place(tree, to)?;
        fs::copy(cargo::root().join(from), &to).with_context(|| format!("can't copy {from}"))?;
    }
    place(tree, "share/doc/selfdump/docs")?;
    let docs = cargo::root().join("docs");
    cargo::run(Command::new("cp").arg("-r").arg(docs).arg(tree.join("share/doc/selfdump")))?;
    let module = fs::read_to_string(cargo::root().join("preload/selfdump.pc")).context("can't read it")?;
    fs::write(place(tree, "lib/pkgconfig/selfdump.pc")?, module.replace("@VERSION@", VERSION))
        .context("can't write selfdump.pc")?;
    manuals(tree)?;
    completions(tree)
}

fn place(tree: &Path, path: &str) -> Result<PathBuf> {
    let path = tree.join(path);
    let folder = path.parent().expect("it lies in a folder");
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(path)
}

fn stripped(from: &Path, to: PathBuf, mode: u32) -> Result<()> {
    cargo::run(Command::new("strip").arg("--strip-unneeded").arg("-o").arg(&to).arg(from))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).context("can't set its mode")
}

/// A page for the command and one for each of its own.
fn manuals(tree: &Path) -> Result<()> {
    let folder = place(tree, "share/man/man1/selfdump.1")?;
    let folder = folder.parent().expect("it lies in a folder");
    clap_mangen::generate_to(selfdump_cli::command(), folder).context("can't write the manual")
}

fn completions(tree: &Path) -> Result<()> {
    let files = [
        (Shell::Bash, "share/bash-completion/completions/selfdump"),
        (Shell::Zsh, "share/zsh/site-functions/_selfdump"),
        (Shell::Fish, "share/fish/vendor_completions.d/selfdump.fish"),
    ];
    for (shell, path) in files {
        let mut file = File::create(place(tree, path)?).with_context(|| format!("can't write {path}"))?;
        clap_complete::generate(shell, &mut selfdump_cli::command(), "selfdump", &mut file);
    }
    Ok(())
}
