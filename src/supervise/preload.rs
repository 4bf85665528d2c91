//! How a program that knows nothing of selfdump comes to make checkpoints: the loader puts our library into it.
//!
//! The library does nothing but in the program itself ([`program::ARMED`]), nor in one that has selfdump already. Into
//! which programs the loader can't put anything is known beforehand, from their files.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, io};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::{copies, disk, elf, process};

/// What the loader reads (ld.so(8)).
const VARIABLE: &str = "LD_PRELOAD";

/// Where the library is, seen from the folder of the command: in a build folder, and where it is installed.
const BESIDE: [&str; 3] = ["libselfdump.so", "../lib/libselfdump.so.0", "../lib/libselfdump.so"];

/// How many interpreters of interpreters the kernel follows.
const INTERPRETERS: usize = 5;

/// Which library is put into the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preload {
    /// The one beside this command, if there is one.
    #[default]
    Beside,
    /// This one.
    Library(PathBuf),
    /// None: the program has selfdump of its own, or makes no checkpoints.
    Off,
}

impl Preload {
    /// The library.
    pub(super) fn library(&self) -> Result<Option<PathBuf>> {
        match self {
            Preload::Off => Ok(None),
            Preload::Library(path) => {
                let found = fs::canonicalize(path).map_err(|source| Error::io("preload", path, source))?;
                checked(found).map(Some)
            }
            Preload::Beside => beside().map(checked).transpose(),
        }
    }
}

fn beside() -> Option<PathBuf> {
    let command = env::current_exe().ok()?;
    let folder = command.parent()?;
    BESIDE.iter().find_map(|path| fs::canonicalize(folder.join(path)).ok())
}

/// The loader takes these for the end of a path.
fn checked(library: PathBuf) -> Result<PathBuf> {
    if library.as_os_str().as_bytes().iter().any(|byte| b": \t\n".contains(byte)) {
        let problem = format!("{} can't be preloaded: its path has a blank or a colon", library.display());
        return Err(Error::new(ErrorKind::Config, problem)
            .with_hint("name a copy, or a link to it, at another path with SELFDUMP_PRELOAD"));
    }
    Ok(library)
}

/// The variable that has the loader put the library into a program; what it says already stays.
///
/// # Errors
///
/// Why it can't be, for this program. It runs on without.
pub(super) fn variable(library: &Path, command: &OsStr) -> Result<(String, OsString)> {
    // Where there is no such program, or it can't be looked at, starting it tells more.
    if let Some(file) = file_of(command).and_then(|file| executed(file, 0)) {
        fit(&file, library)?;
    }
    let mut value = env::var_os(VARIABLE).unwrap_or_default();
    let is_there = |value: &OsStr| {
        value.as_bytes().split(|byte| b": \t".contains(byte)).any(|one| one == library.as_os_str().as_bytes())
    };
    if !is_there(&value) {
        if !value.is_empty() {
            value.push(":");
        }
        value.push(library);
    }
    Ok((VARIABLE.to_owned(), value))
}

/// Where a command is, as execvp(3) looks for it.
fn file_of(command: &OsStr) -> Option<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        return Some(command.into());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let found = env::split_paths(&path).map(|folder| folder.join(command));
    found.into_iter().find(|file| file.is_file() && disk::is_executable(file))
}

/// The file that the kernel loads when it executes another: that itself, or the interpreter that its first line names.
/// What is neither, a shell takes for a script.
fn executed(file: PathBuf, followed: usize) -> Option<PathBuf> {
    if elf::machine(&file).ok()?.is_some() {
        return Some(file);
    }
    match interpreter(&file).ok()? {
        Some(interpreter) if followed < INTERPRETERS => executed(interpreter, followed + 1),
        Some(_) => None,
        None => Some(PathBuf::from("/bin/sh")),
    }
}

fn interpreter(script: &Path) -> io::Result<Option<PathBuf>> {
    let mut line = Vec::new();
    BufReader::new(File::open(script)?.take(4096)).read_until(b'\n', &mut line)?;
    let Some(rest) = line.strip_prefix(b"#!") else { return Ok(None) };
    let name = rest.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    Ok(Some(OsString::from_vec(name.to_owned()).into()))
}

/// Whether the loader puts our library into this program.
fn fit(file: &Path, library: &Path) -> Result<()> {
    let read = |source| Error::io("read", file, source);
    let (shown, machine) = (file.display(), elf::machine(file).map_err(read)?);
    if machine != elf::machine(library).map_err(|source| Error::io("read", library, source))? {
        return Err(unfit(
            format!("{shown} is for another kind of processor than {}", library.display()),
            "build selfdump's library for that as well, and name it with --preload or SELFDUMP_PRELOAD",
        ));
    }
    match elf::loader(file).map_err(read)? {
        // One that links selfdump needs nobody's help.
        None if copies::is_in(file).map_err(read)? => Ok(()),
        None => Err(unfit(
            format!("{shown} is statically linked: no loader puts a library into it"),
            "build it with shared libraries, or link selfdump in it (`use selfdump as _;`)",
        )),
        Some(loader) if !loader.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-linux")) => {
            Err(unfit(
                format!("{shown} is loaded by {}, which is not glibc's", loader.display()),
                "build it for glibc, or link selfdump in it (`use selfdump as _;`)",
            ))
        }
        Some(_) if gives_rights(file).map_err(read)? => Err(unfit(
            format!(
                "{shown} has more rights than its user (setuid, setgid or file capabilities): the loader puts nothing into it"
            ),
            "run it as the user whose rights it takes, or link selfdump in it (`use selfdump as _;`)",
        )),
        Some(_) => Ok(()),
    }
}

fn unfit(problem: String, hint: &str) -> Error {
    Error::new(ErrorKind::Unfit, problem).with_hint(hint)
}

/// Whether a program has rights that we, who start it, don't.
fn gives_rights(file: &Path) -> io::Result<bool> {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2000;
    let about = fs::metadata(file)?;
    let (user, group) = (process::user().1, process::group());
    Ok(about.mode() & SETUID != 0 && about.uid() != user
        || about.mode() & SETGID != 0 && about.gid() != group
        || user != 0 && disk::has_capabilities(file))
}

#[cfg(test)]
#[path = "preload_tests.rs"]
mod tests;
