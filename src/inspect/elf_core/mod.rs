//! A core (core(5)) of a process of a checkpoint, for debuggers: made of the images alone, without the process, which
//! may still run or be long gone.
//!
//! It holds the memory that the images hold, and of each file that is mapped what the kernel's own cores have: the first
//! page, by whose build id a debugger knows the file. The rest is left to the debugger, which finds the file by its
//! path, or is taken from there at once. Memory that is all zeros takes no room on the disk.

mod copy;
mod elf;
mod files;
mod notes;
mod registers;
mod segments;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Inside, Memory, Process, Thread};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::report::Cause;
use crate::store::catalogue::Entry;
use crate::sys;
use files::MappedFiles;
use notes::Subject;
use segments::Segments;

/// What is wanted of a core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreOptions {
    /// Of which process; none is the root of the tree.
    pub pid: Option<i32>,
    /// Whether the contents of mapped files are in it, where the files are still as they were.
    pub full: bool,
    /// Whether a file that is there already is replaced.
    pub replace: bool,
}

/// A core that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Core {
    /// Where it is.
    pub path: PathBuf,
    /// Of which process it is.
    pub pid: i32,
    /// The program to give to the debugger with it, where the images name it.
    pub executable: Option<PathBuf>,
    /// How many threads it has.
    pub threads: usize,
    /// The id of the first of them: the one that went wrong, in a forensic checkpoint, else the main one.
    pub first_thread: i32,
    /// The signal that this thread was about to die of.
    pub signal: Option<i32>,
    /// Its size, holes included.
    pub size_bytes: Bytes,
    /// How much was written: all but holes.
    pub written_bytes: Bytes,
    /// How much memory isn't in it, since the images have left it to others that aren't there.
    pub missing_bytes: Bytes,
    /// Mapped files that aren't what they were at the checkpoint: a debugger would show what is in them now.
    pub changed_files: Vec<PathBuf>,
}

/// Writes a core of a process to a file that only this user can read. `progress` is told again and again how much is
/// done, and of how much. The file is there when all of it is; what was there before stays until then.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where the checkpoint has no such process, [`ErrorKind::Damaged`] where the images aren't what
/// they should be, [`ErrorKind::Io`] where the file is there already, or what writing it comes to.
pub fn write_core(
    entry: &Entry,
    to: &Path,
    options: &CoreOptions,
    progress: &mut dyn FnMut(Bytes, Bytes),
) -> Result<Core> {
    refuse_to_overwrite(to, options)?;
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let images = entry.images()?;
    let inside = Inside::read(&images)?;
    let (process, memory) = choose(entry, &inside, options.pid)?;
    let (thread, crash) = thread_of_interest(&manifest.cause, process);
    let files = MappedFiles::look(memory, manifest, options.full);
    let segments = Segments::of(&images, process.pid, memory, &files)?;
    let subject = Subject { process, memory, thread, crash, arguments: segments.arguments(memory)? };
    let header = elf::header(subject.machine(), &notes::of(&subject), &segments);
    let written_bytes = write(to, options, &header, &segments, progress)?;
    Ok(Core {
        path: to.to_owned(),
        pid: process.pid,
        executable: memory.executable.clone(),
        threads: process.threads.len(),
        first_thread: thread.tid,
        signal: crash.map(|crash| crash.signal),
        size_bytes: Bytes(header.len() as u64 + segments.size()),
        written_bytes,
        missing_bytes: Bytes(segments.missing),
        changed_files: files.changed(),
    })
}

/// What the thread of interest was about to die of.
#[derive(Clone, Copy)]
struct Crash {
    signal: i32,
    code: i32,
    address: u64,
}

fn choose<'a>(entry: &Entry, inside: &'a Inside, pid: Option<i32>) -> Result<(&'a Process, &'a Memory)> {
    let alive = || inside.processes.iter().filter(|process| process.memory.is_some());
    let chosen = match pid {
        Some(pid) => inside.processes.iter().find(|process| process.pid == pid),
        None => inside.processes.first(),
    };
    let problem = match chosen {
        Some(process @ Process { memory: Some(memory), .. }) => return Ok((process, memory)),
        Some(process) => format!("process {} had ended: it has no memory", process.pid),
        None => format!("{} has no process {}", entry.id(), pid.unwrap_or_default()),
    };
    let there: Vec<String> = alive().map(|process| format!("{} ({})", process.pid, process.name)).collect();
    Err(Error::new(ErrorKind::NotFound, problem).with_hint(format!("it has {}", there.join(", "))))
}

/// The thread that went wrong, and how; else the main one.
fn thread_of_interest<'a>(cause: &Cause, process: &'a Process) -> (&'a Thread, Option<Crash>) {
    let (wanted, crash) = match *cause {
        Cause::FatalSignal { signal, thread, address, code } => {
            let crash = Crash { signal, code: code.unwrap_or(0), address: address.unwrap_or(0) };
            (Some(thread), Some(crash))
        }
        Cause::Panic { thread_id, .. } | Cause::Exception { thread_id, .. } => (thread_id, None),
        _ => (None, None),
    };
    match process.threads.iter().find(|thread| Some(thread.tid) == wanted) {
        Some(thread) => (thread, crash),
        // Of another process of the tree.
        None => (&process.threads[0], None),
    }
}

fn refuse_to_overwrite(to: &Path, options: &CoreOptions) -> Result<()> {
    match to.symlink_metadata() {
        Ok(about) if about.is_dir() => {
            Err(Error::new(ErrorKind::Io, format!("{} is a folder, and a core is a file", to.display()))
                .with_hint("name a file in it"))
        }
        Ok(_) if !options.replace => Err(is_there(to)),
        _ => Ok(()),
    }
}

fn is_there(to: &Path) -> Error {
    Error::new(ErrorKind::Io, format!("{} is there already, and stays as it is", to.display()))
        .with_hint("name another file, or have it replaced (--force)")
}

/// Writes it aside, so that a core that is there is whole, and gives it its name. How much was written.
fn write(
    to: &Path,
    options: &CoreOptions,
    header: &[u8],
    segments: &Segments,
    progress: &mut dyn FnMut(Bytes, Bytes),
) -> Result<Bytes> {
    let aside = aside(to)?;
    // What a process with our id has left there.
    let _ = fs::remove_file(&aside);
    let written = create(&aside, to)
        .and_then(|file| copy::all(&file, to, header, segments, progress))
        .and_then(|written| name(&aside, to, options).map(|()| written));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

fn aside(to: &Path) -> Result<PathBuf> {
    let name = to
        .file_name()
        .ok_or_else(|| Error::new(ErrorKind::Io, format!("{} is no name of a file", to.display())))?;
    let mut aside = name.to_owned();
    aside.push(format!(".{}.part", sys::process::id()));
    Ok(to.with_file_name(aside))
}

fn create(aside: &Path, to: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside);
    file.map_err(|error| {
        Error::io("create", to, error)
            .with_hint("name a file in a folder that is there and can be written to")
    })
}

fn name(aside: &Path, to: &Path, options: &CoreOptions) -> Result<()> {
    let renamed = if options.replace { fs::rename(aside, to) } else { sys::disk::rename_new(aside, to) };
    renamed.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => is_there(to),
        _ => Error::io("rename the finished core to", to, error),
    })
}
