//! A worker that ends after a time, though nothing of our own process runs meanwhile.
//!
//! A CRIU that hangs while the program stands still holds it for ever: nothing in the program can look at a clock then.
//! So somebody else does, `sleep`, and has CRIU's [`Leash`] in hand: when its time is over it ends, and the kernel ends
//! CRIU, of which the program runs on. `sleep` in turn is on a leash of the program's.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk;
use super::spawn::{Leash, Orphan, SYSTEM_FOLDERS};

impl Leash {
    /// Has the worker end after `limit`, which is rounded up to whole seconds, if this isn't dropped before.
    ///
    /// # Errors
    ///
    /// Where there is no `sleep` that can be started; the worker is on the leash as before.
    pub(crate) fn end_after(&mut self, limit: Duration) -> io::Result<()> {
        let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
        let (sleep, seconds) = (sleep()?, seconds.to_string());
        let held = [self.writer.as_fd()];
        self.writer = Orphan { descriptors: &held, ..Orphan::new(&sleep, &[&seconds]) }.start()?.writer;
        Ok(())
    }
}

/// The program that does nothing for a time.
pub(super) fn sleep() -> io::Result<PathBuf> {
    let mut sleep = SYSTEM_FOLDERS.iter().map(|folder| Path::new(folder).join("sleep"));
    Ok(sleep.find(|path| disk::is_executable(path)).ok_or(io::ErrorKind::NotFound)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::time::Instant;

    /// A shell that says one line and then hangs, with the end of its standard output.
    fn hanging() -> (File, Leash) {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let script = "echo ready >&3; while :; do sleep 60 3>&-; done";
        let arguments = ["-c", script];
        let shell = Orphan::new(Path::new("/bin/sh"), &arguments);
        let leash = Orphan { descriptors: &[writer.as_fd()], ..shell }.start();
        let mut reader = File::from(reader);
        reader.read_exact(&mut [0; 6]).unwrap();
        (reader, leash.unwrap())
    }

    /// Waits for the end of the worker, the last that has the writing end.
    fn end(mut reader: File) {
        reader.read_to_string(&mut String::new()).unwrap();
    }

    #[test]
    fn a_worker_ends_when_its_time_is_over() {
        let (reader, mut leash) = hanging();
        let started = Instant::now();
        leash.end_after(Duration::from_millis(300)).unwrap();
        end(reader);
        assert!(started.elapsed() >= Duration::from_secs(1), "a second, being whole");
    }

    #[test]
    fn a_worker_with_a_time_ends_with_its_leash_all_the_same() {
        let (reader, mut leash) = hanging();
        leash.end_after(Duration::from_secs(600)).unwrap();
        drop(leash);
        end(reader);
    }
}
