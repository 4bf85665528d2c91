//! A copy of CRIU in a folder of its own, with the libraries and the loader that it needs.
//!
//! ```text
//! PREFIX/bin/criu    what is run: its interpreter and its library path name PREFIX
//! PREFIX/packages/   the packages as unpacked
//! PREFIX/release     the Debian release that they are of
//! PREFIX.lock        held while a copy is made
//! PREFIX.partial/    a copy in the making, or what a crash left of one
//! ```

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use super::{apt, probe};

/// What is downloaded: CRIU, and the tool that tells its binary where its libraries are.
const PACKAGES: [&str; 2] = ["criu", "patchelf"];

/// Parts of the packages that CRIU never reads, as large as all the rest.
const UNUSED: [&str; 3] = ["usr/share/locale", "usr/share/man", "gconv"];

/// The binary of a private copy in `prefix`.
pub fn binary(prefix: &Path) -> PathBuf {
    prefix.join("bin/criu")
}

/// The Debian release that the copy in `prefix` is of, if there is one.
pub fn release_of(prefix: &Path) -> Option<String> {
    Some(fs::read_to_string(prefix.join("release")).ok()?.trim().to_owned())
}

/// Makes sure that `prefix` holds a copy of `release` that works; one that does is kept. Returns its binary.
pub fn ensure(prefix: &Path, release: &str, out: &mut dyn Write) -> Result<PathBuf> {
    let prefix = std::path::absolute(prefix).context("can't tell the current folder")?;
    check(&prefix)?;
    let _lock = lock(&prefix, out)?;
    let criu = binary(&prefix);
    if release_of(&prefix).as_deref() == Some(release) {
        match probe::probe(&criu) {
            Ok(version) => {
                writeln!(out, "CRIU {version} is in {} and works", prefix.display())?;
                return Ok(criu);
            }
            // Another copy would lack the permission as well.
            Err(failure) if failure.is_permission() => return Err(explain(failure, &criu)),
            Err(failure) => writeln!(out, "the copy in {} is made anew: {failure}", prefix.display())?,
        }
    }
    build(&prefix, release, out)?;
    let version = probe::probe(&criu).map_err(|failure| explain(failure, &criu))?;
    let size = size_of(&prefix)?;
    writeln!(out, "CRIU {version} is in {} and works ({} MB)", prefix.display(), size.div_ceil(1_000_000))?;
    Ok(criu)
}

/// Makes a copy of the copy in `from`, fitted to another place.
pub fn copy(from: &Path, prefix: &Path, out: &mut dyn Write) -> Result<PathBuf> {
    check(prefix)?;
    let _lock = lock(prefix, out)?;
    writeln!(out, "copying the CRIU in {} to {}", from.display(), prefix.display())?;
    let partial = beside(prefix, ".partial");
    remove(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("can't make {}", partial.display()))?;
    apt::call(
        Command::new("cp").arg("-a").arg(from.join("packages")).arg(from.join("release")).arg(&partial),
    )?;
    patch(&partial, prefix, &Platform::here()?)?;
    replace(&partial, prefix)?;
    Ok(binary(prefix))
}

/// Unpacks packages into a folder of their own, as a whole or not at all; one that is there stays.
pub fn unpack(folder: &Path, release: &str, packages: &[&str], out: &mut dyn Write) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    writeln!(out, "unpacking {} of Debian {release} into {}", packages.join(" and "), folder.display())?;
    let (partial, downloads) = (beside(folder, ".partial"), beside(folder, ".apt"));
    remove(&partial)?;
    for package in apt::download_alone(&downloads, release, packages, out)? {
        apt::unpack(&package, &partial)?;
    }
    remove(&downloads)?;
    replace(&partial, folder)
}

