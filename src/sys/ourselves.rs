//! This very code once more, in a process of its own: what goes on while all of the program stands still.
//!
//! A program that links selfdump has no other file of it at hand. So the program's own file is executed once more, with a
//! variable that says what for; a constructor, which the loader calls before main, sees that and does it, and main is
//! never reached. Where this code is in a library, `true` is executed with that library loaded first, or an interpreter
//! that is to run nothing: they do nothing if the library can't be loaded.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use super::spawn::{self, FIRST_DESCRIPTOR, Leash, Orphan};
use super::{disk, process, procfs};

/// What says that a process is a helper, and for what.
pub(crate) const ROLE: &str = "SELFDUMP_HELPER";

/// How long a helper may take to be ready: its program is loaded once more.
const START: Duration = Duration::from_secs(5);

/// Whether the loader has called the constructor in this process. Where it hasn't, it wouldn't in a helper.
static IS_CONSTRUCTED: AtomicBool = AtomicBool::new(false);

/// What this process is a helper for, if it is one: to be asked by the constructor. Nobody has a program with more rights
/// than their own do anything by it.
pub(crate) fn role() -> Option<OsString> {
    IS_CONSTRUCTED.store(true, Ordering::Relaxed);
    if process::is_privileged_start() { None } else { std::env::var_os(ROLE) }
}

/// A helper that was started, which is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Helper(pub(super) Leash);

/// The ends of a conversation with a helper that has said that it is ready.
#[derive(Debug)]
pub(crate) struct Talk {
    /// What it says comes out here.
    pub(super) words: OwnedFd,
    /// What it is told goes in here.
    pub(super) orders: OwnedFd,
}

impl Helper {
    /// Starts one: an orphan in a process group of its own, in this folder, without input or a word. Waits until it says
    /// that it is [`ready`].
    pub(crate) fn start(role: &str, folder: BorrowedFd<'_>) -> io::Result<(Helper, Talk)> {
        if process::is_privileged_start() || !IS_CONSTRUCTED.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (program, arguments, variables) = command(role)?;
        let (words, its_words) = spawn::pipe()?;
        let (its_orders, orders) = spawn::pipe()?;
        let descriptors = [its_words.as_fd(), its_orders.as_fd()];
        let helper = Orphan {
            descriptors: &descriptors,
            folder: Some(folder),
            variables,
            ..Orphan::new(&program, arguments)
        };
        let leash = helper.start()?;
        drop((its_words, its_orders));
        wait_for_a_word(&words)?;
        Ok((Helper(leash), Talk { words, orders }))
    }

    /// Whether it has ended, which nobody has asked of it.
    pub(crate) fn has_ended(&self) -> bool {
        !self.0.is_taut()
    }
}

type Command = (PathBuf, &'static [&'static str], Vec<(OsString, OsString)>);

/// What is executed, and with which variables.
fn command(role: &str) -> io::Result<Command> {
    let mut variables = vec![(ROLE.into(), role.into())];
    let itself = Path::new("/proc/self/exe");
    let (ours, program) = (procfs::mapped_at(command as *const () as usize)?, fs::read_link(itself)?);
    if ours == program {
        return Ok((itself.to_owned(), &[], variables));
    }
    variables.push(("LD_PRELOAD".into(), ours.into()));
    // A module of Python's can be loaded into nothing else.
    match program.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"python")) {
        true => Ok((itself.to_owned(), &["-I", "-S", "-c", ""], variables)),
        false => Ok((does_nothing()?, &[], variables)),
    }
}

/// Fails where the other end is closed without one.
fn wait_for_a_word(words: &OwnedFd) -> io::Result<()> {
    let mut ends = [PollFd::new(words.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(START).unwrap_or(PollTimeout::MAX);
    match poll(&mut ends, patience)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => match unistd::read(words, &mut [0])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        },
    }
}

/// Says that this helper is ready.
pub(crate) fn ready() -> io::Result<()> {
    words()?.write_all(b".")
}

/// Where a helper's words go.
pub(super) fn words() -> io::Result<File> {
    File::options().write(true).open(format!("/proc/self/fd/{FIRST_DESCRIPTOR}"))
}

/// Where its orders come from.
pub(super) fn orders() -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", FIRST_DESCRIPTOR + 1))
}

/// The program that does nothing.
fn does_nothing() -> io::Result<PathBuf> {
    let mut all = spawn::SYSTEM_FOLDERS.iter().map(|folder| Path::new(folder).join("true"));
    Ok(all.find(|path| disk::is_executable(path)).ok_or(io::ErrorKind::NotFound)?)
}
