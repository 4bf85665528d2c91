//! The users of these tests, who are in the machine's own lists (passwd(5), group(5)) for as long as one of the tests
//! runs, with homes of their own.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{ONE, OTHER};
use crate::harness::succeeds;

pub fn name(user: u32) -> &'static str {
    if user == ONE { "selfdump-one" } else { "selfdump-other" }
}

pub fn home(user: u32) -> PathBuf {
    PathBuf::from("/home").join(name(user))
}

/// They are there until the last of these is dropped.
pub struct People;

/// How many tests need them, and the lock that says so to other runs of the tests on this machine.
static NEEDED: Mutex<(usize, Option<File>)> = Mutex::new((0, None));

fn needed() -> MutexGuard<'static, (usize, Option<File>)> {
    NEEDED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl People {
    pub fn come() -> People {
        let mut needed = needed();
        if needed.0 == 0 {
            let mut lock = OpenOptions::new();
            let lock = lock.create(true).append(true).open("/run/lock/selfdump-tests-users").unwrap();
            assert!(flock(&lock, libc::LOCK_SH), "the lock of the users");
            for user in [ONE, OTHER].into_iter().filter(|&user| !is_there(user)) {
                add(user);
            }
            needed.1 = Some(lock);
        }
        needed.0 += 1;
        People
    }
}

impl Drop for People {
    fn drop(&mut self) {
        let mut needed = needed();
        needed.0 -= 1;
        // Another run may need them still; that takes them away then.
        if needed.0 == 0 && needed.1.take().is_some_and(|lock| flock(&lock, libc::LOCK_EX | libc::LOCK_NB)) {
            [ONE, OTHER].into_iter().for_each(remove);
        }
    }
}

fn flock(file: &File, operation: i32) -> bool {
    // SAFETY: flock(2) on a descriptor that is open; no memory is involved.
    unsafe { libc::flock(file.as_raw_fd(), operation) == 0 }
}

fn is_there(user: u32) -> bool {
    Command::new("id").arg(name(user)).output().is_ok_and(|output| output.status.success())
}

fn add(user: u32) {
    let (name, number) = (name(user), user.to_string());
    succeeds(Command::new("groupadd").args(["--system", "--gid", &number, name]));
    let as_told =
        ["--system", "--uid", &number, "--gid", &number, "--create-home", "--shell", "/bin/sh", name];
    succeeds(Command::new("useradd").args(as_told));
}

/// A user can't be removed while a process of his is still about to end.
fn remove(user: u32) {
    for _ in 0..100 {
        let _ = Command::new("userdel").args(["--remove", name(user)]).output();
        if !is_there(user) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("the user {} is still there", name(user));
}
