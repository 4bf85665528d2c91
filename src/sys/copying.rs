//! Taking pages out of a pipe into a file in memory, with several processors.
//!
//! What CRIU has put into the pipe are the program's own pages, and no copies of them. Taking those out takes no time: it is
//! copying them that does. CRIU fills up to eight pipes before it passes any page on (`PP_CHUNK_MODE` in its
//! page-pipe.h), and fills none while it does, so one thread takes more than that out of its way, into pipes of our own. It
//! is rid of them at once, and fetches the next while other threads copy these, each a pipe:
//!
//! ```text
//! CRIU ─▶ source ─▶ taker ─▶ filled ─▶ copiers ─▶ mapping of the file
//!                     ▲                   │
//!                     └────── empty ◀─────┘
//! ```
//!
//! They write through a mapping as far as the file has its memory already: the kernel lets one thread alone write to a
//! file by a system call.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process;
use std::ptr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd;

/// The most that everybody may have a pipe hold (pipe(7)).
const CAPACITY: usize = 1 << 20;

/// How many pipes are filled and copied in turn: together twice what CRIU passes on at a time.
const PIPES: usize = 16;

/// More of them wait for the memory, and not for each other.
const MOST_COPIERS: usize = 4;

/// The reading end of a pipe that somebody else is going to write to.
#[derive(Debug)]
pub(crate) struct Source(File);

/// Has a path lead to an end of a pipe that this process has. Who opens it for writing doesn't wait; it leads nowhere when
/// this process has ended.
fn stand_for(path: &Path, end: &impl AsRawFd) -> io::Result<()> {
    symlink(format!("/proc/{}/fd/{}", process::id(), end.as_raw_fd()), path)
}

impl Source {
    /// One that is at `path` from then on.
    pub(crate) fn at(path: &Path) -> io::Result<Source> {
        // One with a name tells one that nobody has opened yet from one that was closed again.
        unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let fifo = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        fs::remove_file(path)?;
        enlarge(&fifo);
        stand_for(path, &fifo)?;
        Ok(Source(fifo))
    }

    /// Waits until something is written to it, or its other end has been closed again.
    fn wait(&self) -> io::Result<()> {
        let mut ends = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        while let Err(errno) = poll(&mut ends, PollTimeout::NONE) {
            if errno != Errno::EINTR {
                return Err(errno.into());
            }
        }
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(())
    }

    /// Copies all that comes out of it to a file; how much that was. Where the file ends before, it grows. `ready` is called
    /// when all is there that this takes.
    pub(crate) fn copy_to(&self, target: &Target, ready: impl FnOnce() -> io::Result<()>) -> io::Result<u64> {
        let exchange = &Exchange::new()?;
        thread::scope(|scope| {
            let start = |_| thread::Builder::new().spawn_scoped(scope, || exchange.copy(target));
            let started = (0..copiers_at_once()).map(start).collect::<io::Result<Vec<_>>>();
            let taken = started.and_then(|copiers| {
                ready()?;
                self.wait()?;
                Ok((copiers, self.take(exchange)?))
            });
            exchange.end();
            let (copiers, taken) = taken?;
            copiers
                .into_iter()
                .try_for_each(|copier| copier.join().unwrap_or_else(|_| Err(Errno::EIO.into())))?;
            Ok(taken)
        })
    }

    /// Fills empty pipes, until there is nothing left to take; how much that was.
    fn take(&self, exchange: &Exchange) -> io::Result<u64> {
        let mut taken = 0;
        while let Some(pipe) = exchange.next(|pipes| pipes.empty.pop()) {
            let length = moved(&self.0, &pipe.writer, None, CAPACITY)?;
            if length == 0 {
                break;
            }
            exchange.change(|pipes| pipes.filled.push_back(Filled { pipe, at: taken, length }));
            taken += length as u64;
        }
        Ok(taken)
    }
}

