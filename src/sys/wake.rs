//! A pipe that wakes one waiting thread, from any thread or from a signal handler.
//!
//! Each byte in it says who woke: the [`Waker`].
//!
//! The order of the waiting side is *clear, then act*: what comes after the clearing leaves a byte behind,
//! and so is acted upon once more, however many bytes there are. The other way round, a wake-up between
//! acting and clearing would be lost.
//!
//! A program may close all descriptors that it doesn't know (when it makes itself a daemon, say), and get their numbers
//! for its own. So both ends bear a mark, and what doesn't is neither written to nor read nor closed: [`Wake::mend`]
//! makes a new pipe. The mark is a signal that is set for the descriptor and never sent (F_SETSIG in fcntl(2)): unlike
//! the pipe's inode it is the same in a process that CRIU has restored.
//!
//! Both ends are non-blocking. A full pipe means that the waiter has been woken thousands of times over
//! and not come yet: the byte that doesn't fit is not missed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use super::process::off_the_streams;

/// Who wakes; as bits, so that many bytes add up to one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Waker {
    /// The handler of the checkpoint signal.
    Signal = 1,
    /// Another thread of the program, which has left word elsewhere.
    Thread = 2,
    /// The handler of the signal after which the program is to exit.
    Exit = 4,
    /// The handler of a signal that the program is dying of.
    Crash = 8,
}

/// Who has woken since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Woken(u8);

impl Woken {
    pub(crate) fn by(self, waker: Waker) -> bool {
        self.0 & waker as u8 != 0
    }
}

/// The pipe. It lives as long as the process, since signal handlers have its address; its descriptors are closed
/// when [`Wake::close`] says so.
#[derive(Debug)]
pub(crate) struct Wake {
    waiter: End,
    waker: End,
}

/// One end of the pipe, or -1 when it is closed.
#[derive(Debug)]
struct End(AtomicI32);

/// Of asm-generic/fcntl.h; libc has them for Android alone.
const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;

/// The last of the real-time signals, which nobody has for descriptors.
const MARK: libc::c_int = 64;

impl End {
    fn new(descriptor: OwnedFd) -> io::Result<End> {
        let descriptor = off_the_streams(descriptor)?;
        // SAFETY: system call on numbers; the signal isn't sent, since O_ASYNC isn't set.
        Errno::result(unsafe { libc::fcntl(descriptor.as_raw_fd(), F_SETSIG, MARK) })?;
        Ok(End(AtomicI32::new(descriptor.into_raw_fd())))
    }

    /// Its number, if that is still ours. Async-signal-safe.
    fn number(&self) -> Option<libc::c_int> {
        let descriptor = self.0.load(Ordering::SeqCst);
        // SAFETY: system call on numbers; one that is closed is an error without effect.
        (descriptor >= 0 && unsafe { libc::fcntl(descriptor, F_GETSIG) } == MARK).then_some(descriptor)
    }

    fn borrow(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: it is open, and ours.
        self.number().map(|descriptor| unsafe { BorrowedFd::borrow_raw(descriptor) })
    }

