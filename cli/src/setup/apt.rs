//! Downloads Debian packages of another release with an apt that has a state of its own.
//!
//! The machine's apt knows nothing of it: lists, cache, sources and the (empty) list of installed packages lie in a
//! folder of ours, so every library that a package needs comes with it, libc included, and nothing on the machine is
//! upgraded. The signatures are checked with the machine's keys; the archive's address is read off its
//! configuration. No step needs root.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use super::command::{self, Group};

/// How long one call of apt may take. It has shorter deadlines of its own for a server that doesn't answer.
const DEADLINE: Duration = Duration::from_secs(900);

/// What to do where a private copy can't be made.
pub const BY_HAND: &str = "install criu 4.2 or newer with the distribution's package manager, and name it in SELFDUMP_CRIU if it isn't on PATH";

/// Downloads `packages` of `release`, and all that they need, with a state kept in `folder`; returns the files.
pub fn download(
    folder: &Path,
    release: &str,
    packages: &[&str],
    out: &mut dyn Write,
) -> Result<Vec<PathBuf>> {
    let apt = of_release(folder, release, out)?;
    writeln!(out, "  downloading {} and what they need", packages.join(" and "))?;
    apt.run(&[&["-y", "--download-only", "install"], packages].concat())
        .with_context(|| format!("the packages of Debian {release} can't be had; is the machine online?"))?;
    apt.downloaded()
}

/// The same without what they need.
pub fn download_alone(
    folder: &Path,
    release: &str,
    packages: &[&str],
    out: &mut dyn Write,
) -> Result<Vec<PathBuf>> {
    let apt = of_release(folder, release, out)?;
    writeln!(out, "  downloading {}", packages.join(" and "))?;
    call(
        Command::new("apt-get")
            .current_dir(apt.archives())
            .args(apt.options())
            .arg("download")
            .args(packages),
    )
    .with_context(|| format!("the packages of Debian {release} can't be had; is the machine online?"))?;
    apt.downloaded()
}

/// An apt that has the package lists of a release.
fn of_release(folder: &Path, release: &str, out: &mut dyn Write) -> Result<Private> {
    for tool in ["apt-get", "dpkg-deb"] {
        ensure!(
            command::find(tool).is_some(),
            "a private CRIU is made of Debian packages and {tool} isn't here: {BY_HAND}"
        );
    }
    let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    ensure!(plain(release), "`{release}` is no name of a Debian release: try `forky`");

    let archive = Archive::of_this_machine(folder, out)?;
    writeln!(out, "  reading the package lists of {release}")?;
    let apt = Private::new(folder.join("of-release"))?.with_source(&archive.source(release))?;
    apt.run(&["update", "--error-on=any"]).with_context(|| {
        format!("the package lists of Debian {release} can't be had; is the machine online?")
    })?;
    Ok(apt)
}

/// Where this machine has its Debian packages from.
struct Archive {
    site: String,
    /// The keyring that the machine's sources name for it, where they name one.
    signed_by: Option<String>,
}

impl Archive {
    fn of_this_machine(folder: &Path, out: &mut dyn Write) -> Result<Self> {
        const FORMAT: [&str; 3] = ["indextargets", "--format", "$(LABEL)|$(SITE)|$(SIGNED_BY)|"];
        let known = call(Command::new("apt-get").args(FORMAT))
            .context("apt can't say where it has its packages from")?;
        if let Some(archive) = Self::find(&known) {
            return Ok(archive);
        }
        // A fresh machine or container has sources but no lists yet, and then apt names no archive. They are read
        // into our folder, so that this works for everybody and the machine's own state stays as it is.
        writeln!(out, "  reading this machine's package lists: apt has none yet")?;
        let apt = Private::new(folder.join("of-machine"))?;
        apt.run(&["update"])
            .context("this machine's package lists can't be had; does `apt-get update` work?")?;
        Self::find(&apt.run(&FORMAT)?).with_context(|| {
            format!("apt has no Debian archive among its sources (see `apt-get indextargets`): {BY_HAND}")
        })
    }

    /// The plain archive: the one of security updates has another label, and holds no other release's packages.
    fn find(targets: &str) -> Option<Self> {
        targets.lines().find_map(|line| {
            let [label, site, signed_by, ..] = line.split('|').collect::<Vec<_>>()[..] else { return None };
            (label == "Debian" && !site.is_empty() && !site.starts_with("cdrom:")).then(|| Self {
                site: site.to_owned(),
                // apt leaves the placeholder standing where there's no value, and a key may stand there in full.
                signed_by: Some(signed_by.to_owned())
                    .filter(|value| value.starts_with('/') && !value.contains(' ')),
            })
        })
    }

    fn source(&self, release: &str) -> String {
        let options = self.signed_by.as_ref().map_or(String::new(), |key| format!("[signed-by={key}] "));
        format!("deb {options}{} {release} main\n", self.site)
    }
}

/// An apt with a state of its own.
struct Private {
    folder: PathBuf,
    source: Option<PathBuf>,
}

