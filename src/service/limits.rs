//! How much is done for whom. Nobody can keep the service from serving others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::criu::request::{Refusal, Why};
use crate::frozen::Bytes;

/// How much is done at a time, and for how long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Dumps at a time, of all users.
    pub dumps: usize,
    /// Dumps at a time for one user; more wait for [`silence`](Limits::silence) at most.
    pub dumps_each: usize,
    /// Connections at a time, of all users.
    pub connections: usize,
    /// Connections at a time of one user.
    pub connections_each: usize,
    /// Requests in a minute of one user.
    pub requests_each: usize,
    /// The largest program: what it and its children have in memory.
    pub size: Bytes,
    /// What has to be left of the disk.
    pub reserve: Bytes,
    /// How long a dump may take.
    pub deadline: Duration,
    /// How long a connection may say nothing.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            dumps: 8,
            dumps_each: 2,
            connections: 256,
            connections_each: 16,
            requests_each: 240,
            size: Bytes(1 << 40),
            reserve: Bytes::mebibytes(64),
            deadline: Duration::from_secs(600),
            silence: Duration::from_secs(10),
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// What one user has under way.
#[derive(Debug, Default)]
struct Account {
    connections: usize,
    dumps: usize,
    /// When there were requests in the last minute.
    requests: VecDeque<Instant>,
}

/// Who has what under way.
#[derive(Debug)]
struct Book {
    limits: Limits,
    accounts: HashMap<u32, Account>,
    connections: usize,
    dumps: usize,
}

impl Book {
    fn connect(&mut self, user: u32) -> Result<(), Refusal> {
        let account = self.accounts.entry(user).or_default();
        if account.connections >= self.limits.connections_each {
            return Err(busy(format!("user {user} has {} connections already", account.connections)));
        }
        if self.connections >= self.limits.connections {
            return Err(busy(format!("{} connections are served already", self.connections)));
        }
        account.connections += 1;
        self.connections += 1;
        Ok(())
    }

    fn disconnect(&mut self, user: u32, now: Instant) {
        self.connections -= 1;
        if let Some(account) = self.accounts.get_mut(&user) {
            account.connections -= 1;
        }
        // Only those are remembered of whom there is something to remember.
        self.accounts.retain(|_, account| {
            account.forget_before(now);
            account.connections > 0 || !account.requests.is_empty()
        });
    }

    fn request(&mut self, user: u32, now: Instant) -> Result<(), Refusal> {
        let account = self.accounts.entry(user).or_default();
        account.forget_before(now);
        if account.requests.len() >= self.limits.requests_each {
            return Err(busy(format!(
                "user {user} has made {} requests in a minute",
                account.requests.len()
            )));
        }
        account.requests.push_back(now);
        Ok(())
    }

    fn begin_dump(&mut self, user: u32) -> Result<(), Refusal> {
        let account = self.accounts.entry(user).or_default();
        if account.dumps >= self.limits.dumps_each {
            return Err(busy(format!("user {user} has {} dumps under way", account.dumps)));
        }
        if self.dumps >= self.limits.dumps {
            return Err(busy(format!("{} dumps are under way", self.dumps)));
        }
        account.dumps += 1;
        self.dumps += 1;
        Ok(())
    }

    fn end_dump(&mut self, user: u32) {
        self.dumps -= 1;
        if let Some(account) = self.accounts.get_mut(&user) {
            account.dumps -= 1;
        }
    }
}

impl Account {
    fn forget_before(&mut self, now: Instant) {
        while self.requests.front().is_some_and(|&at| now.saturating_duration_since(at) >= MINUTE) {
            self.requests.pop_front();
        }
    }
}

fn busy(reason: String) -> Refusal {
    Refusal::new(Why::Busy, reason)
}

/// The book, for all threads.
#[derive(Debug)]
pub(super) struct Ledger {
    book: Mutex<Book>,
    dump_ended: Condvar,
}

impl Ledger {
    pub(super) fn new(limits: Limits) -> Ledger {
        let book = Book { limits, accounts: HashMap::new(), connections: 0, dumps: 0 };
        Ledger { book: Mutex::new(book), dump_ended: Condvar::new() }
    }

    /// A user's connection, until it is dropped.
    pub(super) fn connect(&self, user: u32) -> Result<Connected<'_>, Refusal> {
        self.book().connect(user).map(|()| Connected { ledger: self, user })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // What was written is whole, whoever has panicked.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in the book.
pub(super) struct Connected<'a> {
    ledger: &'a Ledger,
    user: u32,
}

impl Connected<'_> {
    pub(super) fn request(&self) -> Result<(), Refusal> {
        self.ledger.book().request(self.user, Instant::now())
    }

    /// A dump, until it is dropped. Where too many are under way, it is waited for one to end, for a while.
    pub(super) fn begin_dump(&self) -> Result<Dumping<'_>, Refusal> {
        let mut book = self.ledger.book();
        let deadline = Instant::now() + book.limits.silence;
        loop {
            match book.begin_dump(self.user) {
                Ok(()) => return Ok(Dumping { ledger: self.ledger, user: self.user }),
                Err(refusal) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(refusal);
                    }
                    let waited = self.ledger.dump_ended.wait_timeout(book, left);
                    book = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.ledger.book().disconnect(self.user, Instant::now());
    }
}

/// A dump in the book.
pub(super) struct Dumping<'a> {
    ledger: &'a Ledger,
    user: u32,
}

impl Drop for Dumping<'_> {
    fn drop(&mut self) {
        self.ledger.book().end_dump(self.user);
        self.ledger.dump_ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let limits = Limits {
            dumps: 3,
            dumps_each: 2,
            connections: 3,
            connections_each: 2,
            requests_each: 2,
            ..Limits::default()
        };
        Book { limits, accounts: HashMap::new(), connections: 0, dumps: 0 }
    }

    #[test]
    fn a_user_can_not_take_what_is_for_others() {
        let mut book = book();
        assert!(book.connect(1).is_ok() && book.connect(1).is_ok());
        assert!(book.connect(1).unwrap_err().reason.contains("user 1 has 2 connections"));
        assert!(book.connect(2).is_ok());
        assert!(book.connect(3).unwrap_err().reason.contains("3 connections"));
        book.disconnect(1, Instant::now());
        assert!(book.connect(3).is_ok());
        assert!(book.begin_dump(1).is_ok() && book.begin_dump(1).is_ok());
        assert_eq!(book.begin_dump(1).unwrap_err().why, Why::Busy);
        assert!(book.begin_dump(2).is_ok());
        assert!(book.begin_dump(3).is_err());
        book.end_dump(2);
        assert!(book.begin_dump(3).is_ok());
    }

    #[test]
    fn requests_are_counted_for_a_minute() {
        let (mut book, begin) = (book(), Instant::now());
        assert!(book.request(1, begin).is_ok() && book.request(1, begin + MINUTE / 2).is_ok());
        assert!(book.request(1, begin + MINUTE / 2).is_err());
        assert!(book.request(2, begin + MINUTE / 2).is_ok());
        assert!(book.request(1, begin + MINUTE).is_ok());
        assert!(book.request(1, begin + MINUTE).is_err());
    }

    #[test]
    fn nobody_is_remembered_for_longer_than_a_minute() {
        let (mut book, begin) = (book(), Instant::now());
        book.connect(1).unwrap();
        book.request(1, begin).unwrap();
        book.disconnect(1, begin);
        assert_eq!(book.accounts.len(), 1);
        book.connect(2).unwrap();
        book.disconnect(2, begin + MINUTE);
        assert!(book.accounts.is_empty());
    }
}
