//! Says to a service what it is told to, byte by byte, and prints what it hears. `speaker SOCKET OP…`:
//!
//! - `send:HEX` sends a message, `with:HEX:PATH[:PATH]` one that descriptors of these files go along with
//! - `hear` prints the next answer's text, or `end`
//! - `swap:LINK:ONE:OTHER` has a thread point the link now to the one, now to the other
//! - `orphan` goes on in a child, whose parent, which is connected, has ended
//! - `flood:COUNT` opens so many connections more, and keeps them
//! - `wait` waits for a line on standard input

use std::fs::File;
use std::io::{BufRead, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, socket,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, operations) = arguments.split_first().expect("a socket");
    let connection = connected(path);
    let mut kept = Vec::new();
    for operation in operations {
        let mut parts = operation.split(':');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        match next().as_str() {
            "send" => send(&connection, &next(), &[]),
            "with" => {
                let bytes = next();
                let files: Vec<File> = parts.map(|path| File::open(path).expect("a file")).collect();
                send(&connection, &bytes, &files);
            }
            "hear" => println!("{}", hear(&connection)),
            "swap" => swap(next(), [next(), next()]),
            "orphan" => orphan(),
            "flood" => {
                let count: usize = next().parse().expect("a number");
                kept.extend((0..count).map(|_| connected(path)));
                println!("flooded");
            }
            "wait" => drop(std::io::stdin().lock().lines().next()),
            other => panic!("{other}?"),
        }
    }
}

fn connected(path: &str) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    connect(socket.as_raw_fd(), &UnixAddr::new(Path::new(path)).expect("a path")).expect("a connection");
    socket
}

/// What the service says no to it may not even read.
fn send(connection: &OwnedFd, hex: &str, files: &[File]) {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect();
    let descriptors: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let along = [ControlMessage::ScmRights(&descriptors)];
    let along = if files.is_empty() { &[] } else { &along[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    if let Err(error) =
        sendmsg::<UnixAddr>(connection.as_raw_fd(), &[IoSlice::new(&bytes)], along, flags, None)
    {
        println!("not sent: {error}");
    }
}

/// The printable part of an answer.
fn hear(connection: &OwnedFd) -> String {
    let mut buffer = vec![0; 1 << 16];
    match recv(connection.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        Ok(0) | Err(_) => "end".to_owned(),
        Ok(length) => {
            let shown = buffer[..length]
                .iter()
                .map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' });
            format!("heard {}", shown.collect::<String>())
        }
    }
}

fn swap(link: String, targets: [String; 2]) {
    let aside = format!("{link}.new");
    std::thread::spawn(move || {
        for target in targets.iter().cycle() {
            let _ = std::fs::remove_file(&aside);
            let _ = symlink(target, &aside).and_then(|()| std::fs::rename(&aside, &link));
        }
    });
}

fn orphan() {
    let parent = std::process::id();
    // SAFETY: there is one thread, and the child goes on as this program.
    if unsafe { libc::fork() } > 0 {
        std::process::exit(0);
    }
    while std::os::unix::process::parent_id() == parent {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