impl Private {
    fn new(folder: PathBuf) -> Result<Self> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("can't make {}", folder.display()))?;
        }
        fs::write(folder.join("state/status"), "")
            .with_context(|| format!("can't write to {}", folder.display()))?;
        Ok(Self { folder, source: None })
    }

    /// Takes its packages from this line alone, instead of the machine's sources.
    fn with_source(mut self, line: &str) -> Result<Self> {
        let path = self.folder.join("sources.list");
        fs::write(&path, line).with_context(|| format!("can't write {}", path.display()))?;
        self.source = Some(path);
        Ok(self)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        call(Command::new("apt-get").args(self.options()).args(arguments))
    }

    fn options(&self) -> Vec<OsString> {
        let folders =
            [("Dir::State", "state"), ("Dir::State::status", "state/status"), ("Dir::Cache", "cache")];
        let mut settings: Vec<OsString> =
            folders.iter().map(|(key, part)| setting(key, &self.folder.join(part))).collect();
        if let Some(source) = &self.source {
            settings.push(setting("Dir::Etc::sourcelist", source));
            // The machine's wishes about releases would hide or refuse the one that we ask for.
            let none = ["Dir::Etc::sourceparts=-", "Dir::Etc::preferences=-", "Dir::Etc::preferencesparts=-"];
            settings.extend(none.iter().chain(&["APT::Default-Release="]).map(OsString::from));
        }
        let quick = ["Acquire::Languages=none", "Acquire::Retries=2", "Acquire::http::Timeout=30"];
        settings.extend(quick.iter().chain(&["APT::Install-Recommends=false"]).map(OsString::from));
        if geteuid().is_root() {
            // The user to whom root's apt hands its downloads can't enter a private folder.
            settings.push("APT::Sandbox::User=root".into());
        }
        settings.into_iter().flat_map(|setting| ["-o".into(), setting]).collect()
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("cache/archives")
    }

    fn downloaded(&self) -> Result<Vec<PathBuf>> {
        let archives = self.archives();
        let entries =
            fs::read_dir(&archives).with_context(|| format!("can't read {}", archives.display()))?;
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
    }
}

fn setting(key: &str, path: &Path) -> OsString {
    let mut setting = OsString::from(format!("{key}="));
    setting.push(path);
    setting
}

/// Unpacks a package into `root`, running none of its scripts.
pub fn unpack(package: &Path, root: &Path) -> Result<()> {
    call(Command::new("dpkg-deb").arg("-x").arg(package).arg(root)).map(drop)
}

/// Runs a program to success and returns its output; its own last words are the error.
pub fn call(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let ran = command::run(command.env("LC_ALL", "C"), Group::Shared, DEADLINE)
        .with_context(|| format!("can't run {program}"))?;
    if !ran.ok() {
        bail!("{program} fails: {}", last_words(&ran.output).unwrap_or_else(|| ran.ending(DEADLINE)));
    }
    Ok(ran.output)
}

/// The last lines that tell: apt marks errors by `E:`, and a server that doesn't answer by `Err:` and a line below.
fn last_words(output: &str) -> Option<String> {
    let marked = output.lines().filter(|line| line.starts_with("E: "));
    let lines: Vec<_> =
        if marked.clone().next().is_some() { marked.collect() } else { output.lines().collect() };
    let last = lines[lines.len().saturating_sub(3)..]
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join("\n  ");
    (!last.is_empty()).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_archive_is_chosen() {
        let targets = "Debian-Security|mirror:/sec|$(SIGNED_BY)|\nDocker CE|mirror:/d|/k|\nDebian|mirror:/debian|/k.gpg|\n";
        let archive = Archive::find(targets).unwrap();
        assert_eq!(archive.source("forky"), "deb [signed-by=/k.gpg] mirror:/debian forky main\n");
    }

    #[test]
    fn a_missing_keyring_is_left_out() {
        let archive = Archive::find("Debian|mirror:/debian|$(SIGNED_BY)|\n").unwrap();
        assert_eq!(archive.source("trixie"), "deb mirror:/debian trixie main\n");
        assert!(Archive::find("Ubuntu|mirror:/ubuntu||\n").is_none());
        assert!(Archive::find("").is_none());
    }

    #[test]
    fn a_release_is_a_plain_name() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            download(folder.path(), "forky main\ndeb [trusted=yes]", &["criu"], &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("is no name of a Debian release"), "{error}");
    }

    #[test]
    fn the_errors_are_the_last_words() {
        assert_eq!(last_words("Reading…\nE: one\nfoo\nE: two\n").unwrap(), "E: one\n  E: two");
        assert_eq!(last_words("just\nthis\n").unwrap(), "just\n  this");
        assert_eq!(last_words(""), None);
    }

    #[test]
    fn a_call_that_fails_says_what_the_program_said() {
        let error =
            call(Command::new("sh").args(["-c", "echo 'E: no such thing' >&2; exit 100"])).unwrap_err();
        assert_eq!(error.to_string(), "sh fails: E: no such thing");
    }
}
