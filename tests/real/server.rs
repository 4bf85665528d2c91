//! An HTTP server under load: it comes back with its state, at its port, and its clients go on.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::time::Duration;

use crate::afterlife::{bring_back, bring_back_with};
use crate::harness::{Lab, Subject, USR2, eventually, manifest, program};

#[path = "server/clients.rs"]
mod clients;

use clients::{Client, Connection, follow_journal};

const CLIENTS: usize = 10;

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(2);

/// A server that is silent for so long has forgotten a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// `lock` is how its connections are locked meanwhile.
fn comes_back_with_its_state(lab: &Lab, server: Subject, lock: &str) {
    let line = server.wait_for("listens on 127.0.0.1:");
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let clients: Vec<Client> =
        (0..CLIENTS).map(|number| Client::start(number, port, PAUSE, PATIENCE)).collect();
    let all = |what: &str, test: &dyn Fn(&Client, usize) -> bool| {
        eventually(what, || {
            assert!(
                clients.iter().all(Client::is_at_work),
                "every answer of a connection follows on the one before"
            );
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
    assert!(clients.iter().all(|client| client.firsts().len() == 1), "none was lost");

    server.crash();
    let back = bring_back(lab, "server");
    all("every client connects anew", &|client, _| client.firsts().len() == 2);
    for (number, client) in clients.iter().enumerate() {
        // It counts on from the checkpoint: the one request more is one that wasn't answered then.
        let in_checkpoint = before[number]..=after[number] + 1;
        assert!(in_checkpoint.contains(&(first(client) - 1)), "{}: {in_checkpoint:?}", first(client));
    }
    all("every client goes on", &|client, _| client.acknowledged() > first(client) + 10);
    drop(clients);
    every_change_is_in_the_journal_once(lab, port);
    back.program.crash();
}

/// What was counted between the checkpoint and the crash is forgotten in memory and in the file alike.
fn every_change_is_in_the_journal_once(lab: &Lab, port: u16) {
    let mut server = Connection::open(port, PATIENCE).expect("a connection");
    let journal = fs::read_to_string(lab.path("journal.txt")).expect("the journal");
    let counted = follow_journal(&journal).expect("every change once");
    for number in 0..CLIENTS {
        let counter = format!("client{number}");
        assert_eq!(counted[&counter], server.ask("GET", &counter).expect("an answer"), "{counter}");
    }
    assert_eq!(counted.len(), CLIENTS);
}

/// The first answer of its last connection.
fn first(client: &Client) -> u64 {
    *client.firsts().last().expect("a connection")
}

#[test]
fn a_server_with_ten_clients_comes_back_with_its_state() {
    let lab = Lab::new();
    let server = lab.program("server").arg("0").arg(lab.path("journal.txt")).start();
    comes_back_with_its_state(&lab, server, "skip");
}

#[test]
fn a_server_whose_connections_are_to_be_kept_comes_back_without_them_as_well() {
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
    let server = server.env("PATH", "/usr/bin:/bin").env("SELFDUMP_KEEP_TCP", "on").start();
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

#[test]
fn connections_are_kept_only_from_a_checkpoint_that_was_made_for_it() {
    let lab = Lab::new();
    let server = lab.program("server").arg("0").start();
    let line = server.wait_for("listens on 127.0.0.1:");
    let port = line.rsplit(':').next().unwrap().parse().unwrap();
    let mut connection = Connection::open(port, PATIENCE).expect("a connection");
    assert_eq!(connection.ask("POST", "one").expect("an answer"), 1);
    server.signal(USR2);
    lab.wait_for_checkpoint(1);
    server.crash();
    let kept = lab.run(["restore", "server", "--tcp", "keep"]);
    let said = String::from_utf8_lossy(&kept.stderr);
    assert!(said.contains("doesn't have what its TCP connections need to go on"), "{said}");
    assert!(said.contains("SELFDUMP_KEEP_TCP=on"), "{said}");
    bring_back(&lab, "server").program.crash();
}

#[test]
fn a_connection_goes_on_where_its_other_end_noticed_nothing() {
    let lab = Lab::new();
    let server = lab.program("server").arg("0").env("SELFDUMP_KEEP_TCP", "on").start();
    let line = server.wait_for("listens on 127.0.0.1:");
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let mut connection = Connection::open(port, PATIENCE).expect("a connection");
    assert_eq!(connection.ask("POST", "one").expect("an answer"), 1);
    server.signal(USR2);
    lab.wait_for_checkpoint(1);
    let unplugged = Unplugged::at(port);
    server.crash();
    // As after the loss of a machine: nobody is left who would say goodbye.
    run("ss", ["--kill", "--tcp", "--numeric", "sport", "=", &format!(":{port}")]);
    let back = bring_back_with(&lab, "server", &["--tcp", "keep"]);
    drop(unplugged);
    assert_eq!(connection.ask("POST", "one").expect("an answer"), 2);
    back.program.crash();
}

/// No packet comes from a port, as long as this is there.
struct Unplugged(u16);

impl Unplugged {
    fn at(port: u16) -> Unplugged {
        let unplugged = Unplugged(port);
        unplugged.rule("--insert");
        unplugged
    }

    fn rule(&self, what: &str) {
        let port = self.0.to_string();
        run("iptables", ["--wait", what, "OUTPUT", "--protocol", "tcp", "--sport", &port, "--jump", "DROP"]);
    }
}

impl Drop for Unplugged {
    fn drop(&mut self) {
        self.rule("--delete");
    }
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) {
    let ran =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
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
