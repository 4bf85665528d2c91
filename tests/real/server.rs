//! A server under load: it comes back with its state, at its port, and its clients go on.

use std::ffi::CString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::afterlife::bring_back;
use crate::harness::{Lab, Subject, USR2, eventually, manifest, program};

const CLIENTS: usize = 10;

/// A client that counts a counter of its own up, and connects anew whenever it has lost its server.
struct Client {
    /// What the server has acknowledged last.
    acknowledged: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    fn start(number: usize, port: u16) -> Client {
        let (acknowledged, connections, stop) = (Arc::default(), Arc::default(), Arc::default());
        let mut client = Client { acknowledged, connections, stop, thread: None };
        let (acknowledged, connections, stop) =
            (Arc::clone(&client.acknowledged), Arc::clone(&client.connections), Arc::clone(&client.stop));
        client.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                // One that is silent for so long has forgotten this connection.
                server.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
                connections.fetch_add(1, Ordering::Relaxed);
                count_up(number, &server, &acknowledged, &stop);
            }
        }));
        client
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn count_up(number: usize, mut server: &TcpStream, acknowledged: &AtomicU64, stop: &AtomicBool) {
    let mut answers = BufReader::new(server).lines();
    while !stop.load(Ordering::Relaxed) && writeln!(server, "add client{number}").is_ok() {
        let Some(Ok(answer)) = answers.next() else { return };
        acknowledged.store(answer.parse().expect("a number"), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One question, over a connection of its own.
fn ask(port: u16, question: &str) -> Option<String> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    server.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    writeln!(server, "{question}").ok()?;
    BufReader::new(server).lines().next()?.ok()
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
        client.acknowledged() > after[number]
    });
    assert!(clients.iter().all(|client| client.connections.load(Ordering::Relaxed) == 1), "none was lost");

    server.crash();
    let known: Vec<u64> = clients.iter().map(|client| client.connections.load(Ordering::Relaxed)).collect();
    let back = bring_back(lab, "server");
    let counters: Vec<u64> = (0..CLIENTS)
        .map(|number| eventually("an answer", || ask(port, &format!("get client{number}"))?.parse().ok()))
        .collect();
    for number in 0..CLIENTS {
        assert!(counters[number] >= before[number], "client {number}: {counters:?} after {before:?}");
    }
    all("every client connects anew and goes on", &|client, number| {
        client.connections.load(Ordering::Relaxed) > known[number]
            && client.acknowledged() > counters[number] + 10
    });
    drop(clients);
    back.program.crash();
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
    let server = lab.program("server").arg("0").env("PATH", "/usr/bin:/bin").start();
    comes_back_with_its_state(&lab, server, lock);
}

#[test]
fn a_server_with_ten_clients_comes_back_where_there_is_no_firewall() {
    let lab = Lab::new();
    let mut command = Command::new(program("server"));
    command.arg("0");
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
