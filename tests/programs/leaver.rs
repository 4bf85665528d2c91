//! A program that is to leave when it gets a SIGTERM, with a checkpoint. `leaver [SITUATION…]`
//!
//! It prints `tick N` through a buffer that it flushes with every tenth. The situations: `handler` (it has a handler
//! of its own for SIGTERM, which says `old handler`), `status=N` and `closure` (how it exits), `child` (it has a
//! child, which has no handlers of its own and only waits), `memory=MIB` (so much of it), `overwrite` (after the installation it puts a handler of
//! its own in the place of SIGUSR2's).

use std::io::{BufWriter, Write};
use std::time::Duration;

use selfdump::{Config, Exit};

extern "C" fn old_handler(_: libc::c_int) {
    let line = b"old handler\n";
    // SAFETY: the buffer is readable for its length.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::new().exit_signal("TERM".parse()?);
    let situations: Vec<String> = std::env::args().skip(1).collect();
    let is = |situation: &str| situations.iter().any(|known| known == situation);
    if is("handler") {
        handle(libc::SIGTERM);
    }
    if let Some(status) = situations.iter().find_map(|known| known.strip_prefix("status=")) {
        config = config.exit_with(Exit::Status(status.parse()?));
    }
    if is("closure") {
        config = config.exit_with(Exit::call(|checkpoint| {
            println!("leaving with {}", checkpoint.id);
            std::process::exit(77);
        }));
    }
    let mebibytes =
        situations.iter().find_map(|known| known.strip_prefix("memory=")?.parse().ok()).unwrap_or(0);
    let memory = vec![7_u8; mebibytes << 20];
    let handle_of_selfdump = config.install()?;
    handle_of_selfdump.on_restore(|restored| {
        // Not by the buffer, and not by println, whose lock another thread may have.
        let line = format!("restored generation {}\n", restored.generation);
        // SAFETY: the buffer is readable for its length.
        unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
    })?;
    if is("overwrite") {
        handle(libc::SIGUSR2);
    }
    if is("child") {
        have_a_child();
    }
    std::hint::black_box(&memory);
    let mut out = BufWriter::new(std::io::stdout());
    writeln!(out, "ready")?;
    for tick in 0_u64.. {
        writeln!(out, "tick {tick}")?;
        if tick % 10 == 0 {
            out.flush()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn handle(signal: libc::c_int) {
    // SAFETY: an all-zero sigaction has an empty mask and no flags; the handler writes and does nothing else.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = old_handler as *const () as libc::sighandler_t;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

fn have_a_child() {
    // SAFETY: no other thread of this program holds a lock: selfdump's waits in poll.
    match unsafe { libc::fork() } {
        0 => loop {
            // SAFETY: it only waits for signals.
            unsafe { libc::pause() };
        },
        child => println!("child {child}"),
    }
}