/// Refuses a prefix that the copy couldn't run from, or where it would replace something that isn't ours.
fn check(prefix: &Path) -> Result<()> {
    // A library path is a list separated by colons, in which `$` begins a placeholder.
    let bad = prefix.to_str().is_none_or(|path| path.contains([':', '$', '\n']));
    ensure!(
        !bad,
        "a CRIU in {} couldn't find its libraries: choose a --prefix without `:` and `$`",
        prefix.display()
    );
    ensure!(
        prefix.file_name().is_some(),
        "{} can't be replaced by a copy of CRIU: choose a --prefix below it",
        prefix.display()
    );
    let taken =
        prefix.read_dir().is_ok_and(|mut entries| entries.next().is_some()) && release_of(prefix).is_none();
    ensure!(
        !taken,
        "{} holds something that `selfdump setup` did not make: choose another --prefix",
        prefix.display()
    );
    Ok(())
}

fn explain(failure: probe::Failure, criu: &Path) -> anyhow::Error {
    let remedy = match (failure.is_permission(), geteuid().is_root()) {
        (true, true) => {
            "CRIU lacks privileges that root has outside of this container: start the container with \
                         `--privileged`, or add the capabilities SYS_PTRACE, SYS_ADMIN and CHECKPOINT_RESTORE"
                .to_owned()
        }
        (true, false) => {
            "CRIU needs privileges: run this as root, or have root make a CRIU for ordinary users \
                          (`sudo selfdump setup --rootless`, docs/rootless.md)"
                .to_owned()
        }
        (false, _) => format!("this kernel or sandbox wants another CRIU: {}", apt::BY_HAND),
    };
    anyhow::Error::new(failure)
        .context(format!("{} is there but doesn't work here; {remedy}", criu.display()))
}

/// Keeps a second setup out until this one is done; then that finds the copy ready.
fn lock(prefix: &Path, out: &mut dyn Write) -> Result<Flock<File>> {
    let path = beside(prefix, ".lock");
    let cannot = || format!("can't lock {}; choose a --prefix where you may write", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
    }
    // The file stays: removed, it could be locked by one setup and made anew by the next at the same time.
    let file = File::create(&path).with_context(cannot)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map(Ok).unwrap_or_else(|(file, _)| {
        writeln!(out, "another setup is at work on {}: waiting for it", prefix.display())?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).with_context(cannot)
    })
}

/// Makes the copy aside and moves it to its place as a whole, so that half a copy never looks like one.
fn build(prefix: &Path, release: &str, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "making a private CRIU of Debian {release} in {}", prefix.display())?;
    let partial = beside(prefix, ".partial");
    remove(&partial)?;
    fill(&partial, prefix, release, out)
        .and_then(|()| replace(&partial, prefix))
        // What is left of it is of no use to anyone, and its own error of less than the one at hand.
        .inspect_err(|_| drop(remove(&partial)))
}

fn fill(partial: &Path, prefix: &Path, release: &str, out: &mut dyn Write) -> Result<()> {
    let platform = Platform::here()?;
    let root = partial.join("packages");
    let packages = apt::download(&partial.join("apt"), release, &PACKAGES, out)?;
    writeln!(out, "  unpacking {} packages", packages.len())?;
    for package in &packages {
        apt::unpack(package, &root)?;
    }
    remove(&partial.join("apt"))?;
    for part in UNUSED {
        remove(&root.join(part))?;
        remove(&root.join(platform.libraries()).join(part))?;
    }
    patch(partial, prefix, &platform)?;
    let note = partial.join("release");
    fs::write(&note, format!("{release}\n")).with_context(|| format!("can't write {}", note.display()))
}

