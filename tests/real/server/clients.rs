//! Clients of the example `server`, and what can be told from its journal.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::str;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A client that counts a counter of its own up, and connects anew whenever it has lost its server.
pub struct Client {
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
    /// `pause` is the time between two requests, `patience` that after which a server that says nothing counts as lost.
    pub fn start(number: usize, port: u16, pause: Duration, patience: Duration) -> Client {
        let seen = Arc::new(Seen::default());
        let thread = {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                let mut unanswered = 0;
                while !seen.stop.load(Ordering::Relaxed) {
                    // The end of a connection is the end of its server.
                    let _ = Connection::open(port, patience)
                        .and_then(|server| count_up(number, server, pause, &seen, &mut unanswered));
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        };
        Client { seen, thread: Some(thread) }
    }

    /// The last answer.
    pub fn acknowledged(&self) -> u64 {
        self.seen.acknowledged.load(Ordering::Relaxed)
    }

    /// The first answer of each of its connections.
    pub fn firsts(&self) -> Vec<u64> {
        self.seen.firsts.lock().expect("whole").clone()
    }

    /// It ends by itself only when an answer is not what has to follow on the one before.
    pub fn is_at_work(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        // Whether it went well is told by `is_at_work`.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Counts up over one connection, for as long as that lasts. Requests since the last answer may have been served or not.
fn count_up(
    number: usize,
    mut server: Connection,
    pause: Duration,
    seen: &Seen,
    unanswered: &mut u64,
) -> io::Result<()> {
    let mut last = None;
    // A request that the server had read when its checkpoint was made is served after the restore, by and by, though its
    // connection is gone. There was one at most, since a client waits for each answer.
    let mut left_over = u64::from(!seen.firsts.lock().expect("whole").is_empty());
    while !seen.stop.load(Ordering::Relaxed) {
        *unanswered += 1;
        let answer = server.ask("POST", &format!("client{number}"))?;
        match last {
            Some(last) => {
                let between = answer.wrapping_sub(last + 1);
                assert!(between <= left_over, "client {number}: {answer} is the answer after {last}");
                left_over -= between;
            }
            None => {
                let most = seen.acknowledged.load(Ordering::Relaxed) + *unanswered;
                assert!(answer <= most, "client {number} has not counted so far: {answer}, {most} at most");
                seen.firsts.lock().expect("whole").push(answer);
            }
        }
        *unanswered = 0;
        last = Some(answer);
        seen.acknowledged.store(answer, Ordering::Relaxed);
        std::thread::sleep(pause);
    }
    Ok(())
}

/// A connection that is kept for one request after the other.
pub struct Connection(TcpStream);

impl Connection {
    pub fn open(port: u16, patience: Duration) -> io::Result<Connection> {
        let server = TcpStream::connect(("127.0.0.1", port))?;
        // One that is silent for so long has forgotten this connection.
        server.set_read_timeout(Some(patience))?;
        Ok(Connection(server))
    }

    /// The value of a counter.
    pub fn ask(&mut self, method: &str, counter: &str) -> io::Result<u64> {
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

/// The value that each counter has come to by the server's journal; or the line that is not the next of its counter.
pub fn follow_journal(journal: &str) -> Result<HashMap<String, u64>, String> {
    let mut counted = HashMap::new();
    for line in journal.lines() {
        let (counter, value) = line.split_once(' ').ok_or_else(|| format!("a torn line: {line:?}"))?;
        let known: &mut u64 = counted.entry(counter.to_owned()).or_default();
        *known += 1;
        if value != known.to_string() {
            return Err(format!("`{line}` stands where {counter} comes to {known}"));
        }
    }
    Ok(counted)
}
