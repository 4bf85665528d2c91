//! A child that stands still at its own end, before it lets go of anything that it has open.
//!
//! It is traced for that alone (PTRACE_O_TRACEEXIT in ptrace(2)): however it ends, by itself or by SIGKILL, the kernel
//! stops it before its descriptors are closed, until its tracer has it go on. Tracing is a thread's matter, so a
//! [`Tracee`] doesn't leave the one that has seized it; when that thread ends, the child goes on by itself.

use std::io;
use std::marker::PhantomData;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::process::Ended;
use super::ptrace;

/// A child of this process, and this thread's to trace.
#[derive(Debug)]
pub(crate) struct Tracee {
    pid: i32,
    /// It has been waited for.
    is_gone: bool,
    _stays_in_its_thread: PhantomData<*const ()>,
}

impl Tracee {
    /// Begins to trace a child, which goes on meanwhile.
    pub(crate) fn seize(pid: i32) -> io::Result<Tracee> {
        ptrace::seize(pid, libc::PTRACE_O_TRACEEXIT)?;
        Ok(Tracee { pid, is_gone: false, _stays_in_its_thread: PhantomData })
    }

    /// Waits until it is about to end: how it will. All that it has open is still open.
    pub(crate) fn end(&mut self) -> io::Result<Ended> {
        loop {
            match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXIT)) => return self.announced(),
                // What it gets meanwhile it gets as if nobody traced it; but it isn't stopped.
                Ok(WaitStatus::PtraceEvent(..)) => self.go_on(0)?,
                Ok(WaitStatus::Stopped(_, signal)) => self.go_on(signal as i32)?,
                Ok(WaitStatus::Exited(_, status)) => return Ok(self.gone(Ended::Exited(status))),
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    return Ok(self.gone(Ended::Signaled(signal as i32)));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Has it end, and waits for that.
    pub(crate) fn let_go(mut self) -> io::Result<()> {
        while !self.is_gone {
            match self.go_on(0) {
                // It is killed once more.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                result => result?,
            }
            self.end()?;
        }
        Ok(())
    }

    fn go_on(&self, signal: i32) -> io::Result<()> {
        ptrace::go_on(self.pid, signal)
    }

    fn gone(&mut self, ended: Ended) -> Ended {
        self.is_gone = true;
        ended
    }

    /// The wait status that it is going to have.
    fn announced(&self) -> io::Result<Ended> {
        let status = ExitStatus::from_raw(ptrace::event_message(self.pid)? as i32);
        Ok(status.code().map_or_else(|| Ended::Signaled(status.signal().unwrap_or_default()), Ended::Exited))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::{message, signal, spawn};
    use super::*;

    /// A shell that has the other end of a socket open, and ends as the script says when it is told a line.
    fn started(script: &str) -> (i32, std::os::fd::OwnedFd) {
        let (ours, theirs) = message::pair().unwrap();
        let script = format!("read line <&3; {script}");
        let pid =
            spawn::apart(Path::new("/bin/sh"), &["-c", &script], &[theirs.as_fd()], Path::new("/dev/null"));
        (pid.unwrap(), ours)
    }

    /// Whether the other end of a socket has been closed.
    fn is_closed(socket: &std::os::fd::OwnedFd) -> bool {
        let mut file = std::fs::File::from(socket.try_clone().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || tell.send(file.read(&mut [0])));
        told.recv_timeout(Duration::from_millis(200)).is_ok()
    }

    #[test]
    fn it_holds_what_it_has_open_until_it_is_let_go_however_it_ends() {
        for (script, expected) in [
            ("exit 0", Ended::Exited(0)),
            ("exit 7", Ended::Exited(7)),
            ("kill -9 $$", Ended::Signaled(libc::SIGKILL)),
            ("kill -11 $$", Ended::Signaled(libc::SIGSEGV)),
            ("kill -19 $$; exit 3", Ended::Exited(3)),
        ] {
            let (pid, socket) = started(script);
            let mut tracee = Tracee::seize(pid).unwrap();
            message::send(&socket, b"\n", std::time::Instant::now() + Duration::from_secs(60)).unwrap();
            assert_eq!(tracee.end().unwrap(), expected, "{script}");
            assert!(!is_closed(&socket), "{script}");
            tracee.let_go().unwrap();
            assert!(is_closed(&socket), "{script}");
        }
    }

    #[test]
    fn one_that_is_killed_once_more_is_gone_and_that_is_no_error() {
        let (pid, _socket) = started("exit 1");
        let mut tracee = Tracee::seize(pid).unwrap();
        signal::kill(pid).unwrap();
        assert_eq!(tracee.end().unwrap(), Ended::Signaled(libc::SIGKILL));
        signal::kill(pid).unwrap();
        tracee.let_go().unwrap();
    }
}