    /// Takes the place of another end, which is closed if it is still ours.
    fn replace(&self, number: libc::c_int) {
        let ours = self.number();
        let before = self.0.swap(number, Ordering::SeqCst);
        if ours == Some(before) {
            // SAFETY: it is ours, and nobody finds it here any more.
            drop(unsafe { OwnedFd::from_raw_fd(before) });
        }
    }
}

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        let (waiter, waker) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Wake { waiter: End::new(waiter)?, waker: End::new(waker)? })
    }

    /// Closes both ends. To be called when no handler is armed with it, nobody waits, and no thread will wake any
    /// more.
    pub(crate) fn close(&self) {
        self.waker.replace(-1);
        self.waiter.replace(-1);
    }

    /// Makes a new pipe where the program has closed ours; whether it had. What was in the old one is lost.
    pub(crate) fn mend(&self) -> io::Result<bool> {
        if self.waiter.number().is_some() && self.waker.number().is_some() {
            return Ok(false);
        }
        // Before the new pipe is made, which may get the very numbers that the old one had.
        self.close();
        let Wake { waiter, waker } = Wake::new()?;
        self.waiter.replace(waiter.0.into_inner());
        self.waker.replace(waker.0.into_inner());
        Ok(true)
    }

    /// Wakes the waiter. Async-signal-safe: one `write` of one byte, after a look whether it goes to us; the caller in
    /// a handler keeps errno.
    pub(crate) fn wake(&self, waker: Waker) {
        let byte = waker as u8;
        if let Some(descriptor) = self.waker.number() {
            // SAFETY: the descriptor is ours; the buffer is one readable byte.
            unsafe { libc::write(descriptor, (&raw const byte).cast(), 1) };
        }
    }

    /// Takes all wake-ups that came so far.
    pub(crate) fn clear(&self) -> Woken {
        let mut woken = Woken::default();
        let mut bytes = [0; 512];
        loop {
            let Some(waiter) = self.waiter.borrow() else { return woken };
            let count = match unistd::read(waiter, &mut bytes) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(_) => return woken,
            };
            woken.0 |= bytes[..count].iter().fold(0, |all, byte| all | byte);
            if count < bytes.len() {
                return woken;
            }
        }
    }

    /// Sleeps until a wake-up or the deadline; or a little shorter, where a signal comes in between. The clock is
    /// looked at once: where it goes back during the sleep, that lasts no longer than it would have.
    pub(crate) fn wait(&self, deadline: Instant) {
        let Some(waiter) = self.waiter.borrow() else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last millisecond isn't spent spinning.
        let millis = if left.is_zero() { 0 } else { left.as_millis() + 1 };
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        // Whoever waits looks for himself what has come.
        let _ = poll(&mut [PollFd::new(waiter, PollFlags::POLLIN)], timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_hundred_thousand_wakes_are_one_and_none_blocks() {
        let wake = Wake::new().unwrap();
        (0..100_000).for_each(|_| wake.wake(Waker::Signal));
        wake.wait(Instant::now() + Duration::from_secs(5));
        assert!(wake.clear().by(Waker::Signal));
        assert_eq!(wake.clear(), Woken::default());
    }

    #[test]
    fn a_wake_after_the_clearing_is_kept() {
        let wake = Wake::new().unwrap();
        wake.wake(Waker::Signal);
        wake.clear();
        wake.wake(Waker::Thread);
        wake.wait(Instant::now() + Duration::from_secs(5));
        let woken = wake.clear();
        assert!(woken.by(Waker::Thread) && !woken.by(Waker::Signal));
    }

    #[test]
    fn a_pipe_that_was_closed_is_made_anew_and_what_has_its_numbers_is_left_alone() {
        let wake = Wake::new().unwrap();
        let (waiter, waker) = (wake.waiter.number().unwrap(), wake.waker.number().unwrap());
        let (theirs, sink) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        // SAFETY: the numbers are those of the wake's own ends, which are given to another pipe by this.
        unsafe {
            libc::dup2(theirs.as_raw_fd(), waiter);
            libc::dup2(sink.as_raw_fd(), waker);
        }
        unistd::write(&sink, b"data").unwrap();
        wake.wake(Waker::Signal);
        assert_eq!(wake.clear(), Woken::default());
        assert!(wake.mend().unwrap() && !wake.mend().unwrap());
        wake.wake(Waker::Signal);
        assert!(wake.clear().by(Waker::Signal));
        let mut read = [0; 16];
        assert_eq!(unistd::read(&theirs, &mut read).unwrap(), 4, "their data is all there, and nothing else");
        // The same where the numbers are free, and the new pipe gets them again.
        wake.close();
        assert!(wake.mend().unwrap());
        let (waiter_again, waker_again) = (wake.waiter.number().unwrap(), wake.waker.number().unwrap());
        // SAFETY: the numbers are those of the wake's own ends, which nobody else has.
        unsafe {
            libc::close(waiter_again);
            libc::close(waker_again);
        }
        assert!(wake.mend().unwrap() && !wake.mend().unwrap());
        wake.close();
        // SAFETY: a look at a number.
        assert!(unsafe { libc::fcntl(waiter, libc::F_GETFD) } >= 0, "their descriptor is open");
        // SAFETY: the numbers are the duplicates made above.
        unsafe {
            libc::close(waiter);
            libc::close(waker);
        }
    }

    #[test]
    fn nobody_is_who_has_not_woken() {
        let wake = Wake::new().unwrap();
        wake.wait(Instant::now());
        assert_eq!(wake.clear(), Woken::default());
    }
}
