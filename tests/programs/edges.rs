//! Programs at the edge of what selfdump can know of. `edges SITUATION`; each says what came of it.

use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use selfdump::{Config, Exit, Handle, Outcome};

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> Done {
    match std::env::args().nth(1).unwrap_or_default().as_str() {
        "held-and-panicking" => held_and_panicking(),
        "panicking-often" => panicking_often(),
        "stderr-locked" => stderr_locked(),
        "hook-waits-for-the-panic" => hook_waits_for_the_panic(),
        "logger-panics" => logger_panics(),
        "child-closes-all" => child_closes_all(),
        "closes-all" => closes_all(),
        "child-and-uninstall" => child_and_uninstall(),
        "crash-in-a-hook's-time" => crash_in_a_hooks_time(),
        "allocator-locked" => allocator_locked(),
        "installs-again" => installs_again(),
        "generation" => generation(),
        "read-interrupted" => read_interrupted(),
        "exit-and-uninstall" => exit_and_uninstall(),
        "exit-panics" => exit_panics(),
        "abort-in-a-hook" => abort_in_a_hook(),
        other => Err(format!("no such situation: {other:?}").into()),
    }
}

/// One write, without a lock.
fn say(line: &str) {
    let line = format!("{line}\n");
    // SAFETY: the buffer is readable for its length.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

fn sleep(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Sends this process a signal.
fn send(signal: libc::c_int) {
    // SAFETY: numbers.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// Forks while no other thread is in the allocator: the child would find its lock taken for ever.
fn fork() -> libc::pid_t {
    // SAFETY: what this program locks beside that, it doesn't need in the child.
    locked(|| unsafe { libc::fork() })
}

/// Nobody is there, and the kernel says so.
fn crash() {
    // SAFETY: it is what is being tested.
    unsafe { std::ptr::write_volatile(std::hint::black_box(std::ptr::null_mut::<i32>()), 42) };
}

fn panic_and_catch() {
    let _ = thread::spawn(|| std::panic::catch_unwind(|| panic!("again"))).join();
}

/// The ticks of the processor that selfdump's thread has used.
fn ticks_of_the_agent() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("our threads").flatten();
    let named = |path: &std::path::Path| std::fs::read_to_string(path.join("comm")).unwrap_or_default();
    let agent = tasks.map(|task| task.path()).find(|path| named(path) == "selfdump\n").expect("the agent");
    let stat = std::fs::read_to_string(agent.join("stat")).expect("its statistics");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

/// How many of the 100 ticks of a second the agent uses when nothing happens.
fn say_how_busy() {
    let before = ticks_of_the_agent();
    sleep(1000);
    say(&format!("busy {}", ticks_of_the_agent() - before));
}

fn held_and_panicking() -> Done {
    let config = Config::new().on_panic(true).first_after(Duration::from_millis(300));
    let handle =
        config.every(Duration::from_secs(3600)).hold_timeout(Duration::from_millis(1000)).install()?;
    let hold = handle.hold()?;
    sleep(500);
    panic_and_catch();
    drop(hold);
    sleep(1500);
    say_how_busy();
    Ok(())
}

fn panicking_often() -> Done {
    let handle = Config::new().on_panic(true).every(Duration::from_millis(1000)).install()?;
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    handle.after_checkpoint(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    })?;
    let started = Instant::now();
    while attempts.load(Ordering::SeqCst) == 0 && started.elapsed() < Duration::from_secs(50) {
        sleep(300);
        panic_and_catch();
    }
    say(&format!("ordinary attempts {}", attempts.load(Ordering::SeqCst)));
    Ok(())
}

struct Logger(fn());

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        (self.0)();
    }

    fn flush(&self) {}
}

fn log_by(call: fn()) {
    log::set_logger(Box::leak(Box::new(Logger(call)))).expect("the only logger");
    log::set_max_level(log::LevelFilter::Info);
}

/// Panics while it is being written, which is when the stream is locked.
struct Bad;

impl std::fmt::Display for Bad {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("while it is written")
    }
}

fn stderr_locked() -> Done {
    log_by(|| eprintln!("logged"));
    let _handle = Config::new().on_panic(true).install()?;
    let _ = thread::spawn(|| eprintln!("{Bad}")).join();
    say("the panic went on");
    Ok(())
}

