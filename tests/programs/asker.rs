//! A program that asks for checkpoints itself and says what came of them. `asker MEMORY_MIB [SITUATION…]`
//!
//! It prints `tick N` all the time. Each SIGUSR1 has it call `checkpoint()`; it prints `outcome K saved ID`,
//! `outcome K restored ID` or `outcome K error KIND | MESSAGE | HINT`. What selfdump logs goes to standard
//! error. A child that it meets, or a SIGCHLD, is none of its own (it has no children), and it says so.
//!
//! The situations: `shared=MIB` (as much memory in a shared mapping), `zeros=MIB` (as much that is all zero),
//! `connected=PORT` (over a TCP connection a byte goes
//! there at each tick, until it is `hung up`), `io-uring` (one is open, until SIGHUP),
//! `subreaper` (it adopts its orphans), `bare` (the machine's folders for root's programs are empty), `secret` (what nobody
//! else is to know stands in each page of its memory).

#[path = "secret.rs"]
mod secret;

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use selfdump::{Handle, Outcome};

fn main() -> Result<(), selfdump::Error> {
    log::set_logger(&Logger).expect("the only logger");
    log::set_max_level(log::LevelFilter::Info);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut memory = vec![7_u8; mebibytes(&arguments[0])];
    let (asked, relieved, met) = (flag(libc::SIGUSR1), flag(libc::SIGHUP), flag(libc::SIGCHLD));
    let (mut ring, mut connection, mut zeros) = (None, None, Vec::new());
    for situation in &arguments[1..] {
        match situation.split_once('=').unwrap_or((situation, "")) {
            ("shared", size) => share_memory(mebibytes(size)),
            ("connected", port) => {
                connection = Some(TcpStream::connect(format!("127.0.0.1:{port}")).expect("a peer"))
            }
            ("zeros", size) => zeros = touched(mebibytes(size)),
            ("io-uring", _) => ring = Some(open_io_uring()),
            ("subreaper", _) => become_subreaper(),
            ("bare", _) => empty_the_system_folders(),
            ("secret", _) => {
                let secret = secret::secret();
                memory.chunks_mut(4096).for_each(|page| page[64..][..secret.len()].copy_from_slice(&secret));
            }
            other => panic!("no such situation: {other:?}"),
        }
    }
    let handle = selfdump::install()?;
    std::thread::spawn(move || ask_when(&asked, &handle));
    say("ready");
    for tick in 0_u64.. {
        say(&format!("tick {tick}"));
        if connection.as_mut().is_some_and(|connection| connection.write_all(b".").is_err()) {
            connection = None;
            say("hung up");
        }
        if relieved.load(Ordering::Relaxed) && ring.take().is_some() {
            say("relieved");
        }
        if met.load(Ordering::Relaxed) || has_child() {
            say("met a child that is none of its own");
        }
        assert!(zeros.iter().step_by(4096).all(|&byte| byte == 0), "the zeros are as they were");
        assert_eq!(memory[tick as usize * 4096 % memory.len()], 7, "the memory is as it was");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Memory that has been written to, and is all zero.
fn touched(length: usize) -> Vec<u8> {
    let mut memory = vec![1; length];
    memory.fill(0);
    std::hint::black_box(memory)
}

fn mebibytes(text: &str) -> usize {
    text.parse::<usize>().expect("a number of MiB") << 20
}

/// A flag that the signal sets.
fn flag(signal: i32) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal, Arc::clone(&flag)).expect("a handler");
    flag
}

fn ask_when(asked: &AtomicBool, handle: &Handle) -> ! {
    let mut count = 0;
    loop {
        if asked.swap(false, Ordering::Relaxed) {
            count += 1;
            say(&match handle.checkpoint() {
                Ok(Outcome::Saved(checkpoint)) => format!("outcome {count} saved {}", checkpoint.id),
                Ok(Outcome::Restored(restored)) => format!("outcome {count} restored {}", restored.id),
                Err(error) => format!(
                    "outcome {count} error {} | {} | {}",
                    error.kind().name(),
                    error.chain(),
                    error.hint().unwrap_or("no hint")
                ),
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One write for each line, so that lines of threads don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // The text of an error has several lines; one line each is easier to look for.
        let text = record.args().to_string().replace('\n', " ");
        let _ = std::io::stderr().write_all(format!("log {} {text}\n", record.level()).as_bytes());
    }

    fn flush(&self) {}
}

/// Whether a wait for any child, as the program itself might do it at any time, finds one.
fn has_child() -> bool {
    // SAFETY: no status is asked for, so nothing is written.
    unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 }
}

/// Has pages in memory that are shared, as between processes, and so aren't counted as the program's own.
fn share_memory(size: usize) {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of `size` bytes, which are written within its bounds, and which stays.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), size, access, kind, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED, "a shared mapping");
        memory.cast::<u8>().write_bytes(7, size);
    }
}

fn open_io_uring() -> OwnedFd {
    // struct io_uring_params: 120 bytes, of which zeros ask for nothing special.
    let mut parameters = [0_u64; 15];
    // SAFETY: the kernel writes 120 bytes to the address given; the descriptor that it returns is ours.
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr());
        assert!(ring >= 0, "no io_uring: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(ring as i32)
    }
}

fn become_subreaper() {
    // SAFETY: plain values.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }, 0, "a subreaper");
}

/// Hides what is installed, in a mount namespace of its own.
fn empty_the_system_folders() {
    // SAFETY: the strings end with a zero and live as long as the calls.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "a mount namespace");
        let private = libc::MS_REC | libc::MS_PRIVATE;
        libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null());
        for folder in [c"/usr/local/sbin", c"/usr/sbin"] {
            let mounted =
                libc::mount(c"none".as_ptr(), folder.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null());
            assert_eq!(mounted, 0, "a mount on {folder:?}");
        }
    }
}