/// Makes a copy of the binary that takes its loader and libraries from where the copy is going to lie.
///
/// patchelf came with the packages and needs their libraries too, so it's run through their loader.
fn patch(partial: &Path, prefix: &Path, platform: &Platform) -> Result<()> {
    let (now, then) = (
        partial.join("packages").join(platform.libraries()),
        prefix.join("packages").join(platform.libraries()),
    );
    let criu = binary(partial);
    fs::create_dir_all(partial.join("bin")).context("can't make a folder for the binary")?;
    let packaged = partial.join("packages/usr/sbin/criu");
    fs::copy(&packaged, &criu).with_context(|| format!("the packages hold no {}", packaged.display()))?;
    let mut command = Command::new(now.join(platform.loader));
    command.arg("--library-path").arg(&now).arg(partial.join("packages/usr/bin/patchelf"));
    command.arg("--set-interpreter").arg(then.join(platform.loader));
    // The older kind of path (RPATH) holds for the libraries' own needs as well.
    command.arg("--force-rpath").arg("--set-rpath").arg(&then).arg(&criu);
    apt::call(&mut command)
        .with_context(|| format!("can't fit {} to {}", criu.display(), prefix.display()))
        .map(drop)
}

fn replace(partial: &Path, prefix: &Path) -> Result<()> {
    let old = beside(prefix, ".old");
    remove(&old)?;
    match fs::rename(prefix, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error)
                .with_context(|| format!("can't move the old copy in {} away", prefix.display()));
        }
        _ => fs::rename(partial, prefix)
            .with_context(|| format!("can't move the copy to {}", prefix.display()))?,
    }
    remove(&old)
}

/// How Debian calls this machine's kind.
struct Platform {
    triplet: &'static str,
    loader: &'static str,
}

impl Platform {
    fn here() -> Result<Self> {
        Ok(match ARCH {
            "x86_64" => Self { triplet: "x86_64-linux-gnu", loader: "ld-linux-x86-64.so.2" },
            "aarch64" => Self { triplet: "aarch64-linux-gnu", loader: "ld-linux-aarch64.so.1" },
            other => bail!(
                "a private CRIU can be made on x86_64 and aarch64, and this is {other}: {}",
                apt::BY_HAND
            ),
        })
    }

    fn libraries(&self) -> PathBuf {
        Path::new("usr/lib").join(self.triplet)
    }
}

fn beside(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(prefix);
    name.push(suffix);
    name.into()
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The bytes of all files below `folder`; links count as nothing.
fn size_of(folder: &Path) -> Result<u64> {
    let entries = fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    entries
        .map(|entry| {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() {
                size_of(&entry.path())
            } else {
                Ok(if about.is_file() { about.len() } else { 0 })
            }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious"), "").unwrap();
        let error = ensure(folder.path(), "forky", &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("choose another --prefix"), "{error}");
        assert!(folder.path().join("precious").exists());
    }

    #[test]
    fn a_prefix_that_no_library_path_can_hold_is_refused() {
        let error = ensure(Path::new("/tmp/a:b"), "forky", &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("couldn't find its libraries"), "{error}");
    }

    #[test]
    fn a_failed_copy_leaves_nothing_that_looks_like_one() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("criu");
        ensure(&prefix, "not a release", &mut Vec::new()).unwrap_err();
        assert!(!prefix.exists() && !beside(&prefix, ".partial").exists());
    }

    #[test]
    fn a_new_copy_takes_the_place_of_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let (prefix, partial) = (folder.path().join("criu"), folder.path().join("criu.partial"));
        for text in ["trixie\n", "forky\n"] {
            fs::create_dir(&partial).unwrap();
            fs::write(partial.join("release"), text).unwrap();
            replace(&partial, &prefix).unwrap();
            assert_eq!(release_of(&prefix).as_deref(), Some(text.trim()));
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_second_setup_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("criu");
        let first = lock(&prefix, &mut Vec::new()).unwrap();
        let second = std::thread::spawn({
            let prefix = prefix.clone();
            move || {
                let mut said = Vec::new();
                lock(&prefix, &mut said).map(|_lock| said)
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!second.is_finished());
        drop(first);
        let said = String::from_utf8(second.join().unwrap().unwrap()).unwrap();
        assert!(said.contains("another setup is at work"), "{said}");
    }
}
