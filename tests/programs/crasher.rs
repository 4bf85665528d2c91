//! A program that goes wrong in a thread named `worker` when it gets a SIGUSR1. `crasher HOW`: `panic`, `caught` (a
//! panic from which it goes on), `segv` (a null dereference), `fpe`, `ill`, `bus` (beyond
//! the end of a mapped file), `abort`, `overflow` (of the stack), `hold` (a
//! panic while it holds up checkpoints).
//!
//! The functions that fail are named for it: `deep_in_trouble`, called by `on_the_way`.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn main() -> Result<(), selfdump::Error> {
    let how = std::env::args().nth(1).unwrap_or_default();
    dump_core();
    let handle = selfdump::install()?;
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked)).expect("a handler");
    let worker = std::thread::Builder::new().name("worker".to_owned());
    let worker = worker.spawn(move || {
        while !asked.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _whole = (how == "hold").then(|| handle.hold());
        if how == "caught" {
            let caught = std::panic::catch_unwind(|| on_the_way("panic"));
            println!("caught {}", caught.is_err());
        } else {
            on_the_way(&how);
        }
    });
    println!("ready");
    let ended = worker.expect("a thread").join();
    println!("the worker ended, panicked: {}", ended.is_err());
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

#[inline(never)]
fn on_the_way(how: &str) {
    deep_in_trouble(how);
    black_box(how);
}

#[inline(never)]
fn deep_in_trouble(how: &str) {
    match how {
        "panic" | "hold" => panic!("in trouble: {}", black_box(6) * 7),
        // SAFETY: it is what is being tested: nobody is there, and the kernel says so.
        "segv" => unsafe { std::ptr::write_volatile(black_box(std::ptr::null_mut()), 42) },
        "fpe" => raise(libc::SIGFPE),
        "ill" => raise(libc::SIGILL),
        "bus" => write_beyond_a_file(),
        "abort" => std::process::abort(),
        "overflow" => println!("{}", descend(0)),
        other => println!("no such trouble: {other}"),
    }
    black_box(how);
}

fn raise(signal: libc::c_int) {
    // SAFETY: a signal of this thread to itself, as the processor's exception would be: Rust checks its divisions.
    unsafe { libc::raise(signal) };
}

fn write_beyond_a_file() {
    let file = tempfile::tempfile().expect("a file");
    let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, std::os::fd::AsRawFd::as_raw_fd(&file));
    // SAFETY: a new mapping; that its page isn't there is what is being tested.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, fd, 0);
        assert_ne!(page, libc::MAP_FAILED, "a mapping");
        std::ptr::write_volatile(black_box(page.cast::<u8>()), 42);
    }
}

/// Uses up the stack.
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    if depth == u64::MAX { 0 } else { descend(depth + 1) + frame[depth as usize % 512] }
}

/// Lets a crash leave a core.
fn dump_core() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a value that lives until the call returns.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &unlimited) };
}
