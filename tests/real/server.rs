//! An HTTP server under load: it comes back with its state, at its port, and its clients go on.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::str;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::afterlife::bring_back;
use crate::harness::{Lab, Subject, USR2, eventually, manifest, program};

const CLIENTS: usize = 10;

/// A client that counts a counter of its own up, and connects anew whenever it has lost its server.
struct Client {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

/// What a client has seen of its server.
#[derive(Default)]
struct Seen {
    /// The last answer.
    acknowledged: AtomicU64,
    /// The first answer of each connection.
    firsts: Mutex<Vec<u64>>,
    stop: AtomicBool,
}

impl Client {
    fn start(number: usize, port: u16) -> Client {
        let seen = Arc::new(Seen::default());
        let thread = {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                while !seen.stop.load(Ordering::Relaxed) {
                    // The end of a connection is the end of its server.
                    let _ = Connection::open(port).and_then(|server| count_up(number, server, &seen));
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        };
        Client { seen, thread: Some(thread) }
    }

    fn acknowledged(&self) -> u64 {
        self.seen.acknowledged.load(Ordering::Relaxed)
    }

    fn connections(&self) -> usize {
        self.seen.firsts.lock().expect("whole").len()
    }

    /// The first answer of its last connection.
    fn first(&self) -> u64 {
        *self.seen.firsts.lock().expect("whole").last().expect("a connection")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a thread").expect("every answer of a connection is its last one and one more");
        }
    }
}

/// Counts up over one connection, for as long as that lasts.
fn count_up(number: usize, mut server: Connection, seen: &Seen) -> io::Result<()> {
    let mut last = None;
    while !seen.stop.load(Ordering::Relaxed) {
        let answer = server.ask("POST", &format!("client{number}"))?;
        match last {
            Some(last) => assert_eq!(answer, last + 1, "client {number}"),
            None => seen.firsts.lock().expect("whole").push(answer),
        }
        last = Some(answer);
        seen.acknowledged.store(answer, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A connection that is kept for one request after the other.
struct Connection(TcpStream);

impl Connection {
    fn open(port: u16) -> io::Result<Connection> {
        let server = TcpStream::connect(("127.0.0.1", port))?;
        // One that is silent for so long has forgotten this connection.
        server.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Connection(server))
    }

    /// The value of a counter.
    fn ask(&mut self, method: &str, counter: &str) -> io::Result<u64> {
        let head = format!("{method} /counters/{counter} HTTP/1.1\r\nHost: lab\r\nContent-Length: 0\r\n\r\n");
        self.0.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        loop {
            let mut part = [0; 1024];
            let count = self.0.read(&mut part)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&part[..count]);
            if let Some(body) = body(&answer) {
                return Ok(body.parse().expect("a number"));
            }
        }
    }
}

/// The body of an answer, once that is there as a whole.
fn body(answer: &[u8]) -> Option<&str> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(answer).expect("HTTP") else { return None };
    assert_eq!(response.code, Some(200));
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Content-Length"));
    let length: usize = str::from_utf8(length.expect("a length").value).unwrap().parse().expect("a number");
    answer.get(start..start + length).map(|body| str::from_utf8(body).expect("text"))
}

/// `lock` is what follows from the firewall tools that the server finds.
fn comes_back_with_its_state(lab: &Lab, server: Subject, lock: &str) {
    let line = server.wait_for("listens on 127.0.0.1:");
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let clients: Vec<Client> = (0..CLIENTS).map(|number| Client::start(number, port)).collect();
    let all = |what: &str, test: &dyn Fn(&Client, usize) -> bool| {
        eventually(what, || {
            clients.iter().enumerate().all(|(number, client)| test(client, number)).then_some(())
        });
    };
    all("every client is at work", &|client, _| client.acknowledged() > 10);

    let before: Vec<u64> = clients.iter().map(Client::acknowledged).collect();
    server.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let needs = manifest(&checkpoint)["criu"]["needs"].clone();
    assert_eq!((&needs["tcp_established"], needs["network_lock"].as_str()), (&true.into(), Some(lock)));
    let after: Vec<u64> = clients.iter().map(Client::acknowledged).collect();
    all("the clients go on over the same connections", &|client, number| {
        client.acknowledged() > after[number] + 10
    });
    assert!(clients.iter().all(|client| client.connections() == 1), "none was lost");

    server.crash();
    let back = bring_back(lab, "server");
    all("every client connects anew", &|client, _| client.connections() == 2);
    for (number, client) in clients.iter().enumerate() {
        // It counts on from the checkpoint: the one request more is one that wasn't answered then.
        let in_checkpoint = before[number]..=after[number] + 1;
        assert!(in_checkpoint.contains(&(client.first() - 1)), "{}: {in_checkpoint:?}", client.first());
    }
    all("every client goes on", &|client, _| client.acknowledged() > client.first() + 10);
    drop(clients);
    every_change_is_in_the_journal_once(lab, port);
    back.program.crash();
}

/// What was counted between the checkpoint and the crash is forgotten in memory and in the file alike.
fn every_change_is_in_the_journal_once(lab: &Lab, port: u16) {
    let mut server = Connection::open(port).expect("a connection");
    let journal = fs::read_to_string(lab.path("journal.txt")).expect("the journal");
    let mut changes = 0;
    for number in 0..CLIENTS {
        let value = server.ask("GET", &format!("client{number}")).expect("an answer");
        let own = format!("client{number} ");
        let counted: Vec<&str> = journal.lines().filter_map(|line| line.strip_prefix(&own)).collect();
        assert_eq!(counted, (1..=value).map(|value| value.to_string()).collect::<Vec<_>>(), "{own}");
        changes += counted.len();
    }
    assert_eq!(journal.lines().count(), changes);
}

#[test]
fn a_server_with_ten_clients_comes_back_with_its_state() {
    let is_there = |program: &str| {
        ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(program).is_file())
    };
    let lock = match (is_there("iptables"), is_there("nft")) {
        (true, _) => "default",
        (false, true) => "nftables",
        (false, false) => "skip",
    };
    let lab = Lab::new();
    // As for many a user: the folders of root's programs, where iptables is, aren't on it.
    let server = lab.program("server").arg("0").arg(lab.path("journal.txt"));
    let server = server.env("PATH", "/usr/bin:/bin").start();
    comes_back_with_its_state(&lab, server, lock);
}