fn hook_waits_for_the_panic() -> Done {
    let handle = Config::new().on_panic(true).install()?;
    let mutex = Arc::new(Mutex::new(()));
    let in_hook = Arc::clone(&mutex);
    handle.before_checkpoint(move |_| {
        drop(in_hook.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    })?;
    let panicking = thread::spawn(move || {
        let _held = mutex.lock();
        send(libc::SIGUSR2);
        sleep(500);
        panic!("while a hook waits for us");
    });
    let _ = panicking.join();
    say("the panic went on");
    let outcome = handle.checkpoint().map_or_else(|error| error.to_string(), |_| "saved".to_owned());
    say(&format!("then {outcome}"));
    Ok(())
}

fn logger_panics() -> Done {
    log_by(|| {
        if thread::current().name() == Some("selfdump") {
            panic!("the logger can't write");
        }
    });
    let handle = Config::new().exit_signal("TERM".parse()?).install()?;
    let outcome = handle.checkpoint().map_or_else(|error| error.to_string(), |_| "saved".to_owned());
    say(&format!("first {outcome}"));
    let outcome = handle.checkpoint().map_or_else(|error| error.to_string(), |_| "saved".to_owned());
    say(&format!("second {outcome}"));
    send(libc::SIGTERM);
    sleep(60_000);
    say("the exit signal is lost");
    Ok(())
}

fn close_from(first: RawFd) {
    // SAFETY: system call on numbers.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_int::MAX, 0) };
}

/// What a program does that makes itself a daemon.
fn child_closes_all() -> Done {
    let _handle = Config::new().install()?;
    if fork() != 0 {
        // SAFETY: no status is asked for.
        unsafe { libc::wait(std::ptr::null_mut()) };
        return Ok(());
    }
    close_from(3);
    let mut files = (0..6).map(|_| tempfile::tempfile()).collect::<Result<Vec<_>, _>>()?;
    let worker = thread::Builder::new().stack_size(512 * 1024).spawn(|| sleep(300))?;
    let handle = Config::new().name("child").install()?;
    let written = files.iter_mut().map(|file| usize::from(file.write_all(b"data").is_ok())).sum::<usize>();
    say(&format!("{written} of {} files are as they were", files.len()));
    say(&format!("its thread ended well: {}", worker.join().is_ok()));
    say(&format!("its own checkpoint: {}", handle.checkpoint().is_ok()));
    Ok(())
}

fn closes_all() -> Done {
    let handle = Config::new().install()?;
    sleep(200);
    close_from(3);
    let (theirs, mut sink) = UnixStream::pair()?;
    sink.write_all(b"my data")?;
    sleep(200);
    say_how_busy();
    let mut count: libc::c_int = 0;
    // SAFETY: the count is written to a value that lives until the call returns.
    unsafe { libc::ioctl(theirs.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    say(&format!("{count} of 7 bytes are there"));
    say(&format!("a checkpoint: {}", handle.checkpoint().is_ok()));
    Ok(())
}

fn child_and_uninstall() -> Done {
    let handle = Config::new().install()?;
    handle.before_checkpoint(|_| {
        sleep(1000);
        Ok(())
    })?;
    send(libc::SIGUSR2);
    sleep(200);
    let uninstalling = thread::spawn(move || handle.uninstall());
    sleep(200);
    let child = fork();
    if child == 0 {
        let installed = Config::new().name("child").install();
        say(&format!("the child has installed it: {}", installed.is_ok()));
        // SAFETY: it doesn't return.
        unsafe { libc::_exit(0) };
    }
    let uninstalled = uninstalling.join().map_err(|_| "a panic")?;
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    say(&format!("uninstalled during a checkpoint: {}", uninstalled.is_ok()));
    Ok(())
}

fn crash_in_a_hooks_time() -> Done {
    let handle = Config::new().on_fatal_signal(true).install()?;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    thread::spawn(move || {
        let _ = wait.recv();
        crash();
    });
    let go = Mutex::new(go);
    handle.before_checkpoint(move |_| {
        let _ = go.lock().map(|go| go.send(()));
        sleep(300);
        Ok(())
    })?;
    let outcome = handle.checkpoint().map_or_else(|error| error.to_string(), |_| "saved".to_owned());
    say(&format!("outcome {outcome}"));
    sleep(60_000);
    Ok(())
}

/// An allocator with one lock, in which a thread crashes.
struct Locked;

static LOCK: AtomicBool = AtomicBool::new(false);
static CRASH_INSIDE: AtomicBool = AtomicBool::new(false);

fn locked<T>(call: impl FnOnce() -> T) -> T {
    while LOCK.swap(true, Ordering::SeqCst) {
        thread::yield_now();
    }
    if CRASH_INSIDE.swap(false, Ordering::SeqCst) {
        crash();
    }
    let result = call();
    LOCK.store(false, Ordering::SeqCst);
    result
}

// SAFETY: the system's allocator does the work.
unsafe impl std::alloc::GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        // SAFETY: as our caller promises.
        locked(|| unsafe { std::alloc::System.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: as our caller promises.
        locked(|| unsafe { std::alloc::System.dealloc(pointer, layout) });
    }
}

#[global_allocator]
static ALLOCATOR: Locked = Locked;

fn allocator_locked() -> Done {
    let _handle = Config::new().on_fatal_signal(true).install()?;
    sleep(300);
    CRASH_INSIDE.store(true, Ordering::SeqCst);
    drop(std::hint::black_box(Box::new(42)));
    Ok(())
}

fn installs_again() -> Done {
    for _ in 0..3 {
        let handle = Config::new().keep(1).install()?;
        handle.checkpoint()?;
        handle.checkpoint()?;
        handle.uninstall()?;
    }
    say("done");
    Ok(())
}

fn generation() -> Done {
    let handle = Config::new().install()?;
    say("ready");
    if matches!(handle.checkpoint()?, Outcome::Saved(_)) {
        sleep(600_000);
    }
    let first = selfdump::generation();
    handle.uninstall()?;
    let handle = Config::new().install()?;
    let saved: Result<Outcome, selfdump::Error> = Handle::checkpoint(&handle);
    say(&format!("generation {first} then {} saved {}", selfdump::generation(), saved.is_ok()));
    sleep(600_000);
    Ok(())
}

extern "C" fn nothing(_: libc::c_int) {}

/// A handler without SA_RESTART, which interrupts a read.
fn read_interrupted() -> Done {
    // SAFETY: an all-zero sigaction has an empty mask and no flags; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut());
    }
    let _handle = Config::new().install()?;
    let (reader, _sink) = UnixStream::pair()?;
    // SAFETY: it names the calling thread.
    let main = unsafe { libc::pthread_self() } as usize;
    thread::spawn(move || {
        sleep(500);
        // SAFETY: the main thread lives as long as the process.
        unsafe { libc::pthread_kill(main as libc::pthread_t, libc::SIGUSR2) };
        sleep(20_000);
        say("the read was not interrupted");
        std::process::exit(1);
    });
    let mut byte = 0_u8;
    // SAFETY: the buffer is one byte.
    let read = unsafe { libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1) };
    say(&format!("the read was interrupted: {}", read < 0));
    Ok(())
}

fn exit_and_uninstall() -> Done {
    let handle = Config::new().exit_signal("TERM".parse()?).install()?;
    handle.before_checkpoint(|_| {
        sleep(700);
        Ok(())
    })?;
    send(libc::SIGUSR2);
    sleep(200);
    send(libc::SIGTERM);
    handle.uninstall()?;
    sleep(60_000);
    say("the exit signal is lost");
    Ok(())
}

fn exit_panics() -> Done {
    let exit = Exit::call(|_| panic!("on the way out"));
    let _handle = Config::new().exit_signal("TERM".parse()?).exit_with(exit).install()?;
    send(libc::SIGTERM);
    sleep(60_000);
    say("the exit signal is lost");
    Ok(())
}

fn abort_in_a_hook() -> Done {
    let handle = Config::new().on_fatal_signal(true).install()?;
    handle.before_checkpoint(|_| std::process::abort())?;
    let _ = handle.checkpoint();
    Ok(())
}
