//! A program that looks whether anything is done to it. `unchanged THREADS`
//!
//! Each thread blocks signals of its own, and finds that it does; one waits for any child all the time, and none is there;
//! a handler counts each SIGCHLD, and others each fork (pthread_atfork). `looked N` comes now and then, and `wrong …` where
//! something is not as it was. At a SIGUSR1
//! it waits for children of all kinds, clones without a signal among them: `no child N`. (While a checkpoint begins, there
//! is such a one for a moment.)

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

static CHILDREN_ENDED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: i32) {
    CHILDREN_ENDED.fetch_add(1, Ordering::Relaxed);
}

static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

fn main() -> Result<(), selfdump::Error> {
    let threads: i32 = std::env::args().nth(1).and_then(|count| count.parse().ok()).expect("THREADS");
    let counter: extern "C" fn(i32) = count;
    // SAFETY: the handlers only count.
    unsafe {
        libc::signal(libc::SIGCHLD, counter as usize);
        libc::pthread_atfork(Some(count_fork), Some(count_fork), Some(count_fork));
    }
    let (asked, mut asks) = (Arc::new(AtomicBool::new(false)), 0);
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked)).expect("a handler");
    let _handle = selfdump::install()?;
    std::thread::spawn(wait_for_children);
    for thread in 0..threads {
        std::thread::spawn(move || look(thread));
    }
    say("ready");
    for turn in 0_u64.. {
        std::thread::sleep(Duration::from_millis(50));
        if asked.swap(false, Ordering::Relaxed) {
            asks += 1;
            say(&child(libc::__WALL)
                .map_or(format!("no child {asks}"), |child| format!("wrong: a clone {child}")));
        }
        match (CHILDREN_ENDED.load(Ordering::Relaxed), FORKS.load(Ordering::Relaxed)) {
            (0, 0) => say(&format!("looked {turn}")),
            (ended, forks) => {
                say(&format!("wrong: {ended} children have ended, {forks} handlers of a fork ran"))
            }
        }
    }
    Ok(())
}

fn wait_for_children() {
    loop {
        if let Some(child) = child(0) {
            say(&format!("wrong: a child {child}"));
        }
        std::thread::yield_now();
    }
}

/// The child that a wait finds; 0 is one that hasn't ended.
fn child(kinds: i32) -> Option<i32> {
    // SAFETY: no status is asked for, so nothing is written.
    let found = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | kinds) };
    let why = std::io::Error::last_os_error();
    (found != -1 || why.raw_os_error() != Some(libc::ECHILD)).then_some(found)
}

fn look(thread: i32) {
    let own = mask(Some(libc::SIGRTMIN() + 3 + thread % 16));
    loop {
        // SAFETY: errno is the thread's own.
        unsafe { *libc::__errno_location() = 4000 + thread };
        for _ in 0..10_000 {
            // SAFETY: takes and returns a number.
            unsafe { libc::getppid() };
        }
        // SAFETY: the same.
        let errno = unsafe { *libc::__errno_location() };
        if errno != 4000 + thread {
            say(&format!("wrong: errno is {errno} in thread {thread}"));
        }
        let now = mask(None);
        if now != own {
            say(&format!("wrong: thread {thread} blocks {now:x}, not {own:x}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Blocks one signal more; all that are blocked then.
fn mask(blocks: Option<i32>) -> u64 {
    // SAFETY: sets that live until the calls return; a kernel's set of signals is what its first eight bytes are.
    unsafe {
        let (mut more, mut now): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut more);
        if let Some(signal) = blocks {
            libc::sigaddset(&raw mut more, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const more, std::ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
        (&raw const now).cast::<u64>().read()
    }
}

/// One write for each line, so that lines of threads don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
