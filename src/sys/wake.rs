//! A pipe that wakes one waiting thread, from any thread or from a signal handler.
//!
//! Each byte in it says who woke: the [`Waker`].
//!
//! The order of the waiting side is *clear, then act*: what comes after the clearing leaves a byte behind,
//! and so is acted upon once more, however many bytes there are. The other way round, a wake-up between
//! acting and clearing would be lost.
//!
//! Both ends are non-blocking. A full pipe means that the waiter has been woken thousands of times over
//! and not come yet: the byte that doesn't fit is not missed.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
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

impl End {
    fn new(descriptor: OwnedFd) -> io::Result<End> {
        Ok(End(AtomicI32::new(off_the_streams(descriptor)?.into_raw_fd())))
    }

    fn borrow(&self) -> Option<BorrowedFd<'_>> {
        let descriptor = self.0.load(Ordering::SeqCst);
        // SAFETY: it is open until `close` is called, which is when nobody uses the pipe any more.
        (descriptor >= 0).then(|| unsafe { BorrowedFd::borrow_raw(descriptor) })
    }

    fn close(&self) {
        let descriptor = self.0.swap(-1, Ordering::SeqCst);
        if descriptor >= 0 {
            // SAFETY: it is ours, and nobody finds it here any more.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
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
        self.waker.close();
        self.waiter.close();
    }

    /// Wakes the waiter. Async-signal-safe: one `write` of one byte; the caller in a handler keeps errno.
    pub(crate) fn wake(&self, waker: Waker) {
        self.wake_by(waker as u8);
    }

    /// The same for a [`Waker`] that a handler keeps as its byte.
    pub(super) fn wake_by(&self, byte: u8) {
        let descriptor = self.waker.0.load(Ordering::SeqCst);
        // SAFETY: the buffer is one readable byte. A descriptor that is closed, -1, is an error without effect.
        unsafe { libc::write(descriptor, (&raw const byte).cast(), 1) };
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
    fn nobody_is_who_has_not_woken() {
        let wake = Wake::new().unwrap();
        wake.wait(Instant::now());
        assert_eq!(wake.clear(), Woken::default());
    }
}
