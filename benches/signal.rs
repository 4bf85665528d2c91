//! From the signal until CRIU has been asked: `cargo bench --bench signal`.
//!
//! The program is this benchmark itself. Its CRIU is a service of its own that tells its version and refuses
//! every dump, so a round ends where CRIU's work would begin: the signal handler, the agent's waking up,
//! /proc, the draft, the look for space, the connection and the question about the version are in it, CRIU is
//! not. The start of a worker isn't either; `cargo xtask bench --only dumps` has that.

// criterion_group! makes a public function and writes no documentation for it.
#![allow(missing_docs)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{self, AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr};

/// How a request for a dump begins: its kind, as field 1.
const DUMP_REQUEST: [u8; 2] = [0x08, 1];

/// `kind: VERSION, success: true, version: { major: 4, minor: 2, patch: 1 }` in protobuf.
const VERSION_ANSWER: [u8; 12] = [0x08, 10, 0x10, 1, 0x52, 6, 0x08, 4, 0x10, 2, 0x20, 1];

/// `kind: DUMP, success: false`.
const REFUSAL: [u8; 4] = [0x08, 1, 0x10, 0];

/// Serves one connection after the other and tells when each request for a dump arrived.
fn serve(listener: &OwnedFd, arrivals: &Sender<Instant>) -> io::Result<()> {
    loop {
        let raw = socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the descriptor is new, and nobody else's.
        let connection = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut request = [0; 4096];
        loop {
            let length = socket::recv(connection.as_raw_fd(), &mut request, MsgFlags::empty())?;
            let arrived = Instant::now();
            if length == 0 {
                break;
            }
            let is_dump = request.starts_with(&DUMP_REQUEST);
            let answer = if is_dump { REFUSAL.as_slice() } else { VERSION_ANSWER.as_slice() };
            socket::send(connection.as_raw_fd(), answer, MsgFlags::MSG_NOSIGNAL)?;
            if is_dump && arrivals.send(arrived).is_err() {
                return Ok(());
            }
        }
    }
}

/// Listens at `path`, as `criu service` does; the times at which dumps were asked for come out.
fn service(path: &Path) -> io::Result<Receiver<Instant>> {
    let listener = socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&listener, Backlog::new(8)?)?;
    let (arrivals, arrived) = channel();
    std::thread::spawn(move || serve(&listener, &arrivals).expect("the service goes on"));
    Ok(arrived)
}

/// Asks by signal, as `kill -USR2` does; the time until CRIU was asked.
fn round(arrived: &Receiver<Instant>, store: &Path) -> Duration {
    let begun = SystemTime::now();
    let asked = Instant::now();
    raise(Signal::SIGUSR2).expect("a signal");
    let arrived = arrived.recv().expect("a request");
    // A signal during the rest of an attempt would wait for its end, which isn't what is measured.
    while !is_over(store, begun) {
        std::thread::sleep(Duration::from_millis(1));
    }
    arrived - asked
}

/// Whether an attempt that began since then has come to its end.
fn is_over(store: &Path, begun: SystemTime) -> bool {
    // The file holds whole microseconds.
    let begun = begun - Duration::from_micros(1);
    let statuses = selfdump::status::of_target(store, Path::new("bench")).unwrap_or_default();
    statuses.iter().filter_map(|status| status.last.as_ref()).any(|attempt| attempt.started >= begun)
}

fn signal_to_request(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, store) = (folder.path().join("criu.socket"), folder.path().join("store"));
    let arrived = service(&socket).expect("a service");
    let config = selfdump::Config::new().dir(&store).name("bench").service(&socket);
    let _ = config.install().expect("selfdump");
    criterion.bench_function("signal to request", |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| round(&arrived, &store)).sum());
    });
}

criterion_group!(signal, signal_to_request);
criterion_main!(signal);
