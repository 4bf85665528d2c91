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
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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
    /// The signal handler.
    Signal = 1,
    /// Another thread of the program, which has left word elsewhere.
    Thread = 2,
}

/// Who has woken since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Woken(u8);

impl Woken {
    pub(crate) fn by(self, waker: Waker) -> bool {
        self.0 & waker as u8 != 0
    }
}

/// The pipe. It lives as long as the process: the signal handler may use it at any time.
#[derive(Debug)]
pub(crate) struct Wake {
    waiter: OwnedFd,
    waker: OwnedFd,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        let (waiter, waker) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Wake { waiter: off_the_streams(waiter)?, waker: off_the_streams(waker)? })
    }

    /// Wakes the waiter. Async-signal-safe: one `write` of one byte; the caller in a handler keeps errno.
    pub(crate) fn wake(&self, waker: Waker) {
        let byte = waker as u8;
        // SAFETY: the descriptor is owned by self and open; the buffer is one readable byte.
        unsafe { libc::write(self.waker.as_raw_fd(), (&raw const byte).cast(), 1) };
    }

    /// Takes all wake-ups that came so far.
    pub(crate) fn clear(&self) -> Woken {
        let mut woken = Woken::default();
        let mut bytes = [0; 512];
        loop {
            let count = match unistd::read(&self.waiter, &mut bytes) {
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

    /// Sleeps until a wake-up or the deadline.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        loop {
            let timeout = match deadline {
                None => PollTimeout::NONE,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let millis = if left.is_zero() { 0 } else { left.as_millis() + 1 };
                    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
                }
            };
            match poll(&mut [PollFd::new(self.waiter.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return,
                Ok(0) | Err(_) => {}
                Ok(_) => return,
            }
        }
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
        wake.wait(None);
        assert!(wake.clear().by(Waker::Signal));
        assert_eq!(wake.clear(), Woken::default());
    }

    #[test]
    fn a_wake_after_the_clearing_is_kept() {
        let wake = Wake::new().unwrap();
        wake.wake(Waker::Signal);
        wake.clear();
        wake.wake(Waker::Thread);
        wake.wait(Some(Instant::now() + Duration::from_secs(5)));
        let woken = wake.clear();
        assert!(woken.by(Waker::Thread) && !woken.by(Waker::Signal));
    }

    #[test]
    fn nobody_is_who_has_not_woken() {
        let wake = Wake::new().unwrap();
        wake.wait(Some(Instant::now()));
        assert_eq!(wake.clear(), Woken::default());
    }
}