#[test]
fn a_server_with_ten_clients_comes_back_where_there_is_no_firewall() {
    let lab = Lab::new();
    let mut command = Command::new(program("server"));
    command.arg("0").arg(lab.path("journal.txt"));
    hide_the_firewall(&mut command, &lab.path("server.out"));
    let server = lab.launch(command, "server").start();
    comes_back_with_its_state(&lab, server, "skip");
}

/// Has a program run in a mount namespace in which root's programs aren't to be seen. What it has open has
/// to be on mounts of that namespace, so its streams are opened in there, and it inherits nothing else (the
/// tests themselves may have been started with more).
fn hide_the_firewall(command: &mut Command, output: &Path) {
    let output = CString::new(output.as_os_str().as_bytes()).expect("a path");
    let done = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    let enter = move || {
        let (null, none, tmpfs) = (c"/dev/null".as_ptr(), c"none".as_ptr(), c"tmpfs".as_ptr());
        // SAFETY: system calls on strings that live as long as this closure, and on descriptors of the new
        // process, which nobody else uses yet.
        unsafe {
            done(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            done(libc::mount(none, c"/".as_ptr(), ptr::null(), private, ptr::null()))?;
            for folder in [c"/usr/local/sbin", c"/usr/sbin"] {
                done(libc::mount(none, folder.as_ptr(), tmpfs, 0, ptr::null()))?;
            }
            let rest = libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            done(rest as libc::c_int)?;
            for stream in 0..=2 {
                let file = match stream {
                    0 => libc::open(null, libc::O_RDONLY | libc::O_CLOEXEC),
                    _ => libc::open(output.as_ptr(), libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC),
                };
                done(libc::dup2(done(file)?, stream))?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor locks.
    unsafe { command.pre_exec(enter) };
}