/// One processor is left to CRIU.
fn copiers_at_once() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    (processors - 1).clamp(1, MOST_COPIERS)
}

/// What pages are taken into.
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
        enlarge(&writer);
        Ok(Pipe { reader, writer })
    }
}

/// A pipe with pages, and where they belong.
struct Filled {
    pipe: Pipe,
    at: u64,
    length: usize,
}

/// All pipes that nobody is at work on.
#[derive(Default)]
struct Pipes {
    empty: Vec<Pipe>,
    filled: VecDeque<Filled>,
    /// Whether none is filled any more.
    has_ended: bool,
}

/// Where they pass from one thread to another. (Channels would add 38 KiB to every program.)
struct Exchange {
    pipes: Mutex<Pipes>,
    changed: Condvar,
}

impl Exchange {
    fn new() -> io::Result<Exchange> {
        let empty = (0..PIPES).map(|_| Pipe::new()).collect::<io::Result<_>>()?;
        Ok(Exchange { pipes: Mutex::new(Pipes { empty, ..Pipes::default() }), changed: Condvar::new() })
    }

    fn change(&self, change: impl FnOnce(&mut Pipes)) {
        change(&mut self.pipes.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn end(&self) {
        self.change(|pipes| pipes.has_ended = true);
    }

    /// Waits until one is found. None where none is left, and none will come.
    fn next<T>(&self, find: impl Fn(&mut Pipes) -> Option<T>) -> Option<T> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match find(&mut pipes) {
                None if !pipes.has_ended => {
                    pipes = self.changed.wait(pipes).unwrap_or_else(PoisonError::into_inner);
                }
                found => return found,
            }
        }
    }

    /// What a thread does that copies. Where it fails, the taking ends for want of empty pipes.
    fn copy(&self, target: &Target) -> io::Result<()> {
        while let Some(Filled { pipe, at, length }) = self.next(|pipes| pipes.filled.pop_front()) {
            if let Err(error) = target.fill(at, length, &pipe.reader) {
                self.end();
                return Err(error);
            }
            self.change(|pipes| pipes.empty.push(pipe));
        }
        Ok(())
    }
}

/// A pipe that is full, so that whoever writes to it waits.
#[derive(Debug)]
pub(crate) struct Gate {
    reader: File,
    writer: File,
    filling: usize,
}

impl Gate {
    /// One that is at `path` from then on.
    pub(crate) fn at(path: &Path) -> io::Result<Gate> {
        let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut gate = Gate { reader: reader.into(), writer: writer.into(), filling: 0 };
        loop {
            match gate.writer.write(&[0; 4096]) {
                Ok(written) => gate.filling += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        stand_for(path, &gate.reader)?;
        Ok(gate)
    }

    /// Lets who waits there, or comes there, write all of it: what that was.
    pub(crate) fn open(mut self) -> io::Result<Vec<u8>> {
        io::copy(&mut (&mut self.reader).take(self.filling as u64), &mut io::sink())?;
        // Our own end is there until there is another.
        let mut written = vec![0; 4096];
        let first = self.reader.read(&mut written)?;
        written.truncate(first);
        drop(self.writer);
        self.reader.read_to_end(&mut written)?;
        Ok(written)
    }
}

/// Has a pipe hold more than it does by itself, if that may be.
fn enlarge(pipe: &impl AsFd) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(CAPACITY as i32));
}

/// Has the kernel move up to so much between a pipe and something else.
fn moved(from: &impl AsFd, to: &impl AsFd, at: Option<u64>, length: usize) -> io::Result<usize> {
    let mut at = at.map(|at| at as i64);
    loop {
        match splice(from, None, to, at.as_mut(), length, SpliceFFlags::SPLICE_F_MOVE) {
            Err(Errno::EINTR) => {}
            moved => return Ok(moved?),
        }
    }
}

/// A file in memory that is to be written to.
#[derive(Debug)]
pub(crate) struct Target {
    file: File,
    mapped: Mapped,
}

