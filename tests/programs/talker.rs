//! A client of a unix socket that says what it hears, and connects anew when the other end hangs up.
//! `talker SOCKET`; `talker stdin` to hear what comes from there; `talker terminal` to talk to itself through a
//! pseudoterminal of which it has both ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn main() -> Result<(), selfdump::Error> {
    let _handle = selfdump::install()?;
    let from = std::env::args().nth(1).unwrap_or_default();
    if from == "stdin" {
        hear(std::io::stdin().lock());
    }
    if from == "terminal" {
        talk_to_itself();
    }
    loop {
        match UnixStream::connect(&from) {
            Ok(connection) => {
                hear(BufReader::new(connection));
                say("the other end has hung up");
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Until there is nothing more to come.
fn hear(from: impl BufRead) {
    for line in from.lines().map_while(Result::ok) {
        say(&format!("heard {line}"));
    }
}

/// One write for each line.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

fn talk_to_itself() {
    // A pseudoterminal comes back under its own number, which somebody else may have then. Higher ones are seldom
    // taken; CRIU tries 32 to come to it.
    let mut pairs: Vec<(File, File)> = (0..20).map(|_| pseudoterminal()).collect();
    let (mut master, slave) = pairs.pop().expect("there are twenty");
    drop(pairs);
    std::thread::spawn(move || hear(BufReader::new(slave)));
    for number in 0_u64.. {
        let _ = master.write_all(format!("{number}\n").as_bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pseudoterminal() -> (File, File) {
    let (mut master, mut slave) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: two descriptors are written to values that live until the call returns; nothing else is asked for.
    assert_eq!(unsafe { libc::openpty(&raw mut master, &raw mut slave, none, none.cast(), none.cast()) }, 0);
    // SAFETY: the call succeeded, so both are open and ours.
    unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) }
}