impl Target {
    /// What it has of memory is mapped from now on.
    pub(crate) fn new(file: File) -> Target {
        Target { mapped: Mapped::of(&file), file }
    }

    /// Fills the part from `at` on with what is in a pipe. No two threads may have the same part.
    fn fill(&self, at: u64, length: usize, pipe: &OwnedFd) -> io::Result<()> {
        let mut done = self.mapped.fill(at, length, pipe)?;
        while done < length {
            done += moved(pipe, &self.file, Some(at + done as u64), length - done)?;
        }
        Ok(())
    }

    /// Has it end there.
    pub(crate) fn cut(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }
}

/// A file in memory, as far as it was when this was made.
#[derive(Debug)]
struct Mapped {
    start: *mut u8,
    length: usize,
}

// SAFETY: it is memory that every thread may write to, each to a part of its own.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Of nothing where it can't be mapped.
    fn of(file: &File) -> Mapped {
        let nothing = Mapped { start: ptr::null_mut(), length: 0 };
        let length = file.metadata().map_or(0, |about| usize::try_from(about.len()).unwrap_or(0));
        if length == 0 {
            return nothing;
        }
        // SAFETY: the kernel chooses the place of the mapping, which nobody else knows. Where it can't have all pages of it
        // be there now, they come when they are written to.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let start = libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
            if start != libc::MAP_FAILED {
                libc::madvise(start, length, libc::MADV_POPULATE_WRITE);
            }
            start
        };
        if start == libc::MAP_FAILED { nothing } else { Mapped { start: start.cast(), length } }
    }

    /// Fills the part from `at` on with up to `length` bytes that are in a pipe, as far as it is mapped; how many those
    /// were. No two threads may have the same part.
    fn fill(&self, at: u64, length: usize, pipe: &OwnedFd) -> io::Result<usize> {
        let Some(left) = usize::try_from(at).ok().and_then(|at| self.length.checked_sub(at)) else {
            return Ok(0);
        };
        let (length, mut done) = (length.min(left), 0);
        while done < length {
            // SAFETY: the part is mapped for as long as this lives, and no other thread's.
            let read = unsafe {
                libc::read(pipe.as_raw_fd(), self.start.add(at as usize + done).cast(), length - done)
            };
            match Errno::result(read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read as usize,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(length)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: it was mapped by this, and nothing else knows where.
            unsafe { libc::munmap(self.start.cast(), self.length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of a pipe into which `bytes` are written in pieces of odd sizes, in a file that has so much already.
    fn copied(bytes: &[u8], present: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let source = Source::at(&fifo).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(present as u64).unwrap();
        let target = Target::new(file.try_clone().unwrap());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = File::options().write(true).open(&fifo).unwrap();
                bytes.chunks(70_001).for_each(|piece| writer.write_all(piece).unwrap());
            });
            assert_eq!(source.copy_to(&target, || Ok(())).unwrap(), bytes.len() as u64);
        });
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn every_byte_comes_to_its_place_whether_the_file_had_it_or_not() {
        let bytes: Vec<u8> =
            (0..5_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for present in [0, 1, 1 << 20, 3_000_001, bytes.len()] {
            assert!(copied(&bytes, present) == bytes, "{present} were there");
        }
        let longer = copied(&bytes, bytes.len() + 10);
        assert!(longer[..bytes.len()] == bytes[..] && longer[bytes.len()..] == [0; 10]);
    }

    #[test]
    fn one_that_is_closed_without_a_word_is_nothing() {
        assert!(copied(&[], 0).is_empty());
    }

    #[test]
    fn who_writes_to_a_gate_waits_until_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        let gate = Gate::at(&path).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                fs::write(&path, "through").unwrap();
                tell.send(()).unwrap();
            });
            assert!(told.recv_timeout(std::time::Duration::from_millis(200)).is_err());
            assert_eq!(gate.open().unwrap(), b"through");
            told.recv().unwrap();
        });
    }
}
